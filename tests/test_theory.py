import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from descentlab.analysis.theory import (
    MeanField,
    averages,
    born_dead_probability,
    layer_spreads,
    moments,
    propagate,
    saxe_mode,
    spread,
)
from descentlab.nn.activations import (
    ACTIVATIONS,
    Activation,
    gelu,
    identity,
    leaky_relu,
    relu,
    selu,
    sigmoid,
    softplus,
    softsign,
    tanh,
)
from descentlab.nn.initializers import INITIALIZERS, Initializer, draw, normal, notebook, orthogonal, uniform
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters, input_table
from descentlab.nn.program import backward, forward, gradient

every_activation = pytest.mark.parametrize("phi", [factory() for factory in ACTIVATIONS.values()], ids=ACTIVATIONS)


def made(value, slope):
    """An activation nobody registered, from plain functions of z."""
    return Activation(
        "made",
        lambda z, out: np.copyto(out, value(z)) or out,
        lambda z, a, out: np.copyto(out, slope(z)) or out,
        slope_from_value=False,
    )


ERF = made(erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-z * z))
HARD_TANH = made(lambda z: np.clip(z, -1, 1), lambda z: np.abs(z) < 1)
MAGNITUDE = made(np.abs, np.sign)


def at(phi, z):
    z = np.array([z])
    value = phi.value(z, np.empty(1))
    return value[0], float(phi.slope(z, value, np.empty(1, dtype=bool if phi.slope_is_mask else float))[0])


def average(function, breaks=()):
    """E[function(g)], g ~ N(0, 1), one number at a time: the oracle of the vectorised integrals."""

    def density(g):
        return function(g) * np.exp(-g * g / 2) / np.sqrt(2 * np.pi)

    return quad(density, -12, 12, points=[0, *breaks], limit=400, epsrel=1e-11, epsabs=1e-14)[0]


# --- averages ---


@pytest.mark.parametrize("sw2", [0.3, 1.0, 1.5, 2.0, 3.7])
@pytest.mark.parametrize("q", [1e-30, 0.2, 1.0, 1e30])
def test_chi_of_piecewise_linear_functions_is_the_closed_form_at_any_length(sw2, q):
    assert MeanField(identity(), sw2).chi(q) == sw2
    assert MeanField(relu(), sw2).chi(q) == sw2 / 2
    for a in (0.0, 0.01, 0.2, 0.9):
        assert MeanField(leaky_relu(a), sw2).chi(q) == pytest.approx(sw2 * (1 + a * a) / 2, rel=1e-14)
        assert MeanField(leaky_relu(a), sw2, 0.1).length(q) == pytest.approx(sw2 * (1 + a * a) / 2 * q + 0.1, rel=1e-14)


def test_a_new_function_that_is_linear_on_either_side_of_zero_gets_closed_forms_unasked(monkeypatch):
    monkeypatch.setattr(averages, "_integral", None)
    assert moments(MAGNITUDE, 3.0) == (3.0, 1.0, 1.0)
    assert MeanField(MAGNITUDE, 1.0).correlation(0.0, 1.0) == pytest.approx(2 / np.pi)  # E|g1| E|g2|


@every_activation
@pytest.mark.parametrize("q", [1e-4, 0.3, 1.3, 40.0, 1e5])
def test_averages_agree_with_adaptive_quadrature_one_point_at_a_time(phi, q):
    r = np.sqrt(q)
    breaks = [s * b / r for s in (-1, 1) for b in (0.3, 3, 30) if b / r < 12]
    square, slope, growth = moments(phi, q)
    assert square == pytest.approx(average(lambda g: at(phi, r * g)[0] ** 2, breaks), rel=1e-9)
    assert slope == pytest.approx(average(lambda g: at(phi, r * g)[1] ** 2, breaks), rel=1e-9)
    step = 1e-3 * q
    difference = (moments(phi, q + step).square - moments(phi, q - step).square) / (2 * step)
    assert growth == pytest.approx(difference, rel=2e-5, abs=1e-12 * square / step)


@pytest.mark.parametrize("q", [1e-3, 0.7, 5.0, 1e4, 1e9])
def test_averages_of_erf_and_hard_tanh_are_those_known_exactly(q):
    assert moments(ERF, q).square == pytest.approx(2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)), rel=1e-9)
    assert moments(ERF, q).slope == pytest.approx(4 / np.pi / np.sqrt(1 + 4 * q), rel=1e-9)
    assert moments(HARD_TANH, q).slope == pytest.approx(erf(1 / np.sqrt(2 * q)), rel=1e-9)  # kinks away from 0


