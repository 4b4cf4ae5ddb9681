"""The options of every group of conf/, and the numbers that each takes.

An option's own numbers default to those of its factory in nn, of the data sources, or of TRACKING and LAUNCHERS below.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from descentlab.data.sources import SOURCES
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.losses import LOSSES
from descentlab.nn.updates import UPDATES
from descentlab.values import (
    LARGEST,
    InputError,
    Option,
    Schema,
    choice,
    nearest,
    number,
    refusal,
    text,
    unknown,
    whole,
)

GROUPS = ("activation", "loss", "initializer", "descent", "update", "data", "tracking")
LAUNCHER = "hydra/launcher"  # on the command line and in conf/; its numbers are hydra.launcher.workers, ...

_STORE: Schema = {
    "uri": (text("must be auto, a path, or an address: sqlite:///..., http://..., postgresql://..."), "auto"),
    "experiment": (text("must be the name of an MLflow experiment"), "descentlab"),
    "children": (choice("auto", "all", "none"), "auto"),
    "retry_seconds": (number(0), 300.0),
    "checkpoint_seconds": (number(0), 600.0),
}
TRACKING: Mapping[str, Schema] = {"local": _STORE, "server": _STORE, "none": {}}
_CORES: Schema = {"cores": (whole(1, 1024), 1)}
_WORD = text("must be auto or a word without spaces", r"\S+")
LAUNCHERS: Mapping[str, Schema] = {
    "none": {},
    "local": {"workers": (whole(1, 1024), 2), **_CORES},
    "cluster": {
        "address": (text("must be local, auto, or the address of a Ray cluster: host:6379", r"\S+"), "local"),
        "workers": (whole(1, 10_000, "auto"), "auto"),
        **_CORES,
    },
    "slurm": {
        "cluster": (choice("slurm", "local"), "slurm"),
        "workers": (whole(1, 10_000), 10),
        **_CORES,
        "minutes": (whole(1, 10**6), 60),
        "memory": (number(0, above=True), 2.0),
        "partition": (_WORD, "auto"),
        "account": (_WORD, "auto"),
        "folder": (text("must be auto, or a folder that every node sees"), "auto"),
    },
}


@cache
def schemas(group: str) -> Mapping[str, Schema]:
    """What the options of a group are, and which numbers each takes: option -> key -> (check, default)."""
    if group == "tracking":
        return TRACKING
    if group == LAUNCHER:
        return LAUNCHERS
    if group == "data":
        return {name: source.schema for name, source in SOURCES.items()}
    if group == "loss":
        return {"auto": {}, **{name: {} for name in LOSSES}}
    registries: dict[str, Mapping[str, Callable[..., Any]]] = {
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "descent": DESCENTS,
        "update": UPDATES,
    }
    found = {name: _schema(factory) for name, factory in registries[group].items()}
    return {"auto": found["glorot_uniform"], **found} if group == "initializer" else found


def _schema(factory: Callable[..., Any]) -> Schema:
    """A factory's own numbers, from its signature; their ranges are the factory's to check."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: (whole(-LARGEST) if isinstance(p.default, int) else number(), p.default) for p in parameters}


def chosen(group: str, given: Any, own: Mapping[str, Schema] | None = None) -> Option:
    """The option of a group that a value names, its numbers checked and filled up with their defaults."""
    known = own or schemas(group)
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise unknown(group, given, known)
    name = given.get("name")
    if not isinstance(name, str) or name not in known:
        raise unknown(group, name, known)
    for key, value in given.items():
        if key != "name" and key not in known[name]:
            raise _foreign(group, name, key, value, known)
    dotted = group.replace("/", ".")
    numbers = {key: check(f"{dotted}.{key}", given.get(key, default)) for key, (check, default) in known[name].items()}
    return Option(name, numbers)


def _foreign(group: str, name: str, key: str, value: Any, known: Mapping[str, Schema]) -> InputError:
    """The error for a number that the chosen option does not have."""
    owners = [option for option, schema in known.items() if key in schema]
    dotted = group.replace("/", ".")
    if owners:
        return refusal(f"{dotted}.{key}", value, f"belongs to {group}={' or '.join(owners)}, not to {group}={name}")
    own = sorted(known[name])
    takes = f"{group}={name} takes {', '.join(own)}{nearest(key, own)}" if own else f"{group}={name} takes no numbers"
    return refusal(f"{dotted}.{key}", value, f"unknown key; {takes}")
