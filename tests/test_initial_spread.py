"""experiments/initial_spread.py: when a restart arrives, and that none is dropped."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

PATH = Path(__file__).resolve().parents[1] / "experiments" / "initial_spread.py"
spec = importlib.util.spec_from_file_location("initial_spread", PATH)
initial_spread = importlib.util.module_from_spec(spec)
spec.loader.exec_module(initial_spread)


def curves(losses: dict[int, list[float]], initializer: str = "normal", **params) -> pd.DataFrame:
    about = {"run_id": initializer, "initializer": initializer, "activation": "relu", "learning_rate": 0.1, **params}
    rows = [
        {**about, "seed": seed, "epoch": epoch, "step": 9 * epoch, "metric": "train/loss", "value": value}
        for seed, values in losses.items()
        for epoch, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_restart_arrives_at_its_first_epoch_at_or_below_the_target():
    table = initial_spread.arrivals(curves({0: [2.0, 0.2, 0.3, 0.1]}), target=0.2)
    assert table["arrival"].tolist() == [1]


def test_a_restart_that_never_arrives_or_diverges_is_kept_as_censored():
    table = initial_spread.arrivals(curves({0: [2.0, 1.0], 1: [2.0, np.nan], 2: [2.0, 0.1]}), target=0.2)
    np.testing.assert_array_equal(table.sort_values("seed")["arrival"], [np.nan, np.nan, 1])
    (row,) = initial_spread.arrival_table(table, horizon=1).itertuples()
    assert (row.n, row.arrived) == (3, 1)
    assert row.median_epoch == np.inf
    assert row.mean_epoch_restricted == 1


def test_an_initializer_with_its_default_spread_is_the_unscaled_one():
    kept = pd.concat([curves({0: [0.1]}), curves({0: [0.1]}, **{"run_id": "small", "initializer.spread": 0.1})])
    assert initial_spread.arrivals(kept)["rule"].tolist() == [initial_spread.UNSCALED, "N(0, .1²)"]
