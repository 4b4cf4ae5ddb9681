"""Cells, recipes, stores and comparisons that several test files use."""

import copy
import importlib.util
import sys
import time
from dataclasses import replace
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from descentlab import tracking
from descentlab.config import resolving as configs
from descentlab.config.cells import Cell
from descentlab.config.cells import cells as made
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.losses import LOSSES
from descentlab.nn.recipe import Recipe
from descentlab.nn.trainer import iterate, train_recipe
from descentlab.nn.updates import UPDATES
from descentlab.studies import study
from descentlab.sweeps import running as sweeps
from descentlab.tracking import store as stores

SMALL = {
    "name": "auto",
    "network": {"hidden": [5]},
    "activation": "tanh",
    "output": "auto",
    "loss": "auto",
    "initializer": "auto",
    "descent": {"name": "mini_batch", "batch_size": 32},
    "update": "gradient_descent",
    "data": {"name": "moons", "samples": 60},
    "tracking": "none",
    "learning_rate": 0.5,
    "learning_rate_decay": 1.0,
    "weight_decay": 0.0,
    "epochs": 4,
    "seed": 7,
    "restarts": 3,
    "dtype": "float64",
    "log_every": 1,
    "diagnostics": "basic",
    "workers": 1,
}


def cell(**changes):
    return configs.resolve({**SMALL, **changes})


def trained(config):
    made = of(config)
    return made.dataset, train_recipe(made.recipe, made.dataset.splits)


def diverged(training, rows, epoch):
    """The same training, had some restarts diverged in an epoch."""
    lost = training.epochs >= epoch
    curves = {name: values.copy() for name, values in training.curves.items()}
    for values in curves.values():
        values[np.ix_(lost, rows)] = np.nan
    at = training.diverged_epoch.copy()
    at[rows] = epoch
    return replace(training, curves=curves, diverged_epoch=at)


def keep(option, config, training=None, dataset=None):
    """Keep one cell and return its run id."""
    if training is None:
        dataset, training = trained(config)
    with tracking.open_tracker(option) as tracker, tracker.cell(of(config, dataset)) as run:
        run.finish(training)
    return run.run_id


