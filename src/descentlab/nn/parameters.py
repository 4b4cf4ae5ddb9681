"""The parameters of R networks and the tables of a split, as training and its checks read them.

* All parameters of a restart are one row, so that an update rule is one operation on one array.
* Biases are a last column of the weights and inputs carry a column of ones: no separate add, no separate row sum.
* The first layer's weights are stored (in, out), because its inputs are batch-major; all others (out, in).
* Tiny networks lie restart-last, (P, R).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy import ndarray

TINY = 64  # parameters up to which whole stacks are multiplied number by number: a call per matrix costs more


class Parameters:
    """The parameters of R networks: one array, seen layer by layer.

    Attributes:
        layers: the sizes n_0 .. n_L.
        flat: (R, P), all parameters of a restart in one row.
        theta: per layer (R, n_out, n_in + 1), views into flat; the last column is the bias.
    """

    def __init__(self, layers: Sequence[int], flat: ndarray) -> None:
        """See `flat` (R, P) as the parameters of networks with these layer sizes; nothing is copied."""
        self.layers = tuple(layers)
        self.flat = flat
        self.theta: list[ndarray] = []
        start = 0
        for layer, (n_in, n_out) in enumerate(pairwise(layers)):
            part = flat[:, start : start + (n_in + 1) * n_out]
            start += (n_in + 1) * n_out
            if layer:
                self.theta.append(part.reshape(-1, n_out, n_in + 1))
            else:  # its inputs are batch-major
                self.theta.append(part.reshape(-1, n_in + 1, n_out).mT)

    @classmethod
    def empty(cls, layers: Sequence[int], restarts: int, dtype: str) -> "Parameters":
        """Parameters of R networks, not yet set."""
        return cls(layers, np.empty((restarts, parameter_count(layers)), dtype, order="F" if tiny(layers) else "C"))

    @classmethod
    def stacked(cls, arrays: Mapping[str, ndarray]) -> "Parameters":
        """The parameters of R networks, float64, from copies of their W1, b1, W2, ...: (R, n_out, n_in), (R, n_out)."""
        weights = [arrays[f"W{layer}"] for layer in range(1, 1 + sum(name.startswith("W") for name in arrays))]
        sizes = [weights[0].shape[-1], *(layer.shape[-2] for layer in weights)]
        parameters = cls.empty(sizes, len(weights[0]), "float64")
        for layer, (into, bias) in enumerate(zip(parameters.W, parameters.b, strict=True)):
            into[...], bias[...] = weights[layer], arrays[f"b{layer + 1}"]
        return parameters

    @cached_property
    def W(self) -> list[ndarray]:
        """Weights per layer, (R, n_out, n_in), views."""
        return [theta[..., :-1] for theta in self.theta]

    @property
    def b(self) -> list[ndarray]:
        """Biases per layer, (R, n_out), views."""
        return [theta[..., -1] for theta in self.theta]

    def __len__(self) -> int:
        """R, the number of networks."""
        return len(self.flat)

    def __getitem__(self, rows: slice | ndarray) -> "Parameters":
        """The same networks restricted to some restarts: a view for a slice, a copy for an index array."""
        return Parameters(self.layers, self.flat[rows])

    def __reduce__(self) -> tuple[type, tuple[tuple[int, ...], ndarray]]:
        """Pickled without the views, in the same order of memory."""
        return Parameters, (self.layers, self.flat if self.flat.flags.forc else self.flat.copy(order="K"))

    def copy(self) -> "Parameters":
        """An independent copy."""
        return Parameters(self.layers, self.flat.copy())

    @cached_property
    def theta_T(self) -> list[ndarray]:
        """Each theta[l] transposed, (R, n_in + 1, n_out), views."""
        return [theta.mT for theta in self.theta]

    @cached_property
    def weight_mask(self) -> ndarray:
        """(P,), 1 where a parameter is a weight and 0 where it is a bias."""
        mask = Parameters(self.layers, np.ones((1, self.flat.shape[1]), dtype=self.flat.dtype))
        for bias in mask.b:
            bias[...] = 0
        return mask.flat[0]


def parameter_count(layers: Sequence[int]) -> int:
    """P, weights and biases of one network with these layer sizes."""
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(layers))


def tiny(layers: Sequence[int]) -> bool:
    """Whether networks of this shape lie restart-last; three outputs would add up in an order that R decides."""
    return parameter_count(layers) <= TINY and layers[-1] <= 2


def input_table(inputs: ndarray, dtype: str) -> ndarray:
    """Inputs (N, n_0) as a table (N, n_0 + 1) whose last column of ones carries the first layer's biases."""
    table = np.ones((inputs.shape[0], inputs.shape[1] + 1), dtype=dtype)
    table[:, :-1] = inputs
    return table


def target_table(targets: ndarray, dtype: str) -> ndarray:
    """Targets (N, K) in the memory order of the output layer."""
    return np.asfortranarray(targets, dtype=dtype)


def tables_of(splits: Mapping[str, tuple[ndarray, ndarray]], dtype: str) -> dict[str, tuple[ndarray, ndarray]]:
    """Inputs (N, n_0) and targets (N, K) of every split as such tables."""
    return {name: (input_table(x, dtype), target_table(y, dtype)) for name, (x, y) in splits.items()}
