import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from descentlab.nn import network as textbook
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS, draw
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import BLOCK_SAMPLES, Workspace
from descentlab.nn.network import Network, predict
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.parameters import Parameters, input_table, parameter_count, target_table
from descentlab.nn.program import forward, gradient

FORMS = [(loss, output) for loss in LOSSES for output in LOSSES[loss].forms]
BACKPROP = Path(__file__).parent.parent / "examples" / "backprop.py"
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
every_form = pytest.mark.parametrize(("loss", "output"), FORMS, ids=["-".join(form) for form in FORMS])
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def network(layers, activation="tanh", output="linear", loss="mean_squared_error"):
    return Network(tuple(layers), ACTIVATIONS[activation](), output, LOSSES[loss])


def drawn(layers, restarts, dtype="float64", rule="glorot_uniform", seed=0, **numbers):
    rules = [INITIALIZERS[rule](**numbers)] * (len(layers) - 1)
    parameters = Parameters.empty(layers, restarts, dtype)
    for row in range(restarts):
        for W, b, (W_drawn, b_drawn) in zip(parameters.W, parameters.b, draw(rules, layers, seed + row), strict=True):
            W[row], b[row] = W_drawn, b_drawn
    return parameters


def samples(loss, count, n_in, outputs, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, n_in))
    if loss == "mean_squared_error":
        return x, rng.normal(0, 1, (count, outputs))
    if loss == "binary_cross_entropy":
        return x, rng.integers(0, 2, (count, outputs)).astype(float)
    return x, np.eye(outputs)[rng.integers(0, outputs, count)]


def mean_loss(net, parameters, x, y):
    """The mean loss of every restart, from the textbook's forward pass alone."""
    z, _ = textbook.forward(net, parameters.W, parameters.b, x)
    return net.form.value(z[-1], y).mean(axis=-1)


def assert_textbook(slope, net, parameters, x, y, rtol=1e-11):
    """The gradient that training computes is that of network.py within rounding."""
    dW, db = textbook.gradient(net, parameters.W, parameters.b, x, y)
    for mine, theirs in ((slope.W, dW), (slope.b, db)):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * max(1e-3, float(np.abs(other).max())))


def mean_gradient(net, parameters, x, y):
    dtype = parameters.flat.dtype.name
    tables = input_table(x, dtype), target_table(y, dtype)
    return gradient(net, parameters, *tables, 1 / len(x), Workspace(net, dtype))


def assert_central_differences_agree(net, parameters, x, y, directions=2):
    rng, step = np.random.default_rng(2), 1e-5
    slope = mean_gradient(net, parameters, x, y)
    assert_textbook(slope, net, parameters, x, y)
    slope = slope.flat
    for _ in range(directions):
        direction = rng.normal(0, 1, slope.shape)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        ahead, behind = (
            mean_loss(net, Parameters(net.layers, parameters.flat + sign * step * direction), x, y) for sign in (1, -1)
        )
        along = (slope * direction).sum(axis=1)
        scale = np.maximum(np.abs(along), 1e-2 * np.linalg.norm(slope, axis=1))
        assert (np.abs((ahead - behind) / (2 * step) - along) < 1e-6 * scale).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@every_form
@every_activation
def test_the_gradient_agrees_with_the_textbooks_and_with_central_differences(activation, loss, output, depth):
    layers = (*(3, 5, 4, 6)[:depth], 3)
    net = network(layers, activation, output, loss)
    parameters = drawn(layers, 3, rule="lecun_normal", bias_spread=0.5)
    assert_central_differences_agree(net, parameters, *samples(loss, 7, 3, 3))


@every_form
@every_activation
def test_the_gradient_of_a_batch_of_many_blocks_agrees_with_central_differences(activation, loss, output):
    layers = (3, 4, 5, 2)
    net = network(layers, activation, output, loss)
    parameters = drawn(layers, 2, rule="lecun_normal", bias_spread=0.5)
    assert_central_differences_agree(net, parameters, *samples(loss, 2 * BLOCK_SAMPLES + 1, 3, 2), directions=1)


