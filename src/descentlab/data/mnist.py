"""MNIST from its IDX files or from OpenML, and the course notebook's cut of it."""

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from descentlab.data import idx
from descentlab.data.content import MEGABYTES, content
from descentlab.data.paths import MNIST_VARIABLE, NOTEBOOK_FILE, mnist_place
from descentlab.data.shipped import one_hot
from descentlab.data.table import MissingData, Table
from descentlab.values import InputError, refusal

IDX_FILES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
# of rows 0-999 and 50000-69999 and of all labels, as distributed (LeCun, Cortes & Burges 1998)
MNIST_SHA256 = "376ef6c8ff19d9b42abd91cf9571589eee1949973430b9174b132b859848ee69"


def mnist(numbers: Mapping[str, Any]) -> Table:
    """70 000 digits of 28x28 pixels, the training files' rows first."""
    folder = mnist_place(numbers["path"], f"{IDX_FILES[0]}*")
    images, labels = _openml() if folder is None else idx_files(folder, numbers["max_megabytes"])
    if folder is not None and mnist_sha256(images, labels) != MNIST_SHA256:
        key = "data.path" if numbers["path"] != "auto" else MNIST_VARIABLE
        raise refusal(key, str(folder), "its files are not MNIST's; data=idx data.path=FOLDER reads other images")
    return Table("mnist", images.reshape(len(images), -1), one_hot(labels, 10), "multiclass", tests=10_000)


def idx_files(folder: Path, megabytes: int = MEGABYTES) -> tuple[ndarray, ndarray]:
    """MNIST's four IDX files: training rows first, then t10k."""
    arrays = []
    for name in IDX_FILES:
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            raise refusal("data.path", str(folder), f"holds no {name} or {name}.gz")
        arrays.append(idx.read(found[0], 3 if "images" in name else 1, megabytes))
    for images, labels, name in ((arrays[0], arrays[1], IDX_FILES[1]), (arrays[2], arrays[3], IDX_FILES[3])):
        idx.check_pair(images, labels, folder / name)
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise InputError(f"{folder}: images must be of one size")
    return np.concatenate(arrays[::2]), np.concatenate(arrays[1::2])


def _openml() -> tuple[ndarray, ndarray]:
    """MNIST from OpenML, fetched once; kept with scikit-learn's data as one file that opens in a moment."""
    home = Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()
    kept = home / "descentlab-mnist_784.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                images, labels = stored["images"], stored["labels"]
            if mnist_sha256(images, labels) == MNIST_SHA256:
                return images, labels
        except Exception:  # whatever the readers of archives say about a damaged one
            pass  # fetched anew below
    images, labels = _fetched()
    if mnist_sha256(images, labels) != MNIST_SHA256:
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


def mnist_sha256(images: ndarray, labels: ndarray) -> str:
    """Hash of the rows that all copies of MNIST hold alike."""
    digest = hashlib.sha256(str(images.shape).encode())
    for part in (images[:1000], images[50000:], labels):
        digest.update(np.ascontiguousarray(part, dtype=np.uint8).data)
    return digest.hexdigest()


def notebook(numbers: Mapping[str, Any]) -> Table:
    """MNIST's first 250 training images and the first 50 of t10k, / 255: the notebook's file, or cut from MNIST."""
    path = mnist_place(numbers["path"], NOTEBOOK_FILE)
    if path is None and Path("data", NOTEBOOK_FILE).is_file():  # where the notebook itself looks
        path = Path("data", NOTEBOOK_FILE)
    if path is not None and path.is_dir():
        path = path / NOTEBOOK_FILE if (path / NOTEBOOK_FILE).is_file() else None
    if path is not None:
        table = _notebook_file(path, numbers["max_megabytes"])
        return replace(table, notes=tuple(f"{path}: {note}" for note in _other_rows(table)))
    table = mnist(numbers)
    rows = np.r_[0:250, 60_000:60_050]
    return Table("notebook", table.inputs[rows] / 255.0, table.targets[rows], "multiclass")


_NOTEBOOK_SHA256 = {  # of the bytes of pixels and labels
    "training rows 0-249": "222382ee78a11f1359238e8ab82b9cfe7965ed560a9ebe1325d9cdb9189ec0f4",
    "training rows 250-299": "c42bce73eaade44af9fe02ef95ff7ad891d5bf04716db13b023e8c90d918bba6",
    "t10k rows 0-49": "498dcae97d59e46355ef9d208ca2a1228882a1c9f6f33715343c11c9ada71974",
}


def _notebook_file(path: Path, megabytes: int) -> Table:
    """784 pixels and a one-hot target a row, without a header."""
    try:
        values = np.loadtxt(io.StringIO(content(path, megabytes).decode()), delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: must hold rows of numbers between commas ({error})") from error
    targets = values[:, 784:]
    if values.shape[1] != 794 or len(values) <= 250 or not np.isfinite(values).all():
        raise InputError(f"{path}: must hold 784 pixels and 10 targets a row, 300 rows; holds {values.shape}")
    if not (np.isin(targets, (0.0, 1.0)).all() and (targets.sum(axis=1) == 1).all()):
        raise InputError(f"{path}: columns 785-794 must be one-hot")
    return Table("notebook", values[:, :784], targets, "multiclass")


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
