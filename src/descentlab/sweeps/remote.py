"""Cells trained by the workers of a launcher: each claims, trains and stores its cells as a lone process does."""

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from descentlab.config.cells import Cell, cells
from descentlab.config.configuration import Config
from descentlab.nn.recipe import Training
from descentlab.sweeps import launchers
from descentlab.sweeps.progress import Show
from descentlab.sweeps.queue import Queue, mates
from descentlab.tracking import CellRun, FinishedRun, open_tracker
from descentlab.values import InputError, Option

if TYPE_CHECKING:
    from descentlab.config.cells import Judge
    from descentlab.nn.recipe import Trainer

Ended = tuple[Training, str | None]  # without its recipe, whose functions do not travel; and the id of its run


def train(sweep: Queue, places: Sequence[int], show: Show) -> None:
    """Have some cells of a queue trained by their launcher's workers; runs of workers that died are marked.

    Args:
        sweep: gets what comes of them.
        places: of the cells, none of which the store holds.
        show: is told of each cell that has ended.
    """
    left = set(places)
    launcher = sweep.cells[places[0]].config.launcher
    try:
        with launchers.opened(launcher) as workers:
            groups = _groups(sweep.cells, places, workers.room)
            works = [partial(_in_worker, _job(sweep, group, launcher.numbers["cores"])) for group in groups]
            for number, found in workers.results(works):
                group = groups[number]
                left -= set(group)
                if isinstance(found, launchers.WorkerLost):
                    sweep.tracker.give_up_lost([sweep.cells[place] for place in group])
                for place in group:
                    _ended(sweep, sweep.cells[place], found if isinstance(found, Exception) else found[place])
                show(group, None)
    finally:
        sweep.tracker.give_up_lost([sweep.cells[place] for place in left])


def _ended(sweep: Queue, cell: Cell, outcome: Ended | Exception) -> None:
    if isinstance(outcome, Exception):
        sweep.failed([cell], outcome)
        return
    training, run_id = outcome
    sweep.trained[cell.key] = training = replace(training, recipe=cell.recipe)
    if sweep.on_finish:
        sweep.on_finish(cell, training, FinishedRun(cell.name, run_id))


def _groups(cells: Sequence[Cell], places: Sequence[int], workers: int) -> list[list[int]]:
    """Places of the cells that a worker is given at once, to train as one stack; no worker is left without for it."""
    most = math.ceil(len(places) / workers)
    waiting, groups = list(places), []
    while waiting:
        place = waiting.pop(0)
        groups.append([place, *mates(cells, place, waiting)[: most - 1]])
        waiting = [other for other in waiting if other not in groups[-1]]
    return groups


@dataclass(frozen=True)
class _Job:
    """What a worker is sent: cells without their data, which it reads itself.

    Attributes:
        configs, digests: of the cells, and of their data.
        places: of the cells in the queue.
        numbers: their places in the part.
        judge, trainer: of all of them.
        sweep, part: they are trained for.
        cores: of the worker.
    """

    configs: Sequence[Config]
    digests: Sequence[str]
    places: Sequence[int]
    numbers: Sequence[int]
    judge: "Judge | None"
    trainer: "Trainer | None"
    sweep: str
    part: str
    cores: int


def _job(sweep: Queue, places: Sequence[int], cores: int) -> _Job:
    chosen = [sweep.cells[place] for place in places]
    return _Job(
        configs=[replace(cell.config, launcher=Option("none")) for cell in chosen],
        digests=[cell.digest for cell in chosen],
        places=places,
        numbers=[sweep.places[place] for place in places],
        judge=chosen[0].judge,
        trainer=chosen[0].trainer,
        sweep=sweep.tracker.sweep,
        part=sweep.part,
        cores=cores,
    )


def _in_worker(job: _Job) -> dict[int, Ended | Exception]:
    """In a worker: claim, train and store some cells of a sweep; what came of each, by its place in the queue.

    Raises:
        InputError: where the data have other values than for the parent.
    """
    made = cells(job.configs, job.judge, job.trainer)
    for cell, digest in zip(made, job.digests, strict=True):
        if cell.digest != digest:
            where = socket.gethostname()
            raise InputError(f"data={cell.config.data.name}: has other values on {where} than where the sweep began")
    runs: dict[str, str | None] = {}

    def note(cell: Cell, training: Training, kept: CellRun) -> None:
        runs[cell.key] = kept.run_id

    with open_tracker(made[0].config.tracking) as tracker:
        tracker.sweep = job.sweep
        queue = Queue(made, tracker, job.part, job.numbers, not made[0].config.resume, {}, job.cores, note)
        queue.train(range(len(made)), lambda places, step: None)
    errors = {cell.key: launchers.portable(error) for cell, error in queue.failures}
    return {
        place: errors.get(cell.key) or (replace(queue.trained[cell.key], recipe=None), runs[cell.key])  # type: ignore[arg-type]
        for place, cell in zip(job.places, made, strict=True)
    }
