import math

import numpy as np
import pytest

from descentlab.nn.updates import UPDATES, adam, momentum, nesterov

STEPS, RATE = 50, 0.03
every_update = pytest.mark.parametrize("name", UPDATES)
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def walk(update, theta, slope, rate, steps):
    """Apply a rule as the trainer does: one that takes scaled gradients gets rate * gradient and the rate 1."""
    theta = theta.copy()
    state = update.init(theta)
    for step in range(1, steps + 1):
        gradient = slope(theta, step)
        if update.takes_scaled:
            update.apply(theta, gradient * rate, state, 1.0, step)
        else:
            update.apply(theta, gradient, state, rate, step)
    return theta


def slope_of(theta, step):
    """A gradient that depends on where one is and on the step, as a mini-batch's does."""
    return np.sin(3 * theta) + 0.5 * theta + 0.3 * theta.dtype.type(math.cos(step))


# The papers' formulas for one number, written once more in plain Python.


def plain_gradient_descent(theta, slope):
    for step in range(1, STEPS + 1):
        theta = theta - RATE * slope(theta, step)
    return theta


def plain_momentum(theta, slope, mu=0.9):
    # Polyak 1964: theta_{t+1} = theta_t - rate g_t + mu (theta_t - theta_{t-1})
    before = theta
    for step in range(1, STEPS + 1):
        theta, before = theta - RATE * slope(theta, step) + mu * (theta - before), theta
    return theta


def plain_nesterov(theta, slope, mu=0.9):
    # Sutskever et al. 2013, equations 3 and 4: v_{t+1} = mu v_t - rate g(x_t + mu v_t), x_{t+1} = x_t + v_{t+1};
    # the parameters that are kept are the ones where the gradient is taken, theta_t = x_t + mu v_t
    x, v = theta, 0.0
    for step in range(1, STEPS + 1):
        v = mu * v - RATE * slope(x + mu * v, step)
        x = x + v
    return x + mu * v


def plain_adam(theta, slope, beta1=0.9, beta2=0.999, epsilon=1e-8):
    # Kingma & Ba 2015, algorithm 1
    m = v = 0.0
    for step in range(1, STEPS + 1):
        g = slope(theta, step)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        theta = theta - RATE * (m / (1 - beta1**step)) / (math.sqrt(v / (1 - beta2**step)) + epsilon)
    return theta


PLAIN = {
    "gradient_descent": ({}, plain_gradient_descent),
    "momentum": ({}, plain_momentum),
    "momentum(0.5)": ({"momentum": 0.5}, lambda theta, slope: plain_momentum(theta, slope, 0.5)),
    "momentum(0)": ({"momentum": 0.0}, plain_gradient_descent),
    "nesterov": ({}, plain_nesterov),
    "nesterov(0.5)": ({"momentum": 0.5}, lambda theta, slope: plain_nesterov(theta, slope, 0.5)),
    "nesterov(0)": ({"momentum": 0.0}, plain_gradient_descent),
    "adam": ({}, plain_adam),
    "adam(.5, .9, .1)": (
        {"beta1": 0.5, "beta2": 0.9, "epsilon": 0.1},
        lambda theta, slope: plain_adam(theta, slope, 0.5, 0.9, 0.1),
    ),
    "adam(0, 0, .1)": (
        {"beta1": 0.0, "beta2": 0.0, "epsilon": 0.1},
        lambda theta, slope: plain_adam(theta, slope, 0.0, 0.0, 0.1),
    ),
}


def plain_slope(theta, step):
    return math.sin(3 * theta) + 0.5 * theta + 0.3 * math.cos(step)


def test_every_update_the_harness_promises_is_registered_under_its_name():
    assert set(UPDATES) >= {"gradient_descent", "momentum", "nesterov", "adam"}
    assert all(factory().name == name for name, factory in UPDATES.items())


