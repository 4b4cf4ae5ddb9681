"""The workloads that speed is measured on, as recipes of the project and as plain arrays for its peers.

    W1  784-128-64-10, sigmoid outputs, squared error, one sample a step in file order over 250 samples
    W2  64-32-10, softmax and cross-entropy, 32 samples a step over 1797, every restart in its own order
    W3  ten hidden layers of 32 units, sigmoid or ReLU, all 1797 samples a step, 20 restarts
    W4  784-100-10, softmax and cross-entropy, 10 or 128 samples a step over 10 000
    W5  2-4-1 on XOR, binary cross-entropy, all four samples a step

Hidden units are sigmoid where nothing else is said. Rows of 64 inputs are scikit-learn's digits; rows of 784 are drawn
(four of five inputs 0, the rest uniform), because no time depends on what is in them and a benchmark should run
anywhere. Batches of an epoch are consecutive pieces of the restart's order, the last one short where need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS, ORDER_STREAM, default_initializer, stream
from descentlab.nn.losses import LOSSES
from descentlab.nn.parameters import Parameters
from descentlab.nn.recipe import Recipe
from descentlab.nn.updates import UPDATES

Weights = list[tuple[ndarray, ndarray]]  # per layer W (R, n_out, n_in) and b (R, n_out)


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    Attributes:
        name: W1 to W5.
        layers, activation, output, loss, rate: of the networks and their descent.
        samples: in the training split.
        batch: samples a step; None for all of them.
        shuffled: whether every restart goes through an order of its own; else through file order.
        restarts: R.
        epochs: a timed training's.
        usual_epochs: a real training's, over which compilation is spread.
        cores: that everybody may use.
    """

    name: str
    layers: tuple[int, ...]
    activation: str
    output: str
    loss: str
    rate: float
    samples: int
    batch: int | None
    shuffled: bool
    restarts: int
    epochs: int
    usual_epochs: int
    cores: int = 1

    @property
    def title(self) -> str:
        """What the line is called."""
        kind = {"W3": f" {self.activation}", "W4": f" B={self.batch}"}.get(self.name, "")
        return f"{self.name}{kind} R={self.restarts}" + (f", {self.cores} cores" if self.cores > 1 else "")

    @property
    def steps(self) -> list[tuple[int, int]]:
        """[start, stop) of an epoch's batches."""
        size = self.batch or self.samples
        return [(start, min(start + size, self.samples)) for start in range(0, self.samples, size)]

    def operations(self) -> float:
        """Floating-point operations of one network's epoch in matrix products: three a weight and sample, twice.

        Forward, the gradient of the weights, and the error handed back, which the first layer is spared.
        """
        sizes = [n_in * n_out for n_in, n_out in pairwise(self.layers)]
        return 2.0 * self.samples * (3 * sum(sizes) - sizes[0])

    def recipe(self, dtype: str, epochs: int, restarts: int | None = None, log_every: int | None = None) -> Recipe:
        """What the project runs: nothing is measured but the training loss at logged epochs."""
        name = "batch" if self.batch is None else "mini_batch" if self.shuffled else "sequential"
        numbers = {"batch_size": self.batch} if name == "mini_batch" else {}
        return Recipe(
            layers=self.layers,
            activation=ACTIVATIONS[self.activation](),
            output=self.output,
            loss=LOSSES[self.loss],
            initializer=INITIALIZERS[default_initializer(self.activation)](),
            output_initializer=INITIALIZERS["glorot_uniform"](),
            descent=DESCENTS[name](**numbers),
            update=UPDATES["gradient_descent"](),
            learning_rate=self.rate,
            epochs=epochs,
            restarts=self.restarts if restarts is None else restarts,
            dtype=dtype,
            log_every=log_every or max(1, epochs),
            diagnostics="none",
            task="binary" if self.layers[-1] == 1 else "multiclass",
        )

    def data(self, dtype: str) -> tuple[ndarray, ndarray]:
        """Inputs (N, n_0) and targets (N, K)."""
        x, y = _data(self.layers[0], self.samples)
        return x.astype(dtype), y.astype(dtype)

    def orders(self, restarts: int, epochs: int) -> ndarray:
        """The orders that the project's restarts 0 .. R-1 go through: (R, epochs, N)."""
        if not self.shuffled:
            return np.broadcast_to(np.arange(self.samples), (restarts, epochs, self.samples))
        streams = [stream(seed, ORDER_STREAM) for seed in range(restarts)]
        return np.stack([[one.permutation(self.samples) for _ in range(epochs)] for one in streams])

    def quick(self) -> "Workload":
        """The same with little to do."""
        rows = min(self.samples, 40)
        return replace(self, samples=rows, restarts=min(self.restarts, 3), epochs=2, usual_epochs=2)


def plain(parameters: Parameters) -> Weights:
    """Parameters as contiguous arrays per layer."""
    return [(np.ascontiguousarray(W), np.ascontiguousarray(b)) for W, b in zip(parameters.W, parameters.b, strict=True)]


@cache
def _data(inputs: int, samples: int) -> tuple[ndarray, ndarray]:
    if inputs == 2:
        return np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    if inputs == 64:
        from sklearn.datasets import load_digits

        x, labels = load_digits(return_X_y=True)
        x, labels = x[:samples] / 16, labels[:samples]
    else:
        generator = np.random.default_rng(0)
        x = generator.random((samples, inputs)) * (generator.random((samples, inputs)) < 0.2)
        labels = generator.permutation(np.arange(samples) % 10)
    return x, np.eye(10)[labels]


_DIGITS = {"samples": 1797, "output": "softmax", "loss": "categorical_cross_entropy", "usual_epochs": 30}
_W2 = {"name": "W2", "layers": (64, 32, 10), "activation": "sigmoid", "rate": 0.5, "batch": 32, "shuffled": True}
_W3 = {"name": "W3", "layers": (64, *[32] * 10, 10), "rate": 0.1, "batch": None, "shuffled": False, "restarts": 20}
_W4 = {"name": "W4", "layers": (784, 100, 10), "activation": "sigmoid", "rate": 0.5, "shuffled": True}
_W5 = {"name": "W5", "layers": (2, 4, 1), "activation": "sigmoid", "rate": 1.0, "batch": None, "shuffled": False}
_W5 |= {"samples": 4, "output": "sigmoid", "loss": "binary_cross_entropy", "usual_epochs": 2000}

WORKLOADS: Sequence[Workload] = (
    Workload("W1", (784, 128, 64, 10), "sigmoid", "sigmoid", "mean_squared_error", 1.2, 250, 1, False, 1, 3, 25),
    *(Workload(**_W2, **_DIGITS, restarts=R, epochs=epochs) for R, epochs in ((1, 10), (10, 6), (100, 3), (1000, 1))),
    Workload(**_W2, **_DIGITS, restarts=1000, epochs=1, cores=2),
    Workload(**_W3, **_DIGITS, activation="sigmoid", epochs=2),
    Workload(**_W3, **_DIGITS, activation="relu", epochs=2),
    *(
        Workload(**_W4, **{**_DIGITS, "samples": 10_000}, batch=batch, restarts=R, epochs=1)
        for batch, R in ((10, 1), (10, 10), (128, 1), (128, 10))
    ),
    *(Workload(**_W5, restarts=R, epochs=epochs) for R, epochs in ((1, 4000), (100, 2000), (10_000, 200))),
)
