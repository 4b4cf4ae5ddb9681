"""Which rows each split holds: drawn at random from `split_seed`, or row ranges."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import SPLITS
from descentlab.data.table import Table
from descentlab.values import Schema, refusal, whole


def _range(key: str, value: Any) -> str:
    valid = 'must be auto or a range of rows from 0, "start:stop" with stop above start'
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", value) if isinstance(value, str) else None
    if value != "auto" and (not found or int(found[1]) >= int(found[2])):
        raise refusal(key, value, valid)
    return f"{int(found[1])}:{int(found[2])}" if found else "auto"


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


def chosen_rows(table: Table, numbers: Mapping[str, Any]) -> dict[str, ndarray]:
    """Which rows of the table each split holds, in file order."""
    wanted = {split: numbers.get(f"{split}_rows", "auto") for split in SPLITS}
    if table.fixed:
        rows = dict(table.fixed)
    elif any(asked != "auto" for asked in wanted.values()):
        rows = _ranges(table, wanted)
    else:
        rows = _drawn(table, numbers)
    limit = numbers.get("limit", "all")
    if limit != "all":
        rows = {split: chosen[:limit] for split, chosen in rows.items()}
    return {split: np.sort(chosen) for split, chosen in rows.items()}


def _ranges(table: Table, wanted: Mapping[str, str]) -> dict[str, ndarray]:
    rows = {}
    for split, asked in wanted.items():
        if asked == "auto":
            continue
        start, stop = map(int, asked.split(":"))
        if stop > len(table.inputs):
            raise refusal(f"data.{split}_rows", asked, f"{table.name} has {len(table.inputs)} rows")
        rows[split] = np.arange(start, stop)
    if "train" not in rows:
        raise refusal("data.train_rows", "auto", "must be given where validation_rows or test_rows are")
    return rows


def _drawn(table: Table, numbers: Mapping[str, Any]) -> dict[str, ndarray]:
    """A random order cut at the shares; for classes an order whose every stretch has them in proportion."""
    samples = len(table.inputs)
    generator = np.random.default_rng(numbers["split_seed"])
    order = generator.permutation(samples)
    if table.task != "regression":
        _, classes = np.unique(table.targets[order], axis=0, return_inverse=True)
        place = np.empty(samples)
        for label in range(classes.max() + 1):
            members = np.flatnonzero(classes == label)
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place, kind="stable")]
    shares = [int(part) for part in numbers["split"].split("-")]
    test, validation = (round(samples * share / 100) for share in (shares[2], shares[1]))
    cuts = {"train": order[test + validation :], "validation": order[test : test + validation], "test": order[:test]}
    for split, share in zip(SPLITS, shares, strict=True):
        if share and not len(cuts[split]):
            raise refusal("data.split", numbers["split"], f"leaves no rows for {split}; {table.name} has {samples}")
    return {split: rows for split, rows in cuts.items() if len(rows)}


LIMIT: Schema = {"limit": (whole(1, 10**9, "all"), "all")}
DRAWN: Schema = {"split": (_shares, "60-20-20"), "split_seed": (whole(0, 2**32 - 1), 0), **LIMIT}


def by_rows(**ranges: str) -> Schema:
    """The keys of row ranges, with their defaults; auto where none is given."""
    return {f"{split}_rows": (_range, ranges.get(split, "auto")) for split in SPLITS}


KEYS = (*DRAWN, *by_rows())
