from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess_prod

from descentlab import train
from descentlab.analysis import minima, spectrum
from descentlab.analysis.curvature import Objective
from descentlab.analysis.minima import certify
from descentlab.analysis.students import Students
from descentlab.nn.initializers import normal, uniform


@dataclass(frozen=True)
class Function:
    value: object
    gradient: object
    product: object

    def certify(self, start, **settings):
        def value_and_gradient(x):
            return self.value(x), np.asarray(self.gradient(x), dtype=float)

        def product(x, v):
            return np.asarray(self.product(x, v), dtype=float)

        return certify(value_and_gradient, product, np.array(start, dtype=float), **settings)


def quadratic(*eigenvalues):
    h = np.array(eigenvalues, dtype=float)
    return Function(lambda x: 0.5 * x @ (h * x), lambda x: h * x, lambda x, v: h * v)


# x^2 + (y^2 - 1)^2: minima at y = +-1, a saddle of value 1 at the origin, which descent along y = 0 runs into
WELLS = Function(
    lambda p: p[0] ** 2 + (p[1] ** 2 - 1) ** 2,
    lambda p: [2 * p[0], 4 * p[1] * (p[1] ** 2 - 1)],
    lambda p, v: [2 * v[0], (12 * p[1] ** 2 - 4) * v[1]],
)
MONKEY = Function(
    lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2,
    lambda p: [3 * p[0] ** 2 - 3 * p[1] ** 2, -6 * p[0] * p[1]],
    lambda p, v: [6 * p[0] * v[0] - 6 * p[1] * v[1], -6 * p[1] * v[0] - 6 * p[0] * v[1]],
)
CUBIC = Function(  # no negative eigenvalue at the origin, and no minimum either
    lambda p: 1 + p[0] ** 2 + p[1] ** 3, lambda p: [2 * p[0], 3 * p[1] ** 2], lambda p, v: [2 * v[0], 6 * p[1] * v[1]]
)
QUARTIC = Function(
    lambda p: 1 + p[0] ** 2 + p[1] ** 4,
    lambda p: [2 * p[0], 4 * p[1] ** 3],
    lambda p, v: [2 * v[0], 12 * p[1] ** 2 * v[1]],
)
SLIDE = Function(lambda p: np.exp(-p[0]), lambda p: -np.exp(-p), lambda p, v: np.exp(-p) * v)
SLIDE_IN_VALLEY = Function(
    lambda p: np.exp(-p[0]) + p[1] ** 2,
    lambda p: [-np.exp(-p[0]), 2 * p[1]],
    lambda p, v: [np.exp(-p[0]) * v[0], 2 * v[1]],
)
HYPERBOLA = Function(lambda p: 1 / p[0], lambda p: -1 / p**2, lambda p, v: 2 / p**3 * v)
PLATEAU = Function(  # -1 / (1 + x^2): far out, the gradient vanishes faster still further out, uphill
    lambda p: -1 / (1 + p[0] ** 2),
    lambda p: 2 * p / (1 + p**2) ** 2,
    lambda p, v: (2 / (1 + p**2) ** 2 - 8 * p**2 / (1 + p**2) ** 3) * v,
)
EDGE = Function(lambda p: abs(p[0]), np.sign, lambda p, v: 0 * v)
TROUGH = Function(lambda p: abs(p[0]) + p[1] ** 2, lambda p: [np.sign(p[0]), 2 * p[1]], lambda p, v: [0, 2 * v[1]])
ROSENBROCK = Function(rosen, rosen_der, rosen_hess_prod)
LOGARITHM = Function(  # 1 / log x: falls without end, slower than any power
    lambda p: 1 / np.log(p[0]),
    lambda p: -1 / (p * np.log(p) ** 2),
    lambda p, v: (np.log(p) + 2) / (p**2 * np.log(p) ** 3) * v,
)
LATE = Function(  # exp(-x) + 1e-9 x: looks endless, and is attained at x = 20.7
    lambda p: np.exp(-p[0]) + 1e-9 * p[0], lambda p: -np.exp(-p) + 1e-9, lambda p, v: np.exp(-p) * v
)


def circle():
    """(r - 1)^2: a valley all round."""

    def product(p, v):
        r = np.hypot(*p)
        return 2 * (p @ v) * p / r**2 + 2 * (r - 1) * (v / r - p * (p @ v) / r**3)

    return Function(lambda p: (np.hypot(*p) - 1) ** 2, lambda p: 2 * (np.hypot(*p) - 1) * p / np.hypot(*p), product)


