"""`descentlab plan`: cells to train, cells already stored, and the time, memory and disk space of the rest."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from descentlab.cli.output import filesize
from descentlab.config.cells import Cell, different
from descentlab.config.cells import cells as made
from descentlab.config.configuration import Config
from descentlab.nn.memory import chunks
from descentlab.nn.parameters import parameter_count
from descentlab.nn.recipe import Trainer
from descentlab.nn.trainer import train_recipe
from descentlab.sweeps import capacity
from descentlab.tracking import NoStore, StoredRun, find
from descentlab.tracking.reading import reading
from descentlab.tracking.store import check_form
from descentlab.tracking.tables import own_runs
from descentlab.tracking.trained_cell import CELL_POINTS, CHILD_LAYER_POINTS, CHILD_POINTS
from descentlab.tracking.trainings import WEIGHTS_LIMIT
from descentlab.values import Option

READ = 200  # of the newest stored cells, whose files are measured
ROW_BYTES = 350  # of a metric's row in SQLite, with its share of indices, params and tags; a test measures it
FIGURES_BYTES = 120_000  # of a cell's figures and tables without a row; the same test measures them


def plan(configs: Sequence[Config], option: Option, trainer: Trainer | None = None) -> str:
    """Estimate a sweep: cells to train, cells already stored, time, memory and disk space.

    Args:
        configs: of the sweep.
        option: names the store, which need not exist yet.
        trainer: would train the cells; None for the package's own.

    Raises:
        InputError: a cell that cannot run, or a store that exists and cannot be read.
    """
    wanted = different(made(configs, trainer=trainer))
    kept = _finished(option) if any(config.resume for config in configs) else []
    keys = {run.key for run in kept}
    there = [cell for cell in wanted if cell.key in keys]
    missing = [(cell, _missing(cell, kept)) for cell in wanted if cell.key not in keys]
    partly = sum(0 < left < cell.config.restarts for cell, left in missing)
    total, to_train = sum(cell.config.restarts for cell in wanted), sum(left for _, left in missing)
    lines = [
        f"cells     {len(wanted)}: {len(there)} stored already, {partly} partly, {len(missing) - partly} to train",
        f"restarts  {total}: {total - to_train} stored already, {to_train} to train",
    ]
    if not missing:
        return "\n".join([*lines, "time      a few seconds: nothing is trained"])
    seconds, sources = _estimated_seconds(missing, kept)
    lines.append(f"time      about {_duration(seconds)} of training, from {sources}")
    lines.append(_memory([cell for cell, _ in missing], there))
    if option.name != "none":
        size, measured = _estimated_bytes(missing, kept)
        lines.append(f"disk      about {filesize(size)}, {measured}")
    return "\n".join(lines)


def _memory(missing: Sequence[Cell], there: Sequence[Cell]) -> str:
    """The memory that this process needs, and what is free."""
    if missing[0].config.launcher.name != "none":
        return "memory    of the launcher's workers"
    needed, free = capacity.needed(missing, there), capacity.available()
    told = f"memory    about {filesize(needed)}"
    if free is None:
        return told
    refused = ": too much, the command would be refused" if needed > free else ""
    return f"{told} of {filesize(free)} that is free{refused}"


def _finished(option: Option) -> list[StoredRun]:
    """Finished cells; none without a store."""
    if option.name == "none":
        return []
    try:
        check_form(reading(option))
        return find(option, "cell")
    except NoStore:
        return []


def _missing(cell: Cell, kept: Sequence[StoredRun]) -> int:
    """How many restarts of a cell no finished run has."""
    wanted = range(cell.config.seed, cell.config.seed + cell.config.restarts)
    held: set[int] = set()
    for run in kept:
        if run.family == cell.family:
            held.update(range(max(run.seed, wanted.start), min(run.seed + run.restarts, wanted.stop)))
    return len(wanted) - len(held)


def _estimated_seconds(missing: Sequence[tuple[Cell, int]], kept: Sequence[StoredRun]) -> tuple[float, str]:
    """Seconds of training, and the source of the estimate."""
    known: dict[tuple[Any, ...], list[StoredRun]] = {}
    for run in kept:
        if math.isfinite(run.seconds):
            known.setdefault(_alike(run.params), []).append(run)
    timed: dict[tuple[Any, ...], float] = {}
    total, told = 0.0, Counter[str]()
    for cell, restarts in missing:
        alike, stack = _alike(_params(cell.config)), _stack(cell)
        each = sorted(
            run.seconds / (run.epochs * run.restarts)
            for run in known.get(alike, ())
            if _near(min(run.restarts, stack), min(cell.config.restarts, stack))
        )
        if each:
            second = each[len(each) // 2]
            told["finished"] += 1
        else:
            shape = (alike, cell.config.epochs, min(cell.config.restarts, stack))
            timed[shape] = timed[shape] if shape in timed else _timed(cell)
            second = timed[shape]
            told["timed"] += 1
        total += second * cell.config.epochs * restarts
    named = {"finished": "finished cells of the same kind", "timed": "a few epochs timed now"}
    return total, "; ".join(f"{named[kind]} (for {count} of {len(missing)})" for kind, count in told.items())


def _near(a: int, b: int) -> bool:
    """Whether a restart costs about the same in cells of `a` and of `b` restarts."""
    return max(a, b) <= 2 * min(a, b)


def _params(cell: Config) -> dict[str, str]:
    from descentlab.tracking.params import params

    return params(cell)


def _shape(params: Mapping[str, str]) -> tuple[Any, ...]:
    """What the size of a restart's files depends on."""
    return tuple(params.get(key) for key in ("data", "hidden", "dtype", "epochs"))


