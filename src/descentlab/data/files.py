"""A file of one's own: text, Parquet or NPZ, with files for validation and test beside it where they are named."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from descentlab.data import text
from descentlab.data.columns import table_of
from descentlab.data.content import check_size, content
from descentlab.data.paths import path_of
from descentlab.data.table import Table
from descentlab.data.text import Cells
from descentlab.values import InputError, refusal

if TYPE_CHECKING:
    pass

PATHS = ("path", "validation_path", "test_path")


def read(numbers: Mapping[str, Any]) -> Table:
    """The table of a file, and of the files for validation and test.

    Raises:
        InputError: in one line, for what is in doubt and no key settles.
    """
    if numbers["path"] == "auto":
        raise refusal("data.path", "auto", "data=file needs the path of a file")
    paths = {key: path_of(numbers[key]) for key in PATHS if numbers[key] not in ("auto", "none")}
    parts = [_cells(path, numbers) for path in paths.values()]
    table = table_of(_joined(parts), numbers)
    if len(parts) == 1:
        return table
    ends = np.cumsum([len(part.frame) for part in parts])
    file_rows = np.arange(len(table.inputs)) if table.kept is None else table.kept
    fixed = {
        key.removesuffix("_path"): np.flatnonzero((file_rows >= ends[place]) & (file_rows < ends[place + 1]))
        for place, key in enumerate(list(paths)[1:])
    }
    for split, rows in fixed.items():
        if not len(rows):
            raise InputError(f"{paths[f'{split}_path']}: every row has a missing cell")
    return replace(table, fixed=fixed)


def _cells(path: Path, numbers: Mapping[str, Any]) -> Cells:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".parquet"], [".pq"]):
        return _parquet(path, numbers["max_megabytes"])
    if suffixes[-1:] == [".npz"]:
        return _npz(path, numbers["max_megabytes"])
    return text.read(path, numbers)


def _joined(parts: Sequence[Cells]) -> Cells:
    """Files with the same columns, one below the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    import pandas as pd

    for part in parts[1:]:
        if part.frame.shape[1] != first.frame.shape[1] or part.names != first.names:
            theirs, own = (", ".join(one.names or [f"{one.frame.shape[1]} unnamed"]) for one in (part, first))
            raise InputError(f"{part.path}: has the columns {theirs}; those of {first.path.name} are {own}")
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    return replace(first, frame=frame, more=tuple(parts[1:]), rows=len(first.frame))


def _parquet(path: Path, megabytes: int) -> Cells:
    import pandas as pd

    try:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            about = file.metadata
            told = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
            check_size(path, max(told, 8 * about.num_rows * about.num_columns), megabytes)
            frame = file.read().to_pandas()
    except InputError:
        raise
    except Exception as error:  # whatever pyarrow says about a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as a Parquet file ({reason})") from error
    frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    names = tuple("" if str(name) == "None" else str(name).strip() for name in frame.columns)
    return Cells(path, frame.set_axis(range(len(names)), axis=1), names, None, {})


def _npz(path: Path, megabytes: int) -> Cells:
    """X or inputs, and y or targets, of an archive as columns without names, the targets last."""
    import pandas as pd

    arrays = {}
    try:
        data = content(path, megabytes)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_size(path, sum(member.file_size for member in archive.infolist()), megabytes)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            for key, names in {"inputs": ("X", "inputs"), "targets": ("y", "targets")}.items():
                held = [name for name in names if name in stored.files]
                if len(held) != 1:
                    raise InputError(
                        f"{path}: must hold {' or '.join(names)}; holds {', '.join(stored.files) or 'nothing'}"
                    )
                array = stored[held[0]]
                arrays[key] = array.reshape(len(array), -1) if array.ndim else array
    except InputError:
        raise
    except Exception as error:  # whatever zipfile and NumPy say about a damaged archive
        raise InputError(f"{path}: cannot be read as an NPZ file ({' '.join(str(error).split())[:200]})") from error
    x, y = arrays["inputs"], arrays["targets"]
    if not x.size or not y.size or len(x) != len(y):
        raise InputError(f"{path}: inputs {x.shape} and targets {y.shape} must have the same number of rows, above 0")
    frame = pd.concat([pd.DataFrame(x), pd.DataFrame(y)], axis=1).set_axis(range(x.shape[1] + y.shape[1]), axis=1)
    last = [x.shape[1] + 1 + place for place in range(y.shape[1])]
    return Cells(path, frame, None, None, {}, targets=tuple(last))
