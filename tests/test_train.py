import dataclasses
import inspect
import math

import numpy as np
import pytest
from shared import assert_same_bits, regression

from descentlab import train
from descentlab.api.training import ELSEWHERE
from descentlab.config.composing import defaults
from descentlab.nn.activations import ACTIVATIONS, Activation, leaky_relu
from descentlab.nn.descent import DESCENTS, Descent
from descentlab.nn.initializers import INITIALIZERS, Initializer
from descentlab.nn.losses import LOSSES, Form, Loss
from descentlab.nn.recipe import Recipe
from descentlab.nn.updates import UPDATES, Update


def blobs(classes=3, count=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return rng.normal(0, 0.3, (count, 2)) + np.stack([np.cos(labels), np.sin(labels)], axis=1) * 2, labels


def test_train_learns_classes_from_labels():
    x, labels = blobs()
    training = train(x, labels, test=blobs(seed=1), epochs=30, restarts=3, seed=2, workers=1)
    assert training.recipe.layers == (2, 32, 3)
    assert (training.recipe.loss.name, training.recipe.output) == ("categorical_cross_entropy", "softmax")
    assert training.recipe.initializer.name == "he_normal"
    assert training.recipe.output_initializer.name == "glorot_uniform"
    assert (training.curves["test/accuracy"][-1] > 0.95).all()
    answers = training.predict(x)
    assert answers.shape == (3, 90, 3)
    np.testing.assert_allclose((answers.argmax(-1) == labels).mean(-1), training.curves["train/accuracy"][-1])


def test_labels_and_one_hot_targets_are_the_same_training():
    x, labels = blobs()
    from_labels = train(x, labels * 10 - 7, epochs=3, workers=1)  # any whole numbers
    from_targets = train(x, np.eye(3)[labels], epochs=3, workers=1)
    assert_same_bits(from_labels, 0, from_targets)


def test_two_labels_make_one_output():
    for labels_of in (lambda y: y, lambda y: y.astype(bool), lambda y: y[:, None].astype(float), lambda y: 2 * y - 1):
        x, labels = blobs(2)
        training = train(x, labels_of(labels), epochs=20, workers=1)
        assert training.recipe.layers == (2, 32, 1)
        assert (training.recipe.loss.name, training.recipe.output) == ("binary_cross_entropy", "sigmoid")
        assert training.curves["train/accuracy"][-1] > 0.95


def test_columns_of_zeros_and_ones_that_are_not_one_hot_are_several_labels():
    x, labels = np.random.default_rng(3).normal(size=(80, 2)), np.zeros((80, 3))
    labels[:, 0], labels[:, 1], labels[:, 2] = x[:, 0] > 0, x[:, 1] > 0, x.sum(axis=1) > 0
    training = train(x, labels, epochs=60, learning_rate=0.5, workers=1)
    recipe = training.recipe
    assert (recipe.task, recipe.loss.name, recipe.output) == ("multilabel", "binary_cross_entropy", "sigmoid")
    right = (training.predict(x) > 0.5) == (labels > 0.5)
    assert training.curves["train/accuracy"][-1] == pytest.approx(right.mean(axis=(1, 2)))
    assert training.curves["train/exact_match"][-1] == pytest.approx(right.all(axis=2).mean(axis=1))
    assert training.curves["train/accuracy"][-1] > 0.95
    with pytest.raises(ValueError, match="output=softmax: does not answer several labels"):
        train(x, labels, loss="mean_squared_error", output="softmax")


def test_real_targets_are_a_regression():
    x, _ = regression(200)
    training = train(x, np.tanh(x[:, 0] - x[:, 1]), epochs=60, learning_rate=0.1, workers=1)
    assert (training.recipe.loss.name, training.recipe.output) == ("mean_squared_error", "linear")
    assert training.curves["train/r2"][-1] > 0.5


def test_train_takes_names_and_objects_alike():
    x, labels = blobs()
    named = train(x, labels, activation="leaky_relu", update="adam", descent="batch", initializer="normal", workers=1)
    made = train(
        x,
        labels,
        activation=leaky_relu(),
        update=UPDATES["adam"](),
        descent=DESCENTS["batch"](),
        initializer=INITIALIZERS["normal"](),
        workers=1,
    )
    assert_same_bits(named, 0, made)


def test_train_takes_a_list_or_an_array_of_rates():
    x, labels = blobs()
    for rates in ([0.01, 0.1], (0.01, 0.1), np.array([0.01, 0.1])):
        training = train(x, labels, learning_rate=rates, restarts=2, epochs=2, workers=1)
        assert training.rates.tolist() == [0.01, 0.01, 0.1, 0.1]


def test_train_takes_plain_lists():
    training = train([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=2, workers=1)
    assert training.recipe.layers == (2, 32, 1)


def test_an_integer_type_of_numpy_is_as_good_as_an_int():
    x, labels = blobs()
    plain = train(x, labels, epochs=2, restarts=2, seed=3, workers=1)
    numpy = train(x, labels, epochs=np.int64(2), restarts=np.int64(2), seed=np.int64(3), workers=1)
    assert_same_bits(plain, 1, numpy, 1)


def refusal(*arguments, **settings):
    with pytest.raises(ValueError, match=r"^\S+") as caught:
        train(*arguments, **{"workers": 1, "epochs": 1, **settings})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("key", ["activation", "loss", "output", "initializer", "descent", "update"])
def test_an_unknown_name_is_refused_with_the_known_ones(key):
    assert refusal(*blobs(), **{key: "rleu"}).startswith(f"{key}=rleu: not one of ")


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", ()),
        ("learning_rate_decay", 0.0),
        ("learning_rate_decay", -1.0),
        ("learning_rate_decay", math.nan),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("epochs", -1),
        ("epochs", 2.5),
        ("restarts", 0),
        ("restarts", 1.5),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 0.5),
        ("dtype", "float16"),
        ("log_every", 0),
        ("log_every", "often"),
        ("diagnostics", "all"),
        ("task", "clustering"),
        ("hidden", (3, 0)),
        ("hidden", (3, 2.5)),
        ("workers", 0),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name_and_value(key, bad):
    name = "layers" if key == "hidden" else key
    message = refusal(*blobs(), **{key: bad})
    assert message.startswith(f"{name}=")
    assert str(bad if key != "hidden" else bad[1]) in message


def test_meaningless_pairs_are_refused_before_training():
    x, labels = blobs()
    assert refusal(x, labels, loss="binary_cross_entropy", output="linear").startswith("output=linear: ")
    assert refusal(x, labels, loss="categorical_cross_entropy", output="sigmoid").startswith("output=sigmoid: ")
    assert "one output" in refusal(*blobs(2), output="softmax")
    assert refusal(x, np.random.default_rng(0).normal(0, 1, (90, 3)), loss="categorical_cross_entropy").startswith(
        "loss=categorical_cross_entropy: needs targets that are "
    )


def test_data_that_does_not_fit_together_is_refused():
    x, labels = blobs()
    assert refusal(x, labels[:-1]).startswith("train: ")
    assert refusal(x, labels, test=(x[:, :1], labels)).startswith("layers=")
    assert refusal(x[:, 0], labels).startswith("train: ")
    assert refusal(x[:0], labels[:0]).startswith("train: ")
    hole = x.copy()
    hole[3, 1] = np.nan
    assert refusal(hole, labels).startswith("train: ")
    assert refusal(x, labels, validation=(hole, labels)).startswith("validation: ")


def test_a_label_that_training_never_saw_is_refused():
    # made one-hot it would be a row of zeros, or with two classes silently the first of them
    for known in (2, 3):
        x, labels = blobs(known)
        strange = labels.copy()
        strange[5] = 7
        message = refusal(x, labels, test=(x, strange))
        assert message.startswith("test: ")
        assert "7" in message


def test_labels_and_targets_are_not_mixed():
    x, labels = blobs()
    assert refusal(x, labels, test=(x, np.eye(3)[labels])).startswith("test: ")


def test_whole_numbers_are_a_regression_where_the_task_says_so():
    x, labels = blobs()
    training = train(x, labels, task="regression", epochs=2, workers=1)
    assert training.recipe.layers == (2, 32, 1)
    assert "train/r2" in training.curves


def test_a_single_class_is_refused():
    x, labels = blobs()
    assert refusal(x, np.zeros_like(labels)).startswith("targets")


def own(key):
    """An object of the user's own under a name that no registry holds, and the same as a registered one."""
    if key == "activation":
        twin = ACTIVATIONS["tanh"]()
        return Activation("mine", twin.value, twin.slope), twin
    if key == "loss":
        twin = LOSSES["mean_squared_error"]
        return Loss("mine", {"linear": twin.forms["linear"]}, "numbers", lambda y: True), twin
    if key in ("initializer", "output_initializer"):
        twin = INITIALIZERS["normal"]()
        return Initializer("mine", twin.weights), twin
    if key == "update":
        twin = UPDATES["momentum"]()
        return Update("mine", twin.apply, twin.slots, takes_scaled=True), twin
    return Descent("mine", 7, shuffled=True), DESCENTS["mini_batch"](7)


@pytest.mark.parametrize("key", ["activation", "loss", "initializer", "output_initializer", "update", "descent"])
def test_train_takes_an_object_of_ones_own_for_every_function(key):
    x, y = regression(40)
    mine, twin = own(key)
    settings = {"epochs": 2, "learning_rate": 0.05, "workers": 1, "task": "regression"}
    assert_same_bits(train(x, y, **{key: mine}, **settings), 0, train(x, y, **{key: twin}, **settings))


def test_a_loss_of_ones_own_stands_over_an_output_that_it_has_a_form_for():
    x, labels = blobs()
    absolute = Form(
        lambda z, y: np.abs(z - y).sum(axis=-1),
        lambda z, y, out=None: np.sign(z - y, out=out),
        lambda z, y, dz: np.zeros_like(dz),
    )
    loss = Loss("absolute", {"linear": absolute}, "numbers", lambda y: bool(np.isfinite(y).all()))
    assert train(x, labels, loss=loss, epochs=1).recipe.output == "linear"
    assert refusal(x, labels, loss=loss, output="softmax") == (
        "output=softmax: does not go with loss=absolute; valid: linear"
    )


def test_defaults_of_train_are_those_of_the_configuration():
    x, labels = blobs()
    recipe, values = train(x, labels, workers=1, log_every=1000).recipe, defaults()
    for key in ("learning_rate", "learning_rate_decay", "weight_decay", "epochs", "seed", "restarts", "dtype"):
        assert getattr(recipe, key) == values[key], key
    given = {key: parameter.default for key, parameter in inspect.signature(train).parameters.items()}
    assert list(given["hidden"]) == values["network"]["hidden"]
    chosen = {key: option for entry in values["defaults"][1:] for key, option in entry.items()}
    for key in ("activation", "loss", "initializer", "descent", "update"):
        assert given[key] == chosen[key]
    for key in ("output", "log_every", "diagnostics", "workers"):
        assert given[key] == values[key]


def test_every_setting_of_a_recipe_is_an_argument_of_train():
    names = inspect.signature(train).parameters
    assert {field.name for field in dataclasses.fields(Recipe)} - set(names) == {"layers"}
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in names.values())
    assert set(ELSEWHERE.values()) <= set(names)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("epoch", "epochs"),
        ("max_iter", "epochs"),
        ("batch", "batch_size"),
        ("hidden_layer_sizes", "hidden"),
        ("lr", "learning_rate"),
        ("optimizer", "update"),
        ("verbose", "on_record"),
        ("sed", "seed"),
    ],
)
def test_an_argument_that_train_does_not_have_is_refused_with_the_one_that_was_meant(word, meant):
    with pytest.raises(TypeError) as caught:
        train(*blobs(), **{word: 3})
    assert str(caught.value) == f"{word}=: train() has no such argument (did you mean {meant}?)"


