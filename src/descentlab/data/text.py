"""CSV files: numbers between commas, with or without a line of names."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data.paths import path_of
from descentlab.data.table import Table
from descentlab.values import InputError, refusal

# data.task -> nn.losses.TASKS
TASKS = {"regression": "regression", "binary": "binary", "classes": "multiclass", "multilabel": "multilabel"}


def read(numbers: Mapping[str, Any]) -> Table:
    """The table of a CSV file."""
    if numbers["path"] == "auto":
        raise refusal("data.path", "auto", "data=csv needs the path of a CSV file")
    path = path_of(numbers["path"])
    values, header = _numbers_of(path)
    columns = values.shape[1]
    inputs = columns - 1 if numbers["inputs"] == "auto" else numbers["inputs"]
    if not 0 < inputs < columns:
        valid = f"must be auto or from 1 to {columns - 1}, since {path.name} has {columns} columns"
        raise refusal("data.inputs", numbers["inputs"], valid)
    table = Table(path.stem, values[:, :inputs], values[:, inputs:], "")
    return replace(table, task=_task(table.targets, numbers["task"], path, header))


def _task(targets: ndarray, asked: str, path: Path, header: int) -> str:
    """The task of targets as they stand, or the one asked for if they fit it."""
    bits = (targets == 0) | (targets == 1)
    one_hot = bits.all(axis=1) & (targets.sum(axis=1) == 1)
    if asked == "auto":
        if targets.shape[1] == 1:
            return "binary" if bits.all() else "regression"
        return "multiclass" if one_hot.all() else "multilabel" if bits.all() else "regression"
    if asked == "classes":
        if targets.shape[1] == 1:
            raise refusal("data.task", asked, f"needs one target column per class; {path.name} has one (data.inputs)")
        if not one_hot.all():
            row = int(np.argmin(one_hot)) + header + 1
            raise InputError(f"{path}: row {row}: targets must be one-hot (one 1, the rest 0) for data.task=classes")
    if asked in ("binary", "multilabel") and not bits.all():
        row, column = (int(place[0]) for place in np.nonzero(~bits))
        raise InputError(f"{path}: row {row + header + 1}: target {column + 1} must be 0 or 1 for data.task={asked}")
    if asked == "multilabel" and (targets.shape[1] == 1 or one_hot.all()):
        raise refusal("data.task", asked, f"{path.name} has {'one label' if targets.shape[1] == 1 else 'classes'}")
    return TASKS[asked]


def _numbers_of(path: Path) -> tuple[ndarray, int]:
    """All values of a CSV file (rows, columns), and how many header lines come before them.

    NumPy's reader is fast and its messages are not good enough, so what it refuses is read again slowly.
    """
    lines = _lines(path)
    header = 1 if lines and _is_header(lines[0]) else 0
    body = lines[header:]
    while body and not body[-1].strip():
        body.pop()
    if not body:
        raise InputError(f"{path}: holds no rows of numbers")
    try:
        if not all(line.strip() for line in body):
            raise ValueError("NumPy would skip it")
        values = np.loadtxt(body, delimiter=",", comments=None, ndmin=2)
    except ValueError:
        values = np.array(list(_slowly(path, body, header)))
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        found = next(csv.reader([body[row]]))[column].strip()
        raise InputError(f"{path}: row {row + header + 1}, column {column + 1}: {found!r} is not a finite number")
    return values, header


def _lines(path: Path) -> list[str]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "is cut short"
        raise InputError(f"{path}: cannot be read as a CSV file ({reason})") from error


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def _is_header(line: str) -> bool:
    """Whether a first line names columns: at least one field, and no number among them."""
    fields = [field.strip() for field in next(csv.reader([line]), [])]
    return any(fields) and not any(_is_number(field) for field in fields)


def _slowly(path: Path, body: list[str], header: int) -> Iterator[list[float]]:
    width = None
    for row, line in enumerate(body, start=header + 1):
        try:
            fields = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise InputError(f"{path}: row {row}: {error}") from error
        if not fields and width is None:
            raise InputError(f"{path}: row {row} is empty")
        width = width or len(fields)
        if len(fields) != width:
            raise InputError(f"{path}: row {row} has {len(fields)} columns, the rows before it have {width}")
        for column, field in enumerate(fields, start=1):
            if not _is_number(field):
                raise InputError(f"{path}: row {row}, column {column}: {field.strip()!r} is not a number")
        yield [float(field) for field in fields]
