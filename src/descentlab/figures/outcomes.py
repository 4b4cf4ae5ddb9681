"""What restarts ended in: its shares as bars, and every end as a point."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from descentlab.figures import style
from descentlab.figures.style import COLOURS, MARKERS

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
WRITTEN = 0.06  # share of a bar from which its number fits inside


def shares(
    frame: pd.DataFrame,
    kind: str,
    by: str,
    panels: str | None = None,
    kinds: Sequence[Hashable] | None = None,
    title: str | None = None,
) -> Figure:
    """What share of the restarts ended in what, a bar per series.

    Args:
        frame: one row per restart.
        kind: the column that says what it ended in.
        by: the column that makes the bars.
        panels: the column that tells the panels apart.
        kinds: the values of `kind` from left to right; None takes them as they come.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
    """
    groups = style.ordered(frame[panels]) if panels else [None]
    names, present = style.ordered(frame[by]), style.ordered(frame[kind])
    shown = [one for one in kinds if one in present] if kinds is not None else present
    figure, axes = style.canvas(len(groups), 1.8 + 0.34 * len(names), width=4.8, share_y=True, labels=names)
    looks = {one: (COLOURS[place % 8], HATCHES[place % 8]) for place, one in enumerate(shown)}
    for ax, group in zip(axes, groups, strict=True):
        part = frame if group is None else frame[frame[panels] == group]
        counts = part.groupby([by, kind], sort=False).size()
        for row, name in enumerate(names):
            total, left = int((part[by] == name).sum()), 0.0
            for one in shown:
                share = counts.get((name, one), 0) / max(total, 1)
                colour, hatch = looks[one]
                ax.barh(row, share, left=left, height=0.8, color=colour, hatch=hatch, edgecolor="white", lw=0.8)
                if share >= WRITTEN:
                    box = {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1.2}
                    centre: Any = {"ha": "center", "va": "center", "fontsize": "small", "bbox": box}
                    ax.text(left + share / 2, row, f"{share:.0%}", **centre)
                left += share
        if group is not None:
            ax.set_title(f"{group}".replace("_", " "), fontsize="medium")
        ax.set_yticks(range(len(names)), [str(name) for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("share of restarts")
    handles = {str(one): Patch(facecolor=c, hatch=h, edgecolor="white") for one, (c, h) in looks.items()}
    style.legend(figure, handles, None)
    figure.suptitle(title or style.setting(frame, None))
    return figure


def ends(
    frame: pd.DataFrame,
    metrics: str | Sequence[str],
    kind: str = "outcome",
    by: str | None = None,
    label: str | None = None,
    title: str | None = None,
) -> Figure:
    """Every restart's final value as a point, coloured and shaped by what it ended in; lost ones are counted.

    Args:
        frame: one row per restart.
        metrics: the column to show, or several, a panel each.
        kind: the column that says what a restart ended in.
        by: the column that makes the rows; None gives every kind a row.
        label: of the axis; None names the metric.
        title: over the figure; None says data and restarts.

    Returns:
        The figure.
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
        for one in kinds:
            for height, row in enumerate(rows):
                values = frame[(frame[by or kind] == row) & (frame[kind] == one)][metric].to_numpy(dtype=np.float64)
                finite = values[np.isfinite(values)]
                jitter = 0.6 * (np.arange(len(finite)) * 0.618 % 1 - 0.5)  # the golden ratio keeps neighbours apart
                ax.plot(finite, height + jitter, ls="", alpha=0.6, **looks[one])
                if len(values) and not len(finite):
                    spot: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": "small"}
                    ax.annotate("no finite value", (0.02, height), **spot)
        ax.grid(axis="x", alpha=0.3)
        style.value_axis(ax, frame[metric], along="x")
        quantity = style.label(style.quantity(metric), frame, [metric])
        ax.set_xlabel(label or f"{metric.split('/')[0]} {quantity}")
    axes[0].set_yticks(range(len(rows)), [str(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    if by:
        axes[0].set_ylabel(by.replace("_", " "))
    counts = frame[kind].value_counts()
    handles = {f"{one} ({counts[one]})": Line2D([], [], ls="", **look) for one, look in looks.items()}
    style.legend(figure, handles, "every restart a point")
    figure.suptitle(title or style.setting(frame, None))
    return figure
