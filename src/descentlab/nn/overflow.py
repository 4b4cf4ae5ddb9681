"""Bounds on parameters within which no loss overflows: cheap to check, where measuring the loss costs a forward pass.

Two bounds, either of which is enough. With every |parameter| <= s, z and a are followed layer by layer,
|z| <= s (n_in + 1) max(|a|, 1), which bounded activations keep small at any depth. With |theta| <= S in the Euclidean
norm of all parameters of a network, |z[l]| <= |theta[l]| |(a[l-1], 1)| and |a| <= k |z| + |phi(0)| sqrt(n), so that
|z[L]| <= |(x, 1)| prod_l (k |theta[l]| + c), which is largest for equal factors: (k S / sqrt(L) + c)^L. This one stays
useful for deep networks of unbounded activations.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation

ROOM = 0.01  # of the largest number, for rounding
GRID = 1.2  # ratio of neighbours on the grid on which an activation's steepness is looked for


class Bounds:
    """For networks of one shape on one split.

    Attributes:
        size: the largest |parameter| with which no z, a or loss can overflow.
        norm: the Euclidean norm of all parameters of a network, likewise.
    """

    def __init__(self, layers: Sequence[int], activation: Activation, inputs: ndarray, targets: ndarray) -> None:
        """Find them.

        Args:
            layers: the sizes n_0 .. n_L.
            activation: of the hidden layers.
            inputs: (N, n_0 + 1), with the ones.
            targets: (N, K).
        """
        limit = ROOM * float(np.finfo(inputs.dtype).max)
        largest = float(np.abs(targets).max())
        reach = np.sqrt(limit / (len(inputs) * layers[-1])) - largest  # of z, whose squares the loss may add up
        with np.errstate(all="ignore"):
            self.size = _size(layers, activation, float(np.abs(inputs).max()), limit, reach)
            rows = np.square(inputs, dtype=np.float64).sum(axis=1)
            self.norm = _norm(layers, activation, float(np.sqrt(rows.max())), reach, inputs.dtype)

    def glance(self, flat: ndarray) -> Callable[[], bool]:
        """A function that says in a microsecond whether all parameters (R, P) surely keep a bound at that moment."""
        if not flat.flags.forc:
            return lambda: False
        line, most = flat.ravel(order="K"), max(self.size, self.norm) ** 2
        return lambda: bool(line.dot(line) <= most)  # the norm of all together is seldom too large

    def hold(self, flat: ndarray) -> ndarray:
        """Which restarts of parameters (R, P) keep a bound: (R,), bool."""
        small = np.maximum(flat.max(axis=1), -flat.min(axis=1)) <= self.size
        return small | (np.square(flat).sum(axis=1) <= self.norm**2)


def _size(layers: Sequence[int], activation: Activation, start: float, limit: float, most: float) -> float:
    sizes = np.geomspace(1e-3, np.sqrt(limit), 200)
    shares = np.linspace(-1.0, 1.0, 17)[:, None]
    reach = worst = np.full(len(sizes), start)
    for layer, n_in in enumerate(layers[:-1]):
        if layer:
            z = shares * reach
            reach = 2.0 * np.abs(activation(z)).max(axis=0)  # 2: for what lies between
            worst = np.maximum(worst, reach)
        reach = sizes * (n_in + 1) * np.maximum(reach, 1.0)
        worst = np.maximum(worst, reach)
    safe = (worst < limit) & (reach < most)
    return float(sizes[safe.argmin() - 1]) if safe[0] else 0.0


def _norm(layers: Sequence[int], activation: Activation, start: float, most: float, dtype: np.dtype) -> float:
    if not 1.0 <= start < most:  # the ones alone have norm 1
        return 0.0
    t = np.geomspace(1e-4, most, 2 + int(np.log(most / 1e-4) / np.log(GRID)))
    z = np.r_[0.0, t, -t].astype(dtype)
    value = activation(z).astype(np.float64)
    steepest = float((np.abs(value[1:] - value[0]) / np.r_[t, t]).max())
    factor = GRID * max(steepest, 1.0)  # 1: the output layer has no activation; GRID: for what lies between
    constant = abs(float(value[0])) * np.sqrt(max(layers[1:-1], default=0)) + 1.0
    depth = len(layers) - 1
    norm = np.sqrt(depth) / factor * ((most / start) ** (1.0 / depth) - constant)
    return float(norm) if norm > 0 else 0.0  # also where a value is not finite
