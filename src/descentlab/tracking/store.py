"""The MLflow store: where it lies, how it comes into being, and its runs as plain values."""

import contextlib
import functools
import glob
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from descentlab.nn.checkpoints import read_arrays
from descentlab.tracking import checksums
from descentlab.tracking.contents import clone, plain
from descentlab.tracking.plans import member_tag
from descentlab.values import InputError, Option, refusal
from descentlab.values import without_password as shown

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from numpy import ndarray

    from descentlab.tracking.runs import Tracker

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # silent ones; `patience` waits for longer, and says so
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")

EXPERIMENT = "descentlab"
DATABASE_LOCK = 0x6465736365  # a number of our own
SWEEP_LENGTH = len("20260131-235959-1f2e")  # of a tracker's own sweep id; a study appends the names of its parts
NOTE = """**descentlab**: how small fully connected networks learn.

One run is one configuration (`tags.level = 'cell'`); the runs nested in it are its restarts (`restart`); tables and
figures over many cells are in runs of level `summary`. A metric of a cell is the mean over its finite restarts, with
`_sd`, `_min`, `_max`, `_ci_low`, `_ci_high` (95 %, Student t over restarts), `_n` and `_diverged` beside losses and
scores. A metric's step is its epoch; step 0 is before the first update.
"""


class NoStore(InputError):
    """There is no store at the given place yet."""


def home() -> Path:
    """Where the default store lies: the clone's root, or the working directory for an installed wheel."""
    return clone() or Path.cwd()


def store_uri(option: Option) -> str:
    """The absolute address of an option's store; its `uri` may be auto, a path, sqlite:/// or a server's address."""
    uri = option.numbers.get("uri")
    if uri in (None, "", "auto"):
        if option.name == "server":
            raise InputError(
                f"tracking.uri={uri or ''}: tracking=server needs an address such as http://127.0.0.1:5000"
            )
        path = home() / "mlflow.db"
    elif "://" not in str(uri):
        path = Path(str(uri))
    elif str(uri).startswith("sqlite:///"):
        path = Path(unquote(str(uri).removeprefix("sqlite:///")))
    elif re.match(r"postgresql(\+\w+)?://.", str(uri)):
        return str(uri)
    elif re.match(r"https?://.", str(uri)):
        return _signed_in(str(uri))
    else:
        scheme = str(uri).split("://", maxsplit=1)[0]
        raise InputError(f"tracking.uri={scheme}://...: must start with sqlite:///, http://, https:// or postgresql://")
    return _sqlite_uri(path.absolute())


def _signed_in(uri: str) -> str:
    """A server's address without the user and password it may hold, which go where MLflow looks for them.

    In the address they would be in every message of its client, and in every process that is started with it.
    """
    user, _, _ = urlsplit(uri).netloc.rpartition("@")
    if user:
        name, _, password = user.partition(":")
        os.environ |= {"MLFLOW_TRACKING_USERNAME": unquote(name), "MLFLOW_TRACKING_PASSWORD": unquote(password)}
    return uri.replace(f"//{user}@", "//", 1) if user else uri


def _sqlite_uri(path: Path) -> str:
    return "sqlite:///" + path.as_posix().replace("%", "%25").replace("?", "%3F")


