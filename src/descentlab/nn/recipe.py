"""What is run and what comes out: Recipe and splits in; Records, and at last a Training, out.

Step 0 is before the first update. Restart r of seed s has the seed s + r, and the bits of the lone run of that seed.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation
from descentlab.nn.descent import Descent
from descentlab.nn.diagnostics import LEVELS, measure
from descentlab.nn.initializers import Initializer, draw
from descentlab.nn.losses import TASKS, Loss, check_pair
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network, predict
from descentlab.nn.parameters import Parameters, tables_of
from descentlab.nn.updates import Update

Splits = Mapping[str, tuple[ndarray, ndarray]]  # "train", "validation", "test" -> inputs (N, n_0), targets (N, K)
EXPLODED = 1000.0  # a final training loss above so many times the first one
LOGGED_EPOCHS = 20  # how many epochs log_every="auto" logs at most: one logged epoch costs about one of training


@dataclass(frozen=True)
class Recipe:
    """One training run, and all its restarts.

    Attributes:
        layers: sizes n_0 .. n_L.
        activation, output, loss: of the network; the output is a key of OUTPUTS.
        initializer, output_initializer: of the hidden layers and of the last one.
        descent, update: which samples a step sees, and how the gradient moves the weights.
        learning_rate: on the mean gradient; several rates join the seeds on the stacked axis, rate by rate.
        epochs: passes over the training split.
        learning_rate_decay: factor per epoch.
        weight_decay: added to the weights' gradient as weight_decay W.
        seed, restarts: restart r has seed + r.
        dtype: "float64" or "float32".
        log_every: epochs between logged epochs; 0 and the last are always logged; "auto" logs up to 18 between, spread
            logarithmically.
        diagnostics: "basic" (norms per layer), "full" (all that nn.diagnostics lists) or "none".
        task: of losses.TASKS.
    """

    layers: tuple[int, ...]
    activation: Activation
    output: str
    loss: Loss
    initializer: Initializer
    output_initializer: Initializer
    descent: Descent
    update: Update
    learning_rate: float | tuple[float, ...]
    epochs: int
    learning_rate_decay: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    restarts: int = 1
    dtype: str = "float64"
    log_every: int | Literal["auto"] = "auto"
    diagnostics: str = "basic"
    task: str = "multiclass"

    @property
    def network(self) -> Network:
        """Shape and functions of the network."""
        return Network(self.layers, self.activation, self.output, self.loss)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates, one or several."""
        rate = self.learning_rate
        return tuple(rate) if isinstance(rate, Sequence) else (rate,)

    def stacked_axis(self) -> tuple[ndarray, ndarray]:
        """The seed and the learning rate of every restart on the stacked axis: (R,) each, rate by rate."""
        seeds = np.tile(self.seed + np.arange(self.restarts, dtype=np.int64), len(self.rates))
        return seeds, np.repeat(np.array(self.rates, dtype=np.float64), self.restarts)

    def draw(self) -> Parameters:
        """The initial parameters of all restarts; those of one seed are the same at every rate."""
        rules = [self.initializer] * (len(self.layers) - 2) + [self.output_initializer]
        parameters = Parameters.empty(self.layers, self.restarts * len(self.rates), self.dtype)
        for row in range(self.restarts):
            drawn = draw(rules, self.layers, self.seed + row)
            for theta, (weights, biases) in zip(parameters.theta, drawn, strict=True):
                theta[row :: self.restarts, :, :-1] = weights
                theta[row :: self.restarts, :, -1] = biases
        return parameters

    def measure(self, parameters: Parameters, splits: Splits) -> dict[str, ndarray]:
        """The metrics of a Record, name -> (R,), at these parameters; without update_ratio, which needs a step."""
        network, tables = self.network, tables_of(splits, self.dtype)
        return measure(network, parameters, tables, self.task, self.diagnostics, Workspace(network, self.dtype))

    def logged_epochs(self) -> list[int]:
        """The epochs after which everything is measured, 0 and the last among them."""
        if self.log_every != "auto":
            return sorted({*range(0, self.epochs, self.log_every), self.epochs})
        logged = [0]
        while (last := logged[-1]) < self.epochs:
            left = LOGGED_EPOCHS - len(logged)
            logged.append(max(last + 1, round(last * (self.epochs / max(last, 1)) ** (1 / left))))
        return logged


