import numpy as np
import pandas as pd
import pytest
from shared import script

from descentlab.analysis import verdicts
from descentlab.nn.activations import relu
from descentlab.nn.losses import LOSSES
from descentlab.nn.network import Network, predict
from descentlab.nn.parameters import Parameters
from descentlab.studies.study import declared_claims

barriers = script("barriers")
WIDTHS = (2, 5, 10, 25, 50, 100, 250)


def made_up(exponent=-0.5, seed=0):
    """Barriers of 100 pairs by a power of the width, the matched ones a fifth of the raw ones."""
    generator = np.random.default_rng(seed)
    parts = []
    for width in WIDTHS:
        n = 100 if width < 100 else 50
        raw = width**exponent * np.exp(0.1 * generator.normal(size=n))
        for kind, value in (("raw", raw), ("matched", 0.2 * raw * np.exp(0.1 * generator.normal(size=n)))):
            columns = {"width": width, "split": "train", "kind": kind, "pair": np.arange(n), "barrier": value}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def test_each_pairs_barrier_is_its_highest_rise_above_the_chord():
    t = np.linspace(0, 1, 5)
    rows = [
        pd.DataFrame({"width": 5, "split": "train", "kind": kind, "pair": 0, "t": t, "loss": loss})
        for kind, loss in (("raw", [1.0, 2.0, 4.0, 2.0, 1.0]), ("matched", [1.0, 1.1, 1.2, 1.1, 1.0]))
    ]
    found = barriers.barrier_of_each_pair(pd.concat(rows)[::-1]).set_index("kind")["barrier"]
    assert found["raw"] == 3.0
    assert found["matched"] == pytest.approx(0.2)


def test_the_exponent_of_a_power_law_is_found_in_blocks_that_share_no_pair():
    pairs = made_up(-0.6)
    slopes = barriers.block_slopes(pairs[pairs["kind"] == "raw"])
    assert len(slopes) == 10
    assert slopes.mean() == pytest.approx(-0.6, abs=0.02)
    gone = pairs[pairs["kind"] == "raw"].assign(barrier=lambda rows: rows["barrier"] * (rows["pair"] % 10 > 0))
    assert np.isfinite(barriers.block_slopes(gone)).tolist() == [False] + [True] * 9


def test_ends_aligned_to_the_first_answer_as_they_did():
    network = Network((3, 6, 4), relu(), "softmax", LOSSES["categorical_cross_entropy"])
    three = Parameters.empty(network.layers, 3, "float64")
    three.flat[...] = np.random.default_rng(0).normal(size=three.flat.shape)
    aligned = barriers.align(network, three)
    x = np.random.default_rng(1).normal(size=(20, 3))
    np.testing.assert_allclose(predict(network, aligned, x), predict(network, three, x), rtol=1e-9, atol=1e-12)


def test_the_claims_have_values_for_every_case_and_can_be_decided():
    claims = declared_claims("barriers")
    verdicts.check(claims)
    pairs = made_up()
    fits = {kind: barriers.block_slopes(pairs[pairs["kind"] == kind]) for kind in barriers.KINDS}
    assert set(verdicts.scores(verdicts.judge(claims, barriers.claimed(pairs, fits))).values()) == {1}
