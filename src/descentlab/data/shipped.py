"""Data sets that need no file of the user's: scikit-learn's tables, XOR, and curves in the plane."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import SPLITS
from descentlab.data.table import Table
from descentlab.values import InputError


def read(file: str, **options: Any) -> ndarray:
    """A table out of scikit-learn's package folder; importing its loaders would cost more than a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("data: scikit-learn is not installed, and this data set is part of it")
    path = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / file
    try:
        return np.loadtxt(path, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as in scikit-learn 1.5 to 1.9 ({error})") from error


def one_hot(labels: ndarray, classes: int) -> ndarray:
    """Labels 0 .. classes - 1 (N,) as rows with one 1 (N, classes)."""
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def _two_classes(name: str, inputs: ndarray, labels: ndarray, numbers: Mapping[str, Any]) -> Table:
    """Labels 0 and 1 as one column (binary) or one-hot (multiclass)."""
    if numbers["targets"] == "one_hot":
        return Table(name, inputs, one_hot(labels, 2), "multiclass")
    return Table(name, inputs, labels[:, None].astype(np.float64), "binary")


def digits(numbers: Mapping[str, Any]) -> Table:
    """1797 digits of 8x8 pixels."""
    table = read("digits.csv.gz", delimiter=",")
    return Table("digits", table[:, :-1], one_hot(table[:, -1], 10), "multiclass")


def iris(numbers: Mapping[str, Any]) -> Table:
    """150 flowers of three species."""
    table = read("iris.csv", delimiter=",", skiprows=1)
    return Table("iris", table[:, :-1], one_hot(table[:, -1], 3), "multiclass")


def breast_cancer(numbers: Mapping[str, Any]) -> Table:
    """569 tumours, benign or not."""
    table = read("breast_cancer.csv", delimiter=",", skiprows=1)
    return _two_classes("breast_cancer", table[:, :-1], table[:, -1], numbers)


def diabetes(numbers: Mapping[str, Any]) -> Table:
    """442 patients; the target is the progression after a year."""
    targets = read("diabetes_target.csv.gz")
    return Table("diabetes", read("diabetes_data_raw.csv.gz"), targets[:, None], "regression")


def xor(numbers: Mapping[str, Any]) -> Table:
    """Four rows, which are every split."""
    inputs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets = np.array([[0.0], [1.0], [1.0], [0.0]])
    return Table("xor", inputs, targets, "binary", fixed=dict.fromkeys(SPLITS, np.arange(4)))


def curves(name: str, numbers: Mapping[str, Any]) -> Table:
    """Two curves in the plane, one per class, the rows in turn from either, with normal noise on both coordinates."""
    first = (numbers["samples"] + 1) // 2
    second = numbers["samples"] - first
    points = np.empty((numbers["samples"], 2))
    points[0::2], points[1::2] = _CURVES[name](first, 0), _CURVES[name](second, 1)
    noise = np.random.default_rng(numbers["sample_seed"]).standard_normal(points.shape)
    return _two_classes(name, points + numbers["noise"] * noise, np.arange(len(points)) % 2, numbers)


def _moon(samples: int, label: int) -> ndarray:
    angle = np.linspace(0, np.pi, samples)
    x, y = np.cos(angle), np.sin(angle)
    return np.stack([1 - x, 0.5 - y] if label else [x, y], axis=1)


def _circle(samples: int, label: int) -> ndarray:
    angle = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * (0.5 if label else 1.0)


def _spiral(samples: int, label: int) -> ndarray:
    # three turns as in Lang & Witbrock (1988) are beyond most small nets; this is one and a half
    turn = np.linspace(0.1, 1.0, samples)
    angle = 3 * np.pi * turn + np.pi * label
    return np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1)


_CURVES: dict[str, Callable[[int, int], ndarray]] = {"moons": _moon, "circles": _circle, "spirals": _spiral}
