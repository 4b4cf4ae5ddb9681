"""Figures from the tables that `results` returns: every restart visible, the mean and its 95 % interval on top.

Colours are Okabe and Ito's (2008), told apart without colour by line style and marker as well. Figures are made with
matplotlib's objects and not with pyplot, whose global state is not for threads.
"""

import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy import ndarray

from descentlab.analysis.statistics import wilson
from descentlab.harness.tracking.contents import SPLITS
from descentlab.harness.tracking.contents import spread as _statistics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DECADES = 30.0  # values whose largest is more than this many times the smallest are shown on a log axis
LABELS = {
    "mean_squared_error": "½ mean squared error",
    "binary_cross_entropy": "binary cross-entropy (nats)",
    "categorical_cross_entropy": "categorical cross-entropy (nats)",
    "loss": "loss",
    "accuracy": "accuracy (fraction of samples)",
    "r2": "R² (fraction of variance)",
    "delta_norm": "mean |δ| over samples",
    "delta_rms": "root mean square |δ| over samples",
    "gradient_norm": "‖∂C/∂W‖ (Frobenius)",
    "bias_gradient_norm": "‖∂C/∂b‖, the norm of the mean δ",
    "weight_norm": "‖W‖ (Frobenius)",
}
HOW_TO_READ = "thin: every restart   thick: mean   band: 95 % interval of the mean"
LOST = "   ×: diverged there"

_drawing = threading.Lock()  # matplotlib's text machinery is shared


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure in the format that the path's ending names; safe from any thread."""
    options: dict[str, Any] = {"dpi": dpi}
    if str(path).endswith(".svg"):
        options["metadata"] = {"Date": None}  # the same figure is the same file
    elif str(path).endswith(".png"):
        options["pil_kwargs"] = {"compress_level": 3}  # a third of the time of the default, for 1.2 of the size
    with _drawing, rc_context({"svg.hashsalt": "descentlab"}):  # ids that are not random
        figure.savefig(path, **options)


def learning_curves(
    frame: pd.DataFrame, metrics: Sequence[str] | None = None, by: str = "cell", title: str | None = None
) -> Figure:
    """Metrics over epochs, a panel each.

    Args:
        frame: long, as from `results.curves`: cell, seed, epoch, metric, value; data and loss are named where given.
        metrics: what to draw; None takes losses and scores: of one cell all splits in one panel, of several cells the
            test split's.
        by: the column that tells the series apart.
        title: over the figure; None says cell, data and restarts.

    Returns:
        The figure.
    """
    keys = _ordered(frame[by])
    known = set(frame["metric"])
    if metrics is None:
        splits = (
            SPLITS if len(keys) == 1 else [next(s for s in ("test", "validation", "train") if f"{s}/loss" in known)]
        )
        metrics = [f"{s}/{name}" for name in ("loss", "accuracy", "r2") for s in splits if f"{s}/{name}" in known]
    panels: dict[str, list[str]] = {}
    for metric in metrics:
        panels.setdefault(_quantity(metric) if len(keys) == 1 else metric, []).append(metric)
    figure, axes = _canvas(len(panels))
    handles: dict[str, Line2D] = {}
    for ax, (panel, names) in zip(axes, panels.items(), strict=True):
        one_label = len(keys) == 1
        series = [(name if one_label else str(key), name, key) for name in names for key in keys]
        for place, (label, name, key) in enumerate(series):
            look = SPLITS.index(name.split("/")[0]) if one_label and name.split("/")[0] in SPLITS else place
            epochs, values = _table(frame[(frame[by] == key) & (frame["metric"] == name)], "epoch")
            shown = _shown(label, one_label)
            handles[shown] = _bundle(ax, epochs, values, look, shown, markers=False)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel(_label(panel, frame, names))
        if _quantity(names[0]) not in ("accuracy", "r2"):
            _value_axis(ax, frame[frame["metric"].isin(names)]["value"])
    _legend(figure, handles, _how_to_read(frame[frame["metric"].isin(metrics)]))
    figure.suptitle(title or _setting(frame, by))
    return figure


