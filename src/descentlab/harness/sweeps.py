"""Cells in, trainings out: check all, train one after the other, keep each, say how far it is.

A cell is one resolved configuration; a single run is a sweep of one.
"""

import contextlib
import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy import ndarray

from descentlab.harness import config as configuration
from descentlab.harness.config import Config, shown
from descentlab.harness.judges import judged
from descentlab.nn.trainer import Record, Training, iterate

if TYPE_CHECKING:
    from descentlab.harness.judges import Judge
    from descentlab.harness.tracking import CellRun, Tracker

LINE_SECONDS = 5.0  # between lines of progress where no terminal draws a bar
BAR_SECONDS = 0.1  # between movements of the bar where one does


class CellsFailed(Exception):
    """Some cells of a sweep failed; the others went on and are kept.

    Attributes:
        failures: each failed cell with its error.
        trainings: one per cell in their order, None where it failed.
    """

    def __init__(self, failures: list[tuple[Config, Exception]], trainings: list[Training | None]) -> None:
        names = ", ".join(cell.name for cell, _ in failures[:5]) + (", ..." if len(failures) > 5 else "")
        super().__init__(f"{len(failures)} of {len(trainings)} cells failed: {names}")
        self.failures, self.trainings = failures, trainings


def run(
    cells: Sequence[Config],
    tracker: "Tracker",
    progress: bool = True,
    workers: int | None = None,
    on_finish: "Callable[[Config, Training, CellRun], None] | None" = None,
    judge: "Judge | None" = None,
) -> list[Training]:
    """Train every cell, all of them checked before the first one starts; equal cells are trained once.

    Args:
        cells: resolved configurations.
        tracker: keeps what comes of them.
        progress: show on standard error how far it is: a bar on a terminal, else a line every few seconds.
        workers: threads, in place of what each cell asks for.
        on_finish: is shown each finished cell.
        judge: says what restarts ended in (`judges`).

    Returns:
        One Training per cell, in their order; equal cells share one.

    Raises:
        InputError: a cell that cannot run; none has been trained then.
        CellsFailed: at the end, where cells of several failed. The error of a single cell comes through as it is.
    """
    different = {cell.hash: cell for cell in reversed(cells)}  # of equal cells the first one's name and settings
    queue = list({cell.hash: different[cell.hash] for cell in cells}.values())
    for cell in queue:
        configuration.check(cell)
    trained: dict[str, Training] = {}
    failures: list[tuple[Config, Exception]] = []
    with _shown_progress(queue, progress) as show:
        for place, cell in enumerate(queue):
            try:
                trained[cell.hash] = _train(cell, tracker, workers, functools.partial(show, place), on_finish, judge)
            except Exception as error:
                if len(queue) == 1:
                    raise
                failures.append((cell, error))
                print(f"descentlab: {cell.name}: failed: {type(error).__name__}: {shown(error)}", file=sys.stderr)
            show(place, None)
    if failures:
        raise CellsFailed(failures, [trained.get(cell.hash) for cell in cells])
    return [trained[cell.hash] for cell in cells]


def _train(
    cell: Config,
    tracker: "Tracker",
    workers: int | None,
    show: "Callable[[Step], None]",
    on_finish: "Callable[[Config, Training, CellRun], None] | None",
    judge: "Judge | None",
) -> Training:
    dataset = configuration.check(cell)
    recipe = configuration.recipe(cell, dataset)
    records = iterate(recipe, dataset.splits, workers or cell.workers, show)  # type: ignore[arg-type]
    with tracker.cell(cell, dataset) as kept:

        def note(record: Record) -> None:
            kept.record(record)
            show(record)

        training = _drain(records, note)
        kept.finish(training, judgement=judged(judge, cell, training) if judge else None)
    if on_finish:
        on_finish(cell, training, kept)
    return training


def _drain(records: Generator[Record, None, Training], note: Callable[[Record], None]) -> Training:
    while True:
        try:
            record = next(records)
        except StopIteration as end:
            return end.value
        note(record)


# --- how far it is -----------------------------------------------------------------------------------------------


Step = Record | int | None  # a record, restarts that have gone through one more epoch, or the cell's end


@contextlib.contextmanager
def _shown_progress(cells: Sequence[Config], wanted: bool) -> Iterator[Callable[[int, Step], None]]:
    """Yield what is called with the cell's place and each step of its training, from any thread."""
    if not wanted:
        yield lambda place, step: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(_place(cells, 0), total=1.0, state="")

            def draw(place: int, state: str, share: float) -> None:
                bar.update(task, description=_place(cells, place), state=state, completed=share)

            yield _Meter(cells, draw, BAR_SECONDS, -math.inf).note
    else:
        began = time.monotonic()

        def write(place: int, state: str, share: float) -> None:
            left = (time.monotonic() - began) * (1 - share) / max(share, 1e-9)
            print(f"{_place(cells, place)}: {state}, about {left:.0f} s left", file=sys.stderr, flush=True)

        yield _Meter(cells, write, LINE_SECONDS, began).note


