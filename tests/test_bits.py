"""The bits of curves and weights, recorded: a change of the trainer that moves one is seen.

They hold for one environment, since BLAS and NumPy choose kernels by processor. Elsewhere this file is skipped, and
test_program.py and test_trainer.py hold the trainer to the textbook's network and stacks to their lone runs.
`python tests/test_bits.py` records them anew: only with a change that means to move bits, and that raises the numerics
of what it touches.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import scipy
from shared import FORMS, recipe
from threadpoolctl import threadpool_info

from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.metrics import METRICS
from descentlab.nn.trainer import train_recipe
from descentlab.nn.updates import UPDATES

RECORDED = Path(__file__).with_name("bits.json")
DTYPES = ("float64", "float32")
DEEP = (5, 7, 6, 4, 3)


def environment():
    """What the bits depend on beside the code."""
    blas = sorted({f"{one['internal_api']} {one['version']} {one.get('architecture', '')}" for one in threadpool_info()
                   if one["user_api"] == "blas"})  # fmt: skip
    simd = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return {"numpy": np.__version__, "scipy": scipy.__version__, "blas": blas, "simd": simd}


def samples(n_in, outputs, loss, count=37):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(count, n_in))
    return x, rng.normal(size=(count, outputs)) if loss == "mean_squared_error" else np.eye(outputs)[
        rng.integers(0, outputs, count)
    ]  # fmt: skip


def digest(*runs):
    """One digest over all numbers of some runs, each a recipe's settings."""
    found = hashlib.sha256()
    for run in runs:
        settings = {"epochs": 2, "restarts": 2, "log_every": 1, **run}
        count, layers = settings.pop("count", 37), settings.get("layers", (5, 7, 3))
        made = recipe(**settings)
        data = samples(layers[0], layers[-1], made.loss.name, count)
        training = train_recipe(made, {"train": data, "test": (data[0][:9], data[1][:9])})
        for name in sorted(set(training.curves) & set(recorded()["metrics"])):
            found.update(name.encode() + np.ascontiguousarray(training.curves[name]).tobytes())
        for part in (training.initial, training.final):
            found.update(np.ascontiguousarray(part.flat).tobytes())
        found.update(training.diverged_epoch.tobytes())
    return found.hexdigest()[:16]


def recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def by_forms(**changes):
    """Every loss over every output, in every descent mode: those that were recorded."""
    for loss, output in recorded()["forms"]:
        task = "regression" if loss == "mean_squared_error" else "multiclass"
        for descent in recorded()["descents"]:
            yield {"loss": loss, "output": output, "task": task, "descent": descent, **changes}


def cases():
    """Names and what is trained under them."""
    for dtype in DTYPES:
        for name in ACTIVATIONS:
            yield f"activation {name} {dtype}", by_forms(activation=name, dtype=dtype, learning_rate=0.1)
        for name in UPDATES:
            yield f"update {name} {dtype}", [
                {"update": name, "dtype": dtype, "descent": descent, "layers": DEEP, "weight_decay": 0.01,
                 "learning_rate_decay": 0.9, "learning_rate": 0.05, "diagnostics": "full"}
                for descent in recorded()["descents"]
            ]  # fmt: skip
        for name in INITIALIZERS:
            yield (
                f"initializer {name} {dtype}",
                [{"initializer": name, "output_initializer": name, "dtype": dtype, "layers": DEEP}],
            )
        yield f"deep {dtype}", by_forms(layers=DEEP, dtype=dtype, diagnostics="full")
        yield f"no hidden layer {dtype}", by_forms(layers=(5, 3), dtype=dtype, diagnostics="full")
        tiny = {"layers": (2, 4, 1), "loss": "binary_cross_entropy", "output": "sigmoid", "task": "binary"}
        for activation in ("tanh", "relu", "gelu"):
            yield (
                f"tiny {activation} {dtype}",
                [
                    {**tiny, "activation": activation, "descent": descent, "dtype": dtype, "restarts": restarts}
                    for descent in recorded()["descents"]
                    for restarts in (1, 50)
                ],
            )
        yield f"blocks {dtype}", by_forms(count=1000, dtype=dtype, diagnostics="full", learning_rate=0.05)
        yield (
            f"wide {dtype}",
            [
                {"layers": (100, 90, 3), "descent": descent, "update": update, "dtype": dtype}
                for descent in recorded()["descents"]
                for update in ("gradient_descent", "momentum")
            ],
        )
        yield f"rates and divergence {dtype}", [
            {"learning_rate": (0.01, 1e6), "loss": "mean_squared_error", "output": "linear", "task": "regression",
             "activation": "relu", "dtype": dtype, "descent": descent, "epochs": 6}
            for descent in recorded()["descents"]
        ]  # fmt: skip


CASES = {name: list(runs) for name, runs in cases()}


@pytest.mark.skipif(
    recorded()["environment"] != environment(),
    reason="the bits were recorded with other versions of NumPy, SciPy or BLAS, or on another processor",
)
@pytest.mark.parametrize("name", sorted(set(CASES) & set(recorded()["digests"])))
def test_curves_and_weights_have_the_bits_that_were_recorded(name):
    assert digest(*CASES[name]) == recorded()["digests"][name]


def test_every_recorded_case_is_still_trained():
    assert set(recorded()["digests"]) <= set(CASES)


def metrics():
    """Every metric that a training of some task records."""
    scores = {f"{split}/{name}" for split in ("train", "test") for name in ("loss", *(score.name for score in METRICS))}
    made = recipe(layers=DEEP, diagnostics="full", epochs=1)
    return sorted(scores | set(train_recipe(made, {"train": samples(5, 3, made.loss.name)}).curves))


if __name__ == "__main__":
    found = {"environment": environment(), "forms": FORMS, "descents": list(DESCENTS), "metrics": metrics()}
    found["digests"] = {}
    RECORDED.write_text(json.dumps(found), encoding="utf-8")
    found["digests"] = {name: digest(*runs) for name, runs in cases()}
    RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
