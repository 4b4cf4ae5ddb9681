"""A configuration as params of MLflow and as config.json."""

import re
import time
from typing import Any

from descentlab.config.configuration import Config
from descentlab.config.options import schemas


def plain(value: Any) -> str:
    """A setting as text: lists as 64-32, numbers with every digit."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "-".join(map(str, value)) or "none"
    return repr(float(value)) if isinstance(value, float) else str(value)


def params(config: Config) -> dict[str, str]:
    """A configuration as params: the settings that people compare, then those that differ from their defaults."""
    rows: dict[str, Any] = {
        "data": config.data.name,
        "hidden": config.hidden,
        "activation": config.activation.name,
        "output": config.output,
        "loss": config.loss.name,
        "initializer": config.initializer.name,
        "descent": config.descent.name,
        **{key: value for key, value in config.descent.numbers.items() if key == "batch_size"},
        "update": config.update.name,
        "learning_rate": float(config.learning_rate),
        "epochs": config.epochs,
        "dtype": config.dtype,
        "seed": config.seed,
        "restarts": config.restarts,
    }
    if config.learning_rate_decay != 1:
        rows["learning_rate_decay"] = float(config.learning_rate_decay)
    if config.weight_decay != 0:
        rows["weight_decay"] = float(config.weight_decay)
    for group in ("data", "activation", "initializer", "descent", "update"):
        option = getattr(config, group)
        for key, (_, default) in schemas(group)[option.name].items():
            if key not in ("batch_size", "task") and option.numbers.get(key, default) != default:
                rows[f"{group}.{key}"] = option.numbers[key]
    return {key: plain(value) for key, value in rows.items()}


def recorded(config: Config) -> dict[str, Any]:
    """The configuration as config.json: without the store, which may hold a password, and the launcher."""
    left_out = ("resume", "launcher")
    return {key: value for key, value in config.as_dict().items() if key not in left_out} | {
        "tracking": {"name": "none"}
    }


def safe_name(text: str) -> str:
    """A metric's or file's name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", text)


def milliseconds() -> int:
    """Now, as MLflow's timestamp."""
    return int(time.time() * 1000)