def _place(cells: Sequence[Config], place: int) -> str:
    return f"{place + 1}/{len(cells)} {cells[place].name}" if len(cells) > 1 else cells[place].name


class _Meter:
    """Counts epochs of restarts and shows the running cell every so many seconds."""

    def __init__(
        self, cells: Sequence[Config], show: Callable[[int, str, float], None], seconds: float, last: float
    ) -> None:
        self._cells, self._show, self._seconds, self._last = cells, show, seconds, last
        self._work = np.cumsum([0, *(cell.epochs * cell.restarts for cell in cells)])
        self._done, self._loss = 0, ""
        self._lock = threading.Lock()

    def note(self, place: int, step: Step) -> None:
        """Take a step of the cell at `place` into account."""
        cell = self._cells[place]
        with self._lock:
            if isinstance(step, Record):
                losses = step.metrics.get("train/loss", np.array([np.nan]))
                finite = losses[np.isfinite(losses)]
                self._loss = f"train/loss {finite.mean():.4g}" if len(finite) else "diverged"
                self._done = max(self._done, self._work[place] + step.epoch * cell.restarts)
            elif step is None:
                self._done = self._work[place + 1]
            else:
                self._done = min(self._done + step, self._work[place + 1])
            now = time.monotonic()
            if step is None or now - self._last < self._seconds:
                return
            self._last = now
            many = f"{cell.restarts} restarts, " if cell.restarts > 1 else ""
            epoch = (self._done - self._work[place]) // cell.restarts
            self._show(place, f"{many}epoch {epoch}/{cell.epochs}, {self._loss}", self._done / self._work[-1])


# --- what came of it ---------------------------------------------------------------------------------------------


def write_results(cells: Sequence[Config], trainings: Sequence[Training | None], to: TextIO) -> None:
    """Write a short table of final values: one cell's losses and scores, or one row per cell of a sweep."""
    pairs = [(cell, training) for cell, training in zip(cells, trainings, strict=True) if training is not None]
    rows: list[list[str]] = []
    header = ["n", "mean", "95 % interval", "sd", "best", "worst", "diverged"]
    if len(cells) == 1:
        for cell, training in pairs:
            many = f"seeds {cell.seed} to {cell.seed + cell.restarts - 1}" if cell.restarts > 1 else f"seed {cell.seed}"
            print(f"{cell.name}: {cell.epochs} epochs of {cell.data.name}, {many}, {training.seconds:.2f} s", file=to)
            rows += [[metric, *_spread(metric, curve[-1])] for metric, curve in _scores(training).items()]
        header = ["at the end", *header]
    else:
        for cell, training in pairs:
            metric = next((name for name in _TELLING if name in training.curves), "train/loss")
            rows.append([cell.name, metric, *_spread(metric, training.curves[metric][-1])])
        header = ["cell", "at the end", *header]
    names = len(header) - 7
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        padded = [text.ljust(width) for text, width in zip(row[:names], widths, strict=False)]
        padded += [text.rjust(width) for text, width in zip(row[names:], widths[names:], strict=True)]
        print("  ".join(padded).rstrip(), file=to)


_TELLING = ("test/accuracy", "test/r2", "test/loss")  # what a cell's row shows, the first that was measured


def _scores(training: Training) -> dict[str, ndarray]:
    """Losses and scores of the splits, not norms of layers."""
    return {
        name: curve for name, curve in training.curves.items() if name.split("/")[0] in ("train", "validation", "test")
    }


def _spread(metric: str, values: ndarray) -> list[str]:
    """Values of all restarts (R,) as texts: n, mean, interval, sd, best, worst, diverged."""
    from descentlab.analysis.statistics import mean_interval

    finite = values[np.isfinite(values)]
    n = len(finite)
    lost = str(len(values) - n)
    if not n:
        return ["0", "-", "-", "-", "-", "-", lost]
    low, high = float(finite.min()), float(finite.max())
    best, worst = (low, high) if metric.endswith("loss") else (high, low)
    with np.errstate(over="ignore", invalid="ignore"):  # of restarts on their way to infinity
        figures = [f"{value:.4g}" for value in (finite.mean(), best, worst)]
        if n == 1:
            return ["1", figures[0], "-", "-", figures[1], figures[2], lost]
        interval, deviation = mean_interval(finite), finite.std(ddof=1)
    between = f"{interval.low:.4g} to {interval.high:.4g}"
    return [str(n), figures[0], between, f"{deviation:.2g}", figures[1], figures[2], lost]
