"""Whether a run's files are still those that were written: a SHA-256 of each, and one of the list in the run's tags.

The list is an artifact of its own, checksums.json; its digest lies in the database, so that a file cannot be changed
together with the list unnoticed. Runs from before there was one are read without.
"""

import hashlib
import json
from pathlib import Path

NAME = "checksums.json"  # of the artifact
TAG = "checksums"  # of the run: the SHA-256 of that artifact


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, elsewhere: dict[str, bytes] | None = None) -> dict[str, str]:
    """Write checksums.json over every file of a folder.

    Args:
        folder: what will be a run's artifacts.
        elsewhere: artifacts that the run has already, name -> content.

    Returns:
        The tag that goes with it.
    """
    found = {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    found |= {name: digest(data) for name, data in (elsewhere or {}).items()}
    text = json.dumps(dict(sorted(found.items())), indent=2).encode() + b"\n"
    (folder / NAME).write_bytes(text)
    return {TAG: digest(text)}


def complaint(tag: str, listed: bytes | None, name: str, path: Path) -> str | None:
    """What is wrong with an artifact, None if nothing is.

    Args:
        tag: of the run.
        listed: the content of its checksums.json, None where that is gone.
        name: of the artifact.
        path: where it is.
    """
    if listed is None:
        return f"{NAME} is gone"
    if digest(listed) != tag:
        return f"{NAME} was changed after it was written"
    if name == NAME:
        return None
    kept = json.loads(listed).get(name)  # it is what was written, so it is JSON
    if kept is None:
        return f"{name} is none of the run's own files"
    return None if file_digest(path) == kept else f"{name} was changed after it was written"
