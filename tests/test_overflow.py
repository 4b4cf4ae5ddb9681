import dataclasses
import itertools
import math

import numpy as np
import pytest
from shared import FORMS, classes, every_dtype, recipe, splits

from descentlab.nn.activations import ACTIVATIONS, Activation, elu, leaky_relu
from descentlab.nn.diagnostics import measure
from descentlab.nn.memory import Workspace
from descentlab.nn.overflow import Bounds
from descentlab.nn.parameters import tables_of


def drawn(recipe, splits):
    """Initial parameters, the tables of the splits, and the bounds that hold for them."""
    tables = tables_of(splits, recipe.dtype)
    return recipe.draw(), tables, Bounds(recipe.layers, recipe.activation, *tables["train"])


def square():
    """A user's own activation, which grows faster than any registered one."""
    return Activation("square", lambda z, out: np.multiply(z, z, out=out), lambda z, a, out: None)


FILTERED = {
    **{name: factory() for name, factory in ACTIVATIONS.items()},
    "leaky_relu(.9)": leaky_relu(0.9),
    "elu(1e30)": elu(1e30),
    "square": square(),
}


@every_dtype
@pytest.mark.parametrize("activation", FILTERED.values(), ids=FILTERED.keys())
def test_where_a_bound_holds_the_loss_is_finite(activation, dtype):
    rng = np.random.default_rng(9)
    top = math.log10(float(np.finfo(dtype).max))
    for hidden, (loss, output) in itertools.product(((), (4,), (3, 3, 3), (3,) * 12), FORMS):
        stacked = recipe(layers=(5, *hidden, 3), activation=activation, loss=loss, output=output, dtype=dtype)
        parameters, tables, bounds = drawn(dataclasses.replace(stacked, restarts=60), {"train": classes()})
        pattern = rng.normal(0, 1, parameters.flat.shape)
        pattern[20:40] = np.sign(pattern[20:40])  # nothing but the largest
        pattern[40:] = 1
        low, high = np.full((60, 1), -40.0), np.full((60, 1), top)  # the exponents between which the answer changes
        with np.errstate(all="ignore"):
            for _ in range(12):
                middle = (low + high) / 2
                says = bounds.hold((pattern * 10**middle).astype(dtype))[:, None]
                low, high = np.where(says, middle, low), np.where(says, high, middle)
            parameters.flat[...] = pattern * 10**low
            workspace = Workspace(stacked.network, dtype)
            metrics = measure(stacked.network, parameters, tables, "multiclass", "none", workspace)
        assert np.isfinite(metrics["train/loss"]).all()


def test_no_bound_holds_for_parameters_that_are_not_finite():
    parameters, _, bounds = drawn(recipe(restarts=3), splits())
    parameters.flat[:, 3] = [np.inf, -np.inf, np.nan]
    assert not bounds.hold(parameters.flat).any()
    assert not bounds.glance(parameters.flat)()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_bound_spares_ordinary_training_the_loss(activation):
    for layers in ((5, 3), (5, 100, 3), (5, *[20] * 6, 3), (5, *[32] * 10, 3)):
        stacked = recipe(restarts=5, layers=layers, activation=activation, dtype="float32")
        parameters, _, bounds = drawn(stacked, splits())
        assert bounds.hold(parameters.flat).all()
        assert bounds.glance(parameters.flat)()


@every_dtype
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_glance_promises_no_more_than_a_close_look(activation, dtype, order):
    stacked = recipe(restarts=3, layers=(5, 4, 3), activation=activation, dtype=dtype)
    parameters, _, bounds = drawn(stacked, splits())
    flat = np.array(parameters.flat, order=order)
    glance, seen = bounds.glance(flat), set()
    with np.errstate(over="ignore"):
        for exponent in np.linspace(0, math.log10(float(np.finfo(dtype).max)) - 2, 60):
            flat[...] = parameters.flat * flat.dtype.type(10**exponent)
            seen.add(glance())
            assert not glance() or bounds.hold(flat).all()
    assert seen == {True, False}
