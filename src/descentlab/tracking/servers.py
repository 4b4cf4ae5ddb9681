"""MLflow's server and PostgreSQL as processes of this one: reached from this machine only, ended with it.

A shared store is a folder:

    postgres/, postgres.log    the database cluster and what it says
    artifacts/                 tables, weights and figures of all runs
    secret                     what the server signs its forms with, where it asks for a password
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descentlab.interrupts import terminable
from descentlab.tracking.locations import exclusive, one_line
from descentlab.tracking.store import check_database
from descentlab.values import InputError
from descentlab.values import without_password as shown

DATABASE = "mlflow"
START_SECONDS = 120.0  # a busy machine takes its time
STOP_SECONDS = 20.0
NOT_FOR_SERVERS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_RUN_ID")


@dataclass(frozen=True)
class Served:
    """A server that answers under an address."""

    address: str
    _process: subprocess.Popen
    _log: Path

    def wait(self) -> None:
        """Wait for Ctrl-C.

        Raises:
            InputError: if the server ends of itself.
        """
        self._process.wait()
        raise InputError(f"the server of MLflow ended: {_last_line(self._log)}")


@contextlib.contextmanager
def mlflow_server(
    uri: str,
    port: int | None = None,
    more: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator["Served"]:
    """Serve a store by MLflow to this machine while the context is open; yields once it answers.

    Args:
        uri: of the store; it may hold a password, so it is not on the command line.
        port: a free one is chosen where None.
        more: further words for `mlflow server`.
        environment: further variables for it.

    Raises:
        InputError: if the port is taken or the server does not start.
    """
    port = _free_port(port)
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    own = {"MLFLOW_BACKEND_STORE_URI": uri, **(environment or {})}
    with terminable(), tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
        log = Path(folder) / "server.log"
        process = _start(
            [*command, *more],
            log,
            env={key: value for key, value in os.environ.items() if key not in NOT_FOR_SERVERS} | own,
            cwd=folder,
        )
        try:
            _wait_for(base, process, log)
            yield Served(base, process, log)
        finally:
            _end(process)


def _start(command: Sequence[str], log: Path, **how: Any) -> subprocess.Popen:
    """Start a server in a session of its own, so that Ctrl-C reaches it through us, when nobody needs it any more."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **how,
        )


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
    """End the server and its workers."""
    for end in ("SIGTERM", "SIGKILL"):
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, end))
            else:
                process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL over folder/postgres while the context is open; yields the address of its database.

    It listens on a socket in a folder that only its user can enter, and on no port. The superuser runs it as the user
    postgres, since PostgreSQL refuses to be run by the superuser.

    Raises:
        InputError: if PostgreSQL is not installed, does not start, or serves this folder already.
    """
    folder = folder.absolute()
    with _folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    data, log = folder / "postgres", folder / "postgres.log"
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminable())
        try:
            stack.enter_context(exclusive(folder / "server", seconds=1))
        except Exception as error:
            raise InputError(f"folder={folder}: is being served already ({one_line(error)})") from error
        programs, user = _programs(data), _user(folder)
        if not data.exists():
            _create_cluster(programs, data, user)
        _end_orphan(data)
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="descentlab-")))
        if user:
            shutil.chown(sockets, user["user"], user["group"])
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "max_connections": "100",
            "shared_buffers": "256MB",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        process = _start([str(programs / "postgres"), "-D", str(data), *words], log, cwd=data, **user)
        stack.callback(_end_postgres, process)
        yield _wait_for_database(f"postgresql://postgres@/{{}}?host={sockets}", process, log, folder)


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"folder={folder}: {one_line(error)}") from error


def _programs(data: Path) -> Path:
    """The folder of initdb and postgres: of the version that made the cluster, else the newest."""
    version = data / "PG_VERSION"
    wanted = version.read_text(encoding="utf-8").strip() if version.is_file() else "*"
    found = sorted(Path("/usr/lib/postgresql").glob(f"{wanted}/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve()] if on_path and not found else []
    if not found:
        raise InputError(
            f"server: needs PostgreSQL{'' if wanted == '*' else f' {wanted}'} (Debian: apt-get install postgresql),"
            " or the address of one in DESCENTLAB_DATABASE"
        )
    return found[-1].parent


def _user(folder: Path) -> dict[str, Any]:
    """As whom the database runs, in the words of subprocess; nothing for an ordinary user."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        raise InputError("server: PostgreSQL refuses to run as root, and there is no user postgres") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _create_cluster(programs: Path, data: Path, user: dict[str, Any]) -> None:
    """Make a cluster, whole or not at all: it gets its name at the end."""
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    with _folder_errors(data.parent):
        new.mkdir(mode=0o700)
        if user:
            shutil.chown(new, user["user"], user["group"])
    command = [str(programs / "initdb"), "-D", str(new), "-U", "postgres", "-E", "UTF8", "--no-locale"]
    command += ["--auth-local=trust", "--auth-host=reject"]
    made = subprocess.run(command, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL, **user)
    if made.returncode:
        lines = [line for line in made.stderr.splitlines() if "error" in line] or made.stderr.splitlines()[-1:]
        who = " (it runs as the user postgres, who must be able to enter the folder)" if user else ""
        raise InputError(f"folder={data.parent}: {lines[0] if lines else 'initdb failed'}{who}")
    new.rename(data)


