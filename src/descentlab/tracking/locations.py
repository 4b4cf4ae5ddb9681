"""Where a store is: its address, the file of an SQLite store, and the lock beside it."""

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from descentlab.tracking.environment import clone
from descentlab.values import InputError, Option
from descentlab.values import without_password as shown


def home() -> Path:
    """The folder of the default store: the clone's root, or the working directory for an installed wheel."""
    return clone() or Path.cwd()


def store_uri(option: Option) -> str:
    """The absolute address of an option's store.

    Its `uri` may be auto, a path, sqlite:/// or a server's address; for auto the environment's MLFLOW_TRACKING_URI
    counts, else mlflow.db at home.
    """
    key, uri = "tracking.uri", str(option.numbers.get("uri") or "auto")
    if uri == "auto" and os.environ.get("MLFLOW_TRACKING_URI"):
        key, uri = "MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"]
    if uri == "auto":
        if option.name == "server":
            raise InputError("tracking.uri=auto: tracking=server needs an address such as http://127.0.0.1:5000")
        return sqlite_uri(home() / "mlflow.db")
    if re.match(r"postgresql(\+\w+)?://.", uri):
        return uri
    if re.match(r"https?://.", uri):
        return _signed_in(uri)
    if uri.startswith("sqlite:///"):
        return sqlite_uri(Path(unquote(uri.removeprefix("sqlite:///"))).absolute())
    if re.match(r"\w+:", uri) and not Path(uri).exists():
        scheme = uri.partition(":")[0]
        raise InputError(f"{key}={scheme}://...: must start with sqlite:///, http://, https:// or postgresql://")
    return sqlite_uri(Path(uri).absolute())


def _signed_in(uri: str) -> str:
    """A server's address without user and password, which go into the environment, where MLflow looks for them.

    In the address they would be in every message of the client, and on the command line of every process.
    """
    user, _, _ = urlsplit(uri).netloc.rpartition("@")
    if user:
        name, _, password = user.partition(":")
        os.environ |= {"MLFLOW_TRACKING_USERNAME": unquote(name), "MLFLOW_TRACKING_PASSWORD": unquote(password)}
    return uri.replace(f"//{user}@", "//", 1) if user else uri


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file."""
    return "sqlite:///" + path.as_posix().replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite address; None for any other store."""
    return Path(unquote(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def exclusive(path: Path, seconds: float = 300) -> Iterator[None]:
    """Hold the lock beside a path: SQLite's own kind, which works everywhere and ends with its process.

    Raises:
        sqlite3.Error: it cannot be created, or another process holds it for that long.
    """
    connection = sqlite3.connect(path.with_name(f"{path.name}.lock"), timeout=seconds, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def one_line(error: BaseException) -> str:
    """An error in one line, without SQLAlchemy's statement and links."""
    text = str(error).strip().splitlines()
    line = text[0].strip() if text else ""
    if "error code 401" in line:
        return "access denied; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD must name a user of the server"
    return shown(re.sub(r"^\((?:sqlite3|psycopg)\.\w+\) ", "", line)) or type(error).__name__


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn the errors of a broken or absent store into one line."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (sqlite3.Error, OSError, *_library_errors())):
            raise
        raise InputError(f"tracking.uri={shown(uri)}: {one_line(error)}") from error


def _library_errors() -> list[type[Exception]]:
    """MLflow's and SQLAlchemy's errors, as far as these libraries are imported."""
    names = {"mlflow.exceptions": "MlflowException", "sqlalchemy.exc": "SQLAlchemyError"}
    return [getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules]
