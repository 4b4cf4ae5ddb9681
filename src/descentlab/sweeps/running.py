"""Cells in, trainings out: check all, claim one after the other, train what is missing, keep it, say how far it is.

A cell is one resolved configuration; a single run is a sweep of one. What the store holds is not trained again: a cell
by the hash of all that alters its results and the digest of its data, a restart by the same without seed and restarts,
and its own seed. So a sweep that was killed goes on, and one with more restarts trains those that are new.
"""

import contextlib
import math
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy import ndarray

from descentlab.config import resolving as configuration
from descentlab.config.configuration import Config
from descentlab.config.options import LAUNCHER
from descentlab.nn import checkpoints
from descentlab.nn.parameters import parameter_count
from descentlab.nn.recipe import Recipe, Record, Splits, Training
from descentlab.nn.trainer import iterate
from descentlab.sweeps import launchers
from descentlab.sweeps.judges import judged
from descentlab.tracking import CellRun, Claim, FinishedRun, Planned, StoreLost, open_tracker, part_id
from descentlab.tracking.tables import ranking
from descentlab.tracking.trainings import SPOOL, all_weights, joined, only, read_spooled, read_training
from descentlab.values import InputError, Option, refusal, shown

if TYPE_CHECKING:
    from descentlab.sweeps.judges import Judge
    from descentlab.tracking import StoredRun, Tracker

LINE_SECONDS = 5.0  # between lines of progress where no terminal draws a bar
BUSY_SECONDS = 1.0  # between looks at cells that another process trains
STACK_BYTES = 16 * 2**20  # of the parameters of cells that are trained as one stack; larger stacks are no faster
BAR_SECONDS = 0.1  # between movements of the bar where one does


class CellsFailed(Exception):
    """Some cells of a sweep failed; the others went on and are kept.

    Attributes:
        failures: each failed cell with its error.
        trainings: one per cell in their order, None where it failed.
    """

    def __init__(self, failures: list[tuple[Config, Exception]], trainings: list[Training | None]) -> None:
        names = ", ".join(cell.name for cell, _ in failures[:5]) + (", ..." if len(failures) > 5 else "")
        super().__init__(f"{len(failures)} of {len(trainings)} cells failed: {names}")
        self.failures, self.trainings = failures, trainings


Finish = Callable[[Config, Training, "CellRun"], None]


def begin(parts: Mapping[str, Sequence[Config]], tracker: "Tracker", label: str = "") -> None:
    """Take up a sweep of several parts, or found it where it is new; `tracker.sweep` is its id from then on.

    Args:
        parts: the cells of each part; a command's only part is "".
        tracker: keeps what comes of them.
        label: of the experiment or study; where its cells are not those of the last sweep with this label, a line on
            standard error says what differs.

    Raises:
        InputError: a cell that cannot run, or a launcher that cannot.
    """
    launched = [cell.launcher for cells in parts.values() for cell in cells]
    if any(other != launched[0] for other in launched):
        raise refusal(LAUNCHER, launched[0].name, "must be the same in all cells of a sweep, with the same numbers")
    for launcher in launched[:1]:
        launchers.check(launcher)
    planned = {part: different(_planned(cells)) for part, cells in parts.items()}
    notes = [note for cells in parts.values() for cell in cells for note in configuration.check(cell).notes]
    for note in dict.fromkeys(notes):
        _say(note)
    fresh = not all(cell.resume for cells in parts.values() for cell in cells)
    if note := tracker.begin(planned, label, fresh):
        _say(note)


