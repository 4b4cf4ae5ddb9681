"""Estimates with their intervals, beside what theory, a fit or a publication says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy import ndarray

from descentlab.figures import style
from descentlab.figures.style import COLOURS, LINES, MARKERS, words

MARKED = 15  # points of a series up to which each has a marker
FEW_TICKS = 8  # on a log axis


def estimates(
    frame: pd.DataFrame,
    x: str,
    by: str,
    labels: tuple[str, str],
    panels: str | None = None,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    references: Mapping[float, float] | None = None,
    log: bool = False,
    log_y: bool = False,
    share_y: bool = True,
    note: str | None = "band: 95 % interval",
    title: str | None = None,
) -> Figure:
    """Estimates with their intervals along an axis, a line per series.

    Args:
        frame: one row per estimate: x, by, panels, and estimate, low, high; NaN limits are not drawn.
        x: the column along the axis.
        by: the column that tells the series apart.
        labels: of the axes; where the first is "", each panel's name is the label of its axis.
        panels: the column that tells the panels apart; four or more are small ones.
        lines: name -> positions of a line that theory or a fit draws, in every panel.
        references: x -> a published value, drawn as a diamond.
        log: whether x is on a log axis.
        log_y: whether the estimates are on a log axis.
        share_y: whether panels share the axis of the estimates.
        note: how to read the marks.
        title: over the figure.
    """
    groups = style.groups(frame, panels, named=False)
    if len(groups) < style.COLUMNS:
        figure, axes = style.canvas(len(groups), width=4.2 if len(groups) > 1 else 6.5, share_y=share_y)
    else:
        figure, axes = style.grid([name if labels[0] else "" for name, _ in groups], share_y)
    handles: dict[str, Line2D] = {}
    keys = style.ordered(frame[by])
    for place, (ax, (panel, part)) in enumerate(zip(axes, groups, strict=True)):
        for number, key in enumerate(keys):
            rows = part[part[by] == key].sort_values(x)
            if rows.empty:
                continue
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
            style.band(ax, rows[x], rows["low"], rows["high"], look["color"], 0.2)
            marker: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "ms": 5} if len(rows) <= MARKED else {}
            look |= {"ls": LINES[number % len(LINES)], "lw": 1.8, "zorder": 3}
            (handles[words(key)],) = ax.plot(rows[x], rows["estimate"], **look, **marker)
        for number, (name, (positions, heights)) in enumerate((lines or {}).items()):
            (line,) = ax.plot(positions, heights, color="black", lw=1.3, ls=(0, (1 + 3 * number, 1.5)), zorder=2)
            handles[name] = handles.pop(name, line)  # after the series
        for at, value in (references or {}).items():
            (mark,) = ax.plot([float(at)], [value], ls="", marker="D", ms=8, mec="white", color="black", zorder=4)
            handles["published"] = mark
        _settings_axis(ax, part[x].to_numpy(dtype=np.float64), log)
        if log_y:
            _plain_log_axis(ax, along="y")
        ax.set_title(panel if labels[0] else "", fontsize="medium")
        ax.set_xlabel(labels[0] or panel)
        ax.grid(alpha=0.3)
        if place % style.COLUMNS == 0:
            ax.set_ylabel(labels[1])
    return style.finish(figure, title, handles, note)


def predicted(
    frame: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    by: str,
    theory: str = "theory",
    labels: tuple[str, str] = ("", ""),
    note: str | None = "bars: 95 % interval",
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
        note: how to read the bars, where there are any.
        title: over the figure.
    """
    figure, axes = style.canvas(len(columns), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, (column, name) in zip(axes, columns.items(), strict=True):
        for place, key in enumerate(style.ordered(frame[by])):
            rows = frame[frame[by] == key].sort_values(x)
            (line,) = ax.plot(rows[x], rows[theory], color="black", lw=1.2, ls=(0, (1, 1)), zorder=2)
            limits = rows[f"{column}_low"], rows[f"{column}_high"]
            handles[f"{words(by)} {words(key)}"] = _points(ax, rows[x], rows[column], limits, place, "y")
            handles["theory"] = handles.pop("theory", line)  # the last in the legend
        ax.set_title(name, fontsize="medium")
        _settings_axis(ax, frame[x].to_numpy(dtype=np.float64), log=True)
        ax.set_xlabel(labels[0])
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(labels[1])
    return style.finish(figure, title, handles, note)


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
    """
    rows, kinds, groups = (
        style.ordered(frame[by]),
        style.ordered(frame[series]),
        style.groups(frame, panels, named=False),
    )
    figure, axes = style.canvas(len(groups), height=2.0 + 0.4 * len(rows), width=3.6, share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, (name, part) in zip(axes, groups, strict=True):
        ax.axvspan(-margin, margin, color="black", alpha=0.1, lw=0)
        ax.axvline(0, color="black", lw=0.8)
        for place, kind in enumerate(kinds):
            own = part[part[series] == kind]
            y = np.array([rows.index(row) for row in own[by]]) + 0.5 * ((place + 1) / (len(kinds) + 1) - 0.5)
            limits = own["low"], own["high"]
            handles[f"{words(series)} {words(kind)}"] = _points(ax, own["estimate"], y, limits, place, "x")
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel(label)
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), [words(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    note = f"bars: interval that decides equivalence   shaded: margin of ±{margin:g}"
    return style.finish(figure, title, handles, note)


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
    """
    groups = style.groups(frame, panels, named=False)
    first = groups[0][1]
    names = list(first[first["work"] == columns[0]].sort_values(value)[by])
    figure, axes = style.canvas(len(groups), height=1.9 + 0.32 * len(names), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, (panel, part) in zip(axes, groups, strict=True):
        for place, work in enumerate(columns):
            rows = part[part["work"] == work].set_index(by).reindex(names)
            heights = np.arange(len(names)) + 0.2 * (place - 0.5 * (len(columns) - 1))
            limits = rows[f"{value}_low"], rows[f"{value}_high"]
            handles[work] = _points(ax, rows[value], heights, limits, place, "x")
        if reference is not None:
            ax.axvline(reference, color="black", lw=1, ls=(0, (1, 1)))
        ax.set_title(panel, fontsize="medium")
        _plain_log_axis(ax)
        ax.set_xlabel(label)
        ax.set_yticks(range(len(names)), [words(name) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="x", alpha=0.3)
    return style.finish(figure, title, handles, "bars: 95 % interval of the median over rounds")


def _points(ax: Axes, x: Any, y: Any, limits: tuple[Any, Any], place: int, along: str) -> Line2D:
    """The points of one series, with their intervals along an axis."""
    middle = np.asarray(x if along == "x" else y)
    reach = np.abs(np.stack([middle - limits[0], limits[1] - middle]))
    look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
    return ax.errorbar(x, y, **{f"{along}err": reach}, ls="", ms=5, capsize=2, lw=1.4, zorder=3, **look).lines[0]


def _plain_log_axis(ax: Axes, along: str = "x") -> None:
    """A log axis with ticks at 1, 2 and 5 times powers of ten, written out."""
    (ax.set_xscale if along == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if along == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _settings_axis(ax: Axes, values: ndarray, log: bool) -> None:
    """An axis along x that ends at the settings, with a tick at each where they are few."""
    ticks = np.unique(values[values > 0] if log else values)  # no place on a log axis for a setting of 0
    if log:
        _plain_log_axis(ax)
        ax.set_xlim(ticks.min() / 1.15, ticks.max() * 1.15)
    if len(ticks) <= (FEW_TICKS if log else MARKED):
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