def accuracies(frame: pd.DataFrame, samples: int, by: str = "cell", title: str | None = None) -> Figure:
    """Test accuracy over epochs, a panel each, with what a test set of few samples leaves open.

    Args:
        frame: long, as from `results.curves`, with test/accuracy; one restart per series.
        samples: of the test set; the band is one standard error, sqrt(p (1 - p) / samples).
        by: the column that tells the series apart.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    frame = frame[frame["metric"] == "test/accuracy"]
    keys = _ordered(frame[by])
    figure, axes = _canvas(len(keys), width=4.2, share_y=True)
    for place, (ax, key) in enumerate(zip(axes, keys, strict=True)):
        epochs, values = _table(frame[frame[by] == key], "epoch")
        p = values[:, 0]
        error = np.sqrt(p * (1 - p) / samples)
        colour = COLOURS[place % len(COLOURS)]
        ax.fill_between(epochs, p - error, p + error, color=colour, alpha=0.25, lw=0)
        ax.plot(epochs, p, color=colour, lw=2, ls=LINES[place % len(LINES)])
        ax.set_title(str(key), fontsize="medium")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel(f"test accuracy ± 1 standard error ({samples} images)")
    axes[0].set_ylim(0, 1)
    figure.suptitle(title or _setting(frame, by))
    return figure


def layer_decay(
    frame: pd.DataFrame,
    theory: Mapping[Any, Sequence[float]] | None = None,
    by: str = "cell",
    panels: str | None = None,
    quantity: str = "delta_norm",
    epoch: int = 0,
    title: str | None = None,
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

    Returns:
        The figure.
    """
    prefix = f"{quantity}/layer_"
    frame = frame[frame["metric"].str.startswith(prefix) & (frame["epoch"] == epoch)]
    frame = frame.assign(layer=frame["metric"].str.removeprefix(prefix).astype(int))
    groups = _ordered(frame[panels]) if panels else [None]
    keys = _ordered(frame[by])
    figure, axes = _canvas(len(groups), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        for place, key in enumerate(keys):
            rows = part[part[by] == key]
            if rows.empty:
                continue
            layers, values = _table(rows, "layer")
            handles[str(key)] = _bundle(ax, layers, values, place, str(key), markers=True)
            expected = (theory or {}).get((group, key), (theory or {}).get(key))
            if expected is not None:
                x = np.arange(1, len(expected) + 1)
                (line,) = ax.plot(x, expected, color="black", lw=1.2, ls=(0, (1, 1)), zorder=5)
                handles["theory"] = line
        if group is not None:
            ax.set_title(f"{panels}: {group}", fontsize="medium")
        ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("layer (1 touches the input)")
    axes[0].set_ylabel(LABELS.get(quantity, quantity))
    if "theory" in handles:
        handles["theory"] = handles.pop("theory")  # last
    _legend(figure, handles, _how_to_read(frame))
    when = "before the first update" if epoch == 0 else f"after epoch {epoch}"
    figure.suptitle(title or f"{_setting(frame, None)}, {when}")
    return figure


def spread(
    frame: pd.DataFrame,
    metric: str = "test/loss",
    by: str = "cell",
    panels: str | None = None,
    title: str | None = None,
) -> Figure:
    """The outcome of every restart as a point, series by series, with mean and interval; diverged ones are counted.

    Args:
        frame: one row per restart, as from `results.restarts`.
        metric: the column to show.
        by: the column that tells the series apart.
        panels: the column that tells the panels apart.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    groups = _ordered(frame[panels]) if panels else [None]
    keys = _ordered(frame[by])
    height = 1.7 + 0.42 * len(keys)
    figure, axes = _canvas(len(groups), height, width=4.4, share_y=True, labels=keys)
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        for place, key in enumerate(keys):
            values = part[part[by] == key][metric].to_numpy(dtype=np.float64)
            if not len(values):
                continue
            _points(ax, values, place)
        if group is not None:
            ax.set_title(f"{panels}: {group}", fontsize="medium")
        ax.set_yticks(range(len(keys)), [str(key) for key in keys])
        ax.set_ylim(len(keys) - 0.4, -0.6)
        ax.grid(axis="x", alpha=0.3)
        _value_axis(ax, part[metric], along="x")
        ax.set_xlabel(f"{metric.split('/')[0]} {_label(_quantity(metric), part, [metric])}")
    axes[0].set_ylabel(by)
    figure.suptitle(title or _setting(frame, None))
    mean = Line2D([], [], color="black", marker="|", ms=12, mew=2, lw=2)
    one = Line2D([], [], color="grey", marker="o", ms=4, lw=0)
    _legend(figure, {"one restart": one, "mean and its 95 % interval": mean}, None)
    return figure


def grid_table(
    frame: pd.DataFrame,
    metric: str = "test/accuracy",
    rows: str = "activation",
    columns: str = "descent",
    panels: str | None = "loss",
    title: str | None = None,
) -> Figure:
    """A grid of cells as a table of coloured means, each with the half width of its 95 % interval.

    Args:
        frame: one row per restart, as from `results.restarts`.
        metric: the column to show.
        rows: the column that makes the table's rows.
        columns: the column that makes its columns.
        panels: the column that makes a table each.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    groups = _ordered(frame[panels]) if panels else [None]
    lines, across = _ordered(frame[rows]), _ordered(frame[columns])
    means = np.full((len(groups), len(lines), len(across)), np.nan)
    notes = np.full(means.shape, "", dtype=object)
    for place in np.ndindex(means.shape):
        group, line, column = groups[place[0]], lines[place[1]], across[place[2]]
        chosen = (frame[rows] == line) & (frame[columns] == column)
        if group is not None:
            chosen &= frame[panels] == group
        values = frame[chosen][metric].to_numpy(dtype=np.float64)
        if len(values):
            means[place], notes[place] = _entry(values)
    finite = means[np.isfinite(means)]
    limits = Normalize(finite.min(initial=np.inf), finite.max(initial=-np.inf)) if len(finite) else Normalize(0, 1)
    height, width = 1.9 + 0.62 * len(lines), 1.5 + 1.35 * len(across)
    figure, axes = _canvas(len(groups), height, width, share_y=True, labels=lines)
    image = None
    for ax, group, values, texts in zip(axes, groups, means, notes, strict=True):
        image = ax.imshow(values, cmap="cividis", norm=limits, aspect="auto")
        for (line, column), text in np.ndenumerate(texts):
            dark = np.isfinite(values[line, column]) and limits(values[line, column]) < 0.5
            ax.text(column, line, text, ha="center", va="center", color="white" if dark else "black", fontsize="small")
        ax.set_xticks(range(len(across)), [str(name).replace("_", "\n", 1) for name in across])
        ax.set_yticks(range(len(lines)), [str(name) for name in lines])
        ax.set_xlabel(columns)
        if group is not None:
            ax.set_title(f"{group}".replace("_", " "), fontsize="medium")
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set_visible(False)
    axes[0].set_ylabel(rows)
    if image is not None and len(finite):
        bar = figure.colorbar(image, ax=list(axes), pad=0.02)
        bar.set_label(f"{metric.split('/')[0]} {_label(_quantity(metric), frame, [metric])}")
    figure.suptitle(title or f"{_setting(frame, None)}, mean ± half of the 95 % interval")
    return figure


def predicted(
    frame: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    by: str,
    theory: str = "theory",
    labels: tuple[str, str] = ("", ""),
    title: str | None = None,
) -> Figure:
    """Measured shares with their intervals on the lines that theory draws, over a log axis.

    Args:
        frame: one row per point; beside each measured column its <column>_low and <column>_high.
        x: the column along the axis.
        columns: measured column -> what it is called, a panel each.
        by: the column that tells the series apart.
        theory: the column of the predicted share.
        labels: of the axes.
        title: over the figure.

    Returns:
        The figure.
    """
    figure, axes = _canvas(len(columns), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, (column, name) in zip(axes, columns.items(), strict=True):
        for place, key in enumerate(_ordered(frame[by])):
            rows = frame[frame[by] == key].sort_values(x)
            (line,) = ax.plot(rows[x], rows[theory], color="black", lw=1.2, ls=(0, (1, 1)), zorder=2)
            middle = rows[column].to_numpy()
            reach = np.abs(np.stack([middle - rows[f"{column}_low"], rows[f"{column}_high"] - middle]))
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            points = ax.errorbar(rows[x], middle, reach, ls="", ms=5, capsize=2, lw=1.5, zorder=3, **look)
            handles[f"{by} {key}"] = points.lines[0]
            handles["theory"] = handles.pop("theory", line)  # the last in the legend
        ax.set_title(name, fontsize="medium")
        _plain_log_axis(ax)
        ax.set_xlabel(labels[0])
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(labels[1])
    _legend(figure, handles, "bars: 95 % interval")
    figure.suptitle(title or "")
    return figure


def trends(
    frame: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    by: str,
    panels: str | None = None,
    title: str | None = None,
) -> Figure:
    """Outcomes of every restart over a setting on a log axis, with means and intervals, a panel per outcome.

    Args:
        frame: one row per restart; an outcome that is not finite is a restart that diverged, and is counted.
        x: the column along the axis, above 0.
        columns: outcome's column -> the label of its axis.
        by: the column that tells the series apart.
        panels: the column that tells further panels apart.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    groups = _ordered(frame[panels]) if panels else [None]
    keys = _ordered(frame[by])
    shown = [(group, *column) for group in groups for column in columns.items()]
    figure, axes = _canvas(len(shown), width=4.0 if len(shown) > 2 else 5.0, share_y=len(columns) == 1)
    handles: dict[str, Line2D] = {}
    apart = np.diff(np.log(np.array(_ordered(frame[x]), dtype=np.float64))).min(initial=np.inf)
    step = min(0.06, 0.5 * apart / len(keys))  # no series comes near another position
    for ax, (group, column, label) in zip(axes, shown, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        low, high = frame[column].min(), frame[column].max()
        room = np.array([0.35 if frame[column].isna().any() else 0.05, 0.05]) * (high - low or 1.0)
        if group is not None:
            ax.set_title(f"{panels}: {group}".replace("_", " "), fontsize="medium")
        for place, key in enumerate(keys):
            rows = part[part[by] == key]
            if rows.empty:
                continue
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            positions = np.array(_ordered(rows[x]), dtype=np.float64)
            aside = (1.0 + step) ** (place - 0.5 * (len(keys) - 1))  # series side by side, not on top of one another
            means = []
            for position in positions:
                values = rows[rows[x] == position][column].to_numpy(dtype=np.float64)
                finite = np.sort(values[np.isfinite(values)])
                jitter = 1.0 + 0.05 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)
                dots: dict[str, Any] = {"ms": 4, "mew": 0, "color": colour, "alpha": 0.3, "zorder": 2}
                ax.plot(position * aside * jitter, finite, ls="", marker=marker, **dots)
                lost = len(values) - len(finite)
                if lost:
                    note = f"{lost} of {len(values)}\ndiverged"
                    spot = (position, 0.01 + 0.11 * place)
                    where: Any = ("data", "axes fraction")
                    ax.annotate(note, spot, xycoords=where, color=colour, ha="center", va="bottom", fontsize="x-small")
                means.append(_statistics(finite[None, :]) if len(finite) else _statistics(np.array([[np.nan]])))
            below, middle, above = (np.array([one[part][0] for one in means]) for part in ("_ci_low", "", "_ci_high"))
            ax.fill_between(positions * aside, below, above, color=colour, alpha=0.25, lw=0, zorder=1)
            style = LINES[place % len(LINES)]
            (line,) = ax.plot(positions * aside, middle, color=colour, ls=style, lw=2, marker=marker, ms=6, zorder=3)
            handles[str(key)] = line
        ax.set_xscale("log")
        ticks = np.array(_ordered(frame[x]), dtype=np.float64)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize="small")
        ax.minorticks_off()
        ax.set_ylim(low - room[0], high + room[1])  # an interval from two restarts may be wider than the figure
        ax.set_xlim(ticks.min() / 1.3, ticks.max() * 1.3)
        ax.set_xlabel(x.replace("_", " "))
        if ax is axes[0] or len(columns) > 1:
            ax.set_ylabel(label)
        ax.grid(axis="y", alpha=0.3)
    _legend(figure, handles, "points: every restart   line: mean   band: 95 % interval of the mean")
    figure.suptitle(title or _setting(frame, None))
    return figure


def phase_map(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    labels: tuple[str, str, str],
    title: str | None = None,
) -> Figure:
    """Means over restarts as a map over two settings, with predicted lines drawn over it.

    Args:
        frame: one row per restart.
        x: the column along the axis; both axes are logarithmic.
        y: the column up the axis.
        value: the column whose mean is shown, 0 to 1.
        lines: name -> positions (x, y) of a predicted line; what lies outside the map is not drawn.
        labels: of the axes and of the value.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    figure, axes = _canvas(1, width=7.5, height=5.2)
    ax = axes[0]
    table = frame.pivot_table(index=y, columns=x, values=value, aggfunc="mean", dropna=False)
    counts = frame.groupby([y, x]).size()
    across, along = table.columns.to_numpy(dtype=float), table.index.to_numpy(dtype=float)
    edges = [np.exp(_edges(np.log(centres))) for centres in (across, along)]
    image = ax.pcolormesh(*edges, table.to_numpy(), cmap="cividis", vmin=0.0, vmax=1.0)
    for (row, column), mean in np.ndenumerate(table.to_numpy()):
        run = (table.index[row], table.columns[column]) in counts.index
        text = f"{mean:.2f}" if np.isfinite(mean) else "diverged" if run else ""
        colour = "white" if mean < 0.5 else "black"
        ax.text(across[column], along[row], text, color=colour, ha="center", va="center", fontsize="small", zorder=5)
    handles: dict[str, Line2D] = {}
    for place, (name, (positions, heights)) in enumerate(lines.items()):
        ax.plot(positions, heights, color="white", lw=4, zorder=3)
        (handles[name],) = ax.plot(positions, heights, color=COLOURS[1 - place], lw=2.2, ls=LINES[place], zorder=4)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks(along, [f"{one:g}" for one in along])
    ax.set_xticks(across, [f"{one:g}" for one in across])
    ax.minorticks_off()
    ax.set_xlim(edges[0][0], edges[0][-1])
    ax.set_ylim(edges[1][0], edges[1][-1])
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    figure.colorbar(image, ax=ax, pad=0.02).set_label(labels[2])
    _legend(figure, handles, None)
    figure.suptitle(title or _setting(frame, None))
    return figure


def _edges(centres: ndarray) -> ndarray:
    """Where cells around these centres meet: (n + 1,)."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middles = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def arrivals(
    frame: pd.DataFrame,
    horizon: int,
    by: str,
    panels: str | None = None,
    goal: str = "the target",
    title: str | None = None,
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

    Returns:
        The figure.
    """
    groups = _ordered(frame[panels]) if panels else [None]
    figure, axes = _canvas(len(groups), share_y=True)
    handles: dict[str, Line2D] = {}
    epochs = np.arange(horizon + 1)
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        for place, key in enumerate(_ordered(frame[by])):
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
            handles[str(key)] = line
            if waiting[-1]:
                ax.plot(horizon, shares[-1].estimate, marker="|", ms=10, mew=2, color=look["color"], clip_on=False)
        if group is not None:
            ax.set_title(f"{panels}: {group}", fontsize="medium")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(0, horizon)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f"share of restarts above {goal}")
    axes[0].set_ylim(-0.02, 1.04)
    _legend(figure, handles, "band: 95 % interval (Wilson)   |: censored, had not arrived at the end")
    figure.suptitle(title or _setting(frame, None))
    return figure


def costs(
    frame: pd.DataFrame,
    columns: Sequence[str],
    panels: str,
    value: str,
    by: str,
    label: str,
    reference: float | None = None,
    title: str | None = None,
) -> Figure:
    """Medians over rounds with intervals, a row per thing timed and a marker per kind of work, on a log axis.

    Args:
        frame: one row per median: `by`, `work`, `panels`, and <value>, <value>_low, <value>_high.
        columns: the kinds of work to show, in order.
        panels: the column that tells the panels apart.
        value: the column of medians.
        by: the column that names the rows; they are sorted by the first kind of work in the first panel.
        label: of the axis.
        reference: where to draw a line, such as 1 for what everything is measured in.
        title: over the figure.

    Returns:
        The figure.
    """
    groups = _ordered(frame[panels])
    first = frame[(frame[panels] == groups[0]) & (frame["work"] == columns[0])].sort_values(value)
    names = list(first[by])
    figure, axes = _canvas(len(groups), height=1.9 + 0.32 * len(names), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, group in zip(axes, groups, strict=True):
        for place, work in enumerate(columns):
            rows = frame[(frame[panels] == group) & (frame["work"] == work)].set_index(by).reindex(names)
            heights = np.arange(len(names)) + 0.2 * (place - 0.5 * (len(columns) - 1))
            middle = rows[value].to_numpy()
            reach = np.abs(np.stack([middle - rows[f"{value}_low"], rows[f"{value}_high"] - middle]))
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            points = ax.errorbar(middle, heights, xerr=reach, ls="", ms=6, capsize=2, lw=1.5, **look)
            handles[work] = points.lines[0]
        if reference is not None:
            ax.axvline(reference, color="black", lw=1, ls=(0, (1, 1)))
        ax.set_title(str(group), fontsize="medium")
        _plain_log_axis(ax)
        ax.set_xlabel(label)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="x", alpha=0.3)
    _legend(figure, handles, "bars: 95 % interval of the median over rounds")
    figure.suptitle(title or "")
    return figure


def heat_maps(frame: pd.DataFrame, quantity: str = "delta_norm", by: str = "cell", title: str | None = None) -> Figure:
    """A norm by layer and epoch as colour, a panel per series: the mean over restarts of its decimal logarithm.

    Args:
        frame: long, as from `results.curves`, with metrics delta_norm/layer_1 and so on; layer 1 touches the input.
        quantity: delta_norm, gradient_norm or any other section with a value above 0 per layer.
        by: the column that tells the panels apart.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    prefix = f"{quantity}/layer_"
    frame = frame[frame["metric"].str.startswith(prefix)]
    frame = frame.assign(layer=frame["metric"].str.removeprefix(prefix).astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = frame.assign(log=np.log10(frame["value"])).replace({"log": {-np.inf: np.nan}})
    keys = _ordered(frame[by])
    tables = [frame[frame[by] == key].pivot_table(index="layer", columns="epoch", values="log") for key in keys]
    levels = np.concatenate([table.to_numpy().ravel() for table in tables])
    limits = Normalize(np.nanmin(levels), np.nanmax(levels))
    figure, axes = _canvas(len(keys), width=3.3, share_y=True)
    for ax, key, table in zip(axes, keys, tables, strict=True):
        image = ax.imshow(table, cmap="cividis", norm=limits, aspect="auto", origin="lower", interpolation="nearest")
        shown = np.unique(np.linspace(0, len(table.columns) - 1, 6).round().astype(int))
        ax.set_xticks(shown, [str(table.columns[place]) for place in shown])
        ax.set_yticks(range(len(table.index)), [str(layer) for layer in table.index])
        ax.set_xlabel("epoch (logged ones)")
        ax.set_title(str(key), fontsize="medium")
        ax.tick_params(length=0)
    axes[0].set_ylabel("layer (1 touches the input)")
    figure.colorbar(image, ax=list(axes), pad=0.02).set_label(f"log₁₀ {LABELS.get(quantity, quantity)}")
    figure.suptitle(title or _setting(frame, None))
    return figure


def deviations(
    frame: pd.DataFrame, margin: float, by: str, series: str, panels: str, label: str, title: str | None = None
) -> Figure:
    """What was measured less what was predicted, with intervals, beside the margin within which the two agree.

    Args:
        frame: one row per comparison with estimate, low and high of the difference.
        margin: of practical equality, shaded.
        by: the column that makes the rows.
        series: the column that tells apart the points of a row.
        panels: the column that tells the panels apart.
        label: of the axis, with its unit.
        title: over the figure.

    Returns:
        The figure.
    """
    groups, rows, kinds = _ordered(frame[panels]), _ordered(frame[by]), _ordered(frame[series])
    figure, axes = _canvas(len(groups), height=2.0 + 0.4 * len(rows), width=3.6, share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, group in zip(axes, groups, strict=True):
        ax.axvspan(-margin, margin, color="black", alpha=0.1, lw=0)
        ax.axvline(0, color="black", lw=0.8)
        for place, kind in enumerate(kinds):
            part = frame[(frame[panels] == group) & (frame[series] == kind)]
            y = np.array([rows.index(row) for row in part[by]]) + 0.5 * ((place + 1) / (len(kinds) + 1) - 0.5)
            middle = part["estimate"].to_numpy()
            reach = np.abs(np.stack([middle - part["low"], part["high"] - middle]))
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            points = ax.errorbar(middle, y, xerr=reach, ls="", ms=4, capsize=2, lw=1.2, **look)
            handles[f"{series} {kind}".replace("_", " ")] = points.lines[0]
        ax.set_title(f"{group}", fontsize="medium")
        ax.set_xlabel(label)
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), [str(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    _legend(figure, handles, f"bars: interval that decides equivalence   shaded: margin of ±{margin:g}")
    figure.suptitle(title or "")
    return figure


def published(
    frame: pd.DataFrame, values: Mapping[Hashable, float], by: str, share: float, label: str, title: str | None = None
) -> Figure:
    """One published value per row among many simulated ones, and the central band it should lie in.

    Args:
        frame: one row per simulated value: `by` and value, above 0.
        values: the published ones, by the keys of `by`.
        by: the column that makes the rows.
        share: of the simulated values that the band holds.
        label: of the axis, with its unit.
        title: over the figure.

    Returns:
        The figure.
    """
    keys = _ordered(frame[by])
    figure, (ax,) = _canvas(1, height=1.9 + 0.5 * len(keys), width=8)
    tails = [(1 - share) / 2, (1 + share) / 2]
    for row, key in enumerate(keys):
        drawn = np.sort(frame[frame[by] == key]["value"].to_numpy(dtype=np.float64))
        jitter = 0.4 * (np.arange(len(drawn)) * 0.618 % 1 - 0.5)
        (one,) = ax.plot(drawn, row + jitter, ls="", marker="o", ms=3, mew=0, color=COLOURS[0], alpha=0.35, zorder=1)
        (band,) = ax.plot(np.quantile(drawn, tails), [row + 0.32] * 2, color="black", lw=2.5, solid_capstyle="butt")
        (mark,) = ax.plot([values[key]], [row], ls="", marker="D", ms=8, mec="white", color=COLOURS[1], zorder=3)
    ax.set_xscale("log")
    ax.set_yticks(range(len(keys)), [str(key) for key in keys])
    ax.set_ylim(len(keys) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
    _legend(figure, {"one simulated net": one, f"central {share:.0%}": band, "published": mark}, None)
    figure.suptitle(title or _setting(frame, None))
    return figure


# --- parts of a figure -------------------------------------------------------------------------------------------


def _canvas(
    panels: int, height: float = 4.2, width: float = 5.0, share_y: bool = False, labels: Iterable[Hashable] = ()
) -> tuple[Figure, Sequence[Axes]]:
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06)  # inches; a tick's label may reach over its axis
    margin = 0.085 * max((len(str(label)) for label in labels), default=0)  # names beside the first panel
    figure = Figure(figsize=(max(5.5, width * panels + margin), height), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False, sharey=share_y)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ordered(values: "pd.Series[Any]") -> list[Hashable]:
    """Distinct values, numbers by size and names as they come."""
    distinct = list(dict.fromkeys(values))
    return sorted(distinct) if pd.api.types.is_numeric_dtype(values) else distinct


def _table(rows: pd.DataFrame, axis: str) -> tuple[ndarray, ndarray]:
    """Positions (P,) and values (P, R), a column per restart (of each run, where several share a series)."""
    keys = [key for key in ("run_id", "seed") if key in rows.columns]
    wide = rows.set_index([axis, *keys])["value"].unstack(keys).sort_index()
    return wide.index.to_numpy(), wide.to_numpy(dtype=np.float64)


def _bundle(ax: Axes, x: ndarray, values: ndarray, place: int, label: str, markers: bool) -> Line2D:
    """All restarts (P, R) of a series as thin lines, their mean as a thick one, its interval as a band."""
    colour, style = COLOURS[place % len(COLOURS)], LINES[(place + place // len(COLOURS)) % len(LINES)]
    with np.errstate(invalid="ignore"):
        values = np.where(np.isfinite(values), values, np.nan)
    restarts = values.shape[1]
    marker = MARKERS[place % len(MARKERS)] if markers or len(x) == 1 else None
    if restarts > 1:
        segments = [np.column_stack([x, column]) for column in values.T]
        faint = float(np.clip(4 / restarts, 0.08, 0.45))
        ax.add_collection(LineCollection(segments, colors=colour, linewidths=0.7, alpha=faint, zorder=1))
    series = _statistics(values)
    ax.fill_between(x, series["_ci_low"], series["_ci_high"], color=colour, alpha=0.25, lw=0, zorder=2)
    (line,) = ax.plot(x, series[""], color=colour, ls=style, lw=2, marker=marker, ms=5, label=label, zorder=3)
    lost = np.isnan(values[-1])
    if lost.any():
        last = np.array([np.flatnonzero(np.isfinite(column)).max(initial=0) for column in values.T[lost]])
        ends = values.T[lost][np.arange(len(last)), last]
        ax.plot(x[last], ends, ls="", marker="x", color=colour, ms=5, alpha=0.7, zorder=4)
    ax.autoscale_view()
    return line


def _points(ax: Axes, values: ndarray, place: int) -> None:
    """Every restart of a series as a point on its row, its mean and interval, and the number of diverged ones."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    finite = np.sort(values[np.isfinite(values)])
    lost = len(values) - len(finite)
    if len(finite):
        jitter = 0.24 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)  # the golden ratio keeps neighbours apart
        ax.plot(finite, place + jitter, ls="", marker=marker, ms=4, mew=0, color=colour, alpha=0.6, zorder=2)
        series = _statistics(finite[None, :])
        centre, low, high = (float(series[key][0]) for key in ("", "_ci_low", "_ci_high"))
        if np.isfinite(low):
            ax.plot([low, high], [place + 0.27] * 2, color="black", lw=2, zorder=3, solid_capstyle="butt")
        ax.plot([centre], [place + 0.27], marker="|", ms=9, mew=2, color="black", zorder=4)
    if lost:
        note = f"{lost} of {len(values)} diverged"
        ax.annotate(note, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small")


def _entry(values: ndarray) -> tuple[float, str]:
    series = _statistics(values[None, :])
    mean, low, lost = (float(series[key][0]) for key in ("", "_ci_low", "_diverged"))
    if not np.isfinite(mean):
        return np.nan, "all diverged" if len(values) > 1 else "diverged"
    text = f"{mean:.3g}" if not np.isfinite(low) else f"{mean:.3f}\n± {mean - low:.3f}"
    return mean, text + (f"\n{lost:.0f} diverged" if lost else "")


def _value_axis(ax: Axes, values: Iterable[float], along: str = "y") -> None:
    """A log axis where values span decades."""
    finite = np.asarray(list(values), dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0 and finite.max() > DECADES * finite.min():
        (ax.set_yscale if along == "y" else ax.set_xscale)("log")
        low = finite.min() / 1.3  # an interval around a mean may reach below 0
        current = ax.get_ylim() if along == "y" else ax.get_xlim()
        (ax.set_ylim if along == "y" else ax.set_xlim)(low, max(current[1], finite.max() * 1.3))


def _plain_log_axis(ax: Axes) -> None:
    """A log axis along x with ticks at 1, 2 and 5 times powers of ten, written out."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _quantity(metric: str) -> str:
    head, _, tail = metric.partition("/")
    return tail if head in SPLITS else head


def _shown(label: str, is_metric: bool) -> str:
    return label.split("/")[0] if is_metric and label.split("/")[0] in SPLITS else label


def _label(panel: str, frame: pd.DataFrame, metrics: Sequence[str]) -> str:
    quantity = _quantity(panel)
    if quantity == "loss" and "loss" in frame.columns:
        names = frame["loss"].unique()
        if len(names) == 1:
            quantity = str(names[0])
    text = LABELS.get(quantity, quantity)
    return text if panel in (quantity, "loss") or len(metrics) > 1 else f"{panel.split('/')[0]} {text}"


def _setting(frame: pd.DataFrame, by: str | None) -> str:
    """What a figure shows: cell where there is one, data and number of restarts."""
    parts = []
    if by is not None and frame[by].nunique() == 1:
        parts.append(str(frame[by].iloc[0]))
    if "data" in frame.columns and frame["data"].nunique() == 1:
        parts.append(str(frame["data"].iloc[0]))
    keys = [key for key in ("run_id", "cell") if key in frame.columns][:1]
    counts = frame.groupby(keys)["seed"].nunique() if keys else pd.Series([frame["seed"].nunique()])
    few, many = int(counts.min()), int(counts.max())
    count = f"{few}" if few == many else f"{few} to {many}"
    restarts = f"{count} restart" + ("" if many == 1 else "s")
    parts.append(restarts + (" per cell" if len(counts) > 1 else ""))
    return ", ".join(parts)


def _how_to_read(frame: pd.DataFrame) -> str | None:
    """What the marks of a bundle mean, as far as they are there."""
    if frame["seed"].nunique() == 1:
        return None
    return HOW_TO_READ + (LOST if frame["value"].isna().any() else "")


def _legend(figure: Figure, handles: Mapping[str, Line2D], note: str | None) -> None:
    widest = 0.7 + 0.095 * max((len(name) for name in handles), default=1)  # inches of an entry, line and gap included
    columns = min(4, max(1, len(handles)), max(1, int(figure.get_figwidth() / widest)))
    legend = figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns, frameon=False, title=note
    )
    legend.get_title().set_fontsize("small")
    legend.get_title().set_color("#444444")
