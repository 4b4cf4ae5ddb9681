"""Certificates of functions whose answer is known: attained or not, strict or flat, at every scale."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from descentlab import train
from descentlab.analysis.curvature import Objective
from descentlab.analysis.minima import Certificate, certify

SCALES = list(itertools.product((1e-6, 1.0, 1e6), (1e-3, 1.0, 1e3)))  # of the loss, of the parameters
ATTAINED = {"strict minimum", "flat minimum"}


@dataclass(frozen=True)
class Case:
    """A function with its gradient and Hessian, and where the polish starts."""

    value: object
    gradient: object
    hessian: object
    start: tuple

    def certify(self, loss: float = 1.0, length: float = 1.0, **settings) -> Certificate:
        """The certificate of loss * f(theta / length) from length * start."""

        def value_and_gradient(theta):
            x = theta / length
            return loss * float(self.value(x)), loss / length * np.asarray(self.gradient(x), dtype=float)

        def product(theta, v):
            return loss / length**2 * np.asarray(self.hessian(theta / length), dtype=float) @ v

        return certify(value_and_gradient, product, length * np.array(self.start, dtype=float), **settings)


def decay(height, start, shift=0.0):
    """exp(-(x + shift)) + (y - height)^2 / 2: the infimum is not attained."""
    return Case(
        lambda p: np.exp(-p[0] - shift) + 0.5 * (p[1] - height) ** 2,
        lambda p: [-np.exp(-p[0] - shift), p[1] - height],
        lambda p: np.diag([np.exp(-p[0] - shift), 1.0]),
        start,
    )


def power(order, factor, start):
    """factor * (x - 1)^order: a minimum of that order at 1."""
    return Case(
        lambda p: factor * (p[0] - 1) ** order,
        lambda p: factor * order * (p - 1) ** (order - 1),
        lambda p: [[factor * order * (order - 1) * (p[0] - 1) ** (order - 2)]],
        (start,),
    )


def weak(e):
    """x^2 / 2 + e (y - 1)^2 / 2: a minimum at (0, 1) however small e > 0."""
    return Case(
        lambda p: 0.5 * p[0] ** 2 + 0.5 * e * (p[1] - 1) ** 2,
        lambda p: [p[0], e * (p[1] - 1)],
        lambda p: np.diag([1.0, e]),
        (0.1, 0.0),
    )


def least_squares(spread, seed=0, samples=100):
    """Half the mean squared residual on columns x and x + spread * noise, after 2000 steps of descent at .3."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(samples)
    columns = np.stack([x, x + spread * rng.standard_normal(samples)], axis=1)
    y = x + 0.1 * rng.standard_normal(samples)
    hessian = columns.T @ columns / samples
    theta = np.zeros(2)
    for _ in range(2000):
        theta = theta - 0.3 * columns.T @ (columns @ theta - y) / samples
    case = Case(
        lambda p: 0.5 * np.mean((columns @ p - y) ** 2),
        lambda p: columns.T @ (columns @ p - y) / samples,
        lambda p: hessian,
        tuple(theta),
    )
    return case, np.linalg.lstsq(columns, y, rcond=None)[0]


HINGE = Case(  # max(x, 0)^2 + y^2: every x <= 0 with y = 0 is optimal
    lambda p: max(p[0], 0.0) ** 2 + p[1] ** 2,
    lambda p: [2 * max(p[0], 0.0), 2 * p[1]],
    lambda p: np.diag([2.0 * (p[0] > 0), 2.0]),
    (0.3, 0.5),
)
TWO_SLOPES = Case(  # x^2 on one side, 9 x^2 on the other: strict, with two Hessians
    lambda p: p[0] ** 2 * (9.0 if p[0] > 0 else 1.0) + p[1] ** 2,
    lambda p: [2 * p[0] * (9.0 if p[0] > 0 else 1.0), 2 * p[1]],
    lambda p: np.diag([18.0 if p[0] > 0 else 2.0, 2.0]),
    (0.3, 0.5),
)
INFLECTION = Case(  # x |x| + y^2: a minimum from the right, downhill to the left
    lambda p: p[0] * abs(p[0]) + p[1] ** 2,
    lambda p: [2 * abs(p[0]), 2 * p[1]],
    lambda p: np.diag([2.0 * np.sign(p[0]), 2.0]),
    (0.3, 0.5),
)


