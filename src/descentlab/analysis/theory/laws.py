"""Exact laws: the chance of a dead ReLU network, and the modes of a linear network while it learns."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike


def born_dead_probability(widths: Sequence[int]) -> float:
    """Probability that a layer of a ReLU network is all zero for one non-zero input: 1 - prod_l (1 - 2^-N_l).

    Exact for continuous symmetric weights and zero biases: given a non-zero input to its layer, each unit is off with
    probability 1/2, independently of the others (Lu et al. 2019; Rister & Rubin 2020). A network that is dead on an
    interval of inputs is dead on each of them, so this is an upper bound for the interval.

    Args:
        widths: N_l of the hidden layers.
    """
    return float(-np.expm1(np.log1p(-np.exp2(-np.asarray(widths, dtype=float))).sum()))


def saxe_mode(time: ArrayLike, strength: ArrayLike, start: ArrayLike, time_constant: float) -> ndarray:
    """Strength of one mode of a linear network with one hidden layer, u(t) = s e^{2st/T} / (e^{2st/T} - 1 + s / u0).

    The solution of T du/dt = 2 u (s - u): balanced layers, whitened inputs, gradient flow (Saxe, McClelland & Ganguli
    2013). T is 1 / learning_rate in updates for half the squared error summed over outputs, K / learning_rate for the
    mean over K outputs.

    Args:
        time: t, in the unit of the time constant.
        strength: s > 0, a singular value of the correlation of targets with inputs.
        start: u0 > 0, the mode's strength at t = 0.
        time_constant: T > 0.
    """
    s, u0 = np.asarray(strength, dtype=float), np.asarray(start, dtype=float)
    return s / (1.0 + (s / u0 - 1.0) * np.exp(-2.0 * s * np.asarray(time, dtype=float) / time_constant))
