import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest
from shared import FORMS, assert_same_bits, classes, cliff, every_dtype, recipe, regression, splits, steep
from threadpoolctl import threadpool_info

from descentlab import train
from descentlab.nn import memory
from descentlab.nn import parameters as layout
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.diagnostics import measure
from descentlab.nn.initializers import INITIALIZERS, ORDER_STREAM, Initializer, stream
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import BLOCK_SAMPLES, Workspace, chunks
from descentlab.nn.network import gradient as textbook_gradient
from descentlab.nn.parameters import Parameters, input_table, target_table
from descentlab.nn.program import gradient
from descentlab.nn.recipe import Recipe, Record, Training, outcomes
from descentlab.nn.trainer import iterate, train_recipe
from descentlab.nn.updates import UPDATES

every_descent = pytest.mark.parametrize("descent", DESCENTS)
every_update = pytest.mark.parametrize("update", UPDATES)

ones = Initializer("ones", lambda generator, n_out, n_in: np.ones((n_out, n_in)))


def assert_restarts_equal_their_lone_runs(stacked, data, rows, **how):
    together = train_recipe(stacked, data, **how)
    assert len(np.unique(together.final.flat[:, 0])) == len(together.seeds)  # restarts do differ
    for row in rows:
        alone = dataclasses.replace(stacked, seed=int(together.seeds[row]), restarts=1)
        assert_same_bits(together, row, train_recipe(alone, data))
    return together


# a restart is the same bits in any company


@every_dtype
@every_descent
def test_a_restart_has_the_bits_of_its_lone_run(descent, dtype):
    data = splits()
    stacked = recipe(descent=descent, dtype=dtype, seed=10, restarts=100)
    hundred = assert_restarts_equal_their_lone_runs(stacked, data, (0, 3, 57, 99))
    seven = train_recipe(dataclasses.replace(stacked, seed=64, restarts=7), data)
    for row in range(7):
        assert_same_bits(hundred, 54 + row, seven, row)


@every_update
@pytest.mark.parametrize("descent", ["batch", "mini_batch", "stochastic"])
def test_every_update_rule_keeps_the_bits_of_a_lone_run(update, descent):
    stacked = recipe(update=update, descent=descent, learning_rate=0.05, weight_decay=0.01, learning_rate_decay=0.9)
    for dtype in ("float64", "float32"):
        assert_restarts_equal_their_lone_runs(dataclasses.replace(stacked, dtype=dtype, restarts=7), splits(), (0, 5))


@every_dtype
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_keeps_the_bits_of_a_lone_run(activation, dtype):
    for layers in ((5, 7, 3), (5, 6, 9, 4, 3)):
        stacked = recipe(activation=activation, layers=layers, dtype=dtype, restarts=7, epochs=2)
        assert_restarts_equal_their_lone_runs(stacked, splits(), (1, 6))


@every_dtype
@every_descent
@pytest.mark.parametrize("layers", [(5, 7, 1), (5, 3, 2), (5, 1, 2), (5, 2, 3, 2), (5, 2)])
def test_tiny_networks_keep_the_bits_of_a_lone_run(layers, descent, dtype, monkeypatch):
    assert layout.tiny(layers)
    data = splits(classes, outputs=2) if layers[-1] == 2 else splits(regression)
    form = {"loss": "categorical_cross_entropy", "output": "softmax"}
    if layers[-1] == 1:
        form = {"loss": "mean_squared_error", "output": "linear", "task": "regression"}
    stacked = recipe(layers=layers, **form, update="adam", descent=descent, dtype=dtype, epochs=2, diagnostics="full")
    lone = train_recipe(dataclasses.replace(stacked, seed=5), data)
    together = assert_restarts_equal_their_lone_runs(dataclasses.replace(stacked, restarts=9), data, (0, 5))
    monkeypatch.setattr(memory, "REDUCED", 0)  # term by term, as stacks of thousands are
    assert_same_bits(train_recipe(dataclasses.replace(stacked, restarts=9), data), 5, lone)
    monkeypatch.setattr(layout, "TINY", 0)  # matrix by matrix: the same numbers, other last bits
    tolerance = 1e-8 if dtype == "float64" else 2e-3
    general = train_recipe(dataclasses.replace(stacked, restarts=9), data)
    np.testing.assert_allclose(together.final.flat, general.final.flat, rtol=tolerance, atol=tolerance)


