"""The bytes of a file, decompressed up to a limit."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from descentlab.values import InputError

MEGABYTES = 2000  # that a file may hold where data.max_megabytes does not say otherwise
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def content(path: Path, megabytes: int = MEGABYTES) -> bytes:
    """What a file holds; .gz, .bz2, .xz and .zip (of one file) are decompressed.

    Raises:
        InputError: a file that cannot be read, or that holds more than `megabytes`.
    """
    try:
        if path.suffix.lower() == ".zip":
            return _zipped(path, megabytes)
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            return _limited(file, path, megabytes)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "is cut short"
        raise InputError(f"{path}: cannot be read ({reason})") from error


def check_size(path: Path, size: float, megabytes: int) -> None:
    """Refuse what would take more memory than the limit."""
    if size > megabytes * 1e6:
        raise InputError(f"{path}: holds more than {megabytes} MB; data.max_megabytes={int(size / 1e6) + 1} reads it")


def _zipped(path: Path, megabytes: int) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
        if len(members) != 1:
            raise InputError(
                f"{path}: holds {len(members)} files and must hold one; unpack it and name one in data.path"
            )
        with archive.open(members[0]) as file:
            return _limited(file, path, megabytes)


def _limited(file: IO[bytes], path: Path, megabytes: int) -> bytes:
    found = io.BytesIO()
    while part := file.read(2**24):
        found.write(part)
        if found.tell() > megabytes * 1e6:
            raise InputError(f"{path}: holds more than {megabytes} MB; a larger data.max_megabytes reads it")
    return found.getvalue()