@dataclass(frozen=True)
class Record:
    """What was measured after an epoch: metric name -> (R,), NaN for a diverged restart."""

    epoch: int
    step: int
    metrics: dict[str, ndarray]


@dataclass(frozen=True)
class Training:
    """A finished training of R restarts.

    Attributes:
        recipe: what was run.
        seeds, rates: (R,), the seed and the learning rate of every restart.
        epochs, steps: (P,), the logged epochs and the updates made by then.
        curves: metric name -> (P, R) float64, NaN from a restart's divergence on.
        diverged_epoch: (R,), the epoch after which the loss was not finite, 0 for the start; -1 where it always was.
        initial, final: parameters of all restarts; a diverged restart keeps those it diverged with.
        seconds: wall time of training and measuring.
    """

    recipe: Recipe
    seeds: ndarray
    rates: ndarray
    epochs: ndarray
    steps: ndarray
    curves: dict[str, ndarray]
    diverged_epoch: ndarray
    initial: Parameters
    final: Parameters
    seconds: float

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        records: Sequence[Record],
        initial: Parameters,
        final: Parameters,
        diverged_epoch: ndarray | None = None,
        seconds: float = 0.0,
    ) -> "Training":
        """The training that records belong to; None for diverged_epoch finds it in their losses."""
        curves = {name: np.stack([record.metrics[name] for record in records]) for name in records[0].metrics}
        epochs = np.array([record.epoch for record in records])
        if diverged_epoch is None:
            lost = ~np.isfinite(curves["train/loss"])
            diverged_epoch = np.where(lost.any(axis=0), epochs[lost.argmax(axis=0)], -1)
        steps = np.array([record.step for record in records])
        return cls(recipe, *recipe.stacked_axis(), epochs, steps, curves, diverged_epoch, initial, final, seconds)

    @property
    def outcome(self) -> ndarray:
        """How each restart ended: (R,) of "finite", "diverged" and "exploded"."""
        return outcomes(self.curves["train/loss"], self.diverged_epoch, str(self.final.flat.dtype))

    @property
    def exploded(self) -> ndarray:
        """Which restarts ended with a finite training loss above EXPLODED times their first one: (R,) bool."""
        return self.outcome == "exploded"

    def predict(self, inputs: ndarray) -> ndarray:
        """The trained networks' answers to inputs (N, n_0): (R, N, K)."""
        return predict(self.recipe.network, self.final, inputs)


class Trainer(Protocol):
    """What trains. `trainer.iterate` is the one of this package; examples/own_trainer.py shows another.

    It is called with a recipe, splits, a number of workers and a function that may be told how many restarts have gone
    through one more epoch. It yields a Record at every epoch of `recipe.logged_epochs()`, 0 among them, and returns the
    Training. Of use: `recipe.draw()` for the initial parameters, `recipe.stacked_axis()` for the seed and the rate of
    each restart, `recipe.descent.order(stream(seed, ORDER_STREAM), N)` for its sample orders, `recipe.measure()` for
    the metrics, `Training.of()` for the result.

    A restart must not depend on the others of its stack, or a sweep that grows would not repeat itself. A trainer that
    takes `save` and `start` as `iterate` does can go on in the middle of a training; any other begins it anew. It is
    known by its `__name__`: runs of another name are not taken for its own.
    """

    __name__: str

    def __call__(
        self, recipe: Recipe, splits: Splits, workers: int | Literal["auto"], on_epoch: Callable[[int], None] | None, /
    ) -> Generator[Record, None, Training]:
        """Train, yielding Records."""
        ...