@every_dtype
@pytest.mark.parametrize(("loss", "output"), FORMS)
def test_every_loss_keeps_the_bits_of_a_lone_run(loss, output, dtype):
    stacked = recipe(loss=loss, output=output, dtype=dtype, restarts=7, epochs=2)
    assert_restarts_equal_their_lone_runs(stacked, splits(), (1, 6))


@every_dtype
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_one_output_keeps_the_bits_of_a_lone_run(task, dtype):
    pair = {"binary": ("binary_cross_entropy", "sigmoid"), "regression": ("mean_squared_error", "linear")}[task]
    data = splits(regression)
    if task == "binary":
        data = {name: (x, (y > 0).astype(float)) for name, (x, y) in data.items()}
    for descent in ("batch", "mini_batch", "stochastic"):
        stacked = recipe(layers=(5, 7, 1), loss=pair[0], output=pair[1], task=task, descent=descent, dtype=dtype)
        assert_restarts_equal_their_lone_runs(dataclasses.replace(stacked, restarts=7), data, (0, 6))


@every_dtype
@pytest.mark.parametrize("descent", ["batch", "mini_batch"])
def test_batches_of_many_blocks_keep_the_bits_of_a_lone_run(descent, dtype):
    data = splits(count=2 * BLOCK_SAMPLES + 1)
    mode = DESCENTS[descent](**({"batch_size": BLOCK_SAMPLES + 1} if descent == "mini_batch" else {}))
    assert_restarts_equal_their_lone_runs(recipe(descent=mode, dtype=dtype, restarts=7), data, (0, 6))


@every_dtype
@every_descent
def test_wide_layers_keep_the_bits_of_a_lone_run(descent, dtype):
    # wide enough for BLAS to choose other kernels and to want threads of its own
    data = splits(count=40, n_in=130, outputs=10)
    stacked = recipe(layers=(130, 128, 10), descent=descent, dtype=dtype, restarts=5, epochs=1, learning_rate=0.05)
    assert_restarts_equal_their_lone_runs(stacked, data, (0, 4), workers=2)


