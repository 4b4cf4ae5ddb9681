"""An SQLite store as a file: created whole, checked, copied where it may only be read, and moved with its artifacts."""

import contextlib
import functools
import glob
import importlib
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from descentlab.tracking.locations import exclusive, sqlite_uri, store_errors
from descentlab.values import InputError, refusal

ARTIFACTS = "mlartifacts"  # the folder beside a store that holds the artifacts of its runs
PATHS = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}


def is_there(path: Path) -> bool:
    """Whether the path exists and is no empty file."""
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def usable(path: Path, write: bool) -> Path:
    """The file that MLflow opens: the store itself, or a copy of one that may only be read.

    In write-ahead mode SQLite reads a file only where it may write beside it. Where a store was moved or copied with
    its artifacts, their paths in it are updated.

    Args:
        path: of the store.
        write: whether it is to be written.

    Raises:
        InputError: a file that is no store, or may not be written.
    """
    if path.is_dir():
        raise refusal("tracking.uri", path, f"is a folder; name a file in it, such as {path / 'mlflow.db'}")
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    if write and not writable:
        valid = "may be read but not written; name another store in tracking.uri to train"
        raise InputError(f"tracking.uri={sqlite_uri(path)}: {valid}")
    with store_errors(sqlite_uri(path)):
        file = path if writable else _copied(path, _written(path))
        _check(file, write)
        if _moved(file, path.parent):
            with exclusive(path) if writable else contextlib.nullcontext():
                _relocate(file, path.parent)
    return file


def _check(file: Path, write: bool) -> None:
    """Refuse a file that cannot be a store; MLflow would try to open it for minutes, or make its tables in it."""
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
        if "experiments" not in _tables(connection):
            raise sqlite3.DatabaseError("is a database, but not one of MLflow's")
        if write:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")


def _written(path: Path) -> tuple[int, ...]:
    """When a store and its log were last written."""
    parts = [path.with_name(path.name + ending) for ending in ("", "-wal")]
    return tuple(part.stat().st_mtime_ns for part in parts if part.exists())


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@functools.cache
def _copied(path: Path, written: tuple[int, ...]) -> Path:
    """A copy of a store that was last written then, in a folder that is removed when this process ends."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="descentlab-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / "mlflow.db"
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with (
            contextlib.closing(sqlite3.connect(address, uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)  # consistent even while its owner writes
    except sqlite3.Error:  # no process has it open, and SQLite would have to create files beside it
        for ending in ("", "-wal"):
            if (part := path.with_name(path.name + ending)).exists():
                shutil.copyfile(part, folder / f"mlflow.db{ending}")
    return copy


def _moved(file: Path, folder: Path) -> list[str]:
    """Addresses of artifact folders beside another place of this store whose runs lie in `folder` now."""
    here, found = folder / ARTIFACTS, []
    if not here.is_dir():
        return []
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
        for (address,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            parts = urlsplit(address or "")
            place = Path(unquote(parts.path))
            if parts.scheme != "file" or place.name != ARTIFACTS or (place.is_dir() and place.samefile(here)):
                continue
            like = (f"{address}/", len(address) + 1)
            runs = connection.execute("SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?2) = ?1", like)
            if not place.is_dir() or any((here / unquote(uri[len(address) + 1 :])).is_dir() for (uri,) in runs):
                found.append(address)
    return found


def _relocate(file: Path, folder: Path) -> None:
    """Update the artifact paths in a store that was moved or copied with its artifacts."""
    here = (folder / ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        for before in _moved(file, folder):  # once more: another process may have been faster
            for table in PATHS.keys() & _tables(connection):
                column = PATHS[table]
                connection.execute(
                    f"UPDATE {table} SET {column} = ?1 || substr({column}, length(?2) + 1)"
                    f" WHERE {column} = ?2 OR substr({column}, 1, length(?2) + 1) = ?2 || '/'",
                    (here, before),
                )
            text = f"the store in {folder} was in {Path(unquote(urlsplit(before).path)).parent} before"
            print(f"descentlab: {text}; its artifact paths are updated", file=sys.stderr, flush=True)


def create_store(path: Path) -> None:
    """Create an SQLite store with MLflow's tables in write-ahead mode; the file gets its name when it is complete."""
    with store_errors(sqlite_uri(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            valid = (
                f"cannot be created, since {path.parent} cannot be written to; name another place: tracking.uri=PATH"
            )
            raise refusal("tracking.uri", path, valid)
        with exclusive(path):
            if is_there(path):  # another process was faster
                return
            for unfinished in path.parent.glob(f"{glob.escape(path.name)}*.new*"):
                unfinished.unlink(missing_ok=True)
            new = path.with_name(
                f"{path.name}.{secrets.token_hex(4)}.new"
            )  # the helper of a killed process may still write its own
            try:
                _migrate(new)
                with contextlib.closing(sqlite3.connect(new)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                new.replace(path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise


def _migrate(path: Path) -> None:
    """Create MLflow's tables in another process: no connection may stay open when the file gets its final name.

    This takes two seconds, in which this process imports MLflow.
    """
    code = """if True:
        import os, sys, threading
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()  # with its parent
        import mlflow
        mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)
        os._exit(0)
    """
    command = [sys.executable, "-c", code, sqlite_uri(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            importlib.import_module("mlflow")
            errors = process.stderr.read() if process.stderr else ""
            process.wait()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        raise sqlite3.OperationalError(f"its tables cannot be created: {lines[-1] if lines else 'no message'}")