def test_an_argument_that_resembles_none_is_refused_with_all_that_there_are():
    with pytest.raises(TypeError, match=r"^qqq=: train\(\) has no such argument; it takes inputs, targets, hidden, "):
        train(*blobs(), qqq=3)


@pytest.mark.parametrize(
    ("key", "word", "name"),
    [("activation", "ReLU", "relu"), ("loss", "mse", "mean_squared_error"), ("update", "sgd", "gradient_descent")],
)
def test_names_from_elsewhere_are_understood(key, word, name):
    given = {key: word}
    assert getattr(train(*regression(20), epochs=1, workers=1, **given).recipe, key).name == name
    assert refusal(*regression(20), loss="cross_entropy").endswith(
        "(did you mean categorical_cross_entropy for several classes, binary_cross_entropy for two, auto for either?)"
    )


def test_batch_size_is_that_of_the_mini_batches():
    x, labels = blobs()
    short = train(x, labels, batch_size=16, epochs=2, workers=1)
    assert short.recipe.descent.batch_size == 16
    assert_same_bits(short, 0, train(x, labels, descent=DESCENTS["mini_batch"](16), epochs=2, workers=1))
    assert refusal(x, labels, batch_size=0).startswith("descent.batch_size=0: ")
    assert refusal(x, labels, batch_size=2.5).startswith("descent.batch_size=2.5: ")
    assert refusal(x, labels, batch_size=8, descent="batch") == (
        "batch_size=8: belongs to descent=mini_batch, not to descent=batch"
    )


