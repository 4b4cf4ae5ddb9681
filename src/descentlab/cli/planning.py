"""`descentlab plan`: what a command would train, what is stored already, and what the rest would take."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from descentlab.cli.output import filesize
from descentlab.config.cells import Cell, different
from descentlab.config.cells import cells as made
from descentlab.config.configuration import Config
from descentlab.nn.parameters import parameter_count
from descentlab.nn.recipe import Recipe
from descentlab.nn.trainer import train_recipe
from descentlab.tracking import NoStore, StoredRun, find, upkeep
from descentlab.values import Option

TIMED_RESTARTS = 8  # that are trained for a moment where no kept cell tells the time
DATABASE_BYTES = 35_000  # of a restart with its own run, where no store tells: 20 points of 6 metrics, params and tags


def plan(configs: Sequence[Config], option: Option) -> str:
    """What a sweep consists of, what of it is there already, and what the rest would take.

    Args:
        configs: of the sweep.
        option: names the store, which need not be there yet.

    Raises:
        InputError: a cell that cannot run, or a store that is there and cannot be read.
    """
    wanted = different(made(configs))
    kept = _finished(option) if any(config.resume for config in configs) else []
    keys = {run.key for run in kept}
    there = [cell for cell in wanted if cell.key in keys]
    missing = [(cell, _missing(cell, kept)) for cell in wanted if cell.key not in keys]
    partly = sum(0 < left < cell.config.restarts for cell, left in missing)
    total, to_train = sum(cell.config.restarts for cell in wanted), sum(left for _, left in missing)
    lines = [
        f"cells     {len(wanted)}: {len(there)} there already, {partly} partly, {len(missing) - partly} to do",
        f"restarts  {total}: {total - to_train} there already, {to_train} to train",
    ]
    if not missing:
        return "\n".join([*lines, "time      a few seconds: nothing is trained"])
    seconds, sources = _estimated_seconds(missing, kept)
    needed, measured = _estimated_bytes(missing, kept, option)
    lines.append(f"time      about {_duration(seconds)} of training, from {sources}")
    lines.append(f"disk      about {filesize(needed)}, {measured}")
    return "\n".join(lines)


def _finished(option: Option) -> list[StoredRun]:
    """Finished cells; none where there is no store yet or none is asked for."""
    if option.name == "none":
        return []
    try:
        return find(option, "cell")
    except NoStore:
        return []


def _missing(cell: Cell, kept: Sequence[StoredRun]) -> int:
    """How many restarts no finished run of the same cell holds."""
    wanted = range(cell.config.seed, cell.config.seed + cell.config.restarts)
    held: set[int] = set()
    for run in kept:
        if run.family == cell.family:
            held.update(range(max(run.seed, wanted.start), min(run.seed + run.restarts, wanted.stop)))
    return len(wanted) - len(held)


def _estimated_seconds(missing: Sequence[tuple[Cell, int]], kept: Sequence[StoredRun]) -> tuple[float, str]:
    """Seconds of training, and what they were told from."""
    known: dict[tuple[Any, ...], list[float]] = {}
    for run in kept:
        if math.isfinite(run.seconds):
            known.setdefault(_alike(run.params), []).append(run.seconds / (run.epochs * run.restarts))
    timed: dict[tuple[Any, ...], float] = {}
    total, told = 0.0, Counter[str]()
    for cell, restarts in missing:
        alike = _alike(_params(cell.config))
        if alike in known:
            each = sorted(known[alike])[len(known[alike]) // 2]
            told["finished"] += 1
        else:
            shape = (alike, cell.config.epochs)
            timed[shape] = timed[shape] if shape in timed else _timed(cell)
            each = timed[shape]
            told["timed"] += 1
        total += each * cell.config.epochs * restarts
    named = {"finished": "finished cells of the same kind", "timed": "a few epochs timed now"}
    return total, "; ".join(f"{named[kind]} (for {count} of {len(missing)})" for kind, count in told.items())


def _params(cell: Config) -> dict[str, str]:
    from descentlab.tracking.params import params

    return params(cell)


def _shape(params: Mapping[str, str]) -> tuple[Any, ...]:
    """What the size of a restart's files depends on."""
    return tuple(params.get(key) for key in ("data", "hidden", "dtype"))


def _alike(params: Mapping[str, str]) -> tuple[Any, ...]:
    """What the time of an epoch hangs on."""
    told = ("data", "hidden", "descent", "batch_size", "update", "activation", "dtype")
    return tuple(params.get(key) for key in told) + tuple(params.get(key) for key in sorted(params) if "data." in key)


def _timed(cell: Cell) -> float:
    """Seconds of an epoch of one restart, its share of the logged epochs included; measured on a moment's training."""
    config = cell.config
    restarts = min(config.restarts, TIMED_RESTARTS)

    def seconds(epochs: int) -> float:
        recipe: Recipe = replace(cell.recipe, epochs=epochs, restarts=restarts, log_every=epochs, learning_rate=1e-6)
        return train_recipe(recipe, cell.dataset.splits, config.workers).seconds  # type: ignore[arg-type]

    seconds(1)  # what is made once is not counted
    short, long = seconds(1), seconds(3)  # two logged epochs each
    epoch = max((long - short) / 2, 1e-9)
    logged = max(short - epoch, 0.0) / 2
    points = len(cell.recipe.logged_epochs())
    return (epoch * config.epochs + logged * points) / config.epochs / restarts


def _estimated_bytes(
    missing: Sequence[tuple[Cell, int]], kept: Sequence[StoredRun], option: Option
) -> tuple[float, str]:
    """Bytes of the runs to come, and what they were told from."""
    measured: dict[tuple[Any, ...], list[float]] = {}
    for run in kept[-200:]:
        shape = _shape(run.params)
        if len(measured.setdefault(shape, [])) < 10:
            measured[shape].append(sum(run.artifacts().values()) / run.restarts)
    database, count = float(DATABASE_BYTES), sum(run.restarts for run in kept)
    if count:
        rows = upkeep.sizes(option)[1]
        database = rows / count if rows else database
    total, told = 0.0, 0
    for cell, restarts in missing:
        params = _params(cell.config)
        known = measured.get(_shape(params))
        if known:
            artifacts = sum(known) / len(known)
            told += 1
        else:
            artifacts = _computed_bytes(cell)
        total += artifacts * cell.config.restarts + database * restarts
    per = f"{filesize(total / sum(left for _, left in missing))} a restart"
    if not told:
        return total, f"{per}, computed from the sizes of weights and curves"
    return total, f"{per}, measured on kept cells (for {told} of {len(missing)})"


def _computed_bytes(cell: Cell) -> float:
    """Bytes of a restart's weights and curves, and its share of a cell's figures."""
    from descentlab.tracking.trainings import WEIGHTS_LIMIT

    recipe, restarts = cell.recipe, cell.config.restarts
    weights = 2 * parameter_count(recipe.layers) * (8 if recipe.dtype == "float64" else 4)
    kept = weights if weights * restarts <= WEIGHTS_LIMIT else weights / restarts
    metrics = 2 * len(cell.dataset.rows) + 3 * (len(recipe.layers) - 1)
    return kept + 8 * metrics * len(recipe.logged_epochs()) + 120_000 / restarts


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