def test_quadrature_gets_the_kink_right_where_gauss_hermite_does_not(monkeypatch):
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    assert abs((nodes > 0) @ weights / weights.sum() - 0.5) > 0.05
    phi = relu()
    monkeypatch.setattr(averages, "homogeneous_slopes", lambda activation: None)
    assert moments(phi, 1.7).slope == pytest.approx(0.5, rel=1e-12)
    assert moments(phi, 1.7).square == pytest.approx(0.85, rel=1e-12)


@every_activation
def test_averages_at_zero_are_the_limit_of_short_lengths(phi):
    np.testing.assert_allclose(moments(phi, 0.0), moments(phi, 1e-10), atol=1e-4)


@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.5, 0.99, 0.999999, 1.0])
@pytest.mark.parametrize("q", [0.1, 20.0])
def test_correlation_map_of_erf_is_the_arcsine_kernel(q, c):  # Williams 1997
    field = MeanField(ERF, 1.7, 0.2)
    covariance = 1.7 * 2 / np.pi * np.arcsin(2 * q * c / (1 + 2 * q)) + 0.2
    assert field.correlation(c, q) == pytest.approx(covariance / field.length(q), rel=1e-9)
    slope = 1.7 * 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    assert field.correlation_slope(c, q) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("c", [-0.8, 0.0, 0.7, 0.9999])
def test_closed_form_of_the_correlation_map_is_what_quadrature_finds(c, monkeypatch):
    exact = [(f.correlation(c, 1.3), f.correlation_slope(c, 1.3)) for f in (MeanField(leaky_relu(0.2), 1.5, 0.1),)]
    phi = leaky_relu(0.2)
    monkeypatch.setattr(averages, "homogeneous_slopes", lambda activation: None)
    field = MeanField(phi, 1.5, 0.1)
    np.testing.assert_allclose([(field.correlation(c, 1.3), field.correlation_slope(c, 1.3))], exact, rtol=1e-10)


@every_activation
def test_two_equal_inputs_stay_equal_and_part_at_the_rate_chi(phi):
    field = MeanField(phi, 1.4, 0.3)
    assert field.correlation(1.0, 0.8) == pytest.approx(1.0, rel=1e-10)
    assert field.correlation_slope(1.0, 0.8) == pytest.approx(field.chi(0.8), rel=1e-10)


# --- fixed points, depth scales, critical line ---


def test_sigmoid_loses_a_factor_of_4_88_per_layer_with_unit_normal_biases():
    zero_bias = MeanField(sigmoid(), 1.0).fixed_point()
    assert zero_bias.chi == pytest.approx(0.0557, abs=5e-5)
    unit_bias = MeanField(sigmoid(), 1.0, 1.0).fixed_point()
    assert unit_bias.chi == pytest.approx(0.04196, abs=5e-6)
    assert unit_bias.chi**-0.5 == pytest.approx(4.88, abs=5e-3)


def test_tanh_is_critical_at_the_published_spread():
    assert MeanField(tanh(), 1.761, 0.05).fixed_point().chi == pytest.approx(1.0, abs=5e-5)


def test_the_relu_length_map_is_marginal_at_he_and_has_no_isolated_fixed_point():
    he = MeanField(relu(), 2.0)
    for start in (1e-6, 0.3, 1.0, 1e8):
        settled = he.fixed_point(start)
        assert (settled.q, settled.chi, settled.c) == (start, 1.0, 1.0)
        assert settled.length_depth == settled.correlation_depth == settled.gradient_depth == np.inf
    assert MeanField(relu(), 2.0, 0.1).fixed_point().q == np.inf
    assert MeanField(relu(), 2.5).fixed_point().q == np.inf
    assert MeanField(relu(), 1.0).fixed_point().q == 0.0
    assert MeanField(relu(), 1.0, 0.3).fixed_point().q == pytest.approx(0.6)


def test_rounding_in_a_measured_spread_does_not_tip_the_marginal_case():
    assert MeanField(relu(), np.nextafter(2.0, 3.0)).fixed_point(0.7).q == 0.7
    assert MeanField(relu(), spread(INITIALIZERS["he_uniform"](), 313, 77).sw2).fixed_point(0.7).q == 0.7


