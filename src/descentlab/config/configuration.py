"""What one run is: a configuration in which nothing is left open, and the hashes it is known by.

Equal configurations are equal: 64-32 is [64, 32], 1 is 1.0 where a float is meant.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.diagnostics import LEVELS
from descentlab.nn.outputs import OUTPUTS, numerics
from descentlab.values import LARGEST, Check, Option, choice, number, sizes, switch, text, whole

# Keys that came after runs of the present form of stores (`tracking.store.FORM`) were written: dotted key -> default. A
# stored configuration without one has its default, and the hash leaves a key out at its default.
LATER: dict[str, Any] = {}
# What a run is called, where it is kept, by whom and on how many threads it ran, and whether earlier ones stand for it.
HASHED_NOT = ("name", "tracking", "launcher", "workers", "resume")
DATA_HASHED_NOT = ("path", "validation_path", "test_path", "max_megabytes")  # the digest of the data tells files apart
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
        values["data"] = {key: value for key, value in values["data"].items() if key not in DATA_HASHED_NOT}
        activation = ACTIVATIONS[self.activation.name](**self.activation.numbers)
        if (version := numerics(activation, OUTPUTS[self.output], self.dtype)) > 1:  # left out of the hashes before it
            values["numerics"] = version
        for key, default in LATER.items():
            group, _, last = key.rpartition(".")
            place = values[group] if group else values
            if last in place and place[last] == default:
                del place[last]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What alters results, by dotted key; and where data lies."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif prefix + key not in HASHED_NOT and not prefix.startswith(("tracking.", "launcher.")):
            flat[prefix + key] = value
    return flat
