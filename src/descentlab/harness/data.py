"""Data sets: load, check, split, scale; plain arrays come out.

Every random split has its own seed, apart from the seeds of the restarts, so that all cells of a comparison see the
same rows. Scaling is fitted on the training rows.

To add a data set: write a loader below, enter it in SOURCES with the keys it takes, add conf/data/<name>.yaml.
"""

import csv
import gzip
import hashlib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.harness.config import (
    InputError,
    Option,
    Schema,
    choice,
    number,
    refusal,
    shown,
    text,
    whole,
)

Split = tuple[ndarray, ndarray]
MNIST_VARIABLE = "DESCENTLAB_MNIST"
SCALINGS = ("none", "unit", "standard")


@dataclass(frozen=True)
class Dataset:
    """Data ready to train on.

    Attributes:
        name: the option's name.
        task: regression, binary or multiclass.
        splits: "train" and, where there are any, "validation" and "test" -> inputs (N, n_0), targets (N, K), float64.
        digest: of all arrays; equal digests are equal data.
    """

    name: str
    task: str
    splits: dict[str, Split]
    digest: str


# --- loaders -------------------------------------------------------------------------------------------------------


def digits(validation: int = 300, test: int = 300, split_seed: int = 0, scaling: str = "unit") -> dict[str, Split]:
    """1797 images of 8 x 8 pixels, ten classes (Alpaydin & Kaynak 1998), as scikit-learn ships them."""
    table = np.loadtxt(_shipped("digits.csv.gz"), delimiter=",")
    labels = table[:, -1].astype(int)
    return _shuffled("digits", table[:, :-1], one_hot(labels, 10), labels, validation, test, split_seed, scaling)


def breast_cancer(
    validation: int = 100, test: int = 100, split_seed: int = 0, scaling: str = "standard"
) -> dict[str, Split]:
    """569 tumours with 30 measurements, two classes (Street, Wolberg & Mangasarian 1993)."""
    table = np.loadtxt(_shipped("breast_cancer.csv"), delimiter=",", skiprows=1)
    labels = table[:, -1].astype(int)
    return _shuffled("breast_cancer", table[:, :-1], table[:, -1:], labels, validation, test, split_seed, scaling)


def diabetes(validation: int = 80, test: int = 80, split_seed: int = 0, scaling: str = "standard") -> dict[str, Split]:
    """442 patients with 10 measurements and the disease's progress, standardised (Efron et al. 2004)."""
    inputs = np.loadtxt(_shipped("diabetes_data_raw.csv.gz"))
    progress = np.loadtxt(_shipped("diabetes_target.csv.gz"))[:, None]
    return _shuffled("diabetes", inputs, progress, None, validation, test, split_seed, scaling)


def xor() -> dict[str, Split]:
    """The four rows of exclusive or; there is nothing to validate or test on."""
    inputs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return {"train": (inputs, np.array([[0.0], [1.0], [1.0], [0.0]]))}


def mnist(
    path: str | None = None,
    train: str = "0-54999",
    validation: str = "55000-59999",
    test: str = "0-9999",
    side: int = 28,
    scaling: str = "unit",
) -> dict[str, Split]:
    """Handwritten digits of 28 x 28 pixels (LeCun et al. 1998): row ranges of the training and the test file.

    Read from the IDX files in `path` or in the folder that DESCENTLAB_MNIST names, else fetched from OpenML once.
    `side` below 28 averages areas, so that 10 gives 10 x 10 pixels.
    """
    splits = {}
    for name, part, rows in (("train", "train", train), ("validation", "train", validation), ("test", "t10k", test)):
        if rows == "none":
            continue
        images, labels = _mnist_file(path, part)
        chosen = _rows(f"data.{name}", rows, len(images))
        splits[name] = (downsampled(images[chosen], side), one_hot(labels[chosen], 10))
    return _scaled(splits, scaling, whole=255.0)


def notebook(path: str | None = None) -> dict[str, Split]:
    """The course notebook's data: MNIST's first 300 training images / 255 in file order, 250 to train and 50 to test.

    Read from MNIST_preprocessed.csv (784 pixels, 10 targets, no header) at `path` or in the folder that
    DESCENTLAB_MNIST names; where there is none, cut from MNIST itself.
    """
    folder = os.environ.get(MNIST_VARIABLE)
    file = Path(path) if path else Path(folder) / "MNIST_preprocessed.csv" if folder else None
    if file is not None and (path or file.is_file()):
        table = read_csv(file)
        if table.shape != (300, 794):
            raise InputError(f"data.path={shown(str(file))}: has {table.shape} values; must be 300 rows of 784 + 10")
        inputs, targets = table[:, :784], table[:, 784:]
    else:
        images, labels = _mnist_file(None, "train")
        inputs, targets = images[:300].reshape(300, 784) / 255.0, one_hot(labels[:300], 10)
    return {"train": (inputs[:250], targets[:250]), "test": (inputs[250:], targets[250:])}


