import math

import numpy as np
import pytest
from scipy.integrate import quad

from descentlab.nn.activations import ACTIVATIONS, elu, leaky_relu
from descentlab.nn.outputs import OUTPUTS, numerics, softmax

DTYPES = ("float64", "float32")
VARIANTS = {
    **{name: factory() for name, factory in ACTIVATIONS.items()},
    "leaky_relu(0.2)": leaky_relu(0.2),
    "leaky_relu(0)": leaky_relu(0.0),
    "elu(0.5)": elu(0.5),
    "elu(3)": elu(3.0),
}
EXTREMES = [0.0, 1e-30, 1e-3, 0.5, 1.0, 17.0, 40.0, 88.0, 89.0, 104.0, 700.0, 709.0, 710.0, 746.0, 3e3, 1e4]

every_activation = pytest.mark.parametrize("phi", VARIANTS.values(), ids=VARIANTS.keys())
every_output = pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def value(phi, z):
    return phi.value(z, np.empty_like(z))


def slope(phi, z):
    a = value(phi, z)
    garbage = np.full_like(z, np.nan) if phi.slope_from_value else z
    return phi.slope(garbage, a, np.empty_like(z, dtype=bool if phi.slope_is_mask else z.dtype))


def extremes(dtype):
    return np.array([-z for z in EXTREMES] + EXTREMES, dtype=dtype)


def test_an_activation_bears_the_name_it_is_registered_under():
    assert all(factory().name == name for name, factory in ACTIVATIONS.items())
    assert all(output.name == name for name, output in OUTPUTS.items())


def test_every_activation_the_harness_promises_is_registered():
    promised = "identity sigmoid tanh relu leaky_relu elu selu gelu silu softplus softsign"
    assert set(promised.split()) <= set(ACTIVATIONS)


@every_activation
def test_slope_is_the_central_difference_of_value(phi):
    z = np.random.default_rng(1).uniform(-8, 8, 2000)
    z = z[np.abs(z) > 1e-3]  # the rectifiers have their kink at 0
    step = 1e-5
    difference = (value(phi, z + step) - value(phi, z - step)) / (2 * step)
    np.testing.assert_allclose(slope(phi, z).astype(float), difference, rtol=1e-7, atol=1e-9)


@every_activation
def test_slope_at_zero_is_the_limit_from_the_left(phi):
    # one rule for all kinks at 0: ReLU 0, leaky ReLU its negative slope, ELU alpha; nothing to choose where smooth
    step = 1e-7
    for zero in (0.0, -0.0):
        z = np.array([zero])
        from_the_left = (value(phi, z) - value(phi, z - step)) / step
        np.testing.assert_allclose(slope(phi, z).astype(float), from_the_left, atol=1e-6)


def test_slope_at_the_kink_in_numbers():
    at_zero = {name: float(slope(phi, np.zeros(1))[0]) for name, phi in VARIANTS.items()}
    assert at_zero["relu"] == 0
    assert at_zero["leaky_relu"] == 0.01
    assert at_zero["leaky_relu(0.2)"] == 0.2
    assert at_zero["elu(0.5)"] == 0.5
    assert at_zero["selu"] == pytest.approx(1.0507009873554805 * 1.6732632423543772)


