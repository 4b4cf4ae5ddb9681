"""The training loop: R restarts of one recipe as chunks of stacked arrays, yielding plain records.

Conventions: learning_rate multiplies the mean gradient over the step's samples, and is multiplied by
learning_rate_decay after every epoch; weight_decay adds weight_decay W to the gradient of the weights, never of the
biases. Step 0 is before the first update. A restart with seed s is the same bits whatever it is trained beside.
"""

import contextlib
import functools
import os
import queue
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy import ndarray

from descentlab.nn import checkpoints
from descentlab.nn.blas import BlasLimit
from descentlab.nn.diagnostics import Tables, measure
from descentlab.nn.initializers import ORDER_STREAM, draw, stream
from descentlab.nn.memory import THREAD_WORK, Call, Workspace, chunks, subtracts_in_place
from descentlab.nn.overflow import Bounds
from descentlab.nn.parameters import Parameters, input_table, parameter_count, target_table
from descentlab.nn.program import gradient_calls
from descentlab.nn.recipe import Recipe, Record, Splits, Training, check
from descentlab.nn.updates import State, subtract
from descentlab.nn.workers import NotSent, holding, warm

Snapshot = dict[str, ndarray]  # where a training stands, see `iterate`
PROCESS_WORK = 20_000  # multiplications a step from which a process saves more than the calls that it repeats
COLD_WORK = 10_000_000_000  # multiplications of a whole training, about a second, that pay for starting a process
WARM_WORK = 4_000_000_000  # that pay for what is sent to one that is up, and comes back


@dataclass
class _Chunk:
    """Restarts that are trained together; rows are their places in the whole stack."""

    rows: ndarray
    parameters: Parameters
    state: State
    rates: ndarray  # (r,)
    orders: list[np.random.Generator] = field(default_factory=list)
    step: int = 0

    def keep(self, kept: ndarray) -> None:
        """Go on with some of the restarts only, copies in a smaller stack."""
        self.rows, self.rates = self.rows[kept], self.rates[kept]
        self.parameters = self.parameters[kept]
        self.state = {slot: values[kept] for slot, values in self.state.items()}
        if self.orders:  # a descent that does not shuffle has none
            self.orders = [order for order, keep in zip(self.orders, kept, strict=True) if keep]


class _Steps:
    """The steps of one chunk in one workspace: bound once, taken epoch after epoch."""

    def __init__(self, course: "_Course", chunk: _Chunk, workspace: Workspace) -> None:
        recipe, restarts = course.recipe, len(chunk.rows)
        self.course, self.chunk, self.workspace = course, chunk, workspace
        self.parameters = chunk.parameters
        plain = recipe.update.apply is subtract and not recipe.weight_decay
        self.in_place = plain and subtracts_in_place(recipe.layers, course.steps[0][1])
        alike = not recipe.update.takes_scaled or bool((chunk.rates == chunk.rates[0]).all())
        self.rates = course.rates_of(chunk, 1)
        self.scales: dict[int, ndarray] = {}  # by the samples of a step
        self.calls: dict[int, list[Call]] = {}
        for samples in {stop - start for start, stop in course.steps}:
            self.scales[samples] = scale = np.empty(() if alike else (restarts, 1, 1), recipe.dtype)
            x, y = course.inputs, course.targets
            if len(course.steps) > 1 or chunk.orders:
                x, y = workspace.batch(samples, restarts if chunk.orders else None)
            self.calls[samples] = gradient_calls(
                course.network, self.parameters, x, y, scale, workspace, subtracted=self.in_place
            )
        self.slope = workspace.gradient(restarts).flat
        self.surely_finite = course.bounds.glance(self.parameters.flat)
        self._set_rates(1)

    def _set_rates(self, epoch: int) -> None:
        self.rates[...] = self.course.rates_of(self.chunk, epoch)
        for samples, scale in self.scales.items():
            rates = self.rates[:, :, None] if self.course.recipe.update.takes_scaled else np.ones_like(self.rates)
            scale[...] = (rates if scale.ndim else rates.flat[0]) / samples

    def take(self, epoch: int) -> None:
        """Go through all samples once."""
        course, chunk, parameters = self.course, self.chunk, self.parameters
        recipe, update = course.recipe, course.recipe.update
        if recipe.learning_rate_decay != 1.0:
            self._set_rates(epoch)
        rate = 1.0 if update.takes_scaled else self.rates
        order = None
        if chunk.orders:
            samples = len(course.inputs)
            order = np.stack([recipe.descent.order(generator, samples) for generator in chunk.orders])  # (r, N)
        for start, stop in course.steps:
            chunk.step += 1
            if order is not None:
                self.workspace.gather(course.inputs, course.targets, order[:, start:stop])
            elif len(course.steps) > 1:
                self.workspace.gather(course.inputs, course.targets, slice(start, stop))
            for call in self.calls[stop - start]:
                call()
            if self.in_place:
                continue
            if recipe.weight_decay:
                decay = recipe.weight_decay * (self.rates if update.takes_scaled else 1.0)
                self.slope += decay * (parameters.flat * parameters.weight_mask)
            update.apply(parameters.flat, self.slope, chunk.state, rate, chunk.step)


