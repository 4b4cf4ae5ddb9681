"""What is measured about networks at a logged epoch, on whole splits, at the weights as they stand.

    <split>/loss             mean over samples of the loss
    <split>/<score>          the scores of the task: accuracy, r2, ... as nn.metrics lists them
    delta_norm/layer_l       mean over training samples i of |dC_i/dz[l]|, Euclidean over the layer's units
    gradient_norm/layer_l    Frobenius norm of dC/dW[l], the mean gradient over the training split, biases apart
    weight_norm/layer_l      Frobenius norm of W[l]

`full` adds, on the training split, for every layer

    delta_rms/layer_l            root mean square over samples of |dC_i/dz[l]|, as mean field predicts (Schoenholz 2017)
    bias_gradient_norm/layer_l   |dC/db[l]|, which is the norm of the MEAN delta: Nielsen's "speed" (2015, ch. 5)
    update_ratio/layer_l         |change of W[l]| / |W[l]| in the step that the update rule would take next, with its
                                 rate and weight decay, on the split's mean gradient; NaN where W[l] = 0 (Karpathy 2015)

and for every hidden layer

    activation_mean/layer_l      mean of a[l] over samples and units (Glorot & Bengio 2010)
    activation_sd/layer_l        standard deviation about it, with n and not n - 1
    saturated/layer_l            share of (sample, unit) with |phi'(z)| below SATURATED = .05 of its maximum; what a
                                 ReLU has rectified counts
    dead/layer_l                 share of units with phi'(z) = 0 on every sample (Lu et al. 2019)
    effective_rank/layer_l       exp of the entropy of s / sum s, where s are the singular values of a[l] as a samples x
                                 units matrix, not centred (Roy & Vetterli 2007): 1 to n_l, and 0 where a[l] = 0

Layer 1 touches the input. Every value has shape (R,), float64. Norms have the loss's unit, shares and ratios none.
Norms are right up to the largest float64, though the squares in them overflow from 1e154; other metrics of squares are
NaN there.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation
from descentlab.nn.memory import BLOCK_SAMPLES, Trace, Workspace
from descentlab.nn.metrics import metrics_of
from descentlab.nn.network import Network
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.parameters import Parameters
from descentlab.nn.program import backward, forward

LEVELS = ("basic", "full", "none")
SATURATED = 0.05  # of the largest |phi'|: sigmoid beyond |z| = 4.4, tanh beyond 2.2

Tables = Mapping[str, tuple[ndarray, ndarray]]  # split -> inputs (N, n_0 + 1) with ones, targets (N, K)


def measure(
    network: Network,
    parameters: Parameters,
    tables: Tables,
    task: str,
    level: str,
    workspace: Workspace,
    next_step: Callable[[Parameters], Parameters] | None = None,
) -> dict[str, ndarray]:
    """All metrics of R networks.

    Args:
        network: shape and functions.
        parameters: of R networks.
        tables: the splits, as made by `memory.input_table` and `memory.target_table`.
        task: of losses.TASKS; which scores are measured.
        level: "basic" adds the norms per layer, "full" all of the above, "none" leaves loss and score alone.
        workspace: the buffers.
        next_step: from a mean gradient to the change of the parameters; update_ratio is left out without it.

    Returns:
        metric name -> (R,) float64.
    """
    metrics: dict[str, ndarray] = {}
    for split, (inputs, targets) in tables.items():
        norms = metrics if split == "train" and level != "none" else None
        full = split == "train" and level == "full"
        activity = _Activity(network, len(parameters), len(inputs)) if full else None
        scores = _measure_split(network, parameters, inputs, targets, task, workspace, norms, activity)
        metrics |= {f"{split}/{name}": values for name, values in scores.items()}
        if activity is not None:
            mean = workspace.gradient(len(parameters))
            mean.flat /= len(inputs)
            metrics |= activity.metrics(len(inputs)) | _of_gradient(parameters, mean, next_step)
    for name, values in metrics.items():
        if not name.endswith("/loss") and np.isinf(values).any():
            metrics[name] = np.where(np.isinf(values), np.nan, values)
    return metrics


def _measure_split(
    network: Network,
    parameters: Parameters,
    inputs: ndarray,
    targets: ndarray,
    task: str,
    workspace: Workspace,
    norms: dict[str, ndarray] | None,
    activity: "_Activity | None",
) -> dict[str, ndarray]:
    """Loss and scores by name; the norms of the layers and their activity go into what is given for them."""
    restarts, samples = len(parameters), len(inputs)
    output, scores = OUTPUTS[network.output], metrics_of(task)
    loss = np.zeros(restarts)
    sums = [np.zeros(())] * len(scores)
    delta_norms = np.zeros((len(network.layers) - 1, restarts))
    total = workspace.gradient(restarts)
    for start, stop in workspace.blocks(samples):
        x, y = inputs[start:stop], targets[start:stop]
        trace = workspace.trace(restarts, stop - start, kept=norms is not None)
        z = forward(network, parameters, x, trace)
        loss += _sum(network.form.value(z, y))
        sums = [known + _sum(score.part(z, y, output).mT) for known, score in zip(sums, scores, strict=True)]
        if norms is not None:
            delta = network.form.error(z, y, z)
            part = workspace.gradient(restarts, "block") if start else total
            backward(network, parameters, x, trace, delta, part)
            if start:
                total.flat += part.flat
            for layer, error in enumerate([*(d[..., :-1] for d in trace.delta), delta]):
                wide = error.astype(np.float64, order="K" if stop - start > 1 else "C")  # else R would decide the order
                squares = np.square(wide, out=wide).sum(axis=-1)  # (R, B)
                delta_norms[layer] += _sum(_not_overflown(np.sqrt(squares), error))
                if activity is not None:
                    activity.delta_squares[layer] += _sum(squares)
            if activity is not None:
                activity.add(trace)
    if norms is not None:
        for layer, (weights, slope) in enumerate(zip(parameters.W, total.W, strict=True), start=1):
            norms[f"delta_norm/layer_{layer}"] = delta_norms[layer - 1] / samples
            norms[f"gradient_norm/layer_{layer}"] = frobenius(slope) / samples
            norms[f"weight_norm/layer_{layer}"] = frobenius(weights)
    whole = {score.name: score.whole(total, targets) for score, total in zip(scores, sums, strict=True)}
    return {"loss": loss / samples, **whole}


class _Activity:
    """What `full` measures of layers, summed block by block of samples.

    Attributes:
        delta_squares: (L, R), sum over samples of |delta|^2.
    """

    def __init__(self, network: Network, restarts: int, samples: int) -> None:
        hidden = network.layers[1:-1]
        self._few = samples <= BLOCK_SAMPLES  # then the product of a[l] with itself may take the shorter side
        self.delta_squares = np.zeros((len(network.layers) - 1, restarts))
        self._threshold = SATURATED * _steepest(network.activation)
        self._values = 0  # samples so far
        self._mean = np.zeros((len(hidden), restarts))
        self._scatter = np.zeros((len(hidden), restarts))  # sum of squared distances from the mean
        self._saturated = np.zeros((len(hidden), restarts))
        self._alive = [np.zeros((restarts, n), dtype=bool) for n in hidden]
        sides = [min(n, samples) if self._few else n for n in hidden]
        self._gram = [np.zeros((restarts, side, side)) for side in sides]

    def add(self, trace: Trace) -> None:
        """Add a block of samples, after its backward pass."""
        for layer, (a, slope) in enumerate(zip(trace.a, trace.slope, strict=True)):
            values = np.ascontiguousarray(a[..., :-1], dtype=np.float64)  # (R, B, n)
            restarts, samples, units = values.shape
            mean = values.reshape(restarts, samples * units).mean(axis=-1)
            scatter = np.square(values - mean[:, None, None]).reshape(restarts, samples * units).sum(axis=-1)
            share = samples / (self._values + samples)  # Chan, Golub & LeVeque 1983: no cancellation for a tiny spread
            apart = mean - self._mean[layer]
            self._mean[layer] += apart * share
            self._scatter[layer] += scatter + np.square(apart) * share * self._values * units
            self._gram[layer] += values @ values.mT if self._few and samples < units else values.mT @ values
            steepness = np.abs(np.ascontiguousarray(slope[..., :-1], dtype=np.float64))
            self._saturated[layer] += (steepness < self._threshold).sum(axis=(1, 2)) / units
            self._alive[layer] |= (steepness > 0).any(axis=1)
        self._values += samples if trace.a else 0

    def metrics(self, samples: int) -> dict[str, ndarray]:
        """The metrics by name."""
        metrics = {
            f"delta_rms/layer_{layer}": np.sqrt(squares / samples)
            for layer, squares in enumerate(self.delta_squares, start=1)
        }
        for layer, (alive, gram) in enumerate(zip(self._alive, self._gram, strict=True)):
            name = f"layer_{layer + 1}"
            metrics[f"activation_mean/{name}"] = self._mean[layer]
            metrics[f"activation_sd/{name}"] = np.sqrt(self._scatter[layer] / (samples * alive.shape[1]))
            metrics[f"saturated/{name}"] = self._saturated[layer] / samples
            metrics[f"dead/{name}"] = 1.0 - alive.mean(axis=1)
            metrics[f"effective_rank/{name}"] = _effective_rank(gram)
        return metrics


def _of_gradient(
    parameters: Parameters, mean: Parameters, next_step: Callable[[Parameters], Parameters] | None
) -> dict[str, ndarray]:
    """What `full` measures of the mean gradient and of the step that follows from it."""
    metrics = {
        f"bias_gradient_norm/layer_{layer}": frobenius(bias[..., None]) for layer, bias in enumerate(mean.b, start=1)
    }
    if next_step is not None:
        change = next_step(mean)
        for layer, (moved, weights) in enumerate(zip(change.W, parameters.W, strict=True), start=1):
            size = frobenius(weights)
            ratio = np.divide(frobenius(moved), size, out=np.full_like(size, np.nan), where=size > 0)
            metrics[f"update_ratio/layer_{layer}"] = ratio
    return metrics


@lru_cache(maxsize=100)
def _steepest(activation: Activation) -> float:
    """The largest |phi'|, on a grid that holds 0 and both sides of it."""
    z = np.arange(-1280, 1281) / 128.0
    return float(np.abs(activation.derivative(z, activation(z)).astype(np.float64)).max())


