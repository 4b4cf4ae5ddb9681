"""Check a configuration, and make of it what it stands for: data and a recipe for the trainer.

`resolve` takes plain nested values, as Hydra composes them from conf/ or as a tracked run kept them, and either returns
a Config in which nothing is left open or raises InputError, one line that names key, value and what would be valid.
Defaults of run-level keys are in conf/config.yaml and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from descentlab.config.configuration import HIDDEN, LATER, RUN, Config
from descentlab.config.names import derived_name
from descentlab.config.options import GROUPS, LAUNCHER, chosen, schemas
from descentlab.config.spellings import unknown_key
from descentlab.data import loading as data
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS, default_initializer
from descentlab.nn.losses import check_pair, default_loss, default_output
from descentlab.nn.updates import UPDATES
from descentlab.values import InputError, Option, refusal, shown


def resolve(raw: Mapping[str, Any]) -> Config:
    """Check a configuration and replace every `auto` that alters results.

    Args:
        raw: plain nested values: an option per group (a mapping with its `name`, or the name alone), network.hidden and
            the keys of RUN. `output_initializer` and `launcher` may be left out.

    Raises:
        InputError: for whatever is wrong with it.
    """
    if not isinstance(raw, Mapping):
        raise InputError("configuration: must be a mapping of keys to values")
    _refuse_code(raw, "")
    given = _flat_run(raw)
    run = {key: check(key, given[key]) for key, check in RUN.items()}
    hidden = HIDDEN("network.hidden", given["network.hidden"])
    if run["seed"] + run["restarts"] > 2**32:
        raise refusal("restarts", run["restarts"], f"with seed={run['seed']} seeds would not lie in [0, 2**32)")

    options = {group: chosen(group, raw[group]) for group in GROUPS}
    options["launcher"] = chosen(LAUNCHER, raw.get("launcher", "none"))
    options["data"], task = data.with_task(options["data"])
    if options["loss"].name == "auto":
        options["loss"] = Option(default_loss(task))
    loss = options["loss"].name
    if run["output"] == "auto":
        run["output"] = default_output(loss, task)
    _refused_as_input(check_pair, loss, run["output"], data.outputs(options["data"]) or 2, task=task)
    activation = options["activation"]
    last = options["initializer"]
    if last.name == "auto":
        options["initializer"] = Option(default_initializer(activation.name), last.numbers)
        last = Option("glorot_uniform", last.numbers)
    if "output_initializer" in raw:
        last = chosen("output_initializer", raw["output_initializer"], schemas("initializer"))
        last = Option("glorot_uniform", last.numbers) if last.name == "auto" else last
    if "notebook" in (last.name, options["initializer"].name) and last != options["initializer"]:
        raise refusal("output_initializer", last.name, "the notebook's stream draws all layers or none")
    for group, registry in (("activation", ACTIVATIONS), ("descent", DESCENTS), ("update", UPDATES)):
        _refused_as_input(registry[options[group].name], **options[group].numbers)
    for option in (options["initializer"], last):
        _refused_as_input(INITIALIZERS[option.name], **option.numbers)
    if options["tracking"].name == "server" and options["tracking"].numbers["uri"] == "auto":
        raise refusal("tracking.uri", "auto", "tracking=server needs an address such as http://127.0.0.1:5000")
    values: dict[str, Any] = {**run, **options}
    config = Config(**values, output_initializer=last, hidden=hidden)
    return replace(config, name=derived_name(config)) if config.name == "auto" else config


def by_rate(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A configuration whose learning_rate is a list as one configuration per rate; any other as it is.

    Raises:
        InputError: for an empty list.
    """
    rates = raw.get("learning_rate")
    if not isinstance(rates, (list, tuple)):
        return [dict(raw)]
    if not rates:
        raise refusal("learning_rate", rates, "must hold a rate, as in learning_rate=[0.05,0.1,0.2]")
    return [{**raw, "learning_rate": rate} for rate in rates]


def keys() -> list[str]:
    """Every key that is no option's own number."""
    return sorted([*RUN, *GROUPS, "network.hidden"])


def _flat_run(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Run-level values by key, the unknown and the missing refused."""
    network = raw.get("network", {})
    if not isinstance(network, Mapping):
        raise refusal("network", network, "must hold hidden, as in network.hidden=64-32")
    given = {"resume": True}  # which no stored run has
    given |= {key: default for key, default in LATER.items() if key in RUN}
    given |= {key: value for key, value in raw.items() if key != "network"}
    given |= {f"network.{key}": value for key, value in network.items()}
    for key, value in given.items():
        if key not in keys() and key not in ("output_initializer", "launcher"):
            raise unknown_key(key, value, keys())
    for key in keys():
        if key not in given:
            raise InputError(f"{key}: is missing from the configuration")
    return given


def _refuse_code(value: Any, path: str, depth: int = 0) -> None:
    """Refuse what would make a configuration more than data: class paths, interpolations, missing values."""
    if depth > 8:
        raise InputError(f"{shown(path)}: is nested too deeply")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{shown(path + str(key))}: keys must be texts")
            if key.startswith("_"):
                raise refusal(path + key, item, "is refused; a configuration is data, not code")
            _refuse_code(item, f"{path}{key}.", depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_code(item, path, depth + 1)
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise refusal(path.rstrip("."), value, "interpolations are refused; write the value itself")


def _refused_as_input(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what checks its arguments by raising ValueError in one line."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise InputError(str(error)) from error