def run(
    cells: Sequence[Config],
    tracker: "Tracker",
    progress: bool = True,
    workers: int | None = None,
    on_finish: Finish | None = None,
    judge: "Judge | None" = None,
    part: str | None = None,
    label: str = "",
    at: Sequence[int] | None = None,
) -> list[Training]:
    """Train every cell that the store does not hold yet; all are checked first, and equal ones are one.

    Args:
        cells: resolved configurations.
        tracker: keeps what comes of them.
        progress: show on standard error how far it is: a bar on a terminal, else a line every few seconds.
        workers: threads or processes, in place of what each cell asks for.
        on_finish: is shown each cell, trained now or before.
        judge: says what restarts ended in (`judges`).
        part: of the sweep that the tracker has begun; None begins one of these cells alone.
        label: as for `begin`, where this begins it.
        at: the cells' places in their part, where they are some of those that it misses; None for all of it.

    Returns:
        One Training per cell, in their order; equal cells share one.

    Raises:
        InputError: a cell that cannot run, when none has been trained; or a store that is lost.
        CellsFailed: at the end, where cells of several failed. The error of a single cell comes through as it is.
    """
    wanted = _planned(cells, judge)
    planned = different(wanted)
    queue = [one.config for one in planned]
    if part is None:
        begin({"": cells}, tracker, label)
    fresh = not all(cell.resume for cell in cells)
    sweep = part_id(tracker.sweep, part or "")
    numbered = at or range(len(queue))
    standing = {} if fresh or at else tracker.standing(planned)
    _say_standing(planned, standing)
    missing = [place for place, cell in enumerate(planned) if cell.key not in standing]
    elsewhere = [place for place in missing if queue[place].launcher.name != "none"]
    tracker.expect([queue[place] for place in missing if place not in elsewhere])
    trained: dict[str, Training] = {}
    failures: list[tuple[Config, Exception]] = []
    busy: dict[str, str] = {}  # key -> who trains it

    def take(place: int) -> Claim:
        if found := standing.get(planned[place].key):
            tracker.add_to_sweep(found, sweep, numbered[place], queue[place].name)
            return Claim(finished=found)
        return tracker.claim(planned[place], configuration.check(queue[place]), sweep, numbered[place], fresh)

    with _shown_progress(queue, progress and len(elsewhere) < len(queue)) as show:
        places = deque(place for place in range(len(queue)) if place not in elsewhere)
        while places:
            place = places.popleft()
            cell, key = queue[place], planned[place].key
            if busy and len(places) < len(busy):  # all that is left is another's
                time.sleep(BUSY_SECONDS)
            claim = take(place)
            if claim.holder:
                if busy.setdefault(key, "") != claim.holder:
                    _say(f"{cell.name}: is being trained by {claim.holder}; it is waited for at the end")
                    busy[key] = claim.holder
                places.append(place)
                continue
            claims = {place: claim}
            for mate in _mates(planned, place, places) if _is_whole(cell, claim) else []:
                claims[mate] = take(mate)
                if claims[mate].holder:  # its turn will come
                    del claims[mate]
                else:
                    places.remove(mate)
            stack = [taken for taken in claims if _is_whole(queue[taken], claims[taken])]
            for together in [*([stack] if stack else []), *([taken] for taken in claims if taken not in stack)]:
                some = [queue[taken] for taken in together]
                note = partial(show, together)
                try:
                    if len(together) > 1:
                        found = _settle_stack(some, [claims[t] for t in together], workers, note, on_finish, judge)
                    else:
                        found = [settle(one, claims[taken], workers, note, on_finish, judge)
                                 for one, taken in zip(some, together, strict=True)]  # fmt: skip
                    trained |= {planned[taken].key: training for taken, training in zip(together, found, strict=True)}
                except Exception as error:
                    if len(queue) == 1 or isinstance(error, StoreLost):
                        raise
                    failures += [(one, error) for one in some]
                    if not at:  # a worker's parent says it
                        _say_failed(some, error)
                show(together, None)
                for taken in together:
                    busy.pop(planned[taken].key, None)
    if elsewhere:
        handed = [planned[place] for place in elsewhere]
        with contextlib.closing(_fan_out(handed, elsewhere, tracker, part or "", judge, progress)) as ends:
            for one, outcome in ends:
                cell = one.config
                if isinstance(outcome, Exception):
                    if len(queue) == 1 or isinstance(outcome, StoreLost):
                        raise outcome
                    failures.append((cell, outcome))
                    _say_failed([cell], outcome)
                    continue
                trained[one.key], kept = outcome
                if on_finish:
                    on_finish(cell, trained[one.key], kept)
    if failures:
        raise CellsFailed(failures, [trained.get(one.key) for one in wanted])
    return [trained[one.key] for one in wanted]


