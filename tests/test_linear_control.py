"""experiments/literature/linear_control.py: the optimum by singular values, Saxe's modes, values of its claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from descentlab import train
from descentlab.analysis.verdicts import declared, judge

PATH = Path(__file__).resolve().parents[1] / "experiments" / "literature" / "linear_control.py"
spec = importlib.util.spec_from_file_location("linear_control", PATH)
linear_control = importlib.util.module_from_spec(spec)
spec.loader.exec_module(linear_control)


def test_the_optimum_is_where_training_ends_and_no_rank_is_worse_than_a_lower_one():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(40, 4)) + 0.5, rng.normal(size=(40, 3))
    targets += inputs @ rng.normal(size=(4, 3))
    best = [linear_control.optimum(inputs, targets, rank) for rank in range(4)]
    assert best == sorted(best, reverse=True)
    assert best[0] == pytest.approx(0.5 * targets.var(axis=0).mean())
    shape = {"hidden": (2,), "activation": "identity", "task": "regression", "descent": "batch"}
    training = train(inputs, targets, **shape, learning_rate=0.05, epochs=6000, restarts=3, log_every=6000)
    np.testing.assert_allclose(training.curves["train/loss"][-1], best[2], rtol=1e-3)
    assert (training.curves["train/loss"][-1] > best[2] - 1e-12).all()


def test_modes_grow_as_saxes_solution_says():
    modes = linear_control.saxe_table(2)
    deviation = (modes["measured"] - modes["theory"]).abs() / modes["strength"]
    assert deviation.max() < 0.002
    last = modes.groupby("mode")["measured"].last() / modes.groupby("mode")["strength"].first()
    assert (last > 0.9).all()
    assert linear_control.mode_table(modes)["largest_deviation"].max() == pytest.approx(deviation.max())


def restarts(gap=1e-4, polished="flat minimum", polished_gap=0.0, zero_modes=7):
    nets = [f"net {place}" for place in range(len(linear_control.NETS))]
    ends = pd.DataFrame({"net": np.repeat(nets, 100), "gap": gap, "polished": polished, "polished_gap": polished_gap})
    start = pd.DataFrame({"net": ["a, from zero"], "gap": 1.0, "polished": "saddle", "polished_gap": 1.0})
    return pd.concat([ends, start]).assign(valley=7, zero_modes=zero_modes)


def test_claims_follow_from_gaps_and_certificates():
    claims = declared(yaml.safe_load((PATH.parent / "claims" / "linear_control.yaml").read_text()))
    rows = [
        (mode, time, 1.0, 0.5, 0.5)
        for mode in range(1, linear_control.MODES + 1)
        for time in range(linear_control.TIMES)
    ]
    modes = pd.DataFrame(rows, columns=["mode", "time", "strength", "measured", "theory"])
    found = judge(claims, linear_control.claimed(restarts(), modes))
    assert {row.verdict for row in found} == {"supported"}
    worse = linear_control.claimed(restarts(gap=0.5, polished_gap=0.5), modes.assign(measured=0.6))
    verdicts = {row.claim: row.verdict for row in judge(claims, worse) if row.claim != "valleys_write_one_map"}
    assert set(verdicts.values()) == {"not supported"}
    wide = linear_control.claimed(restarts(zero_modes=9), modes)
    assert {row.verdict for row in judge(claims, wide) if row.claim == "valleys_write_one_map"} == {"not supported"}