def median(*numbers):
    a = np.array(numbers, dtype=float)
    return Function(lambda p: np.abs(p - a).sum(), lambda p: [np.sign(p - a).sum()], lambda p, v: 0 * v)


def test_a_quadratic_bowl_is_a_strict_minimum():
    found = quadratic(1, 4, 100).certify([1e-3, 2e-3, 3e-3])
    assert found.outcome == found.polished == "strict minimum"
    assert (found.smallest, found.largest) == pytest.approx((1, 100))
    assert (found.negative_modes, found.zero_modes, found.counted) == (0, 0, True)
    assert found.gradient_norm < 1e-10
    assert found.gradient_start == pytest.approx(np.linalg.norm([1e-3, 8e-3, 0.3]))
    assert found.distance == pytest.approx(np.sqrt(14) * 1e-3)
    assert found.drop == found.loss_start - found.loss == pytest.approx(0.5 * (1 + 16 + 900) * 1e-6)
    assert found.lower_nearby == 0


def test_an_eigenvalue_is_a_zero_mode_below_a_millionth_of_the_largest():
    assert quadratic(1, 1.1e-6).certify([1e-3, 1e-3]).outcome == "strict minimum"
    flat = quadratic(1, 0.9e-6).certify([1e-3, 1e-3])
    assert (flat.outcome, flat.zero_modes) == ("flat minimum", 1)
    assert quadratic(1, -1.1e-6).certify([1e-3, 0]).outcome == "saddle"


def test_a_saddle_that_descent_runs_into_is_certified_as_one():
    found = WELLS.certify([0.05, 0])
    assert (found.outcome, found.negative_modes, found.zero_modes) == ("saddle", 1, 0)
    assert (found.smallest, found.largest) == pytest.approx((-4, 2))
    assert found.loss == pytest.approx(1)


def test_where_the_polish_finds_a_way_down_training_is_unfinished_and_both_are_said():
    found = WELLS.certify([0.05, 1e-3])
    assert (found.outcome, found.polished) == ("unfinished", "strict minimum")
    assert found.drop == pytest.approx(1.0025, abs=1e-4)
    assert found.summary.startswith("unfinished: the loss fell from 1.0025, and the polish ended on: strict minimum")


def test_a_change_of_level_is_what_the_caller_says():
    start = [0.15, 1.0]  # the loss falls by .0225
    assert WELLS.certify(start).outcome == "unfinished"
    assert WELLS.certify(start, level_tolerance=0.03).outcome == "strict minimum"


@pytest.mark.parametrize("start", [[0, 0], [1e-6, 0]])
def test_a_monkey_saddle_is_a_saddle(start):
    assert MONKEY.certify(start).outcome == "saddle"


@pytest.mark.parametrize("start", [[0, 0], [1e-4, 0], [1e-4, 1e-5], [0, 3e-6]])
def test_a_descent_of_third_order_is_a_saddle_although_no_eigenvalue_is_negative(start):
    found = CUBIC.certify(start)
    assert (found.outcome, found.negative_modes) == ("saddle", 0)


def test_a_minimum_of_fourth_order_is_flat():
    found = QUARTIC.certify([0.01, 0.05])
    assert (found.outcome, found.zero_modes) == ("flat minimum", 1)


def test_a_maximum_is_a_saddle_with_every_mode_negative():
    found = quadratic(-1, -2).certify([0, 0])
    assert (found.outcome, found.negative_modes) == ("saddle", 2)


def test_a_valley_is_flat_and_its_symmetry_explains_the_zero_mode():
    found = circle().certify([0.62, 0.79], symmetry_modes=1)
    assert (found.outcome, found.zero_modes, found.symmetry_modes) == ("flat minimum", 1, 1)
    assert "1 zero modes, 1 by symmetry" in found.summary
    counted = circle().certify([0.62, 0.79], symmetry_modes=lambda p: int(np.hypot(*p) > 0.9))
    assert counted.symmetry_modes == 1


def test_a_plain_is_flat_in_every_direction():
    found = Function(lambda p: 1.0, lambda p: 0 * p, lambda p, v: 0 * v).certify([3, 4])
    assert (found.outcome, found.zero_modes, found.distance) == ("flat minimum", 2, 0)
    assert np.isnan(found.flatness)


@pytest.mark.parametrize("start", [5, 12, 17, 18.5, 22, 25, 40, 60])
def test_an_infimum_that_is_not_attained_is_at_infinity(start):
    found = SLIDE.certify([start])
    assert found.outcome == "at infinity"
    if start < 18:  # the gradient falls by 1e-8 of that at the start, and then by another hundredth
        assert found.growth == pytest.approx(np.log(100) / (start - np.log(1e-8)), abs=0.04)