@dataclass(frozen=True)
class _Advance:
    """What came of the restarts of a chunk: those that are left and their metrics; those that have diverged."""

    rows: ndarray
    metrics: dict[str, ndarray]
    lost: list[tuple[ndarray, int, ndarray]]  # rows, the epoch, parameters (r, P)


class _Course:
    """One recipe on one set of splits: what each epoch does to a chunk."""

    def __init__(self, recipe: Recipe, splits: Splits) -> None:
        self.recipe = recipe
        self.network = recipe.network
        self.tables: Tables = {
            name: (input_table(x, recipe.dtype), target_table(y, recipe.dtype)) for name, (x, y) in splits.items()
        }
        self.inputs, self.targets = self.tables["train"]
        self.steps = recipe.descent.steps(len(self.inputs))
        self.stopped = False  # set to leave the threads after their epoch
        self.bounds = Bounds(recipe.layers, recipe.activation, self.inputs, self.targets)

    def advance(
        self,
        chunk: _Chunk,
        first: int,
        last: int,
        logged: bool,
        workspace: Workspace,
        told: Callable[[int], None] | None = None,
    ) -> _Advance:
        """Train a chunk through epochs first..last, where epoch 0 is the start as it is; measure it where logged."""
        lost = []
        metrics: dict[str, ndarray] = {}
        with np.errstate(all="ignore"):  # a diverging restart overflows; it is found by its loss
            steps = None
            for epoch in range(first, last + 1):
                if self.stopped:
                    break
                restarts = len(chunk.rows)
                if epoch and restarts:
                    if steps is None or steps.parameters is not chunk.parameters:
                        steps = _Steps(self, chunk, workspace)
                    steps.take(epoch)
                if steps is None or not steps.surely_finite():
                    finite = self._finite(chunk, workspace)
                    if not finite.all():
                        lost.append((chunk.rows[~finite], epoch, chunk.parameters.flat[~finite]))
                        chunk.keep(finite)
                if epoch and told:
                    told(restarts)
            if logged:
                task, level = self.recipe.task, self.recipe.diagnostics
                following = functools.partial(self._change, chunk, last + 1)
                metrics = measure(self.network, chunk.parameters, self.tables, task, level, workspace, following)
        return _Advance(chunk.rows, metrics, lost)

    def _change(self, chunk: _Chunk, epoch: int, slope: Parameters) -> Parameters:
        """How the parameters would move in the first step of an epoch, were this its mean gradient."""
        recipe, moved = self.recipe, chunk.parameters.copy()
        rates = self.rates_of(chunk, epoch)
        pull = slope.flat + recipe.weight_decay * (moved.flat * moved.weight_mask)
        scale, rate = (rates, 1.0) if recipe.update.takes_scaled else (1.0, rates)
        state = {slot: values.copy() for slot, values in chunk.state.items()}
        recipe.update.apply(moved.flat, scale * pull, state, rate, chunk.step + 1)
        moved.flat -= chunk.parameters.flat
        return moved

    def rates_of(self, chunk: _Chunk, epoch: int) -> ndarray:
        """The learning rate of every restart in an epoch: (r, 1)."""
        recipe = self.recipe
        return chunk.rates.astype(recipe.dtype)[:, None] * recipe.learning_rate_decay ** (epoch - 1)

    def _finite(self, chunk: _Chunk, workspace: Workspace) -> ndarray:
        """Which restarts' training loss is finite: (r,)."""
        surely = self.bounds.hold(chunk.parameters.flat)
        if surely.all():
            return surely
        train = {"train": self.tables["train"]}
        losses = measure(self.network, chunk.parameters, train, self.recipe.task, "none", workspace)["train/loss"]
        return np.isfinite(losses)


