import numpy as np
import pytest

from descentlab.analysis.students import Students


def drawn(students, teachers, restarts=3, seed=0):
    return Students(students, teachers), np.random.default_rng(seed).normal(size=(2, restarts, students * teachers))


def test_the_loss_is_half_the_expected_squared_difference_of_the_answers():
    loss, (theta, _) = drawn(3, 4, restarts=1)
    x = np.random.default_rng(1).normal(size=(400_000, 4))
    difference = np.maximum(x @ theta.reshape(3, 4).T, 0).sum(axis=1) - np.maximum(x, 0).sum(axis=1)
    sampled = 0.5 * np.square(difference)
    value = loss.value_and_gradient(theta[0])[0]
    assert value == pytest.approx(sampled.mean(), abs=4 * sampled.std() / np.sqrt(len(x)))


@pytest.mark.parametrize(("students", "teachers"), [(6, 6), (5, 4), (3, 7)])
def test_gradient_and_product_are_derivatives_of_the_loss(students, teachers):
    loss, (theta, d) = drawn(students, teachers)
    step = 1e-5
    (ahead, slope_ahead), (behind, slope_behind) = (loss.value_and_gradient(theta + s * step * d) for s in (1, -1))
    _, gradient = loss.value_and_gradient(theta)
    np.testing.assert_allclose((gradient * d).sum(axis=1), (ahead - behind) / (2 * step), rtol=1e-7)
    product = loss.hessian_vector_product(theta, d)
    np.testing.assert_allclose(product, (slope_ahead - slope_behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_students_in_a_stack_are_those_alone_to_the_bit():
    loss, (theta, d) = drawn(7, 7, restarts=5)
    values, gradients = loss.value_and_gradient(theta)
    for row in range(5):
        value, gradient = loss.value_and_gradient(theta[row])
        assert value == values[row]
        np.testing.assert_array_equal(gradient, gradients[row])
    np.testing.assert_allclose(loss.hessian(theta[0]) @ d[0], loss.hessian_vector_product(theta, d)[0], rtol=1e-12)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
def test_students_who_are_the_teachers_in_any_order_have_no_loss_and_the_known_curvature(order):
    loss = Students(5, 5)
    theta = np.eye(5)[order].ravel()
    value, gradient = loss.value_and_gradient(theta)
    assert abs(value) < 1e-14
    assert np.abs(gradient).max() < 1e-15
    assert np.linalg.eigvalsh(loss.hessian(theta))[0] == pytest.approx(0.25 - 0.5 / np.pi)


def test_an_extra_student_who_shares_a_teacher_costs_nothing():
    loss = Students(4, 3)
    theta = np.concatenate([np.diag([0.3, 1.0, 1.0]), [[0.7, 0, 0]]]).ravel()
    assert abs(loss.value_and_gradient(theta)[0]) < 1e-15
    assert np.abs(np.linalg.eigvalsh(loss.hessian(theta))[:3]).max() < 1e-8  # the share, and two bends of third order
