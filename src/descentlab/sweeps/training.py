"""From a claim to a stored run: what other runs hold is read, the rest trained, judged and handed to the tracker."""

import contextlib
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from descentlab.config.cells import Cell
from descentlab.nn import checkpoints
from descentlab.nn.recipe import Recipe, Record, Training
from descentlab.nn.trainer import iterate
from descentlab.sweeps.judges import judged
from descentlab.sweeps.progress import Step, say
from descentlab.tracking import CellRun, Claim, FinishedRun
from descentlab.tracking.tables import ranking
from descentlab.tracking.trainings import SAVED, all_weights, joined, only, read_saved, read_training
from descentlab.values import shown

if TYPE_CHECKING:
    from descentlab.tracking import StoredRun

Finish = Callable[[Cell, Training, CellRun], None]


def settle(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    threads: int | None = None,
    show: Callable[[Step], None] = lambda step: None,
    on_finish: Finish | None = None,
) -> list[Training]:
    """Give every claimed cell a stored run: read a finished one, or train the missing restarts and store them.

    Args:
        cells: one, or several of one stack that are all to be trained whole (`is_whole`).
        claims: as `Tracker.claim` gave them, not taken by another.
        threads: threads or processes, in place of what the cells ask for.
        show: is called with each step.
        on_finish: is shown each cell's outcome.
    """
    stands, reused = claims[0].finished, dict[int, str]()
    if stands:
        runs: list[CellRun] = [FinishedRun(stands.name, stands.run_id)]
        trainings = [stored_training(cells[0], stands)]
    else:
        with contextlib.ExitStack() as stack:
            runs = [stack.enter_context(claim.run) for claim in claims if claim.run]
            work = _Work(cells, runs, threads, show)
            if all(is_whole(*pair) for pair in zip(cells, claims, strict=True)):
                trainings = work.train(*_span(cells[0]))
            else:
                trainings, reused = work.train_missing(claims[0].parents)
            for cell, run, training in zip(cells, runs, trainings, strict=True):
                run.finish(training, judgement=judged(cell, training) if cell.judge else None, reused=reused)
    for cell, run, training in zip(cells, runs, trainings, strict=True):
        if on_finish:
            on_finish(cell, training, run)
    return trainings


def is_whole(cell: Cell, claim: Claim) -> bool:
    """Whether all restarts of a cell are to be trained: neither a finished run nor a killed one left any."""
    run = claim.run
    if run is None or claim.parents:
        return False
    begun = (SAVED, _folder(*_span(cell)))
    return run.checkpoints is None or not any((run.checkpoints / name).is_dir() for name in begun)


def stored_training(cell: Cell, run: "StoredRun") -> Training:
    """A finished run as the Training it was; see `contents.read_training` for weights that were too many to be kept.

    Raises:
        InputError: if an artifact is missing.
    """
    return read_training(run.table, run.arrays, cell.recipe, run.seconds)


