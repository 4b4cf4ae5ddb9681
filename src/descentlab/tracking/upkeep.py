"""Delete and restore runs, and measure the size of a store.

A deleted run is hidden from every search, so that it no longer counts as finished. It uses disk space until `mlflow gc`
removes it.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from descentlab.tracking.locations import sqlite_path, store_errors
from descentlab.tracking.reading import find, reading
from descentlab.tracking.stored_run import StoredRun, local_folder
from descentlab.values import without_password as shown

if TYPE_CHECKING:
    from descentlab.values import Option


def restarts_of(option: "Option", run: StoredRun, deleted: bool = False) -> list[StoredRun]:
    """The restarts of a cell that have runs of their own."""
    if run.level != "cell":
        return []
    return find(option, "restart", status=None, parent=run.run_id, deleted=deleted)


def delete(option: "Option", runs: Sequence[StoredRun], restore: bool = False) -> None:
    """Mark runs as deleted, or restore deleted ones. Nested runs are not included."""
    store = reading(option)
    with store_errors(store.uri):
        for run in runs:
            (store.client.restore_run if restore else store.client.delete_run)(run.run_id)


def sizes(option: "Option") -> tuple[str, int | None, int | None]:
    """A store's address, and the bytes of its database and of its artifacts; None where they are not files here."""
    store = reading(option)
    path, file = sqlite_path(store.uri), sqlite_path(store.address)
    if path is None or file is None:
        return shown(store.uri), None, None
    database = sum(_size(path.with_name(path.name + ending)) for ending in ("", "-wal"))
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
        places = [local_folder(uri) for (uri,) in connection.execute("SELECT artifact_uri FROM runs")]
    files = (file for place in places if place and place.is_dir() for file in place.rglob("*"))
    return shown(store.uri), database, sum(_size(file) for file in files)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
