"""What is measured about networks at a logged epoch, on whole splits, at the weights as they stand.

    <split>/loss             mean over samples of the loss
    <split>/accuracy         share of samples whose class is right (largest output; one output: above or below .5)
    <split>/r2               1 - residual / total sum of squares, averaged over outputs (regression); an output whose
                             targets do not vary counts 1 where they are met exactly and 0 elsewhere
    delta_norm/layer_l       mean over training samples i of |dC_i/dz[l]|, Euclidean over the layer's units
    gradient_norm/layer_l    Frobenius norm of dC/dW[l], the mean gradient over the training split, biases apart
    weight_norm/layer_l      Frobenius norm of W[l]

Layer 1 touches the input. Every value has shape (R,), float64.
"""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import OUTPUTS
from descentlab.nn.memory import Parameters, Workspace
from descentlab.nn.network import Network, backward, forward

Tables = Mapping[str, tuple[ndarray, ndarray]]  # split -> inputs (N, n_0 + 1) with ones, targets (N, K)


def measure(
    network: Network,
    parameters: Parameters,
    tables: Tables,
    task: str,
    level: str,
    workspace: Workspace,
) -> dict[str, ndarray]:
    """All metrics of R networks.

    Args:
        network: shape and functions.
        parameters: of R networks.
        tables: the splits, as made by `memory.input_table` and `memory.target_table`.
        task: "regression" gives r2, other tasks accuracy.
        level: "basic" adds the norms per layer, "none" leaves loss and score alone.
        workspace: the buffers.

    Returns:
        metric name -> (R,) float64.
    """
    metrics: dict[str, ndarray] = {}
    for split, (inputs, targets) in tables.items():
        norms = metrics if split == "train" and level != "none" else None
        loss, score = _measure_split(network, parameters, inputs, targets, task, workspace, norms)
        metrics[f"{split}/loss"] = loss
        metrics[f"{split}/{'r2' if task == 'regression' else 'accuracy'}"] = score
    return metrics


def _measure_split(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    targets: ndarray,
    task: str,
    workspace: Workspace,
    norms: dict[str, ndarray] | None,
) -> tuple[ndarray, ndarray]:
    restarts, samples = len(parameters), len(inputs)
    output = OUTPUTS[network.output]
    loss = np.zeros(restarts)
    hits = np.zeros(restarts)
    residual = np.zeros((restarts, targets.shape[1]))
    delta_norms = np.zeros((len(network.layers) - 1, restarts))
    total = workspace.gradient(restarts)
    for start, stop in workspace.blocks(samples):
        x, y = inputs[start:stop], targets[start:stop]
        trace = workspace.trace(restarts, stop - start)
        z = forward(network, parameters, x, trace)
        loss += _sum(network.form.value(z, y))
        if task == "regression":
            residual += _sum(np.square(output.value(z) - y).mT)
        else:
            hits += (_classes(z, output.value) == _classes(y)).sum(axis=-1)
        if norms is not None:
            delta = network.form.error(z, y)
            part = workspace.gradient(restarts, "block") if start else total
            backward(network, parameters, x, trace, delta, part)
            if start:
                total.flat += part.flat
            for layer, error in enumerate([*(d[..., :-1] for d in trace.delta), delta]):
                delta_norms[layer] += _sum(np.sqrt(np.square(error, dtype=np.float64).sum(axis=-1)))
    if norms is not None:
        for layer, (weights, slope) in enumerate(zip(parameters.W, total.W, strict=True), start=1):
            norms[f"delta_norm/layer_{layer}"] = delta_norms[layer - 1] / samples
            norms[f"gradient_norm/layer_{layer}"] = frobenius(slope) / samples
            norms[f"weight_norm/layer_{layer}"] = frobenius(weights)
    if task == "regression":
        return loss / samples, _r2(residual, targets)
    return loss / samples, hits / samples


def _r2(residual: ndarray, targets: ndarray) -> ndarray:
    """The mean of 1 - residual / variation over outputs, for residual sums of squares (R, K): (R,)."""
    exact = targets.astype(np.float64)
    variation = np.square(exact - exact.mean(axis=0)).sum(axis=0)
    varies = np.ptp(exact, axis=0) > 0  # the rounded mean of equal numbers may differ from all of them
    return (1.0 - np.where(varies, residual / np.where(varies, variation, 1.0), residual > 0)).mean(axis=-1)


def _sum(values: ndarray) -> ndarray:
    """Sum along the last axis in float64: converted first, because a buffered reduction depends on R."""
    return np.ascontiguousarray(values, dtype=np.float64).sum(axis=-1)


def _classes(values: ndarray, answer: object = None) -> ndarray:
    """The class each row stands for, from z or targets (..., K): (...)."""
    if values.shape[-1] > 1:
        return values.argmax(axis=-1)  # sigmoid and softmax keep the order of z
    return (answer(values) if callable(answer) else values)[..., 0] > 0.5


def frobenius(matrices: ndarray) -> ndarray:
    """Frobenius norm of each of (R, m, n), float64: (R,)."""
    restarts, n_out, n_in = matrices.shape
    flat = np.ascontiguousarray(matrices, dtype=np.float64).reshape(restarts, n_out * n_in)
    return np.sqrt(np.square(flat).sum(axis=-1))