@every_dtype
@pytest.mark.parametrize("case", PLAIN)
def test_a_rule_follows_its_papers_formula_for_fifty_steps(case, dtype):
    numbers, plain = PLAIN[case]
    start = np.random.default_rng(1).normal(0, 1, (3, 4)).astype(dtype)
    moved = walk(UPDATES[case.partition("(")[0]](**numbers), start, slope_of, RATE, STEPS)
    expected = [[plain(float(theta), plain_slope) for theta in row] for row in start]
    assert moved.dtype == dtype
    np.testing.assert_allclose(
        moved, expected, rtol=1e-10 if dtype == "float64" else 2e-4, atol=1e-5 * (dtype != "float64")
    )


@every_dtype
@every_update
def test_every_rule_minimises_a_quadratic(name, dtype):
    # 1/2 (theta - target)' diag(1, 10) (theta - target)
    curvature, target = np.array([1.0, 10.0], dtype), np.array([0.5, -2.0], dtype)
    start = np.array([[3.0, 3.0], [-1.0, 0.0]], dtype)
    end = walk(UPDATES[name](), start, lambda theta, step: curvature * (theta - target), 0.02, 1500)
    np.testing.assert_allclose(end, np.tile(target, (2, 1)), atol=1e-3)


@every_update
def test_the_first_step_goes_against_the_gradient(name):
    gradient = np.array([[1.0, -2.0, 0.0]])
    moved = walk(UPDATES[name](), np.zeros((1, 3)), lambda theta, step: gradient.copy(), 0.1, 1)
    np.testing.assert_array_equal(np.sign(moved), -np.sign(gradient))


@every_update
def test_a_rate_of_zero_moves_nothing(name):
    start = np.random.default_rng(2).normal(0, 1, (2, 3))
    np.testing.assert_array_equal(walk(UPDATES[name](), start, slope_of, 0.0, 5), start)


@every_dtype
@every_update
def test_each_restart_moves_as_it_would_alone_at_its_own_rate(name, dtype):
    start = np.random.default_rng(3).normal(0, 1, (4, 37)).astype(dtype)
    rates = np.array([[0.001], [0.01], [0.1], [0.03]], dtype)
    together = walk(UPDATES[name](), start, slope_of, rates, 10)
    for row in range(4):
        alone = walk(UPDATES[name](), start[row : row + 1], slope_of, rates[row : row + 1], 10)
        np.testing.assert_array_equal(together[row], alone[0])


@every_update
def test_the_state_starts_at_zero_with_one_row_per_restart(name):
    theta = np.ones((3, 5), "float32")
    for values in UPDATES[name]().init(theta).values():
        assert (values.shape, values.dtype) == (theta.shape, theta.dtype)
        assert not values.any()


def test_a_rate_that_decays_acts_on_new_gradients_only():
    # the rate stands inside the velocity: after one step of gradient 1 at rate 1, rate 0 coasts by momentum^t
    for rule, coasted in ((momentum(0.5), 1 + 0.5 + 0.25), (nesterov(0.5), 1.5 + 0.25 + 0.125)):
        theta = np.zeros((1, 1))
        state = rule.init(theta)
        for step, rate in enumerate((1.0, 0.0, 0.0), start=1):
            rule.apply(theta, np.ones((1, 1)) * rate, state, 1.0, step)
        assert theta == -coasted


def test_adams_first_step_is_the_rate_whatever_the_gradients_size():
    # epsilon = 1e-8 stands beside |g| / sqrt(1 - beta2) before bias correction, and beside |g| after: the latter holds
    for size in (1e-3, 1.0, 1e3):
        moved = walk(adam(), np.zeros((1, 1)), lambda theta, step, g=size: np.full((1, 1), g), 0.1, 1)
        assert moved.item() == pytest.approx(-0.1 * size / (size + 1e-8), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "key", "bad"),
    [(name, "momentum", bad) for name in ("momentum", "nesterov") for bad in (-0.1, 1.0, np.nan, np.inf)]
    + [("adam", key, bad) for key in ("beta1", "beta2") for bad in (-0.1, 1.0, np.nan)]
    + [("adam", "epsilon", bad) for bad in (0.0, -1e-8, np.nan, np.inf)],
)
def test_a_number_out_of_range_is_refused_in_one_line(name, key, bad):
    with pytest.raises(ValueError, match=rf"^update\.{key}={bad}: must be .*$") as refusal:
        UPDATES[name](**{key: bad})
    assert "\n" not in str(refusal.value)