def test_infinity_is_seen_along_a_valley_and_along_a_slow_slope():
    assert SLIDE_IN_VALLEY.certify([6, 0.01]).outcome == "at infinity"
    assert HYPERBOLA.certify([200.0]).outcome == "at infinity"


def test_a_gradient_that_vanishes_uphill_is_no_infimum():
    found = PLATEAU.certify([1000])
    assert (found.outcome, found.polished) == ("unfinished", "strict minimum")
    assert found.loss == pytest.approx(-1)


@pytest.mark.parametrize("start", [0.0, 1e-9, 0.004, -0.009])
def test_the_edge_of_the_absolute_value_is_non_smooth(start):
    found = EDGE.certify([start])
    assert found.outcome == "non-smooth"
    assert abs(found.point[0]) < 1e-12


def test_the_polish_follows_a_trough_down_to_its_lowest_point():
    found = TROUGH.certify([0.3, 0.7])
    assert found.polished == "non-smooth"
    assert found.loss < 1e-8
    assert median(0, 1, 2.5, 7, 8).certify([3.1]).loss == pytest.approx(2.5 + 1.5 + 0 + 4.5 + 5.5)


def test_the_callers_kink_test_is_believed_where_the_gradient_vanishes():
    found = quadratic(1, 2).certify([1e-3, 0], kinks=lambda p: 2 * int(abs(p[0]) < 1e-6))
    assert (found.outcome, found.kinks) == ("non-smooth", 2)
    assert quadratic(1, 2).certify([1e-3, 0], kinks=lambda p: 0).outcome == "strict minimum"


def test_perturbations_tell_a_kink_that_is_a_minimum_from_one_that_is_not():
    assert EDGE.certify([0]).lower_nearby == 0
    ledge = Function(lambda p: min(0.0, p[0]), lambda p: [float(p[0] < 0)], lambda p, v: 0 * v)
    found = ledge.certify([0])
    assert found.outcome == "non-smooth"
    assert found.lower_nearby == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(("loss", "length"), [(1e-6, 1), (1e6, 1), (1, 1e-3), (1, 1e3), (1e6, 1e-3), (1e-6, 1e3)])
@pytest.mark.parametrize(
    ("function", "start", "outcome"),
    [
        (WELLS, [0.05, 0], "saddle"),
        (WELLS, [0.05, 1e-3], "strict minimum"),
        (MONKEY, [1e-6, 0], "saddle"),
        (CUBIC, [1e-4, 1e-5], "saddle"),
        (QUARTIC, [0.01, 0.05], "flat minimum"),
        (SLIDE, [5], "at infinity"),
        (SLIDE_IN_VALLEY, [6, 0.01], "at infinity"),
        (HYPERBOLA, [200], "at infinity"),
        (LOGARITHM, [5], "at infinity"),
        (LATE, [1], "strict minimum"),
        (PLATEAU, [1000], "strict minimum"),
        (EDGE, [0.004], "non-smooth"),
        (TROUGH, [0.3, 0.7], "non-smooth"),
        (ROSENBROCK, [-1.2, 1], "strict minimum"),
        (quadratic(1, 1.1e-6), [1e-3, 1e-3], "strict minimum"),
        (quadratic(1, 0.9e-6), [1e-3, 1e-3], "flat minimum"),
    ],
)
def test_no_outcome_depends_on_the_unit_of_the_loss_or_of_the_parameters(function, start, outcome, loss, length):
    scaled = Function(
        lambda x: loss * function.value(x / length),
        lambda x: loss / length * np.asarray(function.gradient(x / length), dtype=float),
        lambda x, v: loss / length**2 * np.asarray(function.product(x / length, v), dtype=float),
    )
    found = scaled.certify(length * np.array(start, dtype=float), level_tolerance=0.01 * loss)
    assert found.polished == outcome
    assert found.outcome == function.certify(start, level_tolerance=0.01).outcome


def test_rosenbrocks_valley_is_followed_to_its_end():
    found = ROSENBROCK.certify([-1.2, 1])
    assert (found.outcome, found.polished) == ("unfinished", "strict minimum")
    np.testing.assert_allclose(found.point, 1, atol=1e-8)
    # in four dimensions there is a second minimum
    second = ROSENBROCK.certify([-0.7756, 0.613, 0.382, 0.146])
    assert second.outcome == "strict minimum"
    assert second.loss == pytest.approx(3.7014, abs=1e-4)


def test_a_slope_without_end_is_unfinished():
    found = Function(lambda p: p[0], lambda p: np.ones(1), lambda p, v: 0 * v).certify([0])
    assert found.polished == "unfinished"