@every_dtype
@every_activation
@pytest.mark.parametrize(("layers", "loss", "output"), [
    ((2, 4, 1), "binary_cross_entropy", "sigmoid"),  # lies restart-last
    ((5, 9, 3), "categorical_cross_entropy", "softmax"),  # a lone hidden layer
    ((100, 90, 3), "mean_squared_error", "linear"),  # wide enough for steps within BLAS
    ((3, 7, 9, 5, 2), "binary_cross_entropy", "softmax"),
])  # fmt: skip
def test_every_layout_in_memory_has_the_textbooks_gradient_and_answers(layers, loss, output, activation, dtype):
    net = network(layers, activation, output, loss)
    for restarts, count in ((1, 1), (50, 4), (3, 33), (2, BLOCK_SAMPLES + 50)):
        parameters, (x, y) = drawn(layers, restarts, dtype), samples(loss, count, layers[0], layers[-1])
        x, y = x.astype(dtype), y.astype(dtype)
        rtol = 1e-11 if dtype == "float64" else 2e-4
        assert_textbook(mean_gradient(net, parameters, x, y), net, parameters, x, y, rtol)
        z = forward(net, parameters, input_table(x, dtype), Workspace(net, dtype).trace(restarts, count))
        np.testing.assert_allclose(OUTPUTS[output].value(z), predict(net, parameters, x), rtol=rtol, atol=rtol)


@every_dtype
@pytest.mark.parametrize("layers", [(2, 4, 1), (5, 9, 3), (3, 7, 9, 2)])
def test_predict_gives_a_restart_the_same_bits_in_any_stack(layers, dtype, monkeypatch):
    net = network(layers, "tanh", "sigmoid", "binary_cross_entropy")
    parameters, (x, _) = drawn(layers, 9, dtype), samples("binary_cross_entropy", 40, layers[0], layers[-1])
    together = predict(net, parameters, x)
    for row in range(9):
        np.testing.assert_array_equal(predict(net, parameters[row : row + 1], x)[0], together[row])
    monkeypatch.setattr(textbook, "BLOCK", 1000)  # a few restarts at a time
    np.testing.assert_array_equal(predict(net, parameters, x), together)


@pytest.mark.parametrize("layers", [(1, 1, 1), (1, 1), (4, 1, 1, 1), (2, 9, 1), (1, 2, 3, 1)])
def test_layers_of_one_unit_have_the_right_gradient(layers):
    for loss, output in FORMS:
        if output != "softmax":
            net = network(layers, "tanh", output, loss)
            parameters = drawn(layers, 2, rule="normal", bias_spread=0.5)
            for count in (1, 2, 7):
                assert_central_differences_agree(net, parameters, *samples(loss, count, layers[0], 1))


@every_dtype
@every_activation
def test_single_and_double_precision_agree_on_the_gradient(activation, dtype):
    layers = (6, 8, 7, 4)
    net = network(layers, activation, "softmax", "categorical_cross_entropy")
    x, y = samples("categorical_cross_entropy", 300, 6, 4)
    exact, rounded = (mean_gradient(net, drawn(layers, 2, kind), x, y).flat for kind in ("float64", dtype))
    assert rounded.dtype == dtype
    assert np.abs(exact - rounded).max() < 20 * np.finfo(dtype).eps * np.abs(exact).max()


def test_one_step_worked_by_hand():
    # x = (1, 2), y = 1; ReLU, then linear with half the squared error.
    # z1 = (1 - 2 + .5, .5 + 1 - .5) = (-.5, 1), a1 = (0, 1); z2 = 2 * 0 + 3 * 1 - 1 = 2; C = (2 - 1)^2 / 2 = .5
    # delta2 = 2 - 1 = 1: dW2 = (0, 1), db2 = 1
    # delta1 = (2 * 0, 3 * 1) = (0, 3), as ReLU stops the first unit: dW1 = ((0, 0), (3, 6)), db1 = (0, 3)
    net = network((2, 2, 1), "relu")
    parameters = Parameters.empty(net.layers, 1, "float64")
    for array, numbers in zip(
        (*parameters.W, *parameters.b), ([[1, -1], [0.5, 0.5]], [[2, 3]], [0.5, -0.5], [-1]), strict=True
    ):
        array[0] = numbers
    x, y = np.array([[1.0, 2.0]]), np.array([[1.0]])
    assert mean_loss(net, parameters, x, y) == [0.5]
    slope = mean_gradient(net, parameters, x, y)
    np.testing.assert_array_equal(slope.W[1][0], [[0, 1]])
    np.testing.assert_array_equal(slope.b[1][0], [1])
    np.testing.assert_array_equal(slope.W[0][0], [[0, 0], [3, 6]])
    np.testing.assert_array_equal(slope.b[0][0], [0, 3])
    parameters.flat -= 0.1 * slope.flat
    np.testing.assert_allclose(parameters.W[0][0], [[1, -1], [0.2, -0.1]])
    np.testing.assert_allclose(parameters.b[0][0], [0.5, -0.8])
    np.testing.assert_allclose(parameters.W[1][0], [[2, 2.9]])
    np.testing.assert_allclose(parameters.b[1][0], [-1.1])


