import itertools

import numpy as np
import pytest

from descentlab.analysis import matching
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.losses import LOSSES
from descentlab.nn.network import Network, predict
from descentlab.nn.parameters import Parameters

FLIPPED = {"tanh": 0.0, "softsign": 0.0, "identity": 0.0, "sigmoid": 0.5}  # phi(0)
RESCALED = ("relu", "leaky_relu", "identity")
SHAPES = ((3, 5, 2), (3, 4, 5, 2), (3, 4, 3, 4, 2), (3, 2))

every_activation = pytest.mark.parametrize("phi", sorted(ACTIVATIONS))
every_shape = pytest.mark.parametrize("layers", SHAPES, ids=str)


def drawn(phi="tanh", layers=(3, 5, 2), output="softmax", restarts=6, seed=0):
    loss = "categorical_cross_entropy" if output == "softmax" else "mean_squared_error"
    network = Network(layers, ACTIVATIONS[phi](), output, LOSSES[loss])
    parameters = Parameters.empty(layers, restarts, "float64")
    parameters.flat[...] = np.random.default_rng(seed).normal(size=parameters.flat.shape)
    return network, parameters


def transformed(network, parameters, seed=0, scale=True):
    """Another member of each network's class, by symmetries written out unit by unit."""
    rng = np.random.default_rng(seed)
    moved = parameters.copy()
    phi = network.activation.name
    for restart in range(len(moved)):
        theta = [layer[restart] for layer in moved.theta]
        for layer in range(len(theta) - 1):
            order = rng.permutation(len(theta[layer]))
            theta[layer][...] = theta[layer][order]
            theta[layer + 1][:, :-1] = theta[layer + 1][:, order]
            for unit in range(len(order)):
                if phi in RESCALED and scale:
                    factor = np.exp(rng.normal())
                    theta[layer][unit] *= factor
                    theta[layer + 1][:, unit] /= factor
                if phi in FLIPPED and rng.random() < 0.5:
                    theta[layer + 1][:, -1] += 2 * FLIPPED[phi] * theta[layer + 1][:, unit]
                    theta[layer][unit] *= -1
                    theta[layer + 1][:, unit] *= -1
        if network.output == "softmax":
            theta[-1] += rng.normal(size=theta[-1].shape[1])
    return moved


def answers(network, parameters):
    return predict(network, parameters, np.random.default_rng(9).normal(size=(40, network.layers[0])))


def centred(network, parameters):
    """Flat parameters with biases counted from phi(0)."""
    form = parameters.copy()
    for weights, bias in zip(form.W[1:], form.b[1:], strict=True):
        bias += FLIPPED.get(network.activation.name, 0.0) * weights.sum(axis=-1)
    return form.flat


@every_shape
@every_activation
def test_symmetries_and_canonical_form_leave_the_answers_as_they_are(phi, layers):
    network, parameters = drawn(phi, layers)
    expected = answers(network, parameters)
    for other in (transformed(network, parameters), matching.canonical(network, parameters)):
        assert not np.allclose(other.flat, parameters.flat)
        np.testing.assert_allclose(answers(network, other), expected, rtol=1e-9, atol=1e-12)


