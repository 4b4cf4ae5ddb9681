"""R networks of one shape as one set of arrays: forward pass, backward pass, gradient.

The alphabet, for this package:
    R restarts (networks that differ in their seed, or in their learning rate), B samples in the batch, N in a split,
    L layers not counting the input, n_in and n_out the sizes on either side of a layer, K = n_L outputs, P parameters.
    theta[l] is layer l's weights W[l] with its biases b[l] as one more column; z[l] = theta[l] (a[l-1], 1),
    a[l] = phi(z[l]), a[0] = x; delta[l] = dC/dz[l].

Shapes are the textbook's, (R, B, n) for activations and (R, n_out, n_in + 1) for theta[l]. Some of these arrays lie
transposed in memory, which `memory` decides and nothing here depends on.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import OUTPUTS, Activation
from descentlab.nn.losses import Form, Loss
from descentlab.nn.memory import Parameters, Trace, Workspace, input_table, subtract_product


@dataclass(frozen=True)
class Network:
    """The shape and functions of a network, without its parameters."""

    layers: tuple[int, ...]
    activation: Activation
    output: str
    loss: Loss

    @property
    def form(self) -> Form:
        """The loss as it stands over this output function."""
        return self.loss.forms[self.output]

    def workspace(self, dtype: str) -> Workspace:
        """Buffers for this shape."""
        return Workspace(self.layers, self.activation, dtype)


def forward(network: Network, parameters: Parameters, inputs: ndarray, trace: Trace) -> ndarray:
    """Run the networks over a batch and leave z[l] and a[l] of the hidden layers in the trace.

    Args:
        network: shape and functions.
        parameters: of R networks.
        inputs: (B, n_0 + 1) shared, or (R, B, n_0 + 1); the last column is 1.
        trace: buffers for R restarts and B samples.

    Returns:
        z of the output layer, (R, B, K), a buffer of the trace.
    """
    a = inputs
    for layer, z in enumerate(trace.z):
        trace.multiply(a, parameters.theta_T[layer], out=trace.z_units[layer])  # (R, B, n_l)
        a = network.activation.value(z, trace.a[layer])
        a[..., -1] = 1.0
    trace.multiply(a, parameters.theta_T[-1], out=trace.z_output)  # (R, B, K)
    return trace.z_output


def backward(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    trace: Trace,
    delta: ndarray,
    gradient: Parameters | None,
) -> None:
    """Propagate the output error back; leave delta[l] of the hidden layers in the trace.

    Args:
        network: shape and functions.
        parameters: of R networks.
        inputs: as given to `forward`.
        trace: as left by `forward`.
        delta: (R, B, K), the error at the output.
        gradient: receives sum over samples of delta[l] (a[l-1], 1)^T for every layer; with None that sum is
            subtracted from the parameters.
    """
    for layer in reversed(range(len(parameters.theta))):
        a = trace.a[layer - 1] if layer else inputs  # (R, B, n_in + 1)
        if layer:  # before W moves
            trace.multiply(delta, parameters.W[layer], out=trace.delta_units[layer - 1])  # (R, B, n_in)
        if gradient is None:
            subtract_product(parameters.theta[layer], delta, a)
        else:
            left, right = (delta, a) if delta.shape[-2] > 1 else trace.paired(layer, delta, a)
            trace.multiply(left.mT, right, out=gradient.theta[layer])  # (R, n_out, n_in + 1)
        if layer:
            back = trace.delta[layer - 1]  # (R, B, n_in + 1)
            back *= network.activation.slope(trace.z[layer - 1], a, trace.slope[layer - 1])
            delta = trace.delta_units[layer - 1]


def gradient(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    targets: ndarray,
    scale: float | ndarray,
    workspace: Workspace,
) -> Parameters:
    """The gradient of scale * sum_i C_i over a batch, summed over blocks of samples that fit the cache.

    Args:
        network: shape and functions.
        parameters: of R networks.
        inputs: (B, n_0 + 1) shared, or (R, B, n_0 + 1); the last column is 1.
        targets: (B, K) shared, or (R, B, K).
        scale: a number, or (R, 1, 1) for one per restart; 1/B gives the mean gradient.
        workspace: the buffers.

    Returns:
        The gradient in the shape of the parameters; a buffer of the workspace, good until the next call.
    """
    restarts = len(parameters)
    total = workspace.gradient(restarts)
    for start, stop in workspace.blocks(inputs.shape[-2]):
        x, y = inputs[..., start:stop, :], targets[..., start:stop, :]
        trace = workspace.trace(restarts, stop - start)
        delta = network.form.error(forward(network, parameters, x, trace), y)
        delta *= scale
        part = workspace.gradient(restarts, "block") if start else total
        backward(network, parameters, x, trace, delta, part)
        if start:
            total.flat += part.flat
    return total


def descend(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    targets: ndarray,
    scale: float | ndarray,
    workspace: Workspace,
) -> None:
    """Subtract from the parameters what `gradient` would return, layer by layer, with no room for a gradient."""
    trace = workspace.trace(len(parameters), inputs.shape[-2])
    delta = network.form.error(forward(network, parameters, inputs, trace), targets)
    delta *= scale
    backward(network, parameters, inputs, trace, delta, None)


def predict(network: Network, parameters: Parameters, inputs: ndarray) -> ndarray:
    """What the networks answer to inputs (N, n_0), without the column of ones: (R, N, K)."""
    dtype = parameters.flat.dtype.name
    workspace = network.workspace(dtype)
    table = input_table(inputs, dtype)
    answers = np.empty((len(parameters), len(table), network.layers[-1]), dtype=dtype)
    for start, stop in workspace.blocks(len(table)):
        trace = workspace.trace(len(parameters), stop - start)
        z = forward(network, parameters, table[start:stop], trace)
        answers[:, start:stop] = OUTPUTS[network.output].value(z)
    return answers