@every_dtype
@every_descent
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 10**9])
def test_neither_threads_nor_chunks_alter_a_bit(chunk_bytes, workers, descent, dtype, monkeypatch):
    stacked = recipe(descent=descent, dtype=dtype, restarts=11, epochs=2)
    plain = train_recipe(stacked, splits())
    monkeypatch.setattr(memory, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(memory, "THREAD_WORK", 1)
    cut = train_recipe(stacked, splits(), workers=workers)
    for row in range(11):
        assert_same_bits(cut, row, plain, row)


@every_dtype
@every_update
def test_a_rate_and_a_seed_have_the_bits_of_their_lone_run(update, dtype):
    rates = (0.1, 0.03, 0.3)
    stacked = recipe(update=update, learning_rate=rates, dtype=dtype, seed=4, restarts=3, weight_decay=0.01)
    together = train_recipe(stacked, splits())
    assert together.rates.tolist() == [rate for rate in rates for _ in range(3)]
    assert together.seeds.tolist() == [4, 5, 6] * 3
    for row, (rate, seed) in enumerate(zip(together.rates, together.seeds, strict=True)):
        alone = dataclasses.replace(stacked, learning_rate=float(rate), seed=int(seed), restarts=1)
        assert_same_bits(together, row, train_recipe(alone, splits()))


def test_a_run_repeats_itself():
    first, again = (train_recipe(recipe(restarts=3), splits()) for _ in range(2))
    for row in range(3):
        assert_same_bits(first, row, again, row)


def test_what_is_measured_does_not_alter_the_training():
    base = recipe(restarts=3, epochs=6)
    plain = train_recipe(base, splits())
    for change in ({"log_every": 4}, {"log_every": "auto"}, {"diagnostics": "none"}, {"diagnostics": "full"}):
        other = train_recipe(dataclasses.replace(base, **change), splits())
        np.testing.assert_array_equal(other.final.flat, plain.final.flat)
        np.testing.assert_array_equal(other.curves["train/loss"][-1], plain.curves["train/loss"][-1])


def test_arms_share_their_start_whatever_else_differs():
    plain = train_recipe(recipe(restarts=3, epochs=1), splits())
    for change in ({"descent": "batch"}, {"update": "adam"}, {"activation": "relu"}, {"learning_rate": 0.01}):
        other = train_recipe(recipe(restarts=3, epochs=1, **change), splits())
        np.testing.assert_array_equal(other.initial.flat, plain.initial.flat)


def test_chunks_cut_the_whole_stack_without_gap_or_overlap():
    for restarts in (1, 2, 7, 100, 1000):
        for workers in (1, 2, 5):
            for layers, samples in (((5, 3), 1), ((64, 32, 10), 32), ((784, 128, 64, 10), 1000)):
                cut = chunks(restarts, layers, samples, "float64", workers)
                rows = [row for part in cut for row in range(restarts)[part]]
                assert rows == list(range(restarts))
                assert all(part.stop > part.start for part in cut)


# what a step does


def plain_training(recipe, x, y, seed):
    """The final parameters (P,) of one restart by the definition of each step, and no buffers kept between steps."""
    theta, network = dataclasses.replace(recipe, seed=seed, restarts=1).draw(), recipe.network
    mask = theta.weight_mask
    generator = stream(seed, ORDER_STREAM)
    velocity = first = second = np.zeros_like(theta.flat)
    step = 0
    for epoch in range(recipe.epochs):
        rate = recipe.learning_rate * recipe.learning_rate_decay**epoch
        order = (
            generator.permutation(len(x)) if recipe.descent.name in ("mini_batch", "stochastic") else np.arange(len(x))
        )
        size = {"batch": len(x), "mini_batch": recipe.descent.batch_size}.get(recipe.descent.name, 1)
        for start in range(0, len(x), size):
            rows = order[start : start + size]
            tables = input_table(x[rows], "float64"), target_table(y[rows], "float64")
            slope = gradient(network, theta, *tables, 1 / len(rows), Workspace(network, "float64")).flat
            g = slope + recipe.weight_decay * mask * theta.flat
            step += 1
            if recipe.update.name == "gradient_descent":
                move = rate * g
            elif recipe.update.name == "momentum":
                velocity = 0.9 * velocity + rate * g
                move = velocity
            elif recipe.update.name == "nesterov":
                velocity = 0.9 * velocity + rate * g
                move = 0.9 * velocity + rate * g
            else:
                first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
                move = rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            theta = Parameters(theta.layers, theta.flat - move)
    return theta.flat[0]


@every_descent
@pytest.mark.parametrize("update", ["gradient_descent", "momentum", "nesterov", "adam"])
@pytest.mark.parametrize(("learning_rate_decay", "weight_decay"), [(1.0, 0.0), (0.7, 0.0), (0.7, 0.05)])
def test_training_is_what_the_definitions_say(descent, update, learning_rate_decay, weight_decay):
    stacked = recipe(
        descent=descent,
        update=update,
        learning_rate=0.02,
        learning_rate_decay=learning_rate_decay,
        weight_decay=weight_decay,
        initializer=INITIALIZERS["glorot_uniform"](bias_spread=0.5),
        seed=8,
        restarts=2,
    )
    x, y = classes()
    training = train_recipe(stacked, {"train": (x, y)})
    for row in range(2):
        expected = plain_training(stacked, x, y, seed=8 + row)
        np.testing.assert_allclose(training.final.flat[row], expected, rtol=1e-8, atol=1e-11)


@every_dtype
@every_descent
@pytest.mark.parametrize("layers", [(5, 3), (5, 7, 3), (5, 6, 4, 3)])
def test_a_step_within_blas_is_the_step_of_the_gradient(layers, descent, dtype, monkeypatch):
    stacked = recipe(layers=layers, descent=descent, dtype=dtype, restarts=3)
    apart = train_recipe(stacked, splits())
    monkeypatch.setattr(memory, "WIDE", 1)
    in_place = assert_restarts_equal_their_lone_runs(stacked, splits(), (0, 2))
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(in_place.final.flat, apart.final.flat, rtol=tolerance, atol=tolerance)
    assert (in_place.final.flat != in_place.initial.flat).any(axis=0).all()


def test_two_epochs_worked_by_hand():
    # one linear unit, x = 1, y = 0, w = 1, b = 0; rate .5 halved after each epoch, weight decay .1
    # epoch 1: a = 1, dC/dw = 1 + .1 * 1 = 1.1, dC/db = 1: w = .45, b = -.5; loss .05^2 / 2
    # epoch 2: a = -.05, dC/dw = -.05 + .045 = -.005, dC/db = -.05: w = .45125, b = -.4875
    stacked = recipe(
        layers=(1, 1),
        loss="mean_squared_error",
        output="linear",
        task="regression",
        initializer=ones,
        output_initializer=ones,
        descent="batch",
        learning_rate=0.5,
        learning_rate_decay=0.5,
        weight_decay=0.1,
        epochs=2,
    )
    training = train_recipe(stacked, {"train": (np.ones((1, 1)), np.zeros((1, 1)))})
    np.testing.assert_allclose(training.curves["train/loss"][:, 0], [0.5, 0.00125, (0.45125 - 0.4875) ** 2 / 2])
    np.testing.assert_allclose(training.final.W[0], [[[0.45125]]])
    np.testing.assert_allclose(training.final.b[0], [[-0.4875]])


@every_update
def test_weight_decay_leaves_biases_alone(update):
    # inputs of 0 and a target that is met: only the decay moves anything
    stacked = recipe(
        layers=(2, 1),
        loss="mean_squared_error",
        output="linear",
        task="regression",
        output_initializer=Initializer("ones", ones.weights, bias_spread=1.0),
        update=update,
        weight_decay=0.1,
        epochs=5,
        restarts=1,
    )
    start = stacked.draw().b[0].item()
    training = train_recipe(stacked, {"train": (np.zeros((4, 2)), np.full((4, 1), start))})
    assert (np.abs(training.final.W[0]) < 1).all()
    assert training.final.b[0].item() == start


def test_the_rate_multiplies_the_mean_gradient_of_the_step():
    # a data set written twice has the same mean: the same batch steps
    x, y = classes()
    once, twice = (
        train_recipe(recipe(descent="batch"), {"train": (np.tile(x, (k, 1)), np.tile(y, (k, 1)))}) for k in (1, 2)
    )
    np.testing.assert_allclose(once.final.flat, twice.final.flat, rtol=1e-10)


def test_the_last_layer_takes_the_output_initializer():
    stacked = recipe(layers=(5, 4, 4, 3), initializer="zeros", output_initializer=ones, epochs=0)
    initial = train_recipe(stacked, splits()).initial
    assert [W.any() for W in initial.W] == [False, False, True]
    assert (initial.W[-1] == 1).all()


@pytest.mark.parametrize("update", UPDATES)
def test_every_update_learns(update):
    stacked = recipe(update=update, learning_rate=0.02 if update != "gradient_descent" else 0.2, epochs=40, restarts=3)
    curves = train_recipe(stacked, splits(count=100)).curves
    assert (curves["train/loss"][-1] < 0.8 * curves["train/loss"][0]).all()


# what is logged


def test_epoch_zero_is_before_the_first_update():
    stacked = recipe(restarts=4)
    training = train_recipe(stacked, splits())
    tables = {name: (input_table(x, "float64"), target_table(y, "float64")) for name, (x, y) in splits().items()}
    network = stacked.network
    for point, parameters in ((0, training.initial), (-1, training.final)):
        now = measure(network, parameters, tables, "multiclass", "basic", Workspace(network, "float64"))
        for name, values in now.items():
            np.testing.assert_array_equal(training.curves[name][point], values, err_msg=name)


def test_no_epochs_measure_the_start_and_nothing_more():
    training = train_recipe(recipe(epochs=0, restarts=2), splits())
    assert training.epochs.tolist() == training.steps.tolist() == [0]
    np.testing.assert_array_equal(training.initial.flat, training.final.flat)


def test_log_every_logs_its_multiples_zero_and_the_last():
    assert recipe(epochs=10, log_every=4).logged_epochs() == [0, 4, 8, 10]
    assert recipe(epochs=8, log_every=4).logged_epochs() == [0, 4, 8]
    assert recipe(epochs=3, log_every=1).logged_epochs() == [0, 1, 2, 3]
    assert recipe(epochs=3, log_every=100).logged_epochs() == [0, 3]


@pytest.mark.parametrize("epochs", [0, 1, 2, 18, 19, 20, 21, 50, 300, 100_000])
def test_auto_logs_zero_the_last_and_up_to_eighteen_epochs_between(epochs):
    logged = recipe(epochs=epochs, log_every="auto").logged_epochs()
    assert logged[0] == 0
    assert logged[-1] == epochs
    assert logged == sorted(set(logged))
    assert len(logged) == min(epochs + 1, 20)


def test_auto_spreads_the_logged_epochs_logarithmically():
    logged = recipe(epochs=100_000, log_every="auto").logged_epochs()
    ratios = np.divide(logged[2:], logged[1:-1])
    assert logged[1] == 1
    assert ratios[:-3].min() > 1.4
    assert ratios.max() <= 2


@every_descent
def test_a_records_step_counts_the_updates_made(descent):
    training = train_recipe(recipe(descent=descent, epochs=4, log_every=2), splits(count=45))
    per_epoch = {"batch": 1, "mini_batch": 2, "stochastic": 45, "sequential": 45}[descent]
    assert training.epochs.tolist() == [0, 2, 4]
    assert training.steps.tolist() == [0, 2 * per_epoch, 4 * per_epoch]


def test_the_records_that_are_yielded_are_the_curves():
    stacked, shown = recipe(restarts=3, epochs=5, log_every=2), []
    training = train_recipe(stacked, splits(), on_record=shown.append)
    yielded = list(iterate(stacked, splits()))
    for records in (shown, yielded):
        assert [record.epoch for record in records] == training.epochs.tolist()
        assert [record.step for record in records] == training.steps.tolist()
        for name, curve in training.curves.items():
            np.testing.assert_array_equal(curve, [record.metrics[name] for record in records])
    assert all(curve.dtype == np.float64 for curve in training.curves.values())
    assert training.seconds > 0


def test_curves_exist_for_the_splits_that_are_given():
    for names in (("train",), ("train", "test"), ("train", "validation", "test")):
        given = {name: pair for name, pair in splits().items() if name in names}
        curves = train_recipe(recipe(epochs=1), given).curves
        assert {name.partition("/")[0] for name in curves if "layer" not in name} == set(names)


# divergence


@pytest.mark.parametrize("chunk_bytes", [90_000, 10**9])  # a chunk for each rate, and one for all
@every_dtype
@every_update
def test_a_diverged_restart_is_marked_and_the_others_keep_their_bits(update, dtype, chunk_bytes, monkeypatch):
    monkeypatch.setattr(memory, "CHUNK_BYTES", chunk_bytes)
    # at a rate of .2 seeds part one by one, so that those who stay change their places
    stacked = cliff(update=update, dtype=dtype, learning_rate=(1e4, 0.2, 0.01), restarts=8, epochs=6)
    data = splits(lambda seed: steep(seed))
    together = train_recipe(stacked, data, workers=2)
    lost = together.diverged_epoch >= 0
    if UPDATES[update]().takes_scaled:  # Adam's steps, say, are bounded by its rate
        assert 0 < lost.sum() < len(lost)
    for row, (rate, seed) in enumerate(zip(together.rates, together.seeds, strict=True)):
        alone = dataclasses.replace(stacked, learning_rate=float(rate), seed=int(seed), restarts=1)
        assert_same_bits(together, row, train_recipe(alone, data))


@pytest.mark.parametrize("diagnostics", ["none", "full"])
@every_descent
def test_a_restart_may_diverge_under_every_descent(descent, diagnostics):
    stacked = cliff(descent=descent, diagnostics=diagnostics, learning_rate=(1e9, 0.001), restarts=3, epochs=9)
    data = splits(lambda seed: steep(seed))
    together = train_recipe(stacked, data)
    assert ((together.diverged_epoch >= 0) == [True] * 3 + [False] * 3).all()
    for row in (1, 4):
        alone = dataclasses.replace(
            stacked, learning_rate=float(together.rates[row]), seed=int(together.seeds[row]), restarts=1
        )
        assert_same_bits(together, row, train_recipe(alone, data))


def test_restarts_diverge_at_the_epoch_their_loss_is_no_longer_finite():
    stacked = cliff(dtype="float32", epochs=25)
    together = train_recipe(stacked, splits(lambda seed: steep(seed)))
    epochs = together.diverged_epoch
    assert len(np.unique(epochs)) > 3  # never, and at several epochs
    for row, epoch in enumerate(epochs):
        losses = together.curves["train/loss"][:, row]
        if epoch < 0:
            assert np.isfinite(losses).all()
            continue
        assert np.isfinite(losses[:epoch]).all()
        for curve in together.curves.values():
            assert np.isnan(curve[epoch:, row]).all()


def test_a_diverged_restart_keeps_the_parameters_it_diverged_with():
    stacked = cliff(dtype="float32", epochs=25)
    data = splits(lambda seed: steep(seed))
    together = train_recipe(stacked, data)
    row = int(np.argmax(together.diverged_epoch))
    epoch = int(together.diverged_epoch[row])
    assert epoch > 0
    shorter = dataclasses.replace(
        stacked, learning_rate=float(together.rates[row]), seed=int(together.seeds[row]), restarts=1, epochs=epoch
    )
    np.testing.assert_array_equal(train_recipe(shorter, data).final.flat[0], together.final.flat[row])


def test_divergence_is_noticed_between_logged_epochs():
    stacked = cliff(dtype="float32", epochs=25)
    data = splits(lambda seed: steep(seed))
    every, ends = (train_recipe(dataclasses.replace(stacked, log_every=k), data) for k in (1, 25))
    np.testing.assert_array_equal(every.diverged_epoch, ends.diverged_epoch)
    np.testing.assert_array_equal(every.final.flat, ends.final.flat)


def test_when_every_restart_has_diverged_the_records_still_hold_every_metric():
    stacked = cliff(learning_rate=1e6, epochs=5, restarts=3)
    records = list(iterate(stacked, splits(lambda seed: steep(seed))))
    assert len(records) == 6
    for record in records:
        assert set(record.metrics) == set(records[0].metrics)
        assert all(values.shape == (3,) for values in record.metrics.values())
    assert all(np.isnan(values).all() for values in records[-1].metrics.values())


def test_a_start_whose_loss_is_not_finite_has_diverged_at_epoch_zero():
    huge = INITIALIZERS["normal"](spread=1e200)
    stacked = recipe(loss="mean_squared_error", output="linear", activation="relu", initializer=huge, restarts=3)
    training = train_recipe(dataclasses.replace(stacked, output_initializer=huge), splits())
    assert training.diverged_epoch.tolist() == [0, 0, 0]
    assert training.curves
    assert all(np.isnan(curve).all() for curve in training.curves.values())


def test_a_restart_whose_loss_ends_a_thousand_times_above_its_start_has_exploded():
    first, last = np.array([2.0, 2.0, 2.0, np.nan, 0.0]), np.array([2000.0, 2000.1, 1.0, np.nan, 1e-14])
    found = outcomes(np.stack([first, last]), np.array([-1, -1, -1, 3, -1]))
    assert found.tolist() == ["finite", "exploded", "finite", "diverged", "finite"]


def test_a_training_tells_finite_exploded_and_diverged_restarts_apart():
    x, y = np.array([[1.0]]), np.array([[1.0]])
    rates = [0.5, 2.5, 20.0, 1e9]  # a = a + rate (1 - a): the distance from 1 grows by 1.5, 19 and 1e9 an epoch
    training = train(x, y, hidden=[], loss="mean_squared_error", output="linear", learning_rate=rates, epochs=40)
    assert training.outcome.tolist() == ["finite", "exploded", "exploded", "diverged"]
    assert training.exploded.tolist() == [False, True, True, False]
    assert np.isfinite(training.curves["train/loss"][:, :3]).all()


def test_norms_of_an_exploded_restart_are_finite():
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.zeros((20, 2))
    given = {"loss": "mean_squared_error", "output": "linear", "diagnostics": "full", "task": "regression"}
    training = train(x, y, hidden=[4], activation="identity", learning_rate=0.0, epochs=0, restarts=2, **given)
    wide = INITIALIZERS["normal"](1e70)
    recipe = dataclasses.replace(training.recipe, initializer=wide, output_initializer=wide)
    large = train_recipe(recipe, {"train": (x, y)})
    for name, curve in large.curves.items():
        assert not np.isinf(curve).any(), name
    one = large.initial[:1]
    assert large.curves["weight_norm/layer_1"][0, 0] == pytest.approx(1e70 * np.linalg.norm(one.W[0] / 1e70))
    assert (large.outcome == "finite").all()


def test_a_diverging_run_warns_of_nothing_and_leaves_numpys_error_state_alone():
    before = np.geterr()
    with np.errstate(all="raise", under="ignore"):
        inside = np.geterr()
        train_recipe(cliff(learning_rate=1e6, epochs=3), splits(lambda seed: steep(seed)))
        assert np.geterr() == inside
    assert np.geterr() == before


# threads and BLAS


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_has_its_threads_back_after_training():
    before = blas_threads()
    train_recipe(recipe(), splits(), workers=2)
    assert blas_threads() == before
    begun = iterate(recipe(), splits(), workers=2)
    next(begun)
    begun.close()
    assert blas_threads() == before
    with pytest.raises(RuntimeError, match="stop"):
        train_recipe(recipe(), splits(), on_record=lambda record: (_ for _ in ()).throw(RuntimeError("stop")))
    assert blas_threads() == before


def test_blas_runs_on_one_thread_while_training():
    # its own threads would fight with the workers', and may split a product in another order
    plain, seen = UPDATES["gradient_descent"](), []

    def apply(*arguments):
        seen.append(blas_threads())
        plain.apply(*arguments)

    train_recipe(recipe(update=dataclasses.replace(plain, apply=apply), descent="batch"), splits())
    assert seen == [[1] * len(blas_threads())] * 3


def test_two_trainings_that_take_turns_leave_blas_its_threads():
    before = blas_threads()
    first, second = (iterate(recipe(epochs=2), splits()) for _ in range(2))
    for records in zip(first, second, strict=True):
        assert records[0].epoch == records[1].epoch
    assert next(first, None) is next(second, None) is None
    assert blas_threads() == before


def test_an_interrupt_does_not_wait_for_the_next_record():
    plain, made = UPDATES["gradient_descent"](), []

    def apply(*arguments):
        made.append(None)
        plain.apply(*arguments)

    update = dataclasses.replace(plain, apply=apply)
    stacked = recipe(descent="stochastic", update=update, epochs=3000, log_every=3000)  # some ten seconds to the end
    records = iterate(stacked, splits())
    next(records)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(records)
    assert 0 < len(made) < 45 * 1500


def test_what_the_caller_does_with_a_record_is_not_counted_as_training():
    began = time.perf_counter()
    training = train_recipe(recipe(), splits(), on_record=lambda record: time.sleep(0.1))
    assert training.seconds < time.perf_counter() - began - 4 * 0.1


def test_auto_workers_are_found_where_the_system_tells_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    assert train_recipe(recipe(epochs=1), splits(), workers="auto").epochs.tolist() == [0, 1]


# the notebook


def notebook_data(folder):
    table = np.loadtxt(folder / "MNIST_preprocessed.csv", delimiter=",")
    x, y = table[:, :784], table[:, 784:]
    return {"train": (x[:250], y[:250]), "test": (x[250:], y[250:])}


def notebook(**changes):
    rule = INITIALIZERS["notebook"](draw=2)
    return recipe(
        layers=(784, 128, 64, 10),
        activation="sigmoid",
        output="sigmoid",
        loss="mean_squared_error",
        initializer=rule,
        output_initializer=rule,
        epochs=25,
        seed=42,
        **changes,
    )


@pytest.mark.mnist
def test_sequential_descent_prints_the_notebooks_twenty_five_accuracies(mnist):
    training = train_recipe(notebook(descent="sequential", learning_rate=1.2), notebook_data(mnist))
    printed = [24, 28, 36, 60, 66, 70, 74, 72, 74, 74, 78, 76, 76, 76, 78, 78, *[80] * 6, 84, 86, 86]
    assert np.rint(100 * training.curves["test/accuracy"][1:, 0]).tolist() == printed


@pytest.mark.mnist
def test_true_batch_descent_at_the_notebooks_rate_does_not_learn(mnist):
    training = train_recipe(notebook(descent="batch", learning_rate=300.0), notebook_data(mnist))
    accuracy = training.curves["test/accuracy"][1:, 0]
    assert accuracy.max() < 0.2
    assert (accuracy[2:] == accuracy[-1]).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_epoch_of_every_restart_is_told(workers):
    told = []
    rng = np.random.default_rng(0)
    splits = {"train": (rng.normal(size=(40, 3)), rng.normal(size=(40, 1)))}
    network = {"layers": (3, 4, 1), "output": "linear", "loss": LOSSES["mean_squared_error"], "task": "regression"}
    rule = INITIALIZERS["glorot_uniform"]()
    pieces = {"initializer": rule, "output_initializer": rule, "descent": DESCENTS["batch"]()}
    spread = Recipe(
        **network,
        **pieces,
        activation=ACTIVATIONS["tanh"](),
        update=UPDATES["gradient_descent"](),
        learning_rate=0.1,
        epochs=7,
        restarts=5,
        log_every=7,
    )
    for _ in iterate(spread, splits, workers, told.append):
        pass
    assert sum(told) == 7 * 5


def textbook_trainer(recipe, splits, workers, on_epoch):
    """A trainer of one's own: the textbook's network, one restart at a time, plain gradient descent."""
    initial, (x, y) = recipe.draw(), splits["train"]
    final, steps = initial.copy(), recipe.descent.steps(len(x))
    orders = [stream(int(seed), ORDER_STREAM) for seed in recipe.stacked_axis()[0]]
    records = []
    for epoch in range(recipe.epochs + 1):
        for row, rate in enumerate(recipe.stacked_axis()[1] if epoch else ()):
            one = final[row : row + 1]
            order = recipe.descent.order(orders[row], len(x)) if recipe.descent.shuffled else np.arange(len(x))
            for start, stop in steps:
                rows = order[start:stop]
                dW, db = textbook_gradient(recipe.network, one.W, one.b, x[rows], y[rows])
                for layer in range(len(dW)):
                    one.W[layer][...] -= rate * dW[layer]
                    one.b[layer][...] -= rate * db[layer]
        if epoch in recipe.logged_epochs():
            records.append(Record(epoch, epoch * len(steps), recipe.measure(final, splits)))
            yield records[-1]
    return Training.of(recipe, records, initial, final)


@every_descent
def test_a_trainer_of_ones_own_takes_the_place_of_this_one(descent):
    settings = recipe(descent=descent, restarts=2, learning_rate=(0.1, 0.3), diagnostics="full")
    mine, theirs = train_recipe(settings, splits(), trainer=textbook_trainer), train_recipe(settings, splits())
    np.testing.assert_allclose(mine.final.flat, theirs.final.flat, rtol=1e-9, atol=1e-12)
    assert set(theirs.curves) - set(mine.curves) == {"update_ratio/layer_1", "update_ratio/layer_2"}
    for name, values in mine.curves.items():
        np.testing.assert_allclose(values, theirs.curves[name], rtol=1e-6, err_msg=name)
    assert (mine.steps == theirs.steps).all()
    assert (mine.diverged_epoch == theirs.diverged_epoch).all()


def test_a_training_made_of_records_finds_out_when_restarts_diverged():
    settings = recipe(restarts=3, epochs=2)
    losses = ([1.0, 1.0, np.nan], [1.0, np.inf, np.nan], [0.5, np.nan, np.nan])
    records = [Record(epoch, epoch, {"train/loss": np.array(loss)}) for epoch, loss in enumerate(losses)]
    training = Training.of(settings, records, settings.draw(), settings.draw())
    assert training.diverged_epoch.tolist() == [-1, 1, 0]
    assert training.outcome.tolist() == ["finite", "diverged", "diverged"]
