import numpy as np
import pytest
from sklearn.metrics import r2_score

from descentlab import train
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.diagnostics import frobenius, measure
from descentlab.nn.initializers import INITIALIZERS, draw
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import BLOCK_SAMPLES, Workspace
from descentlab.nn.metrics import metrics_of
from descentlab.nn.network import Network
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.parameters import Parameters, input_table, target_table

every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
CASES = [  # task, loss, output, K
    ("regression", "mean_squared_error", "linear", 1),
    ("regression", "mean_squared_error", "linear", 3),
    ("binary", "binary_cross_entropy", "sigmoid", 1),
    ("binary", "mean_squared_error", "linear", 1),
    ("multiclass", "categorical_cross_entropy", "softmax", 10),
    ("multiclass", "mean_squared_error", "softmax", 3),
    ("multiclass", "binary_cross_entropy", "softmax", 3),
    ("multiclass", "binary_cross_entropy", "sigmoid", 4),
    ("multilabel", "binary_cross_entropy", "sigmoid", 3),
    ("multilabel", "mean_squared_error", "sigmoid", 2),
]


def networks(layers, restarts, dtype="float64", rule="glorot_uniform"):
    parameters = Parameters.empty(layers, restarts, dtype)
    for row in range(restarts):
        drawn = draw([INITIALIZERS[rule](bias_spread=0.3)] * (len(layers) - 1), layers, row)
        for W, b, (W_drawn, b_drawn) in zip(parameters.W, parameters.b, drawn, strict=True):
            W[row], b[row] = W_drawn, b_drawn
    return parameters


def samples(task, count, n_in, outputs, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, n_in))
    if task == "regression":
        return x, rng.normal(0, 1, (count, outputs))
    if task in ("binary", "multilabel"):
        return x, rng.integers(0, 2, (count, outputs)).astype(float)
    return x, np.eye(outputs)[rng.integers(0, outputs, count)]


def measured(net, parameters, splits, task, level="basic", dtype="float64"):
    tables = {name: (input_table(x, dtype), target_table(y, dtype)) for name, (x, y) in splits.items()}
    return measure(net, parameters, tables, task, level, Workspace(net, dtype))


def scores(task):
    """The loss and every score of a task on the training split."""
    return {"train/loss", *(f"train/{metric.name}" for metric in metrics_of(task))}


def naive(net, W, b, x, y, task):
    """The metrics of one network by a loop over samples and the chain rule as the textbook has it."""
    phi, output = net.activation, OUTPUTS[net.output]
    losses, hits, answers, deltas = [], [], [], []
    slopes = [np.zeros_like(w) for w in W]
    for one, target in zip(x, y, strict=True):
        z, a = [], [one]
        for layer in range(len(W)):
            z.append(W[layer] @ a[-1] + b[layer])
            last = layer == len(W) - 1
            a.append(output.value(z[-1]) if last else phi.value(z[-1], np.empty_like(z[-1])))
        form = net.form
        losses.append(form.value(z[-1], target))
        answers.append(a[-1])
        right = a[-1].argmax() == target.argmax() if len(target) > 1 else (a[-1][0] > 0.5) == (target[0] > 0.5)
        hits.append((a[-1] > 0.5) == (target > 0.5) if task == "multilabel" else right)
        delta, norms = form.error(z[-1].copy(), target), []
        for layer in reversed(range(len(W))):
            norms.insert(0, np.linalg.norm(delta))
            slopes[layer] += np.outer(delta, a[layer]) / len(x)
            if layer:
                slope = phi.slope(z[layer - 1], a[layer], np.empty_like(z[layer - 1]))
                delta = (W[layer].T @ delta) * slope
        deltas.append(norms)
    metrics = {"train/loss": np.mean(losses)}
    if task == "regression":
        metrics["train/r2"] = r2_score(y, np.array(answers))
    else:
        metrics["train/accuracy"] = np.mean(hits)
    if task == "multilabel":
        metrics["train/exact_match"] = np.mean([all(labels) for labels in hits])
    for layer in range(len(W)):
        metrics[f"delta_norm/layer_{layer + 1}"] = np.mean([norms[layer] for norms in deltas])
        metrics[f"gradient_norm/layer_{layer + 1}"] = np.linalg.norm(slopes[layer])
        metrics[f"weight_norm/layer_{layer + 1}"] = np.linalg.norm(W[layer])
    return metrics


