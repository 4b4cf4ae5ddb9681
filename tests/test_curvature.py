import numpy as np
import pytest

from descentlab.analysis import curvature
from descentlab.analysis.curvature import Objective
from descentlab.nn.activations import ACTIVATIONS, Activation, elu, leaky_relu, relu, tanh
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network, predict
from descentlab.nn.parameters import Parameters, input_table, target_table
from descentlab.nn.program import gradient

VARIANTS = {
    **{name: factory() for name, factory in ACTIVATIONS.items() if factory().curvature},
    "leaky_relu(0.2)": leaky_relu(0.2),
    "elu(0.5)": elu(0.5),
    "elu(3)": elu(3.0),
}
FORMS = {f"{loss}-{output}": (loss, output) for loss in LOSSES for output in LOSSES[loss].forms}
EXTREMES = np.array([0.0, 1e-30, 1e-3, 0.5, 1.0, 17.0, 40.0, 88.0, 104.0, 710.0, 746.0, 3e3, 1e4])

every_activation = pytest.mark.parametrize("phi", VARIANTS.values(), ids=VARIANTS.keys())
every_form = pytest.mark.parametrize(("loss", "output"), FORMS.values(), ids=FORMS.keys())
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def derivatives(phi, z):
    a = phi.value(z, np.empty_like(z))
    seen = np.full_like(z, np.nan) if phi.slope_from_value else z
    slope = phi.slope(seen, a, np.empty_like(z, dtype=bool if phi.slope_is_mask else z.dtype))
    return slope.astype(z.dtype), phi.curvature(seen, a, np.empty_like(z))


def targets(rng, loss, shape):
    if loss == "categorical_cross_entropy":
        return rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    return rng.uniform(0, 1, shape)


def objective(phi="tanh", layers=(3, 4, 2), loss="mean_squared_error", output="linear", decay=0.0, samples=11, seed=0):
    rng = np.random.default_rng(seed)
    act = ACTIVATIONS[phi]() if isinstance(phi, str) else phi
    network = Network(layers, act, output, LOSSES[loss])
    x, y = rng.normal(size=(samples, layers[0])), targets(rng, loss, (samples, layers[-1]))
    return Objective(network, x, y, decay), rng


# what the activations and losses add


def test_every_activation_that_the_package_brings_has_a_curvature():
    brought = "identity sigmoid tanh relu leaky_relu elu selu gelu silu softplus softsign"
    assert set(brought.split()) <= set(VARIANTS)


@every_activation
def test_curvature_is_the_central_difference_of_slope(phi):
    z = np.random.default_rng(1).uniform(-8, 8, 2000)
    z = z[np.abs(z) > 1e-3]
    step = 1e-5
    difference = (derivatives(phi, z + step)[0] - derivatives(phi, z - step)[0]) / (2 * step)
    np.testing.assert_allclose(derivatives(phi, z)[1], difference, rtol=1e-7, atol=1e-9)


@every_activation
def test_curvature_at_zero_is_the_limit_from_the_left(phi):
    at_zero, from_the_left = (derivatives(phi, np.array(z))[1] for z in ([0.0, -0.0], [-1e-9, -1e-9]))
    np.testing.assert_allclose(at_zero, from_the_left, atol=1e-8)


@every_activation
def test_smoothness_counts_the_continuous_derivatives(phi):
    before, after = (np.array([part[0] for part in derivatives(phi, np.array([z]))]) for z in (-1e-9, 1e-9))
    jumps = np.abs(after - before) > 1e-6
    assert phi.smoothness == (0 if jumps[0] else 1 if jumps[1] else 2)
    assert phi.smooth == (not jumps.any())


