"""train(): restarts of one network on arrays, without configuration files or tracking."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from numpy import ndarray

from descentlab.config import spellings
from descentlab.nn.activations import ACTIVATIONS, Activation
from descentlab.nn.descent import DESCENTS, Descent
from descentlab.nn.initializers import INITIALIZERS, Initializer, default_initializer
from descentlab.nn.losses import LOSSES, TASKS, Loss, check_pair, default_loss, default_output
from descentlab.nn.recipe import Recipe, Training
from descentlab.nn.trainer import train_recipe
from descentlab.nn.updates import UPDATES, Update
from descentlab.values import nearest

__all__ = ["Training", "train"]

# What other libraries have and train() does otherwise; config.spellings knows further names.
ELSEWHERE = {
    "learning_rate_init": "learning_rate",
    "solver": "update",
    "validation_data": "validation",
    "precision": "dtype",
    "verbose": "on_record",
    "callbacks": "on_record",
}


def train(
    inputs: ndarray,
    targets: ndarray,
    *,
    hidden: int | Sequence[int] = (32,),
    activation: str | Activation = "relu",
    output: str = "auto",
    loss: str | Loss = "auto",
    initializer: str | Initializer = "auto",
    output_initializer: str | Initializer = "auto",
    descent: str | Descent = "mini_batch",
    batch_size: int | None = None,
    update: str | Update = "gradient_descent",
    learning_rate: float | Sequence[float] | ndarray | None = None,
    learning_rate_decay: float = 1.0,
    weight_decay: float = 0.0,
    epochs: int | None = None,
    seed: int = 0,
    restarts: int = 1,
    task: str | None = None,
    validation: tuple[ndarray, ndarray] | None = None,
    test: tuple[ndarray, ndarray] | None = None,
    dtype: str = "float64",
    log_every: int | Literal["auto"] = "auto",
    diagnostics: str = "basic",
    workers: int | Literal["auto"] = "auto",
    on_record: Callable[[Any], None] | None = None,
    **unknown: Any,
) -> Training:
    """Train restarts of one network on arrays.

    Args:
        inputs: (N, n_0).
        targets: (N, K) as they stand; or (N,) labels, whole numbers or text, made one-hot (two classes: one output).
        hidden: sizes of the hidden layers, () for none.
        activation: of the hidden layers: a name, or an object such as `leaky_relu(0.2)`; so for the others below.
        output: key of OUTPUTS; "auto" follows loss and task.
        loss: "auto" follows the task.
        initializer: of all layers; "auto" follows the activation.
        output_initializer: of the last layer; "auto" is the initializer, or glorot_uniform where that is "auto" too.
        descent: which samples each step sees.
        batch_size: samples a step of descent="mini_batch"; None for its default, 32.
        update: how the gradient moves the weights.
        learning_rate: one rate on the mean gradient, or several that are trained side by side; None for that of
            conf/config.yaml, 0.2.
        learning_rate_decay: factor per epoch.
        weight_decay: added to the weights' gradient as weight_decay W.
        epochs: passes over the training data; None for that of conf/config.yaml, 30.
        seed: of the first restart; restart r has seed + r.
        restarts: networks that differ in their seed.
        task: "regression", "binary", "multiclass" or "multilabel"; None finds it in the targets; "classes" takes any
            numbers (N,) as labels.
        validation: (inputs, targets) in the same form, or None.
        test: likewise.
        dtype: "float64" or "float32".
        log_every: epochs between measurements; "auto" makes about 20 of them.
        diagnostics: what is measured of layers: "basic", "full" (nn.diagnostics lists both) or "none".
        workers: threads or processes, "auto" for one per core.
        on_record: is handed every Record as soon as it is measured; for printing progress, say.
        **unknown: refused, with the argument that may have been meant.

    Returns:
        The Training; `.curves["test/accuracy"]` is (logged epochs, restarts).

    Raises:
        ValueError: for names or values that mean nothing, in one line.
        TypeError: for an argument that there is not.
    """
    if unknown:
        _refuse(next(iter(unknown)))
    splits, task = _splits({"train": (inputs, targets), "validation": validation, "test": test}, task)
    x, y = splits["train"]
    judge = _chosen(default_loss(task) if loss == "auto" else loss, LOSSES, "loss")
    output = default_output(judge, task) if output == "auto" else output
    check_pair(judge, output, y.shape[1], y, task)
    phi = _chosen(activation, ACTIVATIONS, "activation")
    first, last = _initializers(initializer, output_initializer, phi)
    rates = np.asarray(_default("learning_rate") if learning_rate is None else learning_rate, dtype=np.float64)
    recipe = Recipe(
        layers=(x.shape[1], *_hidden(hidden), y.shape[1]),
        activation=phi,
        output=output,
        loss=judge,
        initializer=first,
        output_initializer=last,
        descent=_descent(descent, batch_size),
        update=_chosen(update, UPDATES, "update"),
        learning_rate=tuple(rates.tolist()) if rates.ndim else rates.item(),
        learning_rate_decay=learning_rate_decay,
        weight_decay=weight_decay,
        epochs=_default("epochs") if epochs is None else epochs,
        seed=seed,
        restarts=restarts,
        dtype=dtype,
        log_every=log_every,
        diagnostics=diagnostics,
        task=task,
    )
    return train_recipe(recipe, splits, workers, on_record)


def _splits(
    given: Mapping[str, tuple[ndarray, ndarray] | None], task: str | None
) -> tuple[dict[str, tuple[ndarray, ndarray]], str]:
    """Inputs (N, n_0) and targets (N, K) of the splits that are given, and the task."""
    if task not in (None, "classes", *TASKS):
        raise ValueError(f"task={task}: not one of {', '.join(TASKS)}, classes")
    for name, pair in given.items():
        if pair is not None and not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise ValueError(f"{name}: must be a pair of inputs and targets")
    pairs = {name: pair for name, pair in given.items() if pair is not None}
    classes = _classes(np.asarray(pairs["train"][1]), task == "classes") if task != "regression" else None
    splits = {name: _arrays(name, pair, classes) for name, pair in pairs.items()}
    return splits, task if task and task != "classes" else _task(splits["train"][1])


def _hidden(sizes: int | str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, (int, np.integer)):
        return (int(sizes),)
    if isinstance(sizes, str) or not np.iterable(sizes):
        raise ValueError(f"hidden={sizes}: must be the sizes of the hidden layers, such as (64, 32), or one size")
    return tuple(sizes)


def _initializers(rule: str | Initializer, last: str | Initializer, phi: Activation) -> tuple[Initializer, Initializer]:
    """What draws the hidden layers and what draws the last one."""
    first = _chosen(default_initializer(phi) if rule == "auto" else rule, INITIALIZERS, "initializer")
    if last == "auto":
        return first, INITIALIZERS["glorot_uniform"]() if rule == "auto" else first
    return first, _chosen(last, INITIALIZERS, "output_initializer")


def _refuse(name: str) -> NoReturn:
    known = [key for key in inspect.signature(train).parameters if key != "unknown"]
    spelled = (ELSEWHERE.get(name) or spellings.key(name, known)).rpartition(".")[2]
    found = spelled if spelled in known else spellings.hint(name).rpartition(".")[2]
    meant = f" (did you mean {found}?)" if found else nearest(name, known)
    raise TypeError(f"{name}=: train() has no such argument{meant or '; it takes ' + ', '.join(known)}")


def _default(key: str) -> Any:
    from descentlab.config.composing import defaults

    return defaults()[key]


def _descent(choice: str | Descent, batch_size: int | None) -> Descent:
    if batch_size is None:
        return _chosen(choice, DESCENTS, "descent")
    if choice != "mini_batch":
        name = choice if isinstance(choice, str) else choice.name
        raise ValueError(f"batch_size={batch_size}: belongs to descent=mini_batch, not to descent={name}")
    return DESCENTS["mini_batch"](batch_size)


def _chosen(choice: Any, registry: Mapping[str, Any], key: str) -> Any:
    """What a name stands for, relu or ReLU; an object stands for itself."""
    if not isinstance(choice, str):
        return choice
    group = key.removeprefix("output_")
    name = spellings.option(group, choice, registry)
    if name not in registry:
        refusal = spellings.unknown_option(group, choice, registry, ())
        raise ValueError(str(refusal).replace(group, key, 1))
    found = registry[name]
    return found if isinstance(found, Loss) else found()


def _classes(labels: ndarray, forced: bool) -> ndarray | None:
    """The different labels, where targets (N,) are whole numbers or text, or where they must be labels."""
    if labels.ndim != 1 or not len(labels) or not (forced or labels.dtype.kind in "iubUSO"):
        return None
    classes = np.unique(labels)
    if len(classes) == 1:
        raise ValueError(f"targets={classes[0]}: is the only label; valid: two labels or more")
    return classes


def _arrays(name: str, pair: tuple[ndarray, ndarray], classes: ndarray | None) -> tuple[ndarray, ndarray]:
    dense = pair[0].toarray() if hasattr(pair[0], "toarray") else pair[0]  # of a sparse matrix
    inputs, targets = np.asarray(dense, dtype=np.float64), np.asarray(pair[1])
    if inputs.ndim != 2 or targets.ndim not in (1, 2) or not len(targets):
        shapes = f"inputs {inputs.shape} and targets {targets.shape}"
        raise ValueError(f"{name}: {shapes} must be (N, n_0) and (N,) or (N, K) with N > 0")
    if classes is None:
        return inputs, np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
    if targets.ndim != 1:
        raise ValueError(f"{name}: targets {targets.shape} must be labels (N,), as those of train are")
    strange = np.setdiff1d(targets, classes)
    if len(strange):
        raise ValueError(f"{name}: label {strange[0]} is not in train; valid: {', '.join(map(str, classes))}")
    hot = (targets[:, None] == classes).astype(np.float64)
    return inputs, hot[:, 1:] if len(classes) == 2 else hot


def _task(targets: ndarray) -> str:
    if not ((targets == 0) | (targets == 1)).all():
        return "regression"
    if targets.shape[1] == 1:
        return "binary"
    return "multiclass" if (targets.sum(axis=1) == 1).all() else "multilabel"
