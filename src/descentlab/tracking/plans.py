"""The record of a sweep: a label and the keys of its cells, stored as a run of level `sweep`.

The same command finds this record and resumes the sweep. A sweep has one part, that of a study has several. Every cell
of a part carries a tag `sweep/<id>` with its place and name there, also where another sweep trained it.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from descentlab.config.cells import Cell
from descentlab.config.configuration import flattened
from descentlab.tracking.params import recorded
from descentlab.values import shown

MOST_NAMED = 6  # values of a key that a difference lists


Parts = Mapping[str, Sequence[Cell]]  # "" is the only part of a command's sweep


def member_tag(sweep: str) -> str:
    """The tag that makes a cell a member of a sweep; its value is `member`."""
    return f"sweep/{sweep}"


def member(place: int, name: str) -> str:
    """A cell's place and name in a sweep, as the value of its tag."""
    return f"{place} {name}"


def part_id(stem: str, part: str) -> str:
    """The sweep id of a part."""
    return f"{stem}-{part}" if part else stem


def definition(label: str, parts: Parts) -> str:
    """16 hexadecimal digits over the label and the keys of every part; their order does not count."""
    keys = {part: sorted(cell.key for cell in cells) for part, cells in parts.items()}
    return sha256(json.dumps([label, keys], sort_keys=True).encode()).hexdigest()[:16]


def written(label: str, parts: Parts) -> str:
    """A plan as JSON."""
    cells = [
        {
            "part": part,
            "name": cell.name,
            "key": cell.key,
            "config_hash": cell.config.hash,
            "cell_hash": cell.config.cell_hash,
            "config": recorded(cell.config),
        }
        for part, cells in parts.items()
        for cell in cells
    ]
    return json.dumps({"label": label, "cells": cells}, indent=1) + "\n"


def difference(before: str, now: str) -> str:
    """The differences between an earlier plan (as `written`) and this one, in a line."""
    old, new = (_by_part(text) for text in (before, now))
    told = []
    for part in dict.fromkeys([*old, *new]):
        said = _differing(old.get(part, []), new.get(part, []))
        told += [f"{part}: {said}" if part else said] if said else []
    return "; ".join(told)


def _by_part(text: str) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for cell in json.loads(text)["cells"]:
        values = {key: shown(value) for key, value in flattened(cell["config"]).items() if key != "data.path"}
        values["the data's values"] = cell["key"].split("-")[1]
        parts.setdefault(cell["part"], []).append(values)
    return parts


def _differing(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    """Settings that changed in every cell, then the number of other cells that were added and removed."""
    if not old or not new:
        return f"{len(new)} cells added" if new else f"{len(old)} cells removed"
    told, moved = [], []
    for key in dict.fromkeys([*old[0], *new[0]]):
        was, now = (list(dict.fromkeys(str(cell.get(key, "none")) for cell in cells)) for cells in (old, new))
        if set(was) == set(now):
            continue
        if len(was) == len(now) == 1:
            moved.append(key)
            told.append(key if key.startswith("the data") else f"{key} {was[0]} -> {now[0]}")
        else:
            told.append(f"{key} {_listed(was)} -> {_listed(now)}")
    left = [{tuple(sorted((k, v) for k, v in cell.items() if k not in moved)) for cell in one} for one in (old, new)]
    added, removed = len(left[1] - left[0]), len(left[0] - left[1])
    if added or removed:
        told.append(f"{added} cells added, {removed} removed")
    return ", ".join(told)


def _listed(values: list[str]) -> str:
    more = ",..." if len(values) > MOST_NAMED else ""
    return ",".join(values[:MOST_NAMED]) + more
