"""experiments/xor.py: levels of the loss, best of k, and the values of its claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from descentlab.analysis.verdicts import declared, judge

PATH = Path(__file__).resolve().parents[1] / "experiments" / "xor.py"
spec = importlib.util.spec_from_file_location("xor", PATH)
xor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(xor)


def test_a_net_whose_answers_are_the_best_for_its_level_is_on_it():
    # targets 0 1 1 0: answers that are right, wrong at one row (1/2 each at two), 2/3 at three rows, 1/2 at all
    y = np.array([0.0, 1.0, 1.0, 0.0])
    answers = np.array([y, [0, 1, 0.5, 0.5], [0, 2 / 3, 2 / 3, 2 / 3], [0.5] * 4])
    half_squares = 0.5 * np.square(answers - y).mean(axis=1)
    assert xor.level("mean_squared_error", half_squares).tolist() == list(xor.NAMES[:4])
    a = np.clip(answers, 1e-12, 1 - 1e-12)
    entropy = -(y * np.log(a) + (1 - y) * np.log(1 - a)).mean(axis=1)
    assert xor.level("binary_cross_entropy", entropy).tolist() == list(xor.NAMES[:4])
    assert xor.level("mean_squared_error", np.array([0.03, np.nan])).tolist() == ["between", "between"]


def restarts(solved=0.5, outcome="at infinity", polished="at infinity", widths=xor.WIDTHS, level=None):
    parts = []
    for activation, loss in xor.RATES:
        for width in widths:
            share = solved(width) if callable(solved) else solved
            good = np.arange(1000) < 1000 * share
            frame = pd.DataFrame({"activation": activation, "loss": loss, "hidden": width, "seed": range(1000)})
            frame["run_id"], frame["cell"] = f"{activation}-{loss}-{width}", "cell"
            frame["net"], frame["epochs"] = f"{activation} 2-{width}-1", 1
            frame["solved"], frame["loss_level"] = good * 1.0, level or np.where(good, xor.NAMES[0], xor.NAMES[1])
            parts.append(frame.assign(outcome=outcome, polished=polished))
    return pd.concat(parts, ignore_index=True)


def published(shares=xor.PUBLISHED):
    parts = []
    for (activation, loss), share in shares.items():
        rows = {"activation": activation, "loss": loss, "seed": range(1000), "solved": np.arange(1000) < 1000 * share}
        parts.append(pd.DataFrame(rows))
    return pd.concat(parts)


def test_claims_follow_from_levels_and_certificates():
    claims = declared(yaml.safe_load((PATH.parent / "claims" / "xor.yaml").read_text()))
    table = restarts(lambda width: 0.99 if width == 8 else 0.5)
    relu = table["activation"] == "relu"
    table.loc[relu, ["outcome", "polished"]] = "flat minimum"
    assert {row.verdict for row in judge(claims, xor.claimed(table, published()))} == {"supported"}
    worse = restarts(lambda width: 0.5 if width == 8 else 0.99, polished="flat minimum", level="between")
    worse.loc[worse["activation"] == "relu", "outcome"] = "non-smooth"
    found = judge(claims, xor.claimed(worse, published({key: 0.5 for key in xor.PUBLISHED})))
    assert {row.verdict for row in found} == {"not supported"}
    few = xor.claimed(restarts(widths=(2,)), published().head(0))
    assert set(few.values()) == {None}


def test_the_best_of_k_is_solved_unless_all_of_them_fail():
    table = xor.best_of_table(restarts(0.2, widths=(2,)))
    chosen = table[(table["loss"] == "mean_squared_error") & (table["activation"] == "tanh")].set_index("k")
    assert chosen.loc[1, "estimate"] == pytest.approx(0.2)
    assert chosen.loc[3, "estimate"] == pytest.approx(1 - 0.8**3)
    assert (chosen["low"] < chosen["estimate"]).all()
    assert (chosen["high"] > chosen["estimate"]).all()
    assert (table["net"] == "2-2-1").all()
