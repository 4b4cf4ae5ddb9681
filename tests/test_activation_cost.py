"""experiments/activation_cost.py: what is timed is there, in units of a copy, and the ratios are those of one round."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PATH = Path(__file__).resolve().parents[1] / "experiments" / "activation_cost.py"
spec = importlib.util.spec_from_file_location("activation_cost", PATH)
activation_cost = importlib.util.module_from_spec(spec)
spec.loader.exec_module(activation_cost)


def test_every_activation_is_timed_in_both_precisions_in_units_of_the_same_rounds_copy():
    table = activation_cost.cost_per_element(rounds=2, elements=256, names=("relu", "gelu"))
    assert len(table) == 2 * 2 * (2 * 3 + 1)
    copies = table[table["work"] == "copy"].set_index(["round", "dtype"])["nanoseconds"]
    expected = table["nanoseconds"] / copies.loc[list(zip(table["round"], table["dtype"], strict=True))].to_numpy()
    np.testing.assert_allclose(table["copies"], expected)
    assert (table["nanoseconds"] > 0).all()


def test_the_two_computations_from_z_do_what_backpropagation_does():
    draw = np.random.default_rng(0)
    jobs = activation_cost._elementwise("tanh", draw, 64, "float64")
    z, a, out = jobs["slope"].args
    out[:], a[:] = np.nan, np.nan
    jobs["from z"]()
    np.testing.assert_allclose(out, 1 - np.tanh(z) ** 2)


def test_a_ratio_is_taken_within_a_round():
    rows = [
        (turn, dtype, name, "slope", time * (turn + 1))
        for turn in range(3)
        for dtype in activation_cost.DTYPES
        for name, time in (("relu", 1.0), ("sigmoid", 4.0), ("tanh", 2.0))
    ]
    elements = pd.DataFrame(rows, columns=["round", "dtype", "activation", "work", "nanoseconds"])
    gradients = elements.rename(columns={"nanoseconds": "microseconds"}).drop(columns="work")
    values = activation_cost.claimed(elements, gradients)
    assert values["relu_slope_is_cheap"]["sigmoid, float32"] == pytest.approx([0.25] * 3)
    assert values["relu_gradient_is_cheap"]["float64"] == pytest.approx([0.25] * 3)
