"""A training as tables and metrics: curves, restarts, outcomes, and means over restarts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from descentlab.data import is_score, leading
from descentlab.tracking.params import safe_name

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.nn.recipe import Training


CHILDREN_LIMIT = 50  # restarts up to which children=auto gives each its own run


def cell_series(curves: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """Metrics of a cell: means over restarts, and their spread.

    Args:
        curves: metric -> (P, R), NaN where a restart is lost.

    Returns:
        name -> (P,): means over the finite restarts; of losses and scores also _sd (n - 1), _min, _max, _ci_low and
        _ci_high (95 %, as `statistics.mean_intervals`), _n (finite restarts) and _diverged (the lost ones). NaN where
        there are too few restarts for it.
    """
    from descentlab.analysis.statistics import mean_intervals, metric_bounds

    series: dict[str, ndarray] = {}
    for name, values in curves.items():
        if values.shape[1] == 1:
            series[name] = values[:, 0]
            continue
        means = mean_intervals(values, bounds=metric_bounds(name))
        series[name] = means.mean
        if is_score(name):
            finite = np.isfinite(values)
            some = means.n > 0
            series |= {
                f"{name}_sd": means.sd,
                f"{name}_min": np.where(some, np.where(finite, values, np.inf).min(axis=1), np.nan),
                f"{name}_max": np.where(some, np.where(finite, values, -np.inf).max(axis=1), np.nan),
                f"{name}_ci_low": means.low,
                f"{name}_ci_high": means.high,
                f"{name}_n": means.n.astype(np.float64),
                f"{name}_diverged": (values.shape[1] - means.n).astype(np.float64),
            }
    return series


def thinned(points: int, most: int) -> ndarray:
    """Up to `most` of the indices 0 .. points - 1: the first, the last, and more of the early ones."""
    if points <= most:
        return np.arange(points)
    return np.unique(np.r_[0, np.geomspace(points - 1, 1, most - 1).round().astype(int)])


def ranking(training: "Training") -> ndarray:
    """Restarts from best to worst (R,): by final validation loss, else training loss; lost ones rank worst."""
    name = "validation/loss" if "validation/loss" in training.curves else "train/loss"
    final = training.curves[name][-1]
    kept = np.isfinite(final) & (training.outcome == "finite")
    return np.argsort(np.where(kept, final, np.inf), kind="stable")


def valid_curves(training: "Training") -> dict[str, ndarray]:
    """Curves (P, R) for means and figures: NaN from a restart's explosion on."""
    from descentlab.nn.recipe import explosions

    if "exploded" not in training.outcome:
        return training.curves
    lost = explosions(training.curves["train/loss"], training.outcome)
    return {name: np.where(lost, np.nan, values) for name, values in training.curves.items()}


def valid_table(table: "pd.DataFrame", dtype: str) -> "pd.DataFrame":
    """The same for a table as from `curve_table`; `dtype` is that of the training."""
    from descentlab.nn.recipe import explosions, outcomes

    points = table["epoch"].nunique()
    loss = table["train/loss"].to_numpy().reshape(-1, points).T
    lost = explosions(loss, outcomes(loss, np.full(loss.shape[1], -1), dtype)).T.ravel()
    metrics = [column for column in table if "/" in column]
    return table.assign(**{name: table[name].mask(lost) for name in metrics}) if lost.any() else table


def outcomes(training: "Training", judgement: "pd.DataFrame | None" = None) -> ndarray:
    """How each restart ended (R,): the judge's word for it, else "finite", "diverged" or "exploded"."""
    return training.outcome if judgement is None else judgement["outcome"].to_numpy(dtype=str)


def verdict_tags(training: "Training", row: int, judgement: "pd.DataFrame | None" = None) -> dict[str, str]:
    """Tags of one restart: outcome, loss_level where a judge gave one, diverged_epoch."""
    tags = {"outcome": str(outcomes(training, judgement)[row])}
    if training.diverged_epoch[row] >= 0:
        return tags | {"diverged_epoch": str(int(training.diverged_epoch[row]))}
    if judgement is not None and "loss_level" in judgement and training.outcome[row] == "finite":
        tags["loss_level"] = str(judgement["loss_level"].iloc[row])
    return tags