def _end_orphan(data: Path) -> None:
    """End the PostgreSQL of this folder whose parent was killed; the folder's lock says that it has none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and _is_postgres(pid):
            os.kill(pid, signal.SIGINT)
            time.sleep(0.2)


def _is_postgres(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and b"postgres" in command.read_bytes()


def _wait_for_database(address: str, process: subprocess.Popen, log: Path, folder: Path) -> str:
    """Wait until it answers; make the database where it is not there yet."""
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(address.format("postgres"), autocommit=True, connect_timeout=5) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
            return address.format(DATABASE)
        time.sleep(0.1)
    raise InputError(f"folder={folder}: PostgreSQL did not start: {_last_line(log)}")


def _end_postgres(process: subprocess.Popen) -> None:
    """Roll back what is open and stop; then at once."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
            return


# --- both --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def shared_store(
    folder: Path,
    port: int | None = None,
    database: str | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    passwords: bool = False,
) -> Iterator[Served]:
    """Serve a store that many write to, over PostgreSQL, while the context is open.

    Args:
        folder: of the database, unless `database` names one, and of the artifacts.
        port: on 127.0.0.1; a free one is chosen where None.
        database: address of a PostgreSQL of one's own.
        hosts: names, besides this machine's own, by which it may be called: those of a proxy.
        origins: addresses of other pages whose scripts may write.
        passwords: whether users must sign in; the first one's name and password are MLflow's MLFLOW_AUTH_ADMIN_USERNAME
            (else admin) and MLFLOW_AUTH_ADMIN_PASSWORD.

    Raises:
        InputError: if something is missing, taken or does not start.
    """
    check_driver()
    if passwords and not _has_module("flask_wtf"):
        raise InputError("auth=basic: needs pip install 'descentlab[server]'")
    port = _free_port(port)
    artifacts = folder.absolute() / "artifacts"
    with _folder_errors(folder):
        artifacts.mkdir(parents=True, exist_ok=True)
    own = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    words = ["--artifacts-destination", artifacts.as_uri()]
    words += ["--allowed-hosts", ",".join([*own, *hosts])]
    words += ["--cors-allowed-origins", ",".join([*(f"http://{name}" for name in own), *origins])]
    with contextlib.ExitStack() as stack:
        uri = database or stack.enter_context(postgres(folder))
        check_database(uri)
        environment = {}
        if passwords:
            private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="descentlab-")))
            environment = _sign_in(uri, folder, private)
            words += ["--app-name", "basic-auth"]
        yield stack.enter_context(mlflow_server(uri, port, words, environment))


def check_driver() -> None:
    """Refuse to go on without PostgreSQL's driver."""
    if not _has_module("psycopg"):
        raise InputError("server: needs PostgreSQL's driver: pip install 'descentlab[server]'")


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
