"""R networks of one shape: forward, backward and gradient, as in the textbook.

The alphabet of this package:
    R restarts (networks that differ in their seed, or in their learning rate), B samples in the batch, N in a split,
    L layers not counting the input, n_in and n_out the sizes on either side of a layer, K = n_L outputs, P parameters;
    W[l] (R, n_out, n_in) and b[l] (R, n_out); z[l] and a[l] (R, B, n_l); delta[l] = dC_i/dz[l] for each sample i.

For each restart a[0] = x, z[l] = W[l] a[l-1] + b[l], a[l] = phi(z[l]), and by the chain rule
delta[l-1] = (W[l]^T delta[l]) * phi'(z[l-1]), dC/dW[l] = mean_i delta[l] a[l-1]^T, dC/db[l] = mean_i delta[l].
examples/backprop.py is the same for one network and one sample at a time. Training runs `program`, the same mathematics
on fixed buffers; `predict` and `descentlab check` run this file, and the tests hold `program` to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation
from descentlab.nn.losses import Form, Loss
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.parameters import Parameters

BLOCK = 2**22  # numbers of a layer that `predict` computes at once


@dataclass(frozen=True)
class Network:
    """The shape n_0 .. n_L and the functions of a network, without its parameters."""

    layers: tuple[int, ...]
    activation: Activation
    output: str
    loss: Loss

    @property
    def form(self) -> Form:
        """The loss as it stands over this output function."""
        return self.loss.forms[self.output]


Layers = Sequence[ndarray]  # an array per layer, the first layer's first


def forward(network: Network, W: Layers, b: Layers, x: ndarray) -> tuple[list[ndarray], list[ndarray]]:
    """z[1] .. z[L] and a[0] .. a[L] for inputs x (B, n_0) or (R, B, n_0)."""
    z, a = [], [x]
    for weights, biases in zip(W, b, strict=True):
        z.append(a[-1] @ weights.mT + biases[:, None, :])  # (R, B, n_out)
        a.append(network.activation(z[-1]) if len(z) < len(W) else OUTPUTS[network.output].value(z[-1]))
    return z, a


def backward(network: Network, W: Layers, z: Layers, a: Layers, y: ndarray) -> list[ndarray]:
    """delta[1] .. delta[L], each (R, B, n_l), for targets y (B, K) or (R, B, K)."""
    delta = [network.form.error(z[-1], y)]
    for layer in reversed(range(1, len(W))):
        delta.insert(0, (delta[0] @ W[layer]) * network.activation.derivative(z[layer - 1], a[layer]))
    return delta


def gradient(network: Network, W: Layers, b: Layers, x: ndarray, y: ndarray) -> tuple[list[ndarray], list[ndarray]]:
    """dC/dW[l] (R, n_out, n_in) and dC/db[l] (R, n_out) of the mean loss C over the batch."""
    z, a = forward(network, W, b, x)
    delta = backward(network, W, z, a, y)
    return [d.mT @ a[layer] / x.shape[-2] for layer, d in enumerate(delta)], [d.mean(axis=-2) for d in delta]


def predict(network: Network, parameters: Parameters, inputs: ndarray) -> ndarray:
    """The answers of R networks to inputs (N, n_0): (R, N, K)."""
    x = np.asarray(inputs, parameters.flat.dtype)
    restarts = max(1, BLOCK // (len(x) * max(network.layers)))
    answers = []
    for start in range(0, len(parameters), restarts):
        one = parameters[start : start + restarts]  # contiguous, or BLAS would add up in an order that R decides
        answers.append(forward(network, [np.ascontiguousarray(W) for W in one.W], one.b, x)[1][-1])
    return np.concatenate(answers)
