"""Figures over epochs and over layers: a line for every restart, the mean on top; and when restarts reach a target."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from descentlab.analysis.statistics import mean_intervals, metric_bounds, wilson
from descentlab.data import SPLITS
from descentlab.figures import style
from descentlab.figures.pooling import check_pooling
from descentlab.figures.style import COLOURS, LABELS, LINES, MARKERS, words
from descentlab.values import InputError

HOW_TO_READ = "thin: every restart   thick: mean   band: 95 % interval of the mean"
LOST = "   ×: diverged there"


def learning_curves(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    by: str = "cell",
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """Metrics over epochs, a panel each.

    Args:
        frame: long, as from `results.curves`: cell, seed, epoch, metric, value; data and loss are named where given.
        metrics: what to draw; None takes losses and scores: of one cell all splits in one panel, of several cells the
            test split's.
        by: the column that tells the series apart.
        title: over the figure; None says cell, data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [by, "metric", "epoch"], over)
    keys = style.ordered(frame[by])
    known = set(frame["metric"])
    if metrics is None:
        splits = (
            SPLITS if len(keys) == 1 else [next(s for s in ("test", "validation", "train") if f"{s}/loss" in known)]
        )
        metrics = [f"{s}/{name}" for name in ("loss", "accuracy", "r2") for s in splits if f"{s}/{name}" in known]
    panels: dict[str, list[str]] = {}
    for metric in metrics:
        panels.setdefault(style.quantity(metric) if len(keys) == 1 else metric, []).append(metric)
    figure, axes = style.canvas(len(panels))
    handles: dict[str, Line2D] = {}
    for ax, (panel, names) in zip(axes, panels.items(), strict=True):
        one_label = len(keys) == 1
        series = [(name if one_label else words(key), name, key) for name in names for key in keys]
        for place, (label, name, key) in enumerate(series):
            look = SPLITS.index(name.split("/")[0]) if one_label and name.split("/")[0] in SPLITS else place
            rows = frame[(frame[by] == key) & (frame["metric"] == name)]
            if rows.empty:
                continue
            epochs, values = style.table(rows, "epoch", over)
            shown = _shown(label, one_label)
            handles[shown] = _bundle(ax, epochs, values, look, shown, markers=False, metric=name)
        style.epoch_axis(ax)
        ax.set_ylabel(style.label(panel, frame, names))
        if style.quantity(names[0]) not in ("accuracy", "r2"):
            style.value_axis(ax, frame[frame["metric"].isin(names)]["value"])
    note = _how_to_read(frame[frame["metric"].isin(metrics)])
    return style.finish(figure, title, handles, note, caption=style.setting(frame, by, over))


def accuracies(frame: pd.DataFrame, samples: int, by: str = "cell", title: str | None = None) -> Figure:
    """Test accuracy over epochs, a panel each, with what a test set of few samples leaves open.

    Args:
        frame: long, as from `results.curves`, with test/accuracy; one restart per series.
        samples: of the test set; the band is one standard error, sqrt(p (1 - p) / samples).
        by: the column that tells the series apart.
        title: over the figure; None says data and restarts.
    """
    frame = frame[frame["metric"] == "test/accuracy"]
    keys = style.ordered(frame[by])
    figure, axes = style.canvas(len(keys), width=4.2, share_y=True)
    for place, (ax, key) in enumerate(zip(axes, keys, strict=True)):
        epochs, values = style.table(frame[frame[by] == key], "epoch")
        if values.shape[1] > 1:
            raise InputError(f"{by}={key}: {values.shape[1]} restarts would share a line; select one of each series")
        p = values[:, 0]
        error = np.sqrt(p * (1 - p) / samples)
        colour = COLOURS[place % len(COLOURS)]
        style.band(ax, epochs, p - error, p + error, colour, 0.25)
        ax.plot(epochs, p, color=colour, lw=2, ls=LINES[place % len(LINES)])
        ax.set_title(words(key), fontsize="medium")
        style.epoch_axis(ax)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel(f"test accuracy ± 1 standard error ({samples} images)")
    axes[0].set_ylim(0, 1)
    return style.finish(figure, title, caption=style.setting(frame, by))