def test_the_spread_of_selu_keeps_unit_length():
    settled = MeanField(selu(), 1.0).fixed_point(3.0)
    assert settled.q == pytest.approx(1.0, rel=1e-9)
    assert settled.length_slope == pytest.approx(0.782648, abs=1e-6)  # Klambauer et al. 2017, section 2


@pytest.mark.parametrize("phi", [relu(), softplus()], ids=lambda phi: phi.name)
def test_a_length_that_grows_without_bound_settles_at_infinity_with_the_slope_it_has_there(phi):
    settled = MeanField(phi, 3.0, 0.1).fixed_point()
    assert (settled.q, settled.chi, settled.length_slope) == pytest.approx((np.inf, 1.5, 1.5))
    assert np.isnan(settled.c)
    assert settled.length_depth < 0


def test_gelu_settles_where_its_start_leads():
    field = MeanField(gelu(), 2.05)
    assert field.settled_length(1.0) == 0.0
    assert field.settled_length(10.0) == np.inf


@every_activation
@pytest.mark.parametrize(("sw2", "sb2"), [(0.8, 0.2), (1.6, 0.4)])
def test_the_length_settles_at_the_limit_of_the_length_map(phi, sw2, sb2):
    field = MeanField(phi, sw2, sb2)
    q = 1.0
    for _ in range(80):
        q = field.length(q) if q < 1e9 else np.inf
    assert field.settled_length() == pytest.approx(q, rel=1e-3)


@pytest.mark.parametrize(("sw2", "sb2"), [(1.3, 0.05), (1.761, 0.05), (3.0, 0.05), (4.0, 0.0)])
def test_depth_scales_of_tanh_are_those_of_schoenholz(sw2, sb2):
    settled = MeanField(tanh(), sw2, sb2).fixed_point()
    r = np.sqrt(settled.q)

    def bent(g):  # phi'' phi
        t = np.tanh(r * g)
        return -2 * t * t * (1 - t * t)

    assert settled.length_depth == pytest.approx(-1 / np.log(settled.chi + sw2 * average(bent)), rel=1e-6)
    if settled.chi < 1:
        assert settled.c == 1
        assert settled.correlation_depth == settled.gradient_depth == pytest.approx(-1 / np.log(settled.chi))
    else:
        assert settled.c < 1
        assert settled.gradient_depth < 0


def test_in_the_chaotic_phase_correlations_settle_at_c_over_the_correlation_depth():
    field = MeanField(tanh(), 3.0, 0.05)
    settled = field.fixed_point()
    distances = []
    c = settled.c + 1e-3
    for _ in range(12):
        distances.append(c - settled.c)
        c = field.correlation(c, settled.q)
    rate = (distances[-1] / distances[0]) ** (1 / 11)
    assert -1 / np.log(rate) == pytest.approx(settled.correlation_depth, rel=2e-3)
    assert MeanField(tanh(), 4.0).fixed_point().c == 0.0  # odd, no biases: different inputs become unrelated


def test_correlation_falls_off_one_continuously_behind_the_critical_line():
    c = [MeanField(tanh(), 1.76095 * factor, 0.05).fixed_point().c for factor in (0.999, 1.001, 1.1)]
    assert c == sorted(c, reverse=True)
    assert c[0] == 1.0
    assert 0.995 < c[1] < 1


