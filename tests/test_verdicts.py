import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from descentlab.analysis.statistics import (
    equivalence,
    fisher_tails,
    holm,
    paired_difference,
    rate_difference,
    rate_tails,
    smallest_p,
    wilson,
)
from descentlab.analysis.verdicts import Claim, check, declared, judge, scores

CLAIM = {"id": "c", "statement": "s", "family": "f", "metric": "loss", "test": "greater", "n": 30}


def claim(**changes) -> Claim:
    return declared({"claims": [CLAIM | changes]})[0]


def verdict(values, **changes):
    (row,) = judge([claim(**changes)], {"c": values})
    return row


def normal(mean=0.0, n=30, seed=0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, n)


# --- declarations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": "bigger"}, "c: test=bigger: not one of greater, less, equivalent"),
        ({"test": "equivalent"}, "c: margin is missing"),
        ({"test": "equivalent", "margin": 0}, "c: margin=0: must be above 0"),
        ({"test": "more_often", "margin": 0.1}, "c: margin=0.1: test=more_often has none"),
        ({"test": "rate_above", "margin": 1.0}, "c: margin=1.0: must lie between 0 and 1"),
        ({"n": None}, "c: n is missing"),
        ({"n": 1}, "c: n=1: must be a number from 2"),
        ({"alpha": 2}, "c: alpha=2: must be a number from 0 to 1"),
        ({"better": "big"}, "c: better=big: must be lower or higher"),
        ({"restarts": -1}, "c: restarts=-1: must be a number from 0"),
        ({"step": -1}, "c: step=-1: must be a number from 0"),
        ({"step": 1, "test": "rate_above"}, "c: step=1: goes with test=greater and test=less only"),
        ({"margn": 0.1}, "c: margn=0.1: unknown key; not one of id, statement"),
    ],
)
def test_a_claim_that_means_nothing_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        claim(**changes)
    assert "\n" not in str(error.value)


def test_a_claim_is_declared_once_and_shares_the_alpha_of_its_family():
    with pytest.raises(ValueError, match="id=c: is declared twice"):
        declared({"claims": [CLAIM, CLAIM]})
    with pytest.raises(ValueError, match="claims of the family f must share one"):
        declared({"claims": [CLAIM, CLAIM | {"id": "d", "alpha": 0.1}]})
    with pytest.raises(ValueError, match="must hold alpha and claims"):
        declared([CLAIM])


def test_a_family_that_its_seeds_cannot_decide_is_refused_before_the_run():
    # five pairs reach p = 2 / 32 = .0625; seven reach .0156, enough for three comparisons at .05 and not for four
    with pytest.raises(ValueError, match=r"c: n=5: wilcoxon cannot go below p = 0.062 .* take at least 6 seeds"):
        check([claim(n=5)])
    check([claim(n=7, cases=3)])
    with pytest.raises(ValueError, match="take at least 8 seeds"):
        check([claim(n=7, cases=4)])
    with pytest.raises(ValueError, match="n=5"):
        check([claim(n=30)], at_most=5)
    with pytest.raises(ValueError, match="rank cannot go below"):
        check([claim(test="within", n=38)])
    with pytest.raises(ValueError, match=r"fisher cannot go below p = 0.1 .* take at least 4 seeds"):
        check([claim(test="more_often", margin=0.0, n=3)])
    check([claim(test="more_often", margin=0.0, n=5000)])
    check([claim(test="within", n=39), claim(id="d", family="g", test="equivalent", margin=1, n=2)])


def test_a_family_counts_the_cases_of_all_its_claims():
    check([claim(n=7, cases=3), claim(id="d", family="other", n=7, cases=3)])
    with pytest.raises(ValueError, match="n=7"):
        check([claim(n=7, cases=3), claim(id="d", n=7, cases=3)])


