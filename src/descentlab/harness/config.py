"""What one run is: a typed configuration, its checks, and the objects of nn it stands for.

`resolve` takes plain nested values, as Hydra composes them from conf/ or as a tracked run kept them, and either returns
a Config in which nothing is left open or raises InputError, one line that names key, value and what would be valid.
Defaults of run-level keys are in conf/config.yaml and nowhere else; an option's own numbers default to those of its
factory in nn, of `data.SOURCES`, or of TRACKING below.

Equal configurations are equal: 64-32 is [64, 32], 1 is 1.0 where a float is meant.
"""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from descentlab.nn.activations import ACTIVATIONS, OUTPUTS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.diagnostics import LEVELS
from descentlab.nn.initializers import INITIALIZERS, default_initializer
from descentlab.nn.losses import LOSSES, check_pair, default_loss, default_output
from descentlab.nn.updates import UPDATES

if TYPE_CHECKING:
    from descentlab.harness.data import Dataset
    from descentlab.nn.trainer import Recipe

GROUPS = ("activation", "loss", "initializer", "descent", "update", "data", "tracking")
# What a run is called, where it is kept, by whom and on how many threads it ran, and whether earlier ones stand for it.
HASHED_NOT = ("name", "tracking", "launcher", "workers", "resume")
LAUNCHER = "hydra/launcher"  # on the command line and in conf/; its numbers are hydra.launcher.workers, ...
LARGEST = 10**9  # of any count; a million epochs is already a slip of the finger


class InputError(Exception):
    """What a user gave cannot be used; the message is one line that names it and what would be valid."""


# --- values ------------------------------------------------------------------------------------------------------

Check = Callable[[str, Any], Any]  # (key, value) -> the canonical value; raises InputError


def shown(value: Any, length: int = 80) -> str:
    """A value as it may stand in a message: on one line, printable, not too long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(shown(item) for item in value[:8]) + (", ...]" if len(value) > 8 else "]")
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(str(key) for key in list(value)[:8]) + "}"
    elif isinstance(value, int) and abs(value) > 10**60:  # str() refuses the very large ones
        text = "a number of more than 60 digits"
    else:
        text = str(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    text = without_password(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def without_password(text: str) -> str:
    """A text without the user and password that an address in it may hold."""
    return re.sub(r"(?<=://)[^\s/]\S*@|(?<=[?&]password=)[^\s&]*", "", text)


def refusal(key: str, value: Any, valid: str) -> InputError:
    """The error for a value: `learning_rate=-1: must be a finite number above 0`."""
    return InputError(f"{shown(key)}={shown(value)}: {valid}")


def unknown(key: str, value: Any, valid: Iterable[str]) -> InputError:
    """The error for a choice: `activation=rleu: not one of elu, gelu, ... (did you mean relu?)`."""
    names = sorted(valid)
    return refusal(key, value, f"not one of {', '.join(names)}{nearest(value, names)}")


def nearest(value: Any, names: Sequence[str]) -> str:
    """A question for the name that may have been meant, empty where none is near."""
    from difflib import get_close_matches

    found = get_close_matches(str(value)[:100], names, n=1) if isinstance(value, str) else []
    return f" (did you mean {found[0]}?)" if found else ""


def number(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Check:
    """A finite number from low (above it, with `above`) to high, as a float."""
    valid = "must be a finite number"
    if low > -math.inf:
        valid += f" {'above' if above else 'at or above'} {low:g}"
    if high < math.inf:
        valid += f"{',' if low > -math.inf else ''} at most {high:g}"

    def check(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refusal(key, value, valid)
        try:
            given = float(value) + 0.0  # -0 is 0
        except OverflowError:
            raise refusal(key, value, valid) from None
        if not math.isfinite(given) or given > high or (given <= low if above else given < low):
            raise refusal(key, value, valid)
        return given

    return check


def whole(low: int, high: int = LARGEST, *words: str) -> Check:
    """A whole number from low to high, or one of some words, such as auto."""
    valid = f"must be {' or '.join((*words, 'a whole number'))} from {low} to {high}"

    def check(key: str, value: Any) -> int | str:
        if isinstance(value, str) and value in words:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refusal(key, value, valid)
        if not low <= value <= high or value != int(value):  # NaN and infinities fail the first
            raise refusal(key, value, valid)
        return int(value)

    return check


def choice(*names: str) -> Check:
    """One of some names."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise unknown(key, value, names)
        return value

    return check


