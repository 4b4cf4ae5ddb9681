"""Colours, markers, names and layout that all figures share.

Colours are Okabe and Ito's (2008). Line styles, markers and hatches tell series apart without colour. Figures use
matplotlib's objects and not pyplot, whose global state is not safe in threads.
"""

import re
import textwrap
import threading
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from descentlab.data import SPLITS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
COLUMNS = 4  # small panels in a row
DECADES = 30.0  # values whose largest is more than this many times the smallest are shown on a log axis
LARGEST = 1e100  # beyond it a value is not drawn: limits and ticks around it overflow
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

WORDS = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "lecun_normal": "LeCun (normal)",
    "lecun_uniform": "LeCun (uniform)",
    "glorot_normal": "Glorot (normal)",
    "glorot_uniform": "Glorot (uniform)",
    "he_normal": "He (normal)",
    "he_uniform": "He (uniform)",
    "binary_cross_entropy": "binary cross-entropy",
    "categorical_cross_entropy": "categorical cross-entropy",
    "mini_batch": "mini-batch",
    "sw2": "variance of weights",
}

_drawing = threading.Lock()  # matplotlib's text machinery is shared


def save(figure: Figure, path: str | Path, dpi: int = 150, last: bool = False) -> None:
    """Write a figure in the format that the path's ending names; safe from any thread.

    Args:
        figure: the figure to write.
        path: of the file.
        dpi: of a PNG.
        last: whether the figure is written this once only; it is then laid out once and not twice, which saves time.
    """
    options: dict[str, Any] = {"dpi": dpi}
    if str(path).endswith((".svg", ".pdf")):  # without a date, so that the same figure is the same file
        options["metadata"] = {"Date": None} if str(path).endswith(".svg") else {"CreationDate": None}
    elif str(path).endswith(".png"):
        options["pil_kwargs"] = {"compress_level": 3}  # a third of the time of the default, for 1.2 of the size
    with _drawing, rc_context({"svg.hashsalt": "descentlab"}):  # ids that are not random
        layout = figure.get_layout_engine()
        if last and layout is not None:
            figure.set_dpi(dpi)
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(path, **options)


def words(value: Any) -> str:
    """A name or a value as it is read: `leaky_relu, he_normal` is "leaky ReLU, He (normal)"."""
    return re.sub(r"[^\s,]+", lambda part: WORDS.get(part.group(), part.group()).replace("_", " "), str(value))


def drawable(values: Any) -> ndarray:
    """Values as float64, NaN for those that cannot be drawn: not finite, or beyond LARGEST."""
    array = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(array) <= LARGEST, array, np.nan)


def canvas(
    panels: int,
    height: float = 4.2,
    width: float = 5.0,
    share_y: bool = False,
    labels: Iterable[Hashable] = (),
    rows: int = 1,
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `rows` rows of panels, sizes of each in inches, with room for the names beside the first panel."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06)  # inches; a tick's label may be wider than its axis
    margin = 0.085 * max((len(str(label)) for label in labels), default=0)  # names beside the first panel
    figure = Figure(figsize=(max(5.5, width * panels + margin), rows * height), layout=layout)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, panels, squeeze=False, sharey=share_y).ravel())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def grid(titles: Sequence[str], share_y: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """A figure of small panels with these titles, COLUMNS in a row; returns the axes that have a title."""
    width = max(3.1, 0.085 * max(len(title) for title in titles))
    figure, axes = canvas(min(COLUMNS, len(titles)), 2.6, width, share_y, rows=-(-len(titles) // COLUMNS))
    for ax in axes[len(titles) :]:
        ax.remove()
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize="medium")
    return figure, axes[: len(titles)]


def finish(
    figure: Figure,
    title: str | None,
    handles: Mapping[str, Artist] | None = None,
    note: str | None = None,
    caption: str = "",
) -> Figure:
    """Give a figure its title, and below all panels a caption and a legend under a line on how to read the marks.

    The title says what was found, the caption in which setting; without a title the caption stands in its place.
    """
    letters = int(figure.get_figwidth() / 0.105)  # of a line of the title
    figure.suptitle("\n".join(textwrap.fill(line, letters) for line in (title or caption).splitlines()))
    below = [text for text in (caption if title else "", note) if text]
    if not handles and below:
        figure.supxlabel("\n".join(below), fontsize="small", color="#444444")
    if handles:
        widest = 0.7 + 0.095 * max(len(name) for name in handles)  # inches of an entry, line and gap included
        columns = min(4, len(handles), max(1, int(figure.get_figwidth() / widest)))
        shown = figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            title="\n".join(below),
        )
        shown.get_title().set_fontsize("small")
        shown.get_title().set(color="#444444", ha="center")
    return figure


def epoch_axis(ax: Axes) -> None:
    """An axis of epochs, with ticks at whole round numbers."""
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def band(ax: Axes, x: Any, low: Any, high: Any, colour: str, alpha: float) -> None:
    """Intervals along an axis as a band, and as a bar where there is one position, at which a band has no width."""
    if len(x) > 1:
        ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0, zorder=1)
    else:
        ax.vlines(x, low, high, color=colour, alpha=0.5, lw=5, zorder=1)


