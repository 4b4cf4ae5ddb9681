"""Update rules: how a gradient moves the parameters.

A rule is a pair (init, apply) over flat arrays of shape (R, P), one row per restart. With v the velocity, g the mean
gradient of the step and rate the learning rate (a number, or one per restart of shape (R, 1)):

gradient_descent    theta -= rate g
momentum            v = momentum v + rate g;  theta -= v                                         (Polyak 1964)
nesterov            v = momentum v + rate g;  theta -= momentum v + rate g                       (Sutskever 2013)
adam                moments m, s of g and g^2, bias-corrected; theta -= rate m / (sqrt(s) + eps) (Kingma & Ba 2015)

The rate stands inside the velocity, so a rate that decays acts on new gradients only.

To add a rule, enter a factory below (@UPDATES.enter) and add conf/update/<name>.yaml. It works element by element, in
any memory order: no number of a row may depend on another row, or a restart would depend on its stack. All that it
remembers stands in its slots, which snapshots keep.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

from descentlab.nn.registry import Named, Registry

UPDATES = Registry("update")
State = dict[str, ndarray]
Rate = float | ndarray


@dataclass(frozen=True)
class Update(Named):
    """An update rule.

    Attributes:
        name: its key in UPDATES.
        slots: names of the state arrays, each (R, P), all zero at the start.
        apply: `apply(theta, gradient, state, rate, step)` moves theta (R, P) in place; gradient (R, P) may be
            overwritten; `step` counts from 1.
        takes_scaled: the rule is linear in rate * gradient and is handed that product with rate 1: the trainer folds
            the rate into the output error, which is smaller than the gradient.
    """

    name: str
    apply: Callable[[ndarray, ndarray, State, Rate, int], None]
    slots: tuple[str, ...] = field(default=())
    takes_scaled: bool = False

    def init(self, theta: ndarray) -> State:
        """The state before the first step, for parameters theta (R, P)."""
        return {slot: np.zeros_like(theta) for slot in self.slots}


def subtract(theta: ndarray, gradient: ndarray, state: State, rate: Rate, step: int) -> None:
    """Do theta -= gradient, for a gradient that holds the rate: a step that `network.descend` can take in place."""
    np.subtract(theta, gradient, out=theta)


@UPDATES.enter
def gradient_descent() -> Update:
    """Plain gradient descent."""
    return Update("gradient_descent", subtract, takes_scaled=True)


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"update.momentum={momentum}: must be in [0, 1)")


@UPDATES.enter
def momentum(momentum: float = 0.9) -> Update:
    """Heavy-ball momentum (Polyak 1964).

    Raises:
        ValueError: for a momentum outside [0, 1).
    """
    _check_momentum(momentum)

    def apply(theta: ndarray, gradient: ndarray, state: State, rate: Rate, step: int) -> None:
        velocity = state["velocity"]
        velocity *= momentum
        velocity += gradient
        theta -= velocity

    return Update("momentum", apply, ("velocity",), takes_scaled=True)


@UPDATES.enter
def nesterov(momentum: float = 0.9) -> Update:
    """Nesterov's momentum in the form that evaluates the gradient where the parameters are (Sutskever et al. 2013).

    Raises:
        ValueError: for a momentum outside [0, 1).
    """
    _check_momentum(momentum)

    def apply(theta: ndarray, gradient: ndarray, state: State, rate: Rate, step: int) -> None:
        velocity = state["velocity"]
        velocity *= momentum
        velocity += gradient
        theta -= gradient
        np.multiply(velocity, momentum, out=gradient)
        theta -= gradient

    return Update("nesterov", apply, ("velocity",), takes_scaled=True)


@UPDATES.enter
def adam(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Update:
    """Adam (Kingma & Ba 2015, algorithm 1).

    Raises:
        ValueError: for a beta outside [0, 1) or an epsilon that is not above 0.
    """
    for key, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ValueError(f"update.{key}={beta}: must be in [0, 1)")
    if not 0 < epsilon < np.inf:
        raise ValueError(f"update.epsilon={epsilon}: must be a finite number above 0")

    def apply(theta: ndarray, gradient: ndarray, state: State, rate: Rate, step: int) -> None:
        first, second = state["first_moment"], state["second_moment"]
        first *= beta1
        first += (1.0 - beta1) * gradient
        np.multiply(gradient, gradient, out=gradient)
        second *= beta2
        second += (1.0 - beta2) * gradient
        np.sqrt(second, out=gradient)
        gradient *= 1.0 / np.sqrt(1.0 - beta2**step).item()
        gradient += epsilon
        np.divide(first, gradient, out=gradient)
        gradient *= rate / (1.0 - beta1**step)
        theta -= gradient

    return Update("adam", apply, ("first_moment", "second_moment"))
