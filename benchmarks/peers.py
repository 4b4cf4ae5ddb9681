"""Other ways to the same weights: each a function that trains R networks from given weights in given orders.

A peer is `build(workload, dtype) -> train` with `train(weights, orders, x, y) -> weights`; weights are arrays per layer
with the restart first, orders (R, epochs, N). What can be made ready once (a compiled program) is made by `build` or at
the first call, which is timed apart. Peers are written as their users would write them; they measure nothing while they
train, and are handed the orders that the project draws for itself.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from workloads import Weights, Workload

Train = Callable[[Weights, ndarray, ndarray, ndarray], Weights]


@dataclass(frozen=True)
class Peer:
    """Another way to train.

    Attributes:
        name: its column.
        needs: the package it stands on.
        build: see the module's docstring.
        at_once: how many restarts it is timed on, None for all: where restarts are trained one after the other, a few
            tell the time of each.
        compiles: whether its first call is compilation.
        can: whether it can do a workload's job.
        most: restarts beyond which it is left out.
    """

    name: str
    needs: str
    build: Callable[[Workload, str], Train]
    at_once: int | None = None
    compiles: bool = False
    can: Callable[[Workload], bool] = lambda workload: True

    @property
    def present(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.needs) is not None


# --- NumPy, one network after the other ----------------------------------------------------------------------------


def naive(workload: Workload, dtype: str) -> Train:
    """Textbook backpropagation, a Python loop over restarts, steps and layers."""

    def train(weights: Weights, orders: ndarray, x: ndarray, y: ndarray) -> Weights:
        trained = []
        for restart, epochs in enumerate(orders):
            W = [w[restart].copy() for w, _ in weights]
            b = [bias[restart].copy() for _, bias in weights]
            for order in epochs:
                for start, stop in workload.steps:
                    rows = order[start:stop]
                    _naive_step(workload, W, b, x[rows], y[rows])
            trained.append(list(zip(W, b, strict=True)))
        return _stacked(trained)

    return train


def _stacked(networks: Sequence[Sequence[tuple[ndarray, ndarray]]]) -> Weights:
    """Weights and biases of networks one by one as arrays per layer."""
    return [(np.stack([w for w, _ in layer]), np.stack([b for _, b in layer])) for layer in zip(*networks, strict=True)]


def _naive_step(workload: Workload, W: list[ndarray], b: list[ndarray], x: ndarray, y: ndarray) -> None:
    activations = [x]
    for w, bias in zip(W[:-1], b[:-1], strict=True):
        z = activations[-1] @ w.T + bias
        activations.append(1 / (1 + np.exp(-z)) if workload.activation == "sigmoid" else np.maximum(z, 0))
    z = activations[-1] @ W[-1].T + b[-1]
    if workload.output == "softmax":
        a = np.exp(z - z.max(axis=1, keepdims=True))
        a /= a.sum(axis=1, keepdims=True)
    else:
        a = 1 / (1 + np.exp(-z))
    delta = a - y
    if workload.loss == "mean_squared_error":
        delta *= a * (1 - a) / y.shape[1]
    for layer in reversed(range(len(W))):
        a = activations[layer]
        W_gradient, b_gradient = delta.T @ a, delta.sum(axis=0)
        if layer:
            delta = (delta @ W[layer]) * (a * (1 - a) if workload.activation == "sigmoid" else a > 0)
        W[layer] -= workload.rate / len(x) * W_gradient
        b[layer] -= workload.rate / len(x) * b_gradient


# --- PyTorch -------------------------------------------------------------------------------------------------------


def torch_modules(workload: Workload, dtype: str) -> Train:
    """A module per restart, autograd and torch.optim.SGD: the loop that everybody writes."""
    import torch
    from torch import nn

    kind = getattr(torch, dtype)
    hidden = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[workload.activation]
    loss = _torch_loss(workload)

    def train(weights: Weights, orders: ndarray, x: ndarray, y: ndarray) -> Weights:
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        if workload.output == "softmax":
            targets = targets.argmax(dim=1)
        trained = []
        for restart, epochs in enumerate(torch.from_numpy(np.array(orders))):
            layers: list[nn.Module] = []
            for w, bias in weights:
                linear = nn.Linear(w.shape[2], w.shape[1], dtype=kind)
                with torch.no_grad():
                    linear.weight.copy_(torch.from_numpy(w[restart]))
                    linear.bias.copy_(torch.from_numpy(bias[restart]))
                layers += [linear, hidden()]
            model = nn.Sequential(*layers[:-1])
            optimizer = torch.optim.SGD(model.parameters(), lr=workload.rate)
            for order in epochs:
                for start, stop in workload.steps:
                    rows = order[start:stop]
                    optimizer.zero_grad()
                    loss(model(inputs[rows]), targets[rows]).backward()
                    optimizer.step()
            trained.append([(one.weight.detach().numpy(), one.bias.detach().numpy()) for one in layers[::2]])
        return _stacked(trained)

    return train


def _torch_loss(workload: Workload) -> Callable:
    import torch
    from torch.nn import functional

    if workload.loss == "categorical_cross_entropy":
        return functional.cross_entropy
    if workload.loss == "binary_cross_entropy":
        return functional.binary_cross_entropy_with_logits
    return lambda z, y: 0.5 * functional.mse_loss(torch.sigmoid(z), y)


def torch_stacked(workload: Workload, dtype: str) -> Train:
    """All restarts as one batch of matrices (baddbmm), with autograd."""
    import torch
    from torch.nn import functional

    hidden = getattr(torch, workload.activation)

    def summed_loss(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # (R, B, K): mean over samples, sum over R
        if workload.loss == "categorical_cross_entropy":
            return -(functional.log_softmax(z, dim=-1) * y).sum() / z.shape[1]
        if workload.loss == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(z, y.expand_as(z), reduction="sum") / z.shape[1]
        return 0.5 * (torch.sigmoid(z) - y).square().sum() / (z.shape[1] * z.shape[2])

    def train(weights: Weights, orders: ndarray, x: ndarray, y: ndarray) -> Weights:
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        W = [torch.from_numpy(w.transpose(0, 2, 1).copy()).requires_grad_() for w, _ in weights]  # (R, n_in, n_out)
        b = [torch.from_numpy(bias[:, None].copy()).requires_grad_() for _, bias in weights]  # (R, 1, n_out)
        parameters = [*W, *b]
        shared = not workload.shuffled
        for epoch in torch.from_numpy(np.array(orders)).unbind(1):  # (R, N)
            for start, stop in workload.steps:
                if shared:
                    a = inputs[start:stop].expand(len(orders), -1, -1)
                    y_batch = targets[start:stop]
                else:
                    a, y_batch = inputs[epoch[:, start:stop]], targets[epoch[:, start:stop]]
                for w, bias in zip(W[:-1], b[:-1], strict=True):
                    a = hidden(torch.baddbmm(bias, a, w))
                loss = summed_loss(torch.baddbmm(b[-1], a, W[-1]), y_batch)
                slopes = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, slopes, alpha=-workload.rate)
        with torch.no_grad():
            pairs = zip(W, b, strict=True)
            return [(w.numpy().transpose(0, 2, 1).copy(), bias.numpy()[:, 0].copy()) for w, bias in pairs]

    return train


# --- JAX -----------------------------------------------------------------------------------------------------------


def _jax_scan(workload: Workload, step: Callable) -> Callable:
    """An epoch as a scan over its whole batches, and a step for the short one; epochs as a scan over those."""
    from jax import lax

    size = workload.batch or workload.samples
    whole = workload.samples // size * size

    def epoch(parameters, order):
        batches = order[:whole].reshape(-1, size)
        parameters, _ = lax.scan(lambda p, rows: (step(p, rows), None), parameters, batches)
        return (step(parameters, order[whole:]) if whole < workload.samples else parameters), None

    return epoch


def jax_idiomatic(workload: Workload, dtype: str) -> Train:
    """jit(vmap(scan(step))) over jax.grad of the loss of one network."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    hidden = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}[workload.activation]

    def loss(parameters, x, y):
        for w, b in parameters[:-1]:
            x = hidden(x @ w.T + b)
        w, b = parameters[-1]
        z = x @ w.T + b
        if workload.loss == "categorical_cross_entropy":
            return -(jax.nn.log_softmax(z) * y).sum(axis=1).mean()
        if workload.loss == "binary_cross_entropy":
            return (jax.nn.softplus(z) - y * z).sum(axis=1).mean()
        return 0.5 * jnp.square(jax.nn.sigmoid(z) - y).mean()

    @jax.jit
    def run(parameters, orders, x, y):
        def step(parameters, rows):
            slopes = jax.grad(loss)(parameters, x[rows], y[rows])
            return jax.tree.map(lambda p, slope: p - workload.rate * slope, parameters, slopes)

        epoch = _jax_scan(workload, step)
        return jax.vmap(lambda p, o: lax.scan(epoch, p, o)[0], in_axes=(0, 0 if workload.shuffled else None))(
            parameters, orders
        )

    return _jax_train(workload, run)