def test_the_gradient_is_the_mean_over_samples():
    net = network((3, 4, 2))
    parameters = drawn(net.layers, 2)
    x, y = samples("mean_squared_error", 6, 3, 2)
    each = [mean_gradient(net, parameters, x[i : i + 1], y[i : i + 1]).flat.copy() for i in range(6)]
    np.testing.assert_allclose(mean_gradient(net, parameters, x, y).flat, np.mean(each, axis=0), rtol=1e-12)


def test_every_restart_may_have_its_own_samples_and_its_own_scale():
    net = network((3, 4, 2), "sigmoid", "softmax", "categorical_cross_entropy")
    parameters = drawn(net.layers, 3)
    sets = [samples("categorical_cross_entropy", 5, 3, 2, seed) for seed in range(3)]
    x, y = np.stack([input_table(x, "float64") for x, _ in sets]), np.stack([y for _, y in sets])
    scale = np.array([0.1, 1.0, 3.0])[:, None, None]
    together = gradient(net, parameters, x, y, scale / 5, Workspace(net, "float64")).flat
    for row, (x_own, y_own) in enumerate(sets):
        alone = mean_gradient(net, parameters[row : row + 1], x_own, y_own).flat[0]
        np.testing.assert_allclose(together[row], scale[row, 0, 0] * alone, rtol=1e-12)


def test_the_gradient_leaves_inputs_targets_and_parameters_alone():
    for loss, output in FORMS:
        net = network((3, 4, 2), "gelu", output, loss)
        parameters = drawn(net.layers, 2)
        x, y = samples(loss, 300, 3, 2)
        tables = input_table(x, "float64"), target_table(y, "float64")
        kept = [array.copy() for array in (*tables, parameters.flat)]
        gradient(net, parameters, *tables, 1.0, Workspace(net, "float64"))
        for array, before in zip((*tables, parameters.flat), kept, strict=True):
            np.testing.assert_array_equal(array, before)


@every_activation
def test_the_gradient_does_not_depend_on_what_the_buffers_held_before(activation):
    net = network((3, 4, 5, 2), activation)
    parameters = drawn(net.layers, 2)
    used = Workspace(net, "float64")
    for count in (300, 1, 44, 1, 300):
        x, y = samples("mean_squared_error", count, 3, 2, seed=count)
        tables = input_table(x, "float64"), target_table(y, "float64")
        fresh = gradient(net, parameters, *tables, 1.0, Workspace(net, "float64")).flat
        np.testing.assert_array_equal(gradient(net, parameters, *tables, 1.0, used).flat, fresh)


@every_dtype
@every_form
@pytest.mark.parametrize("layers", [(5, 3), (5, 8, 1), (17, 33, 10), (3, 7, 9, 17), (6, 1, 2, 4, 2)])
def test_a_restarts_gradient_has_the_same_bits_in_any_company(layers, loss, output, dtype):
    if output == "softmax" and layers[-1] == 1:
        layers = (*layers[:-1], 2)
    net = network(layers, "tanh", output, loss)
    parameters = drawn(layers, 7, dtype)
    workspace = Workspace(net, dtype)
    for count in (1, 2, 5, 32, 257):
        x, y = samples(loss, count, layers[0], layers[-1])
        tables = input_table(x, dtype), target_table(y, dtype)
        own = tuple(np.stack([table] * 7) for table in tables)
        for given in (tables, own):
            together = gradient(net, parameters, *given, 0.3, workspace).flat.copy()
            for row in (0, 3, 6):
                mine = tuple(array[row : row + 1] for array in given) if given is own else given
                alone = gradient(net, parameters[row : row + 1], *mine, 0.3, workspace).flat[0]
                np.testing.assert_array_equal(together[row], alone)


