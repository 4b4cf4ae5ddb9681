"""The task of target columns, and what a network is to answer: numbers, one column of 0 and 1, or one-hot rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.data.text import Cells
from descentlab.values import InputError, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

# data.task -> nn.losses.TASKS
TASKS = {"regression": "regression", "binary": "binary", "classes": "multiclass", "multilabel": "multilabel"}
MOST_LABELS, OFTEN = 20, 5  # whole numbers look like labels up to so many, of which most stand in so many rows


@dataclass(frozen=True)
class Targets:
    """Values (N, K), their task as in nn.losses.TASKS, the names of classes, and what is to be said of them."""

    values: ndarray
    task: str
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def like_labels(values: ndarray) -> bool:
    """Whether numbers look like labels: whole, few, and most of them in several rows."""
    if np.isnan(values).any() or (values % 1 != 0).any():
        return False
    found, counts = np.unique(values, return_counts=True)
    return len(found) <= MOST_LABELS and bool((counts >= OFTEN).mean() > 0.5)


def read_targets(cells: Cells, columns: "Sequence[Any]", kept: ndarray, asked: str) -> Targets:
    """The targets of columns whose cells are all there.

    Args:
        cells: for messages.
        columns: the target columns (`columns.Column`).
        kept: which rows (N,) are used.
        asked: data.task.

    Raises:
        InputError: for a task that the targets do not fit, or that is in doubt.
    """
    if len(columns) > 1:
        return _several(cells, columns, kept, asked)
    (column,) = columns
    values, where = column.values[kept], f"{cells.path}: column {column.shown}"
    if asked == "multilabel":
        raise refusal(
            "data.task", asked, f"{cells.path.name} has one target, {column.shown}; name several in data.target"
        )
    found, codes, counts = np.unique(
        values.astype(str) if column.kind == "text" else values, return_inverse=True, return_counts=True
    )
    if column.kind != "number" and asked == "regression":
        raise refusal(
            "data.task",
            asked,
            f"column {column.shown} of {cells.path.name} holds {_label(column, found[0])!r}, not numbers",
        )
    if asked == "auto":
        asked = _task(where, column, found, counts)
    if asked == "regression":
        return Targets(values[:, None].astype(np.float64), "regression")
    labels = tuple(_label(column, value) for value in found)
    if len(found) == 1:
        raise InputError(
            f"{where}: every row is {labels[0]}; one class only cannot be learnt; choose another data.target"
        )
    if asked == "binary":
        if len(found) != 2:
            raise refusal(
                "data.task", asked, f"column {column.shown} of {cells.path.name} has {len(found)} different values"
            )
        notes = () if labels == ("0", "1") else (f"label {labels[1]} counts as 1, {labels[0]} as 0",)
        return Targets(codes.reshape(-1, 1).astype(np.float64), "binary", labels, notes)
    if len(found) > max(100, len(values) // 2):
        raise refusal(
            "data.task",
            asked,
            f"column {column.shown} of {cells.path.name} has {len(found)} different values in {len(values)} rows",
        )
    return Targets((codes.reshape(-1, 1) == np.arange(len(found))).astype(np.float64), "multiclass", labels)


def _task(where: str, column: Any, found: ndarray, counts: ndarray) -> str:
    """The task of a single target where no key says it."""
    if column.kind == "text" and (counts == 1).mean() > 0.5:
        cell = found[counts == 1][0]
        once = f"most of its texts stand only once, such as {str(cell)!r}"
        raise InputError(f"{where}: {once}; make them numbers, or say data.task=classes")
    if column.kind != "number" or len(found) <= 2:
        return "binary" if len(found) <= 2 else "classes"
    if like_labels(column.values):
        told = f"whole numbers from {found[0]:g} to {found[-1]:g} look like labels"
        raise InputError(f"{where}: {told}; say data.task=classes or data.task=regression")
    return "regression"


def _label(column: Any, value: Any) -> str:
    if column.kind == "boolean":
        return "true" if value else "false"
    return str(value) if column.kind == "text" else f"{value:.15g}"


def _several(cells: Cells, columns: "Sequence[Any]", kept: ndarray, asked: str) -> Targets:
    """Several target columns: one-hot classes, labels of 0 and 1, or numbers."""
    names = tuple(column.shown for column in columns)
    for column in columns:
        if column.kind == "text":
            raise InputError(f"{cells.path}: column {column.shown} is text; several targets must be numbers")
    values = np.stack([column.values[kept] for column in columns], axis=1)
    bits = bool(np.isin(values, (0.0, 1.0)).all())
    one_hot = bits and bool((values.sum(axis=1) == 1).all())
    own = "classes" if one_hot else "multilabel" if bits else "regression"
    task = own if asked == "auto" else asked
    if task not in (own, "regression"):
        holds = {"classes": "are one-hot", "multilabel": "are 0 and 1", "regression": "hold other numbers than 0 and 1"}
        raise refusal("data.task", asked, f"the targets of {cells.path.name} {holds[own]}")
    if task == "regression":
        return Targets(values, "regression")
    constant = [name for name, column in zip(names, values.T, strict=True) if len(np.unique(column)) == 1]
    if constant:
        raise InputError(f"{cells.path}: column {constant[0]} is the same in every row; leave it out of data.target")
    return Targets(values, TASKS[task], names)