def test_a_rate_that_no_outcome_could_show_is_refused():
    # 30 of 30 give p = 2 x .9^30 = .085 against a rate of .9, 36 of 36 give .045
    assert smallest_p(30, "binomial", 0.9) == pytest.approx(2 * 0.9**30)
    best = verdict(np.ones(30), test="rate_above", margin=0.9)
    assert (best.p, best.verdict) == (pytest.approx(smallest_p(30, "binomial", 0.9)), "undecided")
    with pytest.raises(ValueError, match=r"c: n=30: binomial cannot go below p = 0.085 .* take at least 36 seeds"):
        check([claim(test="rate_above", margin=0.9)])
    check([claim(test="rate_above", margin=0.9, n=36)])
    assert verdict(np.ones(36), test="rate_above", margin=0.9, n=36).verdict == "supported"
    with pytest.raises(ValueError, match=r"n=30: .* take at least 36 seeds"):
        check([claim(test="rate_below", margin=0.1)])
    check([claim(test="rate_above", margin=0.1, n=2)])
    with pytest.raises(ValueError, match="take at least 36887 seeds"):
        check([claim(test="rate_below", margin=0.0001)])


def test_a_count_of_groups_is_compared_with_the_restarts_that_they_take():
    groups = claim(n=20, restarts=100)  # groups of five
    check([groups], at_most=30)
    with pytest.raises(ValueError, match=r"c: n=5: .* take at least 6 seeds"):
        check([groups], at_most=29)
    check([claim(n=1000, restarts=250)], at_most=2)  # four cells pooled
    check([claim(n=60, restarts=0)], at_most=2)  # rounds of a measurement


@pytest.mark.parametrize(
    ("test", "margin", "included", "excluded"),
    [("greater", 1, 0.5, 1.5), ("less", -1, -0.5, -1.5), ("less", 0, 0.5, -0.5)],
)
def test_a_margin_at_which_counted_values_lie_is_refused(test, margin, included, excluded):
    message = f"c: margin={margin}: is a value that a step of 1 can give; declare margin={included:g} to include it "
    with pytest.raises(ValueError, match=f"{message}or margin={excluded:g} to exclude it"):
        claim(test=test, margin=margin, step=1)
    one_epoch = np.full(30, float(margin))
    assert verdict(one_epoch, test=test, margin=margin).p == 1  # without a declared step
    assert verdict(one_epoch, test=test, margin=included, step=1).verdict == "supported"
    assert verdict(one_epoch, test=test, margin=excluded, step=1).verdict == "not supported"


# --- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "changes", "expected"),
    [
        (normal(2), {}, "supported"),
        (normal(-2), {}, "not supported"),
        (normal(0), {}, "undecided"),
        (normal(2), {"test": "less"}, "not supported"),
        (normal(-2), {"test": "less"}, "supported"),
        (normal(2), {"margin": 1.0}, "supported"),
        (normal(2), {"margin": 3.0}, "not supported"),
        ((normal(3), normal(1)), {}, "supported"),
        (normal(0, sd=0.1), {"test": "equivalent", "margin": 0.1}, "supported"),
        (normal(1, sd=0.1), {"test": "equivalent", "margin": 0.1}, "not supported"),
        (normal(0.1, sd=0.1), {"test": "equivalent", "margin": 0.1}, "undecided"),
        (np.arange(30) < 27, {"test": "rate_above"}, "supported"),
        (np.arange(30) < 17, {"test": "rate_above"}, "undecided"),
        (np.arange(30) < 3, {"test": "rate_above"}, "not supported"),
        (np.arange(30) < 3, {"test": "rate_below"}, "supported"),
        (np.arange(30) < 3, {"test": "rate_below", "margin": 0.01}, "not supported"),
        ((np.arange(30) < 27, np.arange(30) < 9), {"test": "more_often"}, "supported"),
        ((np.arange(30) < 17, np.arange(30) < 15), {"test": "more_often"}, "undecided"),
        ((np.arange(30) < 2, np.arange(30) < 25), {"test": "more_often"}, "not supported"),
        ((normal(n=300), 0.3), {"test": "within", "n": 300}, "not contradicted"),
        ((normal(n=300), 1.9), {"test": "within", "n": 300}, "undecided"),  # beyond the band, and not so rare
        ((normal(n=300), 5.0), {"test": "within", "n": 300}, "not supported"),
    ],
)
def test_a_claim_is_supported_or_not_or_undecided(values, changes, expected):
    assert verdict(values, **changes).verdict == expected


