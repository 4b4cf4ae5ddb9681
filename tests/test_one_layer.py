"""experiments/one_layer.py: stuck outputs, and the bound on the gap to the one minimum."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.optimize import minimize

from descentlab import train
from descentlab.analysis.curvature import Objective
from descentlab.analysis.verdicts import declared, judge

PATH = Path(__file__).resolve().parents[1] / "experiments" / "one_layer.py"
spec = importlib.util.spec_from_file_location("one_layer", PATH)
one_layer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(one_layer)


def trained(output, loss, epochs, decay=0.05):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 4)) + np.array([1.0, 0, 0, 2.0])
    labels = (inputs @ rng.normal(size=(4, 3)) + rng.normal(size=(60, 3))).argmax(axis=1)
    targets = np.eye(3)[labels]
    settings = {"output": output, "loss": loss, "epochs": epochs, "weight_decay": decay, "restarts": 5}
    training = train(inputs, targets, hidden=(), descent="batch", learning_rate=0.3, initializer="normal", **settings)
    return training, inputs, targets, decay


@pytest.mark.parametrize("epochs", [0, 3, 30, 300])
@pytest.mark.parametrize(
    ("output", "loss"), [("sigmoid", "binary_cross_entropy"), ("softmax", "categorical_cross_entropy")]
)
def test_the_true_gap_is_below_the_bound_and_the_bound_closes_as_training_ends(output, loss, epochs):
    training, inputs, targets, decay = trained(output, loss, epochs)
    goal = Objective(training.recipe.network, inputs, targets, decay)
    least = minimize(goal.value_and_gradient, training.final.flat[0], jac=True, tol=1e-14, options={"maxiter": 5000})
    bound, value = one_layer.gap_bound(
        training.recipe.network, training.final.W[0], training.final.b[0], inputs, targets, decay
    )
    np.testing.assert_allclose(value, goal.value_and_gradient(training.final.flat)[0])
    gap = value - least.fun
    assert (gap <= bound + 1e-9).all()
    assert (bound < 1e3 * gap + 1e-6).all()  # and says something
    if epochs == 300:
        assert (bound < 0.05).all()


def test_the_gradient_in_the_weights_alone_would_bound_nothing_as_long_as_biases_move():
    # at W where dC/dW = 0 for wrong biases, |dC/dW|^2 / (2 lambda) = 0 below a gap that is not
    network = trained("sigmoid", "binary_cross_entropy", 0)[0].recipe.network
    inputs, targets = np.zeros((4, 4)), np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    bound, value = one_layer.gap_bound(network, np.zeros((1, 3, 4)), np.full((1, 3), 5.0), inputs, targets, 0.05)
    p = targets.mean(axis=0)
    least = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    assert bound[0] == pytest.approx(value[0] - least)
    assert bound[0] > 3


def test_without_weight_decay_nothing_bounds_the_gap():
    training, inputs, targets, _ = trained("sigmoid", "binary_cross_entropy", 0)
    with pytest.raises(ValueError, match="weight_decay=0"):
        one_layer.gap_bound(training.recipe.network, training.final.W[0], training.final.b[0], inputs, targets, 0.0)


def test_an_output_is_stuck_that_stays_below_one_half_on_every_test_image():
    class Answers:
        def predict(self, inputs):
            return np.array([[[0.9, 0.49, 0.2], [0.1, 0.1, 0.3]], [[0.9, 0.6, 0.2], [0.1, 0.1, 0.5]]])

    class Data:
        splits = {"test": (np.zeros((2, 1)), None)}  # noqa: RUF012

    table = one_layer.stuck_outputs(None, Data, Answers())
    assert table["stuck_outputs"].tolist() == [2, 0]
    assert table["outcome"].tolist() == ["stuck", "answers"]
    assert table["loss_level"].tolist() == ["2 stuck", "0 stuck"]


def restarts(stuck, accuracy):
    parts = []
    for arm in one_layer.ARMS:
        counts = stuck.get(arm, np.zeros(40, dtype=int))
        noise = 0.001 * np.sin(np.arange(40))
        values = accuracy(counts) + noise
        parts.append(pd.DataFrame({"arm": arm, "seed": range(40), "stuck_outputs": counts, "test/accuracy": values}))
    return pd.concat(parts)


def test_claims_follow_from_stuck_outputs_and_bounds():
    claims = declared(yaml.safe_load((PATH.parent / "claims" / "one_layer.yaml").read_text()))
    counts = np.arange(40) % 5  # 32 of 40 stuck, 2 on average
    table = restarts({one_layer.SQUARE: counts}, lambda stuck: 0.904 * (1 - stuck / 10))
    convex = pd.DataFrame({"net": ["a"] * 60 + ["b"] * 60, "gap_bound": 1e-5})
    assert {row.verdict for row in judge(claims, one_layer.claimed(table, convex))} == {"supported"}
    none = restarts({}, lambda stuck: 0.5 + 0 * stuck)
    rows = judge(claims, one_layer.claimed(none, convex.assign(gap_bound=0.1)))
    verdicts = {row.claim: row.verdict for row in rows}
    assert verdicts["a_smaller_start_frees"] == "undecided"
    assert {verdict for claim, verdict in verdicts.items() if not claim.endswith("frees")} == {"not supported"}
    assert set(one_layer.claimed(None, None).values()) == {None}