def test_the_polish_does_not_leave_a_small_basin():
    # sin(10 x) on a slope of 2: basins .6 wide, each next one lower by more than 1
    ripple = Function(
        lambda p: 2 * p[0] + np.sin(10 * p[0]),
        lambda p: 2 + 10 * np.cos(10 * p),
        lambda p, v: -100 * np.sin(10 * p) * v,
    )
    bottom = -np.arccos(-0.2) / 10
    for offset in (-0.05, -1e-3, 1e-8, 1e-3, 0.05):
        found = ripple.certify([bottom + offset], level_tolerance=0.5)
        assert found.outcome == "strict minimum"
        assert found.point[0] == pytest.approx(bottom)


def test_flatness_is_the_length_of_a_newton_step_along_an_eigenvector():
    found = quadratic(4, 9).certify([0.01, 0])
    assert found.flatness_start == pytest.approx(0.25)
    assert quadratic(1e-5, 9).certify([0.01, 0]).flatness_start == pytest.approx(1e5)  # a gradient-flat place


def test_a_certificate_repeats_to_the_bit():
    first, second = (ROSENBROCK.certify([-1.2, 1, 1.3]) for _ in range(2))
    np.testing.assert_array_equal(first.point, second.point)
    assert first.summary == second.summary
    assert first.lower_nearby == second.lower_nearby


def test_a_function_that_takes_stacks_has_the_certificate_of_one_that_does_not():
    h = np.array([4.0, 1.0, 0.0])

    def value_and_gradient(x):
        return 0.5 * (h * x * x).sum(axis=-1) + (x**4).sum(axis=-1), h * x + 4 * x**3

    def product(x, v):
        return h * v + 12 * x * x * v

    lone, stacked = (
        certify(value_and_gradient, product, np.array([0.1, 0.2, 0.3]), stacked=stacked) for stacked in (False, True)
    )
    assert lone.summary == stacked.summary
    assert (lone.polished, lone.lower_nearby) == (stacked.polished, stacked.lower_nearby) == ("flat minimum", 0.0)


def test_certificates_from_processes_are_those_of_this_one_in_the_same_order():
    ends = [np.array([1e-3, 0.0, 2e-3]), np.array([0.0, 0.0, 0.0]), np.array([0.1, 1e-4, 0.0])]
    one_by_one = [certify(rosen_pair, rosen_hess_prod, 1 + end) for end in ends]
    together = minima.certificates(partial(certify, rosen_pair, rosen_hess_prod), 1 + np.array(ends), processes=2)
    assert [found.summary for found in together] == [found.summary for found in one_by_one]


def rosen_pair(x):
    return rosen(x), rosen_der(x)


def test_a_hessian_at_hand_saves_its_products():
    asked = []

    def product(x, v):
        asked.append(1)
        return v

    certify(lambda x: (0.5 * x @ x, x), product, np.full(20, 1e-3), hessian=lambda x: np.eye(20))
    assert len(asked) < 10


@pytest.mark.parametrize("start", [[np.nan], [np.inf]])
def test_a_start_that_is_not_finite_is_refused_in_one_line(start):
    with pytest.raises(ValueError, match=r"^start: loss and gradient must be finite$"):
        EDGE.certify(start)


@pytest.mark.parametrize(
    ("lowest", "outcome", "summary"),
    [
        (0.5, "strict minimum", "strict minimum (eigenvalues 0.5 to 3)"),
        (0.0, "flat minimum", "flat minimum (at least 1 zero modes, 0 by symmetry)"),
        (-0.5, "saddle", "saddle (at least 1 negative, at least 0 zero modes)"),
    ],
)
def test_above_the_dense_limit_lanczos_and_lsmr_find_the_same(monkeypatch, lowest, outcome, summary):
    monkeypatch.setattr(spectrum, "DENSE_LIMIT", 10)
    eigenvalues = np.array([lowest, *np.linspace(1, 3, 79)])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(80, 80)))[0]
    hessian = turn * eigenvalues @ turn.T
    start = 1e-3 * turn[:, 1:].sum(axis=1)
    found = certify(lambda x: (0.5 * x @ hessian @ x, hessian @ x), lambda x, v: hessian @ v, start)
    assert found.outcome == outcome
    assert not found.counted
    assert found.summary.startswith(summary)


# networks on XOR

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
Y = np.array([[0], [1], [1], [0]], dtype=float)