def test_the_figures_of_a_row_are_those_of_the_tests_of_statistics():
    a, b = normal(0.5), normal(0, seed=1)
    row, direct = verdict((a, b)), paired_difference(a, b, "higher")
    assert (row.p, row.n, row.diverged) == (direct.p_value, 30, 0)
    assert (row.estimate, row.low, row.high) == (
        direct.difference.estimate,
        direct.difference.low,
        direct.difference.high,
    )
    row, direct = verdict(a, test="equivalent", margin=1.0), equivalence(a, 1.0)
    assert (row.p, row.p_against, row.low, row.confidence) == (direct.p_within, direct.p_beyond, direct.mean.low, 0.9)
    row, direct = verdict(a > 0, test="rate_above"), wilson(int((a > 0).sum()), 30)
    assert (row.estimate, row.low, row.high) == (direct.estimate, direct.low, direct.high)
    assert row.p == min(1.0, 2 * rate_tails(int((a > 0).sum()), 30)[0])


def test_a_row_excludes_its_margin_exactly_where_its_test_speaks():
    rng = np.random.default_rng(3)
    for draw in (rng.exponential, rng.lognormal, lambda size: rng.integers(0, 4, size).astype(float)):
        for margin in (0.5, 1.0, 1.5):
            for test in ("greater", "less"):
                row = verdict(draw(size=30), test=test, margin=margin)
                excluded = not row.low <= margin <= row.high
                assert excluded == (row.verdict != "undecided")
                assert excluded == (min(row.p, row.p_against) <= 0.05)


def test_holm_runs_over_all_cases_of_a_family_and_over_no_other():
    claims = [claim(cases=2), claim(id="d"), claim(id="e", family="g")]
    samples = [normal(0.45, seed=seed) for seed in range(4)]
    rows = judge(claims, {"c": {"x": samples[0], "y": samples[1]}, "d": samples[2], "e": samples[3]})
    assert [(row.claim, row.case) for row in rows] == [("c", "x"), ("c", "y"), ("d", ""), ("e", "")]
    assert [row.p_holm for row in rows[:3]] == holm([row.p for row in rows[:3]]).tolist()
    assert rows[3].p_holm == rows[3].p
    assert max(row.p_holm for row in rows[:3]) > max(row.p for row in rows[:3])


def test_what_was_not_measured_is_undecided_and_still_counts_in_its_family():
    p = verdict(normal(0.5)).p
    rows = judge([claim(), claim(id="d", cases=3)], {"c": normal(0.5), "d": None})
    assert [(row.verdict, row.n) for row in rows[1:]] == [("undecided", 0)]
    assert rows[0].p_holm == pytest.approx(4 * p)
    assert scores(rows)["d"] == 0


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        (normal(0.3, n=60), {}),
        ((normal(0.3, n=60), normal(n=60, seed=1)), {"test": "less"}),
        (normal(n=60), {"test": "equivalent", "margin": 0.3}),
        (np.arange(60) > 20, {"test": "rate_above"}),
        ((np.arange(60) > 20, np.arange(60) > 25), {"test": "more_often"}),
        ((normal(n=60), 1.9), {"test": "within"}),
    ],
)
def test_the_first_n_declared_seeds_decide_however_many_there_are(values, changes):
    halves = values[:30]
    if isinstance(values, tuple):
        halves = tuple(part if np.isscalar(part) else part[:30] for part in values)
    assert dataclasses.astuple(verdict(values, **changes)) == pytest.approx(
        dataclasses.astuple(verdict(halves, **changes)), nan_ok=True
    )
    assert verdict(values, **changes).n == 30