def switch(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refusal(key, value, "must be true or false")
    return value


def text(valid: str = "must be a text", pattern: str = r".+") -> Check:
    """A text on one line that matches a pattern."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
            raise refusal(key, value, valid)
        return value

    return check


def sizes(valid: str, low: int, high: int, most: int) -> Check:
    """Whole numbers as a list [64, 32] or as a text 64-32, as a tuple."""

    def check(key: str, value: Any) -> tuple[int, ...]:
        items: Any = value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})*", value):
            items = [int(part) for part in value.split("-")]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            items = [value]
        if not isinstance(items, (list, tuple)) or len(items) > most:
            raise refusal(key, value, valid)
        one = whole(low, high)
        try:
            return tuple(one(key, item) for item in items)
        except InputError:
            raise refusal(key, value, valid) from None

    return check


RUN: dict[str, Check] = {
    "name": text("must be auto, or up to 100 letters, digits, dots, dashes and spaces", r"[\w.+\- ]{1,100}"),
    "output": choice("auto", *OUTPUTS),
    "learning_rate": number(0, above=True),
    "learning_rate_decay": number(0, 1, above=True),
    "weight_decay": number(0),
    "epochs": whole(1),
    "seed": whole(0, 2**32 - 1),
    "restarts": whole(1, 10**6),
    "dtype": choice("float64", "float32"),
    "log_every": whole(1, LARGEST, "auto"),
    "diagnostics": choice(*LEVELS),
    "workers": whole(1, 1024, "auto"),
    "resume": switch,
}
HIDDEN = sizes(
    "must be the sizes of up to 1000 hidden layers, each from 1 to 100000: [64, 32] or 64-32, [] for none",
    1,
    100_000,
    1000,
)


# --- options -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One chosen option of a group, with its own numbers by name."""

    name: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Name and numbers in one mapping, as in an option file."""
        return {"name": self.name, **self.numbers}


Schema = Mapping[str, tuple[Check, Any]]  # an option's own keys: key -> (check, default)

_STORE: Schema = {
    "uri": (text("must be auto, a path, or an address: sqlite:///..., http://..., postgresql://..."), "auto"),
    "experiment": (text("must be the name of an MLflow experiment"), "descentlab"),
    "children": (choice("auto", "all", "none"), "auto"),
    "patience": (number(0), 300.0),
    "checkpoint_seconds": (number(0), 600.0),
}
TRACKING: Mapping[str, Schema] = {"local": _STORE, "server": _STORE, "none": {}}
_CORES: Schema = {"cores": (whole(1, 1024), 1)}
_WORD = text("must be auto or a word without spaces", r"\S+")
LAUNCHERS: Mapping[str, Schema] = {
    "none": {},
    "local": {"workers": (whole(1, 1024), 2), **_CORES},
    "cluster": {
        "address": (text("must be local, auto, or the address of a Ray cluster: host:6379", r"\S+"), "local"),
        "workers": (whole(1, 10_000, "auto"), "auto"),
        **_CORES,
    },
    "slurm": {
        "cluster": (choice("slurm", "local"), "slurm"),
        "workers": (whole(1, 10_000), 10),
        **_CORES,
        "minutes": (whole(1, 10**6), 60),
        "memory": (number(0, above=True), 2.0),
        "partition": (_WORD, "auto"),
        "account": (_WORD, "auto"),
        "folder": (text("must be auto, or a folder that every node sees"), "auto"),
    },
}


@cache
def schemas(group: str) -> Mapping[str, Schema]:
    """What the options of a group are, and which numbers each takes: option -> key -> (check, default)."""
    if group == "tracking":
        return TRACKING
    if group == LAUNCHER:
        return LAUNCHERS
    if group == "data":
        from descentlab.harness import data

        return {name: source.schema for name, source in data.SOURCES.items()}
    if group == "loss":
        return {"auto": {}, **{name: {} for name in LOSSES}}
    registries: dict[str, Mapping[str, Callable[..., Any]]] = {
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "descent": DESCENTS,
        "update": UPDATES,
    }
    found = {name: _schema(factory) for name, factory in registries[group].items()}
    return {"auto": found["glorot_uniform"], **found} if group == "initializer" else found


def _schema(factory: Callable[..., Any]) -> Schema:
    """A factory's own numbers, from its signature; their ranges are the factory's to check."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: (whole(-LARGEST) if isinstance(p.default, int) else number(), p.default) for p in parameters}


def _option(group: str, given: Any, own: Mapping[str, Schema] | None = None) -> Option:
    known = own or schemas(group)
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise unknown(group, given, known)
    name = given.get("name")
    if not isinstance(name, str) or name not in known:
        raise unknown(group, name, known)
    for key, value in given.items():
        if key != "name" and key not in known[name]:
            raise _foreign(group, name, key, value, known)
    dotted = group.replace("/", ".")
    numbers = {key: check(f"{dotted}.{key}", given.get(key, default)) for key, (check, default) in known[name].items()}
    return Option(name, numbers)


def _foreign(group: str, name: str, key: str, value: Any, known: Mapping[str, Schema]) -> InputError:
    """The error for a number that the chosen option does not have."""
    owners = [option for option, schema in known.items() if key in schema]
    dotted = group.replace("/", ".")
    if owners:
        return refusal(f"{dotted}.{key}", value, f"belongs to {group}={' or '.join(owners)}, not to {group}={name}")
    own = sorted(known[name])
    takes = f"{group}={name} takes {', '.join(own)}{nearest(key, own)}" if own else f"{group}={name} takes no numbers"
    return refusal(f"{dotted}.{key}", value, f"unknown key; {takes}")


# --- the configuration -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Everything that defines a run, resolved: `auto` is left only in keys that alter no result.

    Attributes:
        name: of the run, short and telling.
        activation, loss, initializer, output_initializer, descent, update, data, tracking: the chosen options; the
            output_initializer is the last layer's.
        hidden: sizes of the hidden layers.
        output: output function.
        learning_rate, learning_rate_decay, weight_decay: as in nn.trainer.Recipe.
        epochs, seed, restarts: restart r has seed + r.
        dtype, log_every, diagnostics: as in nn.trainer.Recipe.
        workers: threads or processes, or auto.
        resume: whether runs that the store already holds stand for this one.
        launcher: what the cells of its sweep are trained by; none is this process.
    """

    name: str
    activation: Option
    loss: Option
    initializer: Option
    output_initializer: Option
    descent: Option
    update: Option
    data: Option
    tracking: Option
    hidden: tuple[int, ...]
    output: str
    learning_rate: float
    learning_rate_decay: float
    weight_decay: float
    epochs: int
    seed: int
    restarts: int
    dtype: str
    log_every: int | str
    diagnostics: str
    workers: int | str
    resume: bool = True
    launcher: Option = field(default_factory=lambda: Option("none"))

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, which `resolve` takes back to an equal Config."""
        groups = ("activation", "loss", "initializer", "output_initializer", "descent", "update", "data", "tracking")
        return {
            "name": self.name,
            **{group: getattr(self, group).as_dict() for group in groups},
            "network": {"hidden": list(self.hidden)},
            **{key: getattr(self, key) for key in RUN if key != "name"},
            **({"launcher": self.launcher.as_dict()} if self.launcher.name != "none" else {}),
        }

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over all that alters results; data by its settings, not by where it lies."""
        return self._digest()

    @property
    def cell_hash(self) -> str:
        """The same without seed and restarts: a restart is keyed by this and its own seed."""
        return self._digest("seed", "restarts")

    @property
    def stack_hash(self) -> str:
        """The same as hash but for the learning rate: cells with one stack_hash train side by side as one stack."""
        return self._digest("learning_rate")

    def _digest(self, *left_out: str) -> str:
        values = {key: value for key, value in self.as_dict().items() if key not in (*HASHED_NOT, *left_out)}
        values["data"] = {key: value for key, value in values["data"].items() if key != "path"}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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

    from descentlab.harness import data

    options = {group: _option(group, raw[group]) for group in GROUPS}
    options["launcher"] = _option(LAUNCHER, raw.get("launcher", "none"))
    options["data"], task = data.with_task(options["data"])
    if options["loss"].name == "auto":
        options["loss"] = Option(default_loss(task))
    loss = options["loss"].name
    if run["output"] == "auto":
        run["output"] = default_output(loss, task)
    _refused_as_input(check_pair, loss, run["output"], data.outputs(options["data"]) or 2)
    activation = options["activation"]
    last = options["initializer"]
    if last.name == "auto":
        options["initializer"] = Option(default_initializer(activation.name), last.numbers)
        last = Option("glorot_uniform", last.numbers)
    if "output_initializer" in raw:
        last = _option("output_initializer", raw["output_initializer"], schemas("initializer"))
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
    return replace(config, name=_derived_name(config)) if config.name == "auto" else config


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
    given = {"resume": True} | {key: value for key, value in raw.items() if key != "network"}  # no kept run has it
    given |= {f"network.{key}": value for key, value in network.items()}
    for key, value in given.items():
        if key not in keys() and key not in ("output_initializer", "launcher"):
            valid = keys()
            raise refusal(key, value, f"unknown key; not one of {', '.join(valid)}{nearest(key, valid)}")
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


# --- names -------------------------------------------------------------------------------------------------------

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


def _derived_name(config: Config) -> str:
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
        for place, one in zip(places, flat, strict=True):
            labels = [_label(key) + _text(one[key]) for key in axes]
            cells[place] = replace(cells[place], name="-".join([name, *labels])[:200])
    return cells


def _label(key: str) -> str:
    return "" if key.endswith(".name") else _SHORT.get(key, key.split(".")[-1])


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What alters results, by dotted key; and where data lies."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif prefix + key not in HASHED_NOT and not prefix.startswith(("tracking.", "launcher.")):
            flat[prefix + key] = value
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value)) or "none"
    plain = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.\-]", "_", plain.rstrip("/").rsplit("/", 1)[-1])


# --- configuration -> objects ------------------------------------------------------------------------------------


def recipe(config: Config, dataset: "Dataset") -> "Recipe":
    """What the trainer is to do with a dataset."""
    from descentlab.nn.trainer import Recipe

    inputs, targets = dataset.splits["train"]
    return Recipe(
        layers=(inputs.shape[1], *config.hidden, targets.shape[1]),
        activation=ACTIVATIONS[config.activation.name](**config.activation.numbers),
        output=config.output,
        loss=LOSSES[config.loss.name],
        initializer=INITIALIZERS[config.initializer.name](**config.initializer.numbers),
        output_initializer=INITIALIZERS[config.output_initializer.name](**config.output_initializer.numbers),
        descent=DESCENTS[config.descent.name](**config.descent.numbers),
        update=UPDATES[config.update.name](**config.update.numbers),
        learning_rate=config.learning_rate,
        learning_rate_decay=config.learning_rate_decay,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
        seed=config.seed,
        restarts=config.restarts,
        dtype=config.dtype,
        log_every=config.log_every,  # type: ignore[arg-type]
        diagnostics=config.diagnostics,
        task=dataset.task,
    )


def check(config: Config) -> "Dataset":
    """Load a configuration's data and check what can only be checked against it.

    Raises:
        InputError: for bad data, a batch larger than the training split, or a loss that cannot judge the targets. The
            default batch is all there is where there is less, so that it goes with the four rows of XOR.
    """
    from descentlab.harness import data

    dataset = data.load(config.data)
    rows = len(dataset.splits["train"][0])
    own = schemas("descent")[config.descent.name]
    for key, value in config.descent.numbers.items():
        if key == "batch_size" and value > rows and value != own[key][1]:
            raise refusal(f"descent.{key}", value, f"must be at most {rows}, the rows of the training split")
    for _, targets in dataset.splits.values():
        _refused_as_input(check_pair, config.loss.name, config.output, targets.shape[1], targets)
    return dataset
