"""experiments/literature/order_to_chaos.py: the depth at which training stops, and what theory says of it."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PATH = Path(__file__).resolve().parents[1] / "experiments" / "literature" / "order_to_chaos.py"
spec = importlib.util.spec_from_file_location("order_to_chaos", PATH)
order_to_chaos = importlib.util.module_from_spec(spec)
spec.loader.exec_module(order_to_chaos)


def nets(*scores: float, depths=(4, 8, 16)) -> pd.DataFrame:
    columns = {"sw2": 1.0, "seed": 0, "depth": depths, "test/accuracy": scores}
    return pd.DataFrame(columns)


def test_the_trainable_depth_lies_on_a_line_over_log_depth():
    (row,) = order_to_chaos.trainable_depths(nets(0.9, 0.8, 0.2)).itertuples()
    assert row.depth == pytest.approx(8 * 2**0.5)
    assert not row.censored


def test_a_seed_that_always_or_never_trains_is_censored_at_the_end_of_the_range():
    always, never = (order_to_chaos.trainable_depths(nets(*[score] * 3)).iloc[0] for score in (0.9, 0.1))
    assert (always["depth"], never["depth"]) == (16, 4)
    assert always["censored"]
    assert never["censored"]


def test_a_diverged_net_counts_as_untrained():
    (row,) = order_to_chaos.trainable_depths(nets(0.9, np.nan, 0.9)).itertuples()
    assert 4 < row.depth < 8


def test_the_predicted_depth_grows_towards_the_critical_spread():
    scales = order_to_chaos.depth_scales(order_to_chaos.ORDERED)
    assert (np.diff(scales["correlation_depth"]) > 0).all()
    assert scales["chi"].between(0, 1).all()


def test_a_rate_at_which_a_restart_diverges_is_not_the_best_one():
    rows = [(0.1, 0.2), (0.1, np.nan), (0.01, 0.5), (0.01, 0.7)]
    arms = pd.DataFrame(rows, columns=["learning_rate", "validation/loss"])
    assert order_to_chaos._best_rate(arms) == 0.01