def settle(
    cell: Config,
    claim: Claim,
    workers: int | None = None,
    show: "Callable[[Step], None] | None" = None,
    on_finish: Finish | None = None,
    judge: "Judge | None" = None,
) -> Training:
    """Make what a claim gave a finished run: read it where it stands, else train what is missing and keep it.

    Args:
        cell: the configuration.
        claim: as `Tracker.claim` gave it, not taken by another.
        workers: threads or processes, in place of what the cell asks for.
        show: is called with each step.
        on_finish: is shown the outcome.
        judge: says what restarts ended in.
    """
    show = show or (lambda step: None)
    if claim.finished:
        training = stored_training(cell, claim.finished)
        if on_finish:
            on_finish(cell, training, FinishedRun(claim.finished))
        return training
    assert claim.run is not None
    with claim.run as kept:
        training, reused = _train(cell, claim, workers, show, judge is not None)
        kept.finish(training, judgement=judged(judge, cell, training) if judge else None, reused=reused)
    if on_finish:
        on_finish(cell, training, kept)
    return training


def _is_whole(cell: Config, claim: Claim) -> bool:
    """Whether all of a cell is to be trained: nothing of it is held by finished runs, or was left by one that died."""
    run = claim.run
    if run is None or claim.parents:
        return False
    begun = (SPOOL, _span_name(cell.seed, cell.restarts))
    return run.checkpoints is None or not any((run.checkpoints / name).is_dir() for name in begun)


