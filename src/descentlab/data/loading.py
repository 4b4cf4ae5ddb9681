"""Data: read, check, split, scale; what comes out is plain float64 arrays.

A source reads a table. Its rows are then split, either drawn at random from `split_seed` (stratified for classes, and
never touched by a run's own seed) or by row ranges; each split keeps the order of the file. Scaling is fitted on the
training split alone.

To add a data set: write its reader, enter it in SOURCES with the keys it takes, add conf/data/<name>.yaml.
"""

import csv
import functools
import gzip
import hashlib
import importlib.util
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import SPLITS
from descentlab.values import InputError, Option, Schema, choice, number, refusal, text, whole

TASKS = {"regression": "regression", "binary": "binary", "classes": "multiclass"}  # data.task -> nn.losses.TASKS
MNIST_VARIABLE = "DESCENTLAB_MNIST"  # folder where data.path=auto looks for MNIST's files


@dataclass(frozen=True)
class Dataset:
    """Data ready to train on; shared by all who load it, so the arrays cannot be written to.

    Attributes:
        name: of the source, or of the file it was read from.
        task: "regression", "binary" or "multiclass".
        splits: "train", and "validation" and "test" where there are any -> inputs (N, n_0), targets (N, K), float64.
        digest: hexadecimal hash of names, shapes and values of all arrays.
        notes: what a user must know about the file, a line each.
    """

    name: str
    task: str
    splits: dict[str, tuple[ndarray, ndarray]]
    digest: str
    notes: tuple[str, ...] = ()


class MissingData(InputError):
    """A data set that has to be fetched and cannot be."""