def _effective_rank(gram: ndarray) -> ndarray:
    """The effective rank of matrices A (N, n), from their products A^T A (R, n, n) or A A^T: (R,)."""
    rank = np.zeros(len(gram))
    finite = np.isfinite(gram).all(axis=(1, 2))  # a diverging net's are not, and an eigenvalue solver refuses them
    rank[~finite] = np.nan
    singular = np.sqrt(np.linalg.eigvalsh(gram[finite]).clip(0))  # (r, n)
    total = singular.sum(axis=1)
    share = singular[total > 0] / total[total > 0, None]
    rank[np.flatnonzero(finite)[total > 0]] = np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1))
    return rank


def _sum(values: ndarray) -> ndarray:
    """Sum along the last axis in float64: converted first, because a buffered reduction depends on R."""
    return np.ascontiguousarray(values, dtype=np.float64).sum(axis=-1)


def frobenius(matrices: ndarray) -> ndarray:
    """Frobenius norm of each of (R, m, n), float64: (R,)."""
    restarts, n_out, n_in = matrices.shape
    flat = np.ascontiguousarray(matrices, dtype=np.float64).reshape(restarts, n_out * n_in)
    return _not_overflown(np.sqrt(np.square(flat).sum(axis=-1)), flat)


def _not_overflown(norms: ndarray, vectors: ndarray) -> ndarray:
    """Norms (...) of vectors (..., n), those that are infinite taken again without an overflow of the squares."""
    over = np.isinf(norms)
    if over.any():
        large = vectors[over].astype(np.float64)
        size = np.abs(large).max(axis=-1)
        norms[over] = size * np.sqrt(np.square(large / size[:, None]).sum(axis=-1))
    return norms
