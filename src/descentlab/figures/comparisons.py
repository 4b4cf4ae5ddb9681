"""Outcomes side by side: every restart a point, means and intervals beside what theory or a publication says."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy import ndarray

from descentlab.analysis.statistics import mean_intervals, metric_bounds
from descentlab.figures import style
from descentlab.figures.style import COLOURS, LINES, MARKERS

MARKED = 15  # points of a series up to which each has a marker
FEW_TICKS = 8  # on a log axis


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
    groups = style.ordered(frame[panels]) if panels else [None]
    keys = style.ordered(frame[by])
    height = 1.7 + 0.42 * len(keys)
    figure, axes = style.canvas(len(groups), height, width=4.4, share_y=True, labels=keys)
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        for place, key in enumerate(keys):
            values = part[part[by] == key][metric].to_numpy(dtype=np.float64)
            if not len(values):
                continue
            _points(ax, values, place, metric)
        if group is not None:
            ax.set_title(f"{panels}: {group}", fontsize="medium")
        ax.set_yticks(range(len(keys)), [str(key) for key in keys])
        ax.set_ylim(len(keys) - 0.4, -0.6)
        ax.grid(axis="x", alpha=0.3)
        style.value_axis(ax, part[metric], along="x")
        ax.set_xlabel(f"{metric.split('/')[0]} {style.label(style.quantity(metric), part, [metric])}")
    axes[0].set_ylabel(by)
    figure.suptitle(title or style.setting(frame, None))
    mean = Line2D([], [], color="black", marker="|", ms=12, mew=2, lw=2)
    one = Line2D([], [], color="grey", marker="o", ms=4, lw=0)
    style.legend(figure, {"one restart": one, "mean and its 95 % interval": mean}, None)
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
    groups = style.ordered(frame[panels]) if panels else [None]
    keys = style.ordered(frame[by])
    shown = [(group, *column) for group in groups for column in columns.items()]
    figure, axes = style.canvas(len(shown), width=4.0 if len(shown) > 2 else 5.0, share_y=len(columns) == 1)
    handles: dict[str, Line2D] = {}
    apart = np.diff(np.log(np.array(style.ordered(frame[x]), dtype=np.float64))).min(initial=np.inf)
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
            positions = np.array(style.ordered(rows[x]), dtype=np.float64)
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
                means.append([part[0] for part in mean_intervals(finite[None, :], bounds=metric_bounds(column))])
            middle, _, below, above, _ = np.array(means).T
            ax.fill_between(positions * aside, below, above, color=colour, alpha=0.25, lw=0, zorder=1)
            dashes = LINES[place % len(LINES)]
            (line,) = ax.plot(positions * aside, middle, color=colour, ls=dashes, lw=2, marker=marker, ms=6, zorder=3)
            handles[str(key)] = line
        ax.set_xscale("log")
        ticks = np.array(style.ordered(frame[x]), dtype=np.float64)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize="small")
        ax.minorticks_off()
        ax.set_ylim(low - room[0], high + room[1])  # an interval from two restarts may be wider than the figure
        ax.set_xlim(ticks.min() / 1.3, ticks.max() * 1.3)
        ax.set_xlabel(x.replace("_", " "))
        if ax is axes[0] or len(columns) > 1:
            ax.set_ylabel(label)
        ax.grid(axis="y", alpha=0.3)
    style.legend(figure, handles, "points: every restart   line: mean   band: 95 % interval of the mean")
    figure.suptitle(title or style.setting(frame, None))
    return figure


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

    Returns:
        The figure.
    """
    figure, axes = style.canvas(len(columns), share_y=True)
    handles: dict[str, Line2D] = {}
    for ax, (column, name) in zip(axes, columns.items(), strict=True):
        for place, key in enumerate(style.ordered(frame[by])):
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
    style.legend(figure, handles, note)
    figure.suptitle(title or "")
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
    groups, rows, kinds = style.ordered(frame[panels]), style.ordered(frame[by]), style.ordered(frame[series])
    figure, axes = style.canvas(len(groups), height=2.0 + 0.4 * len(rows), width=3.6, share_y=True)
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
    style.legend(figure, handles, f"bars: interval that decides equivalence   shaded: margin of ±{margin:g}")
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
    ax.set_yticks(range(len(keys)), [str(key) for key in keys])
    ax.set_ylim(len(keys) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
    style.legend(figure, {"one simulated net": one, f"central {share:.0%}": band, "published": mark}, None)
    figure.suptitle(title or style.setting(frame, None))
    return figure


def histograms(
    frame: pd.DataFrame, metric: str, panels: str, label: str, marks: str | None = None, title: str | None = None
) -> Figure:
    """Where every restart ends: a histogram with a stroke per restart below it, a panel each, each on its own axis.

    Args:
        frame: one row per restart; a restart whose outcome is not finite has diverged and is counted.
        metric: the column to show.
        panels: the column that tells the panels apart.
        label: of the axis.
        marks: a column with a value to mark, the same in every row of a panel.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    keys = style.ordered(frame[panels])
    figure, axes = style.grid(_counted(frame, metric, panels))
    handles: dict[str, Line2D] = {}
    for ax, key in zip(axes, keys, strict=True):
        part = frame[frame[panels] == key]
        values = part[metric].to_numpy(dtype=np.float64)
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
                handles[marks.replace("_", " ")] = ax.axvline(value, color=COLOURS[1], lw=2, ls="-.", zorder=3)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(label)
    for first in axes[:: style.COLUMNS]:
        first.set_ylabel("restarts")
    style.legend(figure, handles, None)
    figure.suptitle(title or style.setting(frame, None))
    return figure


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

    Returns:
        The figure.
    """
    groups = style.ordered(frame[panels]) if panels else [None]
    if len(groups) < style.COLUMNS:
        figure, axes = style.canvas(len(groups), width=4.2 if len(groups) > 1 else 6.5, share_y=share_y)
    else:
        figure, axes = style.grid([f"{group}".replace("_", " ") if labels[0] else "" for group in groups], share_y)
    handles: dict[str, Line2D] = {}
    keys = style.ordered(frame[by])
    for place, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        part = frame if group is None else frame[frame[panels] == group]
        for number, key in enumerate(keys):
            rows = part[part[by] == key].sort_values(x)
            if rows.empty:
                continue
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
            ax.fill_between(rows[x], rows["low"], rows["high"], alpha=0.2, lw=0, zorder=1, **look)
            marker: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "ms": 5} if len(rows) <= MARKED else {}
            look |= {"ls": LINES[number % len(LINES)], "lw": 1.8, "zorder": 3}
            (handles[str(key)],) = ax.plot(rows[x], rows["estimate"], **look, **marker)
        for number, (name, (positions, heights)) in enumerate((lines or {}).items()):
            (line,) = ax.plot(positions, heights, color="black", lw=1.3, ls=(0, (1 + 3 * number, 1.5)), zorder=2)
            handles[name] = handles.pop(name, line)  # after the series
        for at, value in (references or {}).items():
            (mark,) = ax.plot([float(at)], [value], ls="", marker="D", ms=8, mec="white", color="black", zorder=4)
            handles["published"] = mark
        _settings_axis(ax, part[x].to_numpy(dtype=np.float64), log)
        if log_y:
            _plain_log_axis(ax, along="y")
        if group is not None and labels[0]:
            ax.set_title(f"{group}".replace("_", " "), fontsize="medium")
        ax.set_xlabel(labels[0] or f"{group}")
        ax.grid(alpha=0.3)
        if place % style.COLUMNS == 0:
            ax.set_ylabel(labels[1])
    style.legend(figure, handles, note)
    figure.suptitle(title or "")
    return figure


