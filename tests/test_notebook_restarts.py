"""experiments/notebook_restarts.py: what a choice buys, bands, and the values of its claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from descentlab.analysis.verdicts import declared, judge
from descentlab.config.composing import compose

PATH = Path(__file__).resolve().parents[1] / "experiments" / "notebook_restarts.py"
spec = importlib.util.spec_from_file_location("notebook_restarts", PATH)
notebook_restarts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebook_restarts)


def restarts(link=0.5, n=1000, centre=0.8):
    """Restarts whose true accuracy and training loss go together by `link`; the 50 test images add their noise."""
    rng = np.random.default_rng(0)
    loss, own, noise = rng.normal(size=(3, n))
    fresh = centre + 0.01 * (own - link * loss)
    test = np.round(50 * (fresh + 0.05 * noise)) / 50
    columns = {"train/loss": loss, "fresh_accuracy": fresh, "test/accuracy": test, "validation/accuracy": test}
    return pd.DataFrame({"seed": range(n), **columns})


def test_what_a_choice_buys_is_seen_on_images_that_did_not_choose():
    table = notebook_restarts.best_of_table(restarts(link=0.0)).set_index(["chosen", "k"])["estimate"]
    assert table["by the 50, on the same 50", 20] > table["by the 50, on the same 50", 1] + 0.05
    assert table["by training loss, on new images", 20] == pytest.approx(0.8, abs=0.003)
    linked = notebook_restarts.best_of_table(restarts(link=2.0)).set_index(["chosen", "k"])
    assert linked.loc[("by training loss, on new images", 20), "estimate"] > 0.83
    assert (linked["low"] <= linked["estimate"]).all()
    assert (linked["high"] >= linked["estimate"]).all()


def test_the_gain_of_a_group_is_its_kept_restart_less_its_mean():
    table = pd.DataFrame({"seed": [3, 2, 1, 0], "train/loss": [1, 2, 4, 3], "fresh_accuracy": [0.9, 0.7, 0.5, 0.6]})
    assert notebook_restarts.gains(table, 2) == pytest.approx([0.05, 0.1])


def test_a_band_holds_ninety_of_a_hundred_and_each_printed_run_stands_beside_those_on_its_own_images():
    epochs = [0, 5, 25]
    rows = [(f"{m}/accuracy", e, s, (e + s) / 1000) for m in ("test", "validation") for e in epochs for s in range(101)]
    curves = pd.DataFrame(rows, columns=["metric", "epoch", "seed", "value"])
    band = notebook_restarts.band_table(curves, printed=True).set_index(["images", "run", "epoch"])
    own, other = "t10k rows 0-49", "training rows 250-299"
    assert band.loc[(own, "mean of the restarts", 25), ["low", "high"]].tolist() == pytest.approx([0.03, 0.12])
    assert band.loc[(own, "printed run", 5), "estimate"] == 0.66
    assert band.loc[(own, "printed run", 25), "estimate"] == 0.86
    assert band.loc[(other, "printed run", 5), "estimate"] == 0.64
    assert band.loc[(other, "printed run", 25), "estimate"] == 0.80
    assert len(notebook_restarts.band_table(curves[curves["metric"] == "test/accuracy"], printed=False)) == 3


def test_the_restarts_split_holds_the_test_images_of_both_runs_and_fresh_images_none_of_them():
    cell = compose([], "notebook_restarts")[0]
    rows = {split: cell.data.numbers[f"{split}_rows"] for split in ("train", "validation", "test")}
    assert rows == {"train": "0:250", "validation": "250:300", "test": "60000:60050"}
    (fresh,) = compose(notebook_restarts.FRESH["mnist"], sweep=False)
    assert fresh.data.numbers["test_rows"] == "60050:62050"


def test_claims_follow_from_the_restarts():
    claims = declared(yaml.safe_load((PATH.parent / "claims" / "notebook_restarts.yaml").read_text()))
    rows = judge(
        claims,
        notebook_restarts.claimed(restarts(link=0.5).assign(**{"test/accuracy": restarts()["fresh_accuracy"] + 0.03})),
    )
    verdicts = {(row.claim, row.case): row.verdict for row in rows}
    assert verdicts["keeping_the_best_helps", ""] == verdicts["and_helps_little", ""] == "supported"
    assert verdicts["most_restarts_do_well", ""] == "supported"
    far = judge(claims, notebook_restarts.claimed(restarts(link=9.0, centre=0.5)))
    verdicts = {(row.claim, row.case): row.verdict for row in far}
    assert verdicts["printed_runs_are_ordinary", "ends at 0.86 on t10k rows 0-49"] == "not supported"
    assert verdicts["and_helps_little", ""] == verdicts["most_restarts_do_well", ""] == "not supported"
    assert set(notebook_restarts.claimed(None).values()) == {None}
