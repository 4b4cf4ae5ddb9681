"""Texts that commands print: tables that fit the terminal, sizes, numbers and dates.

On a terminal, a table is cut to its width: long names are shortened first, then the least important columns are left
out. In a pipe or a file, a table has its full width and no colour. NO_COLOR turns colour off on a terminal too.
"""

import io
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHORTEST = 12  # characters that a shortened name keeps
UNLIMITED = 10**6


def width() -> int | None:
    """Columns of the terminal; None where output goes elsewhere."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def _console() -> "Console":
    from rich.console import Console

    room = width()
    return Console(
        file=io.StringIO(), width=room or UNLIMITED, force_terminal=sys.stdout.isatty(),
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip


def _lines(console: "Console", what: "RenderableType") -> list[str]:
    with console.capture() as captured:
        console.print(what)
    return [line.rstrip() for line in captured.get().splitlines()]


def table(rows: Sequence[Mapping[str, str]], left: Collection[str] = (), spare: Sequence[str] = ()) -> list[str]:
    """Lines of a table with a header.

    Args:
        rows: column -> text, all with the same columns; a column that is empty in all rows is left out.
        left: columns of texts; numbers stand on the right.
        spare: columns to cut in a narrow terminal, in this order: those with a ~ in front are shortened, others are
            left out.
    """
    from rich.measure import Measurement
    from rich.table import Table

    console = _console()
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    longest = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    widths: dict[str, int] = {}

    def made() -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            side = "left" if name in left else "right"
            made.add_column(name, justify=side, no_wrap=True, max_width=widths.get(name))  # type: ignore[arg-type]
        for row in rows:
            made.add_row(*(row[name] for name in columns))
        return made

    for word in spare:
        name = word.removeprefix("~")
        excess = Measurement.get(console, console.options.update_width(UNLIMITED), made()).maximum - console.width
        if excess > 0 and name in columns:
            if word.startswith("~"):
                widths[name] = max(min(SHORTEST, longest[name]), longest[name] - excess)
            else:
                columns.remove(name)
    return _lines(console, made())


def pairs(rows: Mapping[str, str]) -> list[str]:
    """Names and values in two columns, long values folded."""
    from rich.padding import Padding
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, value)
    return _lines(_console(), Padding(grid, (0, 0, 0, 2), expand=False))


def filesize(count: float) -> str:
    """Bytes as text: 157.4 kB."""
    from rich.filesize import decimal

    return decimal(round(count))


def when(seconds: float) -> str:
    """Seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float) -> str:
    """A number with four digits; - for NaN."""
    return "-" if value != value else f"{value:.4g}"


def many(count: int, what: str) -> str:
    """A count with its noun: 1 cell, 3 cells, 2 summaries."""
    return f"{count} {what}" if count == 1 else f"{count} {what.removesuffix('y')}{'ies' if what[-1] == 'y' else 's'}"