def test_looking_again_at_more_seeds_decides_nothing():
    # a look at 30, 40 .. 200 seeds would decide 20 % of comparisons without a difference, in place of 5 %
    for sample in np.random.default_rng(9).normal(size=(20, 200)):
        assert len({verdict(sample[:n]).verdict for n in range(30, 201, 10)}) == 1


def test_values_that_come_in_no_order_of_seeds_all_decide():
    row = verdict(np.arange(300) < 200, test="rate_above", restarts=0)
    assert (row.n, row.estimate) == (300, pytest.approx(2 / 3))


def test_fewer_values_than_declared_decide_nothing():
    assert verdict(normal(5, n=29)).verdict == "undecided"


def test_a_diverged_restart_ranks_worst_fails_a_rate_and_leaves_equivalence_open():
    a = normal(2)
    a[:12] = np.nan
    assert verdict(normal(2)).verdict == "supported"
    assert verdict(a).verdict == "undecided"
    assert verdict(a).diverged == 12
    assert verdict(np.where(np.isfinite(a), 1.0, np.nan), test="rate_above", margin=0.3).estimate == 18 / 30
    assert verdict(np.where(np.isfinite(a), 0.0, np.nan), test="rate_below", margin=0.3).estimate == 12 / 30
    assert verdict(np.where(np.isfinite(a), 0.0, np.nan), test="equivalent", margin=1).verdict == "undecided"


@pytest.mark.parametrize(("better", "published"), [("higher", 1.0), ("lower", -1.0)])
def test_a_diverged_simulation_ranks_worst_among_those_a_published_value_is_held_against(better, published):
    simulated = normal(n=300)
    simulated[4:] = np.nan
    row = verdict((simulated, 0.3), test="within", better=better, n=300)
    assert (row.verdict, row.n, row.diverged) == ("not supported", 300, 296)
    worst = -np.inf if better == "higher" else np.inf
    assert (row.low, row.high) == (worst, worst)
    few = normal(n=300)
    assert verdict((few, published), test="within", better=better, n=300).verdict == "not contradicted"
    few[:60] = [np.nan, np.inf, -np.inf] * 20
    assert verdict((few, published), test="within", better=better, n=300).verdict == "not contradicted"


def test_nothing_is_held_against_simulations_that_are_missing_or_by_a_number_that_is():
    for values in ((normal(n=300), np.nan), (np.zeros((0,)), 0.3)):
        with pytest.raises(ValueError, match="c: test=within takes a list of simulated values and a published number"):
            verdict(values, test="within")


def test_values_must_be_those_that_were_declared():
    with pytest.raises(ValueError, match="d: is not a declared claim"):
        judge([claim()], {"c": normal(), "d": normal()})
    with pytest.raises(ValueError, match="c: is declared and has no values"):
        judge([claim()], {})
    with pytest.raises(ValueError, match="c: has 1 cases, and 2 are declared"):
        judge([claim(cases=2)], {"c": normal()})
    with pytest.raises(ValueError, match="c: needs one value each per seed"):
        verdict((normal(), normal(n=29)))
    with pytest.raises(ValueError, match="true or false"):
        verdict(normal(), test="rate_above")


def test_the_score_of_a_claim_is_that_of_its_worst_case():
    rows = judge([claim(cases=2), claim(id="d")], {"c": {"x": normal(3), "y": normal(-3)}, "d": normal(3)})
    assert scores(rows) == {"c": -1, "d": 1}
    within = claim(id="e", test="within", n=300)
    assert scores(judge([within], {"e": (normal(n=300), 0.3)})) == {"e": 0.5}
    assert [dataclasses.asdict(row) for row in rows] == [row.as_dict() for row in rows]


