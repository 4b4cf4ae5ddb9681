"""Another trainer behind the same command line: its runs are swept, resumed, listed and replayed, and are its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared import assert_same_training

from descentlab import cli
from descentlab.config import composing
from descentlab.config.cells import cells as made
from descentlab.nn.initializers import ORDER_STREAM, stream
from descentlab.nn.network import gradient
from descentlab.nn.recipe import Record, Training
from descentlab.nn.trainer import train_recipe
from descentlab.sweeps import running as sweeps
from descentlab.tracking import find, open_tracker

SCRIPT = Path(__file__).parents[1] / "examples" / "own_trainer.py"
WORDS = ["data=iris", "activation=tanh", "network.hidden=4", "epochs=3", "log_every=1", "restarts=2"]
STARTED = []


def numpy_trainer(recipe, splits, workers=1, on_epoch=None):
    """What examples/own_trainer.py does, with the gradient of nn.network in the place of PyTorch's."""
    STARTED.append((recipe.seed, recipe.restarts))
    x, y = splits["train"]
    initial, final, records = recipe.draw(), recipe.draw(), []
    seeds, rates = recipe.stacked_axis()
    orders, steps = [stream(int(seed), ORDER_STREAM) for seed in seeds], recipe.descent.steps(len(x))
    for epoch in range(recipe.epochs + 1):
        for row, order in enumerate(orders) if epoch else ():
            net = final[row : row + 1]
            rows = recipe.descent.order(order, len(x))
            for start, stop in steps:
                chosen = rows[start:stop]
                slopes = gradient(recipe.network, net.W, net.b, x[chosen], y[chosen])
                for values, changes in zip((net.W, net.b), slopes, strict=True):
                    for value, change in zip(values, changes, strict=True):
                        value -= rates[row] * change
        if epoch in recipe.logged_epochs():
            records.append(Record(epoch, epoch * len(steps), recipe.measure(final, splits)))
            yield records[-1]
    return Training.of(recipe, records, initial, final)


@pytest.fixture
def command(store, capsys):
    """The command line, with a trainer or without: status, standard output, standard error."""
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    STARTED.clear()

    def run(*words, trainer=numpy_trainer):
        status = cli.main([*words, *place], trainer=trainer)
        return status, *capsys.readouterr()

    return run


def close(one, other):
    """Within rounding the same curves."""
    assert list(one.curves) == list(other.curves)
    for name, values in one.curves.items():
        np.testing.assert_allclose(values, other.curves[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_another_trainer_ends_where_the_packages_own_ends_within_rounding():
    (cell,) = made(composing.compose([*WORDS, "tracking=none"], sweep=False), trainer=numpy_trainer)
    with open_tracker(cell.config.tracking) as tracker:
        (training,) = sweeps.run([cell], tracker, progress=False)
    close(training, train_recipe(cell.recipe, cell.dataset.splits))


def test_a_sweep_of_another_trainer_is_resumed_and_grows_and_its_runs_are_its_own(command, store):
    assert command("-m", *WORDS, "learning_rate=0.1,0.5")[0] == 0
    assert STARTED == [(0, 2), (0, 2)]
    assert "2 of 2 cells are stored already" in command("-m", *WORDS, "learning_rate=0.1,0.5")[2]
    assert "restarts  4: 4 stored already" in command("plan", "-m", *WORDS, "learning_rate=0.1,0.5")[1]
    assert "restarts  4: 0 stored already" in command("plan", "-m", *WORDS, "learning_rate=0.1,0.5", trainer=None)[1]
    assert command(*WORDS[:-1], "learning_rate=0.1", "restarts=3")[0] == 0
    assert STARTED[2:] == [(2, 1)]
    assert {run.trainer for run in find(store)} == {"numpy_trainer"}
    assert command(*WORDS, "learning_rate=0.1", trainer=None)[0] == 0  # trains anew
    assert [run.trainer for run in find(store)] == [*["numpy_trainer"] * 3, ""]
    assert len({run.key for run in find(store)}) == 4
    assert {"learning_curves.png", "spread.png"} <= set(find(store)[0].artifacts())


def test_a_run_is_replayed_by_the_trainer_that_trained_it_and_by_no_other(command, store):
    command(*WORDS)
    (run,) = find(store)
    status, output, _ = command("replay", run.run_id)
    assert (status, "the same bits" in output) == (0, True)
    status, _, error = command("replay", run.run_id, trainer=None)
    assert status == 2
    assert f"was trained by numpy_trainer; run: python {os.path.relpath(__file__)} replay {run.run_id}" in error
    command(*WORDS, trainer=None)
    own = find(store)[-1]
    status, _, error = command("replay", own.run_id)
    assert (status, f"was trained by descentlab itself; run: descentlab replay {own.run_id}" in error) == (2, True)


@pytest.mark.slow
def test_another_trainer_goes_along_to_the_workers_of_a_launcher(store):
    words = [*WORDS, f"tracking.uri={store.numbers['uri']}", "tracking.experiment=tests"]
    trainings = []
    for more in ([], ["hydra/launcher=local", "resume=false"]):
        cells = made(composing.compose([*words, "activation=tanh,relu", *more]), trainer=numpy_trainer)
        with open_tracker(store) as tracker:
            trainings.append(sweeps.run(cells, tracker, progress=False))
    for one, other in zip(*trainings, strict=True):
        assert_same_training(one, other)


def test_the_example_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_example_trains_in_pytorch_and_replays_its_run(store, tmp_path):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*words):
        return subprocess.run([sys.executable, str(SCRIPT), *words, *place], env=given, capture_output=True, text=True)

    first = run(*WORDS)
    assert first.returncode == 0, first.stderr
    (kept,) = find(store)
    assert Path(kept.script).resolve() == SCRIPT
    assert "the same bits" in run("replay", kept.run_id).stdout
    (cell,) = made(composing.compose([*WORDS, "tracking=none"], sweep=False))
    own = train_recipe(cell.recipe, cell.dataset.splits)
    curves = kept.table("curves.parquet")
    np.testing.assert_allclose(curves["train/loss"], own.curves["train/loss"].T.ravel(), rtol=1e-6)