def scatter(
    frame: pd.DataFrame, x: str, y: str, panels: str, labels: tuple[str, str], title: str | None = None
) -> Figure:
    """Two metrics of every restart against each other, a panel each, each on its own axes.

    Args:
        frame: one row per restart.
        x: the metric along the axis.
        y: the metric up the axis.
        panels: the column that tells the panels apart.
        labels: of the axes.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    keys = style.ordered(frame[panels])
    figure, axes = style.grid(_counted(frame, y, panels))
    for ax, key in zip(axes, keys, strict=True):
        part = frame[frame[panels] == key]
        ax.plot(part[x], part[y], ls="", marker="o", ms=4, mew=0, color=COLOURS[0], alpha=0.5)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        ax.grid(alpha=0.3)
        ax.set_xlabel(labels[0])
    for first in axes[:: style.COLUMNS]:
        first.set_ylabel(labels[1])
    figure.suptitle(title or style.setting(frame, None))
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
    groups = style.ordered(frame[panels])
    first = frame[(frame[panels] == groups[0]) & (frame["work"] == columns[0])].sort_values(value)
    names = list(first[by])
    figure, axes = style.canvas(len(groups), height=1.9 + 0.32 * len(names), share_y=True)
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
    style.legend(figure, handles, "bars: 95 % interval of the median over rounds")
    figure.suptitle(title or "")
    return figure


def _points(ax: Axes, values: ndarray, place: int, metric: str) -> None:
    """Every restart of a series as a point on its row, its mean and interval, and the number of diverged ones."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    finite = np.sort(values[np.isfinite(values)])
    lost = len(values) - len(finite)
    if len(finite):
        jitter = 0.24 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)  # the golden ratio keeps neighbours apart
        ax.plot(finite, place + jitter, ls="", marker=marker, ms=4, mew=0, color=colour, alpha=0.6, zorder=2)
        centre, _, low, high, _ = (part[0] for part in mean_intervals(finite[None, :], bounds=metric_bounds(metric)))
        if np.isfinite(low):
            ax.plot([low, high], [place + 0.27] * 2, color="black", lw=2, zorder=3, solid_capstyle="butt")
        ax.plot([centre], [place + 0.27], marker="|", ms=9, mew=2, color="black", zorder=4)
    if lost:
        note = f"{lost} of {len(values)} diverged"
        ax.annotate(note, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small")


def _plain_log_axis(ax: Axes, along: str = "x") -> None:
    """A log axis with ticks at 1, 2 and 5 times powers of ten, written out."""
    (ax.set_xscale if along == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if along == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _counted(frame: pd.DataFrame, metric: str, panels: str) -> list[str]:
    """A title per panel: its name and how many restarts it shows, or lost."""
    titles = []
    for key in style.ordered(frame[panels]):
        values = frame[frame[panels] == key][metric].to_numpy(dtype=np.float64)
        lost = len(values) - int(np.isfinite(values).sum())
        count = f"{lost} of {len(values)} diverged" if lost else f"{len(values)} restarts"
        titles.append(f"{panels} {key}, {count}")
    return titles


def _bins(values: ndarray) -> ndarray:
    """Edges by Freedman and Diaconis' rule (1981), between 8 and 40 bins."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low + np.array([-0.5, 0.5]) * (abs(low) or 1.0) * 1e-3
    middle = float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    width = 2 * middle / len(values) ** (1 / 3) or high - low
    return np.linspace(low, high, 1 + int(np.clip(np.ceil((high - low) / width), 8, 40)))


def _settings_axis(ax: Axes, values: ndarray, log: bool) -> None:
    """An axis along x that ends at the settings, with a tick at each where they are few."""
    ticks = np.unique(values)
    if log:
        _plain_log_axis(ax)
        ax.set_xlim(ticks.min() / 1.15, ticks.max() * 1.15)
    if len(ticks) <= (FEW_TICKS if log else MARKED):
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
