"""The table that a command prints after training: final values over restarts."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from descentlab.cli.output import table
from descentlab.config.cells import Cell
from descentlab.data import is_score, leading
from descentlab.nn.recipe import Training


def lines(cells: Sequence[Cell], trainings: Sequence[Training | None]) -> list[str]:
    """A table of final values: the losses and scores of one cell, or a row per cell of a sweep."""
    pairs = [(cell, training) for cell, training in zip(cells, trainings, strict=True) if training is not None]
    if not pairs:
        return []
    if len(cells) > 1:
        rows = []
        for one, training in pairs:
            metric = leading(training.curves)
            rows.append({"cell": one.name, "at the end": metric} | _ended(training, metric))
        hints = [f"{hint} ({one.name})" for one, training in pairs if (hint := _hint(one, training))]
        return [*table(rows, ("cell", "at the end"), ("sd", "~cell", "worst")), *hints]
    ((one, training),) = pairs
    cell = one.config
    many = f"seeds {cell.seed} to {cell.seed + cell.restarts - 1}" if cell.restarts > 1 else f"seed {cell.seed}"
    rows = [{"at the end": metric} | _ended(training, metric) for metric in training.curves if is_score(metric)]
    about = f"{cell.name}: {cell.epochs} epochs of {cell.data.name}, {many}, {training.seconds:.2f} s"
    hint = _hint(one, training)
    return [about, *table(rows, ("at the end",), ("sd", "worst")), *([hint] if hint else [])]


def _hint(cell: Cell, training: Training) -> str:
    """What to try where no restart ended with a finite, sensible loss; "" elsewhere."""
    lost = training.exploded | ~np.isfinite(training.curves["train/loss"][-1])
    if not lost.all():
        return ""
    unscaled = cell.config.data.numbers.get("scaling") == "none"
    return f"all restarts diverged; lower learning_rate{', or say data.scaling=standard' if unscaled else ''}"


def _ended(training: Training, metric: str) -> dict[str, str]:
    """Final values of a metric as texts, as in `_spread`; exploded restarts are left out and counted apart."""
    exploded = training.exploded
    count = int(exploded.sum())
    spread = _spread(metric, np.where(exploded, np.nan, training.curves[metric][-1]))
    return spread | {"diverged": str(int(spread["diverged"]) - count), "exploded": str(count or "")}


def _spread(metric: str, values: ndarray) -> dict[str, str]:
    """Values of all restarts (R,) as texts: finite count, mean, interval, sd, best, worst, count of the others."""
    from descentlab.analysis.statistics import mean_intervals, metric_bounds

    finite = values[np.isfinite(values)]
    n = len(finite)
    mean = between = deviation = best = worst = "-"
    if n:
        bounds = metric_bounds(metric)
        center, sd, low, high, _ = (float(part[0]) for part in mean_intervals(finite[None, :], bounds=bounds))
        ends = (finite.min(), finite.max()) if metric.endswith("loss") else (finite.max(), finite.min())
        mean, best, worst = (f"{value:.4g}" for value in (center, *ends))
    if n > 1:
        between, deviation = f"{low:.4g} to {high:.4g}", f"{sd:.2g}"
    spread = {"n": str(n), "mean": mean, "95 % interval": between, "sd": deviation, "best": best, "worst": worst}
    return spread | {"diverged": str(len(values) - n)}