def jax_tuned(workload: Workload, dtype: str) -> Train:
    """The same with derived gradients, weights stored (in, out), and chunks of restarts that fit the cache."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    sigmoid = workload.activation == "sigmoid"

    def moved(parameters, x, y):
        kept = [x]
        for w, b in parameters[:-1]:
            z = kept[-1] @ w + b
            kept.append(jax.nn.sigmoid(z) if sigmoid else jnp.maximum(z, 0))
        w, b = parameters[-1]
        z = kept[-1] @ w + b
        a = jax.nn.softmax(z) if workload.output == "softmax" else jax.nn.sigmoid(z)
        delta = (a - y) * (workload.rate / len(x))
        if workload.loss == "mean_squared_error":
            delta = delta * a * (1 - a) / y.shape[1]
        after = list(parameters)
        for layer in reversed(range(len(parameters))):
            (w, b), a = parameters[layer], kept[layer]
            after[layer] = w - a.T @ delta, b - delta.sum(axis=0)
            if layer:
                delta = (delta @ w.T) * (a * (1 - a) if sigmoid else a > 0)
        return after

    @jax.jit
    def run(parameters, orders, x, y):
        epoch = _jax_scan(workload, lambda parameters, rows: moved(parameters, x[rows], y[rows]))
        shared = None if not workload.shuffled else 0

        def chunk(parameters, orders):
            return jax.vmap(lambda p, o: lax.scan(epoch, p, o)[0], in_axes=(0, shared))(parameters, orders)

        turned = [(w.swapaxes(1, 2), b) for w, b in parameters]
        restarts, size = len(parameters[0][0]), sum(w[0].size for w, _ in parameters)
        at_once = max(n for n in range(1, restarts + 1) if restarts % n == 0 and n * size <= max(size, CHUNK))
        cut = jax.tree.map(lambda a: a.reshape(-1, at_once, *a.shape[1:]), turned)
        if shared is None:
            trained = lax.map(lambda p: chunk(p, orders), cut)
        else:
            trained = lax.map(lambda both: chunk(*both), (cut, orders.reshape(-1, at_once, *orders.shape[1:])))
        return [(w.reshape(-1, *w.shape[2:]).swapaxes(1, 2), b.reshape(-1, *b.shape[2:])) for w, b in trained]

    return _jax_train(workload, run)


CHUNK = 120_000  # weights of the restarts that the tuned JAX program takes at a time


def _jax_train(workload: Workload, run: Callable) -> Train:
    import jax

    def train(weights: Weights, orders: ndarray, x: ndarray, y: ndarray) -> Weights:
        orders = orders.astype(np.int32) if workload.shuffled else orders[0].astype(np.int32)
        trained = jax.block_until_ready(run([(w, b) for w, b in weights], orders, x, y))
        return [(np.asarray(w), np.asarray(b)) for w, b in trained]

    return train


# --- scikit-learn --------------------------------------------------------------------------------------------------


def sklearn_mlp(workload: Workload, dtype: str) -> Train:
    """An MLPClassifier per restart, its weights set and its epochs called one by one in the given order."""
    from sklearn.neural_network import MLPClassifier

    def train(weights: Weights, orders: ndarray, x: ndarray, y: ndarray) -> Weights:
        labels = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0].astype(int)
        trained = []
        for restart, epochs in enumerate(orders):
            model = MLPClassifier(
                workload.layers[1:-1],
                activation={"sigmoid": "logistic"}.get(workload.activation, workload.activation),
                solver="sgd",
                alpha=0.0,
                batch_size=min(workload.batch or workload.samples, workload.samples),
                learning_rate_init=workload.rate,
                momentum=0.0,
                nesterovs_momentum=False,
                shuffle=False,
                tol=0.0,
                n_iter_no_change=10**9,
                warm_start=True,
                max_iter=len(epochs),
            )
            model.partial_fit(x, labels, classes=np.unique(labels))  # makes the arrays
            for layer, (w, bias) in enumerate(weights):
                model.coefs_[layer][...] = w[restart].T
                model.intercepts_[layer][...] = bias[restart]
            if workload.shuffled:
                for order in epochs:
                    model.partial_fit(x[order], labels[order])
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that it has not converged
                    model.fit(x, labels)
            trained.append([(W.T, b) for W, b in zip(model.coefs_, model.intercepts_, strict=True)])
        return _stacked(trained)

    return train


PEERS = (
    Peer("jax", "jax", jax_idiomatic, compiles=True),
    Peer("jax tuned", "jax", jax_tuned, compiles=True),
    Peer("torch bmm", "torch", torch_stacked),
    Peer("torch modules", "torch", torch_modules, at_once=2),
    Peer("scikit-learn", "sklearn", sklearn_mlp, at_once=2, can=lambda w: w.loss != "mean_squared_error"),
    Peer("naive numpy", "numpy", naive, at_once=2),
)
