"""experiments/dying_relu.py: silent layers, silent units, and the values of its claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from descentlab.analysis.theory import born_dead_probability

PATH = Path(__file__).resolve().parents[1] / "experiments" / "dying_relu.py"
spec = importlib.util.spec_from_file_location("dying_relu", PATH)
dying_relu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dying_relu)


def test_a_layer_that_is_silent_silences_all_that_follow():
    silent = dying_relu.silent_layers(width=2, depth=12, nets=200, seed=0)
    assert silent.shape == (2, 12, 200)
    assert (silent[:, 1:] >= silent[:, :-1]).all()
    assert silent.any()


def test_a_first_layer_is_never_silent_for_both_signs_of_the_input():
    silent = dying_relu.silent_layers(width=2, depth=1, nets=500, seed=1)
    assert silent.any(axis=(1, 2)).all()
    assert not silent.all(axis=0).any()


def test_the_share_born_dead_for_one_input_is_the_theorys_and_that_on_the_interval_smaller():
    table = dying_relu.born_dead_table(dying_relu.born_dead(4, 1000, widths=(2, 4), depths=(1, 3, 8)))
    for row in table.itertuples():
        theory = born_dead_probability([row.width] * row.depth)
        assert row.theory == pytest.approx(theory)
        assert abs(row.one_input - theory) < 4 * np.sqrt(theory * (1 - theory) / row.nets)
        assert row.interval < row.theory


def test_a_unit_is_silent_where_no_sample_lifts_it_above_zero():
    inputs = np.array([[1.0], [2.0]])
    weights = [np.array([[[1.0], [-1.0]]]), np.array([[[0.0, 1.0], [1.0, -9.0]]])]
    biases = [np.zeros((1, 2)), np.array([[0.0, -1.5]])]
    relu = dying_relu.silent_units(weights, biases, inputs, slope=0.0)
    np.testing.assert_array_equal(relu, [[False, True, True, False]])  # the last: a_1 - 1.5 > 0 for the second sample
    leaky = dying_relu.silent_units(weights, [biases[0], np.array([[0.05, -9.0]])], inputs, slope=0.1)
    np.testing.assert_array_equal(leaky, [[False, True, True, True]])  # -.1 + .05, 1 + .9 - 9 and more
