"""Names that people bring along from other libraries, and what they are called here.

Case, dashes and underscores do not count in the name of a key or an option. A name in KEYS or OPTIONS works as if the
right one had been written. A name that could mean two things, or that counts something else elsewhere, is in KEY_HINTS
or OPTION_HINTS: it is refused, and the refusal says what may have been meant.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from descentlab.values import InputError, nearest, refusal, unknown

Names = Mapping[str, Sequence[str]]  # the name here -> names elsewhere

KEYS: Names = {
    "learning_rate": ("lr", "eta", "step_size"),
    "learning_rate_decay": ("lr_decay",),
    "weight_decay": ("wd",),
    "network.hidden": ("hidden", "hidden_layer_sizes", "hidden_sizes"),
    "descent.batch_size": ("batch_size", "mini_batch_size"),
    "update": ("optimizer", "optimiser", "opt", "update_rule"),
    "update.momentum": ("momentum",),
    "update.beta1": ("beta1",),
    "update.beta2": ("beta2",),
    "epochs": ("epoch", "n_epochs", "num_epochs", "max_epochs"),
    "seed": ("random_state", "random_seed"),
    "restarts": ("n_restarts", "num_restarts"),
    "data": ("dataset",),
    "activation": ("activation_function", "activation_fn", "nonlinearity"),
    "initializer": ("init", "initialiser", "initialization", "weight_init", "kernel_initializer"),
    "loss": ("loss_function", "loss_fn", "criterion", "cost"),
    "output": ("output_activation", "output_function"),
    "workers": ("n_jobs", "num_workers"),
    "hydra/launcher": ("launcher",),
}
KEY_HINTS: Names = {
    "update=nesterov": ("nesterov",),
    "update=adam": ("adam",),
    "learning_rate, weight_decay or activation.alpha": ("alpha",),
    "learning_rate_decay": ("decay", "gamma", "lr_schedule", "scheduler"),
    "weight_decay": ("l2", "regularization"),
    "epochs": ("iterations", "steps", "max_iter", "n_iter"),
    "network.hidden": ("layers", "hidden_layers", "hidden_size", "hidden_units", "n_hidden", "units", "width", "depth"),
    "descent.batch_size": ("batch", "bs"),
    "restarts": ("seeds", "n_seeds", "runs", "n_runs", "repeats"),
    "data.path": ("path", "file", "csv"),
    "data.split": ("split", "test_size"),
    "tracking.uri": ("uri", "store", "db", "database"),
    "tracking.experiment": ("experiment_name",),
    "update.epsilon": ("epsilon", "eps"),
    "activation.negative_slope": ("negative_slope", "slope"),
}
OPTIONS: Mapping[str, Names] = {
    "activation": {
        "identity": ("linear",),
        "sigmoid": ("logistic",),
        "silu": ("swish",),
        "leaky_relu": ("leaky", "lrelu"),
    },
    "output": {"linear": ("identity",), "sigmoid": ("logistic",)},
    "loss": {
        "mean_squared_error": ("mse", "squared_error", "quadratic"),
        "binary_cross_entropy": ("bce",),
        "categorical_cross_entropy": ("cce", "sparse_categorical_cross_entropy", "softmax_cross_entropy"),
    },
    "initializer": {
        "glorot_uniform": ("xavier_uniform",),
        "glorot_normal": ("xavier_normal",),
        "he_uniform": ("kaiming_uniform",),
        "he_normal": ("kaiming_normal",),
    },
    "descent": {"batch": ("full", "full_batch"), "stochastic": ("online",)},
    "update": {"gradient_descent": ("sgd", "gd"), "nesterov": ("nag",)},
}
OPTION_HINTS: Mapping[str, Names] = {
    "loss": {
        "categorical_cross_entropy for several classes, binary_cross_entropy for two, auto for either": (
            *("cross_entropy", "cross_entropy_loss", "xent", "ce"),
            *("log_loss", "nll", "nll_loss", "negative_log_likelihood"),
        )
    },
    "initializer": {
        "glorot_uniform or glorot_normal": ("glorot", "xavier"),
        "he_normal or he_uniform": ("he", "kaiming"),
        "lecun_normal or lecun_uniform": ("lecun",),
    },
    "descent": {"stochastic, one sample a step, or mini_batch": ("sgd",)},
    "data": {"data=file data.path=FILE, with data.target in place of data.inputs": ("csv",)},
    "update": {"adam": ("adamw", "rmsprop", "adagrad", "adadelta", "nadam")},
}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _matched(name: str, names: Iterable[str], table: Names | None = None) -> str:
    """The one of some names that a name spells, or the one that a table knows it as; "" if there is none."""
    plain = _plain(name)
    for known in names:
        if plain and plain == _plain(known):
            return known
    return next((known for known, others in (table or {}).items() if plain in map(_plain, others)), "")


def key(given: str, known: Sequence[str]) -> str:
    """A key under its name here: lr is learning_rate, optimizer.momentum is update.momentum; others as they are."""
    head, dot, number = given.partition(".")
    if given in known or (dot and head in known):
        return given
    if found := _matched(given, known, KEYS):
        return found
    head = _matched(head, known, KEYS) if dot else ""
    return f"{head.replace('/', '.')}.{number}" if head else given


def option(group: str, given: Any, known: Iterable[str]) -> Any:
    """An option of a group under its name here: ReLU is relu, mse is mean_squared_error; others as they are."""
    names = list(known)
    if not isinstance(given, str) or given in names:
        return given
    return _matched(given, names, OPTIONS.get(group)) or given


def unknown_key(given: str, value: Any, known: Sequence[str]) -> InputError:
    """The refusal of a key that is none, with what may have been meant."""
    found = hint(given)
    asked = f" (did you mean {found}?)" if found else nearest(given, known)
    return refusal(given, value, f"unknown key; not one of {', '.join(known)}{asked}")


def hint(given: str) -> str:
    """What the name of a key may mean, "" if nothing is known by it."""
    return _matched(given, (), KEY_HINTS)


def unknown_option(group: str, given: Any, known: Iterable[str], others: Sequence[str]) -> InputError:
    """The refusal of an option that is none of its group, with what may have been meant.

    Args:
        group: where it was given.
        given: the option.
        known: the options of the group.
        others: options of all groups, as group=option.
    """
    names = list(known)
    if isinstance(given, str):
        hint = _matched(given, (), OPTION_HINTS.get(group))
        if group == "data" and re.fullmatch(r".*(\.\w{1,8}|/.*)", given):
            hint = f"data=file data.path={given}"
        if hint or (hint := meant(given, others)):
            return refusal(group, given, f"not one of {', '.join(sorted(names))} (did you mean {hint}?)")
    return unknown(group, given, names)


def meant(given: str, options: Sequence[str]) -> str:
    """What a name without a key, or in the wrong group, may mean: group=option, "" if nothing is known by it.

    Args:
        given: the name.
        options: of all groups, as group=option.
    """
    found = []
    for one in options:
        group, _, name = one.partition("=")
        if _matched(given, [name], {name: OPTIONS.get(group, {}).get(name, ())}):
            found.append(one)
    return " or ".join(found)
