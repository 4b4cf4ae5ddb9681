import numpy as np
import pytest

from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import (
    BIAS_STREAM,
    INITIALIZERS,
    ORDER_STREAM,
    STATISTICS_STREAM,
    WEIGHT_STREAM,
    default_initializer,
    draw,
    stream,
)

LAYERS = (60, 40, 80)
SPREADS = {  # what the sources say, for n_in and n_out
    "lecun": lambda n_in, n_out: n_in**-0.5,
    "glorot": lambda n_in, n_out: (2 / (n_in + n_out)) ** 0.5,
    "he": lambda n_in, n_out: (2 / n_in) ** 0.5,
}
SCALED = [f"{rule}_{shape}" for rule in SPREADS for shape in ("normal", "uniform")]
STREAMED = [name for name in INITIALIZERS if name != "notebook"]


def network(name, layers=LAYERS, seed=0, **numbers):
    return draw([INITIALIZERS[name](**numbers)] * (len(layers) - 1), layers, seed)


def test_every_initializer_the_harness_promises_is_registered_under_its_name():
    assert set(INITIALIZERS) >= {*SCALED, "notebook", "normal", "uniform", "orthogonal", "zeros"}
    assert all(factory().name == name for name, factory in INITIALIZERS.items())


def test_the_notebook_draw_prints_the_notebooks_digits():
    (W1, b1), (W2, _), (W3, b3) = network("notebook", (10, 5, 5, 3), seed=42)
    np.testing.assert_allclose(W1[0, :3], [0.22213732, -0.06183368, 0.28965512], atol=5e-9)
    np.testing.assert_allclose(b1, [0.14493476, -0.17221403, -0.30272872, 0.27354995, 0.461077], atol=5e-9)
    np.testing.assert_allclose(W2[0], [0.41648113, -0.37530949, -0.13828398, 0.14814551, 0.43627704], atol=5e-9)
    assert (W3.shape, b3.shape) == ((3, 5), (3,))


def test_the_second_notebook_draw_follows_the_first_in_the_stream():
    layers = (10, 5, 5, 3)
    sizes = [(5, 10), (5,), (5, 5), (5,), (3, 5), (3,)]
    numbers = np.random.RandomState(42).randn(2 * sum(int(np.prod(size)) for size in sizes))
    drawn = [network("notebook", layers, seed=42, draw=k) for k in (1, 2)]
    flat = [x.ravel() * np.sqrt(len(x)) for one in drawn for pair in one for x in pair]
    np.testing.assert_allclose(np.concatenate(flat), numbers, rtol=1e-14)


@pytest.mark.parametrize("name", SCALED)
def test_weights_have_the_spread_of_their_rule(name):
    rule, shape = name.split("_")
    for W, b in network(name, (200, 300, 100)):
        spread = SPREADS[rule](W.shape[1], W.shape[0])
        n = W.size
        assert abs(W.mean()) < 4 * spread / np.sqrt(n)
        assert W.std() == pytest.approx(spread, rel=4 / np.sqrt(2 * n))  # at most the normal's standard error
        if shape == "uniform":
            limit = np.sqrt(3) * spread
            assert 0.999 * limit < np.abs(W).max() <= limit
        else:
            assert np.abs(W).max() > 3.5 * spread
            assert np.mean(np.abs(W) < spread) == pytest.approx(0.6827, abs=4 * np.sqrt(0.25 / n))
        assert not b.any()


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_a_given_spread_is_the_standard_deviation_whatever_the_layer(name):
    for W, _ in network(name, (200, 300, 100), spread=0.7):
        assert W.std() == pytest.approx(0.7, rel=4 / np.sqrt(2 * W.size))
    if name == "uniform":
        assert np.abs(W).max() <= 0.7 * np.sqrt(3)


@pytest.mark.parametrize("name", STREAMED)
def test_biases_have_the_spread_they_are_given(name):
    for _, b in network(name, (2, 4000, 2), bias_spread=0.3)[:1]:
        assert b.std() == pytest.approx(0.3, rel=4 / np.sqrt(2 * b.size))
        assert abs(b.mean()) < 4 * 0.3 / np.sqrt(b.size)


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 12), (12, 7), (9, 9), (1, 4), (4, 1)])
def test_orthogonal_has_orthonormal_rows_or_columns_times_its_gain(n_in, n_out):
    ((W, _),) = network("orthogonal", (n_in, n_out), gain=1.5)
    gram = W @ W.T if n_out <= n_in else W.T @ W
    np.testing.assert_allclose(gram, 1.5**2 * np.eye(min(n_in, n_out)), atol=1e-13)


