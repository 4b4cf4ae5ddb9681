"""How much memory a sweep needs, and how much there is: too much is refused before anything trains.

What grows with restarts are their weights (first and last, and an update rule's state while a cell trains), their
curves and, where results are stored, the table that the cell's figures are drawn from. Buffers of the trainer do not
grow: it trains chunks. All cells of a sweep stay in memory until it ends.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from descentlab.config.cells import Cell
from descentlab.nn.metrics import metrics_of
from descentlab.nn.parameters import parameter_count
from descentlab.tracking.trained_cell import FIGURE_POINTS
from descentlab.values import InputError

LAYER_METRICS = {"none": 0, "basic": 3, "full": 9}  # of a level of diagnostics, per layer
FIGURE_BYTES = 220  # per value of a restart's losses and scores: rows of a long table, its parts and its lines


def needed(train: Sequence[Cell], read: Sequence[Cell] = ()) -> int:
    """Bytes that a sweep holds at most.

    Args:
        train: cells to train.
        read: cells that are stored already.
    """
    sizes = [_sizes(cell) for cell in train]
    held = sum(held for held, _ in sizes) + sum(_sizes(cell)[0] for cell in read)
    return held + max((more for _, more in sizes), default=0)


def _sizes(cell: Cell) -> tuple[int, int]:
    """Bytes of a cell's results, and what it needs beside them until it is done."""
    recipe, restarts = cell.recipe, cell.config.restarts
    weights = parameter_count(recipe.layers) * np.dtype(recipe.dtype).itemsize
    points = len(recipe.logged_epochs())
    scores, norms = metric_counts(cell)
    curves = 8 * points * (scores + norms)
    figures = FIGURE_BYTES * min(points, FIGURE_POINTS) * scores if cell.config.tracking.name != "none" else 0
    training = len(recipe.update.slots) * weights + curves  # records, before they are curves
    return restarts * (2 * weights + curves), restarts * max(training, figures)


def metric_counts(cell: Cell) -> tuple[int, int]:
    """How many losses and scores a cell measures, and how many metrics of layers."""
    scores = len(cell.dataset.rows) * (1 + len(metrics_of(cell.dataset.task)))
    return scores, LAYER_METRICS[cell.recipe.diagnostics] * (len(cell.recipe.layers) - 1)


def available() -> int | None:
    """Bytes of memory that are free for this process; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # of a container
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return min(free, limit - used)


def check(train: Sequence[Cell], read: Sequence[Cell] = ()) -> None:
    """Refuse cells that need more memory than is free; arguments as for `needed`.

    Raises:
        InputError: with the restarts that fit.
    """
    free, wanted = available(), needed(train, read)
    if free is None or wanted <= free:
        return
    from rich.filesize import decimal

    largest = max(train, key=lambda cell: sum(_sizes(cell))).config
    fit = largest.restarts * free // wanted
    cells, each = ("needs", "") if len(train) == 1 else (f"{len(train)} cells need", " in each cell")
    remedy = "use fewer hidden units, or dtype=float32"
    if fit:
        remedy = f"restarts={fit}{each} fits; train the others by a further command, from seed={largest.seed + fit}"
    sizes = f"{decimal(wanted)} of memory, and {decimal(free)} is free"
    raise InputError(f"restarts={largest.restarts}: {cells} about {sizes}; {remedy}")
