"""The registry of data sets: how each is read and which keys it takes.

To add one: write its reader, enter it in SOURCES with its keys, add conf/data/<name>.yaml.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from descentlab.data import files, idx, mnist, shipped
from descentlab.data.content import MEGABYTES
from descentlab.data.scaling import IMAGE, scaling, target_scaling
from descentlab.data.splits import DRAWN, LIMIT, MNIST, by_rows
from descentlab.data.table import Source
from descentlab.data.targets import TASKS
from descentlab.data.text import SEPARATORS
from descentlab.values import Check, Schema, choice, number, refusal, switch, text, whole

_TARGETS: Schema = {"targets": (choice("column", "one_hot"), "column")}
_PATH: Schema = {
    "path": (text("must be auto, or the path of a file or folder"), "auto"),
    "max_megabytes": (whole(1, 10**6), MEGABYTES),
}
_PATH_OR_NONE = (text("must be none, or the path of a file with the same columns"), "none")


def _columns(*words: str) -> Check:
    valid = f"must be {', '.join(words)}, a name, a position, a range such as 785-794, or a list of them"

    def check(key: str, value: Any) -> Any:
        if value is None and "none" in words:
            return "none"
        if isinstance(value, str) and re.fullmatch(r"\[.+\]", value):  # as it stands, where Hydra cannot read it
            value = [part.strip() for part in value[1:-1].split(",")]
        items = value if isinstance(value, (list, tuple)) else [value]
        if not items or not all(
            isinstance(item, (str, int)) and not isinstance(item, bool) and item != "" for item in items
        ):
            raise refusal(key, value, valid)
        return list(items) if isinstance(value, (list, tuple)) else value

    return check


def _header(key: str, value: Any) -> Any:
    return value if value == "auto" else switch(key, value)


def _always(task: str, count: int) -> dict[str, Any]:
    return {"task": lambda numbers: task, "outputs": lambda numbers: count}


_BY_TARGETS: dict[str, Any] = {
    "task": lambda numbers: "binary" if numbers["targets"] == "column" else "multiclass",
    "outputs": lambda numbers: 1 if numbers["targets"] == "column" else 2,
}


def _plane(name: str, noise: float) -> Source:
    schema: Schema = {
        "samples": (whole(10, 10**6), 400),
        "noise": (number(0), noise),
        "sample_seed": (whole(0, 2**32 - 1), 0),
        **_TARGETS,
        **scaling("none"),
        **DRAWN,
    }
    return Source(functools.partial(shipped.curves, name), schema, **_BY_TARGETS)


def _resolved_task(numbers: Mapping[str, Any]) -> str | None:
    """The task of a file where all that it could say is there already, so that it need not be read."""
    known = all(numbers[key] != "auto" for key in ("task", "target", "drop", "target_scaling"))
    return TASKS[numbers["task"]] if known else None


SOURCES: dict[str, Source] = {
    "digits": Source(shipped.digits, {**scaling("unit"), **IMAGE, **DRAWN, **by_rows()}, **_always("multiclass", 10)),
    "iris": Source(shipped.iris, {**scaling("standard"), **DRAWN}, **_always("multiclass", 3)),
    "breast_cancer": Source(shipped.breast_cancer, {**_TARGETS, **scaling("standard"), **DRAWN}, **_BY_TARGETS),
    "diabetes": Source(
        shipped.diabetes,
        {**scaling("standard"), **target_scaling("standard"), **DRAWN},
        **_always("regression", 1),
    ),
    "xor": Source(shipped.xor, {}, **_always("binary", 1)),
    "moons": _plane("moons", 0.1),
    "circles": _plane("circles", 0.1),
    "spirals": _plane("spirals", 0.02),
    "mnist": Source(
        mnist.mnist,
        {
            **_PATH,
            **scaling("unit"),
            **IMAGE,
            **MNIST,
        },
        **_always("multiclass", 10),
    ),
    "idx": Source(
        idx.idx,
        {**_PATH, **scaling("unit"), **IMAGE, **DRAWN, **by_rows()},
        task=lambda numbers: "multiclass",
        outputs=lambda numbers: None,
    ),
    "notebook": Source(
        mnist.notebook,
        {**_PATH, **IMAGE, **by_rows(train="0:250", test="250:300"), **LIMIT},
        **_always("multiclass", 10),
    ),
    "file": Source(
        files.read,
        {
            **_PATH,
            "target": (_columns("auto"), "auto"),
            "drop": (_columns("auto", "none"), "auto"),
            "task": (choice("auto", *TASKS), "auto"),
            "header": (_header, "auto"),
            "separator": (choice("auto", *SEPARATORS), "auto"),
            "decimal": (choice("point", "comma"), "point"),
            "missing": (choice("refuse", "drop", "mean"), "refuse"),
            "categories": (choice("refuse", "one_hot"), "refuse"),
            "encoding": (text("must be the name of an encoding, such as utf-16"), "utf-8"),
            "validation_path": _PATH_OR_NONE,
            "test_path": _PATH_OR_NONE,
            **scaling("standard"),
            **target_scaling("auto"),
            **DRAWN,
            **by_rows(),
        },
        task=_resolved_task,
        outputs=lambda numbers: None,
    ),
}