def test_one_hidden_layer_may_be_given_as_a_number():
    assert train(*blobs(), hidden=5, epochs=1, workers=1).recipe.layers == (2, 5, 3)


@pytest.mark.parametrize("bad", ["64-32", 2.5])
def test_hidden_sizes_that_are_none_are_refused_by_name(bad):
    assert refusal(*blobs(), hidden=bad).startswith(f"hidden={bad}: must be the sizes of the hidden layers")


def test_text_and_forced_labels_are_the_same_training_as_whole_numbers():
    x, labels = blobs()
    settings = {"epochs": 2, "workers": 1}
    plain = train(x, labels, **settings)
    for told in (np.array(["a", "b", "c"])[labels], np.array(["a", "b", "c"], dtype=object)[labels]):
        assert_same_bits(plain, 0, train(x, told, **settings))
    assert_same_bits(plain, 0, train(x, labels.astype(float), task="classes", **settings))
    assert train(x, labels.astype(float), **settings).recipe.task == "regression"


def test_a_sparse_matrix_is_taken_as_the_matrix_that_it_is():
    from scipy.sparse import csr_matrix

    x, labels = blobs()
    assert_same_bits(train(x, labels, epochs=1, workers=1), 0, train(csr_matrix(x), labels, epochs=1, workers=1))


def test_a_split_that_is_no_pair_is_refused_by_name():
    x, labels = blobs()
    assert refusal(x, labels, test=x) == "test: must be a pair of inputs and targets"


def test_every_record_is_handed_on_as_it_is_measured():
    records = []
    training = train(*blobs(), epochs=3, log_every=1, workers=1, on_record=records.append)
    assert [record.epoch for record in records] == training.epochs.tolist() == [0, 1, 2, 3]
