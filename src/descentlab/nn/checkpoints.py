"""Checkpoints of a training: plain arrays in files. Nothing is unpickled, and damage is detected.

A file is an uncompressed .npz with a SHA-256 over its arrays as one more member. It gets its name once it is complete
and on the disk, so that a crash at any moment leaves the one before. `trainer.iterate` says what the arrays mean.
"""

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

KEPT = 2  # the newest file, and one more in case it is damaged
CHECKSUM = "sha256"
_WORD = 2**64 - 1


def write(folder: Path, arrays: Mapping[str, ndarray]) -> Path:
    """Write arrays as the next checkpoint of a folder, which keeps the last two.

    Args:
        folder: of one training; made if it is missing.
        arrays: as from `trainer.iterate`; `epoch` becomes part of the file's name.

    Returns:
        The file.

    Raises:
        OSError: if it cannot be written; earlier checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{int(arrays['epoch']):09d}.npz"
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **{**arrays, CHECKSUM: _checksum(arrays)})
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the new name must outlive a power cut too
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: Path, on_damaged: Callable[[str], None] | None = None) -> dict[str, ndarray] | None:
    """The newest undamaged checkpoint of a folder, or None.

    Args:
        folder: as for `write`; it need not exist.
        on_damaged: gets one line for every damaged file.
    """
    for path in _files(folder):
        try:
            return read(path)
        except (OSError, ValueError) as error:
            if on_damaged:
                on_damaged(str(error))
    return None


def read(path: Path) -> dict[str, ndarray]:
    """The arrays of a checkpoint.

    Raises:
        ValueError: a file that is damaged or is no checkpoint, in one line.
    """
    arrays = read_arrays(path)
    kept = arrays.pop(CHECKSUM, None)
    if kept is None or not np.array_equal(kept, _checksum(arrays)):
        raise ValueError(f"{path}: damaged: its checksum is {'missing' if kept is None else 'not that of its arrays'}")
    return arrays


def read_arrays(path: Path) -> dict[str, ndarray]:
    """The arrays of an uncompressed .npz, name -> array; never more memory than the file has bytes.

    NumPy's own reader believes a header that announces a terabyte. Here the size of every array is that of its bytes
    in the file, and its numbers are plain: no objects, no records, no pickles.

    Raises:
        ValueError: a file that is not such an archive, in one line.
        OSError: one that cannot be read.
    """
    size = path.stat().st_size
    arrays = {}
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
                        raise ValueError(f"{member.filename} is compressed")
                    arrays[member.filename.removesuffix(".npy")] = _array(archive.read(member), member.filename)
        except Exception as error:  # the readers of archives and headers raise many kinds
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path}: damaged, or not an archive of plain arrays: {text[:200]}") from error
    return arrays


def _array(data: bytes, name: str) -> ndarray:
    """One .npy: its header, then the numbers and nothing else."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} has format {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "biuf" or any(n < 0 for n in shape):
        raise ValueError(f"{name} has dtype {dtype} and shape {shape}; valid: plain numbers")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} announces shape {shape} and holds {len(data) - file.tell()} bytes")
    array = np.frombuffer(data, dtype, offset=file.tell()).copy()
    return array.reshape(shape, order="F" if fortran else "C")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.npz"), reverse=True)


def _checksum(arrays: Mapping[str, ndarray]) -> ndarray:
    """(32,) bytes: SHA-256 over names, dtypes, shapes and numbers."""
    return digest(
        part
        for name in sorted(arrays)
        for part in (f"{name} {arrays[name].dtype.str} {arrays[name].shape}", arrays[name])
    )


def digest(parts: Iterable[str | ndarray]) -> ndarray:
    """(32,) bytes: SHA-256 over texts and the numbers of arrays, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() + b"\n" if isinstance(part, str) else np.ascontiguousarray(part).data)
    return np.frombuffer(found.digest(), dtype=np.uint8)


def stream_states(generators: Sequence[np.random.Generator]) -> ndarray:
    """States of PCG64 streams: (r, 6) whole numbers: state and increment in halves, and a spare half."""
    rows = np.zeros((len(generators), 6), dtype=np.uint64)
    for row, generator in zip(rows, generators, strict=True):
        at = generator.bit_generator.state
        state, increment = at["state"]["state"], at["state"]["inc"]
        row[:] = (
            state >> 64, state & _WORD, increment >> 64, increment & _WORD, at["has_uint32"], at["uinteger"],
        )  # fmt: skip
    return rows


def set_streams(generators: Sequence[np.random.Generator], rows: ndarray) -> None:
    """Set PCG64 streams to states from `stream_states`."""
    for row, generator in zip(rows.tolist(), generators, strict=True):
        state = {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]}
        generator.bit_generator.state = {
            "bit_generator": "PCG64", "state": state, "has_uint32": row[4], "uinteger": row[5],
        }  # fmt: skip