def csv_file(
    path: str | None = None,
    targets: int = 1,
    header: bool = False,
    task: str = "auto",
    validation: float = 0.15,
    test: float = 0.15,
    split_seed: int = 0,
    scaling: str = "standard",
) -> dict[str, Split]:
    """Your own numbers: the last `targets` columns are targets, the others inputs; fractions to validate and test on.

    A single target column of whole numbers 0 .. C-1 with task=multiclass (or C from 3 to 100 and task=auto) is made
    one-hot.
    """
    if path is None:
        raise InputError("data.path=: data=csv needs the path of a file of numbers")
    table = read_csv(Path(path), header)
    if not 1 <= targets < table.shape[1]:
        raise InputError(f"data.targets={targets}: must be a whole number from 1 to {table.shape[1] - 1}")
    inputs, values = table[:, :-targets], table[:, -targets:]
    kind = _task(values, task)
    labels = None
    if kind == "multiclass":
        labels = values[:, 0].astype(int) if targets == 1 else values.argmax(axis=1)
        values = one_hot(labels, int(labels.max()) + 1) if targets == 1 else values
    elif kind == "binary" and targets == 1:
        labels = values[:, 0].astype(int)
    for key, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1 or validation + test >= 1:
            raise InputError(f"data.{key}={fraction}: fractions to validate and test on must leave rows to train on")
    rows = len(inputs)
    counts = round(validation * rows), round(test * rows)
    return _shuffled("csv", inputs, values, labels, *counts, split_seed, scaling, scale_targets=kind == "regression")


def _task(values: ndarray, task: str) -> str:
    whole_numbers = bool((values == np.round(values)).all() and (values >= 0).all())
    one_hot_rows = values.shape[1] > 1 and whole_numbers and bool((values.sum(axis=1) == 1).all())
    classes = int(values.max()) + 1 if whole_numbers and values.shape[1] == 1 and values.max() < 10_000 else 0
    if task == "auto":
        if one_hot_rows or 3 <= classes <= 100:
            return "multiclass"
        return "binary" if whole_numbers and values.max() <= 1 else "regression"
    if task == "multiclass" and not one_hot_rows and not classes:
        raise refusal("data.task", task, "needs one-hot target columns, or one column of classes 0, 1, 2, ...")
    if task == "binary" and not (whole_numbers and values.max() <= 1):
        raise refusal("data.task", task, "needs targets that are 0 or 1")
    return task


@dataclass(frozen=True)
class Source:
    """A data set by name.

    Attributes:
        load: called with the option's numbers, returns the splits.
        schema: the option's keys: key -> (check, default).
        task: regression, binary or multiclass; None where the data decides.
        outputs: K; None where the data decides.
    """

    load: Callable[..., dict[str, Split]]
    schema: Schema
    task: str | None = None
    outputs: int | None = None


_SCALING = choice(*SCALINGS)
_RANGE = text("must be none, a count such as 1000 or a range such as 0-999", r"none|\d{1,9}(-\d{1,9})?")