def test_a_false_claim_is_supported_no_more_often_than_alpha():
    rng = np.random.default_rng(5)
    wrong = [verdict(rng.normal(0, 1, 30)).verdict for _ in range(1000)]
    assert wrong.count("supported") <= 40  # two-sided: .025 in each direction
    assert wrong.count("not supported") <= 40
    edge = [verdict(rng.normal(1, 1, 30), test="equivalent", margin=1.0).verdict for _ in range(1000)]
    assert edge.count("supported") <= 70


# --- the tests that statistics holds for this ----------------------------------------------------------------------


def test_equivalence_is_scipys_two_one_sided_tests_and_its_interval_decides_it():
    for seed in range(20):
        x = normal(0.3, n=12, seed=seed)
        found = equivalence(x, 0.6)
        lower = stats.ttest_1samp(x, -0.6, alternative="greater").pvalue
        upper = stats.ttest_1samp(x, 0.6, alternative="less").pvalue
        assert found.p_within == pytest.approx(max(lower, upper))
        assert (found.p_within <= 0.05) == (-0.6 <= found.mean.low and found.mean.high <= 0.6)
        beyond = min(
            stats.ttest_1samp(x, side * 0.6, alternative=way).pvalue for side, way in ((1, "greater"), (-1, "less"))
        )
        assert found.p_beyond == pytest.approx(min(1.0, 2 * beyond))


def test_equivalence_of_values_that_do_not_vary_is_plain_arithmetic():
    assert (equivalence([0.1, 0.1], 0.2).p_within, equivalence([0.1, 0.1], 0.2).p_beyond) == (0, 1)
    assert (equivalence([0.3, 0.3], 0.2).p_within, equivalence([0.3, 0.3], 0.2).p_beyond) == (1, 0)
    with pytest.raises(ValueError, match="margin=0"):
        equivalence([1.0, 2.0], 0)


def test_rate_tails_are_sums_of_the_binomial_distribution():
    for successes, n, rate in ((0, 10, 0.5), (7, 10, 0.5), (10, 10, 0.3), (3, 25, 0.2)):
        chance = [math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)]
        assert rate_tails(successes, n, rate) == pytest.approx((sum(chance[successes:]), sum(chance[: successes + 1])))
    with pytest.raises(ValueError, match="rate=1"):
        rate_tails(1, 2, 1)


def test_fisher_tails_are_sums_of_the_hypergeometric_distribution_and_the_interval_of_the_difference_is_newcombes():
    for a, n_a, b, n_b in ((34, 40, 0, 40), (3, 7, 5, 9), (0, 5, 0, 5), (6, 6, 2, 11)):
        ways = [math.comb(n_a, k) * math.comb(n_b, a + b - k) if k <= a + b else 0 for k in range(n_a + 1)]
        expected = sum(ways[a:]) / sum(ways), sum(ways[: a + 1]) / sum(ways)
        assert fisher_tails((a, b), (n_a, n_b)) == pytest.approx(expected)
    found = rate_difference((56, 48), (70, 80))  # Newcombe 1998, table II (a), method 10
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    with pytest.raises(ValueError, match=r"successes=\(3, 0\)"):
        fisher_tails((3, 0), (2, 1))


def test_a_diverged_restart_speaks_against_being_true_more_often():
    lost = np.array([1.0, np.nan, 1.0, 0.0] * 10)
    row = verdict((lost, lost), test="more_often", n=40)
    assert (row.diverged, row.estimate) == (20, pytest.approx(-0.25))


def test_one_sided_signed_rank_p_values_are_scipys_and_a_margin_shifts_the_difference():
    a, b = normal(0.4, n=15), normal(0, n=15, seed=1)
    found = paired_difference(a, b, margin=0.2)
    for way, p in (("greater", found.p_greater), ("less", found.p_less)):
        assert p == pytest.approx(stats.wilcoxon(a - b - 0.2, alternative=way, mode="exact").pvalue)
    assert found.difference == paired_difference(a, b).difference
    assert found.p_value == pytest.approx(min(1.0, 2 * min(found.p_greater, found.p_less)))