def value_axis(ax: Axes, values: Iterable[float], along: str = "y") -> None:
    """A log axis where values span decades."""
    finite = drawable(list(values))
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0 and finite.max() > DECADES * finite.min():
        (ax.set_yscale if along == "y" else ax.set_xscale)("log")
        low = finite.min() / 1.3  # an interval around a mean may reach below 0
        current = ax.get_ylim() if along == "y" else ax.get_xlim()
        (ax.set_ylim if along == "y" else ax.set_xlim)(low, max(current[1], finite.max() * 1.3))


def ordered(values: "pd.Series[Any]") -> list[Hashable]:
    """Distinct values: numbers in ascending order, names in the order of their first row."""
    distinct = list(dict.fromkeys(values))
    return sorted(distinct) if pd.api.types.is_numeric_dtype(values) else distinct


def groups(frame: pd.DataFrame, panels: str | None, named: bool = True) -> list[tuple[str, pd.DataFrame]]:
    """The title and the rows of every panel; one without a title where no column tells panels apart."""
    if panels is None:
        return [("", frame)]
    start = f"{words(panels)}: " if named else ""
    return [(start + words(key), frame[frame[panels] == key]) for key in ordered(frame[panels])]


def table(rows: pd.DataFrame, axis: str, over: Collection[str] = ()) -> tuple[ndarray, ndarray]:
    """Positions (P,) and values (P, R), a column per restart of each run and of each value of what is averaged over."""
    keys = [key for key in ("run_id", "seed", *over) if key in rows.columns]
    wide = rows.set_index([axis, *keys])["value"].unstack(keys).sort_index()
    return wide.index.to_numpy(), wide.to_numpy(dtype=np.float64)


def quantity(metric: str) -> str:
    """The name of what a metric measures, without its split or layer."""
    head, _, tail = metric.partition("/")
    return tail if head in SPLITS else head


def label(panel: str, frame: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A panel's quantity in words, after its split where only one is drawn."""
    name = quantity(panel)
    if name == "loss" and "loss" in frame.columns:
        losses = frame["loss"].unique()
        if len(losses) == 1:
            name = str(losses[0])
    text = LABELS.get(name, name)
    return text if panel in (name, "loss") or len(metrics) > 1 else f"{panel.split('/')[0]} {text}"


def setting(frame: pd.DataFrame, by: str | None, over: Collection[str] = ()) -> str:
    """What a figure shows: cell and data where there is one of them, the number of restarts, what is averaged over."""
    parts = []
    if by is not None and frame[by].nunique() == 1:
        parts.append(words(frame[by].iloc[0]))
    if "data" in frame.columns and frame["data"].nunique() == 1:
        parts.append(str(frame["data"].iloc[0]))
    keys = [key for key in ("run_id", "cell") if key in frame.columns][:1]
    if "seed" not in frame.columns:
        return ", ".join(parts)
    counts = frame.groupby(keys)["seed"].nunique() if keys else pd.Series([frame["seed"].nunique()])
    few, many = int(counts.min()), int(counts.max())
    count = f"{few}" if few == many else f"{few} to {many}"
    restarts = f"{count} restart" + ("" if many == 1 else "s")
    parts.append(restarts + (" per cell" if len(counts) > 1 else ""))
    parts += [f"over {frame[name].nunique()} values of {words(name)}" for name in over]
    return ", ".join(parts)
