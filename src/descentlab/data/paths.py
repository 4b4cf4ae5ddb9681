"""Where files of data lie, and when they have changed."""

import os
from pathlib import Path

from descentlab.values import refusal

MNIST_VARIABLE = "DESCENTLAB_MNIST"  # folder where data.path=auto looks for MNIST's files
NOTEBOOK_FILE = "MNIST_preprocessed.csv"


def path_of(given: str) -> Path:
    """The path that a user wrote."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise refusal("data.path", given, str(error)) from error


def mnist_place(given: str, pattern: str) -> Path | None:
    """The file or folder that data.path names, or with auto the one in DESCENTLAB_MNIST if it holds such a file."""
    if given != "auto":
        return path_of(given)
    folder = os.environ.get(MNIST_VARIABLE, "")
    return Path(folder) if folder and any(Path(folder).glob(pattern)) else None


def stamp(path: str | None) -> str:
    """What changes when the file or folder behind data.path does."""
    named = path not in (None, "auto")
    stamp = ""
    for place in [path] if named else [os.environ.get(MNIST_VARIABLE, ""), f"data/{NOTEBOOK_FILE}"]:
        try:
            stat = Path(str(place)).expanduser().absolute().stat()
            stamp += f"{place} {stat.st_mtime_ns} {stat.st_size} "
        except (OSError, RuntimeError, ValueError):
            stamp += f"{place} "
    return stamp
