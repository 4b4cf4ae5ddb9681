"""Whether hand-derived slopes and gradients agree with differences of values; for activations and losses of one's own.

Everything runs in float64 with a fixed seed. Kinks are avoided: no sample lies within a step of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation
from descentlab.nn.initializers import INITIALIZERS, draw
from descentlab.nn.losses import Loss
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network, forward
from descentlab.nn.parameters import Parameters, input_table, target_table
from descentlab.nn.program import gradient

DEPTHS = (1, 2, 3, 4)
SAMPLES, OUTPUTS, RESTARTS = 7, 3, 3
STEP = 1e-5
TOLERANCE = 1e-6  # of the derivative along a random direction


@dataclass(frozen=True)
class Comparison:
    """One derivative against a central difference.

    Attributes:
        what: in words.
        derived: the hand-derived number.
        difference: the central difference.
        error: |derived - difference|, relative to the larger of |derived| and 1 % of the gradient's norm.
    """

    what: str
    derived: float
    difference: float
    error: float

    @property
    def agrees(self) -> bool:
        """Whether the error is below TOLERANCE; a value that is not finite never agrees."""
        return self.error < TOLERANCE


def check_slope(activation: Activation) -> Iterator[Comparison]:
    """Compare an activation's slope with differences of its value, on both sides of 0 and far out."""
    z = np.array([-30.0, -5.3, -1.7, -0.4, -0.01, 0.01, 0.4, 1.7, 5.3, 30.0])
    slope = activation.derivative(z, activation(z)).astype(float)
    above, below = activation(z + STEP), activation(z - STEP)
    difference = (above - below) / (2 * STEP)
    for point, derived, measured in zip(z.tolist(), slope.tolist(), difference.tolist(), strict=True):
        # rounding of the value, divided by the step, is no disagreement
        scale = max(abs(derived), 1e-2, abs(point) * np.finfo(float).eps / STEP / TOLERANCE)
        error = abs(derived - measured) / scale if np.isfinite(derived + measured) else np.inf
        yield Comparison(f"slope of {activation.name} at z = {point:g}", derived, measured, error)


def check_gradient(activation: Activation, loss: Loss, output: str, depth: int) -> Iterator[Comparison]:
    """Compare the gradient that training computes with differences of the textbook's loss along random directions.

    Args:
        activation: of the hidden layers.
        loss: the loss.
        output: key of its forms.
        depth: layers, 1 (no hidden layer) to 4.
    """
    layers = (*(3, 5, 4, 6)[:depth], OUTPUTS)
    network = Network(layers, activation, output, loss)
    parameters = _drawn(layers)
    x, y = _samples(loss, layers[0])
    slope = gradient(network, parameters, x, y, 1 / SAMPLES, Workspace(network, "float64")).flat.copy()
    direction = np.random.default_rng(2).normal(0, 1, slope.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ahead, behind = (
        _mean_loss(network, Parameters(layers, parameters.flat + side * STEP * direction), x, y) for side in (1, -1)
    )
    along = (slope * direction).sum(axis=1)
    difference = (ahead - behind) / (2 * STEP)
    scale = np.maximum(np.abs(along), 1e-2 * np.linalg.norm(slope, axis=1))
    with np.errstate(all="ignore"):
        error = np.nan_to_num(np.abs(along - difference) / scale, nan=np.inf)
    what = f"gradient of {activation.name}, {loss.name} over {output}, depth {depth}"
    for restart in range(RESTARTS):
        yield Comparison(
            f"{what}, network {restart}", float(along[restart]), float(difference[restart]), float(error[restart])
        )


def _drawn(layers: tuple[int, ...]) -> Parameters:
    parameters = Parameters.empty(layers, RESTARTS, "float64")
    rules = [INITIALIZERS["lecun_normal"](bias_spread=0.5)] * (len(layers) - 1)
    for row in range(RESTARTS):
        for theta, (weights, biases) in zip(parameters.theta, draw(rules, layers, row), strict=True):
            theta[row, :, :-1], theta[row, :, -1] = weights, biases
    return parameters


def _samples(loss: Loss, inputs: int) -> tuple[ndarray, ndarray]:
    """Inputs and the first kind of targets that the loss accepts: numbers, zeros and ones, classes."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (SAMPLES, inputs))
    kinds = (
        rng.normal(0, 1, (SAMPLES, OUTPUTS)),
        rng.integers(0, 2, (SAMPLES, OUTPUTS)).astype(float),
        np.eye(OUTPUTS)[rng.integers(0, OUTPUTS, SAMPLES)],
    )
    y = next((kind for kind in kinds if loss.accepts(kind)), kinds[-1])
    return input_table(x, "float64"), target_table(y, "float64")


def _mean_loss(network: Network, parameters: Parameters, x: ndarray, y: ndarray) -> ndarray:
    z, _ = forward(network, parameters.W, parameters.b, x[:, :-1])
    return network.form.value(z[-1], y).mean(axis=-1)