@every_form
def test_predict_applies_the_layers_one_after_the_other(loss, output):
    net = network((4, 6, 5, 3), "softplus", output, loss)
    parameters = drawn(net.layers, 2, bias_spread=0.5)
    x, _ = samples(loss, 2 * BLOCK_SAMPLES + 1, 4, 3)
    answers = predict(net, parameters, x)
    assert answers.shape == (2, len(x), 3)
    for row in range(2):
        W, b = ([array[row] for array in arrays] for arrays in (parameters.W, parameters.b))
        a = x
        for layer in range(2):
            a = np.log1p(np.exp(a @ W[layer].T + b[layer]))
        np.testing.assert_allclose(answers[row], OUTPUTS[output].value(a @ W[2].T + b[2]), rtol=1e-11)


def test_parameters_are_views_of_one_row_per_restart():
    layers = (3, 4, 5, 2)
    parameters = Parameters.empty(layers, 6, "float32")
    assert parameters.flat.shape == (6, parameter_count(layers)) == (6, 4 * 4 + 5 * 5 + 6 * 2)
    assert [W.shape for W in parameters.W] == [(6, 4, 3), (6, 5, 4), (6, 2, 5)]
    assert [b.shape for b in parameters.b] == [(6, 4), (6, 5), (6, 2)]
    parameters.flat[...] = 0
    for number, array in enumerate((*parameters.W, *parameters.b), start=1):
        assert not array.any()  # no two of them overlap
        array[...] = number
    assert parameters.flat.all()  # and together they are everything
    assert parameters.flat.dtype == np.float32


def test_a_slice_of_parameters_is_a_view_and_a_copy_is_not():
    parameters = drawn((3, 4, 2), 5)
    kept = parameters.copy()
    parameters[1:3].W[0][...] = 7
    assert (parameters.W[0][1:3] == 7).all()
    assert len(parameters[1:3]) == 2
    np.testing.assert_array_equal(parameters.flat[[0, 3, 4]], kept.flat[[0, 3, 4]])
    parameters[np.array([True, False, False, False, True])].flat[...] = 0
    np.testing.assert_array_equal(parameters.flat[[0, 4]], kept.flat[[0, 4]])
    assert not (kept.W[0] == 7).any()


def test_the_weight_mask_is_one_on_weights_and_zero_on_biases():
    parameters = drawn((3, 4, 5, 2), 2)
    masked = Parameters(parameters.layers, np.ones_like(parameters.flat) * parameters.weight_mask)
    assert all((W == 1).all() for W in masked.W)
    assert all((b == 0).all() for b in masked.b)


# the textbook's network as an oracle


def test_the_network_of_the_package_is_read_in_one_sitting():
    assert len(Path(textbook.__file__).read_text().splitlines()) <= 80


def test_the_textbook_network_is_short_and_learns_xor(capsys):
    assert len(BACKPROP.read_text().splitlines()) <= 70
    runpy.run_path(str(BACKPROP), run_name="__main__")
    answers = [float(number) for number in capsys.readouterr().out.splitlines()[-1].split()[-4:]]
    np.testing.assert_allclose(answers, [0, 1, 1, 0], atol=0.05)