def layer_decay(
    frame: pd.DataFrame,
    theory: Mapping[Any, Sequence[float]] | None = None,
    by: str = "cell",
    panels: str | None = None,
    quantity: str = "delta_norm",
    epoch: int = 0,
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """A norm per layer, on a log axis: how a signal falls on its way to the input.

    Args:
        frame: long, as from `results.curves`, with metrics delta_norm/layer_1 and so on; layer 1 touches the input.
        theory: series (a value of `by`, or of (panels, by)) -> value per layer 1 .. L, drawn in black.
        by: the column that tells the series apart.
        panels: the column that tells the panels apart.
        quantity: delta_norm, gradient_norm or weight_norm.
        epoch: the logged epoch to show.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    prefix = f"{quantity}/layer_"
    frame = frame[frame["metric"].str.startswith(prefix) & (frame["epoch"] == epoch)]
    frame = frame.dropna(subset="value")  # layers that a shallower network does not have
    frame = frame.assign(layer=frame["metric"].str.removeprefix(prefix).astype(int))
    check_pooling(frame, [by, panels, "layer"], over)
    groups = style.ordered(frame[panels]) if panels else [None]
    keys = style.ordered(frame[by])
    figure, axes = style.canvas(len(groups), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        for place, key in enumerate(keys):
            rows = part[part[by] == key]
            if rows.empty:
                continue
            layers, values = style.table(rows, "layer", over)
            handles[words(key)] = _bundle(ax, layers, values, place, words(key), markers=True)
            expected = (theory or {}).get((group, key), (theory or {}).get(key))
            if expected is not None:
                x = np.arange(1, len(expected) + 1)
                (line,) = ax.plot(x, expected, color="black", lw=1.2, ls=(0, (1, 1)), zorder=5)
                handles["theory"] = line
        if group is not None:
            ax.set_title(f"{words(panels)}: {words(group)}", fontsize="medium")
        if (style.drawable(frame["value"]) > 0).any():
            ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("layer (1 touches the input)")
    axes[0].set_ylabel(LABELS.get(quantity, quantity))
    if "theory" in handles:
        handles["theory"] = handles.pop("theory")  # last
    when = "before the first update" if epoch == 0 else f"after epoch {epoch}"
    caption = f"{style.setting(frame, None, over)}, {when}"
    return style.finish(figure, title, handles, _how_to_read(frame), caption)


def paths(
    frame: pd.DataFrame, x: str, by: str, panels: str, labels: tuple[str, str], title: str | None = None
) -> Figure:
    """Values along a line for every seed, with means and intervals, in small panels each on its own axis.

    Args:
        frame: long: x, seed, value, by and panels.
        x: the column along the axis.
        by: the column that tells the series apart.
        panels: the column that tells the panels apart.
        labels: of the axes.
        title: over the figure.
    """
    check_pooling(frame, [x, by, panels])
    groups = style.ordered(frame[panels])
    figure, axes = style.grid([f"{words(panels)} {words(group)}" for group in groups])
    handles: dict[str, Line2D] = {}
    for place, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        part = frame[frame[panels] == group]
        for number, key in enumerate(style.ordered(frame[by])):
            positions, values = style.table(part[part[by] == key], x)
            handles[words(key)] = _bundle(ax, positions, values, number, words(key), markers=False)
        ax.set_xlabel(labels[0])
        if place % style.COLUMNS == 0:
            ax.set_ylabel(labels[1])
    return style.finish(figure, title, handles, HOW_TO_READ.replace("restart", "pair"))


def arrivals(
    frame: pd.DataFrame,
    horizon: int,
    by: str,
    panels: str | None = None,
    goal: str = "the target",
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """The share of restarts that have yet to arrive, over epochs: steps of one restart each, with Wilson's intervals.

    Restarts are censored at the horizon alone, so that this share is the Kaplan-Meier curve (Kaplan & Meier 1958).

    Args:
        frame: one row per restart with `arrival`, the epoch; NaN where it had not arrived by the horizon.
        horizon: the last epoch that was run.
        by: the column that tells the series apart.
        panels: the column that tells the panels apart.
        goal: what arriving means.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [by, panels], over)
    groups = style.groups(frame, panels)
    figure, axes = style.canvas(len(groups), share_y=True)
    handles: dict[str, Line2D] = {}
    censored = ""
    epochs = np.arange(horizon + 1)
    for ax, (name, part) in zip(axes, groups, strict=True):
        ax.set_title(name, fontsize="medium")
        for place, key in enumerate(style.ordered(frame[by])):
            arrival = part[part[by] == key]["arrival"].to_numpy(dtype=np.float64)
            if not len(arrival):
                continue
            waiting = [int((~(arrival <= epoch)).sum()) for epoch in epochs]
            shares = [wilson(count, len(arrival)) for count in waiting]
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "step": "post"}
            low, high = [share.low for share in shares], [share.high for share in shares]
            partly = [0 < count < len(arrival) for count in waiting]  # before and after, the bands of all are one
            first, last = (partly.index(True) - 1, horizon - partly[::-1].index(True) + 1) if any(partly) else (0, 0)
            span = slice(max(first, 0), last + 1)
            ax.fill_between(epochs[span], low[span], high[span], alpha=0.15, lw=0, **look)
            (line,) = ax.plot(
                epochs, [share.estimate for share in shares], color=look["color"], ls=LINES[place % len(LINES)],
                lw=2, drawstyle="steps-post",
            )  # fmt: skip
            handles[words(key)] = line
            if waiting[-1]:
                censored = "   |: had not arrived at the end"
                ax.plot(horizon, shares[-1].estimate, marker="|", ms=10, mew=2, color=look["color"], clip_on=False)
        style.epoch_axis(ax)
        ax.set_xlim(0, horizon)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f"share of restarts above {goal}")
    axes[0].set_ylim(-0.02, 1.04)
    note = f"band: 95 % interval (Wilson){censored}"
    return style.finish(figure, title, handles, note, caption=style.setting(frame, None, over))


