"""Figures with a point for every restart: by series, over a setting, in a histogram, one metric against another."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from descentlab.analysis.statistics import mean_intervals, metric_bounds
from descentlab.figures import style
from descentlab.figures.pooling import check_pooling
from descentlab.figures.style import COLOURS, LINES, MARKERS, words


def spread(
    frame: pd.DataFrame,
    metric: str = "test/loss",
    by: str = "cell",
    panels: str | None = None,
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """The outcome of every restart as a point, series by series, with mean and interval; diverged ones are counted.

    Args:
        frame: one row per restart, as from `results.restarts`.
        metric: the column to show.
        by: the column that tells the series apart.
        panels: the column that tells the panels apart.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [by, panels], over)
    groups, keys = style.groups(frame, panels), style.ordered(frame[by])
    figure, axes = style.canvas(len(groups), 1.7 + 0.42 * len(keys), width=4.4, share_y=True, labels=keys)
    drawn: dict[str, Line2D] = {}
    for ax, (name, part) in zip(axes, groups, strict=True):
        ax.set_title(name, fontsize="medium")
        for place, key in enumerate(keys):
            drawn |= _points(ax, part[part[by] == key][metric].to_numpy(dtype=np.float64), place, metric)
        ax.set_yticks(range(len(keys)), [words(key) for key in keys])
        ax.set_ylim(len(keys) - 0.4, -0.6)
        ax.grid(axis="x", alpha=0.3)
        style.value_axis(ax, part[metric], along="x")
        ax.set_xlabel(f"{metric.split('/')[0]} {style.label(style.quantity(metric), part, [metric])}")
    axes[0].set_ylabel(words(by))
    return style.finish(figure, title, drawn, caption=style.setting(frame, None, over))


def trends(
    frame: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    by: str,
    panels: str | None = None,
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """Outcomes of every restart over a setting on a log axis, with means and intervals, a panel per outcome.

    Args:
        frame: one row per restart; an outcome that is not finite is a restart that diverged, and is counted.
        x: the column along the axis, above 0.
        columns: outcome's column -> the label of its axis.
        by: the column that tells the series apart.
        panels: the column that tells further panels apart.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [x, by, panels], [*over, *columns])
    keys, ticks = style.ordered(frame[by]), np.array(style.ordered(frame[x]), dtype=np.float64)
    shown = [(*group, *column) for group in style.groups(frame, panels) for column in columns.items()]
    figure, axes = style.canvas(len(shown), width=4.0 if len(shown) > 2 else 5.0, share_y=len(columns) == 1)
    handles: dict[str, Line2D] = {}
    step = min(0.06, 0.5 * np.diff(np.log(ticks)).min(initial=np.inf) / len(keys))  # no series comes near another
    for ax, (name, part, column, label) in zip(axes, shown, strict=True):
        ax.set_title(name, fontsize="medium")
        values = style.drawable(frame[column])
        low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
        for place, key in enumerate(keys):
            rows = part[part[by] == key]
            if rows.empty:
                continue
            aside = (1.0 + step) ** (place - 0.5 * (len(keys) - 1))  # series side by side, not on top of one another
            handles[words(key)] = _trend(ax, rows, x, column, place, aside)
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize="small")
        ax.minorticks_off()
        if low <= high:  # an interval from two restarts may be wider than the figure
            room = np.array([0.35 if np.isnan(values).any() else 0.05, 0.05]) * (high - low or 1.0)
            ax.set_ylim(low - room[0], high + room[1])
        ax.set_xlim(ticks.min() / 1.3, ticks.max() * 1.3)
        ax.set_xlabel(words(x))
        if ax is axes[0] or len(columns) > 1:
            ax.set_ylabel(label)
        ax.grid(axis="y", alpha=0.3)
    note = "points: every restart   line: mean   band: 95 % interval of the mean"
    return style.finish(figure, title, handles, note, caption=style.setting(frame, None, over))


def _trend(ax: Axes, rows: pd.DataFrame, x: str, column: str, place: int, aside: float) -> Line2D:
    """One series of a trend: its restarts, the number of those that diverged, its means and their intervals."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    positions = np.array(style.ordered(rows[x]), dtype=np.float64)
    means = []
    for position in positions:
        values = style.drawable(rows[rows[x] == position][column])
        finite = np.sort(values[np.isfinite(values)])
        jitter = 1.0 + 0.05 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)
        dots: dict[str, Any] = {"ms": 4, "mew": 0, "color": colour, "alpha": 0.3, "zorder": 2}
        ax.plot(position * aside * jitter, finite, ls="", marker=marker, **dots)
        lost = len(values) - len(finite)
        if lost:
            note, spot = f"{lost} of {len(values)}\ndiverged", (position, 0.01 + 0.11 * place)
            where: Any = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            ax.annotate(note, spot, color=colour, fontsize="x-small", **where)
        means.append([part[0] for part in mean_intervals(finite[None, :], bounds=metric_bounds(column))])
    middle, _, below, above, _ = np.array(means).T
    style.band(ax, positions * aside, below, above, colour, 0.25)
    dashes = LINES[place % len(LINES)]
    (line,) = ax.plot(positions * aside, middle, color=colour, ls=dashes, lw=2, marker=marker, ms=6, zorder=3)
    return line