def rotated(case, angle=0.5):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return Case(
        lambda p: case.value(turn @ p),
        lambda p: turn.T @ np.asarray(case.gradient(turn @ p), dtype=float),
        lambda p: turn.T @ np.asarray(case.hessian(turn @ p), dtype=float) @ turn,
        tuple(turn.T @ np.array(case.start)),
    )


@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_least_squares_problem_attains_its_minimum_however_alike_its_columns(spread, seed):
    case, best = least_squares(spread, seed)
    found = case.certify()
    assert found.polished in ATTAINED
    np.testing.assert_allclose(found.point, best, rtol=1e-2)


@pytest.mark.parametrize("e", [3e-5, 3e-6, 3e-7, 3e-8, 1e-8, 1e-9, 1e-10, 1e-11])
@pytest.mark.parametrize(("loss", "length"), SCALES)
def test_a_quadratic_attains_its_minimum_however_weak_its_weakest_mode(e, loss, length):
    found = weak(e).certify(loss, length)
    assert found.polished == ("strict minimum" if e > 1e-6 else "flat minimum")
    np.testing.assert_allclose(found.point / length, [0, 1], atol=2e-2)
    assert (found.zero_modes, found.negative_modes) == (int(e <= 1e-6), 0)


@pytest.mark.parametrize(
    "case",
    [
        decay(100, (0, 0)),
        decay(100, (5, 99)),
        decay(100, (30, 100)),
        decay(1000, (2, 900)),
        decay(0, (-30, 1), shift=30),
        rotated(decay(100, (0, 0))),
        rotated(decay(0, (-3, 1), shift=5)),
    ],
)
@pytest.mark.parametrize(("loss", "length"), SCALES)
def test_an_infimum_is_at_infinity_wherever_the_other_weights_stand(case, loss, length):
    assert case.certify(loss, length).polished == "at infinity"


@pytest.mark.parametrize("order", [4, 6, 8])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("start", [0.2, 3.0])
def test_a_minimum_of_higher_order_is_flat_and_attained(order, factor, start):
    found = power(order, factor, start).certify()
    assert found.polished == "flat minimum"
    assert found.zero_modes == 1


@pytest.mark.parametrize(("loss", "length"), SCALES)
def test_a_fourth_order_minimum_is_flat_at_every_scale(loss, length):
    found = power(4, 1e-3, 0.2).certify(loss, length)
    assert (found.polished, found.zero_modes) == ("flat minimum", 1)
    assert found.lower_nearby == 0


@pytest.mark.parametrize(("loss", "length"), SCALES)
@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_a_flat_side_makes_a_minimum_flat_and_its_hessian_one_sided(turn, loss, length):
    found = rotated(HINGE, turn).certify(loss, length)
    assert (found.polished, found.one_sided) == ("flat minimum", True)
    assert "one-sided" in found.summary


@pytest.mark.parametrize(("loss", "length"), SCALES)
def test_a_hessian_that_jumps_is_named_although_both_sides_are_strict(loss, length):
    found = rotated(TWO_SLOPES).certify(loss, length)
    assert (found.polished, found.one_sided) == ("strict minimum", True)


@pytest.mark.parametrize(("loss", "length"), SCALES)
def test_a_descent_on_the_other_side_is_no_minimum(loss, length):
    assert rotated(INFLECTION).certify(loss, length).polished not in ATTAINED