def _mates(planned: Sequence[Planned], place: int, waiting: Sequence[int]) -> list[int]:
    """Which of the waiting cells differ from one in their learning rate alone, as many as a stack may hold."""
    cell = planned[place].config
    stacked = [(one.config.stack_hash, one.digest) for one in planned]
    mates = [other for other in waiting if stacked[other] == stacked[place]]
    if not mates:
        return []
    layers = configuration.recipe(cell, configuration.check(cell)).layers
    size = cell.restarts * parameter_count(layers) * np.dtype(cell.dtype).itemsize
    return mates[: max(0, STACK_BYTES // size - 1)]


def _settle_stack(
    cells: Sequence[Config],
    claims: Sequence[Claim],
    workers: int | None,
    show: "Callable[[Step], None]",
    on_finish: Finish | None,
    judge: "Judge | None",
) -> list[Training]:
    """Train cells that differ in their learning rate alone as one stack, and keep each as the run it is."""
    dataset = configuration.check(cells[0])
    rates = tuple(cell.learning_rate for cell in cells)
    recipe = replace(configuration.recipe(cells[0], dataset), learning_rate=rates)
    rows = [np.arange(place * recipe.restarts, (place + 1) * recipe.restarts) for place in range(len(cells))]
    with contextlib.ExitStack() as runs:
        kept = [runs.enter_context(claim.run) for claim in claims if claim.run]

        def note(record: Record) -> None:
            for one, own in zip(kept, rows, strict=True):
                one.record(replace(record, metrics={name: values[own] for name, values in record.metrics.items()}))

        folder = f"{_span_name(recipe.seed, recipe.restarts)}-{len(cells)}-rates"  # of the first cell
        whole = _train_on(recipe, dataset.splits, workers or cells[0].workers, kept[0], folder, note, show, show)
        trainings = []
        for cell, one, own in zip(cells, kept, rows, strict=True):
            training = replace(only(whole, own), recipe=replace(recipe, learning_rate=cell.learning_rate))
            one.finish(training, judgement=judged(judge, cell, training) if judge else None)
            trainings.append(training)
    for cell, training, one in zip(cells, trainings, kept, strict=True):
        if on_finish:
            on_finish(cell, training, one)
    return trainings


def stored_training(cell: Config, run: "StoredRun") -> Training:
    """A finished run as the Training it was; see `trainings.read_training` for weights that were too many to be kept.

    Raises:
        InputError: if an artifact is missing.
    """
    recipe = configuration.recipe(cell, configuration.check(cell))
    return read_training(run.table, run.arrays, recipe, run.seconds)


def different(cells: Sequence[Planned]) -> list[Planned]:
    """Cells without repetition; of equal ones (configuration and values of the data) the first one's name."""
    first: dict[str, Planned] = {}
    for cell in cells:
        first.setdefault(cell.key, cell)
    return list(first.values())


def _planned(cells: Sequence[Config], judge: "Judge | None" = None) -> list[Planned]:
    """Cells with the digests of their data, all checked."""
    name = f"{Path(judge.__code__.co_filename).stem}.{judge.__name__}" if judge else ""
    return [Planned(cell, configuration.check(cell).digest, name) for cell in cells]


def _say(text: str) -> None:
    print(f"descentlab: {text}", file=sys.stderr, flush=True)


def _say_failed(cells: Sequence[Config], error: Exception) -> None:
    _say(f"{', '.join(cell.name for cell in cells)}: failed: {type(error).__name__}: {shown(error)}")


def _say_standing(cells: Sequence[Planned], standing: "Mapping[str, StoredRun]") -> None:
    if not standing:
        return
    if len(cells) == 1:
        (run,) = standing.values()
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
        _say(f"{cells[0].config.name}: is there already, trained on {when}; resume=false trains it anew")
    else:
        rest = "trains all anew" if len(standing) == len(cells) else f"the other {len(cells) - len(standing)} are to do"
        rest = f"resume=false {rest}" if rest.startswith("trains") else rest
        _say(f"{len(standing)} of {len(cells)} cells are there already; {rest}")


# --- training ----------------------------------------------------------------------------------------------------


def _train(
    cell: Config, claim: Claim, workers: int | None, show: "Callable[[Step], None]", all_needed: bool
) -> tuple[Training, dict[int, str]]:
    """Train the restarts that no finished run of the same cell holds; also: seed -> run that holds it.

    With all_needed a restart whose weights were too large to be kept is trained again, too.
    """
    kept = claim.run
    assert kept is not None
    dataset = configuration.check(cell)
    recipe = configuration.recipe(cell, dataset)
    if kept.checkpoints and (spooled := kept.checkpoints / SPOOL).is_dir():
        _say(f"{cell.name}: was trained before, when the store could not take it")
        return read_spooled(spooled, recipe), {}
    held, reused = _held(cell, recipe, claim.parents)
    if all_needed and any(np.isnan(part.initial.flat).all(axis=1).any() for part in held):
        held, reused = [], {}
    wanted = range(cell.seed, cell.seed + cell.restarts)
    spans = _spans([seed for seed in wanted if seed not in reused])
    if reused:
        _say(f"{cell.name}: {len(reused)} of {cell.restarts} restarts are there already")
        show(len(reused) * cell.epochs)
    note = kept.record if not reused and len(spans) == 1 else None  # means over some restarts would not be the cell's

    def trained(seed: int, restarts: int) -> Training:
        part, told = replace(recipe, seed=seed, restarts=restarts), show if note else None
        folder = _span_name(seed, restarts)
        return _train_on(part, dataset.splits, workers or cell.workers, kept, folder, note, told, show)

    parts = [trained(*span) for span in spans]
    if not reused:
        return (parts[0] if len(parts) == 1 else joined(recipe, parts)), {}
    try:
        training = joined(recipe, [*held, *parts])
    except ValueError:  # by a version that measured something else
        return trained(cell.seed, cell.restarts), {}
    if not all_weights(training):  # then those of the best are kept, and another run may not have had them
        best = int(ranking(training)[0])
        if np.isnan(training.initial.flat[best]).all():
            again = trained(int(training.seeds[best]), 1)
            training.initial.flat[best], training.final.flat[best] = again.initial.flat[0], again.final.flat[0]
    return training, reused


def _span_name(seed: int, restarts: int) -> str:
    return f"{seed}-{restarts}"


def _train_on(
    recipe: Recipe,
    splits: Splits,
    threads: Any,
    kept: "CellRun",
    folder: str,
    note: Callable[[Record], None] | None,
    told: "Callable[[Step], None] | None",
    show: "Callable[[Step], None]",
) -> Training:
    """Train to the end, from the checkpoint in a folder of the run's where there is one, and leave others there."""
    if kept.checkpoints is None:
        return _drain(iterate(recipe, splits, threads, show), note, told)
    path = kept.checkpoints / folder
    start = checkpoints.latest(path, _say)
    more: dict[str, Any] = {"save": partial(_save, path), "save_seconds": kept.checkpoint_seconds}
    if start is not None:
        _say(f"{kept.name}: goes on from epoch {int(start['epoch'])}")
        try:
            return _drain(iterate(recipe, splits, threads, show, start=start, **more), note, told)
        except ValueError as error:  # put by by a version that trained otherwise
            _say(f"{kept.name}: starts from the beginning, since {error}")
    return _drain(iterate(recipe, splits, threads, show, **more), note, told)


def _save(folder: Path, snapshot: Mapping[str, np.ndarray]) -> None:
    """Put a snapshot by; where it cannot be written, training goes on without."""
    try:
        checkpoints.write(folder, snapshot)
    except OSError as error:
        _say(f"checkpoint: {shown(error)}")


def _held(cell: Config, recipe: Recipe, parents: "Sequence[StoredRun]") -> tuple[list[Training], dict[int, str]]:
    """What finished runs of the same cell hold of a cell's restarts, and which of them has which: seed -> run."""
    trainings: list[Training] = []
    reused: dict[int, str] = {}
    for run in parents:
        first, count = run.seed, run.restarts
        seeds = [seed for seed in range(first, first + count) if 0 <= seed - cell.seed < cell.restarts]
        seeds = [seed for seed in seeds if seed not in reused]
        if not seeds:
            continue
        whole = stored_training(cell, run)
        if whole.epochs.tolist() == recipe.logged_epochs():
            trainings.append(only(whole, np.array(seeds) - first))
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


def _drain(
    records: Generator[Record, None, Training],
    note: Callable[[Record], None] | None,
    show: "Callable[[Step], None] | None",
) -> Training:
    while True:
        try:
            record = next(records)
        except StopIteration as end:
            return end.value
        for told in (note, show):
            if told:
                told(record)


# --- other processes ---------------------------------------------------------------------------------------------


def _fan_out(
    cells: Sequence[Planned],
    at: Sequence[int],
    tracker: "Tracker",
    part: str,
    judge: "Judge | None",
    progress: bool,
) -> Generator[tuple[Planned, tuple[Training, CellRun] | Exception], None, None]:
    """Have cells trained by their launcher's workers, and yield each as it ends: what came of it, or why nothing did.

    A worker claims, trains and keeps a cell as a lone process does; what is left of one that dies is marked here.

    Args:
        cells: that the store does not hold.
        at: their places in the part.
        tracker: has begun the sweep.
        part: of the sweep.
        judge: as for `run`.
        progress: as for `run`.
    """
    configs = [cell.config for cell in cells]
    launcher, left = configs[0].launcher, set(range(len(cells)))
    try:
        with launchers.opened(launcher) as workers, _shown_count(configs, progress) as show:
            groups = _groups(cells, workers.room)
            works = [
                partial(
                    _in_worker,
                    [cells[place] for place in group],
                    [at[place] for place in group],
                    tracker.sweep,
                    part,
                    judge,
                    launcher.numbers["cores"],
                )
                for group in groups
            ]
            for number, found in workers.results(works):
                group = groups[number]
                left -= set(group)
                show(group)
                if isinstance(found, launchers.WorkerLost):
                    tracker.give_up_lost([cells[place] for place in group])
                outcomes = [found] * len(group) if isinstance(found, Exception) else found
                for one, outcome in zip((cells[place] for place in group), outcomes, strict=True):
                    if isinstance(outcome, Exception):
                        yield one, outcome
                        continue
                    training, run_id = outcome
                    cell = one.config
                    kept = CellRun(cell.name)
                    kept.run_id, kept.finished = run_id, True
                    yield one, (replace(training, recipe=configuration.recipe(cell, configuration.check(cell))), kept)
    finally:
        tracker.give_up_lost([cells[place] for place in left])


def _groups(cells: Sequence[Planned], workers: int) -> list[list[int]]:
    """Places of the cells that a worker is given at once, to train as one stack; no worker is left without for it."""
    most = math.ceil(len(cells) / workers)
    waiting, groups = list(range(len(cells))), []
    while waiting:
        place = waiting.pop(0)
        groups.append([place, *_mates(cells, place, waiting)[: most - 1]])
        waiting = [other for other in waiting if other not in groups[-1]]
    return groups


def _in_worker(
    planned: Sequence[Planned], at: Sequence[int], sweep: str, part: str, judge: "Judge | None", cores: int
) -> list[tuple[Training, str | None] | Exception]:
    """In a worker: claim, train and keep some cells of a sweep; each one's training (without recipe) and run, or error.

    Raises:
        InputError: where the data is not what it is for the parent.
    """
    cells = [replace(one.config, launcher=Option("none")) for one in planned]
    for cell, one in zip(cells, planned, strict=True):
        if configuration.check(cell).digest != one.digest:
            where = socket.gethostname()
            raise InputError(f"data={cell.data.name}: has other values on {where} than where the sweep began")
    runs: dict[int, str | None] = {}  # by the place of the cell
    errors: dict[int, Exception] = {}

    def place_of(cell: Config) -> int:
        return next(place for place, one in enumerate(cells) if one is cell)

    def note(cell: Config, training: Training, kept: CellRun) -> None:
        runs[place_of(cell)] = kept.run_id

    trainings: Sequence[Training | None]
    with open_tracker(cells[0].tracking) as tracker:
        tracker.sweep = sweep
        try:
            trainings = run(cells, tracker, False, cores, note, judge, part, at=at)
        except CellsFailed as error:
            trainings = error.trainings
            errors = {place_of(cell): launchers.portable(one) for cell, one in error.failures}
    return [
        errors[place] if training is None else (replace(training, recipe=None), runs[place])  # type: ignore[arg-type]
        for place, training in enumerate(trainings)  # a recipe is made of functions, which do not travel
    ]


@contextlib.contextmanager
def _shown_count(cells: Sequence[Config], wanted: bool) -> Iterator[Callable[[Sequence[int]], None]]:
    """Yield what is called with the places of cells that have ended."""
    work = [cell.epochs * cell.restarts for cell in cells]
    ended: list[int] = []
    began = last = time.monotonic()

    def state() -> tuple[str, float]:
        return f"{len(ended)}/{len(cells)} cells", sum(work[place] for place in ended) / sum(work)

    if wanted and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(state()[0], total=1.0)

            def draw(places: Sequence[int]) -> None:
                ended.extend(places)
                bar.update(task, description=state()[0], completed=state()[1])

            yield draw
        return

    def write(places: Sequence[int]) -> None:
        nonlocal last
        ended.extend(places)
        now, (text, share) = time.monotonic(), state()
        if wanted and now - last >= LINE_SECONDS:
            last = now
            print(f"{text}, about {(now - began) * (1 - share) / share:.0f} s left", file=sys.stderr, flush=True)

    yield write


# --- how far it is -----------------------------------------------------------------------------------------------


Step = Record | int | None  # a record, restarts that have gone through one more epoch, or the cell's end


@contextlib.contextmanager
def _shown_progress(cells: Sequence[Config], wanted: bool) -> Iterator[Callable[[Sequence[int], Step], None]]:
    """Yield what is called with the places of cells and each step of their training, from any thread."""
    if not wanted:
        yield lambda places, step: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(_place(cells, [0]), total=1.0, state="")

            def draw(places: Sequence[int], state: str, share: float) -> None:
                bar.update(task, description=_place(cells, places), state=state, completed=share)

            yield _Meter(cells, draw, BAR_SECONDS, -math.inf).note
    else:
        began = time.monotonic()

        def write(places: Sequence[int], state: str, share: float) -> None:
            left = (time.monotonic() - began) * (1 - share) / max(share, 1e-9)
            print(f"{_place(cells, places)}: {state}, about {left:.0f} s left", file=sys.stderr, flush=True)

        yield _Meter(cells, write, LINE_SECONDS, began).note


def _place(cells: Sequence[Config], places: Sequence[int]) -> str:
    first = places[0]
    rates = f" with {len(places)} learning rates" if len(places) > 1 else ""
    return f"{first + 1}/{len(cells)} {cells[first].name}{rates}" if len(cells) > 1 else cells[first].name


class _Meter:
    """Counts epochs of restarts and shows the running cells every so many seconds."""

    def __init__(
        self, cells: Sequence[Config], show: Callable[[Sequence[int], str, float], None], seconds: float, last: float
    ) -> None:
        self._cells, self._show, self._seconds, self._last = cells, show, seconds, last
        self._work = [cell.epochs * cell.restarts for cell in cells]
        self._ended: set[int] = set()
        self._running, self._measured = 0, ""
        self._lock = threading.Lock()

    def note(self, places: Sequence[int], step: Step) -> None:
        """Take a step of the cells at `places`, which train as one stack, into account."""
        cell = self._cells[places[0]]
        restarts = cell.restarts * len(places)
        with self._lock:
            if isinstance(step, Record):
                losses = step.metrics.get("train/loss", np.array([np.nan]))
                finite = losses[np.isfinite(losses)]
                measured = f"train/loss {finite.mean():.4g}" if len(finite) else "diverged"
                self._measured = f", {measured} at epoch {step.epoch}"
                self._running = max(self._running, step.epoch * restarts)
            elif step is None:
                self._ended |= set(places)
                self._running = 0
            else:
                self._running = min(self._running + step, cell.epochs * restarts)
            now = time.monotonic()
            if step is None or now - self._last < self._seconds:
                return
            self._last = now
            many = f"{restarts} restarts, " if restarts > 1 else ""
            done = self._running + sum(self._work[place] for place in self._ended)
            epoch = f"epoch {self._running // restarts}/{cell.epochs}"
            self._show(places, f"{many}{epoch}{self._measured}", done / sum(self._work))


# --- what came of it ---------------------------------------------------------------------------------------------


def write_results(cells: Sequence[Config], trainings: Sequence[Training | None], to: TextIO) -> None:
    """Write a short table of final values: one cell's losses and scores, or one row per cell of a sweep."""
    pairs = [(cell, training) for cell, training in zip(cells, trainings, strict=True) if training is not None]
    rows: list[list[str]] = []
    header = ["n", "mean", "95 % interval", "sd", "best", "worst", "diverged"]
    if len(cells) == 1:
        for cell, training in pairs:
            many = f"seeds {cell.seed} to {cell.seed + cell.restarts - 1}" if cell.restarts > 1 else f"seed {cell.seed}"
            print(f"{cell.name}: {cell.epochs} epochs of {cell.data.name}, {many}, {training.seconds:.2f} s", file=to)
            rows += [[metric, *_spread(metric, curve[-1])] for metric, curve in _scores(training).items()]
        header = ["at the end", *header]
    else:
        for cell, training in pairs:
            metric = next((name for name in _TELLING if name in training.curves), "train/loss")
            rows.append([cell.name, metric, *_spread(metric, training.curves[metric][-1])])
        header = ["cell", "at the end", *header]
    names = len(header) - 7
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        padded = [text.ljust(width) for text, width in zip(row[:names], widths, strict=False)]
        padded += [text.rjust(width) for text, width in zip(row[names:], widths[names:], strict=True)]
        print("  ".join(padded).rstrip(), file=to)


_TELLING = ("test/accuracy", "test/r2", "test/loss")  # what a cell's row shows, the first that was measured


def _scores(training: Training) -> dict[str, ndarray]:
    """Losses and scores of the splits, not norms of layers."""
    return {
        name: curve for name, curve in training.curves.items() if name.split("/")[0] in ("train", "validation", "test")
    }


def _spread(metric: str, values: ndarray) -> list[str]:
    """Values of all restarts (R,) as texts: n, mean, interval, sd, best, worst, diverged."""
    from descentlab.analysis.statistics import mean_intervals, metric_bounds

    finite = values[np.isfinite(values)]
    n = len(finite)
    lost = str(len(values) - n)
    if not n:
        return ["0", "-", "-", "-", "-", "-", lost]
    mean, sd, low, high, _ = (float(part[0]) for part in mean_intervals(finite[None, :], bounds=metric_bounds(metric)))
    ends = (finite.min(), finite.max()) if metric.endswith("loss") else (finite.max(), finite.min())
    best, worst = (f"{value:.4g}" for value in ends)
    between, deviation = (f"{low:.4g} to {high:.4g}", f"{sd:.2g}") if n > 1 else ("-", "-")
    return [str(n), f"{mean:.4g}", between, deviation, best, worst, lost]
