"""How raw columns become the numbers that a network sees; every scale is fitted on the training rows alone."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data.table import Table
from descentlab.values import InputError, Schema, choice, refusal, whole

_RULES = choice("none", "unit", "unit_columns", "standard")
_TARGET_RULES = choice("none", "unit", "standard", "auto")
IMAGE: Schema = {"image_size": (whole(1, 1000, "auto"), "auto")}
KEYS = ("scaling", "target_scaling", "image_size")


def scaling(rule: str) -> Schema:
    """The key of a data set whose inputs are scaled by a rule where nothing else is asked for."""
    return {"scaling": (_RULES, rule)}


def target_scaling(rule: str) -> Schema:
    """Likewise for targets; auto is standard for regression and none for classes."""
    return {"target_scaling": (_TARGET_RULES, rule)}


LARGEST = 1e100  # of a value that is scaled; sums of squares stay finite


def check(table: Table, numbers: Mapping[str, Any]) -> None:
    """Refuse an image_size that the images do not have, and values too large to be scaled."""
    size, side = numbers.get("image_size", "auto"), round(table.inputs.shape[1] ** 0.5)
    if size != "auto" and size > side:
        raise refusal("data.image_size", size, f"must be at most {side}, the images' own size")
    if table.file and table.inputs.dtype.kind == "f":
        for values, names in ((table.inputs, table.names), (table.targets, table.target_names)):
            large = (np.abs(values) > LARGEST).any(axis=0)
            if large.any():
                raise InputError(f"{table.file}: column {names[int(np.argmax(large))]} has values above {LARGEST:g}")


def columns(table: Table, train: ndarray) -> list[tuple[int, int | None]]:
    """What a network sees: input columns of the table, one with each text that training rows hold where it is text."""
    found: list[tuple[int, int | None]] = []
    for place in range(table.inputs.shape[1]):
        if place in table.categories:
            found += [(place, int(code)) for code in np.unique(table.inputs[train, place])]
        else:
            found.append((place, None))
    return found


def filled(table: Table, rows: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """Raw inputs of each split in float64: missing cells as the mean of the training rows, texts one-hot."""
    raw = {split: table.inputs[chosen].astype(np.float64) for split, chosen in rows.items()}
    if not table.file or table.inputs.dtype.kind != "f":
        return raw
    gone = np.isnan(raw["train"])
    if gone.all(axis=0).any():
        column = table.names[int(np.argmax(gone.all(axis=0)))]
        raise InputError(f"{table.file}: column {column} is missing in every training row; say data.drop")
    means = np.nanmean(raw["train"], axis=0)
    raw = {split: np.where(np.isnan(x), means, x) for split, x in raw.items()}
    seen = columns(table, rows["train"])
    if not table.categories:
        return raw
    return {
        split: np.stack([x[:, at] if code is None else (x[:, at] == code) * 1.0 for at, code in seen], axis=1)
        for split, x in raw.items()
    }


def scaled_inputs(inputs: dict[str, ndarray], numbers: Mapping[str, Any]) -> dict[str, ndarray]:
    """Raw inputs (N, n) of each split, scaled and shrunk as the keys say."""
    image_size = numbers.get("image_size", "auto")
    rule = numbers.get("scaling", "none")
    unit = fitted("unit" if rule == "unit" else "none", inputs["train"])  # of the pixels as they are, not of averages
    inputs = {name: unit(x) for name, x in inputs.items()}
    if image_size != "auto":
        inputs = {name: shrunk(x, image_size) for name, x in inputs.items()}
    standard = fitted(rule if rule in ("standard", "unit_columns") else "none", inputs["train"])
    return {name: standard(x) for name, x in inputs.items()}


def scaled_targets(targets: dict[str, ndarray], numbers: Mapping[str, Any]) -> dict[str, ndarray]:
    """Raw targets (N, K) of each split, scaled as the keys say."""
    scale = fitted(numbers.get("target_scaling", "none"), targets["train"])
    return {name: scale(y) for name, y in targets.items()}


def fitted(rule: str, train: ndarray) -> Callable[[ndarray], ndarray]:
    """The map of a scaling rule, fitted on training rows.

    unit takes the range of all values to [0, 1], unit_columns that of each column; standard gives columns mean 0, sd 1.
    """
    if rule == "none":
        return lambda x: x
    if rule == "unit":
        low, span = train.min(), np.ptp(train)
    elif rule == "unit_columns":
        low, span = train.min(axis=0), np.ptp(train, axis=0)
        span = np.where(span > 0, span, 1.0)
    else:
        low, span = train.mean(axis=0), train.std(axis=0)
        span = np.where(span > 1e-12 * np.abs(train).max(axis=0), span, 1.0)  # a constant column becomes 0
    return lambda x: (x - low) / (span if np.any(span) else 1.0)


def shrunk(images: ndarray, size: int) -> ndarray:
    """Square images (N, side^2) averaged over areas to (N, size^2); pixels on a border count by their share."""
    side = round(images.shape[1] ** 0.5)
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0.0, None) * (size / side)  # (size, side)
    return (weights @ images.reshape(-1, side, side) @ weights.T).reshape(len(images), size * size)