@pytest.mark.parametrize("start", [0.5, 1.0])
def test_a_steep_start_does_not_loosen_what_counts_as_a_minimum(start):
    steep = Case(
        lambda p: np.cosh(20 * p[0]), lambda p: 20 * np.sinh(20 * p), lambda p: [[400 * np.cosh(20 * p[0])]], (start,)
    )
    found = steep.certify()
    assert found.polished == "strict minimum"
    assert abs(found.point[0]) < 1e-9


@pytest.mark.parametrize("degree", [4, 8, 10])
@pytest.mark.parametrize("loss", [1e-6, 1.0, 1e6])
def test_a_polynomial_fit_attains_its_minimum_although_each_power_is_weaker_than_the_last(degree, loss):
    x = np.linspace(0, 1, 60)
    columns, y = np.vander(x, degree + 1), np.sin(9 * x)
    hessian = columns.T @ columns / len(x)
    case = Case(
        lambda p: 0.5 * np.mean((columns @ p - y) ** 2),
        lambda p: columns.T @ (columns @ p - y) / len(x),
        lambda p: hessian,
        tuple(np.zeros(degree + 1)),
    )
    assert case.certify(loss).polished in ATTAINED


@pytest.mark.parametrize("weak_modes", [(1e-8, 1e-10), (1e-8, 1e-11), (1e-7, 1e-9, 1e-11), (1e-8, 1e-10, 1e-12)])
def test_weak_modes_one_after_the_other_are_no_way_to_infinity(weak_modes):
    h = np.array([1.0, *weak_modes])
    target = np.arange(1.0, len(h) + 1)
    case = Case(
        lambda p: 0.5 * (h * (p - target) ** 2).sum(),
        lambda p: h * (p - target),
        lambda p: np.diag(h),
        tuple(np.zeros(len(h))),
    )
    assert case.certify().polished == "flat minimum"


def beside_a_bowl(c, order):
    """1 + x^2 / 2 - c y^order, from y = 0."""
    return Case(
        lambda p: 1 + 0.5 * p[0] ** 2 - c * p[1] ** order,
        lambda p: [p[0], -c * order * p[1] ** (order - 1)],
        lambda p: np.diag([1.0, -c * order * (order - 1) * p[1] ** (order - 2)]),
        (1.0, 0.0),
    )


@pytest.mark.parametrize(("loss", "length"), SCALES)
@pytest.mark.parametrize(("order", "seen", "unseen"), [(2, 4e-12, 1e-13), (4, 1e-6, 1e-9), (6, 1.0, 1e-3)])
def test_descents_are_seen_down_to_what_the_docstring_says(order, seen, unseen, loss, length):
    assert beside_a_bowl(seen, order).certify(loss, length).polished == "saddle"
    assert beside_a_bowl(unseen, order).certify(loss, length).polished == "flat minimum"


def test_a_saddle_that_descends_along_no_straight_line_is_not_seen():
    peano = Case(
        lambda p: (p[1] - p[0] ** 2) * (p[1] - 2 * p[0] ** 2),
        lambda p: [-6 * p[0] * p[1] + 8 * p[0] ** 3, 2 * p[1] - 3 * p[0] ** 2],
        lambda p: [[-6 * p[1] + 24 * p[0] ** 2, -6 * p[0]], [-6 * p[0], 2.0]],
        (0.0, 0.0),
    )
    assert peano.certify().polished == "flat minimum"  # as the docstring says


def test_linear_layers_of_zeros_are_a_saddle_although_their_product_is_of_fourth_order():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    training = train(
        inputs, targets, hidden=(3, 1, 3), activation="identity", loss="mean_squared_error", output="linear",
        initializer="zeros", learning_rate=0.1, descent="batch", epochs=500, log_every=500,
    )  # fmt: skip
    found = Objective(training.recipe.network, inputs, targets).certificate(training.final.flat[0])
    assert (found.outcome, found.negative_modes) == ("saddle", 0)