def _rows_text(key: str, value: Any) -> str:
    return _RANGE(key, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _path(key: str, value: Any) -> str | None:
    return None if value is None else text("must be the path of a file or folder")(key, value)


def _true_or_false(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refusal(key, value, "must be true or false")
    return value


def _random_split(validation: int, test: int, scaling: str) -> Schema:
    return {
        "validation": (whole(0), validation),
        "test": (whole(0), test),
        "split_seed": (whole(0, 2**32 - 1), 0),
        "scaling": (_SCALING, scaling),
    }


SOURCES: dict[str, Source] = {
    "breast_cancer": Source(breast_cancer, _random_split(100, 100, "standard"), "binary", 1),
    "csv": Source(
        csv_file,
        {
            "path": (_path, None),
            "targets": (whole(1, 10_000), 1),
            "header": (_true_or_false, False),
            "task": (choice("auto", "regression", "binary", "multiclass"), "auto"),
            "validation": (number(0, 1), 0.15),
            "test": (number(0, 1), 0.15),
            "split_seed": (whole(0, 2**32 - 1), 0),
            "scaling": (_SCALING, "standard"),
        },
    ),
    "diabetes": Source(diabetes, _random_split(80, 80, "standard"), "regression", 1),
    "digits": Source(digits, _random_split(300, 300, "unit"), "multiclass", 10),
    "mnist": Source(
        mnist,
        {
            "path": (_path, None),
            "train": (_rows_text, "0-54999"),
            "validation": (_rows_text, "55000-59999"),
            "test": (_rows_text, "0-9999"),
            "side": (whole(1, 28), 28),
            "scaling": (_SCALING, "unit"),
        },
        "multiclass",
        10,
    ),
    "notebook": Source(notebook, {"path": (_path, None)}, "multiclass", 10),
    "xor": Source(xor, {}, "binary", 1),
}


def with_task(option: Option) -> tuple[Option, str]:
    """The option with its task settled, and the task; a file of one's own is looked into for it."""
    task = SOURCES[option.name].task
    if task is None:
        task = load(option).task
        option = Option(option.name, {**option.numbers, "task": task})
    return option, task


def outputs(option: Option) -> int | None:
    """K, as far as the option alone tells it."""
    return SOURCES[option.name].outputs


def load(option: Option) -> Dataset:
    """Load a data set, once per process and option.

    Raises:
        InputError: what is wrong with the option or the file, in one line.
    """
    numbers = dict(option.numbers)
    if option.name in ("mnist", "notebook"):  # what they hold depends on the environment too
        return _load(option.name, tuple(sorted(numbers.items())), os.environ.get(MNIST_VARIABLE, ""))
    return _load(option.name, tuple(sorted(numbers.items())), "")


@lru_cache(maxsize=8)
def _load(name: str, numbers: tuple[tuple[str, Any], ...], environment: str) -> Dataset:
    source, given = SOURCES[name], dict(numbers)
    splits = source.load(**given)
    digest = hashlib.sha256()
    for split, arrays in sorted(splits.items()):
        digest.update(split.encode())
        for array in arrays:
            if not len(array):
                raise InputError(f"data={name}: the {split} split is empty")
            if not np.isfinite(array).all():
                raise InputError(f"data={name}: the {split} split holds values that are not finite")
            array.flags.writeable = False
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    task = source.task or _task(np.concatenate([y for _, y in splits.values()]), given["task"])
    return Dataset(name, task, splits, digest.hexdigest()[:32])


# --- splits and scales ---------------------------------------------------------------------------------------------


def one_hot(labels: ndarray, classes: int) -> ndarray:
    """Classes (N,) as rows (N, classes) that are 1 at the class and 0 elsewhere."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1.0
    return rows


def _shuffled(
    name: str,
    inputs: ndarray,
    targets: ndarray,
    labels: ndarray | None,
    validation: int,
    test: int,
    seed: int,
    scaling: str,
    scale_targets: bool | None = None,
) -> dict[str, Split]:
    """Split at random with a seed, stratified by labels: each split has every class in nearly its share."""
    if validation + test >= len(inputs):
        raise InputError(
            f"data.validation={validation}: with data.test={test} leaves none of {len(inputs)} rows to train on"
        )
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).permutation(len(inputs))
    if labels is not None:
        # rows of a class are dealt out evenly along the order, so that any stretch of it is stratified
        place = np.empty(len(order))
        for label in np.unique(labels):
            mine = np.flatnonzero(labels[order] == label)
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        order = order[np.argsort(place, kind="stable")]
    cut = {"test": order[:test], "validation": order[test : test + validation], "train": order[test + validation :]}
    splits = {name: (inputs[rows], targets[rows]) for name, rows in cut.items() if len(rows)}
    return _scaled(splits, scaling, targets=name == "diabetes" if scale_targets is None else scale_targets)


def _scaled(
    splits: dict[str, Split], scaling: str, whole: float | None = None, targets: bool = False
) -> dict[str, Split]:
    """Scale inputs, and targets where asked, by what the training rows say.

    unit divides by the largest magnitude (or by `whole`); standard subtracts the mean and divides by the standard
    deviation (n in the denominator), column by column; a constant column becomes 0.
    """
    x, y = splits["train"]
    shift, size = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if scaling == "unit":
        size = np.full(x.shape[1], whole or np.abs(x).max() or 1.0)
    elif scaling == "standard":
        shift, size = x.mean(axis=0), x.std(axis=0)
    size = np.where(size > 1e-12 * np.maximum(1.0, np.abs(shift)), size, 1.0)
    low, wide = (y.mean(axis=0), np.where(y.std(axis=0) > 0, y.std(axis=0), 1.0)) if targets else (0.0, 1.0)
    return {name: ((a - shift) / size, (b - low) / wide) for name, (a, b) in splits.items()}


def downsampled(images: ndarray, side: int) -> ndarray:
    """Images (N, 28, 28) averaged over areas to (N, side * side), float64.

    A pixel that straddles a border counts in proportion on both sides.
    """
    height = images.shape[1]
    flat = images.astype(np.float64)
    if side == height:
        return flat.reshape(len(flat), -1)
    edges = np.linspace(0, height, side + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(height)[None, :]
    overlap = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None)  # (side, height)
    overlap /= overlap.sum(axis=1, keepdims=True)
    return (overlap @ flat @ overlap.T).reshape(len(flat), -1)


def _rows(key: str, rows: str, available: int) -> slice:
    """A range such as 50000-59999 (both ends included), or a single count such as 1000 for the first 1000."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", rows)
    if match:
        first, last = (int(match[1]), int(match[2])) if match[2] else (0, int(match[1]) - 1)
        if 0 <= first <= last < available:
            return slice(first, last + 1)
    raise InputError(f"{key}={shown(rows)}: must be none, a count or a range such as 0-999 within 0-{available - 1}")


# --- files ---------------------------------------------------------------------------------------------------------


def _shipped(file: str) -> Path:
    """A table that scikit-learn ships; found without importing it, which would cost a second and a half."""
    import importlib.util

    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise InputError("data: scikit-learn, which ships this data set, is not installed")
    return Path(spec.origin).parent / "datasets" / "data" / file


def read_csv(path: Path, header: bool = False) -> ndarray:
    """A file of comma-separated numbers, (rows, columns) float64.

    Raises:
        InputError: no such file, no numbers, lines of different length, or values that are not finite; the message
            names the line.
    """
    where = f"data.path={shown(str(path))}"
    try:
        with path.open(newline="", encoding="utf-8", errors="strict") as file:
            lines = csv.reader(file)
            if header:
                next(lines, None)
            rows = []
            for row in lines:
                if row:
                    rows.append([float(cell) for cell in row])
                    if len(row) != len(rows[0]):
                        raise InputError(
                            f"{where}: line {lines.line_num} has {len(row)} values where the first has {len(rows[0])}"
                        )
    except (OSError, csv.Error, UnicodeError) as error:
        reason = (
            (error.strerror or str(error)) if isinstance(error, OSError) else "is no text of comma-separated numbers"
        )
        raise InputError(f"{where}: {reason}; must be a readable file of comma-separated numbers") from error
    except ValueError as error:
        raise InputError(
            f"{where}: line {lines.line_num} holds what is no number; data.header=true skips a first line"
        ) from error
    if not rows:
        raise InputError(f"{where}: holds no rows")
    table = np.array(rows)
    if not np.isfinite(table).all():
        raise InputError(f"{where}: row {1 + int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])} is not finite")
    return table


def read_idx(path: Path) -> ndarray:
    """An IDX file of unsigned bytes, gzip or plain (LeCun's format): any number of dimensions, uint8.

    Raises:
        InputError: no such file, another format, or a length other than the header says.
    """
    where = f"data.path={shown(str(path))}"
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is damaged"
        raise InputError(f"{where}: {reason}; must be an IDX file, plain or gzip") from error
    except Exception as error:  # zlib raises its own kinds
        raise InputError(f"{where}: is damaged; must be an IDX file, plain or gzip") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 4:
        raise InputError(f"{where}: is no IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3]))
    size = 1
    for length in shape:
        size *= length
    if len(content) != start + size or not size:
        raise InputError(
            f"{where}: holds {len(content) - start} values where its header says {' x '.join(map(str, shape))}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _mnist_file(path: str | None, part: str) -> tuple[ndarray, ndarray]:
    """Images (N, 28, 28) and labels (N,) of the part "train" or "t10k"."""
    folder = path or os.environ.get(MNIST_VARIABLE)
    if not folder:
        return _mnist_openml(part)
    files = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        stems = [Path(folder) / f"{part}-{kind}{ending}" for ending in (".gz", "")]
        found = [stem for stem in stems if stem.is_file()]
        if not found:
            raise InputError(
                f"data.path={shown(folder)}: has no {part}-{kind}.gz; must be a folder of MNIST's IDX files"
            )
        files.append(read_idx(found[0]))
    images, labels = files
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max() > 9:
        raise InputError(
            f"data.path={shown(folder)}: {part} images {images.shape} and labels {labels.shape} are not MNIST's"
        )
    return images, labels.astype(int)


@lru_cache(maxsize=1)
def _openml() -> tuple[ndarray, ndarray]:
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except Exception as error:  # whatever goes wrong on the way, the user needs the same advice
        raise InputError(
            f"data=mnist: OpenML cannot be reached ({type(error).__name__}); put MNIST's IDX files into a folder and name "
            f"it in data.path or {MNIST_VARIABLE}"
        ) from error
    return bunch.data.astype(np.uint8).reshape(-1, 28, 28), bunch.target.astype(int)


def _mnist_openml(part: str) -> tuple[ndarray, ndarray]:
    images, labels = _openml()
    rows = slice(0, 60_000) if part == "train" else slice(60_000, 70_000)
    return images[rows], labels[rows]
