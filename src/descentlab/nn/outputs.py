"""Output functions: from z of the last layer to the network's answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation, logistic, quick_logistic
from descentlab.nn.registry import Named, table


@dataclass(frozen=True)
class Output(Named):
    """An output function, from the last layer's z to the network's answer a.

    Attributes:
        name: its key in OUTPUTS.
        value: `value(z) -> a`, shape (..., K).
        pullback: `pullback(a, g, out=None) -> dC/dz` for g = dC/da, both (..., K): the Jacobian's transpose times g, in
            `out` where that is given, which may be any of the two.
        pullback_derivative: `pullback_derivative(a, g, da)`, how pullback(a, g) changes along da with g held fixed.
        numerics: as an Activation's; it covers the losses over this output too.
    """

    name: str
    value: Callable[[ndarray], ndarray]
    pullback: Callable[..., ndarray]
    pullback_derivative: Callable[[ndarray, ndarray, ndarray], ndarray]
    numerics: tuple[int, int] = (1, 1)


def _sigmoid(z: ndarray) -> ndarray:
    return logistic(z, np.empty_like(z))


_sigmoid.quick = lambda z: quick_logistic(z, np.empty_like(z))  # type: ignore[attr-defined]


def softmax(z: ndarray) -> ndarray:
    """exp(z_k) / sum_j exp(z_j) along the last axis, shifted by the maximum so that nothing overflows."""
    a = z - z.max(axis=-1, keepdims=True)
    np.exp(a, out=a)
    a /= a.sum(axis=-1, keepdims=True)
    return a


def _linear_pullback(a: ndarray, g: ndarray, out: ndarray | None = None) -> ndarray:
    return np.positive(g, out=out)


def _sigmoid_pullback(a: ndarray, g: ndarray, out: ndarray | None = None) -> ndarray:
    return np.multiply(g * a, 1.0 - a, out=out)


def _softmax_pullback(a: ndarray, g: ndarray, out: ndarray | None = None) -> ndarray:
    return np.multiply(a, g - (a * g).sum(axis=-1, keepdims=True), out=out)


def _softmax_pullback_derivative(a: ndarray, g: ndarray, da: ndarray) -> ndarray:
    return da * (g - (a * g).sum(axis=-1, keepdims=True)) - a * (da * g).sum(axis=-1, keepdims=True)


OUTPUTS: dict[str, Output] = table(
    "output",
    Output("linear", lambda z: z, _linear_pullback, lambda a, g, da: np.zeros_like(da)),
    Output(
        "sigmoid",
        _sigmoid,
        _sigmoid_pullback,
        lambda a, g, da: g * (1.0 - 2.0 * a) * da,
        numerics=(1, 2),
    ),
    Output("softmax", softmax, _softmax_pullback, _softmax_pullback_derivative),
)


def numerics(activation: Activation, output: Output, dtype: str) -> int:
    """Which version of the bits networks of these functions have: 1, and one more for every change since."""
    place = ("float64", "float32").index(dtype)
    return activation.numerics[place] + output.numerics[place] - 1
