"""Which rows each split holds: drawn at random from `split_seed`, or row ranges."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import SPLITS
from descentlab.data.table import Table
from descentlab.values import InputError, Schema, refusal, whole


def _range(key: str, value: Any) -> str:
    valid = 'must be auto or a range of rows from 0, "start:stop" with stop above start'
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", value) if isinstance(value, str) else None
    if value != "auto" and (not found or int(found[1]) >= int(found[2])):
        raise refusal(key, value, valid)
    return f"{int(found[1])}:{int(found[2])}" if found else "auto"


def _shares_or_rows(key: str, value: Any) -> str:
    return "rows" if value == "rows" else _shares(key, value)


def _shares(key: str, value: Any) -> str:
    valid = "must be whole percentages of train-validation-test that sum to 100, such as 60-20-20, train above 0"
    parts = value.split("-") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 3:
        raise refusal(key, value, valid)
    if not all(re.fullmatch(r"[0-9]{1,3}", str(part)) for part in parts) or isinstance(parts[0], bool):
        raise refusal(key, value, valid)
    shares = [int(part) for part in parts]
    if sum(shares) != 100 or not shares[0]:
        raise refusal(key, value, valid)
    return "-".join(map(str, shares))


FEWEST = 10  # rows of a file of one's own that are split at all


def chosen_rows(table: Table, numbers: Mapping[str, Any], ranges: bool = False) -> dict[str, ndarray]:
    """Which rows of the table each split holds, in file order.

    Args:
        table: of the data set.
        numbers: its keys.
        ranges: whether the data set has row ranges where its keys do not say otherwise (`MNIST`).

    Raises:
        InputError: for rows that are not there or that two splits would share, and for a class that training has not.
    """
    rows = dict(table.fixed or {})
    wanted = {split: value for split in SPLITS if (value := numbers.get(f"{split}_rows", "auto")) != "auto"}
    if ranges and numbers["split"] != "rows" and wanted == MNIST_ROWS:
        wanted = {}
    if table.tests and not wanted:
        rows["test"] = np.arange(len(table.inputs) - table.tests, len(table.inputs))
    left = np.ones(len(table.inputs), dtype=bool)
    for taken in rows.values():
        left[taken] = False
    free = np.flatnonzero(left)
    if wanted:
        if numbers.get("split", "rows") not in ("rows", "60-20-20"):
            raise refusal(
                "data.split", numbers["split"], f"stands beside data.{next(iter(wanted))}_rows; say one of them"
            )
        rows |= _ranges(table, wanted, free, rows)
    elif "train" not in rows:
        rows |= _drawn(table, numbers, free, tuple(rows))
    limit = numbers.get("limit", "all")
    if limit != "all":
        rows = {split: chosen[:limit] for split, chosen in rows.items()}
    rows = {split: np.sort(rows[split]) for split in SPLITS if split in rows}
    if table.file and table.labels:
        _check_classes(table, rows)
    return rows


def _ranges(table: Table, wanted: Mapping[str, str], free: ndarray, taken: Mapping[str, Any]) -> dict[str, ndarray]:
    """Row ranges of the file; `taken` splits have a file of their own."""
    places = free if table.kept is None else table.kept[free]
    rows: dict[str, ndarray] = {}
    for split, asked in wanted.items():
        key = f"data.{split}_rows"
        start, stop = map(int, asked.split(":"))
        if stop > places[-1] + 1:
            raise refusal(key, asked, f"{table.name} has {places[-1] + 1} rows")
        if split in taken:
            raise refusal(key, asked, f"stands beside data.{split}_path; say one of them")
        own = free[(places >= start) & (places < stop)]
        for other, chosen in rows.items():
            if len(np.intersect1d(own, chosen)):
                raise refusal(key, asked, f"overlaps data.{other}_rows={wanted[other]}; no row may be in two splits")
        if not len(own):
            raise refusal(key, asked, "holds no row, since all of them have missing cells")
        rows[split] = own
    if "train" not in rows:
        raise refusal("data.train_rows", "auto", "must be given where validation_rows or test_rows are")
    return rows


def _drawn(table: Table, numbers: Mapping[str, Any], free: ndarray, taken: tuple[str, ...]) -> dict[str, ndarray]:
    """A random order cut at the shares; for classes an order whose every stretch has them in proportion."""
    samples = len(free)
    shares = {split: int(share) for split, share in zip(SPLITS, numbers["split"].split("-"), strict=True)}
    shares = {split: 0 if split in taken else share for split, share in shares.items()}
    whole_share = sum(shares.values())
    if table.file and samples < FEWEST and shares["train"] < whole_share:
        toy = table.inputs.shape == (4, 2) and set(np.unique(table.inputs)) == {0.0, 1.0}
        remedy = f"say data.train_rows=0:{samples} or data.split=100-0-0{', or data=xor' if toy else ''}"
        raise InputError(f"{table.file}: {samples} rows are too few to split; {remedy}")
    order = np.random.default_rng(numbers["split_seed"]).permutation(samples)
    if table.task != "regression":
        _, classes = np.unique(table.targets[free[order]], axis=0, return_inverse=True)
        place = np.empty(samples)
        for label in range(classes.max() + 1):
            members = np.flatnonzero(classes == label)
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place, kind="stable")]
    test, validation = (round(samples * shares[split] / whole_share) for split in ("test", "validation"))
    cuts = {"train": order[test + validation :], "validation": order[test : test + validation], "test": order[:test]}
    for split, share in shares.items():
        if share and not len(cuts[split]):
            raise refusal("data.split", numbers["split"], f"leaves no rows for {split}; {table.name} has {samples}")
    return {split: free[rows] for split, rows in cuts.items() if len(rows)}


def _check_classes(table: Table, rows: Mapping[str, ndarray]) -> None:
    """Refuse classes that no training row has."""
    held = table.targets[rows["train"]]
    counts = held.sum(axis=0) if held.shape[1] > 1 else np.array([(held == 0).sum(), (held == 1).sum()])
    for label, count in zip(table.labels, counts, strict=True):
        if not count:
            told = (
                f"no training row has {label!r}"
                if table.task == "multilabel"
                else f"training has no row of class {label!r}"
            )
            raise InputError(f"{table.file}: {told}; say another data.split_seed, data.split or data.train_rows")


LIMIT: Schema = {"limit": (whole(1, 10**9, "all"), "all")}
_SEED: Schema = {"split_seed": (whole(0, 2**32 - 1), 0), **LIMIT}
DRAWN: Schema = {"split": (_shares, "60-20-20"), **_SEED}


def by_rows(**ranges: str) -> Schema:
    """The keys of row ranges, with their defaults; auto where none is given."""
    return {f"{split}_rows": (_range, ranges.get(split, "auto")) for split in SPLITS}


MNIST_ROWS = {"train": "0:50000", "validation": "50000:60000", "test": "60000:70000"}
MNIST: Schema = {"split": (_shares_or_rows, "rows"), **_SEED, **by_rows(**MNIST_ROWS)}
KEYS = (*DRAWN, *by_rows())