def xor(restarts, epochs, decay=0.0, **settings):
    training = train(
        X,
        Y,
        hidden=(2,),
        descent="batch",
        restarts=restarts,
        epochs=epochs,
        log_every=epochs,
        diagnostics="none",
        weight_decay=decay,
        **settings,
    )
    solved = (np.abs(training.predict(X) - Y) < 0.4).all(axis=(1, 2))
    goal = Objective(training.recipe.network, X, Y, decay)
    return training, solved, [goal.certificate(theta) for theta in training.final.flat]


def test_growing_weights_alone_tell_sigmoid_xor_from_minima():
    # Hamey 1998; Sprinkhuizen-Kuyper & Boers 1999: the stuck ends are no minima
    _, solved, found = xor(
        16,
        20_000,
        activation="sigmoid",
        loss="mean_squared_error",
        output="sigmoid",
        initializer=uniform(3**-0.5, 3**-0.5),
        learning_rate=4.0,
    )
    assert solved.any()
    assert not solved.all()
    assert all(1e-6 < certificate.gradient_start < 1e-2 for certificate in found)
    assert all(certificate.gradient_norm < 1e-8 for certificate in found)
    assert {certificate.polished for certificate in found} == {"at infinity"}
    assert all(certificate.growth > 0.05 for certificate in found)
    levels = np.array([certificate.loss for certificate in found])
    assert (levels[solved] < 1e-6).all()
    assert all(min(abs(level - stuck) for stuck in (0.0625, 1 / 12, 0.125)) < 1e-5 for level in levels[~solved])


def test_weight_decay_gives_xor_minima_that_are_attained():
    _, _, found = xor(
        8,
        5000,
        decay=1e-3,
        activation="tanh",
        loss="binary_cross_entropy",
        output="sigmoid",
        initializer=normal(1.0),
        learning_rate=0.5,
    )
    assert {certificate.outcome for certificate in found} <= {"strict minimum", "saddle"}
    assert "strict minimum" in {certificate.outcome for certificate in found}


def test_relu_ends_are_flat_or_stand_on_a_kink():
    _, solved, found = xor(
        24,
        5000,
        activation="relu",
        loss="mean_squared_error",
        output="linear",
        initializer=normal(1.0),
        learning_rate=0.6,
    )
    for certificate, good in zip(found, solved, strict=True):
        if good:  # rescaling either unit changes nothing; three more directions keep all four answers
            assert certificate.outcome == "flat minimum"
            assert (certificate.zero_modes, certificate.symmetry_modes) == (5, 2)
    stuck = [certificate for certificate, good in zip(found, solved, strict=True) if not good]
    kinked = [certificate for certificate in stuck if certificate.outcome == "non-smooth"]
    assert kinked
    assert all(certificate.kinks for certificate in kinked)
    dead = [certificate for certificate in stuck if certificate.symmetry_modes > 2]
    assert any(certificate.outcome == "flat minimum" and certificate.lower_nearby == 0 for certificate in dead)


@pytest.mark.parametrize(("decay", "outcome"), [(0.0, "at infinity"), (0.1, "strict minimum")])
def test_cross_entropy_on_separable_data_attains_no_minimum_without_decay(decay, outcome):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20, 2))
    targets = (inputs.sum(axis=1, keepdims=True) > 0).astype(float)
    inputs += 0.3 * (2 * targets - 1)
    training = train(
        inputs, targets, hidden=(), descent="batch", epochs=2000, learning_rate=1.0, weight_decay=decay, log_every=2000
    )
    goal = Objective(training.recipe.network, inputs, targets, decay)
    assert goal.certificate(training.final.flat[0], level_tolerance=0.05).outcome == outcome


# the student-teacher loss, which is no network


def taught(k, seed, steps=1500):
    """The loss of k students and where descent from N(0, 1/k) ends."""
    loss = Students(k, k)
    theta = np.random.default_rng(seed).normal(size=k**2) / np.sqrt(k)
    for _ in range(steps):
        theta = theta - 0.1 * loss.value_and_gradient(theta)[1]
    return loss, theta


def test_students_that_have_learnt_their_teachers_are_a_strict_minimum():
    loss, end = taught(6, 0)
    found = certify(loss.value_and_gradient, loss.hessian_vector_product, end)
    assert found.outcome == "strict minimum"
    assert abs(found.loss) < 1e-13
    assert found.smallest == pytest.approx(0.25 - 0.5 / np.pi)  # the closed form at the global minimum


def test_a_spurious_minimum_of_the_students_is_certified():
    loss, end = taught(7, 5)
    found = certify(loss.value_and_gradient, loss.hessian_vector_product, end)
    assert found.outcome == "strict minimum"
    assert found.loss == pytest.approx(0.0232027, abs=1e-7)
    assert found.smallest > 0.01
    assert found.lower_nearby == 0