def outcomes(loss: ndarray, diverged_epoch: ndarray, dtype: str = "float64") -> ndarray:
    """How restarts ended.

    A first loss below the rounding error of 1 counts as that error: a restart that starts in an exact minimum does not
    explode by leaving it by a rounding error.

    Args:
        loss: (P, R), the training loss at every logged epoch.
        diverged_epoch: (R,), -1 where the loss was always finite.
        dtype: of the training.

    Returns:
        (R,) of "diverged" (the loss was not finite after some epoch), "exploded" (it is finite and ended above EXPLODED
        times its start; curves and weights are valid, but belong in no mean) and "finite".
    """
    diverged = (np.asarray(diverged_epoch) >= 0) | ~np.isfinite(loss[-1])
    first = np.maximum(loss[0], np.finfo(dtype).eps)
    exploded = np.divide(loss[-1], EXPLODED, where=~diverged, out=np.zeros(len(diverged))) > first
    return np.where(diverged, "diverged", np.where(exploded, "exploded", "finite"))


def explosions(loss: ndarray, outcome: ndarray) -> ndarray:
    """Where curves (P, R) belong to an explosion: of exploded restarts, from the first loss above the bound on.

    Args:
        loss: (P, R), the training loss at every logged epoch.
        outcome: (R,), as from `outcomes`; the last loss of an exploded restart counts in any case.
    """
    with np.errstate(invalid="ignore"):
        above = loss / EXPLODED > loss[0]
    above[-1] = True
    return np.logical_or.accumulate(above, axis=0) & (outcome == "exploded")


def check(recipe: Recipe, splits: Splits, workers: int | Literal["auto"]) -> None:
    """Refuse a recipe and splits that do not fit together.

    Raises:
        ValueError: in one line that names the key, the value and what would be valid.
    """
    if "train" not in splits:
        raise ValueError("splits: must hold train")
    for name, (x, y) in splits.items():
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
            raise ValueError(f"{name}: inputs {x.shape} and targets {y.shape} must be (N, n_0) and (N, K) with N > 0")
        if (x.shape[1], y.shape[1]) != (recipe.layers[0], recipe.layers[-1]):
            raise ValueError(f"layers={recipe.layers}: {name} has {x.shape[1]} inputs and {y.shape[1]} targets")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError(f"{name}: holds values that are not finite")
        check_pair(recipe.loss, recipe.output, recipe.layers[-1], y, recipe.task)
    whole = [("restarts", recipe.restarts, 1), ("epochs", recipe.epochs, 0), ("seed", recipe.seed, 0)]
    whole += [("layers", size, 1) for size in recipe.layers]
    whole += [(key, n, 1) for key, n in (("log_every", recipe.log_every), ("workers", workers)) if n != "auto"]
    for key, value, lowest in whole:
        if not (isinstance(value, (int, np.integer)) and value >= lowest):
            raise ValueError(f"{key}={value}: must be a whole number from {lowest}")
    if recipe.seed + recipe.restarts > 2**32:
        raise ValueError(f"seed={recipe.seed}: seeds must lie in [0, 2**32)")
    if not recipe.rates:
        raise ValueError("learning_rate=(): must hold a rate")
    numbers = [("learning_rate", rate) for rate in recipe.rates] + [("weight_decay", recipe.weight_decay)]
    for key, number in numbers:
        if not 0 <= number < np.inf:
            raise ValueError(f"{key}={number}: must be a finite number at or above 0")
    if not 0 < recipe.learning_rate_decay < np.inf:
        raise ValueError(f"learning_rate_decay={recipe.learning_rate_decay}: must be a finite number above 0")
    for key, name, choices in (
        ("dtype", recipe.dtype, ("float32", "float64")),
        ("diagnostics", recipe.diagnostics, LEVELS),
        ("task", recipe.task, TASKS),
    ):
        if name not in choices:
            raise ValueError(f"{key}={name}: not one of {', '.join(choices)}")
