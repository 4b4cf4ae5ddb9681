"""Certificates of functions whose answer is known."""

import numpy as np
import pytest

from descentlab.analysis.minima import certify


def quadratic(eigenvalues):
    matrix = np.diag(np.asarray(eigenvalues, dtype=float))
    return lambda x: (0.5 * x @ matrix @ x, matrix @ x), lambda x, v: matrix @ v


def certificate(value_and_gradient, product, start, **more):
    return certify(value_and_gradient, product, np.asarray(start, dtype=float), **more)


def test_a_bowl_ends_in_a_strict_minimum():
    found = certificate(*quadratic([1.0, 4.0, 9.0]), [1e-3, -1e-3, 1e-3])
    assert found.polished == "strict minimum"
    assert found.gradient_norm < 1e-10
    assert (found.smallest, found.largest) == (pytest.approx(1.0), pytest.approx(9.0))
    assert np.abs(found.point).max() < 1e-9


def test_a_valley_is_a_flat_minimum_with_its_zero_mode_counted():
    found = certificate(*quadratic([2.0, 0.0]), [1e-3, 0.5])
    assert found.polished == "flat minimum"
    assert (found.zero_modes, found.negative_modes) == (1, 0)


def test_a_point_on_the_ridge_of_a_saddle_is_a_saddle():
    found = certificate(*quadratic([2.0, -1.0]), [1e-4, 0.0])
    assert found.polished == "saddle"
    assert found.negative_modes == 1


def test_a_monkey_saddle_is_no_minimum_though_its_hessian_vanishes():
    found = certificate(
        lambda p: (p[0] ** 3 - 3 * p[0] * p[1] ** 2, np.array([3 * p[0] ** 2 - 3 * p[1] ** 2, -6 * p[0] * p[1]])),
        lambda p, v: np.array([6 * p[0] * v[0] - 6 * p[1] * v[1], -6 * p[1] * v[0] - 6 * p[0] * v[1]]),
        [0.0, 0.0],
    )
    assert found.polished == "saddle"


def test_an_exponential_attains_no_minimum():
    found = certificate(lambda x: (np.exp(-x[0]), -np.exp(-x)), lambda x, v: np.exp(-x) * v, [3.0])
    assert found.polished == "at infinity"
    assert found.growth > 0.05


def test_the_kink_of_an_absolute_value_is_non_smooth():
    found = certificate(lambda x: (abs(x[0]), np.sign(x)), lambda x, v: 0.0 * v, [0.3])
    assert found.polished == "non-smooth"


def test_a_start_on_another_level_was_unfinished_whatever_the_polished_point_is():
    found = certificate(*quadratic([1.0, 1.0]), [3.0, 4.0])
    assert (found.outcome, found.polished) == ("unfinished", "strict minimum")
    assert found.drop == pytest.approx(12.5)
    assert found.distance == pytest.approx(5.0)
