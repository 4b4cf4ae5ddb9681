"""IDX files of images and labels, as MNIST, EMNIST and Fashion-MNIST have them."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data.content import MEGABYTES, content
from descentlab.data.paths import path_of
from descentlab.data.table import Table
from descentlab.values import InputError, refusal

_KINDS = {3: "images", 1: "labels"}  # by their number of dimensions


def idx(numbers: Mapping[str, Any]) -> Table:
    """The images and labels of a folder: training rows first, then those whose file names say test or t10k.

    Raises:
        InputError: for files that are missing, broken, or of more than one data set.
    """
    if numbers["path"] == "auto":
        raise refusal("data.path", "auto", "data=idx needs a folder of IDX files")
    folder = path_of(numbers["path"])
    found = _found(folder)
    parts = []
    for part in ("training", "test"):
        kinds = {kind: found.get((part, kind), []) for kind in _KINDS.values()}
        if part == "test" and not any(kinds.values()):
            continue
        for kind, paths in kinds.items():
            if len(paths) != 1:
                names = ", ".join(path.name for path in paths[:4])
                told = f"several files of {part} {kind} ({names}); leave one data set in it" if paths else ""
                raise refusal("data.path", str(folder), f"holds {told or f'no IDX file of {part} {kind}'}")
        images, labels = (read(kinds[kind][0], size, numbers["max_megabytes"]) for size, kind in _KINDS.items())
        check_pair(images, labels, kinds["labels"][0])
        parts.append((images, labels))
    if len({images.shape[1:] for images, _ in parts}) > 1:
        raise InputError(f"{folder}: images must be of one size")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    classes, codes = np.unique(labels, return_inverse=True)
    return Table(
        folder.name,
        images.reshape(len(images), -1),
        (codes[:, None] == np.arange(len(classes))).astype(np.uint8),
        "multiclass",
        labels=tuple(map(str, classes)),
        target_names=("label",),
        file=folder.name,
        tests=len(parts[1][1]) if len(parts) > 1 else 0,
    )


def _found(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The IDX files of a folder by part (training, test) and kind; of a file and its packed copy the file."""
    found: dict[tuple[str, str], list[Path]] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise refusal("data.path", str(folder), f"must be a folder of IDX files ({error.strerror})") from error
    for path in paths:
        if path.suffix == ".gz" and path.with_suffix("") in paths:
            continue
        part = "test" if re.search("test|t10k", path.name, re.IGNORECASE) else "training"
        if kind := _KINDS.get(_dimensions(path)):
            found.setdefault((part, kind), []).append(path)
    return found


def _dimensions(path: Path) -> int:
    """How many dimensions an IDX file of bytes has, 0 for another file."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.read(4)
    except (OSError, EOFError):
        return 0
    return head[3] if head[:3] == bytes((0, 0, 8)) and len(head) == 4 else 0


def read(path: Path, dimensions: int, megabytes: int = MEGABYTES) -> ndarray:
    """An IDX file of unsigned bytes: magic 0 0 8 d, d sizes of four bytes, then the values.

    Raises:
        InputError: for a file that is none, or that holds more or less than its header promises.
    """
    held = content(path, megabytes)
    head = 4 + 4 * dimensions
    if held[:4] != bytes((0, 0, 8, dimensions)):
        started = held[:4].hex(" ") or "nothing"
        raise InputError(f"{path}: starts with {started}, not as an IDX file of {_KINDS[dimensions]}")
    if len(held) < head:
        raise InputError(f"{path}: is cut short, {len(held)} bytes")
    shape = tuple(int.from_bytes(held[at : at + 4], "big") for at in range(4, head, 4))
    size = int(np.prod(shape, dtype=object))
    if len(held) != head + size:
        raise InputError(f"{path}: holds {len(held) - head} values, and its header promises {size}")
    if not size:
        raise InputError(f"{path}: holds no {_KINDS[dimensions]}")
    return np.frombuffer(held, np.uint8, offset=head).reshape(shape)


def check_pair(images: ndarray, labels: ndarray, path: Path) -> None:
    """Refuse labels that are more or fewer than their images."""
    if len(images) != len(labels):
        raise InputError(f"{path}: holds {len(labels)} labels for {len(images)} images")
