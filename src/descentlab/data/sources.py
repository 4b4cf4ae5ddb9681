"""The registry of data sets: how each is read and which keys it takes.

To add one: write its reader, enter it in SOURCES with its keys, add conf/data/<name>.yaml.
"""

import functools
from typing import Any

from descentlab.data import mnist, shipped
from descentlab.data import text as csv
from descentlab.data.scaling import IMAGE, scaling, target_scaling
from descentlab.data.splits import DRAWN, LIMIT, by_rows
from descentlab.data.table import Source
from descentlab.values import Schema, choice, number, text, whole

_TARGETS: Schema = {"targets": (choice("column", "one_hot"), "column")}
_PATH: Schema = {"path": (text("must be auto, or the path of a file or folder"), "auto")}


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
            **by_rows(train="0:50000", validation="50000:60000", test="60000:70000"),
            **LIMIT,
        },
        **_always("multiclass", 10),
    ),
    "notebook": Source(
        mnist.notebook,
        {**_PATH, **IMAGE, **by_rows(train="0:250", test="250:300"), **LIMIT},
        **_always("multiclass", 10),
    ),
    "csv": Source(
        csv.read,
        {
            **_PATH,
            "inputs": (whole(1, 10**6, "auto"), "auto"),
            "task": (choice("auto", *csv.TASKS), "auto"),
            **scaling("none"),
            **target_scaling("none"),
            **DRAWN,
            **by_rows(),
        },
        task=lambda numbers: csv.TASKS.get(numbers["task"]),
        outputs=lambda numbers: None,
    ),
}
