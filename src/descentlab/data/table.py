"""What a source reads: one table, as it stands in the file."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.values import InputError, Schema


class MissingData(InputError):
    """A data set that has to be fetched and cannot be."""


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs (N, n) and targets (N, K) in file order, not yet split or scaled.

    Attributes:
        name: of the source, or of the file.
        inputs: as read, of any numeric dtype; NaN where a cell is missing, a position in `categories` for a text.
        targets: classes one-hot, or a column of 0 and 1 for two.
        task: one of nn.losses.TASKS.
        fixed: splits that come with the data: name -> row numbers; None where they are to be chosen.
        notes: what a user must know about the file, a line each.
        names: of the input columns, () where they have none.
        target_names: of the target columns, likewise.
        labels: of the classes, in the order of the one-hot columns, or of 0 and 1; of several labels, their names.
        categories: input column -> the texts that its cells hold.
        dropped: names of columns that were left out.
        kept: the data row of the file that each row stands on; None where none was left out.
        found: keys of the configuration that were found in the file, with their values.
        tests: how many rows at the end are a test set of their own, which `data.split` leaves alone.
        file: the file's own name, "" for data that are no file of the user's.
    """

    name: str
    inputs: ndarray
    targets: ndarray
    task: str
    fixed: Mapping[str, ndarray] | None = None
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    categories: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    kept: ndarray | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
    tests: int = 0
    file: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal hash of shapes, types and values, and of the texts that stand for some."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets, *(self.fixed or {}).values()):
            digest.update(f"{array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr((self.labels, sorted(self.categories.items()))).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """A data set by name: how it is read, which keys it takes, what its task is and how many targets it has.

    task and outputs are None where they are not known before the file is read.
    """

    read: Callable[[Mapping[str, Any]], Table]
    schema: Schema
    task: Callable[[Mapping[str, Any]], str | None]
    outputs: Callable[[Mapping[str, Any]], int | None]
