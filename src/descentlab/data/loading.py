"""Data ready to train on: one raw table, row numbers for each split, and arrays made when they are asked for.

A source reads a table (`sources`). Its rows are split (`splits`), never by a run's own seed; each split keeps the order
of the file. Scaling is fitted on the training split alone (`scaling`).
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy import ndarray

from descentlab.data import scaling, splits
from descentlab.data.files import PATHS
from descentlab.data.paths import path_of, stamp
from descentlab.data.sources import SOURCES
from descentlab.data.table import Table
from descentlab.data.targets import TASKS
from descentlab.values import InputError, Option, shown

LONGEST = 1000  # characters of a refusal
RECENT_BYTES = 2**29  # of tables that stay in memory though nobody uses them, those used last


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table and how it is split and scaled; data sets that differ in split or scaling alone share the table.

    Attributes:
        table: the data as they stand in the file.
        settings: the keys of split and scaling.
        rows: "train", and "validation" and "test" where there are any -> row numbers of the table, rising.
        digest: hexadecimal hash of the table's values and of the settings; where the file lies is no part of it.
    """

    table: Table
    settings: Mapping[str, Any]
    rows: Mapping[str, ndarray]
    digest: str

    @property
    def name(self) -> str:
        """Of the source, or of the file it was read from."""
        return self.table.name

    @property
    def task(self) -> str:
        """One of nn.losses.TASKS."""
        return self.table.task

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about the file, a line each."""
        return self.table.notes

    @property
    def inputs(self) -> int:
        """How many numbers a network sees of a sample."""
        return len(self.input_names)

    @property
    def column_names(self) -> list[str]:
        """Names of the input columns as they stand in the file, or their positions."""
        return list(self.table.names) or [str(place + 1) for place in range(self.table.inputs.shape[1])]

    @functools.cached_property
    def input_names(self) -> list[str]:
        """Names of the numbers that a network sees; of a text column one for each text that training rows hold."""
        size = self.settings.get("image_size", "auto")
        if size != "auto":
            return [str(place + 1) for place in range(size**2)]
        names = self.column_names
        return [
            names[place] if code is None else f"{names[place]}={self.table.categories[place][code]}"
            for place, code in scaling.columns(self.table, self.rows["train"])
        ]

    @property
    def outputs(self) -> int:
        """How many targets a sample has."""
        return self.table.targets.shape[1]

    @property
    def splits(self) -> dict[str, tuple[ndarray, ndarray]]:
        """Split -> inputs (N, n_0) and targets (N, K), float64, scaled; made anew after those of another data set."""
        made = _made.get(self)
        if made is None:
            _made.clear()  # first, so that two of MNIST's size are never there at once
            targets = self.targets
            inputs = scaling.scaled_inputs(scaling.filled(self.table, self.rows), self.settings)
            made = _made[self] = {split: (x, targets[split]) for split, x in inputs.items()}
            for array in (array for pair in made.values() for array in pair):
                array.flags.writeable = False  # shared by all who ask
        return made

    @property
    def targets(self) -> dict[str, ndarray]:
        """Split -> targets (N, K) as in `splits`, without making the inputs."""
        raw = {split: self.table.targets[rows].astype(np.float64) for split, rows in self.rows.items()}
        return scaling.scaled_targets(raw, self.settings)


_made: dict[Dataset, dict[str, tuple[ndarray, ndarray]]] = {}  # of the data set that was used last


_datasets: WeakValueDictionary[tuple[str, ...], Dataset] = WeakValueDictionary()
_tables: WeakValueDictionary[tuple[str, ...], Table] = WeakValueDictionary()
_recent: dict[int, Table] = {}  # the one used last at the end


def load(option: Option) -> Dataset:
    """Read, check and split; the same option is the same object as long as it is used, unless its file changes.

    Raises:
        InputError: in one line that names file, row and column, or the key that asks for what is not there.
    """
    key = _key(option, option.numbers)
    dataset = _datasets.get(key)
    if dataset is None:
        table = read_table(option)
        settings = {key: value for key, value in option.numbers.items() if key in _SETTINGS}
        if settings.get("target_scaling") == "auto":
            settings["target_scaling"] = "standard" if table.task == "regression" else "none"
        rows = splits.chosen_rows(
            table, settings, ranges=SOURCES[option.name].schema.get("split", (None, ""))[1] == "rows"
        )
        scaling.check(table, settings)
        digest = hashlib.sha256(f"{table.digest} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()
        dataset = _datasets[key] = Dataset(table, settings, rows, digest)
    return dataset


def read_table(option: Option) -> Table:
    """The table of a data set; options that differ in split or scaling alone share it."""
    key = _table_key(option)
    table = _tables.get(key)
    if table is None:
        try:
            table = _tables[key] = SOURCES[option.name].read(option.numbers)
        except InputError as error:  # names and cells of a file hold any character
            raise type(error)(shown(error, LONGEST)) from error
    _recent.pop(id(table), None)
    _recent[id(table)] = table
    while len(_recent) > 1 and sum(one.inputs.nbytes + one.targets.nbytes for one in _recent.values()) > RECENT_BYTES:
        del _recent[next(iter(_recent))]
    return table


_SETTINGS = (*splits.KEYS, *scaling.KEYS)


def _key(option: Option, numbers: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        option.name,
        json.dumps(dict(numbers), sort_keys=True),
        *(stamp(option.numbers[key]) for key in PATHS if key in option.numbers),
    )


def _table_key(option: Option) -> tuple[str, ...]:
    return _key(option, {key: value for key, value in option.numbers.items() if key not in _SETTINGS})


def forget() -> None:
    """Drop what is kept in memory of data sets that nobody uses."""
    _made.clear()
    _recent.clear()
    _datasets.clear()
    _tables.clear()


def with_task(option: Option) -> tuple[Option, str]:
    """The option with absolute paths and with what the file says in place of auto, and the task.

    Raises:
        InputError: if the file has to be read and cannot be.
    """
    given = {key: option.numbers[key] for key in PATHS if option.numbers.get(key, "none") not in ("auto", "none")}
    paths = {key: str(path_of(value).absolute()) for key, value in given.items()}
    option = Option(option.name, {**option.numbers, **paths})
    task = SOURCES[option.name].task(option.numbers)
    if task is None:
        table = read_table(option)
        own = {"task": next(name for name, meant in TASKS.items() if meant == table.task)}
        scale = option.numbers["target_scaling"]
        own["target_scaling"] = ("standard" if table.task == "regression" else "none") if scale == "auto" else scale
        option, task = Option(option.name, {**option.numbers, **table.found, **own}), table.task
        _tables[_table_key(option)] = table  # found again without reading the file twice
    return option, task


def outputs(option: Option) -> int | None:
    """How many targets a sample has, None where only the file can tell."""
    return SOURCES[option.name].outputs(option.numbers)
