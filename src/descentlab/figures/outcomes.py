"""Figures of the outcomes of restarts: their shares as bars, and every final value as a point."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from descentlab.analysis.statistics import wilson
from descentlab.figures import style
from descentlab.figures.pooling import check_pooling
from descentlab.figures.style import COLOURS, MARKERS, words

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
WRITTEN = 0.13  # share of a bar from which its number fits inside


def shares(
    frame: pd.DataFrame,
    kind: str,
    by: str,
    panels: str | None = None,
    kinds: Sequence[Hashable] | None = None,
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """The number and share of restarts with each outcome, a bar per series, with the interval of the first share.

    Args:
        frame: one row per restart.
        kind: the column of the outcome.
        by: the column that makes the bars.
        panels: the column that tells the panels apart.
        kinds: the values of `kind` from left to right; None takes them as they come.
        title: over the figure; None says data and restarts.
        over: columns to pool besides the seeds.
    """
    check_pooling(frame, [by, panels, kind], over, seeds=False)
    groups = style.groups(frame, panels, named=False)
    names, present = style.ordered(frame[by]), style.ordered(frame[kind])
    shown = [one for one in kinds if one in present] if kinds is not None else present
    figure, axes = style.canvas(len(groups), 2.1 + 0.5 * len(names), width=4.8, share_y=True, labels=names)
    looks = {one: (COLOURS[place % 8], HATCHES[place % 8]) for place, one in enumerate(shown)}
    for ax, (panel, part) in zip(axes, groups, strict=True):
        ax.set_title(panel, fontsize="medium")
        for row, name in enumerate(names):
            ended = part[part[by] == name][kind]
            _bar(ax, row, {one: int((ended == one).sum()) for one in shown}, len(ended), looks)
        ax.set_yticks(range(len(names)), [words(name) for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of restarts")
    handles = {words(one): Patch(facecolor=c, hatch=h, edgecolor="white") for one, (c, h) in looks.items()}
    note = f"|–|: 95 % interval (Wilson) of “{words(shown[0])}”" if shown else None
    return style.finish(figure, title, handles, note, caption=style.setting(frame, None, over))


def _bar(ax: Axes, row: int, counts: dict[Hashable, int], total: int, looks: dict[Hashable, tuple[str, str]]) -> None:
    """One bar: a piece per kind with its count and share, and the interval of the first share."""
    box = {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1.2}
    centre: Any = {"ha": "center", "va": "center", "fontsize": "x-small"}
    if not total:
        ax.text(0.5, row, "no restarts", color="#666666", **centre)
        return
    left = 0.0
    for one, count in counts.items():
        share = count / total
        colour, hatch = looks[one]
        ax.barh(row, share, left=left, height=0.8, color=colour, hatch=hatch, edgecolor="white", lw=0.8)
        if share >= WRITTEN:
            ax.text(left + share / 2, row - 0.2, f"{share:.0%}", bbox=box, **centre)
            ax.text(left + share / 2, row + 0.06, f"{count} of {total}", bbox=box, **centre)
        left += share
    first = wilson(next(iter(counts.values())), total)
    reach = [[max(first.estimate - first.low, 0)], [max(first.high - first.estimate, 0)]]
    for colour, width in (("white", 3.5), ("black", 1.5)):
        ax.errorbar(first.estimate, row + 0.3, xerr=reach, color=colour, lw=width, capsize=2.5, capthick=width)


def ends(
    frame: pd.DataFrame,
    metrics: str | Sequence[str],
    kind: str = "outcome",
    by: str | None = None,
    label: str | None = None,
    title: str | None = None,
) -> Figure:
    """Every restart's final value as a point in the colour and marker of its outcome; those without one are counted.

    Args:
        frame: one row per restart.
        metrics: the column to show, or several, a panel each.
        kind: the column of the outcome.
        by: the column that makes the rows; None gives every kind a row.
        label: of the axis; None names the metric.
        title: over the figure; None says data and restarts.
    """
    shown = [metrics] if isinstance(metrics, str) else list(metrics)
    rows, kinds = style.ordered(frame[by or kind]), style.ordered(frame[kind])
    width = 7.0 if len(shown) == 1 else 4.6
    figure, axes = style.canvas(len(shown), 1.9 + 0.45 * len(rows), width=width, share_y=True, labels=rows)
    looks: dict[Hashable, dict[str, Any]] = {
        one: {"color": COLOURS[place % 8], "marker": MARKERS[place % 8], "ms": 4.5, "mew": 0}
        for place, one in enumerate(kinds)
    }
    for ax, metric in zip(axes, shown, strict=True):
        values = pd.Series(style.drawable(frame[metric]), index=frame.index)
        for height, row in enumerate(rows):
            here = frame[by or kind] == row
            for one in kinds:
                ended = values[here & (frame[kind] == one)].to_numpy()
                jitter = 0.6 * (np.arange(len(ended)) * 0.618 % 1 - 0.5)  # the golden ratio keeps neighbours apart
                finite = np.isfinite(ended)
                ax.plot(ended[finite], height + jitter[finite], ls="", alpha=0.6, **looks[one])
                beside: Any = {"transform": ax.get_yaxis_transform(), "clip_on": False, "alpha": 0.6, "s": 20, "lw": 0}
                look = {"color": looks[one]["color"], "marker": looks[one]["marker"]}
                ax.scatter(np.full((~finite).sum(), 1.02), height + jitter[~finite], **beside, **look)
            lost = int(values[here].isna().sum())
            if lost:
                note = f"{lost} of {here.sum()} without a value"
                spot: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": "small"}
                ax.annotate(note, (1.04, height), **spot)
        ax.grid(axis="x", alpha=0.3)
        style.value_axis(ax, frame[metric], along="x")
        quantity = style.label(style.quantity(metric), frame, [metric])
        ax.set_xlabel(label or f"{metric.split('/')[0]} {quantity}")
    axes[0].set_yticks(range(len(rows)), [words(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    if by:
        axes[0].set_ylabel(words(by))
    counts = frame[kind].value_counts()
    handles = {f"{words(one)} ({counts[one]})": Line2D([], [], ls="", **look) for one, look in looks.items()}
    return style.finish(figure, title, handles, "every restart a point", caption=style.setting(frame, None))