def outcome_counts(training: "Training", judgement: "pd.DataFrame | None" = None) -> dict[str, float]:
    """Counts of outcomes as metrics outcome/<name>; without a judge outcome/diverged is always among them."""
    kinds, counts = np.unique(outcomes(training, judgement), return_counts=True)
    found = {f"outcome/{safe_name(str(kind))}": float(count) for kind, count in zip(kinds, counts, strict=True)}
    return found if judgement is not None else {"outcome/diverged": 0.0} | found


def with_own_run(training: "Training", children: str, judgement: "pd.DataFrame | None" = None) -> dict[int, str]:
    """Restarts that get a run of their own: row -> "", or what it is an example of."""
    restarts = len(training.seeds)
    if (count := own_runs(restarts, children)) in (0, restarts):
        return dict.fromkeys(range(count), "")
    order = ranking(training)
    kinds = outcomes(training, judgement)
    chosen = {int(order[0]): "best", int(order[restarts // 2]): "median", int(order[-1]): "worst"}
    for kind in np.unique(kinds):
        for row in np.flatnonzero(kinds == kind)[:3]:
            chosen.setdefault(int(row), str(kind))
    return dict(sorted(chosen.items()))


def own_runs(restarts: int, children: str) -> int:
    """About how many restarts of a cell will get runs of their own, before their outcomes are known."""
    if restarts == 1 or children == "none":
        return 0
    return restarts if children == "all" or restarts <= CHILDREN_LIMIT else 10


def telling(restarts: "pd.DataFrame") -> list[str]:
    """The final loss and the final score that the figure of a cell's restarts shows."""
    score = leading([name for name in restarts if not name.endswith("/loss") and not restarts[name].isna().all()])
    return ["train/loss", *([score] if score else [])]


def curve_table(training: "Training", curves: Mapping[str, ndarray] | None = None) -> "pd.DataFrame":
    """One row per restart and logged epoch: seed, epoch, step, then one column per metric; NaN after divergence.

    Args:
        training: of R restarts.
        curves: metric -> (P, R), in place of the training's own.
    """
    import pandas as pd

    points, restarts = len(training.epochs), len(training.seeds)
    curves = training.curves if curves is None else curves
    columns = {
        "seed": np.repeat(training.seeds, points),
        "epoch": np.tile(training.epochs, restarts),
        "step": np.tile(training.steps, restarts),
    }
    return pd.DataFrame(columns | {name: values.T.ravel() for name, values in curves.items()})


def restart_table(training: "Training", judgement: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """One row per restart: seed, outcome, diverged_epoch (-1: never), rank (0: best), final metrics.

    Final metrics of a diverged or exploded restart are NaN. A judge's outcome takes the place of finite, and its other
    columns stand at the end.
    """
    import pandas as pd

    rank = np.empty(len(training.seeds), dtype=np.int64)
    rank[ranking(training)] = np.arange(len(rank))
    columns = {
        "seed": training.seeds,
        "outcome": outcomes(training, judgement),
        "diverged_epoch": training.diverged_epoch,
        "rank": rank,
    }
    lost = training.outcome != "finite"
    table = pd.DataFrame(columns | {name: np.where(lost, np.nan, ends[-1]) for name, ends in training.curves.items()})
    return table if judgement is None else table.join(judgement.drop(columns="outcome"))


def long_form(wide: "pd.DataFrame") -> "pd.DataFrame":
    """One row per value: every metric, a column with a slash in its name, becomes rows of metric and value."""
    metrics = [column for column in wide.columns if "/" in column]
    keys = [column for column in wide.columns if column not in metrics]
    return wide.melt(id_vars=keys, value_vars=metrics, var_name="metric", value_name="value")
