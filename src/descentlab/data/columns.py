"""Columns of a file as inputs and targets: what cannot be otherwise is decided, all else is refused with its key.

The order of the doubts: missing cells, decimal commas, columns to drop, the target, categories, the task.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.data.table import Table
from descentlab.data.targets import like_labels, read_targets
from descentlab.data.text import MISSING, Cells, is_number
from descentlab.values import InputError, nearest, refusal

if TYPE_CHECKING:
    import pandas as pd


MOST_TEXTS = 100  # of a column that become inputs, where most rows have a text of their own


@dataclass(frozen=True)
class Column:
    """One column of a file.

    Attributes:
        name: as in the header, "" without one.
        place: in the file, from 1.
        kind: "number", "boolean" or "text".
        values: (N,) float64 with NaN for a missing cell, or texts with "" for one.
    """

    name: str
    place: int
    kind: str
    values: ndarray

    @property
    def shown(self) -> str:
        """Its name, or its position where it has none."""
        return self.name or str(self.place)

    @property
    def missing(self) -> ndarray:
        """Which cells (N,) are missing."""
        return self.values == "" if self.kind == "text" else np.isnan(self.values)


def word(key: str, columns: Sequence[Column]) -> str:
    """A key with columns as its value, to be pasted into a shell."""
    names = [_pasted(column) for column in columns]
    places = [column.place for column in columns]
    if len(names) > 1 and not columns[0].name and places == list(range(places[0], places[-1] + 1)):
        names = [f"{places[0]}-{places[-1]}"]
    return shlex.quote(f"{key}={names[0] if len(names) == 1 else '[' + ','.join(names) + ']'}")


def _pasted(column: Column) -> str:
    plain = re.fullmatch(r"[^\W\d][\w.-]*", column.name) and column.name.lower() not in (
        "null",
        "true",
        "false",
        "none",
    )
    escaped = column.name.replace("\\", "\\\\").replace('"', '\\"')
    return str(column.place) if not column.name else column.name if plain else f'"{escaped}"'


def table_of(cells: Cells, numbers: Mapping[str, Any]) -> Table:
    """The table of a file's cells.

    Args:
        cells: as read.
        numbers: the keys of data=file.

    Raises:
        InputError: for the first doubt that no key settles.
    """
    path = cells.path
    names = cells.names or ("",) * cells.frame.shape[1]
    columns = [_column(cells, numbers, place, names[place]) for place in range(len(names))]
    dropped = [] if numbers["drop"] in ("auto", "none") else chosen(path, columns, "data.drop", numbers["drop"])
    asked = list(cells.targets) or "auto" if numbers["target"] == "auto" else numbers["target"]
    targets = None if asked == "auto" else chosen(path, columns, "data.target", asked)
    left = [column for column in columns if column not in dropped]
    if len(left) < 2:
        raise InputError(f"{path}: has {len(left)} column(s) to read; a target and at least one input are needed")
    for column in targets or []:
        if column in dropped:
            raise refusal("data.target", column.shown, "is in data.drop too")
    _check_missing(cells, numbers, left)
    _check_decimal(cells, numbers, left)
    if numbers["drop"] == "auto" and left[0] not in (targets or []) and _identifies(left[0]):
        what = f"{path}: column {left[0].shown} counts or identifies the rows"
        raise InputError(f"{what}; say {word('data.drop', left[:1])}, or data.drop=none to train on it")
    targets = targets or _target(cells, left)
    inputs = [column for column in left if column not in targets]
    if not inputs:
        raise InputError(f"{path}: all columns are targets; at least one input is needed")
    kept = _kept(cells, numbers, left, targets)
    values, categories = _values(cells, numbers, inputs, kept)
    read = read_targets(cells, targets, kept, numbers["task"])
    lost = len(kept) - len(values)
    notes = (f"{lost} {'rows' if lost > 1 else 'row'} with missing cells left out",) if lost else ()
    return Table(
        path.name.split(".")[0] or path.name,
        values,
        read.values,
        read.task,
        notes=notes + read.notes,
        names=tuple(column.shown for column in inputs),
        target_names=tuple(column.shown for column in targets),
        labels=read.labels,
        categories=categories,
        dropped=tuple(column.shown for column in dropped),
        kept=np.flatnonzero(kept) if lost else None,
        found={**cells.found, "target": _key(targets, names), "drop": _key(dropped, names)},
        file=path.name,
    )


def _key(columns: Sequence[Column], names: Sequence[str]) -> Any:
    """Columns as the value of a key: what finds them again."""
    found = [column.name if names.count(column.name) == 1 and column.name else column.place for column in columns]
    return found[0] if len(found) == 1 else found or "none"


def _kept(cells: Cells, numbers: Mapping[str, Any], columns: Sequence[Column], targets: Sequence[Column]) -> ndarray:
    """Which rows (N,) are used: all, or those without missing cells."""
    for column in targets:
        if column.missing.any():
            where = f"{cells.path}: {cells.place(int(np.argmax(column.missing)))}, column {column.shown}"
            raise InputError(f"{where}: a missing target is never filled; delete the row")
    if numbers["missing"] != "drop":
        return np.ones(len(cells.frame), dtype=bool)
    kept = ~np.any([column.missing for column in columns], axis=0)
    if not kept.any():
        emptiest = max(columns, key=lambda column: column.missing.sum())
        raise InputError(f"{cells.path}: every row has a missing cell; say {word('data.drop', [emptiest])}")
    return np.asarray(kept)


def _values(
    cells: Cells, numbers: Mapping[str, Any], inputs: Sequence[Column], kept: ndarray
) -> tuple[ndarray, dict[int, tuple[str, ...]]]:
    """Raw inputs (N, n), positions in place of texts, and the texts of every text column."""
    categories: dict[int, tuple[str, ...]] = {}
    values = np.empty((int(kept.sum()), len(inputs)))
    for at, column in enumerate(inputs):
        own = column.values[kept]
        if column.kind == "text":
            _check_text(cells, numbers, column)
            found, own = np.unique(own.astype(str), return_inverse=True)
            if len(found) > max(MOST_TEXTS, len(own) / 2):
                what = f"{cells.path}: column {column.shown} has {len(found)} different texts in {len(own)} rows"
                raise InputError(f"{what}; say {word('data.drop', [column])}")
            categories[at] = tuple(map(str, found))
        values[:, at] = own
    return values, categories


# --- what a column holds -----------------------------------------------------------------------------------------


def _column(cells: Cells, numbers: Mapping[str, Any], place: int, name: str) -> Column:
    series = cells.frame.iloc[:, place]
    kind = series.dtype.kind
    if kind in "iuf":
        return Column(name, place + 1, "number", series.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind == "b":
        return Column(name, place + 1, "boolean", series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _text_column(series, numbers, place, name)


def _text_column(series: "pd.Series", numbers: Mapping[str, Any], place: int, name: str) -> Column:
    """A column of texts, or of numbers with missing cells among them."""
    codes, found = series.factorize(use_na_sentinel=True)
    decimal = "," if numbers["decimal"] == "comma" else "."
    texts = [str(text).strip() for text in found]
    held = [text for text in texts if text and text not in MISSING]
    if held and all(is_number(text, decimal) for text in held):
        missing = [not text or text in MISSING for text in texts]
        own = [np.nan if lost else float(text.replace(decimal, ".")) for text, lost in zip(texts, missing, strict=True)]
        return Column(name, place + 1, "number", np.array([*own, np.nan])[codes])
    if held and {text.lower() for text in held} <= {"true", "false"} and len(held) == len([t for t in texts if t]):
        own = [np.nan if not text else float(text.lower() == "true") for text in texts]
        return Column(name, place + 1, "boolean", np.array([*own, np.nan])[codes])
    if held and all(is_number(text) or is_number(text, ",") for text in held):  # another decimal mark, refused later
        texts = [text if text in held else "" for text in texts]
    return Column(name, place + 1, "text", np.array([*texts, ""], dtype=object)[codes])


def _check_missing(cells: Cells, numbers: Mapping[str, Any], columns: Sequence[Column]) -> None:
    """Refuse missing cells, where nothing is said about them, and cells that are not finite."""
    found = [(int(np.argmax(gone)), column) for column in columns if (gone := column.missing).any()]
    if found and numbers["missing"] == "refuse":
        row, column = min(found, key=lambda pair: (pair[0], pair[1].place))
        cell = str(cells.frame.iloc[row, column.place - 1]).strip()
        what = f"{cell!r} is missing" if cell and cell != "nan" else "the cell is missing"
        settled = "say data.missing=drop or data.missing=mean"
        if column.missing.all():
            settled = f"the whole column is empty; say {word('data.drop', [column])}"
        raise InputError(f"{cells.path}: {cells.place(row)}, column {column.shown}: {what}; {settled}")
    for column in columns:
        if column.kind == "number" and np.isinf(column.values).any():
            where = cells.place(int(np.argmax(np.isinf(column.values))))
            raise InputError(f"{cells.path}: {where}, column {column.shown}: not a finite number; repair the cell")


def _check_decimal(cells: Cells, numbers: Mapping[str, Any], columns: Sequence[Column]) -> None:
    """Refuse numbers with a decimal comma, and numbers whose commas mark the thousands."""
    for column in columns:
        if column.kind != "text" or numbers["decimal"] == "comma":
            continue
        unread = {cell for cell in set(column.values) if cell and cell not in MISSING and not is_number(cell)}
        if not unread or not all("," in cell and is_number(cell.replace(",", "")) for cell in unread):
            continue
        cell = next(cell for cell in column.values if cell in unread)
        where = f"{cells.path}: column {column.shown}: {cell!r}"
        if all(re.fullmatch(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", cell) for cell in unread):
            told = "commas may mark thousands; delete them, or say data.decimal=comma where they are decimal"
            raise InputError(f"{where}: {told}")
        if all(is_number(cell, ",") for cell in unread):
            raise InputError(f"{where} is a number with a decimal comma; say data.decimal=comma")


def _check_text(cells: Cells, numbers: Mapping[str, Any], column: Column) -> None:
    """Refuse a text input that is not to be coded, or that cannot be filled."""
    held = [cell for cell in column.values if cell]
    cell = next((cell for cell in held if not is_number(cell)), "")
    where = cells.place(int(np.argmax(column.values == cell)))
    what = f"{cells.path}: column {column.shown} is text ({where}: {cell!r})"
    if numbers["categories"] == "refuse":
        few = sum(not is_number(cell) for cell in held) < len(held) / 2
        remedy = "repair the cell, or say" if few else "say data.categories=one_hot or"
        raise InputError(f"{what}; {remedy} {word('data.drop', [column])}")
    if numbers["missing"] == "mean" and column.missing.any():
        raise InputError(f"{what} and has missing cells; say data.missing=drop or {word('data.drop', [column])}")


# --- which columns -----------------------------------------------------------------------------------------------


def chosen(path: Any, columns: Sequence[Column], key: str, value: Any) -> list[Column]:
    """The columns that a key names, in file order.

    Raises:
        InputError: for a name or position that the file does not have.
    """
    found: list[Column] = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        named = [column for column in columns if column.name and column.name == one]
        span = re.fullmatch(r"([0-9]+)-([0-9]+)", one) if isinstance(one, str) and not named else None
        if len(named) > 1:
            places = " or ".join(f"{key}={column.place}" for column in named)
            raise refusal(key, one, f"{len(named)} columns of {path.name} have this name; say {places}")
        low, high = (int(span[1]), int(span[2])) if span else (one, one)
        if isinstance(low, int) and not isinstance(low, bool):
            low, high = (len(columns) + 1 + place if place < 0 else place for place in (low, high))
            if not 1 <= low <= high <= len(columns):
                raise refusal(key, one, f"{path.name} has columns 1 to {len(columns)}")
            named = list(columns[low - 1 : high])
        if not named:
            names = [column.name for column in columns if column.name]
            held = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            has = f"{path.name} has the columns {held}{nearest(one, names)}" if names else f"{path.name} has no names"
            raise refusal(key, one, f"no such column; {has}")
        found += named
    return [column for column in columns if column in found]


def _identifies(column: Column) -> bool:
    """Whether a first column counts or identifies the rows: by its name, or without one, and by its values."""
    last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column.name).replace("_", " ").replace(".", " ").lower().split()
    called = column.name.lower() in ("", "id", "index", "rowid", "no") or last[-1:] == ["id"]
    called = called or re.fullmatch(r"unnamed: \d+", column.name.lower()) is not None
    whole = column.kind == "number" and not column.missing.any() and bool((column.values % 1 == 0).all())
    return called and whole and len(column.values) > 1 and len(np.unique(column.values)) == len(column.values)


def _target(cells: Cells, columns: Sequence[Column]) -> list[Column]:
    """The target where no key names it."""
    called = [column for column in columns if column.name.lower() in ("label", "target", "class")]
    if len(called) == 1:
        return called
    called = [] if called else [column for column in columns if column.name.lower() == "y"]
    if len(called) == 1:
        return called
    together = _one_hot_tail(columns)
    if together:
        names = ", ".join(column.shown for column in together[:12]) + (", ..." if len(together) > 12 else "")
        raise InputError(f"{cells.path}: columns {names} are one-hot together; say {word('data.target', together)}")
    first, last = columns[0], columns[-1]
    if cells.names is None and _like_labels(first) and last.kind == "number" and not _like_labels(last):
        values = ", ".join(f"{value:g}" for value in np.unique(first.values)[:5])
        say = f"say data.target={first.place} data.task=classes, or data.target={last.place}"
        raise InputError(
            f"{cells.path}: column {first.place} looks like labels ({values}) and the last does not; {say}"
        )
    return [last]


def _one_hot_tail(columns: Sequence[Column]) -> list[Column]:
    """The trailing columns that are one-hot together, if there are any."""
    total: Any = 0.0
    for count, column in enumerate(reversed(columns), start=1):
        if column.kind != "number" or not np.isin(column.values, (0.0, 1.0)).all():
            return []
        total = total + column.values
        if count > 1 and (total == 1).all():
            return list(columns[-count:])
        if (total > 1).any():
            return []
    return []


def _like_labels(column: Column) -> bool:
    return column.kind == "number" and like_labels(column.values)
