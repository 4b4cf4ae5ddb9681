"""Create and open the MLflow store."""

import contextlib
import functools
import os
import shlex
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from descentlab.tracking import locations, sqlite_file
from descentlab.tracking.locations import (
    exclusive,
    one_line,
    sqlite_path,
    sqlite_uri,
    store_errors,
    store_uri,
)
from descentlab.values import InputError, Option
from descentlab.values import without_password as shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # `retrying` waits for longer, and says so
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


EXPERIMENT = "descentlab"
FORM = "2"  # of what is stored: keys, digests and artifacts; runs of another form can be read, but not added to
FORM_TAG = "descentlab.form"  # of an experiment; those of the first form have none
DATABASE_LOCK = 0x6465736365  # a number of our own
NOTE = """**descentlab**: how small fully connected networks learn.

One run is one configuration (`tags.level = 'cell'`); the runs nested in it are its restarts (`restart`); tables and
figures over many cells are in runs of level `summary`. A metric of a cell is the mean over its finite restarts, with
`_sd`, `_min`, `_max`, `_ci_low`, `_ci_high` (95 %, Student t over restarts), `_n` and `_diverged` beside losses and
scores. A metric's step is its epoch; step 0 is before the first update.
"""


class NoStore(InputError):
    """There is no store at the given place yet."""


def _client_class() -> "type[MlflowClient]":
    import logging

    from mlflow import MlflowClient

    _spare_syncs()
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints a traceback for every locked file
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient


def open_client(uri: str) -> "MlflowClient":
    """A client of an existing store, with this package's settings."""
    return _client_class()(uri)