def _alike(params: Mapping[str, str]) -> tuple[Any, ...]:
    """What the time of an epoch depends on."""
    told = ("data", "hidden", "descent", "batch_size", "update", "activation", "dtype")
    return tuple(params.get(key) for key in told) + tuple(params.get(key) for key in sorted(params) if "data." in key)


def _stack(cell: Cell) -> int:
    """Restarts in two chunks of a cell; with more restarts, each costs the same."""
    recipe = cell.recipe
    batch = recipe.descent.steps(len(cell.dataset.rows["train"]))[0][1]
    return 2 * max(part.stop - part.start for part in chunks(10**6, recipe.layers, batch, recipe.dtype, workers=1))


def _timed(cell: Cell) -> float:
    """Seconds of an epoch of one restart, its share of the logged epochs included.

    Measured is one epoch of at most two chunks of restarts. Where that is less than a hundredth of the work, eight
    epochs more tell what is done once, per epoch, and per logged epoch.
    """
    config, recipe = cell.config, cell.recipe
    restarts = min(config.restarts, _stack(cell))

    def seconds(epochs: int) -> float:
        short = replace(recipe, epochs=epochs, restarts=restarts, log_every=epochs, learning_rate=1e-6)
        return train_recipe(short, cell.dataset.splits, config.workers).seconds  # type: ignore[arg-type]

    first = seconds(1)
    if config.epochs * config.restarts < 100 * restarts:
        return first / restarts
    short, long = min(seconds(1), seconds(1)), min(seconds(3), seconds(3))  # two logged epochs each
    epoch = max((long - short) / 2, 1e-9)
    logged = max(short - epoch, 0.0) / 2
    return (epoch * config.epochs + logged * len(recipe.logged_epochs())) / config.epochs / restarts


def _estimated_bytes(missing: Sequence[tuple[Cell, int]], kept: Sequence[StoredRun]) -> tuple[float, str]:
    """Bytes on disk of the runs to come, and the source of the estimate."""
    known: dict[tuple[Any, ...], list[StoredRun]] = {}
    for run in kept[-READ:]:
        known.setdefault(_shape(run.params), []).append(run)
    total, told = 0.0, 0
    for cell, restarts in missing:
        near = [run for run in known.get(_shape(_params(cell.config)), ()) if _near(run.restarts, cell.config.restarts)]
        sizes = [sum(run.artifacts().values()) / run.restarts * cell.config.restarts for run in near[-10:]]
        total += sum(sizes) / len(sizes) if sizes else _artifact_bytes(cell)
        total += ROW_BYTES * _rows(cell, restarts)
        told += bool(sizes)
    if not told:
        return total, "computed from the sizes of weights and curves"
    return total, f"measured on stored cells (for {told} of {len(missing)})"


def _artifact_bytes(cell: Cell) -> float:
    """Bytes of a cell's weights, curves and figures."""
    recipe, restarts = cell.recipe, cell.config.restarts
    weights = 2 * parameter_count(recipe.layers) * np.dtype(recipe.dtype).itemsize
    kept = weights * restarts if weights * restarts <= WEIGHTS_LIMIT else weights
    scores, norms = capacity.metric_counts(cell)
    return kept + 8 * (scores + norms) * (len(recipe.logged_epochs()) + 1) * restarts + FIGURES_BYTES


def _rows(cell: Cell, restarts: int) -> int:
    """Rows of metrics in the database: of a cell, and of its new restarts that get runs of their own."""
    scores, norms = capacity.metric_counts(cell)
    points = len(cell.recipe.logged_epochs())
    children = own_runs(cell.config.restarts, str(cell.config.tracking.numbers.get("children", "auto")))
    each = min(points, CHILD_POINTS) * scores + min(points, CHILD_LAYER_POINTS) * norms
    statistics = 8 if cell.config.restarts > 1 else 1  # mean, sd, min, max, interval, n, lost
    return min(points, CELL_POINTS) * (statistics * scores + norms) + min(children, restarts) * each


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
