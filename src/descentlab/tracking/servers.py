"""Web servers over a store as processes of this one: reached from this machine only, ended with it.

A shared store is a folder:

    mlflow.db                  the runs, unless a PostgreSQL database is named
    artifacts/                 tables, weights and figures of all runs
    secret                     signs the server's forms, where users must sign in
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from descentlab.interrupts import terminable
from descentlab.tracking.locations import one_line, sqlite_uri
from descentlab.tracking.sqlite_file import create_store, usable
from descentlab.tracking.store import check_database
from descentlab.values import InputError
from descentlab.values import without_password as shown

START_SECONDS = 120.0  # a busy machine takes its time
STOP_SECONDS = 5.0
NOT_FOR_SERVERS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_RUN_ID")


@dataclass(frozen=True)
class Served:
    """A server that answers under an address."""

    address: str
    _process: subprocess.Popen
    _log: Path

    def wait(self) -> None:
        """Wait for Ctrl-C or SIGTERM.

        Raises:
            InputError: if the server ends of itself.
        """
        while self._process.poll() is None:
            time.sleep(0.2)  # a wait without limit would miss a signal that arrives just before it
        raise InputError(f"the server of MLflow ended: {_last_line(self._log)}")


@contextlib.contextmanager
def mlflow_server(
    uri: str,
    port: int | None = None,
    artifacts: Path | None = None,
    passwords: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator["Served"]:
    """Serve a store by MLflow to this machine while the context is open; yields once it answers.

    Args:
        uri: of the store; it may hold a password, so it is not on the command line.
        port: a free one is chosen where None.
        artifacts: folder of the artifacts of experiments that the server creates; a temporary one where None.
        passwords: whether users must sign in.
        environment: further variables for the server.

    Raises:
        InputError: if the port is taken or the server does not start.
    """
    port = _free_port(port)
    base = f"http://127.0.0.1:{port}"
    own = {"MLFLOW_BACKEND_STORE_URI": uri, **(environment or {})}
    with terminable(), tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
        log = Path(folder) / "server.log"
        destination = (artifacts or Path(folder) / "artifacts").absolute().as_uri()
        command = [sys.executable, "-P", "-m", "descentlab.tracking.application", str(port), destination]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *(["passwords"] if passwords else [])],
                stdin=subprocess.PIPE,  # never written: the server ends when it is closed
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through us, when nobody needs it any more
                env={key: value for key, value in os.environ.items() if key not in NOT_FOR_SERVERS} | own,
            )
        try:
            _wait_for(base, process, log)
            yield Served(base, process, log)
        finally:
            _end(process)


def _free_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: closed connections linger
        try:
            probe.bind(("127.0.0.1", port or 0))
        except (OSError, OverflowError) as error:
            raise InputError(f"port={port}: cannot be listened on ({one_line(error)})") from error
        return probe.getsockname()[1]


def _wait_for(base: str, process: subprocess.Popen, log: Path) -> None:
    import urllib.request

    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            opener.open(f"{base}/health", timeout=5).close()
            return
        time.sleep(0.1)
    raise InputError(f"the server of MLflow did not start: {_last_line(log)}")


def _last_line(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return shown(lines[-1]) if lines else "no message"


def _end(process: subprocess.Popen) -> None:
    """End the server; one that is still busy after a few seconds is killed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_SECONDS)
    process.kill()
    process.communicate()


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"folder={folder}: {one_line(error)}") from error


@contextlib.contextmanager
def shared_store(
    folder: Path,
    port: int | None = None,
    database: str | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    passwords: bool = False,
) -> Iterator[Served]:
    """Serve a store that many write to while the context is open.

    Args:
        folder: of the artifacts, and of an SQLite database unless `database` names another.
        port: on 127.0.0.1; a free one is chosen where None.
        database: address of a PostgreSQL database.
        hosts: names, besides this machine's own, by which it may be called: those of a proxy.
        origins: addresses of other pages whose scripts may write.
        passwords: whether users must sign in; the first one's name and password are MLflow's MLFLOW_AUTH_ADMIN_USERNAME
            (else admin) and MLFLOW_AUTH_ADMIN_PASSWORD.

    Raises:
        InputError: if something is missing, taken or does not start.
    """
    if passwords and not _has_module("flask_wtf"):
        raise InputError("auth=basic: needs pip install 'descentlab[server]'")
    folder, port = folder.absolute(), _free_port(port)
    artifacts = folder / "artifacts"
    with _folder_errors(folder):
        artifacts.mkdir(parents=True, exist_ok=True)
    uri = _postgres_uri(database) if database else _sqlite_uri(folder)
    own = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    environment = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*own, *hosts]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join([*(f"http://{name}" for name in own), *origins]),
    }
    with contextlib.ExitStack() as stack:
        if passwords:
            private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="descentlab-")))
            environment |= _sign_in(uri, folder, private)
        yield stack.enter_context(mlflow_server(uri, port, artifacts, passwords, environment))


def _postgres_uri(database: str) -> str:
    """The address of a PostgreSQL database that answers."""
    if not _has_module("psycopg"):
        raise InputError("DESCENTLAB_DATABASE: needs PostgreSQL's driver: pip install 'descentlab[server]'")
    check_database(database)
    return database


def _sqlite_uri(folder: Path) -> str:
    """The address of the folder's own database, which is created where there is none."""
    if (folder / "postgres").is_dir():
        raise InputError(
            f"folder={folder}: holds the PostgreSQL database of an earlier version; start it with"
            f" `pg_ctl -D {folder / 'postgres'} start` and name it in DESCENTLAB_DATABASE, or choose another folder="
        )
    path = folder / "mlflow.db"
    if path.exists():
        usable(path, write=True)
    else:
        create_store(path)
    return sqlite_uri(path)


def _has_module(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _sign_in(uri: str, folder: Path, private: Path) -> dict[str, str]:
    """Variables of MLflow's basic authentication; users are kept in the same database.

    Whoever signs in may write to every experiment, since all write to the same one.
    """
    secret = folder / "secret"
    with _folder_errors(folder), contextlib.suppress(FileExistsError):
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    settings = {
        "default_permission": "EDIT",
        "database_uri": uri.replace("%", "%%"),
        "admin_username": "admin",
        "auth_cache_ttl_seconds": "60",  # else every request pays for the slow hash of a password
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    lines = ["[mlflow]", *(f"{key} = {value}" for key, value in settings.items())]
    (private / "auth.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")  # in a folder of mode 700
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(private / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret.read_text(encoding="utf-8").strip(),
    }