def _bundle(ax: Axes, x: ndarray, values: ndarray, place: int, label: str, markers: bool, metric: str = "") -> Line2D:
    """All restarts (P, R) of a series as thin lines, their mean as a thick one, its interval as a band."""
    colour, dashes = COLOURS[place % len(COLOURS)], LINES[(place + place // len(COLOURS)) % len(LINES)]
    values = style.drawable(values)
    restarts = values.shape[1]
    marker = MARKERS[place % len(MARKERS)] if markers or len(x) == 1 else None
    if restarts > 1:
        segments = [np.column_stack([x, column]) for column in values.T]
        faint = float(np.clip(4 / restarts, 0.08, 0.45))
        ax.add_collection(LineCollection(segments, colors=colour, linewidths=0.7, alpha=faint, zorder=1))
    means = mean_intervals(values, bounds=metric_bounds(metric))
    style.band(ax, x, style.drawable(means.low), style.drawable(means.high), colour, 0.25)
    (line,) = ax.plot(x, means.mean, color=colour, ls=dashes, lw=2, marker=marker, ms=5, label=label, zorder=3)
    lost = np.isnan(values[-1])
    if lost.any():
        last = np.array([np.flatnonzero(np.isfinite(column)).max(initial=0) for column in values.T[lost]])
        ends = values.T[lost][np.arange(len(last)), last]
        ax.plot(x[last], ends, ls="", marker="x", color=colour, ms=5, alpha=0.7, zorder=4)
    ax.autoscale_view()
    return line


def _shown(label: str, is_metric: bool) -> str:
    return label.split("/")[0] if is_metric and label.split("/")[0] in SPLITS else label


def _how_to_read(frame: pd.DataFrame) -> str | None:
    """What the marks of a bundle mean, as far as they are there."""
    if frame["seed"].nunique() == 1:
        return None
    return HOW_TO_READ + (LOST if frame["value"].isna().any() else "")
