"""The table that a command prints when it has trained: final values over restarts."""

from collections.abc import Sequence
from typing import TextIO

import numpy as np
from numpy import ndarray

from descentlab.config.cells import Cell
from descentlab.nn.recipe import Training


def write(cells: Sequence[Cell], trainings: Sequence[Training | None], to: TextIO) -> None:
    """Write a short table of final values: one cell's losses and scores, or one row per cell of a sweep."""
    pairs = [(cell, training) for cell, training in zip(cells, trainings, strict=True) if training is not None]
    rows: list[list[str]] = []
    header = ["n", "mean", "95 % interval", "sd", "best", "worst", "diverged", "exploded"]
    if len(cells) == 1:
        for one, training in pairs:
            cell = one.config
            many = f"seeds {cell.seed} to {cell.seed + cell.restarts - 1}" if cell.restarts > 1 else f"seed {cell.seed}"
            print(f"{cell.name}: {cell.epochs} epochs of {cell.data.name}, {many}, {training.seconds:.2f} s", file=to)
            rows += [[metric, *_ended(training, metric)] for metric in _scores(training)]
        header = ["at the end", *header]
    else:
        for one, training in pairs:
            metric = next((name for name in _TELLING if name in training.curves), "train/loss")
            rows.append([one.name, metric, *_ended(training, metric)])
        header = ["cell", "at the end", *header]
    names = len(header) - 8
    if all(row[-1] == "0" for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        padded = [text.ljust(width) for text, width in zip(row[:names], widths, strict=False)]
        padded += [text.rjust(width) for text, width in zip(row[names:], widths[names:], strict=True)]
        print("  ".join(padded).rstrip(), file=to)


_TELLING = ("test/accuracy", "test/r2", "test/loss")  # what a cell's row shows, the first that was measured


def _scores(training: Training) -> list[str]:
    """Names of losses and scores of the splits, not of norms of layers."""
    return [name for name in training.curves if name.split("/")[0] in ("train", "validation", "test")]


def _ended(training: Training, metric: str) -> list[str]:
    """Final values of a metric as texts, as in `_spread`; exploded restarts are left out and counted apart."""
    exploded = training.exploded
    *texts, lost = _spread(metric, np.where(exploded, np.nan, training.curves[metric][-1]))
    return [*texts, str(int(lost) - int(exploded.sum())), str(int(exploded.sum()))]


def _spread(metric: str, values: ndarray) -> list[str]:
    """Values of all restarts (R,) as texts: n, mean, interval, sd, best, worst, diverged."""
    from descentlab.analysis.statistics import mean_intervals, metric_bounds

    finite = values[np.isfinite(values)]
    n = len(finite)
    lost = str(len(values) - n)
    if not n:
        return ["0", "-", "-", "-", "-", "-", lost]
    mean, sd, low, high, _ = (float(part[0]) for part in mean_intervals(finite[None, :], bounds=metric_bounds(metric)))
    ends = (finite.min(), finite.max()) if metric.endswith("loss") else (finite.max(), finite.min())
    best, worst = (f"{value:.4g}" for value in ends)
    between, deviation = (f"{low:.4g} to {high:.4g}", f"{sd:.2g}") if n > 1 else ("-", "-")
    return [str(n), f"{mean:.4g}", between, deviation, best, worst, lost]
