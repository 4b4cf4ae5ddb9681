"""The training loop: R restarts of one recipe as chunks of stacked arrays, yielding plain records.

Top to bottom: `iterate` advances all chunks from one logged epoch to the next; `_Epochs.advance` trains one chunk for
some epochs and measures it; `_Steps.take` goes through the samples once. `stack` cuts the restarts into chunks and
`pool` runs these in threads or processes, which alters no bit.

Conventions: learning_rate multiplies the mean gradient over the step's samples, and is multiplied by
learning_rate_decay after every epoch; weight_decay adds weight_decay W to the gradient of the weights, never of the
biases. Step 0 is before the first update. A restart with seed s is the same bits whatever it is trained beside.
"""

import functools
import time
from collections.abc import Callable, Generator, Mapping
from typing import Literal

import numpy as np
from numpy import ndarray

from descentlab.nn.blas import BlasLimit
from descentlab.nn.diagnostics import Tables, measure
from descentlab.nn.memory import Call, Workspace, subtracts_in_place
from descentlab.nn.overflow import Bounds
from descentlab.nn.parameters import Parameters, tables_of
from descentlab.nn.pool import Tell, pool
from descentlab.nn.program import gradient_calls
from descentlab.nn.recipe import Recipe, Record, Splits, Trainer, Training, check
from descentlab.nn.stack import Advance, Chunk, Snapshot, Stack
from descentlab.nn.updates import subtract
from descentlab.nn.workers import cores


def iterate(
    recipe: Recipe,
    splits: Splits,
    workers: int | Literal["auto"] = 1,
    on_epoch: Tell | None = None,
    *,
    save: Callable[[Snapshot], None] | None = None,
    save_seconds: float = 600.0,
    start: Mapping[str, ndarray] | None = None,
) -> Generator[Record, None, Training]:
    """Train, yielding a Record at every logged epoch: the Trainer of this package.

    A snapshot is a flat mapping of arrays, for `checkpoints.write`: parameters and every slot of the update rule
    (R, P), random streams, diverged_epoch, the curves so far, the epoch, the seconds, and an identity of recipe and
    data. A training that starts from one ends with the bits of one that never stopped, whatever its workers.

    Args:
        recipe: what to run.
        splits: "train", and "validation" and "test" where there are any.
        workers: at most so many threads, or processes where there is enough to do for them; "auto" is one per core.
            The bits of the result do not depend on it.
        on_epoch: gets, in a thread, the number of restarts that have finished one more epoch.
        save: gets a snapshot after the first whole epoch in which one is due.
        save_seconds: wall time between snapshots; 0 makes one of every epoch but the last.
        start: a snapshot to continue from.

    Yields:
        A Record for epoch 0, every logged epoch and the last; with `start` the earlier ones again.

    Returns:
        The Training (the generator's return value).

    Raises:
        ValueError: for splits or recipes that do not fit together, and for a snapshot of others.
        RuntimeError: where one of the processes was killed.
    """
    check(recipe, splits, workers)
    records: list[Record] = []
    done, pace = -1, 1e9  # the last finished epoch; seconds an epoch takes, not yet known
    clock, blas = _Clock(), BlasLimit()
    with blas:
        tables = tables_of(splits, recipe.dtype)
        stack, epochs = Stack(recipe, tables), _Epochs(recipe, tables)
    if start is not None:
        records, done = stack.restore(start), int(start["epoch"])
        clock.seconds = float(start["seconds"])
    began = time.perf_counter()
    with pool(epochs.advance, stack, cores() if workers == "auto" else workers, start, on_epoch) as team:
        clock.seconds += time.perf_counter() - began
        yield from records
        if on_epoch and records:  # epochs finished after the last record
            on_epoch((done - records[-1].epoch) * int((stack.diverged_epoch < 0).sum()))
        saved = time.perf_counter()
        for logged in recipe.logged_epochs()[len(records) :]:
            while done < logged:
                most = int(min(save_seconds / 10 / pace if save else np.inf, recipe.epochs))
                first, last = done + 1, min(logged, done + max(1, most))
                with clock, blas:  # not across the yield: several generators may take turns
                    metrics = stack.collect(team.advance(first, last, last == logged))
                pace = clock.last / (last - done) if done >= 0 else pace
                done = last
                if done == logged:
                    records.append(Record(done, done * len(stack.steps), metrics))
                    yield records[-1]
                if save and done < recipe.epochs and time.perf_counter() - saved >= save_seconds:
                    save(stack.snapshot(team.chunks(), done, clock.seconds, records))
                    saved = time.perf_counter()
        with clock:
            chunks = team.chunks()
    return stack.finish(chunks, records, clock.seconds)


def train_recipe(
    recipe: Recipe,
    splits: Splits,
    workers: int | Literal["auto"] = 1,
    on_record: Callable[[Record], None] | None = None,
    trainer: Trainer = iterate,
) -> Training:
    """Train to the end and pass each Record to `on_record`; other arguments as for `iterate`."""
    records = trainer(recipe, splits, workers, None)
    while True:
        try:
            record = next(records)
        except StopIteration as end:
            return end.value
        if on_record:
            on_record(record)