@every_shape
@every_activation
def test_all_members_of_a_class_have_one_canonical_form(phi, layers):
    network, parameters = drawn(phi, layers)
    form = matching.canonical(network, parameters)
    for seed in range(3):
        other = matching.canonical(network, transformed(network, parameters, seed))
        np.testing.assert_allclose(other.flat, form.flat, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(matching.canonical(network, form).flat, form.flat, rtol=1e-9, atol=1e-11)


def test_a_flipped_sigmoid_unit_gives_its_outgoing_weight_to_the_next_bias():
    network, parameters = drawn("sigmoid", output="sigmoid", restarts=1)
    flipped = parameters.copy()
    flipped.W[0][0, 2] *= -1
    flipped.b[0][0, 2] *= -1
    flipped.b[1][0] += parameters.W[1][0, :, 2]
    flipped.W[1][0, :, 2] *= -1
    np.testing.assert_allclose(answers(network, flipped), answers(network, parameters), rtol=1e-12)
    forms = [matching.canonical(network, one).flat for one in (parameters, flipped)]
    np.testing.assert_allclose(forms[0], forms[1], rtol=1e-12, atol=1e-13)


def test_networks_that_answer_differently_keep_different_forms():
    network, parameters = drawn("tanh")
    form = matching.canonical(network, parameters).flat
    assert (np.abs(form[:, None] - form[None]).max(axis=-1) + 10 * np.eye(len(form)) > 0.1).all()


@pytest.mark.parametrize("layers", [(3, 5, 2), (3, 4, 5, 2)], ids=str)
def test_rescaled_units_are_balanced_and_those_without_effect_are_nothing(layers):
    network, parameters = drawn("relu", layers)
    parameters.W[1][0, :, 1] = 0.0
    form = matching.canonical(network, parameters)
    into = np.linalg.norm(form.theta[0], axis=-1)
    np.testing.assert_allclose(into, np.linalg.norm(form.W[1], axis=-2), rtol=1e-9, atol=1e-12)
    assert (into[0] == 0).sum() == 1
    np.testing.assert_allclose(answers(network, form), answers(network, parameters), rtol=1e-9, atol=1e-12)


def test_a_restarts_form_does_not_depend_on_its_company():
    for phi in ("relu", "sigmoid"):
        network, parameters = drawn(phi, (3, 4, 5, 2))
        together = matching.canonical(network, parameters).flat
        alone = [matching.canonical(network, parameters[r : r + 1]).flat[0] for r in range(len(parameters))]
        assert np.array_equal(together, np.array(alone))


@pytest.mark.parametrize("phi", ["tanh", "sigmoid", "gelu"])
def test_one_hidden_layer_is_matched_as_well_as_by_trying_all_ways(phi):
    network, a = drawn(phi, (3, 4, 2), output="linear", restarts=4, seed=1)
    _, b = drawn(phi, (3, 4, 2), output="linear", restarts=4, seed=2)
    fixed, moved = matching.matched(network, a, b)
    found = np.square(centred(network, fixed) - centred(network, moved)).sum(axis=1)
    least = np.full(len(a), np.inf)
    middle = FLIPPED.get(phi, 0.0)
    for order in itertools.permutations(range(4)):
        for signs in itertools.product((1.0, -1.0) if phi in FLIPPED else (1.0,), repeat=4):
            sign = np.array(signs)
            other = b.copy()
            other.theta[0][...] = sign[:, None] * b.theta[0][:, order]
            other.W[1][...] = sign * b.W[1][..., order]
            other.b[1][...] += 2 * middle * (b.W[1][..., order] * (sign < 0)).sum(axis=-1)
            np.testing.assert_allclose(answers(network, other), answers(network, b), rtol=1e-9, atol=1e-12)
            least = np.minimum(least, np.square(centred(network, a) - centred(network, other)).sum(axis=1))
    np.testing.assert_allclose(found, least, rtol=1e-10)


@every_shape
@every_activation
def test_a_transformed_copy_is_matched_to_its_original(phi, layers):
    network, parameters = drawn(phi, layers)
    fixed, moved = matching.matched(network, parameters, transformed(network, parameters))
    np.testing.assert_allclose(moved.flat, fixed.flat, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(answers(network, moved), answers(network, parameters), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("phi", ["tanh", "sigmoid", "gelu"])
def test_matching_deep_networks_brings_them_nearer_and_leaves_their_answers(phi):
    network, a = drawn(phi, (3, 6, 5, 6, 2), output="linear", seed=1)
    _, b = drawn(phi, (3, 6, 5, 6, 2), output="linear", seed=2)
    fixed, moved = matching.matched(network, a, b)
    before = np.square(centred(network, a) - centred(network, b)).sum(axis=1)
    after = np.square(centred(network, fixed) - centred(network, moved)).sum(axis=1)
    assert (after < 0.9 * before).all()
    np.testing.assert_allclose(answers(network, moved), answers(network, b), rtol=1e-9, atol=1e-12)


def test_what_cannot_be_paired_is_refused():
    network, parameters = drawn()
    lost = parameters.copy()
    lost.flat[2, 0] = np.nan
    for other in (lost, parameters[:3]):
        with pytest.raises(ValueError, match="pairs of finite"):
            matching.matched(network, parameters, other)


@every_activation
def test_equal_networks_are_counted_once(phi):
    network, parameters = drawn(phi, restarts=3)
    copies = [transformed(network, parameters, seed).flat for seed in range(2)]
    lost = np.full((1, parameters.flat.shape[1]), np.nan)
    noise = 1e-7 * np.random.default_rng(5).normal(size=parameters.flat.shape)
    stack = Parameters(network.layers, np.concatenate([parameters.flat, lost, copies[0] + noise, copies[1][::-1]]))
    assert matching.distinct(network, stack).tolist() == [0, 1, 2, -1, 0, 1, 2, 2, 1, 0]


def test_equal_networks_with_two_units_of_the_same_input_are_counted_once():
    network, parameters = drawn("tanh", restarts=1, output="linear")
    parameters.theta[0][0, 3] = parameters.theta[0][0, 1]
    stack = Parameters(network.layers, np.concatenate([transformed(network, parameters, k).flat for k in range(6)]))
    assert matching.distinct(network, stack).tolist() == [0] * 6


# paths and planes


def data(network, samples=300, seed=7):
    rng = np.random.default_rng(seed)
    classes = rng.integers(network.layers[-1], size=samples)
    return rng.normal(size=(samples, network.layers[0])), np.eye(network.layers[-1])[classes]


def loss(network, flat, x, y):
    """Cross-entropy of softmax, from the answers."""
    return -np.log((predict(network, Parameters(network.layers, np.atleast_2d(flat)), x) * y).sum(axis=-1)).mean(
        axis=-1
    )


@pytest.mark.parametrize("layers", [(3, 5, 2), (3, 4, 5, 2)], ids=str)
def test_the_loss_on_a_path_is_that_of_the_networks_between(layers):
    network, a = drawn("relu", layers, restarts=5, seed=1)
    _, b = drawn("relu", layers, restarts=5, seed=2)
    x, y = data(network)
    losses = matching.path_losses(network, a, b, x, y, points=4)
    for place, t in enumerate((0, 1 / 3, 2 / 3, 1)):
        np.testing.assert_allclose(losses[:, place], loss(network, (1 - t) * a.flat + t * b.flat, x, y), rtol=1e-12)


def test_a_barrier_is_the_highest_rise_above_the_chord():
    assert matching.barriers([4.0, 1.0, 5.0, 1.0, 2.0]).tolist() == 2.0  # at t = 1/2 the chord is at 3
    assert matching.barriers([[1.0, 0.2, 0.5], [5.0, 5.0, 5.0]]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("phi", ["tanh", "sigmoid", "relu"])
def test_a_transformed_copy_has_a_barrier_before_matching_and_none_after(phi):
    network, a = drawn(phi, (3, 8, 4), restarts=1)
    a.flat *= 4
    b = transformed(network, a)
    x, _ = data(network)
    y = np.eye(4)[predict(network, a, x)[0].argmax(axis=-1)]  # what it answers: its loss is low
    raw = matching.barriers(matching.path_losses(network, a, b, x, y))
    matched = matching.barriers(matching.path_losses(network, *matching.matched(network, a, b), x, y))
    assert raw.min() > 0.05
    assert matched.max() < 1e-9


def test_a_convex_loss_has_no_barrier():
    network, a = drawn("relu", (3, 4), restarts=6, seed=1)
    _, b = drawn("relu", (3, 4), restarts=6, seed=2)
    assert matching.barriers(matching.path_losses(network, a, b, *data(network))).max() < 1e-12


def test_random_directions_have_the_norms_of_the_units_weights_and_leave_biases():
    network, parameters = drawn("tanh", (3, 4, 5, 2), restarts=1)
    plane = matching.random_plane(parameters, seed=3)
    assert np.array_equal(plane.origin, parameters.flat[0])
    for flat in (plane.across, plane.up):
        direction = Parameters(network.layers, flat[None])
        for weights, along, bias in zip(parameters.W, direction.W, direction.b, strict=True):
            np.testing.assert_allclose(np.linalg.norm(along, axis=-1), np.linalg.norm(weights, axis=-1), rtol=1e-12)
            assert not bias.any()
    assert abs(plane.across @ plane.up) < 0.9 * (plane.across @ plane.across)
    assert np.array_equal(matching.random_plane(parameters, seed=3).up, plane.up)


@pytest.mark.parametrize("seed", range(4))
def test_a_plane_through_three_networks_has_their_losses_where_they_lie(seed):
    network, ends = drawn("tanh", restarts=3, seed=seed)
    x, y = data(network)
    plane, places = matching.plane_through(ends)
    np.testing.assert_allclose(
        [plane.across @ plane.across, plane.up @ plane.up, plane.across @ plane.up], [1, 1, 0], atol=1e-12
    )
    assert places[1, 0] > 0
    assert abs(places[1, 1]) < 1e-12
    assert places[2, 1] > 0
    for flat, (right, above) in zip(ends.flat, places, strict=True):
        np.testing.assert_allclose(plane.origin + right * plane.across + above * plane.up, flat, atol=1e-12)
    losses = matching.plane_losses(network, plane, places[:, 0], places[:, 1], x, y)
    np.testing.assert_allclose(np.diag(losses), loss(network, ends.flat, x, y), rtol=1e-10)
    corner = plane.origin + places[1, 0] * plane.across + places[2, 1] * plane.up
    np.testing.assert_allclose(losses[2, 1], loss(network, corner, x, y)[0], rtol=1e-10)
