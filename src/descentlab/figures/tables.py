"""Figures over two settings: a coloured cell for each pair."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from descentlab.analysis.statistics import mean_intervals, metric_bounds
from descentlab.figures import style
from descentlab.figures.pooling import check_pooling
from descentlab.figures.style import COLOURS, LABELS, LINES, words

FEW_TICKS = 6  # of epochs, each of which has a tick


def grid_table(
    frame: pd.DataFrame,
    metric: str = "test/accuracy",
    rows: str = "activation",
    columns: str = "descent",
    panels: str | None = "loss",
    title: str | None = None,
    over: Collection[str] = (),
    caption: str | None = None,
) -> Figure:
    """A grid of cells as a table of coloured means, each with the half width of its 95 % interval.

    Args:
        frame: one row per restart, as from `results.restarts`.
        metric: the column to show.
        rows: the column that makes the table's rows.
        columns: the column that makes its columns.
        panels: the column that makes a table each.
        title: over the figure; None names the cell with the best mean.
        over: columns to average over besides the seeds.
        caption: under the figure; None says data and restarts.
    """
    check_pooling(frame, [rows, columns, panels], over)
    groups = style.ordered(frame[panels]) if panels else [None]
    lines, across = style.ordered(frame[rows]), style.ordered(frame[columns])
    means = np.full((len(groups), len(lines), len(across)), np.nan)
    notes = np.full(means.shape, "", dtype=object)
    for place in np.ndindex(means.shape):
        group, line, column = groups[place[0]], lines[place[1]], across[place[2]]
        chosen = (frame[rows] == line) & (frame[columns] == column)
        if group is not None:
            chosen &= frame[panels] == group
        means[place], notes[place] = _entry(style.drawable(frame[chosen][metric]), metric)
    finite = means[np.isfinite(means)]
    best = np.nanargmin if style.quantity(metric) == "loss" else np.nanargmax
    limits = Normalize(finite.min(initial=np.inf), finite.max(initial=-np.inf)) if len(finite) else Normalize(0, 1)
    height, width = 1.9 + 0.62 * len(lines), 1.5 + 1.35 * len(across)
    figure, axes = style.canvas(len(groups), height, width, share_y=True, labels=lines)
    image = None
    for ax, group, values, texts in zip(axes, groups, means, notes, strict=True):
        image = ax.imshow(values, cmap="cividis", norm=limits, aspect="auto")
        for (line, column), text in np.ndenumerate(texts):
            dark = np.isfinite(values[line, column]) and limits(values[line, column]) < 0.5
            ax.text(column, line, text, ha="center", va="center", color="white" if dark else "black", fontsize="small")
        ax.set_xticks(range(len(across)), [words(name) for name in across])
        ax.set_yticks(range(len(lines)), [words(name) for name in lines])
        ax.set_xlabel(words(columns))
        if group is not None:
            ax.set_title(words(group), fontsize="medium")
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set_visible(False)
    axes[0].set_ylabel(words(rows))
    if image is not None and len(finite):
        bar = figure.colorbar(image, ax=list(axes), pad=0.02)
        bar.set_label(f"{metric.split('/')[0]} {style.label(style.quantity(metric), frame, [metric])}")
    if title is None and len(finite):
        group, line, column = np.unravel_index(best(means), means.shape)
        parts = [lines[line], across[column], *([groups[group]] if panels else [])]
        which = f"{'Lowest' if best is np.nanargmin else 'Highest'} mean {metric.replace('/', ' ')}"
        title = f"{which}:\n{', '.join(words(part) for part in parts)}"
    caption = caption or f"{style.setting(frame, None, over)}, mean ± half of the 95 % interval"
    return style.finish(figure, title or "All restarts diverged", caption=caption)


def phase_map(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    labels: tuple[str, str, str],
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """Means over restarts as a map over two settings, with predicted lines drawn over it.

    Args:
        frame: one row per restart.
        x: the column along the axis; both axes are logarithmic.
        y: the column up the axis.
        value: the column whose mean is shown, 0 to 1.
        lines: name -> positions (x, y) of a predicted line; one that lies outside the map is left out.
        labels: of the axes and of the value.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    check_pooling(frame, [x, y], over)
    figure, axes = style.canvas(1, width=7.5, height=5.2)
    ax = axes[0]
    table = frame.pivot_table(index=y, columns=x, values=value, aggfunc="mean", dropna=False)
    counts = frame.groupby([y, x]).size()
    across, along = table.columns.to_numpy(dtype=float), table.index.to_numpy(dtype=float)
    edges = [np.exp(_edges(np.log(centres))) for centres in (across, along)]
    image = ax.pcolormesh(*edges, table.to_numpy(), cmap="cividis", vmin=0.0, vmax=1.0)
    for (row, column), mean in np.ndenumerate(table.to_numpy()):
        run = (table.index[row], table.columns[column]) in counts.index
        text = f"{mean:.2f}" if np.isfinite(mean) else "diverged" if run else "not run"
        colour = "white" if mean < 0.5 else "black"
        ax.text(across[column], along[row], text, color=colour, ha="center", va="center", fontsize="small", zorder=5)
    handles: dict[str, Line2D] = {}
    for place, (name, (positions, heights)) in enumerate(lines.items()):
        if not _meets(edges, positions, heights):
            continue
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
    return style.finish(figure, title, handles, caption=style.setting(frame, None, over))