def _sqlite_path(uri: str) -> Path | None:
    return Path(unquote(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def exclusive(path: Path, seconds: float = 300) -> Iterator[None]:
    """Hold the lock beside a path; SQLite's own kind, which works everywhere and dies with its holder.

    Raises:
        sqlite3.Error: if it is not to be had, or another holds it all the while.
    """
    connection = sqlite3.connect(path.with_name(f"{path.name}.lock"), timeout=seconds, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def _is_there(path: Path) -> bool:
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def _check_file(path: Path) -> None:
    """Refuse a file that cannot be a store; MLflow would try to open it for minutes, or make its tables in it."""
    if path.is_dir():
        raise refusal("tracking.uri", path, f"is a folder; name a file in it, such as {path / 'mlflow.db'}")
    with _file_errors(path), contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            raise sqlite3.DatabaseError("is a database, but not one of MLflow's")
        connection.execute("BEGIN IMMEDIATE")  # whether it may be written
        connection.execute("ROLLBACK")


def _create_store(path: Path) -> None:
    """Create a migrated sqlite store in write-ahead mode, whole or not at all: it gets its name at the end."""
    with _file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path):
            if _is_there(path):  # another process was faster
                return
            for unfinished in path.parent.glob(f"{glob.escape(path.name)}*.new*"):
                unfinished.unlink(missing_ok=True)
            new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")  # a killed process's helper may still write
            _migrate(new)
            with contextlib.closing(sqlite3.connect(new)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            new.replace(path)


def _migrate(path: Path) -> None:
    """Make MLflow's tables in a process of its own: none of its connections may outlive the file's name.

    It takes two seconds, in which this process imports MLflow for itself.
    """
    code = """if True:
        import os, sys, threading
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()  # with its parent
        import mlflow
        mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)
        os._exit(0)
    """
    command = [sys.executable, "-c", code, _sqlite_uri(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _client_class()
            errors = process.stderr.read() if process.stderr else ""
            process.wait()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        raise sqlite3.OperationalError(f"its tables cannot be made: {lines[-1] if lines else 'no message'}")


def _client_class() -> "type[MlflowClient]":
    import logging

    from mlflow import MlflowClient

    _spare_syncs()
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints a traceback for every locked file
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient


def client_of(uri: str) -> "MlflowClient":
    """A client of a store that is there, with this package's settings."""
    return _client_class()(uri)


@functools.cache
def _spare_syncs() -> None:
    """Let SQLite wait for the disk at its checkpoints and not at every one of the six commits of a restart.

    In write-ahead mode a power cut then costs the last commits and never the file; a cell whose end is among them is
    run again by a resumed sweep.
    """
    from sqlalchemy import Engine, event

    def spare(connection: Any, record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", spare)


def one_line(error: BaseException) -> str:
    """What went wrong in one line, without SQLAlchemy's statement and links."""
    text = str(error).strip().splitlines()
    line = text[0].strip() if text else ""
    if "error code 401" in line:
        return "not let in; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD must hold a user of the server"
    return shown(re.sub(r"^\((?:sqlite3|psycopg)\.\w+\) ", "", line)) or type(error).__name__


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what a broken or absent store raises into one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise InputError(f"tracking.uri={shown(uri)}: {one_line(error)}") from error


@contextlib.contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """The same before MLflow is there."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise InputError(f"tracking.uri={_sqlite_uri(path)}: {one_line(error)}") from error


@dataclass(frozen=True)
class Store:
    """An open store and one experiment in it."""

    client: "MlflowClient"
    uri: str
    experiment: str
    experiment_id: str | None  # None: not there, and nothing was to be created

    @property
    def folder(self) -> Path:
        """Where things lie that belong beside the store: with its file, or at home for a server's."""
        path = _sqlite_path(self.uri)
        return path.parent if path else home()

    def shorten(self) -> None:
        """Move SQLite's log of what was written into its file, if nobody else is at it; two writers let it grow."""
        path = _sqlite_path(self.uri)
        if path is not None:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only process that claims something; nothing on a server, which has no such lock."""
        path = _sqlite_path(self.uri)
        if path is None:
            yield
            return
        with _file_errors(path), exclusive(path):
            yield


def _experiment_name(option: Option, experiment: str) -> str:
    name = option.numbers.get("experiment")
    return experiment if name in (None, "", "auto", EXPERIMENT) else str(name)


def open_store(option: Option, experiment: str = EXPERIMENT, create: bool = True) -> Store:
    """Open an option's store; with create, make the store and the experiment where they are not there yet.

    Raises:
        InputError: if it is not there, cannot be made, or does not answer.
    """
    uri, name = store_uri(option), _experiment_name(option, experiment)
    path = _sqlite_path(uri)
    if path and not _is_there(path):
        if not create:
            raise NoStore(f"tracking.uri={uri}: there is no store yet; a tracked run creates it")
        _create_store(path)
    elif path:
        _check_file(path)
    elif uri.startswith("http"):
        _reach(uri)
    elif not check_database(uri) and not create:
        raise NoStore(f"tracking.uri={shown(uri)}: there is no store yet; a tracked run creates it")
    with store_errors(uri):
        with _exclusive_database(uri) if uri.startswith("postgresql") else contextlib.nullcontext():
            client = client_of(uri)  # makes the tables
            found = client.get_experiment_by_name(name)
        if found is None and create:
            with exclusive(path) if path else contextlib.nullcontext():
                found = client.get_experiment_by_name(name) or _create_experiment(client, uri, name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment={name}: deleted in this store; choose another name, or restore it with"
            f" `mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    if found is not None:
        _check_artifacts(uri, name, found.artifact_location)
    return Store(client, uri, name, found.experiment_id if found else None)


def _create_experiment(client: "MlflowClient", uri: str, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    path = _sqlite_path(uri)
    folder = None if uri.startswith("http") else (path.parent if path else home()) / "mlartifacts"
    location = folder.as_uri() if folder else None  # fixed for good at this moment; a server has its own
    tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
    try:
        client.create_experiment(name, artifact_location=location, tags=tags)
    except MlflowException:  # on a server another process may have been faster
        if client.get_experiment_by_name(name) is None:
            raise
    return client.get_experiment_by_name(name)


def _check_artifacts(uri: str, name: str, location: str) -> None:
    """Refuse an experiment whose artifacts cannot be had this way; what created it, server or not, decided that."""
    parts = urlsplit(location)
    if parts.scheme == "mlflow-artifacts" and not uri.startswith("http"):
        raise InputError(
            f"tracking.experiment={name}: its server keeps the artifacts; name the server in tracking.uri, or another"
            " experiment"
        )
    folder = Path(unquote(parts.path))
    if parts.scheme in ("", "file") and uri.startswith("http") and not folder.is_dir():
        raise InputError(f"tracking.experiment={name}: keeps its artifacts in {folder}, which is not on this machine")


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

    MLflow's own client would try again for minutes where none answers.

    Raises:
        InputError: if it does not answer, does not let us in, or has tables of something else.
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
    """Hold a lock in a PostgreSQL database; of several first users one makes MLflow's tables."""
    from sqlalchemy import text

    with _engine(uri).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": DATABASE_LOCK})
        yield


def _reach(uri: str) -> None:
    """Refuse a server that does not answer at once; MLflow's own client would try again for minutes."""
    import urllib.error
    import urllib.request

    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    try:
        urllib.request.urlopen(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in shows later
    except (OSError, ValueError) as error:
        raise InputError(f"tracking.uri={shown(uri)}: no server answers there ({one_line(error)})") from error


@dataclass(frozen=True)
class StoredRun:
    """A run as plain values.

    Attributes:
        run_id, name, status: as in the store; status is RUNNING, FINISHED, FAILED or KILLED.
        started: seconds since 1970.
        params, tags: texts.
        metrics: values at the last epoch, of a run that has not finished at the latest one that was written; NaN where
            that epoch has none.
        digest: of the data it was trained on; "" where it is not known.
        deleted: it is hidden from every search until it is restored.
    """

    run_id: str
    name: str
    status: str
    started: float
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    digest: str
    deleted: bool
    _artifacts: str
    _store: Store

    @property
    def lost(self) -> int:
        """How many restarts of a cell diverged or exploded."""
        return int(self.tags.get("diverged", 0)) + int(self.tags.get("exploded", 0))

    def artifacts(self) -> dict[str, int]:
        """Names of the run's artifacts with their bytes, those in folders too."""
        folder = self._folder()
        if folder is not None:
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        listed = self._store.client.list_artifacts(self.run_id)
        return {found.path: found.file_size or 0 for found in listed if not found.is_dir}

    def artifact(self, name: str) -> Path:
        """A file of the run's artifacts on disk; fetched first where the store is not on this machine.

        Raises:
            InputError: if the run has no such artifact, or if it is no longer what was written.
        """
        path = self._path(name)
        if path is None:
            raise InputError(f"{self}: has no artifact {name}")
        if tag := self.tags.get(checksums.TAG):
            listed = self._path(checksums.NAME)
            wrong = checksums.complaint(tag, listed.read_bytes() if listed else None, name, path)
            if wrong:
                raise InputError(f"{self}: {wrong}; {self._remedy}")
        return path

    def table(self, name: str) -> "pd.DataFrame":
        """A Parquet artifact.

        Raises:
            InputError: as for `artifact`, and for a file that is damaged.
        """
        import pandas as pd

        path = self.artifact(name)
        try:
            return pd.read_parquet(path)
        except Exception as error:  # whatever Arrow and pandas say about bytes that are no table
            raise InputError(f"{self}: {name} cannot be read ({one_line(error)[:200]}); {self._remedy}") from error

    def arrays(self, name: str) -> "dict[str, ndarray]":
        """The arrays of an .npz artifact; nothing is unpickled.

        Raises:
            InputError: as for `table`.
        """
        try:
            return read_arrays(self.artifact(name))
        except (OSError, ValueError) as error:
            raise InputError(f"{self}: {name} cannot be read ({one_line(error)[:200]}); {self._remedy}") from error

    def __str__(self) -> str:
        """The run in an error's line."""
        return f"run {self.run_id} ({self.name}, {self.status})"

    @property
    def _remedy(self) -> str:
        return f"take it from a backup, or train it again after `descentlab delete {self.run_id}`"

    def _folder(self) -> Path | None:
        """Where the artifacts lie, if that is on this machine."""
        return _local(self._artifacts)

    def _path(self, name: str) -> Path | None:
        folder = self._folder()
        if folder is not None:
            return folder / name if (folder / name).is_file() else None
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException, OSError):
            return Path(self._store.client.download_artifacts(self.run_id, name, _fetched()))
        return None


def _local(artifacts: str) -> Path | None:
    """The folder behind an artifact address, if it is on this machine."""
    parts = urlsplit(artifacts)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else artifacts)
    return None


def to_disk(artifacts: str) -> None:
    """See to it that a run's files outlive a power cut, where they are on this machine."""
    folder = _local(artifacts)
    for path in sorted(folder.rglob("*")) if folder else []:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@functools.cache
def _fetched() -> str:
    import atexit
    import shutil

    folder = tempfile.mkdtemp(prefix="descentlab-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def reading(source: "Option | Tracker") -> Store:
    """The store behind a tracker (once it has written everything) or an option, which must exist.

    Raises:
        InputError: if there is none.
    """
    if not isinstance(source, Option):
        return source.opened()
    if source.name == "none":
        raise InputError("tracking=none: keeps nothing that could be read; choose tracking=local")
    return open_store(source, create=False)


def _stored(run: Any, store: Store) -> StoredRun:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        started=run.info.start_time / 1000,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=_final_metrics(run),
        digest=inputs[0].dataset.digest if inputs else "",
        deleted=run.info.lifecycle_stage == "deleted",
        _artifacts=run.info.artifact_uri,
        _store=store,
    )


def _final_metrics(run: Any) -> dict[str, float]:
    """MLflow's latest values, NaN in place of one that is older than the run's last epoch."""
    latest = run.data._metric_objs  # the public `metrics` leave out the step
    last = max((metric.step for metric in latest), default=0)
    epochs = run.data.params.get("epochs", "")
    if run.info.status == "FINISHED" and run.data.tags.get("level") in ("cell", "restart") and epochs.isdigit():
        last = int(epochs)
    return {metric.key: metric.value if metric.step == last else np.nan for metric in latest}


def get(source: "Option | Tracker", run_id: str) -> StoredRun:
    """The run with this id, or the only one whose id begins so (four characters or more); a deleted one too.

    Raises:
        InputError: if there is none, or more than one.
    """
    from mlflow.exceptions import MlflowException

    store = reading(source)
    try:
        if re.fullmatch("[0-9a-f]{4,31}", run_id) and store.experiment_id is not None:
            like = f"attributes.run_id LIKE '{run_id}%'"
            found = store.client.search_runs([store.experiment_id], like, ALL, max_results=4)
            if len(found) > 1:
                ids = ", ".join(run.info.run_id[: len(run_id) + 4] for run in found[:3])
                raise InputError(f"run_id={run_id}: the ids of several runs begin so: {ids}, ...; give more of it")
            if found:
                return _stored(found[0], store)
        return _stored(store.client.get_run(run_id), store)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(f"tracking.uri={shown(store.uri)}: {one_line(error)}") from error
        hint = " (the first 4 characters of one are enough)" if re.fullmatch("[0-9a-f]{1,3}", run_id) else ""
        raise InputError(f"run_id={run_id}: no run has this id in {shown(store.uri)}{hint}") from error


ACTIVE, DELETED, ALL = 1, 2, 3  # MLflow's ViewType


def find(
    source: "Option | Tracker",
    level: str = "cell",
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
    status: str | None = "FINISHED",
    limit: int | None = None,
    deleted: bool = False,
    parent: str | None = None,
) -> list[StoredRun]:
    """Runs of the experiment, the earliest first; those of a sweep in its own order and under its own names.

    Args:
        source: an open tracker (which is flushed first), or the option that names the store.
        level: cell, restart, summary or sweep.
        sweep: only those of one sweep, whichever trained them; "last" is the one that was last at work; with a % at its
            end, what begins so, part by part.
        where: param -> value that it must have.
        status: only runs that ended so; None for all. Of a sweep's finished cells one per key, the earliest.
        limit: at most so many, the newest.
        deleted: look among the deleted runs instead.
        parent: only the restarts of this cell.
    """
    store = reading(source)
    if sweep == "last":
        sweep = last_sweep(store)
        if not sweep:
            return []
    tests = [f"tags.level = {quoted(level)}"]
    tests += [f"attributes.status = {quoted(status)}"] if status else []
    tests += [f"tags.`mlflow.parentRunId` = {quoted(parent)}"] if parent else []
    tests += [f"params.`{key}` = {quoted(plain(value))}" for key, value in (where or {}).items()]
    if not sweep:
        return search(store, tests, limit, deleted)
    own = search(store, [*tests, f"tags.sweep {'LIKE' if '%' in sweep else '='} {quoted(sweep)}"], limit, deleted)
    if level != "cell":
        return own
    sweeps = [sweep]
    if "%" in sweep:
        records = search(store, ["tags.level = 'sweep'", f"tags.sweep LIKE {quoted(sweep)}"])
        sweeps = [part for record in records for part in record.tags["parts"].split()]
        sweeps += [run.tags["sweep"] for run in own]
    found: list[StoredRun] = []
    for one in dict.fromkeys(sweeps):
        tag = member_tag(one)
        members = search(store, [*tests, f"tags.{_backticked(tag)} LIKE '%'"], limit, deleted)
        known = {run.run_id for run in members}
        members += [run for run in own if run.tags["sweep"] == one and run.run_id not in known]
        found += _in_order(members, one, status)
    return found[-limit:] if limit else found


def _in_order(runs: list[StoredRun], sweep: str, status: str | None) -> list[StoredRun]:
    """Runs of a sweep as it knows them: in its order, under its names; of finished ones with one key the earliest."""
    placed = []
    for run in sorted(runs, key=lambda run: (run.started, run.run_id)):
        number, _, name = run.tags.get(member_tag(sweep), "").partition(" ")
        seen = replace(run, name=name or run.name, tags={**run.tags, "sweep": sweep})
        placed.append((int(number) if number.isdigit() else 0, seen))
    placed.sort(key=lambda pair: pair[0])
    if status != "FINISHED":
        return [run for _, run in placed]
    single: dict[Any, StoredRun] = {}
    for place, run in placed:
        single.setdefault((place, run.tags.get("config_hash", run.run_id), run.digest, run.tags.get("judge")), run)
    return list(single.values())


def last_sweep(store: Store) -> str:
    """The sweep that was last at work; "" where there is none."""
    newest = search(store, ["tags.level = 'cell'"], limit=1)
    records = search(store, ["tags.level = 'sweep'"])
    latest = max(records, key=lambda run: float(run.tags.get("at_work", run.started)), default=None)
    if latest and (not newest or float(latest.tags.get("at_work", latest.started)) > newest[0].started):
        return latest.tags.get("parts", latest.tags["sweep"]).split()[-1]
    return newest[0].tags.get("sweep", "") if newest else ""


def search(store: Store, tests: Sequence[str], limit: int | None = None, deleted: bool = False) -> list[StoredRun]:
    """Runs of the experiment that pass tests in MLflow's filter language, the earliest first; the newest `limit`."""
    if store.experiment_id is None:
        return []
    runs: list[Any] = []
    token = None
    with store_errors(store.uri):
        while True:
            page = min(1000, limit - len(runs)) if limit else 1000
            found = store.client.search_runs(
                [store.experiment_id], " and ".join(tests), DELETED if deleted else ACTIVE,
                order_by=["attributes.start_time DESC"], max_results=page, page_token=token,
            )  # fmt: skip
            runs += found
            token = found.token
            if not token or (limit and len(runs) >= limit):
                return [_stored(run, store) for run in reversed(runs)]


def _backticked(name: str) -> str:
    if "`" in name:
        raise InputError(f"{name}: holds a backtick, which MLflow's search cannot express")
    return f"`{name}`"


def quoted(value: Any) -> str:
    """A text in MLflow's filter language, which knows no escape: the other kind of quote round it."""
    text = str(value)
    quote = '"' if "'" in text else "'"
    if quote in text:
        raise InputError(f"{text}: holds both kinds of quotes, which MLflow's search cannot express")
    return quote + text + quote