@every_dtype
@every_activation
def test_curvature_is_finite_and_raises_nothing_up_to_ten_thousand(phi, dtype):
    z = np.concatenate([-EXTREMES, EXTREMES]).astype(dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        bend = derivatives(phi, z)[1]
    assert bend.dtype == dtype
    assert np.isfinite(bend).all()


@every_activation
def test_curvature_leaves_its_arguments_alone_and_fills_the_buffer(phi):
    z = np.random.default_rng(2).normal(0, 2, 50)
    a = phi.value(z, np.empty_like(z))
    kept_z, kept_a, out = z.copy(), a.copy(), np.empty_like(z)
    assert phi.curvature(z, a, out) is out
    np.testing.assert_array_equal(z, kept_z)
    np.testing.assert_array_equal(a, kept_a)


@every_form
def test_error_derivative_is_the_central_difference_of_error(loss, output):
    form, rng = LOSSES[loss].forms[output], np.random.default_rng(3)
    z, dz = rng.normal(0, 2, (2, 3, 40, 4))
    y, kept = targets(rng, loss, z.shape), z.copy()
    step = 1e-5
    difference = (form.error(z + step * dz, y) - form.error(z - step * dz, y)) / (2 * step)
    np.testing.assert_allclose(form.error_derivative(z, y, dz), difference, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(z, kept)


@every_dtype
@every_form
def test_error_derivative_is_finite_at_extreme_answers(loss, output, dtype):
    rng = np.random.default_rng(4)
    z = rng.choice(np.concatenate([-EXTREMES, EXTREMES]), (500, 3)).astype(dtype)
    y = np.eye(3, dtype=dtype)[rng.integers(3, size=500)]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        turned = LOSSES[loss].forms[output].error_derivative(z, y, rng.normal(size=z.shape).astype(dtype))
    assert turned.dtype == dtype
    assert np.isfinite(turned).all()


def test_cross_entropies_keep_their_digits_where_an_answer_is_all_but_certain():
    binary = LOSSES["binary_cross_entropy"].forms["sigmoid"]
    z = np.array([[-50.0], [50.0]])
    np.testing.assert_allclose(binary.error_derivative(z, np.ones((2, 1)), np.ones((2, 1))), np.exp(-50.0), rtol=1e-12)
    # two classes 50 apart: d^2C/dz^2 = a (1 - a) [[1, -1], [-1, 1]]
    for loss in ("categorical_cross_entropy", "binary_cross_entropy"):
        form = LOSSES[loss].forms["softmax"]
        turned = form.error_derivative(np.array([[50.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
        scale = 1 if loss == "categorical_cross_entropy" else 2  # both outputs are judged
        np.testing.assert_allclose(turned, scale * np.exp(-50.0) * np.array([[1.0, -1.0]]), rtol=1e-12)


# networks


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_value_and_gradient_are_the_trainers(decay):
    goal, rng = objective("silu", (3, 5, 4, 2), "categorical_cross_entropy", "softmax", decay)
    theta = rng.normal(size=(6, goal.size))
    parameters = Parameters(goal.network.layers, theta)
    value, slope = goal.value_and_gradient(theta)
    x, y = input_table(goal.inputs, "float64"), target_table(goal.targets, "float64")
    expected = gradient(goal.network, parameters, x, y, 1 / len(x), Workspace(goal.network, "float64")).flat
    np.testing.assert_allclose(slope, expected + decay * theta * parameters.weight_mask, rtol=1e-10, atol=1e-14)
    answers = predict(goal.network, parameters, goal.inputs)
    entropy = -(goal.targets * np.log(answers)).sum(axis=-1).mean(axis=-1)
    norms = sum(np.square(weights).sum(axis=(1, 2)) for weights in parameters.W)
    np.testing.assert_allclose(value, entropy + 0.5 * decay * norms, rtol=1e-12)


@every_activation
@every_form
@pytest.mark.parametrize("hidden", [(4,), (4, 3), (3, 4, 3)], ids=len)
def test_hessian_vector_product_is_the_central_difference_of_the_gradient(phi, loss, output, hidden):
    goal, rng = objective(phi, (3, *hidden, 3), loss, output, decay=0.1, samples=7, seed=5)
    theta, direction = rng.normal(size=(2, 4, goal.size))
    step = 1e-6
    ends = [goal.value_and_gradient(theta + sign * step * direction)[1] for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(goal.hessian_vector_product(theta, direction), difference, rtol=1e-5, atol=1e-7)


def test_hessian_of_linear_regression_is_the_second_moment_of_its_inputs():
    goal, rng = objective("identity", (3, 1), decay=0.5)
    x = np.column_stack([goal.inputs, np.ones(len(goal.inputs))])
    expected = x.T @ x / len(x) + 0.5 * np.diag([1, 1, 1, 0])
    np.testing.assert_allclose(goal.hessian(rng.normal(size=4)), expected, rtol=1e-13)


def test_a_stack_gives_what_its_networks_give_alone():
    goal, rng = objective("gelu", decay=0.1)
    theta, direction = rng.normal(size=(2, 5, goal.size))
    value, slope = goal.value_and_gradient(theta)
    product = goal.hessian_vector_product(theta, direction)
    for row in range(5):
        alone = goal.value_and_gradient(theta[row])
        assert alone[0] == value[row]
        np.testing.assert_array_equal(alone[1], slope[row])
        np.testing.assert_array_equal(goal.hessian_vector_product(theta[row], direction[row]), product[row])


def test_the_hessian_is_symmetric_before_it_is_made_so():
    goal, rng = objective("softplus", (3, 4, 3, 2), "binary_cross_entropy", "sigmoid")
    rows = goal.hessian_vector_product(rng.normal(size=goal.size), np.eye(goal.size))
    np.testing.assert_allclose(rows, rows.T, atol=1e-14)


def test_blocks_of_samples_add_up(monkeypatch):
    goal, rng = objective("sigmoid", decay=0.2)
    theta, direction = rng.normal(size=(2, goal.size))
    whole = *goal.value_and_gradient(theta), goal.hessian_vector_product(theta, direction)
    monkeypatch.setattr(curvature, "BLOCK_NUMBERS", 3 * sum(goal.network.layers))  # blocks of 3, the last of 2
    for part, expected in zip(
        (*goal.value_and_gradient(theta), goal.hessian_vector_product(theta, direction)), whole, strict=True
    ):
        np.testing.assert_allclose(part, expected, rtol=1e-12)


def test_lanczos_finds_the_ends_of_the_dense_spectrum(monkeypatch):
    goal, rng = objective("tanh", (6, 12, 4), "categorical_cross_entropy", "softmax")
    theta = rng.normal(size=goal.size)
    values = np.linalg.eigvalsh(goal.hessian(theta))
    monkeypatch.setattr(curvature, "DENSE_LIMIT", 10)
    low, high = goal.extreme_eigenvalues(theta, 3)
    np.testing.assert_allclose(low, values[:3], atol=1e-10)
    np.testing.assert_allclose(high, values[-3:], atol=1e-10)
    assert goal.sharpness(theta) == pytest.approx(values[-1])
    with pytest.raises(ValueError, match=r"^layers=\(6, 12, 4\): 136 parameters, .* 10$"):
        goal.hessian(theta)


def test_sharpness_is_where_gradient_descent_loses_its_footing():
    # a quadratic: descent shrinks along the sharpest direction below the rate 2 / sharpness and grows above
    goal, rng = objective("identity", (3, 2))
    limit = 2 / goal.sharpness(np.zeros(goal.size))
    for factor, grows in ((0.99, False), (1.01, True)):
        theta = rng.normal(size=goal.size)
        norms = []
        for _ in range(600):
            slope = goal.value_and_gradient(theta)[1]
            norms.append(np.linalg.norm(slope))
            theta = theta - factor * limit * slope
        assert (norms[-1] > norms[300]) == grows


def test_objective_says_where_second_derivatives_hold_almost_everywhere_only():
    exact = {name for name in VARIANTS if name in ACTIVATIONS and objective(name)[0].smooth}
    assert {"identity", "sigmoid", "tanh", "gelu", "silu", "softplus"} <= exact
    assert exact.isdisjoint({"elu", "selu", "softsign", "relu", "leaky_relu"})


def test_an_activation_without_curvature_is_refused_in_one_line():
    phi = tanh()
    flat = Activation("flat", phi.value, phi.slope)
    with pytest.raises(ValueError, match=r"^activation=flat: has no curvature, which second derivatives need$"):
        objective(flat)


def test_arrays_that_do_not_fit_the_network_are_refused_in_one_line():
    network = Network((3, 2), tanh(), "linear", LOSSES["mean_squared_error"])
    with pytest.raises(ValueError, match=r"^layers=\(3, 2\): inputs \(5, 3\), targets \(4, 2\) do not fit$"):
        Objective(network, np.zeros((5, 3)), np.zeros((4, 2)))


# kinks and symmetries


def net(layers, *theta):
    """Flat parameters from one (n_out, n_in + 1) matrix per layer, biases in the last column."""
    parameters = Parameters.empty(layers, 1, "float64")
    for slot, matrix in zip(parameters.theta, theta, strict=True):
        slot[0] = matrix
    return parameters.flat[0]


def test_a_kink_counts_where_the_gradient_jumps_across_it():
    network = Network((1, 2, 1), relu(), "linear", LOSSES["mean_squared_error"])
    goal = Objective(network, np.array([[-1.0], [0.0], [2.0]]), np.array([[5.0], [6.0], [7.0]]))
    assert goal.kinks(net((1, 2, 1), [[1, 0], [1, 3]], [[1, 1, 0]])) == 1  # z = 0 at x = 0 for the first unit
    assert goal.kinks(net((1, 2, 1), [[1, 1], [1, -2]], [[1, 1, 0]])) == 2  # at x = -1 and at x = 2
    assert goal.kinks(net((1, 2, 1), [[1, 0.1], [1, 3]], [[1, 1, 0]])) == 0
    assert goal.kinks(net((1, 2, 1), [[1, 0], [1, 3]], [[0, 1, 0]])) == 0  # nobody listens to the first unit
    assert goal.kinks(net((1, 2, 1), [[1, 0], [0, 1]], [[1, 0, 6]])) == 0  # no error at x = 0
    smooth = Objective(Network((1, 2, 1), elu(), "linear", LOSSES["mean_squared_error"]), goal.inputs, goal.targets)
    assert smooth.kinks(net((1, 2, 1), [[1, 0], [1, 3]], [[1, 1, 0]])) == 0


SYMMETRIES = [  # activation, loss, output, decay, modes on layers (3, 4, 3, 2)
    ("tanh", "mean_squared_error", "linear", 0.0, 0),
    ("relu", "mean_squared_error", "linear", 0.0, 4 + 3),  # one rescaling a unit
    ("leaky_relu", "mean_squared_error", "linear", 0.0, 4 + 3),
    ("elu", "mean_squared_error", "linear", 0.0, 0),
    ("relu", "mean_squared_error", "linear", 0.1, 0),
    ("identity", "mean_squared_error", "linear", 0.0, 39 - 4 * 2),  # of 39 parameters all but the affine map's
    ("identity", "mean_squared_error", "linear", 0.1, 6 + 4 + 3 + 3),  # rotations and shifts
    ("tanh", "categorical_cross_entropy", "softmax", 0.0, 3 + 1),  # a common row of W and b
    ("tanh", "categorical_cross_entropy", "softmax", 0.1, 1),
]


@pytest.mark.parametrize(("phi", "loss", "output", "decay", "modes"), SYMMETRIES)
def test_the_loss_does_not_change_along_its_symmetries(phi, loss, output, decay, modes):
    goal, rng = objective(phi, (3, 4, 3, 2), loss, output, decay, samples=30)
    theta = rng.normal(size=goal.size)
    basis = goal.symmetries(theta)
    assert len(basis) == modes
    np.testing.assert_allclose(basis @ basis.T, np.eye(modes), atol=1e-12)
    np.testing.assert_allclose(basis @ goal.value_and_gradient(theta)[1], 0, atol=1e-12)


def test_whatever_feeds_or_reads_a_dead_unit_is_free():
    goal, rng = objective("relu", (3, 4, 2), samples=30)
    theta = rng.normal(size=goal.size)
    Parameters((3, 4, 2), theta[None]).b[0][0, 1] = -100.0
    basis = goal.symmetries(theta)
    assert len(basis) == 3 + (3 + 1 + 2)  # rescalings of the living, then the dead unit's inputs, bias and outputs
    np.testing.assert_allclose(basis @ goal.value_and_gradient(theta)[1], 0, atol=1e-12)
