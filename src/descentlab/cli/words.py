"""Words of the command line that several commands share: which store, which runs."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from descentlab.config import spellings
from descentlab.config.composing import compose
from descentlab.config.options import GROUPS, schemas
from descentlab.tracking import StoredRun, find, get
from descentlab.values import InputError, Option, refusal, shown, unknown

LISTED = 30  # runs that a list shows by default
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING")
FILTERS = (  # params that filters may name, beside <group>.<number>; and a run's name
    "name", "data", "hidden", "activation", "output", "loss", "initializer", "descent", "batch_size", "update",
    "learning_rate", "learning_rate_decay", "weight_decay", "epochs", "dtype", "seed", "restarts", "study", "form",
)  # fmt: skip


def store_words(option: Option) -> str:
    """The overrides that name a store on a command line, each after a space; without passwords."""
    uri, experiment = (str(option.numbers.get(key, "auto")) for key in ("uri", "experiment"))
    words = ["tracking=server"] if option.name == "server" else []
    if experiment not in ("auto", "descentlab"):
        words.append(f"tracking.experiment={experiment}")
    if uri != "auto" and "@" not in uri:  # an address with a password is not repeated
        words.append(f"tracking.uri={uri}")
    return "".join(f" {shlex.quote(word)}" for word in words)


def tracking_option(overrides: Sequence[str]) -> Option:
    """The store that overrides such as tracking.uri=... name."""
    for word in overrides:
        if not word.startswith("tracking"):
            raise InputError(f"{shown(word)}: must be an override of tracking, such as tracking.uri=runs.db")
    return compose(overrides, sweep=False)[0].tracking


def apart(words: Sequence[str]) -> tuple[list[str], Option]:
    """A command's own words, and the store that its overrides of tracking name."""
    store = [word for word in words if word.startswith("tracking")]
    return [word for word in words if word not in store], tracking_option(store)


@dataclass(frozen=True)
class Wanted:
    """The runs that some words ask for."""

    sweep: str | None = None
    status: str | None = None
    limit: int | None = LISTED
    where: Mapping[str, str] = field(default_factory=dict)

    def runs(self, option: Option, level: str, status: str | None = None, deleted: bool = False) -> list[StoredRun]:
        """The runs, the newest first."""
        wanted, asked = self.status or status, None if self.status in ("RUNNING", "KILLED") else self.status or status
        found = find(option, level, self.sweep, status=asked, deleted=deleted)
        if wanted != asked:  # a process may be gone without a trace in the store
            found = [run for run in found if run.state == str(wanted).lower()]
        return [run for run in reversed(found) if all(_has(run, key, value) for key, value in self.where.items())]


def wanted_runs(words: Sequence[str], command: str) -> Wanted:
    """Words such as sweep=last, status=FAILED, activation=relu, limit=all."""
    given: dict[str, Any] = {}
    where = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = spellings.key(key, FILTERS).removeprefix("network.").replace("descent.batch_size", "batch_size")
        if not equals or not value:
            raise InputError(f"{shown(word)}: {command} takes words such as sweep=last, status=FAILED, activation=relu")
        if key == "status":
            if value.upper() not in STATUSES:
                raise unknown(key, value, STATUSES)
            given[key] = value.upper()
        elif key == "limit" and command == "list":
            if value != "all" and not re.fullmatch("[1-9][0-9]{0,8}", value):
                raise refusal(key, value, "must be all or a whole number from 1")
            given[key] = None if value == "all" else int(value)
        elif key == "sweep":
            given[key] = value
        else:
            valid = ["sweep", "status", *(["limit"] if command == "list" else []), *FILTERS]
            group, _, number = key.partition(".")
            if key not in valid and not (number and group in GROUPS):
                raise spellings.unknown_key(key, value, valid)
            where[key] = spellings.option(key, value, schemas(key)) if key in GROUPS else value
    return Wanted(**given, where=where)


def _has(run: StoredRun, key: str, wanted: str) -> bool:
    """Whether a run's param (or its name) has the wanted value; numbers are compared as numbers."""
    have = run.name if key == "name" else run.params.get(key)
    if have is None or have == wanted:
        return have == wanted
    try:
        return key != "hidden" and float(have) == float(wanted)
    except ValueError:
        return False


def named_words(words: Sequence[str], count: int, command: str) -> Sequence[str]:
    """Words that must be the ids of runs, as many as a command takes."""
    if len(words) != count or any("=" in word or word.startswith("-") for word in words):
        example = " ".join(("0123abcd", "4567cdef")[:count])
        ids = "the id of a run" if count == 1 else f"the ids of {count} runs"
        raise InputError(f"{command}: needs {ids}, as in: descentlab {command} {example}; descentlab list shows them")
    return words


def named_runs(words: Sequence[str], count: int, command: str, option: Option) -> list[StoredRun]:
    """The runs that words name, as many as a command takes."""
    return [get(option, word) for word in named_words(words, count, command)]
