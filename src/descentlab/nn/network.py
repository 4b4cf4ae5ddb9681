"""R networks of one shape as one set of arrays: forward pass, backward pass, gradient.

The alphabet, for this package:
    R restarts (networks that differ in their seed, or in their learning rate), B samples in the batch, N in a split,
    L layers not counting the input, n_in and n_out the sizes on either side of a layer, K = n_L outputs, P parameters.
    theta[l] is layer l's weights W[l] with its biases b[l] as one more column; z[l] = theta[l] (a[l-1], 1),
    a[l] = phi(z[l]), a[0] = x; delta[l] = dC/dz[l].

Shapes are the textbook's, (R, B, n) for activations and (R, n_out, n_in + 1) for theta[l]. Some of these arrays lie
transposed in memory, which `memory` decides and nothing here depends on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import OUTPUTS, Activation
from descentlab.nn.losses import Form, Loss
from descentlab.nn.memory import Call, Parameters, Trace, Workspace, input_table, subtract_product

Error = Callable[[ndarray, ndarray], ndarray]


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
    for call in _forward(network, parameters, inputs, trace, network.activation.value):
        call()
    return trace.z_output


def _forward(
    network: Network, parameters: Parameters, inputs: ndarray, trace: Trace, phi: Callable[[ndarray, ndarray], ndarray]
) -> Iterator[Call]:
    a = inputs
    for layer, (z, value, *_) in enumerate(trace.elements):
        yield from trace.product(a, parameters.theta_T[layer], trace.z_units[layer])  # (R, B, n_l)
        yield partial(phi, z, value)
        if trace.ones:
            yield partial(trace.ones[layer].fill, 1.0)
        a = trace.a[layer]
    yield from trace.product(a, parameters.theta_T[-1], trace.z_output)  # (R, B, K)


def backward(
    network: Network, parameters: Parameters, inputs: ndarray, trace: Trace, delta: ndarray, gradient: Parameters
) -> None:
    """Propagate the output error back; leave delta[l] of the hidden layers in the trace.

    Args:
        network: shape and functions.
        parameters: of R networks.
        inputs: as given to `forward`.
        trace: as left by `forward`.
        delta: (R, B, K), the error at the output.
        gradient: receives sum over samples of delta[l] (a[l-1], 1)^T for every layer.
    """
    for call in _backward(network, parameters, inputs, trace, delta, gradient):
        call()


def _backward(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    trace: Trace,
    delta: ndarray,
    gradient: Parameters | None,
) -> Iterator[Call]:
    """As `backward`; with no gradient its sum is subtracted from the parameters."""
    for layer in reversed(range(len(parameters.theta))):
        a = trace.a[layer - 1] if layer else inputs  # (R, B, n_in + 1)
        if layer:  # before W moves
            yield from trace.product(delta, parameters.W[layer], trace.delta_units[layer - 1])  # (R, B, n_in)
        if gradient is None:
            yield from subtract_product(parameters.theta[layer], delta, a)
        else:
            yield from trace.outer(layer, delta, a, gradient.theta[layer])
        if layer:
            z, value, back, slope = trace.elements[layer - 1]
            yield partial(network.activation.slope, z, value, slope)
            yield partial(np.multiply, back, slope, back)
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
    with np.errstate(over="ignore"):
        for call in gradient_calls(network, parameters, inputs, targets, scale, workspace):
            call()
    return workspace.gradient(len(parameters))


def gradient_calls(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    targets: ndarray,
    scale: float | ndarray,
    workspace: Workspace,
    subtracted: bool = False,
) -> list[Call]:
    """What `gradient` does, for the same arrays again and again: a small network's step is mostly Python's.

    Args:
        network: and all that follows as given to `gradient`; what the arrays hold may change from call to call.
        parameters: of R networks.
        inputs: of a batch.
        targets: of a batch.
        scale: of the gradient.
        workspace: the buffers.
        subtracted: subtract the gradient from the parameters, layer by layer, with no room for it; in one block only.

    Returns:
        Calls that leave the gradient in `workspace.gradient(R)`. They may overflow where the result is right.
    """
    restarts = len(parameters)
    total = workspace.gradient(restarts)
    calls: list[Call] = []
    for start, stop in workspace.blocks(inputs.shape[-2]):
        x, y = inputs[..., start:stop, :], targets[..., start:stop, :]
        trace = workspace.trace(restarts, stop - start)
        part = workspace.gradient(restarts, "block") if start else total
        calls += _forward(network, parameters, x, trace, network.activation.in_loop)
        calls.append(partial(_scaled_error, network.form.in_loop, trace.z_output, y, scale))
        calls += _backward(network, parameters, x, trace, trace.z_output, None if subtracted else part)
        if start:
            calls.append(partial(np.add, total.flat, part.flat, total.flat))
    return calls


def _scaled_error(error: Error, z: ndarray, y: ndarray, scale: float | ndarray) -> None:
    """Replace z of the output layer by scale * dC/dz."""
    np.multiply(error(z, y), scale, z)


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