def children(option, run_id):
    opened = stores.open_store(option)
    return opened.client.search_runs([opened.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")


every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


FORMS = [(loss, output) for loss in LOSSES for output in LOSSES[loss].forms]


def recipe(**changes):
    """A small classification by default; names stand for what their registries make of them."""
    settings = {
        "layers": (5, 7, 3),
        "activation": "tanh",
        "output": "softmax",
        "loss": "categorical_cross_entropy",
        "initializer": "glorot_uniform",
        "output_initializer": "glorot_uniform",
        "descent": "mini_batch",
        "update": "gradient_descent",
        "learning_rate": 0.3,
        "epochs": 3,
        "log_every": 1,
        **changes,
    }
    registries = {
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "output_initializer": INITIALIZERS,
        "descent": DESCENTS,
        "update": UPDATES,
    }
    for key, registry in registries.items():
        if isinstance(settings[key], str):
            settings[key] = registry[settings[key]]()
    settings["loss"] = LOSSES[settings["loss"]]
    return Recipe(**settings)


def classes(count=45, n_in=5, outputs=3, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, outputs, count)
    return rng.normal(0, 1, (count, n_in)) + labels[:, None] * 0.5, np.eye(outputs)[labels]


def regression(count=45, n_in=5, outputs=1, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, n_in))
    return x, np.sin(x @ rng.normal(0, 1, (n_in, outputs)))


def splits(data=classes, **sizes):
    return {"train": data(seed=1, **sizes), "validation": data(seed=2, **sizes), "test": data(seed=3, **sizes)}


def assert_same_bits(together, row, alone, alone_row=0):
    """One restart of a stack has every number of another run's restart."""
    assert together.seeds[row] == alone.seeds[alone_row]
    assert together.rates[row] == alone.rates[alone_row]
    assert set(together.curves) == set(alone.curves)
    for name, curve in together.curves.items():
        np.testing.assert_array_equal(curve[:, row], alone.curves[name][:, alone_row], err_msg=name)
    for one, other in ((together.initial, alone.initial), (together.final, alone.final)):
        np.testing.assert_array_equal(one.flat[row], other.flat[alone_row])
    assert together.diverged_epoch[row] == alone.diverged_epoch[alone_row]


def cliff(**changes):
    """Restarts of which some diverge, at different epochs, and some do not."""
    changes = {"restarts": 12, "epochs": 12, "learning_rate": (0.01, 0.1, 0.2, 1e3), **changes}
    return recipe(
        layers=(5, 8, 1),
        activation="relu",
        loss="mean_squared_error",
        output="linear",
        task="regression",
        initializer="he_normal",
        **changes,
    )


def steep(seed=1, count=45):
    x, y = regression(count=count, seed=seed)
    return 3 * x, y


def of(config, dataset=None):
    """The cell of one configuration, on data given or its own."""
    return Cell(config, dataset) if dataset else made([config])[0]


def sweep(option, *configs, judge=None, trainer=None, **more):
    """Run a sweep to its end; its id and its trainings."""
    with tracking.open_tracker(option) as tracker:
        trainings = sweeps.run(made(configs, judge, trainer), tracker, progress=False, **more)
        return tracker.sweep, trainings


def tables(run):
    """Every artifact table of a run."""
    found = {name: pd.read_parquet(run.artifact(name)) for name in ("curves.parquet", "restarts.parquet")}
    for name in ("initial", "final"):
        with np.load(run.artifact(f"{name}.npz")) as stored:
            found |= {f"{name} {key}": pd.DataFrame(stored[key].reshape(len(stored[key]), -1)) for key in stored.files}
    return found


def assert_same_run(one, other):
    """The same bits in metrics and tables."""
    np.testing.assert_equal(one.metrics, other.metrics)  # NaN is a value of its own
    assert {key: one.tags.get(key) for key in ("outcome", "diverged")} == {
        key: other.tags.get(key) for key in ("outcome", "diverged")
    }
    mine, theirs = tables(one), tables(other)
    assert list(mine) == list(theirs)
    for name, frame in mine.items():
        pd.testing.assert_frame_equal(frame, theirs[name], check_exact=True)


def assert_same_training(one, other):
    assert one.seeds.tolist() == other.seeds.tolist()
    assert one.diverged_epoch.tolist() == other.diverged_epoch.tolist()
    assert one.epochs.tolist() == other.epochs.tolist()
    assert one.steps.tolist() == other.steps.tolist()
    assert list(one.curves) == list(other.curves)
    for name, values in one.curves.items():
        assert values.tobytes() == other.curves[name].tobytes()
    for mine, theirs in ((one.initial, other.initial), (one.final, other.final)):
        assert mine.flat.tobytes() == theirs.flat.tobytes()


def drained(records):
    """The Training, and the records on the way."""
    seen = []
    while True:
        try:
            seen.append(next(records))
        except StopIteration as end:
            return end.value, seen


def with_snapshots(settings, data, workers=1):
    """The Training, and a snapshot of every epoch but the last."""
    kept = []
    training, _ = drained(iterate(settings, data, workers, save=kept.append, save_seconds=0))
    return training, kept


def assert_same_trainings(one, other):
    for row in range(len(one.seeds)):
        assert_same_bits(one, row, other, row)
    np.testing.assert_array_equal(one.epochs, other.epochs)
    np.testing.assert_array_equal(one.steps, other.steps)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", study.scripts()[name])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PLAIN = {
    "activation": {"name": "relu"},
    "loss": {"name": "auto"},
    "initializer": {"name": "auto", "bias_spread": 0.0},
    "descent": {"name": "mini_batch", "batch_size": 32},
    "update": {"name": "gradient_descent"},
    "data": {"name": "digits"},
    "tracking": {"name": "none"},
    "network": {"hidden": [32]},
    "name": "auto",
    "output": "auto",
    "learning_rate": 0.1,
    "learning_rate_decay": 1.0,
    "weight_decay": 0.0,
    "epochs": 20,
    "seed": 0,
    "restarts": 1,
    "dtype": "float64",
    "log_every": "auto",
    "diagnostics": "basic",
    "workers": "auto",
    "resume": True,
}


def changed(**changes):
    # dots are written as two underscores; an option may be given by its name alone
    raw = copy.deepcopy(PLAIN)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = raw
        for part in path:
            if isinstance(place[part], str):
                place[part] = {"name": place[part]}
            place = place[part]
        place[last] = value
    return raw


def gone(pid, seconds=5.0):
    """Whether a process ends within some seconds; one that has ended may still wait for its parent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
                if status.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
