"""Names of runs, derived from their configurations: short, telling, and different within a sweep."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from descentlab.config.configuration import Config, flattened
from descentlab.config.options import schemas
from descentlab.nn.initializers import default_initializer
from descentlab.nn.losses import default_output
from descentlab.values import Option

LONGEST = 200  # of a name
_SHORT = {
    "mean_squared_error": "mse",
    "binary_cross_entropy": "bce",
    "categorical_cross_entropy": "cce",
    "leaky_relu": "leaky",
    "stochastic": "sgd",
    "mini_batch": "mini",
    "sequential": "seq",
    "network.hidden": "h",
    "learning_rate": "lr",
    "learning_rate_decay": "decay",
    "weight_decay": "wd",
    "epochs": "e",
    "seed": "s",
    "restarts": "r",
}


def derived_name(config: Config) -> str:
    """Activation, loss and descent, then what departs from the plain case: relu-cce-mini32, tanh-mse-batch-adam."""
    loss, output, activation = config.loss.name, config.output, config.activation
    parts = [_labelled("activation", activation), _SHORT.get(loss, loss), _labelled("descent", config.descent, True)]
    if output not in {default_output(loss, task) for task in ("regression", "multiclass")}:
        parts.append(output)
    if config.initializer.name != default_initializer(activation.name) or any(config.initializer.numbers.values()):
        parts.append(_labelled("initializer", config.initializer))
    if config.update.name != "gradient_descent":
        parts.append(_labelled("update", config.update))
    if config.learning_rate_decay != 1:
        parts.append(f"decay{config.learning_rate_decay:g}")
    if config.weight_decay:
        parts.append(f"wd{config.weight_decay:g}")
    return "-".join(parts)


def _labelled(group: str, option: Option, always: bool = False) -> str:
    """An option's short name, followed by its numbers where they are not the defaults."""
    own = schemas(group)[option.name]
    return _SHORT.get(option.name, option.name) + "-".join(
        f"{value:g}" for key, value in option.numbers.items() if always or value != own[key][1]
    )


def tell_apart(cells: Sequence[Config]) -> list[Config]:
    """The cells of a sweep under names that tell them apart: relu-cce-mini32-lr0.1, relu-cce-mini32-iris-s3, ..."""
    cells = list(cells)
    if len({cell.data.name for cell in cells}) > 1:  # the one group that a derived name leaves out
        cells = [replace(cell, name=f"{cell.name}-{cell.data.name}") for cell in cells]
    named: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        named.setdefault(cell.name, []).append(place)
    for name, places in named.items():
        flat = [flattened(cells[place].as_dict()) for place in places]
        shared = set(flat[0]).intersection(*flat)
        axes = sorted(key for key in shared if any(one[key] != flat[0][key] for one in flat))
        if "data.path" in axes and len({one["data.path"] for one in flat}) == len(flat):
            axes = [key for key in axes if key == "data.path" or not key.startswith("data.")]  # the file tells the rest
        columns = [[_label(key) + text for text in _texts([one[key] for one in flat])] for key in axes]
        full = ["-".join([name, *labels]) for labels in zip(*columns, strict=True)] if columns else [name] * len(places)
        short = [text[:LONGEST] for text in full]
        if len(set(short)) < len(set(full)):  # too long to be told apart
            short = [f"{text[: LONGEST - 7]}-{place}" for place, text in enumerate(full)]
        for place, text in zip(places, short, strict=True):
            cells[place] = replace(cells[place], name=text)
    return cells


def _label(key: str) -> str:
    return "" if key.endswith(".name") or key == "data.path" else _SHORT.get(key, key.split(".")[-1])


def _texts(values: Sequence[Any]) -> list[str]:
    """Values as parts of names; a path by its last part, or by as many as it takes to tell it from the others."""
    for parts in range(1, 1 + max(str(value).count("/") + 1 for value in values)):
        texts = [_text(value, parts) for value in values]
        if len(set(texts)) == len({str(value) for value in values}):
            break
    return texts


def _text(value: Any, parts: int = 1) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value)) or "none"
    plain = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.\-]", "_", "/".join(plain.rstrip("/").split("/")[-parts:]))
