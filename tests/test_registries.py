import dataclasses
import pickle

import numpy as np
import pytest

from descentlab import train
from descentlab.nn.activations import ACTIVATIONS, Activation, leaky_relu
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.losses import LOSSES
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.updates import UPDATES

FACTORIES = {"activation": ACTIVATIONS, "initializer": INITIALIZERS, "descent": DESCENTS, "update": UPDATES}
ENTRIES = [(key, name) for key, registry in FACTORIES.items() for name in registry]


def small(**given):
    x = np.random.default_rng(0).normal(size=(20, 3))
    return train(x, (x[:, 0] > 0).astype(int), hidden=[4], epochs=2, restarts=2, learning_rate=0.1, workers=1, **given)


@pytest.mark.parametrize(("key", "name"), ENTRIES)
def test_a_training_with_any_registered_function_can_be_pickled(key, name):
    given = {key: name}
    training = small(**given)
    again = pickle.loads(pickle.dumps(training))
    assert getattr(again.recipe, key).name == name
    assert again.final.flat.tobytes() == training.final.flat.tobytes()
    assert {curve: values.tobytes() for curve, values in again.curves.items()} == {
        curve: values.tobytes() for curve, values in training.curves.items()
    }


@pytest.mark.parametrize(("loss", "output"), [(loss, output) for loss in LOSSES for output in LOSSES[loss].forms])
def test_a_training_with_any_loss_can_be_pickled(loss, output):
    if output == "softmax":
        targets = np.eye(3)[np.arange(20) % 3]
    else:
        targets = np.arange(20) % 2
    training = train(np.ones((20, 2)), targets, loss=loss, output=output, epochs=1, workers=1)
    again = pickle.loads(pickle.dumps(training))
    assert again.recipe.loss is LOSSES[loss]


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_is_pickled_by_its_name(output):
    assert pickle.loads(pickle.dumps(output)) is output


def test_a_pickle_keeps_the_numbers_that_a_function_was_made_with():
    for steep in (leaky_relu(0.3), leaky_relu(negative_slope=0.3), ACTIVATIONS["leaky_relu"](0.3)):
        again = pickle.loads(pickle.dumps(steep))
        assert again.value(np.array([-2.0]), np.empty(1)) == pytest.approx(-0.6)


def doubled(z, out):
    return np.multiply(z, 2.0, out=out)


def two(z, a, out):
    out[...] = 2.0
    return out


def test_an_altered_function_is_not_pickled_as_the_one_that_it_was_made_from():
    own = dataclasses.replace(ACTIVATIONS["identity"](), value=doubled, slope=two, slope_is_mask=False, curvature=None)
    again = pickle.loads(pickle.dumps(own))
    assert again.value(np.array([3.0]), np.empty(1)) == 6.0


def test_a_function_whose_value_is_replaced_trains_with_the_new_one():
    for name in ACTIVATIONS:
        assert dataclasses.replace(ACTIVATIONS[name](), value=doubled).in_loop is doubled


def test_a_function_that_is_not_registered_where_it_is_loaded_is_named():
    @ACTIVATIONS.enter
    def passing() -> Activation:
        return dataclasses.replace(ACTIVATIONS["identity"](), name="passing")

    packed = pickle.dumps(passing())
    del ACTIVATIONS["passing"]
    with pytest.raises(ValueError, match=r"^activation=passing: is not registered here; import the module that enters"):
        pickle.loads(packed)