@every_dtype
@pytest.mark.parametrize(("task", "loss", "output", "outputs"), CASES)
@pytest.mark.parametrize("hidden", [(), (5,), (6, 4, 5)])
def test_every_metric_is_what_a_loop_over_samples_finds(task, loss, output, outputs, hidden, dtype):
    layers = (4, *hidden, outputs)
    net = Network(layers, ACTIVATIONS["tanh"](), output, LOSSES[loss])
    parameters = networks(layers, 2, dtype)
    x, y = samples(task, BLOCK_SAMPLES + 40, 4, outputs)
    metrics = measured(net, parameters, {"train": (x, y)}, task, dtype=dtype)
    assert all(values.shape == (2,) and values.dtype == np.float64 for values in metrics.values())
    for row in range(2):
        W, b = ([array[row].astype("float64") for array in arrays] for arrays in (parameters.W, parameters.b))
        expected = naive(net, W, b, x, y, task)
        assert set(metrics) == set(expected) | scores(task)
        for name, value in expected.items():
            assert metrics[name][row] == pytest.approx(value, rel=1e-10 if dtype == "float64" else 2e-5, abs=1e-6), name


def test_the_metrics_of_a_net_worked_by_hand():
    # one weight w = 2, b = -1, linear, half the squared error; x = (0, 1, 2), y = (0, 0, 2)
    # a = (-1, 1, 3), delta = a - y = (-1, 1, 1); C = (1 + 1 + 1) / 2 / 3 = .5; mean |delta| = 1
    # dC/dw = (-1 * 0 + 1 * 1 + 1 * 2) / 3 = 1; residual 3, sum (y - 2/3)^2 = 8/3: r2 = 1 - 9/8
    net = Network((1, 1), ACTIVATIONS["identity"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters.empty((1, 1), 1, "float64")
    parameters.W[0][...], parameters.b[0][...] = 2, -1
    split = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [2.0]])
    metrics = measured(net, parameters, {"train": split}, "regression")
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "train/loss": 0.5,
            "train/r2": -0.125,
            "delta_norm/layer_1": 1.0,
            "gradient_norm/layer_1": 1.0,
            "weight_norm/layer_1": 2.0,
        }
    )