@dataclass(frozen=True)
class Table:
    """What a source reads: inputs (N, n_0) and targets (N, K) in file order, as they stand in the file.

    `fixed` are splits that come with the data: name -> row numbers. `notes` as in Dataset.
    """

    name: str
    inputs: ndarray
    targets: ndarray
    task: str
    fixed: Mapping[str, ndarray] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set by name: how it is read, which keys it takes, what its task is and how many targets it has.

    task and outputs are None where they are not known before the file is read.
    """

    read: Callable[[Mapping[str, Any]], Table]
    schema: Schema
    task: Callable[[Mapping[str, Any]], str | None]
    outputs: Callable[[Mapping[str, Any]], int | None]


def with_task(option: Option) -> tuple[Option, str]:
    """The option with data.task=auto replaced by what the file's targets are, and the task.

    Raises:
        InputError: if the file has to be read and cannot be.
    """
    task = SOURCES[option.name].task(option.numbers)
    if task is None:
        task = load(option).task
        own = next(name for name, meant in TASKS.items() if meant == task)
        option = Option(option.name, {**option.numbers, "task": own})
    return option, task


def outputs(option: Option) -> int | None:
    """How many targets a sample has, None where only the file can tell."""
    return SOURCES[option.name].outputs(option.numbers)


def load(option: Option) -> Dataset:
    """Read, check, split and scale; the same option is read once per process, and again when its file changes.

    Raises:
        InputError: in one line that names file, row and column, or the key that asks for what is not there.
    """
    return _load(option.name, json.dumps(option.numbers, sort_keys=True), _stamp(option.numbers.get("path")))


@functools.lru_cache(maxsize=4)
def _load(name: str, numbers_text: str, stamp: str) -> Dataset:
    numbers = json.loads(numbers_text)
    table = SOURCES[name].read(numbers)
    splits: dict[str, tuple[ndarray, ndarray]] = {}
    for split, rows in _rows(table, numbers).items():
        splits[split] = (table.inputs[rows].astype(np.float64), table.targets[rows].astype(np.float64))
    splits = _scaled(splits, numbers)
    for arrays in splits.values():
        for array in arrays:
            array.flags.writeable = False
    return Dataset(table.name, table.task, splits, _digest(splits), table.notes)


def _stamp(path: str | None) -> str:
    """What changes when the file or folder behind data.path does."""
    named = path not in (None, "auto")
    stamp = ""
    for place in [path] if named else [os.environ.get(MNIST_VARIABLE, ""), f"data/{NOTEBOOK_FILE}"]:
        try:
            stat = Path(str(place)).expanduser().absolute().stat()
            stamp += f"{place} {stat.st_mtime_ns} {stat.st_size} "
        except (OSError, RuntimeError, ValueError):
            stamp += f"{place} "
    return stamp


def _digest(splits: Mapping[str, tuple[ndarray, ndarray]]) -> str:
    digest = hashlib.sha256()
    for name, arrays in sorted(splits.items()):
        for array in arrays:
            digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --- splits ------------------------------------------------------------------------------------------------------


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


def _rows(table: Table, numbers: Mapping[str, Any]) -> dict[str, ndarray]:
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


# --- scaling -----------------------------------------------------------------------------------------------------


def _scaled(
    splits: dict[str, tuple[ndarray, ndarray]], numbers: Mapping[str, Any]
) -> dict[str, tuple[ndarray, ndarray]]:
    inputs = {name: x for name, (x, _) in splits.items()}
    targets = {name: y for name, (_, y) in splits.items()}
    image_size = numbers.get("image_size", "auto")
    rule = numbers.get("scaling", "none")
    unit = _fitted("unit" if rule == "unit" else "none", inputs["train"])  # of the pixels as they are, not of averages
    inputs = {name: unit(x) for name, x in inputs.items()}
    if image_size != "auto":
        inputs = {name: _shrunk(x, image_size) for name, x in inputs.items()}
    standard = _fitted("standard" if rule == "standard" else "none", inputs["train"])
    target = _fitted(numbers.get("target_scaling", "none"), targets["train"])
    return {name: (standard(inputs[name]), target(targets[name])) for name in splits}


def _fitted(rule: str, train: ndarray) -> Callable[[ndarray], ndarray]:
    """The map of a scaling rule: unit takes the training range to [0, 1]; standard gives columns mean 0 and sd 1."""
    if rule == "none":
        return lambda x: x
    if rule == "unit":
        low, span = train.min(), np.ptp(train)
    else:
        low, span = train.mean(axis=0), train.std(axis=0)
        span = np.where(span > 1e-12 * np.abs(train).max(axis=0), span, 1.0)  # a constant column becomes 0
    return lambda x: (x - low) / (span if np.any(span) else 1.0)


def _shrunk(images: ndarray, size: int) -> ndarray:
    """Square images (N, side^2) averaged over areas to (N, size^2); pixels on a border count by their share."""
    side = round(images.shape[1] ** 0.5)
    if size > side:
        raise refusal("data.image_size", size, f"must be at most {side}, the images' own size")
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0.0, None) * (size / side)  # (size, side)
    return (weights @ images.reshape(-1, side, side) @ weights.T).reshape(len(images), size * size)


# --- sources: shipped with scikit-learn --------------------------------------------------------------------------


def _shipped(file: str, **options: Any) -> ndarray:
    """A table out of scikit-learn's package folder; importing its loaders would cost more than a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("data: scikit-learn is not installed, and this data set is part of it")
    path = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / file
    try:
        return np.loadtxt(path, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as in scikit-learn 1.5 to 1.9 ({error})") from error


def _one_hot(labels: ndarray, classes: int) -> ndarray:
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def _two_classes(name: str, inputs: ndarray, labels: ndarray, numbers: Mapping[str, Any]) -> Table:
    """Labels 0 and 1 as one column (binary) or one-hot (multiclass)."""
    if numbers["targets"] == "one_hot":
        return Table(name, inputs, _one_hot(labels, 2), "multiclass")
    return Table(name, inputs, labels[:, None].astype(np.float64), "binary")


def _digits(numbers: Mapping[str, Any]) -> Table:
    table = _shipped("digits.csv.gz", delimiter=",")
    return Table("digits", table[:, :-1], _one_hot(table[:, -1], 10), "multiclass")


def _iris(numbers: Mapping[str, Any]) -> Table:
    table = _shipped("iris.csv", delimiter=",", skiprows=1)
    return Table("iris", table[:, :-1], _one_hot(table[:, -1], 3), "multiclass")


def _breast_cancer(numbers: Mapping[str, Any]) -> Table:
    table = _shipped("breast_cancer.csv", delimiter=",", skiprows=1)
    return _two_classes("breast_cancer", table[:, :-1], table[:, -1], numbers)


def _diabetes(numbers: Mapping[str, Any]) -> Table:
    targets = _shipped("diabetes_target.csv.gz")
    return Table("diabetes", _shipped("diabetes_data_raw.csv.gz"), targets[:, None], "regression")


# --- sources: made up --------------------------------------------------------------------------------------------


def _xor(numbers: Mapping[str, Any]) -> Table:
    inputs = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets = np.array([[0.0], [1.0], [1.0], [0.0]])
    return Table("xor", inputs, targets, "binary", fixed=dict.fromkeys(SPLITS, np.arange(4)))


def _curves(name: str, numbers: Mapping[str, Any]) -> Table:
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


# --- sources: CSV ------------------------------------------------------------------------------------------------


def _csv(numbers: Mapping[str, Any]) -> Table:
    if numbers["path"] == "auto":
        raise refusal("data.path", "auto", "data=csv needs the path of a CSV file")
    path = _path(numbers["path"])
    values, header = _numbers_of(path, _stamp(str(path)))
    columns = values.shape[1]
    inputs = columns - 1 if numbers["inputs"] == "auto" else numbers["inputs"]
    if not 0 < inputs < columns:
        valid = f"must be auto or from 1 to {columns - 1}, since {path.name} has {columns} columns"
        raise refusal("data.inputs", numbers["inputs"], valid)
    table = Table(path.stem, values[:, :inputs], values[:, inputs:], "")
    return replace(table, task=_task(table.targets, numbers["task"], path, header))


def _notebook(numbers: Mapping[str, Any]) -> Table:
    """MNIST's first 250 training images and the first 50 of t10k, / 255: the notebook's file, or cut from MNIST."""
    path = _mnist_place(numbers["path"], NOTEBOOK_FILE)
    if path is None and Path("data", NOTEBOOK_FILE).is_file():  # where the notebook itself looks
        path = Path("data", NOTEBOOK_FILE)
    if path is not None and path.is_dir():
        path = path / NOTEBOOK_FILE if (path / NOTEBOOK_FILE).is_file() else None
    if path is not None:
        table = replace(_csv({"path": str(path), "inputs": 784, "task": "classes"}), name="notebook")
        return replace(table, notes=tuple(f"{path}: {note}" for note in _other_rows(table)))
    table = _mnist(numbers)
    if len(table.inputs) != 70_000:
        raise InputError(f"data=notebook: needs MNIST's 70000 images; the files hold {len(table.inputs)}")
    rows = np.r_[0:250, 60_000:60_050]
    return replace(table, name="notebook", inputs=table.inputs[rows] / 255.0, targets=table.targets[rows])


NOTEBOOK_FILE = "MNIST_preprocessed.csv"
_NOTEBOOK_SHA256 = {  # of the bytes of pixels and labels
    "training rows 0-249": "222382ee78a11f1359238e8ab82b9cfe7965ed560a9ebe1325d9cdb9189ec0f4",
    "training rows 250-299": "c42bce73eaade44af9fe02ef95ff7ad891d5bf04716db13b023e8c90d918bba6",
    "t10k rows 0-49": "498dcae97d59e46355ef9d208ca2a1228882a1c9f6f33715343c11c9ada71974",
}


def _other_rows(table: Table) -> list[str]:
    """What differs between a file and the notebook's, a line for its training rows and one for its test rows."""
    pixels, labels = table.inputs * 255.0, table.targets.argmax(axis=1).astype(np.uint8)
    exact = np.abs(pixels - np.rint(pixels)).max() < 1e-3 and 0 <= pixels.min() and pixels.max() < 255.5
    names = {digest: name for name, digest in _NOTEBOOK_SHA256.items()}
    notes = []
    for rows, wanted in (("0-249", "training rows 0-249"), ("250-299", "t10k rows 0-49")):
        cut = slice(*(250, None) if wanted.startswith("t10k") else (0, 250))
        content = np.rint(pixels[cut]).astype(np.uint8).tobytes() + labels[cut].tobytes() if exact else b""
        found = names.get(hashlib.sha256(content).hexdigest(), "other images")
        if found != wanted:
            notes.append(f"rows {rows} are {found}, not MNIST's {wanted}: its accuracies are not the notebook's")
    return notes


def _task(targets: ndarray, asked: str, path: Path, header: int) -> str:
    """The task of targets as they stand, or the one asked for if they fit it."""
    bits = (targets == 0) | (targets == 1)
    one_hot = bits.all(axis=1) & (targets.sum(axis=1) == 1)
    if asked == "auto":
        if targets.shape[1] == 1:
            return "binary" if bits.all() else "regression"
        return "multiclass" if one_hot.all() else "regression"
    if asked == "classes":
        if targets.shape[1] == 1:
            raise refusal("data.task", asked, f"needs one target column per class; {path.name} has one (data.inputs)")
        if not one_hot.all():
            row = int(np.argmin(one_hot)) + header + 1
            raise InputError(f"{path}: row {row}: targets must be one-hot (one 1, the rest 0) for data.task=classes")
    if asked == "binary" and not bits.all():
        row, column = (int(place[0]) for place in np.nonzero(~bits))
        raise InputError(f"{path}: row {row + header + 1}: target {column + 1} must be 0 or 1 for data.task=binary")
    return TASKS[asked]


def _path(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise refusal("data.path", given, str(error)) from error


@functools.lru_cache(maxsize=2)  # asked for its task first and for its splits later
def _numbers_of(path: Path, stamp: str) -> tuple[ndarray, int]:
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


# --- sources: MNIST ----------------------------------------------------------------------------------------------

IDX_FILES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
# of rows 0-999 and 50000-69999 and of all labels, as distributed (LeCun, Cortes & Burges 1998)
MNIST_SHA256 = "376ef6c8ff19d9b42abd91cf9571589eee1949973430b9174b132b859848ee69"


def _mnist(numbers: Mapping[str, Any]) -> Table:
    folder = _mnist_place(numbers["path"], f"{IDX_FILES[0]}*")
    images, labels = _openml() if folder is None else _idx_files(folder)
    return Table("mnist", images.reshape(len(images), -1), _one_hot(labels, 10), "multiclass")


def _mnist_place(given: str, pattern: str) -> Path | None:
    """The file or folder that data.path names, or with auto the one in DESCENTLAB_MNIST if it holds such a file."""
    if given != "auto":
        return _path(given)
    folder = os.environ.get(MNIST_VARIABLE, "")
    return Path(folder) if folder and any(Path(folder).glob(pattern)) else None


def _idx_files(folder: Path) -> tuple[ndarray, ndarray]:
    """MNIST's four IDX files: training rows first, then t10k."""
    arrays = []
    for name in IDX_FILES:
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            raise refusal("data.path", str(folder), f"holds no {name} or {name}.gz")
        arrays.append(_idx(found[0], 3 if "images" in name else 1))
    for images, labels, name in ((arrays[0], arrays[1], IDX_FILES[1]), (arrays[2], arrays[3], IDX_FILES[3])):
        if len(images) != len(labels):
            raise InputError(f"{folder / name}: holds {len(labels)} labels for {len(images)} images")
        if len(labels) and labels.max() > 9:
            row = int(np.argmax(labels > 9))
            raise InputError(f"{folder / name}: row {row}: label {labels[row]} is not a digit")
    if arrays[0].shape[1:] != arrays[2].shape[1:] or arrays[0].shape[1] != arrays[0].shape[2]:
        raise InputError(f"{folder}: images must be square and of one size")
    return np.concatenate(arrays[::2]), np.concatenate(arrays[1::2])


def _idx(path: Path, dimensions: int) -> ndarray:
    """An IDX file of unsigned bytes: magic 0 0 8 d, d sizes of four bytes, then the values."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error or 'is cut short'})") from error
    head = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)):
        kind = "images" if dimensions == 3 else "labels"
        raise InputError(f"{path}: starts with {content[:4].hex(' ') or 'nothing'}, not as an IDX file of {kind}")
    if len(content) < head:
        raise InputError(f"{path}: is cut short, {len(content)} bytes")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, head, 4))
    size = int(np.prod(shape, dtype=object))
    if len(content) != head + size:
        raise InputError(f"{path}: holds {len(content) - head} values, and its header promises {size}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _openml() -> tuple[ndarray, ndarray]:
    """MNIST from OpenML, fetched once; kept with scikit-learn's data as one file that opens in a moment."""
    home = Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()
    kept = home / "descentlab-mnist_784.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                images, labels = stored["images"], stored["labels"]
            if _mnist_sha256(images, labels) == MNIST_SHA256:
                return images, labels
        except Exception:  # whatever the readers of archives say about a damaged one
            pass  # fetched anew below
    images, labels = _fetched()
    if _mnist_sha256(images, labels) != MNIST_SHA256:
        raise refusal("data.path", "auto", f"what OpenML sent is not MNIST as known; {_ELSEWHERE}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}.npz")
        np.savez_compressed(part, images=images, labels=labels)
        part.replace(kept)
    except OSError:
        pass  # a home that cannot be written to costs time at the next start, nothing else
    return images, labels


_ELSEWHERE = f"set data.path or {MNIST_VARIABLE} to a folder with MNIST's four IDX files"


def _fetched() -> tuple[ndarray, ndarray]:
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of every retry; what comes of the last one is said below
            found = fetch_openml("mnist_784", version=1, as_frame=False, parser="pandas", n_retries=3, delay=1.0)
        values, labels = np.asarray(found.data), np.asarray(found.target).astype(np.int64)
        return values.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    except Exception as error:  # the fetcher raises whatever urllib, http, gzip, pandas or its own checks raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise MissingData(f"data.path=auto: OpenML does not send MNIST ({reason}); {_ELSEWHERE}") from error


def _mnist_sha256(images: ndarray, labels: ndarray) -> str:
    digest = hashlib.sha256(str(images.shape).encode())
    for part in (images[:1000], images[50000:], labels):
        digest.update(np.ascontiguousarray(part, dtype=np.uint8).data)
    return digest.hexdigest()


# --- the registry ------------------------------------------------------------------------------------------------

_SCALING = choice("none", "unit", "standard")
_LIMIT: Schema = {"limit": (whole(1, 10**9, "all"), "all")}
_DRAWN: Schema = {"split": (_shares, "60-20-20"), "split_seed": (whole(0, 2**32 - 1), 0), **_LIMIT}
_BY_ROWS: Schema = {f"{split}_rows": (_range, "auto") for split in SPLITS}
_TARGETS: Schema = {"targets": (choice("column", "one_hot"), "column")}
_PATH: Schema = {"path": (text("must be auto, or the path of a file or folder"), "auto")}


def _scaling(rule: str) -> Schema:
    return {"scaling": (_SCALING, rule)}


def _image() -> Schema:
    return {"image_size": (whole(1, 1000, "auto"), "auto")}


def _rows_by_default(**ranges: str) -> Schema:
    return {**_BY_ROWS, **{f"{split}_rows": (_range, rows) for split, rows in ranges.items()}}


def _always(task: str, count: int) -> dict[str, Any]:
    return {"task": lambda numbers: task, "outputs": lambda numbers: count}


_BY_TARGETS: dict[str, Any] = {
    "task": lambda numbers: "binary" if numbers["targets"] == "column" else "multiclass",
    "outputs": lambda numbers: 1 if numbers["targets"] == "column" else 2,
}


def _plane(name: str, noise: float) -> Source:
    schema: Schema = {
        "samples": (whole(10, 10**6), 400),
        "noise": (number(0), noise),
        "sample_seed": (whole(0, 2**32 - 1), 0),
        **_TARGETS,
        **_scaling("none"),
        **_DRAWN,
    }
    return Source(functools.partial(_curves, name), schema, **_BY_TARGETS)


SOURCES: dict[str, Source] = {
    "digits": Source(_digits, {**_scaling("unit"), **_image(), **_DRAWN, **_BY_ROWS}, **_always("multiclass", 10)),
    "iris": Source(_iris, {**_scaling("standard"), **_DRAWN}, **_always("multiclass", 3)),
    "breast_cancer": Source(_breast_cancer, {**_TARGETS, **_scaling("standard"), **_DRAWN}, **_BY_TARGETS),
    "diabetes": Source(
        _diabetes,
        {**_scaling("standard"), "target_scaling": (_SCALING, "standard"), **_DRAWN},
        **_always("regression", 1),
    ),
    "xor": Source(_xor, {}, **_always("binary", 1)),
    "moons": _plane("moons", 0.1),
    "circles": _plane("circles", 0.1),
    "spirals": _plane("spirals", 0.02),
    "mnist": Source(
        _mnist,
        {
            **_PATH,
            **_scaling("unit"),
            **_image(),
            **_rows_by_default(train="0:50000", validation="50000:60000", test="60000:70000"),
            **_LIMIT,
        },
        **_always("multiclass", 10),
    ),
    "notebook": Source(
        _notebook,
        {**_PATH, **_image(), **_rows_by_default(train="0:250", test="250:300"), **_LIMIT},
        **_always("multiclass", 10),
    ),
    "csv": Source(
        _csv,
        {
            **_PATH,
            "inputs": (whole(1, 10**6, "auto"), "auto"),
            "task": (choice("auto", *TASKS), "auto"),
            **_scaling("none"),
            "target_scaling": (_SCALING, "none"),
            **_DRAWN,
            **_BY_ROWS,
        },
        task=lambda numbers: TASKS.get(numbers["task"]),
        outputs=lambda numbers: None,
    ),
}