@pytest.mark.parametrize("key", ["sw2", "sb2"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_spread_that_is_no_variance_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"{key}={value}: must be a finite number at or above 0"):
        MeanField(tanh(), **{"sw2": 1.0, "sb2": 0.0, key: value})


def test_a_start_without_length_is_refused():
    with pytest.raises(ValueError, match="start=0: must be a finite number above 0"):
        MeanField(tanh(), 2.0).fixed_point(0)


# --- spread rules ---


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize(("n_in", "n_out"), [(60, 25), (25, 60)])
def test_the_spread_of_every_rule_is_the_variance_of_its_draws(name, n_in, n_out):
    rule = INITIALIZERS[name]() if name == "notebook" else INITIALIZERS[name](bias_spread=0.7)
    sw2, sb2 = spread(rule, n_in, n_out)
    nets = [draw([rule], (n_in, n_out), seed)[0] for seed in range(200)]
    assert n_in * np.mean([np.square(W).mean() for W, _ in nets]) == pytest.approx(sw2, rel=0.01)  # se .3 %
    assert np.mean([np.square(b).mean() for _, b in nets]) == pytest.approx(sb2, rel=0.08)  # se 2 %


def test_a_rule_of_other_draws_has_its_spread_estimated():
    rule = Initializer("laplace", lambda generator, n_out, n_in: generator.laplace(0.0, 1.0, (n_out, n_in)))
    assert spread(rule, 10, 5)[0] == pytest.approx(20.0, rel=0.01)  # variance 2, ten inputs


def test_spreads_are_exact():
    expected = {"lecun": 1.0, "glorot": 2 * 60 / 85, "he": 2.0}
    for rule, sw2 in expected.items():
        for shape in ("normal", "uniform"):
            assert spread(INITIALIZERS[f"{rule}_{shape}"](0.5), 60, 25) == pytest.approx((sw2, 0.25), rel=1e-14)
    assert spread(normal(0.3), 60, 25).sw2 == pytest.approx(5.4, rel=1e-14)
    assert spread(uniform(0.3), 60, 25).sw2 == pytest.approx(5.4, rel=1e-14)
    assert spread(orthogonal(1.5), 60, 25).sw2 == pytest.approx(2.25, rel=1e-12)
    assert spread(orthogonal(1.5), 25, 60).sw2 == pytest.approx(2.25 * 25 / 60, rel=1e-12)
    assert spread(notebook(), 784, 128) == (784 / 128, 1 / 128)


# --- finite depth ---


def predicted(phi, rule, layers, input_square):
    return propagate(phi, layer_spreads([rule] * (len(layers) - 1), layers), input_square)


def test_glorot_and_bengio_s_tanh_loses_0_577_per_layer():
    layers = [100] * 31
    standard = uniform(spread=1 / np.sqrt(3 * 100))  # U(-1 / sqrt n, 1 / sqrt n)
    assert MeanField(tanh(), spread(standard, 100, 100).sw2).fixed_point().chi ** 0.5 == pytest.approx(0.577, abs=5e-4)
    assert 10 ** -predicted(tanh(), standard, layers, 1.0).decades_lost[-1] == pytest.approx(0.577, abs=5e-4)


def test_thirty_relu_layers_lose_2_to_the_15_under_xavier_and_nothing_under_he():
    layers = [64] * 32
    assert predicted(relu(), INITIALIZERS["glorot_normal"](), layers, 1.0).log10_delta[0] == pytest.approx(
        -15 * np.log10(2)
    )
    assert predicted(relu(), INITIALIZERS["he_normal"](), layers, 1.0).log10_delta[0] == pytest.approx(0.0, abs=1e-12)


def test_shrinking_activations_hide_what_relu_under_glorot_loses():
    layers = [32] * 12
    fall = predicted(relu(), INITIALIZERS["glorot_uniform"](), layers, 1.0)
    assert np.diff(fall.log10_delta[:-1]) == pytest.approx(0.1505, abs=5e-5)  # per layer, in |delta|
    assert np.ptp(fall.log10_gradient(layers)) == pytest.approx(0.0, abs=1e-12)  # in |dC/dW|


def test_zero_weights_lose_everything_without_a_warning():
    assert MeanField(tanh(), 0.0, 0.5).fixed_point().gradient_depth == 0.0
    fall = predicted(tanh(), INITIALIZERS["zeros"](), [5, 5, 5], 1.0)
    assert fall.decades_lost.tolist() == [np.inf]
    assert fall.log10_delta.tolist() == [-np.inf, 0.0]


def test_depth_far_from_the_fixed_point_approaches_it():
    fall = propagate(tanh(), [(1.3, 0.05)] * 40, 25.0)
    settled = MeanField(tanh(), 1.3, 0.05).fixed_point()
    assert fall.length[0] == 1.3 * 25 + 0.05
    assert fall.decades_lost[0] > 4 * fall.decades_lost[-1]
    assert (fall.length[-1], fall.chi[-1]) == pytest.approx((settled.q, settled.chi))


def simulate(phi, rule, layers, nets, samples, input_square=1.0, keep_gradients=False):
    """Squares of |delta[l]| with |delta[L]| = 1 (nets, L, samples), or of one sample's |dC/dW[l]| (nets, L)."""
    generator = np.random.default_rng(0)
    network = Network(tuple(layers), phi, "linear", LOSSES["mean_squared_error"])
    x = generator.standard_normal((samples, layers[0]))
    x *= np.sqrt(input_square * layers[0] / np.square(x).sum(axis=1, keepdims=True))
    inputs, workspace = input_table(x, "float64"), Workspace(network, "float64")
    parameters, trace, slopes = (
        Parameters.empty(layers, 1, "float64"),
        workspace.trace(1, samples, kept=True),
        workspace.gradient(1),
    )
    squares = []
    for seed in range(nets):
        drawn = draw([rule] * (len(layers) - 1), layers, seed)
        for weights, biases, (W, b) in zip(parameters.W, parameters.b, drawn, strict=True):
            weights[0], biases[0] = W, b
        forward(network, parameters, inputs, trace)
        delta = generator.standard_normal((1, samples, layers[-1]))
        delta /= np.sqrt(np.square(delta).sum(axis=-1, keepdims=True))
        backward(network, parameters, inputs, trace, delta, slopes)
        deltas = [*(hidden[..., :-1] for hidden in trace.delta), delta]
        squares.append(
            [np.square(W).sum() for W in slopes.W] if keep_gradients else [np.square(d[0]).sum(-1) for d in deltas]
        )
    return np.array(squares)


def lost_per_layer(squares):
    """Decades lost per hidden layer by the root mean square over nets (nets, L), and its standard error (jackknife)."""
    hops = squares.shape[1] - 2

    def lost(kept):
        return 0.5 * np.log10(kept[:, -2].mean() / kept[:, 0].mean()) / hops

    n = len(squares)
    each = np.array([lost(np.delete(squares, i, axis=0)) for i in range(n)])
    return lost(squares), np.sqrt((n - 1) / n * np.square(each - each.mean()).sum())


WIDTH, DEPTH = 200, 20
TANH_CRITICAL = normal(spread=np.sqrt(1.761 / WIDTH), bias_spread=np.sqrt(0.05))
TANH_CHAOTIC = normal(spread=np.sqrt(3.0 / WIDTH), bias_spread=np.sqrt(0.05))
WIDE = {
    "identity lecun": (identity(), INITIALIZERS["lecun_normal"](), 1.0),
    "sigmoid lecun": (sigmoid(), INITIALIZERS["lecun_normal"](), 1.0),
    "sigmoid unit biases": (sigmoid(), INITIALIZERS["lecun_normal"](bias_spread=1.0), 1.0),
    "tanh glorot uniform, long input": (tanh(), INITIALIZERS["glorot_uniform"](), 25.0),
    "tanh critical": (tanh(), TANH_CRITICAL, 1.0),
    "tanh chaotic": (tanh(), TANH_CHAOTIC, 0.1),
    "relu he": (relu(), INITIALIZERS["he_normal"](), 1.0),
    "relu glorot": (relu(), INITIALIZERS["glorot_normal"](), 1.0),
    "leaky he": (leaky_relu(0.2), INITIALIZERS["he_normal"](), 1.0),
    "softsign lecun": (softsign(), INITIALIZERS["lecun_normal"](), 4.0),
    "selu lecun": (selu(), INITIALIZERS["lecun_normal"](), 1.0),
}


@pytest.mark.parametrize("case", WIDE)
def test_wide_nets_lose_what_finite_depth_theory_says(case):
    phi, rule, input_square = WIDE[case]
    layers = [WIDTH] * (DEPTH + 2)
    squares = simulate(phi, rule, layers, nets=40, samples=4, input_square=input_square)
    theory_profile = predicted(phi, rule, layers, input_square).log10_delta
    expected = (theory_profile[-2] - theory_profile[0]) / (DEPTH - 1)
    measured, error = lost_per_layer(squares.mean(axis=-1))
    assert error < 0.001  # decade per layer
    assert abs(measured - expected) < 0.0015
    profile = 0.5 * np.log10(squares.mean(axis=(0, 2)))  # layer by layer, finite depth included
    np.testing.assert_allclose(profile, theory_profile, atol=0.03)


def test_unequal_widths_need_no_correction():
    layers, phi, rule = [20, 60, 15, 90, 30, 10], leaky_relu(0.3), INITIALIZERS["glorot_uniform"]()
    expected = predicted(phi, rule, layers, 2.0)
    deltas = simulate(phi, rule, layers, nets=1000, samples=1, input_square=2.0)[..., 0]
    gradients = simulate(phi, rule, layers, nets=1000, samples=1, input_square=2.0, keep_gradients=True)
    for squares, log10 in ((deltas, expected.log10_delta), (gradients, expected.log10_gradient(layers))):
        error = squares.std(axis=0) / np.sqrt(len(squares))  # a few percent of the mean
        np.testing.assert_array_less(np.abs(squares.mean(axis=0) - 100**log10), 3 * error + 1e-12)


def test_the_mean_of_the_logarithm_falls_faster_by_the_stated_amount():
    layers = [32] * 12  # ten hidden layers, nine steps between them
    extra = 5 / (4 * 32 * np.log(10))  # k = 2

    def lost(nets, samples):
        squares = simulate(relu(), INITIALIZERS["glorot_uniform"](), layers, nets, samples)
        log10 = np.log10(np.sqrt(squares).mean(axis=-1)).mean(axis=0)
        return (log10[-2] - log10[0]) / 9

    assert lost(800, 1) == pytest.approx(0.1505 + extra, abs=0.003)  # se .0011
    many = lost(300, 20)
    assert many == pytest.approx(0.16, abs=0.005)
    assert 0.1505 < many < 0.1505 + extra


# --- dead at birth, linear nets ---


def test_born_dead_probability_of_small_nets_by_hand():
    assert born_dead_probability([1]) == 0.5
    assert born_dead_probability([2, 2]) == pytest.approx(1 - 9 / 16)
    assert born_dead_probability([]) == 0.0
    assert born_dead_probability([40] * 3) == pytest.approx(3 * 2.0**-40, rel=1e-10)


def test_born_dead_probability_is_the_share_of_nets_that_answer_with_zero():
    layers, nets = (3, 2, 3, 2, 1), 3000
    network = Network(layers, relu(), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters.empty(layers, nets, "float64")
    rule = INITIALIZERS["he_uniform"]()
    for seed in range(nets):
        for weights, biases, (W, b) in zip(parameters.W, parameters.b, draw([rule] * 4, layers, seed), strict=True):
            weights[seed], biases[seed] = W, b
    inputs = input_table(np.array([[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]]), "float64")
    dead = forward(network, parameters, inputs, Workspace(network, "float64").trace(nets, 2))[..., 0] == 0  # (R, 2)
    expected = born_dead_probability(layers[1:-1])
    error = np.sqrt(expected * (1 - expected) / nets)  # .009
    assert np.abs(dead.mean(axis=0) - expected).max() < 3 * error
    assert dead.all(axis=1).mean() < expected - 10 * error  # on the whole interval between the two: rarer


def test_saxe_s_solution_is_what_gradient_descent_on_a_linear_net_does():
    strengths, start, rate, n = np.array([3.0, 1.5, 0.5]), 0.02, 0.003, 3
    x = np.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)])  # whitened, mean 0
    inputs, targets = input_table(x, "float64"), np.asfortranarray(x * strengths)
    network = Network((n, n, n), identity(), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters.empty(network.layers, 1, "float64")
    parameters.flat[...] = 0
    for W in parameters.W:
        W[0] = np.sqrt(start) * np.eye(n)
    workspace, steps = Workspace(network, "float64"), np.arange(1, 2001)
    modes = []
    for _ in steps:
        parameters.flat -= rate * gradient(network, parameters, inputs, targets, 1 / len(x), workspace).flat
        modes.append(np.diag(parameters.W[1][0] @ parameters.W[0][0]).copy())
    expected = saxe_mode(steps[:, None], strengths, start, time_constant=n / rate)
    assert expected[-1, 0] > 0.99 * strengths[0]
    assert expected[-1, 2] < 0.5 * strengths[2]
    np.testing.assert_allclose(modes, expected, atol=0.01)


def test_saxe_s_solution_runs_from_its_start_to_its_strength():
    assert saxe_mode(0.0, 2.0, 0.1, 5.0) == pytest.approx(0.1)
    assert saxe_mode(1e9, 2.0, 0.1, 5.0) == 2.0
    half = 5.0 / (2 * 2.0) * np.log(2.0 / 0.1 - 1)
    assert saxe_mode(half, 2.0, 0.1, 5.0) == pytest.approx(1.0)
    s, u0, t, T = 2.0, 0.1, 1.7, 5.0
    growth = np.exp(2 * s * t / T)
    assert saxe_mode(t, s, u0, T) == pytest.approx(s * growth / (growth - 1 + s / u0))