class _Epochs:
    """One recipe on one set of splits: what each epoch does to a chunk."""

    def __init__(self, recipe: Recipe, tables: Tables) -> None:
        self.recipe, self.tables = recipe, tables
        self.inputs, self.targets = tables["train"]
        self.steps = recipe.descent.steps(len(self.inputs))
        self.bounds = Bounds(recipe.layers, recipe.activation, self.inputs, self.targets)

    def advance(self, chunk: Chunk, first: int, last: int, logged: bool, workspace: Workspace, tell: Tell) -> Advance:
        """Train a chunk through epochs first..last, where epoch 0 is the start as it is; measure it where logged."""
        lost = []
        metrics: dict[str, ndarray] = {}
        with np.errstate(all="ignore"):  # a diverging restart overflows; its loss shows it
            steps = None
            for epoch in range(first, last + 1):
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
                if epoch:
                    tell(restarts)
            if logged:
                recipe, following = self.recipe, functools.partial(self._change, chunk, last + 1)
                metrics = measure(
                    recipe.network, chunk.parameters, self.tables, recipe.task, recipe.diagnostics, workspace, following
                )
        return Advance(chunk.rows, metrics, lost)

    def rates(self, chunk: Chunk, epoch: int) -> ndarray:
        """The learning rate of every restart in an epoch: (r, 1)."""
        return chunk.rates.astype(self.recipe.dtype)[:, None] * self.recipe.learning_rate_decay ** (epoch - 1)

    def _change(self, chunk: Chunk, epoch: int, slope: Parameters) -> Parameters:
        """How the parameters would move in the first step of an epoch, were this its mean gradient."""
        recipe, moved = self.recipe, chunk.parameters.copy()
        rates = self.rates(chunk, epoch)
        pull = slope.flat + recipe.weight_decay * (moved.flat * moved.weight_mask)
        scale, rate = (rates, 1.0) if recipe.update.takes_scaled else (1.0, rates)
        state = {slot: values.copy() for slot, values in chunk.state.items()}
        recipe.update.apply(moved.flat, scale * pull, state, rate, chunk.step + 1)
        moved.flat -= chunk.parameters.flat
        return moved

    def _finite(self, chunk: Chunk, workspace: Workspace) -> ndarray:
        """Which restarts' training loss is finite: (r,)."""
        surely = self.bounds.hold(chunk.parameters.flat)
        if surely.all():
            return surely
        train = {"train": self.tables["train"]}
        task, network = self.recipe.task, self.recipe.network
        return np.isfinite(measure(network, chunk.parameters, train, task, "none", workspace)["train/loss"])


class _Steps:
    """The steps of one chunk: bound to its arrays once, called in every epoch."""

    def __init__(self, epochs: "_Epochs", chunk: Chunk, workspace: Workspace) -> None:
        recipe, restarts = epochs.recipe, len(chunk.rows)
        self.epochs, self.chunk, self.workspace = epochs, chunk, workspace
        self.parameters = chunk.parameters
        plain = recipe.update.apply is subtract and not recipe.weight_decay
        self.in_place = plain and subtracts_in_place(recipe.layers, epochs.steps[0][1])
        alike = not recipe.update.takes_scaled or bool((chunk.rates == chunk.rates[0]).all())
        self.rates = epochs.rates(chunk, 1)
        self.scales: dict[int, ndarray] = {}  # by the samples of a step
        self.calls: dict[int, list[Call]] = {}
        for samples in {stop - start for start, stop in epochs.steps}:
            self.scales[samples] = scale = np.empty(() if alike else (restarts, 1, 1), recipe.dtype)
            x, y = epochs.inputs, epochs.targets
            if len(epochs.steps) > 1 or chunk.orders:
                x, y = workspace.batch(samples, restarts if chunk.orders else None)
            self.calls[samples] = gradient_calls(
                recipe.network, self.parameters, x, y, scale, workspace, subtracted=self.in_place
            )
        self.gradient = workspace.gradient(restarts).flat
        self.surely_finite = epochs.bounds.glance(self.parameters.flat)
        self._set_rates(1)

    def _set_rates(self, epoch: int) -> None:
        self.rates[...] = self.epochs.rates(self.chunk, epoch)
        for samples, scale in self.scales.items():
            rates = self.rates[:, :, None] if self.epochs.recipe.update.takes_scaled else np.ones_like(self.rates)
            scale[...] = (rates if scale.ndim else rates.flat[0]) / samples

    def take(self, epoch: int) -> None:
        """Go through all samples once."""
        epochs, chunk, parameters = self.epochs, self.chunk, self.parameters
        recipe, update = epochs.recipe, epochs.recipe.update
        if recipe.learning_rate_decay != 1.0:
            self._set_rates(epoch)
        rate = 1.0 if update.takes_scaled else self.rates
        order = None
        if chunk.orders:
            samples = len(epochs.inputs)
            order = np.stack([recipe.descent.order(generator, samples) for generator in chunk.orders])  # (r, N)
        for start, stop in epochs.steps:
            chunk.step += 1
            if order is not None:
                self.workspace.gather(epochs.inputs, epochs.targets, order[:, start:stop])
            elif len(epochs.steps) > 1:
                self.workspace.gather(epochs.inputs, epochs.targets, slice(start, stop))
            for call in self.calls[stop - start]:  # forward and backward; in place, the update too
                call()
            if self.in_place:
                continue
            if recipe.weight_decay:
                decay = recipe.weight_decay * (self.rates if update.takes_scaled else 1.0)
                self.gradient += decay * (parameters.flat * parameters.weight_mask)
            update.apply(parameters.flat, self.gradient, chunk.state, rate, chunk.step)


class _Clock:
    """Seconds spent in its context, in total and the last time."""

    seconds = last = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.last = time.perf_counter() - self._began
        self.seconds += self.last
