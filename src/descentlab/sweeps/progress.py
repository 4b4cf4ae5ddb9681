"""The progress of a sweep on standard error: a bar on a terminal, otherwise a line every few seconds."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from descentlab.config.cells import Cell
from descentlab.nn.recipe import Record

LINE_SECONDS = 5.0  # between lines where no terminal draws a bar
BAR_SECONDS = 0.1  # between movements of the bar where one does

Step = Record | int | None  # a record, restarts that have gone through one more epoch, or the cells' end
Show = Callable[[Sequence[int], Step], None]  # places of cells that train as one stack, and their step


def say(text: str) -> None:
    """A line on standard error."""
    print(f"descentlab: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(cells: Sequence[Cell], wanted: bool) -> Iterator[Show]:
    """Yield a function to call, from any thread, with the places of cells and each step of their training."""
    if not wanted:
        yield lambda places, step: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)

            def draw(state: str, share: float) -> None:
                bar.update(task, description=state, completed=share)

            yield _Meter(cells, draw, BAR_SECONDS, -math.inf).note
    else:
        began = time.monotonic()

        def write(state: str, share: float) -> None:
            left = f", about {(time.monotonic() - began) * (1 - share) / share:.0f} s left" if share else ""
            print(f"{state}{left}", file=sys.stderr, flush=True)

        yield _Meter(cells, write, LINE_SECONDS, began).note


class _Meter:
    """Counts epochs of restarts, and cells that ended in other processes; shows the state every few seconds."""

    def __init__(self, cells: Sequence[Cell], show: Callable[[str, float], None], seconds: float, last: float) -> None:
        self._cells, self._show, self._seconds, self._last = cells, show, seconds, last
        self._work = [cell.config.epochs * cell.config.restarts for cell in cells]
        self._ended: set[int] = set()
        self._running, self._loss = 0, ""
        self._lock = threading.Lock()

    def note(self, places: Sequence[int], step: Step) -> None:
        """Count a step of the cells at `places`, which train as one stack."""
        config = self._cells[places[0]].config
        restarts = config.restarts * len(places)
        with self._lock:
            if isinstance(step, Record):
                losses = step.metrics.get("train/loss", np.array([np.nan]))
                finite = losses[np.isfinite(losses)]
                value = f"train/loss {finite.mean():.4g}" if len(finite) else "diverged"
                self._loss = f", {value} at epoch {step.epoch}"
                self._running = max(self._running, step.epoch * restarts)
            elif step is None:
                self._ended |= set(places)
                self._running, self._loss = 0, ""
            else:
                self._running = min(self._running + step, config.epochs * restarts)
            now = time.monotonic()
            if now - self._last < self._seconds or (step is None and len(self._ended) == len(self._cells)):
                return
            self._last = now
            done = self._running + sum(self._work[place] for place in self._ended)
            many = f"{restarts} restarts, " if restarts > 1 else ""
            state = (
                f"{_named(self._cells, places)}: {many}epoch {self._running // restarts}/{config.epochs}{self._loss}"
            )
            self._show(
                f"{len(self._ended)}/{len(self._cells)} cells" if step is None else state, done / sum(self._work)
            )


def _named(cells: Sequence[Cell], places: Sequence[int]) -> str:
    first = places[0]
    rates = f" with {len(places)} learning rates" if len(places) > 1 else ""
    return f"{first + 1}/{len(cells)} {cells[first].name}{rates}" if len(cells) > 1 else cells[first].name
