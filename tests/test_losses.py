import itertools

import numpy as np
import pytest

from descentlab.nn.losses import LOSSES, TASKS, check_pair, default_loss, default_output
from descentlab.nn.outputs import OUTPUTS

FORMS = [(loss, output) for loss in LOSSES for output in LOSSES[loss].forms]
every_form = pytest.mark.parametrize(("loss", "output"), FORMS, ids=["-".join(form) for form in FORMS])
TEXTBOOK = (
    "mean_squared_error",
    "binary_cross_entropy",
    "categorical_cross_entropy",
)
every_textbook_form = pytest.mark.parametrize(("loss", "output"), [form for form in FORMS if form[0] in TEXTBOOK])
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def sizes(loss, output):
    return [outputs for outputs in (1, 2, 5) if not (output == "softmax" and outputs == 1)]


def targets_for(loss, shape, rng):
    """Hard and soft targets of every kind that the loss can judge."""
    if loss == "mean_squared_error":
        return rng.normal(0, 2, shape)
    if loss == "binary_cross_entropy":
        return np.concatenate([rng.integers(0, 2, (shape[0] // 2, shape[1])), rng.random(shape)[shape[0] // 2 :]])
    hard = np.eye(shape[1])[rng.integers(0, shape[1], shape[0] // 2)]
    return np.concatenate([hard, rng.dirichlet(np.ones(shape[1]), shape[0] - len(hard))])


def value(loss, output, z, y):
    return LOSSES[loss].forms[output].value(z.copy(), y.copy())


def error(loss, output, z, y):
    return LOSSES[loss].forms[output].error(z.copy(), y.copy())


def test_every_meaningful_pair_has_a_form_and_no_other():
    pairs = {
        "mean_squared_error": {"linear", "sigmoid", "softmax"},
        "binary_cross_entropy": {"sigmoid", "softmax"},
        "categorical_cross_entropy": {"softmax"},
    }
    assert {loss: set(LOSSES[loss].forms) for loss in pairs} == pairs
    assert all(set(loss.forms) <= set(OUTPUTS) for loss in LOSSES.values())
    assert all(loss.name == name for name, loss in LOSSES.items())


def test_squared_error_is_half_the_mean_over_outputs():
    # a = (1, 2, 3, 4), y = (0, 0, 0, 2): (1 + 4 + 9 + 4) / 4 / 2 = 2.25; its error (a - y) / 4
    z, y = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 0.0, 0.0, 2.0]])
    np.testing.assert_allclose(value("mean_squared_error", "linear", z, y), [2.25])
    np.testing.assert_allclose(error("mean_squared_error", "linear", z, y), [[0.25, 0.5, 0.75, 0.5]])


def test_binary_cross_entropy_is_the_sum_over_outputs_in_natural_logarithms():
    # sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2; y = (1, 0): -ln(3/4) - ln(1/2) = ln(8/3); its error a - y
    z, y = np.array([[np.log(3.0), 0.0]]), np.array([[1.0, 0.0]])
    np.testing.assert_allclose(value("binary_cross_entropy", "sigmoid", z, y), [np.log(8 / 3)])
    np.testing.assert_allclose(error("binary_cross_entropy", "sigmoid", z, y), [[-0.25, 0.5]])


def test_categorical_cross_entropy_is_minus_the_log_of_the_right_class():
    # softmax(ln 1, ln 2, ln 5) = (1, 2, 5) / 8; y = class 1: -ln(1/4); its error a - y
    z, y = np.log([[1.0, 2.0, 5.0]]), np.array([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(value("categorical_cross_entropy", "softmax", z, y), [np.log(4)])
    np.testing.assert_allclose(error("categorical_cross_entropy", "softmax", z, y), [[0.125, -0.75, 0.625]])


def test_categorical_cross_entropy_with_soft_targets_weighs_the_logs():
    z, y = np.log([[1.0, 2.0, 5.0]]), np.array([[0.5, 0.25, 0.25]])
    expected = -(0.5 * np.log(1 / 8) + 0.25 * np.log(1 / 4) + 0.25 * np.log(5 / 8))
    np.testing.assert_allclose(value("categorical_cross_entropy", "softmax", z, y), [expected])


def test_binary_cross_entropy_over_softmax_judges_every_output_by_itself():
    # a = (1, 2, 5) / 8, y = (0, 1, 0): -ln(7/8) - ln(1/4) - ln(3/8)
    z, y = np.log([[1.0, 2.0, 5.0]]), np.array([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(value("binary_cross_entropy", "softmax", z, y), [-np.log(7 / 8 / 4 * 3 / 8)])


@every_textbook_form
def test_value_is_the_definition_applied_to_the_output(loss, output):
    rng = np.random.default_rng(1)
    definition = {
        "mean_squared_error": lambda a, y: np.mean((a - y) ** 2, axis=-1) / 2,
        "binary_cross_entropy": lambda a, y: -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a), axis=-1),
        "categorical_cross_entropy": lambda a, y: -np.sum(y * np.log(a), axis=-1),
    }[loss]
    for outputs in sizes(loss, output):
        z, y = rng.normal(0, 2, (40, outputs)), targets_for(loss, (40, outputs), rng)
        np.testing.assert_allclose(value(loss, output, z, y), definition(OUTPUTS[output].value(z), y), rtol=1e-11)


@every_form
def test_error_is_the_central_difference_of_value(loss, output):
    rng, step = np.random.default_rng(2), 1e-5
    for outputs in sizes(loss, output):
        z, y = rng.normal(0, 3, (40, outputs)), targets_for(loss, (40, outputs), rng)
        difference = np.empty_like(z)
        for k in range(outputs):
            shift = step * np.eye(outputs)[k]
            difference[:, k] = (value(loss, output, z + shift, y) - value(loss, output, z - shift, y)) / (2 * step)
        np.testing.assert_allclose(error(loss, output, z, y), difference, rtol=1e-7, atol=2e-9)


@every_textbook_form
def test_the_fused_error_is_the_general_product(loss, output):
    # the chain rule written out, dC/da pulled back through the output, where no a is near 0 or 1
    rng = np.random.default_rng(3)
    slope = {
        "mean_squared_error": lambda a, y: (a - y) / y.shape[-1],
        "binary_cross_entropy": lambda a, y: (a - y) / (a * (1 - a)),
        "categorical_cross_entropy": lambda a, y: -y / a,
    }[loss]
    for outputs in sizes(loss, output):
        z, y = rng.normal(0, 1, (40, outputs)), targets_for(loss, (40, outputs), rng)
        a = OUTPUTS[output].value(z)
        general = OUTPUTS[output].pullback(a, slope(a, y))
        np.testing.assert_allclose(error(loss, output, z, y), general, rtol=1e-10, atol=1e-13)


@every_dtype
@every_form
def test_extreme_answers_raise_nothing_and_stay_finite(loss, output, dtype):
    levels = np.array([-1e4, -800.0, -90.0, 0.0, 90.0, 800.0, 1e4], dtype=dtype)
    for outputs in sizes(loss, output):
        z = np.array(list(itertools.product(levels, repeat=min(outputs, 3))), dtype=dtype)
        z = np.concatenate([z, np.zeros((len(z), outputs - z.shape[1]), dtype=dtype)], axis=1)
        for hot in range(outputs):
            y = np.zeros_like(z)
            y[:, hot] = 1
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                c, delta = value(loss, output, z, y), error(loss, output, z, y)
            assert c.dtype == delta.dtype == dtype
            assert np.isfinite(c).all()
            assert np.isfinite(delta).all()
            assert (c >= 0).all()


@every_form
@every_dtype
def test_what_the_training_loop_calls_has_the_bits_of_error(loss, output, dtype):
    z = np.random.default_rng(8).normal(0, 60, (40, 3)).astype(dtype)
    y = np.eye(3, dtype=dtype)[np.arange(40) % 3]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(LOSSES[loss].forms[output].in_loop(z.copy(), y), error(loss, output, z, y))


@every_form
@every_dtype
def test_error_leaves_z_alone_and_has_the_same_bits_in_a_buffer_or_in_z_itself(loss, output, dtype):
    form = LOSSES[loss].forms[output]
    for z in (np.random.default_rng(8).normal(0, 3, (2, 40, 3)).astype(dtype),):
        for arranged in (z, np.asfortranarray(z)):
            y, kept = np.eye(3, dtype=dtype)[np.arange(40) % 3], arranged.copy(order="K")
            new, buffer = form.error(arranged, y), np.empty_like(arranged)
            np.testing.assert_array_equal(arranged, kept)
            assert form.error(arranged, y, buffer) is buffer
            np.testing.assert_array_equal(buffer, new)
            assert form.error(arranged, y, arranged) is arranged
            np.testing.assert_array_equal(arranged, new)


def test_a_confident_mistake_costs_its_margin():
    # where a naive log(a) would be log(0): the loss is the distance in z, and the error does not vanish
    y = np.array([[1.0, 0.0]])
    for loss, output, cost in (
        ("categorical_cross_entropy", "softmax", 2e4),
        ("binary_cross_entropy", "sigmoid", 2e4),
        ("binary_cross_entropy", "softmax", 4e4),
    ):
        z = np.array([[-1e4, 1e4]])
        np.testing.assert_allclose(value(loss, output, z, y), [cost])
        assert np.abs(error(loss, output, z, y)).min() >= 1


@every_form
def test_the_memory_order_of_the_answer_does_not_alter_the_result(loss, output):
    # the network hands over z feature-major and targets in either order
    rng = np.random.default_rng(4)
    z, y = rng.normal(0, 2, (3, 8, 4)), targets_for(loss, (24, 4), rng).reshape(3, 8, 4)
    turned_z, turned_y = (np.ascontiguousarray(x.mT).mT for x in (z, y))
    form = LOSSES[loss].forms[output]
    np.testing.assert_allclose(form.value(turned_z.copy(order="K"), turned_y), form.value(z.copy(), y), rtol=1e-13)
    np.testing.assert_allclose(form.error(turned_z.copy(order="K"), turned_y), form.error(z.copy(), y), rtol=1e-12)


@every_form
def test_targets_are_shared_by_restarts_and_left_alone(loss, output):
    rng = np.random.default_rng(5)
    z, y = rng.normal(0, 2, (3, 8, 4)), targets_for(loss, (8, 4), rng)
    kept = y.copy()
    form = LOSSES[loss].forms[output]
    stacked = form.error(z.copy(), y)
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_allclose(stacked, np.stack([form.error(one.copy(), y) for one in z]), rtol=1e-13)


def test_defaults_follow_the_task():
    assert [default_loss(task) for task in TASKS] == [
        "mean_squared_error",
        "binary_cross_entropy",
        "categorical_cross_entropy",
        "binary_cross_entropy",
    ]
    assert default_output("categorical_cross_entropy", "multiclass") == "softmax"
    assert {default_output("binary_cross_entropy", task) for task in TASKS} == {"sigmoid"}
    assert default_output("mean_squared_error", "regression") == "linear"
    assert {default_output("mean_squared_error", task) for task in TASKS if task != "regression"} == {"sigmoid"}


def test_every_default_pair_is_one_that_means_something():
    for task, outputs in (("regression", 1), ("regression", 3), ("binary", 1), ("multiclass", 3), ("multilabel", 3)):
        loss = default_loss(task)
        check_pair(loss, default_output(loss, task), outputs, task=task)


@every_form
def test_several_labels_are_answered_each_by_itself_or_refused(loss, output):
    if output == "sigmoid":
        check_pair(loss, output, 3, task="multilabel")
        return
    with pytest.raises(ValueError, match=r"^(output|loss)=\w+: .*; valid: output=sigmoid with "):
        check_pair(loss, output, 3, task="multilabel")


def refusal(*arguments):
    with pytest.raises(ValueError, match=r"^\S+=\S+: ") as caught:
        check_pair(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_pair_is_either_trained_or_refused_with_choices_that_work(loss, output, outputs):
    meaningful = output in LOSSES[loss].forms and not (output == "softmax" and outputs == 1)
    if meaningful:
        check_pair(loss, output, outputs)
        return
    message = refusal(loss, output, outputs)
    assert message.startswith((f"output={output}: ", f"loss={loss}: "))
    choices = message.partition("valid")[2]
    named_losses = [name for name in LOSSES if name in choices] or [loss]
    named_outputs = [name for name in OUTPUTS if name in choices.replace(",", " ").replace("=", " ").split()]
    assert named_outputs, message
    for choice in itertools.product(named_losses, named_outputs):
        check_pair(*choice, outputs)


def test_softmax_with_one_output_is_refused_because_it_is_constant():
    assert "one output" in refusal("mean_squared_error", "softmax", 1)
    assert "one output" in refusal("binary_cross_entropy", "softmax", 1)


def test_unknown_names_are_refused_with_the_known_ones():
    assert refusal("hinge", "linear", 1).startswith("loss=hinge: not one of binary_cross_entropy, ")
    assert refusal("mean_squared_error", "relu", 1) == "output=relu: not one of linear, sigmoid, softmax"


@pytest.mark.parametrize(
    ("loss", "output", "targets"),
    [
        ("categorical_cross_entropy", "softmax", [[1.0, 1.0], [0.0, 1.0]]),
        ("categorical_cross_entropy", "softmax", [[0.0, 0.0], [0.0, 1.0]]),
        ("categorical_cross_entropy", "softmax", [[1.5, -0.5], [0.0, 1.0]]),
        ("categorical_cross_entropy", "softmax", [[0.5, 0.4999], [0.5, 0.5]]),
        ("binary_cross_entropy", "sigmoid", [[1.5, 0.0], [0.0, 1.0]]),
        ("binary_cross_entropy", "sigmoid", [[-0.1, 0.0], [0.0, 1.0]]),
    ],
)
def test_targets_that_a_loss_cannot_judge_are_refused_with_the_losses_that_can(loss, output, targets):
    targets = np.array(targets)
    message = refusal(loss, output, 2, targets)
    assert message.startswith(f"loss={loss}: ")
    choices = message.partition("valid: ")[2].split(", ")
    assert "mean_squared_error" in choices
    assert loss not in choices
    assert all(LOSSES[choice].accepts(targets) for choice in choices)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_refused_by_every_loss(loss, bad):
    targets = np.array([[bad, 1.0]])
    with pytest.raises(ValueError, match=rf"^targets={bad}: must be finite numbers$"):
        check_pair(loss, next(iter(LOSSES[loss].forms)), 2, targets)


def test_single_precision_and_soft_targets_are_accepted_as_distributions():
    soft = np.random.default_rng(6).dirichlet(np.ones(10), 200)
    for targets in (soft, soft.astype("float32"), np.eye(10), np.full((1, 3), 1 / 3)):
        check_pair("categorical_cross_entropy", "softmax", targets.shape[1], targets)
        check_pair("binary_cross_entropy", "softmax", targets.shape[1], targets)