@functools.cache
def _spare_syncs() -> None:
    """Let SQLite wait for the disk at its checkpoints, not at each of the six commits of a restart.

    In write-ahead mode a power cut then loses the last commits, but never the file; a resumed sweep trains a cell again
    whose last commit was lost.
    """
    from sqlalchemy import Engine, event

    def spare(connection: Any, record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", spare)


@dataclass(frozen=True)
class Store:
    """An open store and one experiment in it."""

    client: "MlflowClient"
    uri: str
    experiment: str
    experiment_id: str | None  # None: there is no such experiment, and it was not to be created
    address: str = ""  # what MLflow opens: the uri, or a copy of a file that may only be read

    @property
    def folder(self) -> Path:
        """The folder for files beside the store: that of its file, for a server the home folder."""
        path = sqlite_path(self.uri)
        return path.parent if path else locations.home()

    def shorten(self) -> None:
        """Move SQLite's log, which grows with two writers, into its file, if no other process is using it."""
        path = sqlite_path(self.uri)
        if path is not None:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock under which cells are claimed; a server has none."""
        path = sqlite_path(self.uri)
        if path is None:
            yield
            return
        with store_errors(self.uri), exclusive(path):
            yield


def open_store(option: Option, create: bool = True) -> Store:
    """Open an option's store; with create, create the store and the experiment where they do not exist.

    Raises:
        InputError: it does not exist, cannot be created, or does not answer.
    """
    uri, name = store_uri(option), str(option.numbers.get("experiment", EXPERIMENT))
    path, address = sqlite_path(uri), uri
    if path and not sqlite_file.is_there(path):
        if not create:
            raise NoStore(f"tracking.uri={uri}: there is no store yet; a tracked run creates it")
        sqlite_file.create_store(path)
    elif path:
        address = sqlite_uri(sqlite_file.usable(path, create))
    elif uri.startswith("http"):
        _reach(uri)
    elif not check_database(uri) and not create:
        raise NoStore(f"tracking.uri={shown(uri)}: there is no store yet; a tracked run creates it")
    with store_errors(uri):
        with _exclusive_database(uri) if uri.startswith("postgresql") else contextlib.nullcontext():
            client = open_client(address)  # makes the tables
            found = client.get_experiment_by_name(name)
        if found is None and create:
            with exclusive(path) if path else contextlib.nullcontext():
                found = client.get_experiment_by_name(name) or _create_experiment(client, uri, name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment={name}: deleted in this store; choose another name, or restore it with"
            f" `MLFLOW_TRACKING_URI={shlex.quote(shown(uri))} mlflow experiments restore"
            f" --experiment-id {found.experiment_id}`"
        )
    if found is not None:
        _check_artifacts(uri, name, found.artifact_location)
    return Store(client, uri, name, found.experiment_id if found else None, address)


def check_form(store: Store, experiment_id: str | None = None, begin: bool = False) -> None:
    """Refuse to add to an experiment of another form, or to train its runs again.

    Args:
        store: open.
        experiment_id: None for the experiment that the store was opened for.
        begin: give this form to an experiment without runs of descentlab.

    Raises:
        InputError: an earlier or a later version of descentlab wrote it.
    """
    own = experiment_id or store.experiment_id
    if own is None:
        return
    with store_errors(store.uri):
        experiment = store.client.get_experiment(own)
        form = experiment.tags.get(FORM_TAG)
        everything = 3  # of MLflow's views: deleted runs, too
        if form is None and not store.client.search_runs([own], "tags.level LIKE '%'", everything, max_results=1):
            if begin:
                store.client.set_experiment_tag(own, FORM_TAG, FORM)
            return
    if form != FORM:
        which = "an earlier" if form is None else "another"
        raise InputError(
            f"tracking.experiment={experiment.name}: was written by {which} version of descentlab: its runs can be"
            " listed, shown, exported and reported, not continued or replayed; choose another name for new runs"
        )


def _create_experiment(client: "MlflowClient", uri: str, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    folder = None if uri.startswith("http") else (path.parent if path else locations.home()) / sqlite_file.ARTIFACTS
    location = folder.as_uri() if folder else None  # fixed for good at this moment; a server has its own
    tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development", FORM_TAG: FORM}
    try:
        client.create_experiment(name, artifact_location=location, tags=tags)
    except MlflowException:  # on a server another process may have been faster
        if client.get_experiment_by_name(name) is None:
            raise
    return client.get_experiment_by_name(name)


def _check_artifacts(uri: str, name: str, location: str) -> None:
    """Refuse an experiment whose artifacts cannot be read from here: through a server, or without it."""
    parts = urlsplit(location)
    if parts.scheme == "mlflow-artifacts" and not uri.startswith("http"):
        raise InputError(
            f"tracking.experiment={name}: its artifacts are on a server; name the server in tracking.uri, or another"
            " experiment"
        )
    folder = Path(unquote(parts.path))
    if parts.scheme in ("", "file") and uri.startswith("http") and not folder.is_dir():
        raise InputError(f"tracking.experiment={name}: its artifacts are in {folder}, which is not on this machine")


def _engine(uri: str) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        return create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": 10})
    except ImportError as error:
        raise InputError(
            f"tracking.uri={shown(uri)}: needs PostgreSQL's driver: pip install 'descentlab[server]' ({error})"
        ) from error


def check_database(uri: str) -> bool:
    """Whether a PostgreSQL database has MLflow's tables.

    MLflow's own client would retry for minutes.

    Raises:
        InputError: it does not answer, refuses the user, or has another program's tables.
    """
    from sqlalchemy import inspect

    engine = _engine(uri)
    with store_errors(uri), engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    if tables and "experiments" not in tables:
        raise InputError(f"tracking.uri={shown(uri)}: is a database, but not one of MLflow's")
    return bool(tables)


@contextlib.contextmanager
def _exclusive_database(uri: str) -> Iterator[None]:
    """Hold a lock in a PostgreSQL database, so that one process creates MLflow's tables."""
    from sqlalchemy import text

    with _engine(uri).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": DATABASE_LOCK})
        yield


def _reach(uri: str) -> None:
    """Refuse a server that does not answer at once; MLflow's own client would retry for minutes."""
    import urllib.error
    import urllib.request

    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    try:
        urllib.request.urlopen(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers; a wrong password is refused later
    except (OSError, ValueError) as error:
        raise InputError(f"tracking.uri={shown(uri)}: no server answers there ({one_line(error)})") from error
