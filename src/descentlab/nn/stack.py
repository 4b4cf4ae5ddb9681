"""The stacked restarts of a recipe: drawn, cut into chunks and joined again; snapshots of their state."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

from descentlab.nn import checkpoints
from descentlab.nn.diagnostics import Tables
from descentlab.nn.initializers import ORDER_STREAM, stream
from descentlab.nn.memory import chunks
from descentlab.nn.parameters import Parameters
from descentlab.nn.recipe import Recipe, Record, Training
from descentlab.nn.updates import State

Snapshot = dict[str, ndarray]  # see `trainer.iterate`


@dataclass
class Chunk:
    """Restarts that are trained together.

    Attributes:
        rows: (r,), their places in the stack.
        parameters, state: of the networks and of the update rule, (r, P) each.
        rates: (r,), learning rates.
        orders: a stream of sample orders per restart; none where the descent does not shuffle.
        step: updates made so far.
    """

    rows: ndarray
    parameters: Parameters
    state: State
    rates: ndarray
    orders: list[np.random.Generator] = field(default_factory=list)
    step: int = 0

    def keep(self, kept: ndarray) -> None:
        """Keep some of the restarts, as copies in a smaller stack."""
        self.rows, self.rates = self.rows[kept], self.rates[kept]
        self.parameters = self.parameters[kept]
        self.state = {slot: values[kept] for slot, values in self.state.items()}
        if self.orders:
            self.orders = [order for order, keep in zip(self.orders, kept, strict=True) if keep]


@dataclass(frozen=True)
class Advance:
    """The result of training a chunk: the metrics of its finite restarts, and those that have diverged.

    Attributes:
        rows: (r,), the places of the finite restarts.
        metrics: name -> (r,); empty where nothing was measured.
        lost: rows, the epoch after which they had diverged, and their parameters (r, P) then.
    """

    rows: ndarray
    metrics: dict[str, ndarray]
    lost: list[tuple[ndarray, int, ndarray]]


class Stack:
    """The restarts of a recipe on one set of splits."""

    def __init__(self, recipe: Recipe, tables: Tables) -> None:
        """Draw the initial parameters of all restarts."""
        self.recipe, self.tables = recipe, tables
        self.samples = len(tables["train"][0])
        self.steps = recipe.descent.steps(self.samples)
        self.seeds, self.rates = recipe.stacked_axis()
        self.parameters = recipe.draw()
        self.initial = self.parameters.copy()
        self.diverged_epoch = np.full(len(self.seeds), -1, dtype=np.int64)

    def chunks(self, workers: int, least: int, start: Mapping[str, ndarray] | None = None) -> list[Chunk]:
        """The stack cut into chunks, each with its optimizer state and its restarts' own sample orders.

        Args:
            workers: that will take the chunks.
            least: work that pays for one, as for `memory.chunks`.
            start: a snapshot that the stack has been restored from, however it was cut.
        """
        recipe = self.recipe
        cut = []
        batch = self.steps[0][1]
        for rows in chunks(len(self.seeds), recipe.layers, batch, recipe.dtype, workers, least):
            parameters = self.parameters[rows]
            if not parameters.flat.flags.forc:  # of a restart-last stack: in one piece it is looked at in one call
                parameters = Parameters(recipe.layers, parameters.flat.copy(order="K"))
            seeds = self.seeds[rows] if recipe.descent.shuffled else ()
            orders = [stream(int(seed), ORDER_STREAM) for seed in seeds]
            state = recipe.update.init(parameters.flat)
            chunk = Chunk(np.arange(rows.start, rows.stop), parameters, state, self.rates[rows], orders)
            if start is not None:
                for slot, values in state.items():
                    values[...] = start[f"state/{slot}"][rows]
                if orders:
                    checkpoints.set_streams(orders, start["streams"][rows])
                chunk.step = int(start["epoch"]) * len(self.steps)
                kept = self.diverged_epoch[rows] < 0
                if not kept.all():
                    chunk.keep(kept)
            cut.append(chunk)
        return cut

    def collect(self, parts: Sequence[Advance]) -> dict[str, ndarray]:
        """Metrics of the whole stack (R,) from its chunks, NaN where a restart has diverged; records which have."""
        metrics: dict[str, ndarray] = {}
        for part in parts:
            for name, values in part.metrics.items():
                metrics.setdefault(name, np.full(len(self.seeds), np.nan))[part.rows] = values
            for rows, epoch, parameters in part.lost:
                self.diverged_epoch[rows] = epoch
                self.parameters.flat[rows] = parameters
        return metrics

    def finish(self, chunks: Sequence[Chunk], records: Sequence[Record], seconds: float) -> Training:
        """The Training that these records and the chunks in their last state belong to."""
        for chunk in chunks:
            self.parameters.flat[chunk.rows] = chunk.parameters.flat
        return Training.of(self.recipe, records, self.initial, self.parameters, self.diverged_epoch, seconds)

    # --- snapshots ---------------------------------------------------------------------------------------------------

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
        for name, (x, y) in self.tables.items():
            parts += [f"{name} {x.shape} {y.shape}", x, y]
        return checkpoints.digest([*parts, self.seeds, self.rates, self.initial.flat])

    def snapshot(self, chunks: Sequence[Chunk], epoch: int, seconds: float, records: Sequence[Record]) -> Snapshot:
        """Copies of everything that later epochs depend on, and of all measurements so far."""
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
        """Set the stack to a snapshot; returns its records.

        Raises:
            ValueError: for a snapshot of another recipe or of other data, and for an incomplete one.
        """
        if not np.array_equal(start.get("identity", ()), self.identity):
            raise ValueError("start: is a snapshot of another recipe or of other data")
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
                one * len(self.steps),
                {name.removeprefix("curves/"): start[name][i].copy() for name in curves},
            )
            for i, one in enumerate(logged.tolist())
        ]
