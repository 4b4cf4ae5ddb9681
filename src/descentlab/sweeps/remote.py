"""Cells trained by the workers of a launcher: each claims, trains and stores its cells as a lone process does."""

import math
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
_Made = dict[int, Ended | Exception]
_Sent = tuple[Config, str, int]  # of a cell: its configuration, the digest of its data, its place in the part


def train(sweep: Queue, places: Sequence[int], show: Show) -> None:
    """Train some cells of a queue in the workers of their launcher; runs of workers that died are marked.

    Args:
        sweep: gets the outcomes.
        places: of the cells, none of which the store holds.
        show: is told of each cell that has ended.
    """
    left = set(places)
    launcher = sweep.cells[places[0]].config.launcher
    try:
        with launchers.opened(launcher) as workers:
            groups = _groups(sweep.cells, places, workers.room)
            jobs = [_job(sweep, group) for group in groups]
            for number, found in workers.results(jobs):
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
    """Places of the cells that a worker gets at once, to train as one stack; every worker gets some."""
    most = math.ceil(len(places) / workers)
    waiting, groups = list(places), []
    while waiting:
        place = waiting.pop(0)
        groups.append([place, *mates(cells, place, waiting)[: most - 1]])
        waiting = [other for other in waiting if other not in groups[-1]]
    return groups


def _job(sweep: Queue, group: Sequence[int]) -> Callable[[], _Made]:
    chosen = {place: sweep.cells[place] for place in group}
    sent = {place: (cell.config, cell.digest, sweep.places[place]) for place, cell in chosen.items()}
    first = chosen[group[0]]
    return partial(_in_worker, sent, first.judge, first.trainer, sweep.tracker.sweep, sweep.part)


def _in_worker(
    sent: Mapping[int, _Sent], judge: "Judge | None", trainer: "Trainer | None", sweep: str, part: str
) -> _Made:
    """In a worker: read the data, then claim, train and store some cells; their outcomes by place in the queue.

    Raises:
        InputError: where the data have other values than for the parent.
    """
    made = cells([replace(config, launcher=Option("none")) for config, *_ in sent.values()], judge, trainer)
    for cell, (_, digest, _) in zip(made, sent.values(), strict=True):
        if cell.digest != digest:
            where = socket.gethostname()
            raise InputError(f"data={cell.config.data.name}: has other values on {where} than where the sweep began")
    runs: dict[str, str | None] = {}

    def note(cell: Cell, training: Training, kept: CellRun) -> None:
        runs[cell.key] = kept.run_id

    with open_tracker(made[0].config.tracking) as tracker:
        tracker.sweep, cores = sweep, sent[next(iter(sent))][0].launcher.numbers["cores"]
        places = [place for *_, place in sent.values()]
        queue = Queue(made, tracker, part, places, not made[0].config.resume, {}, cores, note)
        queue.train(range(len(made)), lambda places, step: None)
    errors = {cell.key: launchers.portable(error) for cell, error in queue.failures}
    return {
        place: errors.get(cell.key) or (replace(queue.trained[cell.key], recipe=None), runs[cell.key])  # type: ignore[arg-type]
        for place, cell in zip(sent, made, strict=True)
    }
