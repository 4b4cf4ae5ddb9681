"""`descentlab ui` and `descentlab server`: stored runs in MLflow, for oneself or for several people."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from descentlab.cli.words import tracking_option
from descentlab.tracking import serve_shared, serve_ui
from descentlab.tracking.locations import home
from descentlab.values import InputError, nearest, refusal, shown, unknown

SERVER_WORDS = ("port", "folder", "hosts", "origins", "auth")


def ui(words: Sequence[str]) -> int:
    """Serve a store to this machine until Ctrl-C; words are port= and overrides of tracking."""
    ports = [word for word in words if word.startswith("port=")]
    port = _port(ports[-1].removeprefix("port=")) if ports else None
    serve_ui(tracking_option([word for word in words if word not in ports]), port)
    return 0


def server(words: Sequence[str]) -> int:
    """Serve a shared store until Ctrl-C; words are those of SERVER_WORDS."""
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in SERVER_WORDS or not equals or not value:
            valid = ", ".join(f"{name}=" for name in SERVER_WORDS)
            raise InputError(f"{shown(word)}: must be {valid}{nearest(key, SERVER_WORDS)}")
        given[key] = value
    if given.get("auth", "none") not in ("none", "basic"):
        raise unknown("auth", given["auth"], ("none", "basic"))
    database = os.environ.get("DESCENTLAB_DATABASE") or None  # not a word: it may hold a password
    if database and not re.match(r"postgresql(\+\w+)?://.", database):
        raise InputError(f"DESCENTLAB_DATABASE={shown(database)}: must start with postgresql://")
    serve_shared(
        Path(given.get("folder", home() / "server")).absolute(),
        database,
        _port(given.get("port", "5000")),
        hosts=[name for name in given.get("hosts", "").split(",") if name],
        origins=[name for name in given.get("origins", "").split(",") if name],
        passwords=given.get("auth") == "basic",
    )
    return 0


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise refusal("port", text, "must be a whole number from 1 to 65535")
    return int(text)