@dataclass(frozen=True)
class _Work:
    """Cells of one stack and their open runs; a lone cell is a stack of one."""

    cells: Sequence[Cell]
    runs: Sequence[CellRun]
    threads: int | None
    show: Callable[[Step], None]

    def train(self, seed: int, restarts: int, recorded: bool = True) -> list[Training]:
        """Train some restarts of every cell side by side; with `recorded`, the runs take note of every record."""
        rates = tuple(cell.config.learning_rate for cell in self.cells)
        recipe = replace(self.cells[0].recipe, seed=seed, restarts=restarts)
        if len(rates) == 1:
            return [self._to_the_end(recipe, _folder(seed, restarts), [slice(None)] if recorded else [])]
        rows = [np.arange(place * restarts, (place + 1) * restarts) for place in range(len(rates))]
        folder = f"{_folder(seed, restarts)}-{len(rates)}-rates"
        stack = self._to_the_end(replace(recipe, learning_rate=rates), folder, rows)
        return [
            replace(only(stack, own), recipe=replace(recipe, learning_rate=rate))
            for own, rate in zip(rows, rates, strict=True)
        ]

    def train_missing(self, parents: "Sequence[StoredRun]") -> tuple[list[Training], dict[int, str]]:
        """Train the restarts of a lone cell that no finished run of its family holds; also seed -> run that holds it.

        For a judge, a restart whose weights were too large to be kept is trained again, too.
        """
        (cell,), (run,) = self.cells, self.runs
        if run.checkpoints and (saved := run.checkpoints / SAVED).is_dir():
            say(f"{cell.name}: was trained before and could not be stored; storing it now")
            return [read_saved(saved, cell.recipe)], {}
        held, reused = _held(cell, parents)
        if cell.judge and any(np.isnan(part.initial.flat).all(axis=1).any() for part in held):
            held, reused = [], {}
        first, count = _span(cell)
        spans = _spans([seed for seed in range(first, first + count) if seed not in reused])
        if reused:
            say(f"{cell.name}: {len(reused)} of {count} restarts are stored already")
            self.show(len(reused) * cell.config.epochs)
        recorded = not reused and len(spans) == 1  # means over some restarts would not be the cell's
        parts = [self.train(*span, recorded=recorded)[0] for span in spans]
        try:
            training = joined(cell.recipe, [*held, *parts])
        except ValueError:  # by a version that measured something else
            return self.train(first, count, recorded=False), {}
        if reused and not all_weights(training):  # those of the best are kept, and another run may not have had them
            best = int(ranking(training)[0])
            if np.isnan(training.initial.flat[best]).all():
                (again,) = self.train(int(training.seeds[best]), 1, recorded=False)
                training.initial.flat[best], training.final.flat[best] = again.initial.flat[0], again.final.flat[0]
        return [training], reused

    def _to_the_end(self, recipe: Recipe, folder: str, rows: Sequence[Any]) -> Training:
        """Train from the last checkpoint in a folder of the first run, if there is one; new checkpoints go there."""
        cell, run, splits = self.cells[0], self.runs[0], self.cells[0].dataset.splits
        trainer: Callable[..., Generator[Record, None, Training]] = cell.trainer or iterate
        begin = partial(trainer, recipe, splits, self.threads or cell.config.workers, self.show)
        resumes = cell.trainer is None or {"save", "start"} <= set(inspect.signature(trainer).parameters)
        if run.checkpoints is None or not resumes:
            return self._recorded(begin(), rows)
        path = run.checkpoints / folder
        begin = partial(begin, save=partial(_save, path), save_seconds=run.checkpoint_seconds)
        if (start := checkpoints.latest(path, say)) is not None:
            say(f"{run.name}: continues from epoch {int(start['epoch'])}")
            try:
                return self._recorded(begin(start=start), rows)
            except ValueError as error:  # saved by a version with a different trainer
                say(f"{run.name}: starts again from epoch 0 ({error})")
        return self._recorded(begin(), rows)

    def _recorded(self, records: Generator[Record, None, Training], rows: Sequence[Any]) -> Training:
        """Run a training to its end and give each run its rows of every record; nothing is recorded without rows."""
        while True:
            try:
                record = next(records)
            except StopIteration as end:
                return end.value
            for run, own in zip(self.runs, rows, strict=False):
                run.record(replace(record, metrics={name: values[own] for name, values in record.metrics.items()}))
            if rows:
                self.show(record)


def _span(cell: Cell) -> tuple[int, int]:
    return cell.config.seed, cell.config.restarts


def _folder(seed: int, restarts: int) -> str:
    """The folder of the checkpoints of some restarts, among those of their run."""
    return f"{seed}-{restarts}"


def _save(folder: Path, snapshot: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint; where that fails, training goes on without."""
    try:
        checkpoints.write(folder, snapshot)
    except OSError as error:
        say(f"checkpoint: {shown(error)}")


def _held(cell: Cell, parents: "Sequence[StoredRun]") -> tuple[list[Training], dict[int, str]]:
    """The restarts of a cell that finished runs of its family hold, and the run of each: seed -> run."""
    trainings: list[Training] = []
    reused: dict[int, str] = {}
    first, count = _span(cell)
    for run in parents:
        seeds = [seed for seed in range(run.seed, run.seed + run.restarts) if 0 <= seed - first < count]
        seeds = [seed for seed in seeds if seed not in reused]
        if not seeds:
            continue
        whole = stored_training(cell, run)
        if whole.epochs.tolist() == cell.recipe.logged_epochs():
            trainings.append(only(whole, np.array(seeds) - run.seed))
            reused |= dict.fromkeys(seeds, run.run_id)
    return trainings, reused


def _spans(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Seeds in rising order as runs without a gap: (first, count)."""
    spans: list[tuple[int, int]] = []
    for seed in seeds:
        if spans and seed == sum(spans[-1]):
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((seed, 1))
    return spans