def heat_maps(
    frame: pd.DataFrame,
    quantity: str = "delta_norm",
    by: str = "cell",
    title: str | None = None,
    over: Collection[str] = (),
) -> Figure:
    """A norm by layer and epoch as colour, a panel per series: the mean of its decimal logarithm over restarts above 0.

    Args:
        frame: long, as from `results.curves`, with metrics delta_norm/layer_1 and so on; layer 1 touches the input.
        quantity: delta_norm, gradient_norm or any other section with a value above 0 per layer.
        by: the column that tells the panels apart.
        title: over the figure; None says data and restarts.
        over: columns to average over besides the seeds.
    """
    prefix = f"{quantity}/layer_"
    frame = frame[frame["metric"].str.startswith(prefix)]
    frame = frame.assign(layer=frame["metric"].str.removeprefix(prefix).astype(int))
    check_pooling(frame, [by, "layer", "epoch"], over)
    values = style.drawable(frame["value"])
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = frame.assign(value=values, log=np.where(values > 0, np.log10(values), np.nan))
    keys = style.ordered(frame[by])
    groups = frame.groupby([by, "layer", "epoch"])
    means = groups["log"].mean().where(groups["value"].max() != 0, -np.inf)
    levels = means[np.isfinite(means)]
    low, high = (levels.min(), levels.max()) if len(levels) else (0.0, 1.0)
    colours = colormaps["cividis"].with_extremes(bad="#dddddd", under="black")
    figure, axes = style.canvas(len(keys), width=3.3, share_y=True)
    image: Any = None
    for ax, key in zip(axes, keys, strict=True):
        table = means[key].unstack("epoch").clip(lower=low - 1.0)
        look: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
        image = ax.imshow(table, cmap=colours, norm=Normalize(low, high), **look)
        epochs = table.columns.to_numpy(dtype=np.float64)
        ticks = epochs
        if len(epochs) > FEW_TICKS:
            ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(epochs[0], epochs[-1])
            ticks = ticks[(ticks >= epochs[0]) & (ticks <= epochs[-1])]
        ax.set_xticks(np.interp(ticks, epochs, np.arange(len(epochs))), [f"{tick:g}" for tick in ticks])
        ax.set_yticks(range(len(table.index)), [str(layer) for layer in table.index])
        ax.set_xlabel("epoch")
        ax.set_title(words(key), fontsize="medium")
        ax.tick_params(length=0)
    axes[0].set_ylabel("layer (1 touches the input)")
    zero, lost = bool((means == -np.inf).any()), bool(means.isna().any())
    bar = figure.colorbar(image, ax=list(axes), pad=0.02, extend="min" if zero else "neither")
    bar.set_label(f"log₁₀ {LABELS.get(quantity, quantity)}")
    caption = "   ".join([style.setting(frame, None, over), *["black: zero"] * zero, *["grey: diverged"] * lost])
    return style.finish(figure, title, caption=caption)


def slices(
    frame: pd.DataFrame, rows: str, columns: str, value: str, labels: tuple[str, str], title: str | None = None
) -> Figure:
    """A value on planes as filled contours at even steps of its logarithm, one scale for all; marked points on top.

    Args:
        frame: one row per point of a grid, x, y and the value, above 0; rows with a number as `end` are marked points.
        rows: the column that makes a row of panels each.
        columns: the column that makes a column of panels each.
        value: the column to show.
        labels: of all axes, and of the value.
        title: over the figure.
    """
    lines, across = style.ordered(frame[rows]), style.ordered(frame[columns])
    marked = frame["end"].notna()
    points = frame[~marked]
    levels = np.geomspace(points[value].min(), points[value].max(), 33)
    figure, axes = style.canvas(len(across), 3.5, 4.2, rows=len(lines))
    for ax, (line, column) in zip(axes, ((line, column) for line in lines for column in across), strict=True):
        here = (frame[rows] == line) & (frame[columns] == column)
        grid = points[here[~marked]].pivot_table(index="y", columns="x", values=value)
        look: dict[str, Any] = {"levels": levels, "norm": LogNorm(levels[0], levels[-1])}
        image = ax.contourf(grid.columns, grid.index, grid, cmap="cividis_r", extend="both", **look)
        ax.contour(grid.columns, grid.index, grid, colors="black", linewidths=0.25, alpha=0.5, **look)
        for end in frame[marked & here].itertuples():
            ax.plot([end.x], [end.y], ls="", marker="o", ms=6, color="white", mec="black", zorder=4)
            ax.annotate(f"{end.end:g}", (end.x, end.y),
                        xytext=(5, 5), textcoords="offset points", fontsize="small", color="black",
                        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.0})  # fmt: skip
        ax.set_title(f"{words(rows)} {words(line)}, {words(column)}", fontsize="medium")
        ax.set_aspect("equal")
    bar = figure.colorbar(image, ax=axes, pad=0.02, format="%.2g")
    bar.set_label(labels[1])
    figure.supxlabel(labels[0], fontsize="medium")
    return style.finish(figure, title)


def _entry(values: ndarray, metric: str) -> tuple[float, str]:
    """A cell's mean, and what is written on it."""
    if not len(values):
        return np.nan, "not run"
    mean, _, low, high, n = (float(part[0]) for part in mean_intervals(values[None, :], bounds=metric_bounds(metric)))
    lost = len(values) - n
    if not n:
        return np.nan, "all diverged" if len(values) > 1 else "diverged"
    text = f"{mean:.3g}" if not np.isfinite(low) else f"{mean:.3f}\n± {(high - low) / 2:.3f}"
    return mean, text + (f"\n{lost:.0f} diverged" if lost else "")


def _meets(edges: Sequence[ndarray], positions: Sequence[float], heights: Sequence[float]) -> bool:
    """Whether a point of a line lies within the edges (x, y) of a map."""
    across, up = np.asarray(positions), np.asarray(heights)
    inside = (across >= edges[0][0]) & (across <= edges[0][-1]) & (up >= edges[1][0]) & (up <= edges[1][-1])
    return bool(inside.any())


def _edges(centres: ndarray) -> ndarray:
    """Where cells around these centres meet: (n + 1,)."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middles = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])
