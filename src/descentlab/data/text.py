"""Text files as columns: encoding, separator, widths and header are found or refused, pandas reads the cells."""

import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from descentlab.data.content import content
from descentlab.values import InputError, refusal

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {"tab": "\t", "semicolon": ";", "bar": "|", "comma": ",", "space": " "}  # the surer first
MISSING = frozenset(("?", "NA", "N/A", "NaN", "nan", "null", "None", "-"))  # an empty cell besides
SAMPLE = 200  # lines that separator and header are found from
_BINARY = {  # first bytes -> what to do with such a file
    b"PK\x03\x04": "save a workbook as CSV, and name an archive .zip or .npz",
    b"\xd0\xcf\x11\xe0": "save the workbook as CSV",
    b"PAR1": "name a Parquet file .parquet",
    b"\x1f\x8b": "name a compressed file .gz",
    b"\x93NUMPY": "save inputs and targets as X and y with numpy.savez",
    b"\x89HDF": "save the table as CSV or Parquet",
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True)
class Cells:
    """A file's columns before anything is decided about them.

    Attributes:
        path: of the file.
        frame: the columns by position from 0, numbers as numbers where all of a column are.
        names: of the columns, "" for one without; None where the file has no header.
        lines: of the file, from 1, one per row; None where a row has a number from 0 in place of a line.
        found: the keys that were found rather than given.
        targets: positions of the targets from 1 where the format says them.
        more: files whose rows stand below this one's own, which end at `rows`.
    """

    path: Path
    frame: "pd.DataFrame"
    names: tuple[str, ...] | None
    lines: "np.ndarray | range | None"
    found: Mapping[str, Any]
    targets: tuple[int, ...] = ()
    more: "tuple[Cells, ...]" = ()
    rows: int = 0

    def place(self, row: int) -> str:
        """Where a row stands in the file."""
        if self.more and row >= self.rows:
            row, part = row - self.rows, 0
            while row >= len(self.more[part].frame):
                row, part = row - len(self.more[part].frame), part + 1
            return f"{self.more[part].place(row)} of {self.more[part].path.name}"
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number, finite or not."""
    if decimal != "." and "." in cell:
        return False
    return _NUMBER.fullmatch(cell.strip().replace(decimal, ".")) is not None


def read(path: Path, numbers: Mapping[str, Any]) -> Cells:
    """The columns of a text file.

    Args:
        path: of the file, possibly compressed.
        numbers: the keys of data=file.

    Raises:
        InputError: in one line, for what is in doubt and no key settles.
    """
    data = content(path, numbers["max_megabytes"])
    for start, remedy in _BINARY.items():
        if data.startswith(start):
            raise InputError(f"{path}: is no text; {remedy}")
    data = _utf8(path, data, numbers["encoding"])
    first = data.split(b"\n", 1)[0].decode()
    if first.startswith("#") or re.fullmatch(r'"?sep=.*', first, re.IGNORECASE):
        what = "starts with #" if first.startswith("#") else "names a separator"
        raise InputError(f"{path}: line 1 {what}; delete the line")
    if not first.strip():
        raise InputError(f"{path}: {'line 1 is empty; delete it' if data else 'holds no rows'}")
    name = _separator(path, data) if numbers["separator"] == "auto" else numbers["separator"]
    decimal = "," if numbers["decimal"] == "comma" else "."
    if name == "comma" and decimal == ",":
        raise InputError(f"{path}: cells are separated by commas; data.decimal=comma needs another data.separator")
    if name == "space":
        data = re.sub(rb"[ \t]+", b" ", re.sub(rb"^[ \t]+|[ \t]+$", b"", data, flags=re.MULTILINE))
    separator = SEPARATORS[name]
    lines = _checked_widths(path, data, separator)
    head = [[cell.strip() for cell in row] for row in _rows(data, separator)]
    header = numbers["header"] if numbers["header"] != "auto" else _has_header(path, head)
    lines = lines[1 if header else 0 :]
    if not len(lines):
        raise InputError(f"{path}: holds no rows")
    frame = _parsed(path, data, separator, decimal, header, len(head[0]))
    names = tuple(head[0]) if header else None
    return Cells(path, frame, names, lines, {"separator": name, "header": header})


def _utf8(path: Path, data: bytes, encoding: str) -> bytes:
    """A text as UTF-8 without mark, its lines ended by one character."""
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except LookupError as error:
        raise refusal(
            "data.encoding", encoding, "not an encoding that Python knows, such as utf-16 or cp1252"
        ) from error
    except (UnicodeDecodeError, UnicodeError) as error:
        likely = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        other = f"is not {'UTF-8' if encoding == 'utf-8' else encoding}; say its encoding, as in data.encoding={likely}"
        raise InputError(f"{path}: {other}") from error
    if "\0" in text:
        raise InputError(f"{path}: is not a text in {encoding}; say its encoding, as in data.encoding=utf-16")
    if encoding != "utf-8" or data[:3] == b"\xef\xbb\xbf":
        data = text.lstrip("\ufeff").encode()
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.rstrip(b"\n \x1a")


def _rows(data: bytes, separator: str, count: int = SAMPLE) -> list[list[str]]:
    """The first rows of a text, empty lines left out."""
    cut = data[: 2**20].rsplit(b"\n", 1)[0] if len(data) > 2**20 else data
    text = b"\n".join(cut.split(b"\n", 10 * count)[: 10 * count]).decode(errors="replace")
    try:
        found = [
            row
            for row, _ in zip(
                filter(None, csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)),
                range(count),
                strict=False,
            )
        ]
    except csv.Error:
        found = [line.split(separator) for line in text.split("\n")[:count] if line]
    return found


def _separator(path: Path, data: bytes) -> str:
    """The name of the separator that cuts the first rows into the same number of cells, never the decimal comma."""
    widths = {name: [len(row) for row in _rows(data, mark)] for name, mark in SEPARATORS.items() if name != "space"}
    words = [len(line.split()) for line in data[: 2**16].decode(errors="replace").split("\n")[:SAMPLE]]
    even = [name for name, rows in widths.items() if min(rows) > 1 and len(set(rows)) == 1]
    even = even or [name for name, rows in widths.items() if min(rows) > 1 and len(set(rows[1:])) == 1]
    if not even:  # one column, or rows of different widths, which are refused below
        widest = max(widths, key=lambda name: sum(widths[name]))
        return (
            "space" if max(widths[widest]) == 1 and max(words) > 1 else widest if max(widths[widest]) > 1 else "comma"
        )
    if len(even) == 2 and even[1] == "comma" and _decimal_commas(data, SEPARATORS[even[0]]):
        even = even[:1]
    if len(even) > 1:
        either = " or ".join(f"data.separator={name}" for name in even)
        raise InputError(f"{path}: {' and '.join(even)} both cut its lines evenly; say {either}")
    return even[0]


def _decimal_commas(data: bytes, separator: str) -> bool:
    """Whether commas stand in numbers alone once a text is cut at another separator."""
    cells = [cell for row in _rows(data, separator)[1:] for cell in row if "," in cell]
    return all(is_number(cell, ",") for cell in cells)


def _checked_widths(path: Path, data: bytes, separator: str) -> "np.ndarray | range":
    """The line on which each row ends; rows of other widths than the first are refused.

    pandas would fill short rows, and take surplus cells for an index.
    """
    if b'"' not in data:
        buffer = np.frombuffer(data + b"\n", np.uint8)
        ends = np.flatnonzero(buffer == 10)
        cuts = np.flatnonzero(buffer == ord(separator))
        each = len(cuts) // len(ends)
        table = cuts.reshape(len(ends), -1) if len(cuts) == each * len(ends) else None
        if table is not None and (not each or ((table[1:, 0] > ends[:-1]) & (table[:-1, -1] < ends[:-1])).all()):
            empty = np.flatnonzero(np.diff(ends, prepend=-1) == 1)
            if len(empty):
                raise InputError(f"{path}: line {empty[0] + 1} is empty; delete it")
            return range(1, len(ends) + 1)
    lines = []
    width = 0
    reader = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if not row or (len(row) == 1 and width > 1 and not row[0].strip()):
                raise InputError(f"{path}: line {reader.line_num} is empty; delete it")
            width = width or len(row)
            if len(row) != width:
                first = _rows(data, separator, 1)[0]
                named = not any(is_number(cell) for cell in first)
                told = f"the header has {width} names" if named else f"line 1 has {width} cells"
                told += f", line {reader.line_num} has {len(row)} cells"
                raise InputError(f"{path}: {told}; repair the file or say data.separator")
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; repair the file or say data.separator") from error
    return np.array(lines)


def _is_any_number(cell: str) -> bool:
    """Whether a cell is a number, with a decimal point or comma."""
    return is_number(cell) or is_number(cell, ",")


def _has_header(path: Path, rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns, from itself and the rows below it."""
    first, below = rows[0], list(zip(*rows[1:], strict=False))
    ask = "say data.header=true or data.header=false"
    if not below:
        return not any(map(_is_any_number, first))
    counts = [float(cell.replace(",", ".")) for cell in first if _is_any_number(cell)]
    texts = [place for place, cell in enumerate(first) if cell and not _is_any_number(cell)]
    numeric = [_all_numbers(column) for column in below]
    new = all(first[place] not in below[place] for place in texts)
    over = [place for place in texts if numeric[place] and first[place] not in MISSING]
    shown = ",".join(first[:4]) + (",..." if len(first) > 4 else "")
    if new and len(counts) > 1 and all(b - a == 1 and a.is_integer() for a, b in itertools.pairwise(counts)):
        raise InputError(f"{path}: is the first row, {shown}, names or numbers? {ask}")
    if counts and over:
        found = f"{first[over[0]]!r} stands over numbers, beside other numbers"
        raise InputError(f"{path}: line 1, column {over[0] + 1}: {found}; {ask}")
    if counts or over:
        return not counts
    if new and any(numeric):
        raise InputError(f"{path}: is the first row, {shown}, names or missing cells? {ask}")
    return new


def _all_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, and nothing else but missing cells."""
    held = [cell for cell in cells if cell and cell not in MISSING]
    return bool(held) and all(map(_is_any_number, held))


def _parsed(path: Path, data: bytes, separator: str, decimal: str, header: bool, width: int) -> "pd.DataFrame":
    import pandas as pd

    # exact in pandas 3, where the option is deprecated
    exact = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
    try:
        return pd.read_csv(
            io.BytesIO(data), sep=separator, decimal=decimal, header=0 if header else None, names=list(range(width)),
            index_col=False, keep_default_na=False, na_filter=False, skipinitialspace=True, low_memory=False, **exact,
        )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error