def test_several_labels_count_each_by_itself_and_together():
    # answers above .5 where z > 0: (1, 0), (1, 1), (0, 0); truth (1, 0), (1, 0), (0, 0): five of six labels, two rows
    net = Network((2, 2), ACTIVATIONS["identity"](), "sigmoid", LOSSES["binary_cross_entropy"])
    parameters = Parameters.empty((2, 2), 1, "float64")
    parameters.W[0][...], parameters.b[0][...] = np.eye(2), 0
    split = np.array([[2.0, -1.0], [1.0, 1.0], [-1.0, -3.0]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    metrics = measured(net, parameters, {"train": split}, "multilabel")
    assert metrics["train/accuracy"].item() == pytest.approx(5 / 6)
    assert metrics["train/exact_match"].item() == pytest.approx(2 / 3)


def test_delta_norm_is_the_mean_of_norms_and_gradient_norm_the_norm_of_the_mean():
    # two samples that pull in opposite directions: nothing is left of the mean gradient, everything of the deltas
    net = Network((1, 1), ACTIVATIONS["identity"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters(net.layers, np.zeros((1, 2)))
    metrics = measured(net, parameters, {"train": (np.ones((2, 1)), np.array([[1.0], [-1.0]]))}, "regression")
    assert metrics["delta_norm/layer_1"] == 1
    assert metrics["gradient_norm/layer_1"] == 0


def test_biases_stay_out_of_the_norms():
    net = Network((2, 3, 1), ACTIVATIONS["tanh"](), "linear", LOSSES["mean_squared_error"])
    parameters = networks(net.layers, 1)
    x, y = np.zeros((5, 2)), np.ones((5, 1))  # inputs of 0 leave layer 1's biases a gradient and its weights none
    before = measured(net, parameters, {"train": (x, y)}, "regression")
    assert before["gradient_norm/layer_1"] == 0 < before["delta_norm/layer_1"]
    parameters.b[0][...] = 100
    after = measured(net, parameters, {"train": (x, y)}, "regression")
    assert after["weight_norm/layer_1"] == before["weight_norm/layer_1"]


@every_dtype
@pytest.mark.parametrize(("task", "loss", "output", "outputs"), CASES)
def test_a_value_has_the_same_bits_in_any_company(task, loss, output, outputs, dtype):
    for layers in ((5, outputs), (5, 8, outputs), (5, 7, 3, 9, outputs)):
        net = Network(layers, ACTIVATIONS["tanh"](), output, LOSSES[loss])
        parameters = networks(layers, 7, dtype)
        for count in (1, 2, 33, BLOCK_SAMPLES + 1):
            splits = {name: samples(task, count, 5, outputs, seed) for seed, name in enumerate(("train", "test"))}
            together = measured(net, parameters, splits, task, dtype=dtype)
            for row in (0, 3, 6):
                alone = measured(net, parameters[row : row + 1], splits, task, dtype=dtype)
                for name, values in together.items():
                    np.testing.assert_array_equal(values[row], alone[name][0], err_msg=name)


def test_norms_are_taken_on_the_training_split_and_scores_on_every_split():
    net = Network((4, 5, 3), ACTIVATIONS["relu"](), "softmax", LOSSES["categorical_cross_entropy"])
    parameters = networks(net.layers, 2)
    splits = {
        name: samples("multiclass", 20 + seed, 4, 3, seed) for seed, name in enumerate(("train", "validation", "test"))
    }
    metrics = measured(net, parameters, splits, "multiclass")
    assert {name for name in metrics if "layer" not in name} == {
        name.replace("train", split) for split in splits for name in scores("multiclass")
    }
    alone = measured(net, parameters, {"train": splits["train"]}, "multiclass")
    for name, values in alone.items():
        np.testing.assert_array_equal(metrics[name], values)
    for split in ("validation", "test"):
        as_train = measured(net, parameters, {"train": splits[split]}, "multiclass")
        np.testing.assert_array_equal(metrics[f"{split}/loss"], as_train["train/loss"])


def test_level_none_leaves_losses_and_scores_alone():
    net = Network((4, 5, 3), ACTIVATIONS["relu"](), "softmax", LOSSES["categorical_cross_entropy"])
    parameters, splits = networks(net.layers, 2), {"train": samples("multiclass", 20, 4, 3)}
    basic, none = (measured(net, parameters, splits, "multiclass", level) for level in ("basic", "none"))
    assert set(none) == scores("multiclass")
    for name, values in none.items():
        np.testing.assert_array_equal(values, basic[name])


def test_measuring_leaves_parameters_and_data_alone():
    net = Network((4, 5, 3), ACTIVATIONS["gelu"](), "softmax", LOSSES["categorical_cross_entropy"])
    parameters = networks(net.layers, 2)
    x, y = samples("multiclass", 20, 4, 3)
    tables = {"train": (input_table(x, "float64"), target_table(y, "float64"))}
    kept = [array.copy() for array in (parameters.flat, *tables["train"])]
    measure(net, parameters, tables, "multiclass", "basic", Workspace(net, "float64"))
    for array, before in zip((parameters.flat, *tables["train"]), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_one_output_decides_at_a_half_for_every_output_function():
    # z = .3: linear answers .3 (class 0), sigmoid .574 (class 1)
    for output, right in (("linear", 0.0), ("sigmoid", 1.0)):
        net = Network((1, 1), ACTIVATIONS["relu"](), output, LOSSES["mean_squared_error"])
        parameters = Parameters(net.layers, np.array([[0.3, 0.0]]))
        parameters.W[0][...], parameters.b[0][...] = 0.3, 0.0
        metrics = measured(net, parameters, {"train": (np.ones((4, 1)), np.full((4, 1), right))}, "binary", "none")
        assert metrics["train/accuracy"] == 1


@every_dtype
def test_r2_of_targets_that_do_not_vary_is_one_where_met_and_zero_elsewhere(dtype):
    # scikit-learn's convention, and a finite number: NaN is kept for diverged restarts
    net = Network((1, 2), ACTIVATIONS["identity"](), "linear", LOSSES["mean_squared_error"])
    split = np.ones((100, 1)), np.column_stack([np.full(100, 0.1), np.arange(100.0)])
    for answer, constant in ((0.1, 1.0), (0.7, 0.0)):
        parameters = Parameters(net.layers, np.zeros((1, 4), dtype))
        parameters.b[0][...] = [answer, 49.5]  # the second output answers its mean: r2 = 0
        metrics = measured(net, parameters, {"train": split}, "regression", "none", dtype)
        assert metrics["train/r2"].item() == pytest.approx(constant / 2, abs=1e-6)


def test_a_vanishing_delta_is_measured_in_single_precision_too():
    # forty sigmoid layers shrink delta to about 1e-27, whose square is no float32
    layers = (4, *[4] * 40, 2)
    net = Network(layers, ACTIVATIONS["sigmoid"](), "softmax", LOSSES["categorical_cross_entropy"])
    split = {"train": samples("multiclass", 20, 4, 2)}
    double, single = (
        measured(net, networks(layers, 2, dtype), split, "multiclass", dtype=dtype) for dtype in ("float64", "float32")
    )
    for name in ("delta_norm/layer_1", "delta_norm/layer_10", "gradient_norm/layer_1"):
        assert (double[name] > 0).all()
        np.testing.assert_allclose(single[name], double[name], rtol=1e-3, err_msg=name)
    assert (double["delta_norm/layer_1"] < 1e-23).all()


def test_the_frobenius_norm_is_that_of_each_matrix():
    matrices = np.random.default_rng(4).normal(0, 1, (3, 4, 5)).astype("float32")
    np.testing.assert_allclose(frobenius(matrices), [np.linalg.norm(m) for m in matrices], rtol=1e-6)
    assert frobenius(matrices[..., :-1]).dtype == np.float64


def full_of(net, parameters, x, y, rate=0.1):
    def gradient_descent(mean):
        return Parameters(mean.layers, -rate * mean.flat)

    tables = {"train": (input_table(x, "float64"), target_table(y, "float64"))}
    return measure(net, parameters, tables, "regression", "full", Workspace(net, "float64"), gradient_descent)


def test_full_diagnostics_of_a_net_worked_by_hand():
    # x = 1, 2; z1 = (x, -2x - 1), a1 = (1, 0), (2, 0); answers 3 a + 1 = 4, 7 for y = 2, 4: delta2 = 2, 3 and
    # delta1 = (6, 0), (9, 0). dC/dW2 = ((2 + 6) / 2, 0), dC/dW1 = ((6 + 18) / 2, 0); |W2| = sqrt(34), |W1| = sqrt(5).
    net = Network((1, 2, 1), ACTIVATIONS["relu"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters.empty(net.layers, 1, "float64")
    parameters.W[0][...], parameters.b[0][...] = [[1], [-2]], [0, -1]
    parameters.W[1][...], parameters.b[1][...] = [[3, 5]], [1]
    metrics = full_of(net, parameters, np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
    expected = {
        "delta_rms/layer_1": np.sqrt((36 + 81) / 2),
        "delta_rms/layer_2": np.sqrt((4 + 9) / 2),
        "bias_gradient_norm/layer_1": 7.5,
        "bias_gradient_norm/layer_2": 2.5,
        "update_ratio/layer_1": 0.1 * 12 / np.sqrt(5),
        "update_ratio/layer_2": 0.1 * 4 / np.sqrt(34),
        "activation_mean/layer_1": 0.75,  # of 1, 0, 2, 0
        "activation_sd/layer_1": np.sqrt(5 / 4 - 0.75**2),
        "saturated/layer_1": 0.5,
        "dead/layer_1": 0.5,
        "effective_rank/layer_1": 1.0,
    }
    basic = measured(net, parameters, {"train": (np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))}, "regression")
    assert set(metrics) == set(basic) | set(expected)
    assert {name: metrics[name].item() for name in expected} == pytest.approx(expected)


def test_the_effective_rank_is_the_entropy_of_the_singular_values():
    # activations diag(3, 1): shares .75 and .25, entropy .5623, rank 1.7548; the identity matrix has full rank
    net = Network((2, 2, 1), ACTIVATIONS["identity"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters(net.layers, np.zeros((3, 9)))
    parameters.W[0][:] = np.diag([3.0, 1.0]), np.eye(2), np.zeros((2, 2))
    rank = full_of(net, parameters, np.eye(2), np.zeros((2, 1)))["effective_rank/layer_1"]
    assert rank == pytest.approx([1.7548, 2.0, 0.0], abs=1e-4)


def test_the_effective_rank_does_not_depend_on_which_side_is_longer():
    net = Network((5, 7, 1), ACTIVATIONS["tanh"](), "linear", LOSSES["mean_squared_error"])
    parameters = networks(net.layers, 2)
    for count in (3, 7, 40, BLOCK_SAMPLES + 9):
        x, y = samples("regression", count, 5, 1)
        rank = full_of(net, parameters, x, y)["effective_rank/layer_1"]
        for row in range(2):
            singular = np.linalg.svd(np.tanh(x @ parameters.W[0][row].T + parameters.b[0][row]), compute_uv=False)
            share = singular / singular.sum()
            assert rank[row] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


@pytest.mark.parametrize(("name", "near", "far"), [("sigmoid", 4.2, 4.5), ("tanh", 2.1, 2.3), ("leaky_relu", 9, -9)])
def test_a_unit_is_saturated_where_its_slope_is_below_a_twentieth_of_the_steepest(name, near, far):
    # sigmoid's slope is .0145 at 4.2 and .0108 at 4.5, its threshold .0125; tanh's .0583 and .0395 around .05
    net = Network((1, 1, 1), ACTIVATIONS[name](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters(net.layers, np.ones((1, 4)))
    parameters.b[0][...] = 0
    metrics = full_of(net, parameters, np.array([[near], [far], [0.0], [near]]), np.zeros((4, 1)))
    assert metrics["saturated/layer_1"] == (0.25 if name != "leaky_relu" else 0.5)  # its slope at 0 is the left one
    assert metrics["dead/layer_1"] == 0


def test_a_unit_is_dead_only_where_no_sample_of_any_block_reaches_it():
    x = np.full((BLOCK_SAMPLES + 3, 1), -1.0)
    net = Network((1, 2, 1), ACTIVATIONS["relu"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters(net.layers, np.ones((1, 7)))
    parameters.b[0][...] = 0, -5
    assert full_of(net, parameters, x, x)["dead/layer_1"] == 1
    for sample in (0, -1):  # in the first block or in the second, and enough for the first unit
        reached = x.copy()
        reached[sample] = 1
        assert full_of(net, parameters, reached, x)["dead/layer_1"] == 0.5


def test_the_spread_of_activations_that_hardly_differ_is_not_lost_to_rounding():
    net = Network((1, 1, 1), ACTIVATIONS["identity"](), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters(net.layers, np.ones((1, 4)))
    parameters.b[0][...] = 1e3
    x = np.random.default_rng(0).normal(0, 1e-7, (2 * BLOCK_SAMPLES + 9, 1))
    metrics = full_of(net, parameters, x, x)
    assert metrics["activation_sd/layer_1"].item() == pytest.approx((x + 1e3).std(), rel=1e-6)
    assert metrics["activation_mean/layer_1"].item() == pytest.approx(1e3)


@every_dtype
@pytest.mark.parametrize("name", ["sigmoid", "relu", "gelu"])
def test_full_leaves_the_bits_of_basic_alone_and_has_the_same_bits_in_any_company(name, dtype):
    for layers in ((5, 3), (5, 8, 3), (5, 7, 4, 9, 3)):
        net = Network(layers, ACTIVATIONS[name](), "softmax", LOSSES["categorical_cross_entropy"])
        parameters = networks(layers, 5, dtype)
        splits = {"train": samples("multiclass", BLOCK_SAMPLES + 9, 5, 3)}
        basic, full = (measured(net, parameters, splits, "multiclass", level, dtype) for level in ("basic", "full"))
        for metric, values in basic.items():
            np.testing.assert_array_equal(values, full[metric], err_msg=metric)
        for row in (0, 4):
            alone = measured(net, parameters[row : row + 1], splits, "multiclass", "full", dtype)
            for metric, values in full.items():
                assert values.shape == (5,)
                assert values.dtype == np.float64
                np.testing.assert_array_equal(values[row], alone[metric][0], err_msg=metric)


@pytest.mark.parametrize("update", ["gradient_descent", "momentum", "adam"])
def test_the_update_ratio_is_the_step_that_training_takes_next(update):
    x, y = samples("regression", 30, 4, 2)
    settings = {"hidden": (5, 3), "activation": "tanh", "update": update, "descent": "batch", "log_every": 1}
    settings |= {"learning_rate": 0.05, "weight_decay": 0.1, "learning_rate_decay": 0.9, "restarts": 3}
    trained = [train(x, y, epochs=epochs, diagnostics="full", **settings) for epochs in (2, 3)]
    before, after = (one.final.W for one in trained)
    for layer in (1, 2, 3):
        moved = frobenius(after[layer - 1] - before[layer - 1]) / frobenius(before[layer - 1])
        np.testing.assert_allclose(trained[0].curves[f"update_ratio/layer_{layer}"][-1], moved, rtol=1e-9)


def test_full_diagnostics_survive_a_diverged_restart():
    x, y = samples("regression", 30, 4, 2)
    settings = {"activation": "identity", "descent": "batch", "epochs": 30, "diagnostics": "full", "log_every": 1}
    trained = train(x, y, learning_rate=[0.01, 1e6], **settings)
    assert (trained.diverged_epoch >= 0).tolist() == [False, True]
    for name, values in trained.curves.items():
        assert np.isfinite(values[:, 0]).all(), name
        assert np.isnan(values[-1, 1]), name


def test_relu_under_glorot_fades_in_delta_and_not_in_the_gradient_of_the_weights():
    # ten hidden layers of 32 units: .16 decade a layer in mean |delta|, about none in |dC/dW|, because activations
    # that shrink on the way up cancel deltas that shrink on the way down
    x = np.abs(np.random.default_rng(0).normal(0.3, 0.3, (200, 64)))
    y = np.random.default_rng(1).integers(0, 10, 200)
    settings = {"hidden": (32,) * 10, "activation": "relu", "initializer": "glorot_uniform", "restarts": 100}
    curves = train(x, y, epochs=0, **settings).curves
    lost = {}
    for quantity in ("delta_norm", "gradient_norm"):
        logs = np.log10([curves[f"{quantity}/layer_{layer}"][0] for layer in range(2, 11)])  # (9, R), fed by 32 units
        lost[quantity] = np.polyfit(np.arange(2, 11), logs, 1)[0].mean()
    assert lost["delta_norm"] == pytest.approx(0.16, abs=0.02)
    assert abs(lost["gradient_norm"]) < 0.02