def test_orthogonal_draws_favour_no_direction():
    # unless the signs of R are taken out, QR makes the diagonal of Q negative in most draws (Mezzadri 2007)
    first = [network("orthogonal", (3, 3), seed=seed)[0][0] for seed in range(400)]
    assert np.abs(np.mean(first, axis=0)).max() < 4 * np.sqrt(1 / 3 / 400)


def test_zeros_are_zeros():
    assert not any(x.any() for pair in network("zeros") for x in pair)


def test_all_normal_rules_scale_the_same_standard_draws():
    standard = network("normal")
    for rule, spread in SPREADS.items():
        for (W, _), (W_standard, _) in zip(network(f"{rule}_normal"), standard, strict=True):
            np.testing.assert_allclose(W / spread(W.shape[1], W.shape[0]), W_standard, rtol=1e-14)


@pytest.mark.parametrize("name", STREAMED)
def test_the_spread_of_biases_does_not_disturb_the_weights(name):
    for (W, b), (W_apart, b_apart) in zip(network(name), network(name, bias_spread=1.0), strict=True):
        np.testing.assert_array_equal(W, W_apart)
        assert not b.any()
        assert b_apart.all()


def test_the_rule_of_the_weights_does_not_disturb_the_biases():
    biases = [[b for _, b in network(name, bias_spread=0.5)] for name in STREAMED]
    for other in biases[1:]:
        for b, b_other in zip(biases[0], other, strict=True):
            np.testing.assert_array_equal(b, b_other)


def test_biases_of_one_layer_do_not_disturb_those_of_another():
    still, noisy = INITIALIZERS["normal"](), INITIALIZERS["normal"](bias_spread=0.5)
    alone, beside = draw([still, noisy], LAYERS, 3), draw([noisy, noisy], LAYERS, 3)
    np.testing.assert_array_equal(alone[1][1], beside[1][1])


def test_streams_of_a_seed_are_apart_and_repeat():
    purposes = (WEIGHT_STREAM, ORDER_STREAM, STATISTICS_STREAM, BIAS_STREAM)
    draws = np.array([stream(seed, purpose).standard_normal(500) for seed in (0, 1, 2) for purpose in purposes])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(500)
    np.testing.assert_array_equal(draws[1], stream(0, ORDER_STREAM).standard_normal(500))


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "zeros"])
def test_a_seed_repeats_its_network_and_another_seed_draws_another(name):
    first, again, other = network(name, seed=5), network(name, seed=5), network(name, seed=6)
    for layer in range(2):
        np.testing.assert_array_equal(first[layer][0], again[layer][0])
        assert (first[layer][0] != other[layer][0]).all()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_shapes_and_dtype_are_those_of_the_layers(name):
    assert [(W.shape, b.shape) for W, b in network(name, (3, 1, 4, 2))] == [
        ((1, 3), (1,)),
        ((4, 1), (4,)),
        ((2, 4), (2,)),
    ]
    assert all(x.dtype == np.float64 for pair in network(name) for x in pair)


def test_the_largest_seed_is_one_that_the_legacy_stream_takes():
    for name in INITIALIZERS:
        network(name, seed=2**32 - 1)


def test_a_rule_that_draws_whole_networks_is_not_mixed_with_one_that_draws_layers():
    whole, layerwise = INITIALIZERS["notebook"](), INITIALIZERS["glorot_uniform"]()
    for rules in ([whole, layerwise], [layerwise, whole], [whole, INITIALIZERS["notebook"](draw=2)]):
        with pytest.raises(ValueError, match=r"^initializer=\w+, output_initializer=\w+: .*all layers") as refusal:
            draw(rules, LAYERS, 0)
        assert "\n" not in str(refusal.value)


def test_the_default_follows_the_activation():
    expected = dict.fromkeys(("relu", "leaky_relu", "elu", "gelu", "silu"), "he_normal") | {"selu": "lecun_normal"}
    for name in ACTIVATIONS:
        assert default_initializer(name) == expected.get(name, "glorot_uniform")


@pytest.mark.parametrize(
    ("name", "key", "bad"),
    [("notebook", "draw", bad) for bad in (0, -1)]
    + [(name, "bias_spread", bad) for name in STREAMED for bad in (-0.1, np.nan, np.inf)]
    + [(name, "spread", bad) for name in ("normal", "uniform") for bad in (-0.1, np.nan, np.inf)]
    + [("orthogonal", "gain", bad) for bad in (0.0, -1.0, np.nan, np.inf)],
)
def test_a_number_out_of_range_is_refused_in_one_line(name, key, bad):
    with pytest.raises(ValueError, match=rf"^initializer\.{key}={bad}: must be .*$") as refusal:
        INITIALIZERS[name](**{key: bad})
    assert "\n" not in str(refusal.value)