def histograms(
    frame: pd.DataFrame,
    metric: str,
    panels: str,
    label: str,
    marks: str | None = None,
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """Where every restart ends: a histogram with a stroke per restart below it, a panel each, each on its own axis.

    Args:
        frame: one row per restart; a restart whose outcome is not finite has diverged and is counted.
        metric: the column to show.
        panels: the column that tells the panels apart.
        label: of the axis.
        marks: a column with a value to mark, the same in every row of a panel.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [panels, marks], over)
    keys = style.ordered(frame[panels])
    figure, axes = style.grid(_counted(frame, metric, panels))
    handles: dict[str, Line2D] = {}
    for ax, key in zip(axes, keys, strict=True):
        part = frame[frame[panels] == key]
        values = style.drawable(part[metric])
        finite = values[np.isfinite(values)]
        if len(finite):
            counts, edges = np.histogram(finite, _bins(finite))
            ax.stairs(counts, edges, fill=True, color=COLOURS[0], alpha=0.55, zorder=2)
            depth = 0.09 * counts.max()
            height = np.full(len(finite), -0.55 * depth)
            look: dict[str, Any] = {"ls": "", "marker": "|", "ms": 7, "mew": 0.8}
            (handles["one restart"],) = ax.plot(finite, height, color=COLOURS[0], alpha=0.6, **look)
            ax.set_ylim(-1.2 * depth, None)
            ax.axhline(0, color="black", lw=0.6)
            handles["median"] = ax.axvline(float(np.median(finite)), color="black", lw=1.5, ls="--", zorder=3)
            if marks is not None:
                value = float(part[marks].iloc[0])
                handles[words(marks)] = ax.axvline(value, color=COLOURS[1], lw=2, ls="-.", zorder=3)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(label)
    for first in axes[:: style.COLUMNS]:
        first.set_ylabel("restarts")
    return style.finish(figure, title, handles, caption=style.setting(frame, None, over))


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    panels: str,
    labels: tuple[str, str],
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """Two metrics of every restart against each other, a panel each, each on its own axes.

    Args:
        frame: one row per restart.
        x: the metric along the axis.
        y: the metric up the axis.
        panels: the column that tells the panels apart.
        labels: of the axes.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [panels], over)
    keys = style.ordered(frame[panels])
    figure, axes = style.grid(_counted(frame, y, panels))
    for ax, key in zip(axes, keys, strict=True):
        part = frame[frame[panels] == key]
        ax.plot(
            style.drawable(part[x]),
            style.drawable(part[y]),
            ls="",
            marker="o",
            ms=4,
            mew=0,
            color=COLOURS[0],
            alpha=0.5,
        )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        ax.grid(alpha=0.3)
        ax.set_xlabel(labels[0])
    for first in axes[:: style.COLUMNS]:
        first.set_ylabel(labels[1])
    return style.finish(figure, title, caption=style.setting(frame, None, over))


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
    """
    keys = style.ordered(frame[by])
    figure, (ax,) = style.canvas(1, height=1.9 + 0.5 * len(keys), width=8)
    tails = [(1 - share) / 2, (1 + share) / 2]
    for row, key in enumerate(keys):
        drawn = np.sort(frame[frame[by] == key]["value"].to_numpy(dtype=np.float64))
        jitter = 0.4 * (np.arange(len(drawn)) * 0.618 % 1 - 0.5)
        (one,) = ax.plot(drawn, row + jitter, ls="", marker="o", ms=3, mew=0, color=COLOURS[0], alpha=0.35, zorder=1)
        (band,) = ax.plot(np.quantile(drawn, tails), [row + 0.32] * 2, color="black", lw=2.5, solid_capstyle="butt")
        (mark,) = ax.plot([values[key]], [row], ls="", marker="D", ms=8, mec="white", color=COLOURS[1], zorder=3)
    ax.set_xscale("log")
    ax.set_yticks(range(len(keys)), [words(key) for key in keys])
    ax.set_ylim(len(keys) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
    handles = {"one simulated net": one, f"central {share:.0%}": band, "published": mark}
    return style.finish(figure, title, handles)


def _points(ax: Axes, values: ndarray, place: int, metric: str) -> dict[str, Line2D]:
    """Every restart of a series as a point on its row, its mean and interval, and the number of diverged ones.

    Returns:
        What was drawn, by its name in the legend.
    """
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    values = style.drawable(values)
    finite = np.sort(values[np.isfinite(values)])
    lost = len(values) - len(finite)
    drawn: dict[str, Line2D] = {}
    if len(finite):
        jitter = 0.24 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)  # the golden ratio keeps neighbours apart
        ax.plot(finite, place + jitter, ls="", marker=marker, ms=4, mew=0, color=colour, alpha=0.6, zorder=2)
        drawn["one restart"] = Line2D([], [], color="grey", marker="o", ms=4, lw=0)
        centre, _, low, high, _ = (part[0] for part in mean_intervals(finite[None, :], bounds=metric_bounds(metric)))
        if np.isfinite(low):
            ax.plot([low, high], [place + 0.27] * 2, color="black", lw=2, zorder=3, solid_capstyle="butt")
            ax.plot([centre], [place + 0.27], marker="|", ms=9, mew=2, color="black", zorder=4)
            mean = Line2D([], [], color="black", marker="|", ms=12, mew=2, lw=2)
            drawn["mean and its 95 % interval"] = mean
    if lost or not len(values):
        note = f"{lost} of {len(values)} diverged" if lost else "no restarts"
        ax.annotate(note, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    return drawn


def _counted(frame: pd.DataFrame, metric: str, panels: str) -> list[str]:
    """A title per panel: its name and how many restarts it shows, or lost."""
    titles = []
    for key in style.ordered(frame[panels]):
        values = style.drawable(frame[frame[panels] == key][metric])
        lost = len(values) - int(np.isfinite(values).sum())
        count = f"{lost} of {len(values)} diverged" if lost else f"{len(values)} restarts"
        titles.append(f"{words(panels)} {words(key)}, {count}")
    return titles


def _bins(values: ndarray) -> ndarray:
    """Edges by Freedman and Diaconis' rule (1981), between 8 and 40 bins."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low + np.array([-0.5, 0.5]) * (abs(low) or 1.0) * 1e-3
    middle = float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    width = 2 * middle / len(values) ** (1 / 3) or high - low
    return np.linspace(low, high, 1 + int(np.clip(np.ceil((high - low) / width), 8, 40)))
