import dataclasses

import numpy as np
import pytest

from descentlab import cli
from descentlab.nn import gradient_check
from descentlab.nn.activations import ACTIVATIONS, tanh
from descentlab.nn.losses import LOSSES, Form


def steep(z, a, out):
    return np.multiply(1.001, 1 - a * a, out=out)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_registered_slope_agrees_with_differences(activation):
    assert all(outcome.agrees for outcome in gradient_check.check_slope(ACTIVATIONS[activation]()))


def test_a_slope_that_is_a_thousandth_off_disagrees():
    wrong = dataclasses.replace(tanh(), slope=steep)
    assert not all(outcome.agrees for outcome in gradient_check.check_slope(wrong))


def test_a_wrong_slope_disagrees_in_every_network_with_a_hidden_layer():
    wrong = dataclasses.replace(tanh(), slope=steep)
    for depth in gradient_check.DEPTHS:
        outcomes = list(gradient_check.check_gradient(wrong, LOSSES["mean_squared_error"], "linear", depth))
        assert all(outcome.agrees for outcome in outcomes) == (depth == 1)


def test_a_wrong_error_disagrees():
    right = LOSSES["mean_squared_error"]
    form = right.forms["linear"]
    forms = {
        "linear": dataclasses.replace(form, error=lambda z, y, out=None: np.multiply(2, form.error(z, y), out=out))
    }
    wrong = dataclasses.replace(right, forms=forms)
    assert isinstance(forms["linear"], Form)
    assert not any(outcome.agrees for outcome in gradient_check.check_gradient(tanh(), wrong, "linear", 2))


def test_an_error_that_is_not_finite_disagrees():
    right = LOSSES["mean_squared_error"]
    forms = {"linear": dataclasses.replace(right.forms["linear"], error=lambda z, y, out=None: np.full_like(z, np.nan))}
    wrong = dataclasses.replace(right, forms=forms)
    assert not any(outcome.agrees for outcome in gradient_check.check_gradient(tanh(), wrong, "linear", 2))


def test_the_command_checks_one_activation_over_all_losses(capsys):
    assert cli.main(["check", "activation=leaky_relu", "activation.negative_slope=0.3"]) == 0
    outcomes = 10 + 3 * 4 * sum(len(loss.forms) for loss in LOSSES.values())
    assert f"{outcomes} of {outcomes} derivatives agree" in capsys.readouterr().out


def test_the_command_names_what_disagrees_and_fails(capsys, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "tanh", lambda: dataclasses.replace(tanh(), slope=steep))
    assert cli.main(["check", "activation=tanh", "loss=mean_squared_error"]) == 1
    assert "disagrees: slope of tanh at z = 0.4" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["epochs=3", "--all", "activation=rleu"])
def test_the_command_refuses_what_it_does_not_take(word, capsys):
    assert cli.main(["check", word]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert word.partition("=")[0] in error