class _Run:
    """The stack that goes through a course: all its restarts, cut into chunks and put together."""

    def __init__(self, recipe: Recipe, splits: Splits) -> None:
        self.recipe = recipe
        self.course = _Course(recipe, splits)
        self.seeds = np.tile(recipe.seed + np.arange(recipe.restarts, dtype=np.int64), len(recipe.rates))
        self.rates = np.repeat(np.array(recipe.rates, dtype=np.float64), recipe.restarts)
        self.parameters = self._draw()
        self.initial = self.parameters.copy()
        self.diverged_epoch = np.full(len(self.seeds), -1, dtype=np.int64)

    def _draw(self) -> Parameters:
        recipe = self.recipe
        rules = [recipe.initializer] * (len(recipe.layers) - 2) + [recipe.output_initializer]
        parameters = Parameters.empty(recipe.layers, len(self.seeds), recipe.dtype)
        for row in range(recipe.restarts):
            for theta, (weights, biases) in zip(
                parameters.theta, draw(rules, recipe.layers, int(self.seeds[row])), strict=True
            ):
                theta[row :: recipe.restarts, :, :-1] = weights
                theta[row :: recipe.restarts, :, -1] = biases
        return parameters

    def processes(self, count: int) -> int:
        """How many of so many workers should be processes; 1 where threads, or this one alone, train as soon."""
        recipe, course = self.recipe, self.course
        numbers = len(self.seeds) * parameter_count(recipe.layers)
        whole = numbers * len(course.inputs) * (recipe.epochs + len(recipe.logged_epochs()))
        least = WARM_WORK if warm() >= count else COLD_WORK
        return max(1, min(count, len(self.seeds), numbers * course.steps[0][1] // PROCESS_WORK, whole // least))

    def chunks(self, workers: int, least: int, start: Mapping[str, ndarray] | None = None) -> list[_Chunk]:
        """The stack cut into chunks, each with its optimizer state and its restarts' own sample orders.

        Args:
            workers: that will take the chunks.
            least: work that pays for one, as for `memory.chunks`.
            start: a snapshot that the stack has been put to, however it was cut.
        """
        recipe = self.recipe
        cut = []
        samples = self.course.steps[0][1]
        for rows in chunks(len(self.seeds), recipe.layers, samples, recipe.dtype, workers, least):
            parameters = self.parameters[rows]
            if not parameters.flat.flags.forc:  # of a restart-last stack: in one piece it is looked at in one call
                parameters = Parameters(recipe.layers, parameters.flat.copy(order="K"))
            seeds = self.seeds[rows] if recipe.descent.shuffled else ()
            orders = [stream(int(seed), ORDER_STREAM) for seed in seeds]
            state = recipe.update.init(parameters.flat)
            chunk = _Chunk(np.arange(rows.start, rows.stop), parameters, state, self.rates[rows], orders)
            if start is not None:
                for slot, values in state.items():
                    values[...] = start[f"state/{slot}"][rows]
                if orders:
                    checkpoints.set_streams(orders, start["streams"][rows])
                chunk.step = int(start["epoch"]) * len(self.course.steps)
                kept = self.diverged_epoch[rows] < 0
                if not kept.all():
                    chunk.keep(kept)
            cut.append(chunk)
        return cut

    @functools.cached_property
    def identity(self) -> ndarray:
        """(32,) bytes, which differ where anything does that the bits follow from: functions by what they compute."""
        recipe, activation, update = self.recipe, self.recipe.activation, self.recipe.update
        z = np.linspace(-5.0, 5.0, 101, dtype=recipe.dtype)
        a = activation(z)
        slope = activation.derivative(z, a)
        moved = np.stack([z, z])
        state = update.init(moved)
        for step in (1, 2, 3):
            update.apply(moved, 0.1 * np.stack([z, a]), state, 1.0 if update.takes_scaled else 0.01, step)
        named = (activation.name, recipe.output, recipe.loss.name, recipe.descent.name, update.name, recipe.task)
        numbers = (recipe.learning_rate_decay, recipe.weight_decay, recipe.epochs, recipe.layers, recipe.dtype)
        order = (recipe.descent.batch_size, recipe.descent.shuffled, recipe.logged_epochs(), recipe.diagnostics)
        parts: list[str | ndarray] = ["1", *map(str, (*named, *numbers, *order)), a, slope, moved]
        for name, (x, y) in self.course.tables.items():
            parts += [f"{name} {x.shape} {y.shape}", x, y]
        return checkpoints.digest([*parts, self.seeds, self.rates, self.initial.flat])

    def snapshot(self, chunks: list[_Chunk], epoch: int, seconds: float, records: list[Record]) -> Snapshot:
        """Copies of all that the epochs after this one depend on, and of what has been measured."""
        state = self.recipe.update.init(self.parameters.flat)
        streams = np.zeros((len(self.seeds), 6), dtype=np.uint64)
        parameters = self.parameters.flat.copy()
        for chunk in chunks:
            parameters[chunk.rows] = chunk.parameters.flat
            for slot, values in chunk.state.items():
                state[slot][chunk.rows] = values
            if chunk.orders:
                streams[chunk.rows] = checkpoints.stream_states(chunk.orders)
        return {
            "identity": self.identity,
            "epoch": np.array(epoch),
            "seconds": np.array(seconds),
            "parameters": parameters,
            "streams": streams,
            "diverged_epoch": self.diverged_epoch.copy(),
            "epochs": np.array([record.epoch for record in records]),
            **{f"state/{slot}": values for slot, values in state.items()},
            **{f"curves/{name}": np.stack([r.metrics[name] for r in records]) for name in records[0].metrics},
        }

    def restore(self, start: Mapping[str, ndarray]) -> list[Record]:
        """Put the stack where a snapshot stood; returns what had been measured."""
        at = start.get("epoch")
        epoch = int(at) if at is not None and at.ndim == 0 and at.dtype.kind == "i" else -1
        logged = np.array([one for one in self.recipe.logged_epochs() if one <= epoch])
        curves = [name for name in start if name.startswith("curves/")]
        like = {
            **dict.fromkeys(("parameters", *(f"state/{slot}" for slot in self.recipe.update.slots)), self.initial.flat),
            **dict.fromkeys(curves, np.empty((len(logged), len(self.seeds)))),
            "diverged_epoch": self.diverged_epoch,
            "streams": np.empty((len(self.seeds), 6), dtype=np.uint64),
            "epochs": logged,
            "seconds": np.array(0.0),
        }
        for name, array in like.items():
            if name not in start or (start[name].shape, start[name].dtype) != (array.shape, array.dtype):
                raise ValueError(f"start: {name} must be {array.dtype} of shape {array.shape}")
        if not (0 <= epoch <= self.recipe.epochs and np.array_equal(start["epochs"], logged) and curves):
            raise ValueError(f"start: epoch={epoch} does not go with the epochs that were logged")
        self.parameters.flat[...] = start["parameters"]
        self.diverged_epoch[...] = start["diverged_epoch"]
        return [
            Record(
                one,
                one * len(self.course.steps),
                {name.removeprefix("curves/"): start[name][i].copy() for name in curves},
            )
            for i, one in enumerate(logged.tolist())
        ]

    def collect(self, parts: list[_Advance]) -> dict[str, ndarray]:
        """Metrics of the whole stack (R,) from its chunks, NaN where a restart has diverged; notes which have."""
        metrics: dict[str, ndarray] = {}
        for part in parts:
            for name, values in part.metrics.items():
                metrics.setdefault(name, np.full(len(self.seeds), np.nan))[part.rows] = values
            for rows, epoch, parameters in part.lost:
                self.diverged_epoch[rows] = epoch
                self.parameters.flat[rows] = parameters
        return metrics

    def join(self, chunks: list[_Chunk]) -> None:
        """Put the chunks' parameters where they came from; one that has lost a restart has parted from the stack."""
        for chunk in chunks:
            self.parameters.flat[chunk.rows] = chunk.parameters.flat

    def finish(self, records: list[Record], seconds: float) -> Training:
        """The Training that these records belong to, of parameters that have been joined."""
        return Training(
            recipe=self.recipe,
            seeds=self.seeds,
            rates=self.rates,
            epochs=np.array([record.epoch for record in records]),
            steps=np.array([record.step for record in records]),
            curves={name: np.stack([record.metrics[name] for record in records]) for name in records[0].metrics},
            diverged_epoch=self.diverged_epoch,
            initial=self.initial,
            final=self.parameters,
            seconds=seconds,
        )


@dataclass(frozen=True)
class _Crew:
    """Those who train the chunks of a run.

    Attributes:
        advance: through epochs first..last, all chunks at the same time; measures them where logged.
        chunks: as they now are.
    """

    advance: Callable[[int, int, bool], list[_Advance]]
    chunks: Callable[[], list[_Chunk]]


@contextlib.contextmanager
def _crew(
    run: _Run, count: int, start: Mapping[str, ndarray] | None, told: Callable[[int], None] | None
) -> Iterator[_Crew]:
    """So many workers at most, of the kind that suits the run, with its chunks at hand."""
    with contextlib.ExitStack() as exits:
        crew = None
        if (several := run.processes(count)) > 1:
            with contextlib.suppress(NotSent):
                stack = run.chunks(several, PROCESS_WORK, start)
                crew = exits.enter_context(_processes(run.course, stack, several, told))
        if crew is None:
            stack = run.chunks(count, THREAD_WORK, start)
            crew = exits.enter_context(_threads(run.course, stack, count, told))
        yield crew


@contextlib.contextmanager
def _threads(course: _Course, stack: list[_Chunk], count: int, told: Callable[[int], None] | None) -> Iterator[_Crew]:
    """Threads, which take the chunks as they come."""
    workspaces: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    for _ in range(count):
        workspaces.put(Workspace(course.network, course.recipe.dtype))

    def advance_one(chunk: _Chunk, first: int, last: int, logged: bool) -> _Advance:
        workspace = workspaces.get()
        try:
            return course.advance(chunk, first, last, logged, workspace, told)
        finally:
            workspaces.put(workspace)

    with ThreadPoolExecutor(count) as pool:

        def advance(first: int, last: int, logged: bool) -> list[_Advance]:
            pending = [pool.submit(advance_one, chunk, first, last, logged) for chunk in stack]
            return [future.result() for future in pending]

        try:
            yield _Crew(advance, lambda: stack)
        finally:
            course.stopped = True  # after an interrupt the pool waits for its threads


@contextlib.contextmanager
def _processes(course: _Course, stack: list[_Chunk], count: int, told: Callable[[int], None] | None) -> Iterator[_Crew]:
    """Processes, each of which has its share of the chunks from start to end."""
    edges = [len(stack) * i // count for i in range(count + 1)]
    shares = [_Share(course, stack[first:last]) for first, last in pairwise(edges)]
    with holding(shares) as ask:
        shares.clear()  # all that they hold is with the processes
        stack.clear()
        yield _Crew(
            lambda *span: [part for parts in ask("advance", *span, told=told) for part in parts],
            lambda: [chunk for part in ask("chunks") for chunk in part],
        )


class _Share:
    """The chunks that a process trains, one after the other."""

    def __init__(self, course: _Course, chunks: list[_Chunk]) -> None:
        self._course, self._chunks = course, chunks

    @functools.cached_property
    def _workspace(self) -> Workspace:
        return Workspace(self._course.network, self._course.recipe.dtype)

    def advance(self, first: int, last: int, logged: bool, tell: Callable[[int], None] | None = None) -> list[_Advance]:
        return [self._course.advance(chunk, first, last, logged, self._workspace, tell) for chunk in self._chunks]

    def chunks(self) -> list[_Chunk]:
        return self._chunks


def iterate(
    recipe: Recipe,
    splits: Splits,
    workers: int | Literal["auto"] = 1,
    on_epoch: Callable[[int], None] | None = None,
    *,
    save: Callable[[Snapshot], None] | None = None,
    save_seconds: float = 600.0,
    start: Mapping[str, ndarray] | None = None,
) -> Generator[Record, None, Training]:
    """Train, yielding a Record at every logged epoch.

    A snapshot is a flat mapping of arrays, for `checkpoints.write`: parameters and every slot of the update rule
    (R, P), random streams, diverged_epoch, the curves so far, the epoch, the seconds, and an identity of recipe and
    data. A training that starts from one ends with the bits of one that never stopped, whatever its workers.

    Args:
        recipe: what to run.
        splits: "train", and "validation" and "test" where there are any.
        workers: at most so many threads, or processes where there is enough to do for them; "auto" is one per core.
            The bits of the result do not depend on it.
        on_epoch: is told, by a thread, how many restarts have gone through one more epoch.
        save: is handed a snapshot, after the first whole epoch from when one is due.
        save_seconds: wall time from one snapshot to when the next is due; 0 makes one of every epoch but the last.
        start: a snapshot to go on from, in place of the first epoch.

    Yields:
        A Record for epoch 0, every logged epoch and the last; with `start` those of before once more.

    Returns:
        The Training (the generator's return value).

    Raises:
        ValueError: for splits or recipes that do not fit together, and for a snapshot of others.
        RuntimeError: where one of the processes was killed.
    """
    check(recipe, splits, workers)
    count = _cores() if workers == "auto" else workers
    records: list[Record] = []
    seconds = 0.0  # without what the caller does between records
    done, pace = -1, 1e9  # the last epoch that is through; seconds that one takes, not yet known
    blas = BlasLimit()
    with blas:
        run = _Run(recipe, splits)
    if start is not None:
        if not np.array_equal(start.get("identity", ()), run.identity):
            raise ValueError("start: is a snapshot of another recipe or of other data")
        records, seconds, done = run.restore(start), float(start["seconds"]), int(start["epoch"])
    began = time.perf_counter()
    with _crew(run, count, start, on_epoch) as crew:
        seconds += time.perf_counter() - began
        yield from records
        if on_epoch and records:  # those after the last record are through as well
            on_epoch((done - records[-1].epoch) * int((run.diverged_epoch < 0).sum()))
        saved = time.perf_counter()
        for logged in recipe.logged_epochs()[len(records) :]:
            while done < logged:
                most = int(min(save_seconds / 10 / pace if save else np.inf, recipe.epochs))
                first, last = done + 1, min(logged, done + max(1, most))
                began = time.perf_counter()
                with blas:  # not across the yield: trainings may take turns
                    metrics = run.collect(crew.advance(first, last, last == logged))
                took = time.perf_counter() - began
                pace = took / (last - done) if done >= 0 else pace
                seconds, done = seconds + took, last
                if done == logged:
                    records.append(Record(done, done * len(run.course.steps), metrics))
                    yield records[-1]
                if save and done < recipe.epochs and time.perf_counter() - saved >= save_seconds:
                    save(run.snapshot(crew.chunks(), done, seconds, records))
                    saved = time.perf_counter()
        began = time.perf_counter()
        run.join(crew.chunks())
        seconds += time.perf_counter() - began
    return run.finish(records, seconds)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_recipe(
    recipe: Recipe,
    splits: Splits,
    workers: int | Literal["auto"] = 1,
    on_record: Callable[[Record], None] | None = None,
) -> Training:
    """Train to the end, showing each Record to `on_record`; arguments as for `iterate`."""
    records = iterate(recipe, splits, workers)
    while True:
        try:
            record = next(records)
        except StopIteration as end:
            return end.value
        if on_record:
            on_record(record)
