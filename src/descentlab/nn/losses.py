"""Losses, each with the stable form it takes over every output it may stand on.

Conventions: all losses are averaged over samples. mean_squared_error is half the MEAN over the K outputs of
(a - y)^2, the notebook's convention; binary_cross_entropy is the SUM over the K outputs; categorical_cross_entropy
is -sum_k y_k log a_k. Logarithms are natural.

The loss owns its error: `error` is delta = dC_i/dz for each sample i, before any average over samples, taken from z
directly where the product of loss and output simplifies (Bishop 2006, section 5.2) and from the output's Jacobian
elsewhere. `error_derivative` is that error's derivative along a direction of z, the loss's part of a Hessian-vector
product (Pearlmutter 1994). The Jacobians of the three output functions are symmetric, which it makes use of.

To add a loss, write a `Form` for every output function it may stand on, enter a `Loss` in LOSSES and add
conf/loss/<name>.yaml. z is (R, B, K) or (B, K) in any memory order, y (B, K) or of z's shape; both keep what they hold,
but for z where it is the `out` of `error`. Value and error have the dtype of z: a Python number keeps it (math.log(2)),
a NumPy scalar (np.log(2.0)) makes float64 of float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import quick, quick_logistic
from descentlab.nn.outputs import OUTPUTS, Output
from descentlab.nn.registry import Named, table

# What targets (N, K) mean. multilabel: several columns of 0 and 1, any number of them 1 in a row.
TASKS = ("regression", "binary", "multiclass", "multilabel")
MULTILABEL = "output=sigmoid with loss=binary_cross_entropy or mean_squared_error"


@dataclass(frozen=True)
class Form:
    """A loss over one output function, as functions of the last layer's z.

    Attributes:
        value: `value(z, y) -> (...)`, each sample's loss, for z and y of shape (..., K).
        error: `error(z, y, out=None) -> (..., K)`, each sample's dC_i/dz, in `out` where that is given. `out` may be z,
            so an error reads z before it writes.
        error_derivative: `error_derivative(z, y, dz) -> (..., K)`, (d^2 C_i / dz^2) dz.
    """

    value: Callable[[ndarray, ndarray], ndarray]
    error: Callable[..., ndarray]
    error_derivative: Callable[[ndarray, ndarray, ndarray], ndarray]

    @property
    def in_loop(self) -> Callable[..., ndarray]:
        """What the training loop calls for the error."""
        return quick(self.error)


@dataclass(frozen=True)
class Loss(Named):
    """A loss.

    Attributes:
        name: its key in LOSSES.
        forms: by the key in OUTPUTS of the output function that it stands on.
        target_rule: which targets it can judge, in words that follow "targets that are".
        accepts: `accepts(y)`, whether it can judge targets (N, K).
    """

    name: str
    forms: dict[str, Form]
    target_rule: str
    accepts: Callable[[ndarray], bool]


def _squared_error(output: Output) -> Form:
    def value(z: ndarray, y: ndarray) -> ndarray:
        difference = output.value(z) - y
        return 0.5 * np.square(difference).mean(axis=-1)

    def error_over(answer: Callable[[ndarray], ndarray]) -> Callable[..., ndarray]:
        def error(z: ndarray, y: ndarray, out: ndarray | None = None) -> ndarray:
            a = answer(z)
            difference = a - y
            difference /= z.shape[-1]
            return output.pullback(a, difference, out)

        return error

    def error_derivative(z: ndarray, y: ndarray, dz: ndarray) -> ndarray:
        a = output.value(z)
        da = output.pullback(a, dz)
        return output.pullback(a, da / z.shape[-1]) + output.pullback_derivative(a, (a - y) / z.shape[-1], da)

    error = error_over(output.value)
    error.quick = error_over(quick(output.value))  # type: ignore[attr-defined]
    return Form(value, error, error_derivative)


def _binary_value(z: ndarray, y: ndarray) -> ndarray:
    # -y log a - (1 - y) log(1 - a) with a = sigmoid(z) is softplus(z) - y z
    return (np.maximum(z, 0.0) - y * z + np.log1p(np.exp(-np.abs(z)))).sum(axis=-1)


def _binary_error(z: ndarray, y: ndarray, out: ndarray | None = None) -> ndarray:
    with np.errstate(over="ignore"):
        return _quick_binary_error(z, y, out)


def _quick_binary_error(z: ndarray, y: ndarray, out: ndarray | None = None) -> ndarray:
    a = quick_logistic(z, np.empty_like(z) if out is None else out)
    return np.subtract(a, y, a)


_binary_error.quick = _quick_binary_error  # type: ignore[attr-defined]


def _binary_error_derivative(z: ndarray, y: ndarray, dz: ndarray) -> ndarray:
    tail = np.exp(-np.abs(z))  # a (1 - a) = tail / (1 + tail)^2 keeps its digits where 1 - a has none left
    return dz * (tail / np.square(1.0 + tail))


def _log_sum_exp_without(z: ndarray) -> ndarray:
    """The logarithm of sum_{k != j} exp(z_k) for every output j, shape (..., K)."""
    outputs = z.shape[-1]
    others = np.broadcast_to(z[..., None, :], (*z.shape, outputs)).copy()  # (..., K, K)
    others[..., np.arange(outputs), np.arange(outputs)] = -np.inf
    top = others.max(axis=-1, keepdims=True)
    return (np.log(np.exp(others - top).sum(axis=-1, keepdims=True)) + top)[..., 0]


def _binary_over_softmax_value(z: ndarray, y: ndarray) -> ndarray:
    top = z.max(axis=-1, keepdims=True)
    whole = np.log(np.exp(z - top).sum(axis=-1, keepdims=True)) + top
    return (whole - y * z - (1.0 - y) * _log_sum_exp_without(z)).sum(axis=-1)


def _binary_over_softmax_error(z: ndarray, y: ndarray, out: ndarray | None = None) -> ndarray:
    # d/dz_m of -log(1 - a_j) is a_m - share_jm: bounded, unlike 1 / (1 - a_j)
    delta = z.shape[-1] * OUTPUTS["softmax"].value(z)
    delta -= y
    return np.subtract(delta, ((1.0 - y)[..., None] * _softmax_without(z)).sum(axis=-2), out=out)


def _softmax_without(z: ndarray) -> ndarray:
    """The softmax over all outputs m but j: [m != j] exp(z_m - log sum_{k != j} exp(z_k)), shape (..., j, m)."""
    outputs = z.shape[-1]
    others = z[..., None, :] - _log_sum_exp_without(z)[..., :, None]  # (..., j, m)
    others[..., np.arange(outputs), np.arange(outputs)] = -np.inf
    return np.exp(np.minimum(others, 0.0))


def _binary_over_softmax_error_derivative(z: ndarray, y: ndarray, dz: ndarray) -> ndarray:
    share = _softmax_without(z)  # (..., j, m)
    turned = _softmax_derivative(share, np.broadcast_to(dz[..., None, :], share.shape))
    whole = z.shape[-1] * _softmax_derivative(OUTPUTS["softmax"].value(z), dz)
    return whole - ((1.0 - y)[..., None] * turned).sum(axis=-2)


def _softmax_derivative(a: ndarray, dz: ndarray) -> ndarray:
    """How softmax values a (..., K) change along dz, to their last digits where one of them is all but 1."""
    # a common shift of dz changes nothing; taking out the top class's leaves only small numbers to subtract
    dz = dz - np.take_along_axis(dz, a.argmax(axis=-1)[..., None], axis=-1)
    return a * (dz - (a * dz).sum(axis=-1, keepdims=True))


def _categorical_value(z: ndarray, y: ndarray) -> ndarray:
    shifted = z - z.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return (y * (log_sum - shifted)).sum(axis=-1)


def _categorical_error(z: ndarray, y: ndarray, out: ndarray | None = None) -> ndarray:
    # without further arrays: this is the inner loop of the commonest configuration
    out = np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out *= 1.0 / np.add.reduce(out, axis=-1, keepdims=True)
    out -= y
    return out


def _categorical_error_derivative(z: ndarray, y: ndarray, dz: ndarray) -> ndarray:
    return _softmax_derivative(OUTPUTS["softmax"].value(z), dz)


LOSSES: dict[str, Loss] = table(
    "loss",
    Loss(
        "mean_squared_error",
        {name: _squared_error(output) for name, output in OUTPUTS.items()},
        "finite numbers",
        lambda y: bool(np.isfinite(y).all()),
    ),
    Loss(
        "binary_cross_entropy",
        {
            "sigmoid": Form(_binary_value, _binary_error, _binary_error_derivative),
            "softmax": Form(
                _binary_over_softmax_value, _binary_over_softmax_error, _binary_over_softmax_error_derivative
            ),
        },
        "numbers in [0, 1]",
        lambda y: bool(((y >= 0) & (y <= 1)).all()),
    ),
    Loss(
        "categorical_cross_entropy",
        {"softmax": Form(_categorical_value, _categorical_error, _categorical_error_derivative)},
        "rows that are distributions (not negative, summing to 1)",
        lambda y: bool((y >= 0).all() and (np.abs(y.sum(axis=-1) - 1.0) < 1e-6).all()),
    ),
)


def default_loss(task: str) -> str:
    """The loss that belongs to a task: squared error, binary or categorical cross-entropy (Bishop 2006, 5.2)."""
    if task == "regression":
        return "mean_squared_error"
    return "categorical_cross_entropy" if task == "multiclass" else "binary_cross_entropy"


def default_output(loss: str | Loss, task: str) -> str:
    """The output function that belongs to a loss and a task: linear for regression, sigmoid or softmax elsewhere."""
    forms = _loss(loss).forms
    order = ("linear", "sigmoid", "softmax") if task == "regression" else ("sigmoid", "softmax", "linear")
    return next((name for name in order if name in forms), next(iter(forms)))


def check_pair(
    loss: str | Loss, output: str, outputs: int, targets: ndarray | None = None, task: str | None = None
) -> None:
    """Refuse a loss, output and target combination that means nothing.

    Args:
        loss: key of LOSSES, or a loss of one's own.
        output: key of OUTPUTS.
        outputs: K, the number of output units.
        targets: (N, K), checked against what the loss can judge when given.
        task: of TASKS, checked when given: several labels need an output that answers each by itself.

    Raises:
        ValueError: in one line that names the key, the value and the valid choices.
    """
    judge = _loss(loss)
    if output not in OUTPUTS:
        raise ValueError(f"output={output}: not one of {', '.join(sorted(OUTPUTS))}")
    if task == "multilabel" and "sigmoid" not in judge.forms:
        raise ValueError(f"loss={judge.name}: does not judge several labels a sample; valid: {MULTILABEL}")
    forms = [name for name in judge.forms if not (name == "softmax" and outputs == 1)]
    if not forms:
        valid = "output=sigmoid with loss=binary_cross_entropy or mean_squared_error"
        raise ValueError(f"loss={judge.name}: stands over softmax alone, constant with one output unit; valid: {valid}")
    if output == "softmax" and outputs == 1:
        raise ValueError(
            f"output=softmax: is constant with one output unit; valid over {judge.name}: {', '.join(forms)}"
        )
    if output not in forms:
        raise ValueError(f"output={output}: does not go with loss={judge.name}; valid: {', '.join(forms)}")
    if task == "multilabel" and output != "sigmoid":
        raise ValueError(f"output={output}: does not answer several labels a sample; valid: {MULTILABEL}")
    if targets is None:
        return
    if not np.isfinite(targets).all():
        raise ValueError(f"targets={targets[~np.isfinite(targets)][0]}: must be finite numbers")
    if not judge.accepts(targets):
        raise ValueError(f"loss={judge.name}: needs targets that are {judge.target_rule}; valid: {_fits(targets)}")


def _loss(loss: str | Loss) -> Loss:
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss}: not one of {', '.join(sorted(LOSSES))}")
    return LOSSES[loss]


def _fits(targets: ndarray) -> str:
    return ", ".join(name for name, loss in LOSSES.items() if loss.accepts(targets))
