import itertools

import numpy as np
import pandas as pd
import pytest
from shared import script

from descentlab.analysis import verdicts
from descentlab.studies.study import declared_claims

local_minima = script("local_minima")
WIDTHS = (2, 5, 10, 25, 50, 100, 250)


def made_up(exponent=-0.5, restarts=200, few=100, noise=0.0, seed=0, widths=WIDTHS):
    """Restarts whose test loss is spread by width^exponent around .2, and follows the training loss up to noise."""
    generator = np.random.default_rng(seed)
    parts = []
    for width in widths:
        n = restarts if width < 100 else few
        train = 0.2 + 0.1 * width**exponent * generator.normal(size=n)
        test = train + noise * generator.normal(size=n)
        columns = {"width": width, "seed": np.arange(n), "train/loss": train, "test/loss": test}
        columns |= {"validation/loss": train, "test/accuracy": 0.9 + 0.01 * np.log10(width) - 0.05 * (test - 0.2)}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def test_the_exponent_of_a_power_law_is_found_in_blocks_that_share_no_restart():
    fits = local_minima.block_slopes(made_up(-0.7))
    assert len(fits) == 10
    assert fits["slope"].mean() == pytest.approx(-0.7, abs=0.05)
    assert fits["slope"].std() > 0
    table = local_minima.slope_table(made_up(-0.7)).set_index("from_width")
    assert table["declared"].tolist() == [False, True, False, False, False]
    assert table.loc[5, "slope_low"] < -0.7 < table.loc[5, "slope_high"]


def test_what_performs_well_is_counted_against_the_expected_best_of_twenty():
    restarts = made_up(widths=(5,), restarts=60)
    restarts["test/accuracy"] = np.linspace(0.80, 0.918, 60)
    restarts["validation/loss"] = -restarts["test/accuracy"]
    shares = local_minima.performing_well(restarts).set_index(["n", "margin"])
    expected = 0.80 + 0.002 * (20 / 21 * 61 - 1)  # the largest of 20 out of 60 has mean rank 20 * 61 / 21
    found = shares.loc[(60, 0.01)]
    assert found["best_of_20_error"] == pytest.approx(1 - expected)
    assert found["estimate"] == pytest.approx(np.mean(restarts["test/accuracy"] >= expected - 0.01))
    assert set(shares.index.get_level_values("n")) == {20, 50, 60}
    assert bool(found["most"]) == (found["low"] > 0.5)


def test_a_restart_that_diverged_does_not_perform_well():
    restarts = made_up(noise=0.0)
    restarts.loc[restarts["seed"] < 150, ["test/accuracy", "test/loss", "validation/loss", "train/loss"]] = np.nan
    values = local_minima.claimed(restarts, local_minima.block_slopes(made_up()))
    assert np.isnan(values["most_perform_well"]["width 5"][:150]).all()
    assert (values["most_perform_well"]["width 5"][150:] == 1).all()


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_the_share_near_the_best_is_the_mean_over_all_subsets(count):
    losses = np.array([1.0, 1.05, 1.2, 1.21, 1.3, 2.0, 2.1])
    every = [np.mean(np.array(part) <= 1.1 * min(part)) for part in itertools.combinations(losses, count)]
    assert local_minima.share_near_the_best(losses, count) == pytest.approx(np.mean(every))


def test_keeping_the_best_gains_what_validation_sees():
    cell = pd.DataFrame({"validation/loss": [3.0, 1, 2, 5, 4, 1, 2, 3, 4, np.nan], "test/accuracy": np.arange(10) / 10})
    np.testing.assert_allclose(local_minima.kept_less_mean(cell), [0.1 - 0.2, 0.5 - 0.7])


def test_correlation_and_ceiling_stand_side_by_side_by_width():
    restarts = made_up(noise=0.005)
    ceilings = pd.DataFrame({"width": WIDTHS, "reliability": np.linspace(1, 0.25, 7)})
    table = local_minima.correlation_table(restarts, ceilings).set_index("width")
    assert table.loc[250, "ceiling"] == pytest.approx(0.5)
    assert table.loc[5, "correlation"] > table.loc[250, "correlation_high"]
    assert (local_minima.block_correlations(restarts)[5] > local_minima.block_correlations(restarts)[100]).all()


def test_the_curve_of_the_best_rises_within_its_interval():
    curve = local_minima.best_of_k_table(made_up(widths=(5, 25)))
    one = curve[curve["width"] == 5]
    assert one["k"].max() == 80
    assert (np.diff(one["unbiased"]) > 0).all()
    assert ((one["low"] < one["with_replacement"]) & (one["with_replacement"] < one["high"])).all()
    for seed in range(20):  # six restarts, as in the quick form
        curve = local_minima.best_of_k_table(made_up(restarts=6, widths=(5,), seed=seed))
        assert ((curve["low"] < curve["unbiased"]) & (curve["unbiased"] < curve["high"])).all()


def test_the_claims_have_values_for_every_case_and_can_be_decided():
    claims = declared_claims("local_minima")
    verdicts.check(claims)
    restarts = made_up(noise=0.002)
    rows = verdicts.judge(claims, local_minima.claimed(restarts, local_minima.block_slopes(restarts)))
    scores = verdicts.scores(rows)
    assert scores["correlation_falls"] == scores["wider_is_better"] == scores["most_perform_well"] == 1
    assert scores["spread_narrows"] == 1