@every_dtype
@every_activation
def test_value_and_slope_are_finite_and_raise_nothing_up_to_ten_thousand(phi, dtype):
    z = extremes(dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a, s = value(phi, z), slope(phi, z)
    assert a.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(s).all()


@every_dtype
@every_activation
def test_value_in_place_has_the_bits_of_value_out_of_place(phi, dtype):
    z = np.concatenate([extremes(dtype), np.random.default_rng(2).normal(0, 3, 1000).astype(dtype)])
    kept, apart = z.copy(), value(phi, z)
    np.testing.assert_array_equal(z, kept)  # out of place leaves z alone
    assert phi.value(z, z) is z
    np.testing.assert_array_equal(z, apart)


@every_dtype
@every_activation
def test_value_and_slope_fill_and_return_the_buffer_they_are_given(phi, dtype):
    z = np.random.default_rng(3).normal(0, 2, (3, 4, 5)).astype(dtype)
    out = np.full_like(z, 7)
    assert phi.value(z, out) is out
    buffer = np.empty(z.shape, dtype=bool if phi.slope_is_mask else dtype)
    assert phi.slope(z, out, buffer) is buffer


@every_dtype
@every_activation
def test_slope_leaves_its_arguments_alone(phi, dtype):
    z = np.random.default_rng(4).normal(0, 2, 100).astype(dtype)
    a = value(phi, z)
    kept_z, kept_a = z.copy(), a.copy()
    phi.slope(z, a, np.empty(z.shape, dtype=bool if phi.slope_is_mask else dtype))
    np.testing.assert_array_equal(z, kept_z)
    np.testing.assert_array_equal(a, kept_a)


@every_activation
def test_single_precision_agrees_with_double(phi):
    z = np.random.default_rng(5).normal(0, 4, 1000).astype("float32")
    np.testing.assert_allclose(value(phi, z), value(phi, z.astype("float64")), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(
        slope(phi, z).astype(float), slope(phi, z.astype("float64")).astype(float), rtol=2e-6, atol=2e-6
    )


@every_activation
def test_small_values_in_single_precision_keep_their_relative_precision(phi):
    z = np.random.default_rng(5).uniform(-80, 80, 2000).astype("float32")
    exact = value(phi, z.astype("float64"))
    held = np.abs(exact) > 1e-37  # below, single precision has fewer digits
    np.testing.assert_allclose(value(phi, z)[held], exact[held], rtol=2e-5)


def test_the_tails_from_the_definitions():
    z = np.array([-37.0, -20.0, -8.0, -3.0, -0.5, 0.5, 3.0, 8.0])
    gelu = [0.5 * x * math.erfc(-x / math.sqrt(2)) for x in z]  # erfc keeps the digits that 1 + erf loses
    np.testing.assert_allclose(value(VARIANTS["gelu"], z), gelu, rtol=1e-12)
    sigmoid = [1 / (1 + math.exp(-x)) for x in z]
    np.testing.assert_allclose(value(VARIANTS["sigmoid"], z), sigmoid, rtol=1e-14)
    single = value(VARIANTS["sigmoid"], np.array([-17.0, -60.0], "float32"))
    np.testing.assert_allclose(single, [1 / (1 + math.exp(17)), 1 / (1 + math.exp(60))], rtol=1e-5)


@every_dtype
@every_activation
def test_what_the_training_loop_calls_has_the_bits_of_value(phi, dtype):
    z = np.concatenate([extremes(dtype), np.random.default_rng(2).normal(0, 3, 1000).astype(dtype)])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(phi.in_loop(z, np.empty_like(z)), value(phi, z))


def test_numerics_tell_cells_whose_bits_have_changed():
    def version(activation, output, dtype):
        return numerics(ACTIVATIONS[activation](), OUTPUTS[output], dtype)

    assert version("relu", "softmax", "float32") == version("sigmoid", "sigmoid", "float64") == 1
    assert version("sigmoid", "softmax", "float32") == version("relu", "sigmoid", "float32") == 2
    assert version("silu", "softmax", "float32") == version("gelu", "linear", "float64") == 2
    assert version("sigmoid", "sigmoid", "float32") == 3  # any further change of either gives another number


def test_values_from_the_definitions():
    def at(name, z):
        return value(VARIANTS[name], np.array([float(z)]))[0]

    assert at("identity", -3) == -3
    assert at("sigmoid", np.log(3)) == pytest.approx(0.75)  # 1 / (1 + 1/3)
    assert at("tanh", np.log(2)) == pytest.approx(0.6)  # (2 - 1/2) / (2 + 1/2)
    assert (at("relu", -2), at("relu", 2)) == (0, 2)
    assert (at("leaky_relu", -2), at("leaky_relu", 2)) == (-0.02, 2)
    assert at("elu", -np.log(2)) == pytest.approx(-0.5)
    assert at("elu(3)", -np.log(2)) == pytest.approx(-1.5)
    assert at("gelu", 1) == pytest.approx(0.841344746068543, abs=1e-15)  # Phi(1); the tanh form gives .84119
    assert at("silu", np.log(3)) == pytest.approx(0.75 * np.log(3))
    assert at("softplus", 0) == pytest.approx(np.log(2))
    assert at("softplus", np.log(3)) == pytest.approx(np.log(4))
    assert (at("softsign", 3), at("softsign", -1)) == (0.75, -0.5)


def test_selu_keeps_mean_zero_and_variance_one():
    # what its two constants are chosen for (Klambauer et al. 2017, section 2)
    def moment(power):
        def weighed(g):
            return value(VARIANTS["selu"], np.array([g]))[0] ** power * np.exp(-g * g / 2) / np.sqrt(2 * np.pi)

        return quad(weighed, -12, 0)[0] + quad(weighed, 0, 12)[0]

    assert moment(1) == pytest.approx(0, abs=1e-10)
    assert moment(2) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "key", "bad"),
    [("leaky_relu", "negative_slope", bad) for bad in (-0.1, 1.0, np.nan, np.inf)]
    + [("elu", "alpha", bad) for bad in (0.0, -1.0, np.nan, np.inf)],
)
def test_an_option_out_of_range_is_refused_in_one_line(name, key, bad):
    with pytest.raises(ValueError, match=rf"^activation\.{key}={bad}: must be .*$") as refusal:
        ACTIVATIONS[name](**{key: bad})
    assert "\n" not in str(refusal.value)


@every_output
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_pullback_is_the_jacobian_transposed(output, outputs):
    rng = np.random.default_rng(6)
    z, g = rng.normal(0, 2, (2, 7, outputs))
    step = 1e-5
    expected = np.empty_like(z)
    for k in range(outputs):
        shift = step * np.eye(outputs)[k]
        expected[:, k] = (g * (output.value(z + shift) - output.value(z - shift))).sum(axis=-1) / (2 * step)
    np.testing.assert_allclose(output.pullback(output.value(z), g), expected, rtol=1e-7, atol=1e-9)


@every_dtype
@every_output
def test_outputs_are_finite_and_raise_nothing_up_to_ten_thousand(output, dtype):
    z = extremes(dtype).reshape(-1, 2)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a = output.value(z)
        back = output.pullback(a, np.ones_like(a))
    assert a.dtype == back.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(back).all()


@every_dtype
def test_softmax_is_a_distribution_that_ignores_a_common_shift(dtype):
    z = np.random.default_rng(7).normal(0, 3, (50, 4)).astype(dtype)
    a = softmax(z)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(a.sum(axis=-1), 1, rtol=4 * eps)
    np.testing.assert_allclose(softmax(z + 1024), a, rtol=3000 * eps)
    np.testing.assert_allclose(softmax(np.log(np.array([[1, 2, 5]], dtype))), [[0.125, 0.25, 0.625]], rtol=4 * eps)
