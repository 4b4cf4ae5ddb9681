"""What a data set holds, in words: the line said before a run, and the tables of `descentlab inspect`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import SPLITS
from descentlab.data.loading import Dataset
from descentlab.data.targets import TASKS
from descentlab.values import shown

SHOWN, LONGEST = 12, 4000  # names and characters in a line


def said(dataset: Dataset) -> str:
    """One line: file, rows of each split, inputs, target, classes with their counts, scaling, and what else to know."""
    about, table = inspected(dataset), dataset.table
    rows = ", ".join(f"{about['rows'][split]} {split}" for split in SPLITS if about["rows"][split])
    inputs, targets = about["inputs"], about["targets"]
    counts = [f"{label}: {count}" for label, count in about["classes"].items()]
    kinds = {"regression": "regression", "multilabel": f"multilabel ({_listed(counts)})"}
    kind = kinds.get(about["task"], f"{len(counts)} classes ({_listed(counts)})")
    parts = [f"{table.file or table.name}: {len(table.inputs)} rows ({rows})"]
    parts.append(f"{len(inputs)} input{'s' if len(inputs) > 1 else ''} ({_listed(inputs)})")
    parts.append(f"target{'s' if len(targets) > 1 else ''} {_listed(targets)}: {kind}")
    parts.append(f"scaling {dataset.settings.get('scaling', 'none')}")
    if dataset.settings.get("target_scaling", "none") != "none":
        parts.append(f"target scaling {dataset.settings['target_scaling']} (losses are in scaled units)")
    separator = table.found.get("separator", "comma")
    more = [] if separator == "comma" else [f"cells separated by {separator}"]
    unseen = [name for name in _texts(dataset) if name not in inputs]
    more += [f"{_listed(unseen)}: in no training row, read as all zeros"] if unseen else []
    return shown("; ".join([", ".join(parts), *more, *dataset.notes]), LONGEST)


def _texts(dataset: Dataset) -> list[str]:
    """Names of the inputs that the texts of all rows would make."""
    names = dataset.column_names
    return [f"{names[place]}={text}" for place, texts in dataset.table.categories.items() for text in texts]


def lines(dataset: Dataset) -> list[str]:
    """What is said before a run: of a file of the user's what was read, of other data what is unusual."""
    return [said(dataset)] if dataset.table.file else list(dataset.notes)


def inspected(dataset: Dataset) -> dict[str, Any]:
    """What `descentlab inspect --json` prints; counts are over all rows that were read."""
    table = dataset.table
    targets = table.targets
    width = targets.shape[1]
    labels = table.labels or tuple(str(place) for place in range(2 if width == 1 else width))
    ones = targets.sum(axis=0).astype(int).tolist()
    counts = ones if width > 1 else [len(targets) - ones[0], ones[0]]
    return {
        "rows": {split: len(dataset.rows.get(split, ())) for split in SPLITS},
        "inputs": dataset.input_names,
        "targets": _target_names(dataset),
        "task": next(own for own, meant in TASKS.items() if meant == dataset.task),
        "classes": {} if dataset.task == "regression" else dict(zip(labels, counts, strict=True)),
        "dropped": list(table.dropped),
        "categories": {dataset.column_names[place]: list(values) for place, values in sorted(table.categories.items())},
    }


def columns(dataset: Dataset) -> list[dict[str, str]]:
    """A row per column of the file: name, kind, smallest, largest, missing, different values, role."""
    table = dataset.table
    rows = []
    for place, name in enumerate(dataset.column_names):
        values = table.inputs[:, place]
        rows.append(_column(name, values, "input", table.categories.get(place)))
    if len(_target_names(dataset)) == 1 and table.targets.shape[1] > 1:
        labels = table.labels or tuple(map(str, range(table.targets.shape[1])))
        rows.append(_column(_target_names(dataset)[0], table.targets.argmax(axis=1), "target", labels))
    else:
        for name, values in zip(_target_names(dataset), table.targets.T, strict=True):
            rows.append(_column(name, values, "target", table.labels if dataset.task == "binary" else None))
    empty = dict.fromkeys(("kind", "smallest", "largest", "missing", "different"), "-")
    return rows + [{"name": name, **empty, "role": "dropped"} for name in table.dropped]


def _column(name: str, values: ndarray, role: str, texts: Sequence[str] | None) -> dict[str, str]:
    gone = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    held = np.unique(values[~gone])
    low, high = (texts[int(held[0])], texts[int(held[-1])]) if texts else (f"{held[0]:.6g}", f"{held[-1]:.6g}")
    kind = "label" if texts and role == "target" else "text" if texts else "number"
    about = {"name": name, "kind": kind, "smallest": low, "largest": high}
    return {**about, "missing": str(int(gone.sum())), "different": str(len(held)), "role": role}


def _target_names(dataset: Dataset) -> list[str]:
    """Names of the target columns, or their positions after the inputs'."""
    first = dataset.table.inputs.shape[1] + 1
    count = 1 if dataset.task == "multiclass" else dataset.outputs
    return list(dataset.table.target_names) or [str(first + place) for place in range(count)]


def _listed(names: Sequence[str]) -> str:
    """Names with commas between them, those in the middle of many left out."""
    return ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:2])}, ..., {names[-1]}"