@pytest.mark.parametrize("layers", [(4, 2), (4, 5, 2), (4, 5, 3, 2), (4, 3, 3, 3, 1)])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_the_stacked_gradient_is_that_of_the_example(activation, layers):
    single_network = runpy.run_path(str(BACKPROP))
    net = network(layers, activation, "sigmoid", "binary_cross_entropy")
    parameters = drawn(layers, 3, bias_spread=0.5)
    x, y = samples("binary_cross_entropy", 6, layers[0], layers[-1])
    slope = mean_gradient(net, parameters, x, y)
    for row in range(3):
        single = [(W[row], b[row]) for W, b in zip(parameters.W, parameters.b, strict=True)]
        for layer, (dW, db) in enumerate(single_network["mean_gradient"](single, x, y, activation)):
            np.testing.assert_allclose(slope.W[layer][row], dW, rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(slope.b[layer][row], db, rtol=1e-11, atol=1e-14)


# scikit-learn's multilayer perceptron as an oracle

SCIKIT_NAMES = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


def scikit_weights(kind, parameters, x, y, epochs, **settings):
    """The parameters of scikit-learn's MLP after some epochs from the first restart's start, as [(W, b)]."""
    start = iter([(W[0].T.copy(), b[0].copy()) for W, b in zip(parameters.W, parameters.b, strict=True)])

    class Started(kind):
        def _init_coef(self, fan_in, fan_out, dtype):
            return next(start)

    mlp = Started(
        hidden_layer_sizes=parameters.layers[1:-1],
        max_iter=epochs,
        shuffle=False,
        tol=0.0,
        n_iter_no_change=10**6,
        **{"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False, "alpha": 0.0, **settings},
    )
    mlp.fit(x, y)
    return [(W.T, b) for W, b in zip(mlp.coefs_, mlp.intercepts_, strict=True)]


def descend(net, parameters, x, y, epochs, batch_size, rate, decay=0.0):
    """Plain gradient descent in file order, from the network's gradient alone."""
    for _, start in itertools.product(range(epochs), range(0, len(x), batch_size)):
        part = slice(start, start + batch_size)
        slope = mean_gradient(net, parameters, x[part], y[part]).flat
        parameters.flat -= rate * (slope + decay * parameters.flat * parameters.weight_mask)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("batch_size", [1, 8, 30])
@pytest.mark.parametrize("activation", SCIKIT_NAMES)
@pytest.mark.parametrize("task", ["classes", "binary", "regression"])
def test_descent_agrees_with_scikit_learn_step_for_step(task, activation, batch_size):
    # scikit-learn divides its penalty by the samples of the step, and its squared error sums over outputs
    rng = np.random.default_rng(3)
    x, rate, alpha, outputs = rng.normal(0, 1, (30, 4)), 0.05, 0.05, {"classes": 3, "binary": 1, "regression": 2}[task]
    if task == "regression":
        labels = y = rng.normal(0, 1, (30, 2))
        net = network((4, 5, 6, 2), activation)
    else:
        labels = rng.integers(0, max(2, outputs), 30)
        y = np.eye(3)[labels] if task == "classes" else labels[:, None].astype(float)
        pair = ("softmax", "categorical_cross_entropy") if task == "classes" else ("sigmoid", "binary_cross_entropy")
        net = network((4, 5, 6, outputs), activation, *pair)
    parameters = drawn(net.layers, 1, bias_spread=0.2)
    scale = outputs if task == "regression" else 1
    whole_steps = len(x) // batch_size * batch_size  # so that alpha / samples is one number
    x, y, labels = x[:whole_steps], y[:whole_steps], labels[:whole_steps]
    theirs = scikit_weights(
        MLPRegressor if task == "regression" else MLPClassifier,
        parameters,
        x,
        labels,
        epochs=5,
        batch_size=batch_size,
        activation=SCIKIT_NAMES[activation],
        learning_rate_init=rate,
        alpha=alpha,
    )
    descend(net, parameters, x, y, 5, batch_size, rate * scale, alpha / batch_size / scale)
    for W, b, (W_theirs, b_theirs) in zip(parameters.W, parameters.b, theirs, strict=True):
        np.testing.assert_allclose(W[0], W_theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(b[0], b_theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.mnist
def test_the_notebooks_forward_pass_prints_its_digits(mnist):
    first = np.loadtxt(mnist / "MNIST_preprocessed.csv", delimiter=",", max_rows=1)
    net = network((784, 128, 64, 10), "sigmoid", "sigmoid")
    answer = predict(net, drawn(net.layers, 1, rule="notebook", seed=42), first[None, :784])[0, 0]
    printed = [0.39847348, 0.63079802, 0.79832892, 0.93056447, 0.67941405]
    printed += [0.67578969, 0.05318435, 0.37468117, 0.12677036, 0.6419338]
    np.testing.assert_allclose(answer, printed, atol=5e-9)


def test_parameters_stacked_from_kept_arrays_are_the_ones_that_were_kept():
    parameters = Parameters.empty((3, 5, 4, 2), 6, "float64")
    parameters.flat[...] = np.random.default_rng(0).normal(size=parameters.flat.shape)
    layers = enumerate(zip(parameters.W, parameters.b, strict=True), start=1)
    kept = {name: array for k, (W, b) in layers for name, array in ((f"W{k}", W), (f"b{k}", b))}
    again = Parameters.stacked(kept)
    assert again.layers == parameters.layers
    assert np.array_equal(again.flat, parameters.flat)
