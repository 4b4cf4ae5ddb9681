import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from descentlab.analysis.statistics import (
    Interval,
    best_of_k,
    best_of_k_interval,
    bootstrap_interval,
    check_family,
    compare_arms,
    correlation_interval,
    dip_test,
    equivalence,
    holm,
    interquartile_mean,
    mean_interval,
    mean_intervals,
    metric_bounds,
    paired_difference,
    probability_of_improvement,
    quantile_interval,
    reliability,
    select_best_of_k,
    smallest_p,
    spread_interval,
    wilson,
)
from descentlab.nn.initializers import STATISTICS_STREAM, stream

SAMPLE = np.random.default_rng(0).lognormal(size=12)
DIVERGED = [math.nan, math.inf, -math.inf]


def limits(interval):
    return interval.low, interval.high


# Student's interval


def test_student_interval_is_the_closed_form():
    # mean 3, sd sqrt(2.5), t(.975; 4) = 2.7764451 -> 3 -+ 2.7764451 * sqrt(2.5 / 5)
    interval = mean_interval([1, 2, 3, 4, 5])
    assert (interval.estimate, interval.n) == (3.0, 5)
    assert limits(interval) == pytest.approx((3 - 1.9632432, 3 + 1.9632432), abs=1e-7)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_student_interval_agrees_with_scipy(confidence):
    theirs = scipy.stats.ttest_1samp(SAMPLE, 0).confidence_interval(confidence)
    assert limits(mean_interval(SAMPLE, confidence)) == pytest.approx(tuple(theirs), rel=1e-12)


def test_one_restart_has_an_unbounded_interval():
    assert mean_interval([0.8]) == Interval(0.8, -math.inf, math.inf, 1)


@pytest.mark.parametrize("lost", DIVERGED)
def test_a_mean_over_a_diverged_restart_is_refused(lost):
    with pytest.raises(ValueError, match=r"^values\[1\]=-?(nan|inf): must be finite[^\n]*$"):
        mean_interval([1.0, lost, 2.0])


def test_a_mean_of_huge_values_does_not_overflow():
    small = [3.0, 5.0, 10.0]
    huge = mean_interval(np.ldexp(small, 1020))
    assert (huge.estimate, *limits(huge)) == tuple(np.ldexp([6.0, *limits(mean_interval(small))], 1020))
    assert mean_interval([1e308, 1.5e308]).estimate == 1.25e308
    assert mean_intervals([[3e153, 9e153, 6e153]]).sd[0] == pytest.approx(3e153)


def test_no_statistic_overflows_or_underflows():
    generator = np.random.default_rng(12)
    a, b = generator.lognormal(size=(2, 40))
    for size in (2.0**1000, 2.0**-600):
        huge, plain = spread_interval(size * a), spread_interval(a)
        assert (huge.estimate, *limits(huge)) == pytest.approx(
            tuple(size * part for part in (plain.estimate, *limits(plain)))
        )
        assert correlation_interval(size * a, b / size) == correlation_interval(a, b)
        assert reliability(size * np.stack([a, b])) == reliability(np.stack([a, b]))
        huge, plain = equivalence(size * (a - 1), size), equivalence(a - 1, 1.0)
        assert (huge.p_within, huge.p_beyond) == (plain.p_within, plain.p_beyond)
        huge, plain = paired_difference(size * a, size * b), paired_difference(a, b)
        assert huge.p_value == plain.p_value
        assert huge.difference.estimate == pytest.approx(size * plain.difference.estimate, rel=1e-9)
        assert (best_of_k(size * a, 5), quantile_interval(size * a).high) == (
            pytest.approx(size * best_of_k(a, 5)),
            size * quantile_interval(a).high,
        )
    assert spread_interval([-1.5e308, 1.5e308]).estimate == math.inf  # 2.1e308 is beyond the largest float


@pytest.mark.parametrize("value", [0.1, 0.3 / 0.7, 1e-300])
def test_equal_values_have_a_standard_deviation_of_exactly_0(value):
    means = mean_intervals(np.full((1, 7), value))
    assert (means.mean[0], means.sd[0], means.low[0], means.high[0]) == (value, 0.0, value, value)
    assert spread_interval(np.full(7, value)).estimate == 0.0
    assert equivalence(np.full(7, value), 2.0).mean == Interval(value, value, value, 7)


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("train/loss", [0.01, 0.02, 5.0]),
        ("test/accuracy", [0.98, 1.0, 0.5]),
        ("test/accuracy", [0.0, 0.02, 0.0]),
        ("test/auc", [0.0, 1.0]),
        ("test/r2", [0.99, 0.5, -3.0]),
        ("r2", [0.999, -40.0]),
    ],
)
def test_an_interval_stays_within_what_its_metric_can_be(metric, values):
    least, most = metric_bounds(metric)
    plain, interval = mean_interval(values), mean_interval(values, bounds=metric_bounds(metric))
    assert plain.low < least or plain.high > most
    assert least < interval.low < interval.estimate < interval.high < most
    assert interval.estimate == plain.estimate


def test_an_interval_that_lies_within_the_bounds_is_students():
    values = [0.9, 0.92, 0.95]
    assert mean_interval(values, bounds=(0, 1)) == mean_interval(values)
    assert mean_interval([1.0, 1.0], bounds=(0, 1)) == Interval(1.0, 1.0, 1.0, 2)
    assert mean_interval([0.8], bounds=(0, 1)) == Interval(0.8, 0.0, 1.0, 1)
    assert metric_bounds("delta_norm/layer_1") == (-math.inf, math.inf)


def test_a_limit_that_would_reach_a_bound_is_the_delta_methods_on_a_log_or_logit_scale():
    loss = np.array([0.01, 0.02, 5.0])
    mean, half = loss.mean(), scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(loss)
    expected = mean * math.exp(-half / mean), mean + half
    assert limits(mean_interval(loss, bounds=(0, math.inf))) == pytest.approx(expected)
    assert limits(mean_interval(1 - loss, bounds=(-math.inf, 1))) == pytest.approx((1 - expected[1], 1 - expected[0]))
    share = np.array([0.98, 1.0, 0.5])
    mean, half = share.mean(), scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(share)
    logit = scipy.special.logit(mean) + half / (mean * (1 - mean)) * np.array([-1, 1])
    assert limits(mean_interval(share, bounds=(0, 1))) == pytest.approx(tuple(scipy.special.expit(logit)))


def test_two_values_of_different_size_do_not_make_an_absurd_interval():
    assert limits(mean_interval([0.001, 0.5], bounds=(0, math.inf))) == pytest.approx((8e-7, 3.42), rel=0.05)


def test_rows_leave_out_what_is_not_finite_and_have_no_interval_below_two_values():
    rows = np.array([[1.0, 2.0, 6.0], [1.0, math.nan, 2.0], [math.inf, math.nan, 4.0], [math.nan] * 3])
    means = mean_intervals(rows)
    assert means.n.tolist() == [3, 2, 1, 0]
    for row, values in ((0, [1.0, 2.0, 6.0]), (1, [1.0, 2.0])):
        one = mean_interval(values)
        assert (means.mean[row], means.low[row], means.high[row]) == (one.estimate, one.low, one.high)
    assert (means.mean[2], math.isnan(means.sd[2]), math.isnan(means.low[2])) == (4.0, True, True)
    assert np.isnan([means.mean[3], means.sd[3], means.high[3]]).all()


@pytest.mark.slow
def test_a_bounded_interval_covers_at_least_as_often_as_students():
    generator = np.random.default_rng(1)
    for draw, mean, bounds, covered in (
        (generator.exponential, 1.0, (0, math.inf), {3: (0.88, 0.88), 5: (0.88, 0.88), 10: (0.90, 0.90)}),
        (
            lambda size: generator.beta(50, 1, size),
            50 / 51,
            (0, 1),
            {3: (0.89, 0.94), 5: (0.89, 0.91), 10: (0.91, 0.91)},
        ),
    ):
        for n, expected in covered.items():
            samples = draw(size=(20_000, n))
            found = [mean_intervals(samples, bounds=limit) for limit in ((-math.inf, math.inf), bounds)]
            rates = [np.mean((one.low <= mean) & (mean <= one.high)) for one in found]
            assert rates == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("values", [[], 3.0, [[1.0, 2.0]]])
def test_a_mean_wants_a_list_of_values(values):
    with pytest.raises(ValueError, match="must be a list of at least 1"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    calls = [
        lambda: mean_interval(SAMPLE, confidence),
        lambda: wilson(3, 10, confidence),
        lambda: interquartile_mean(SAMPLE, confidence=confidence, resamples=10),
        lambda: bootstrap_interval(SAMPLE, confidence=confidence, resamples=10),
        lambda: bootstrap_interval(SAMPLE, method="studentised", confidence=confidence, resamples=10),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            call()


# Spread


def test_spread_interval_is_bonetts_formula():
    n, z, s = 12, scipy.stats.norm.ppf(0.975), SAMPLE.std(ddof=1)
    trimmed = scipy.stats.trim_mean(SAMPLE, 1 / (2 * np.sqrt(n - 4)))
    kurtosis = n * ((SAMPLE - trimmed) ** 4).sum() / ((SAMPLE - SAMPLE.mean()) ** 2).sum() ** 2
    c = n / (n - z)
    error = c * np.sqrt((kurtosis - (n - 3) / n) / (n - 1))
    expected = np.sqrt(np.exp(np.log(c * s**2) + np.array([-z, z]) * error))
    ours = spread_interval(SAMPLE)
    assert (ours.estimate, ours.n) == (s, n)
    assert limits(ours) == pytest.approx(expected, rel=1e-12)


def test_a_spread_takes_the_unit_of_the_values():
    doubled = spread_interval(3 + 2 * SAMPLE)
    assert limits(doubled) == pytest.approx([2 * limit for limit in limits(spread_interval(SAMPLE))])


def test_few_restarts_bound_no_spread_and_equal_ones_have_none():
    assert spread_interval([1.0, 2.0, 3.0]) == Interval(1.0, 0.0, math.inf, 3)
    assert spread_interval([0.5] * 30) == Interval(0.0, 0.0, 0.0, 30)
    with pytest.raises(ValueError, match="at least 2"):
        spread_interval([1.0])


# Paired comparison


def enumerated_p(differences):
    """Wilcoxon's p-value over all 2^n signs, zeros ranked without a side."""
    ranks = scipy.stats.rankdata(np.abs(differences))[np.asarray(differences) != 0]
    observed = ranks[np.asarray(differences)[np.asarray(differences) != 0] > 0].sum()
    sums = [float(np.dot(signs, ranks)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    below, above = np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums])
    return min(1.0, 2 * min(below, above))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_rank_p_counts_every_choice_of_signs(differences):
    ours = paired_difference(np.array(differences, float), np.zeros(len(differences)))
    assert ours.p_value == pytest.approx(enumerated_p(differences), abs=1e-14)


@pytest.mark.parametrize("n", [6, 30, 200])
def test_signed_rank_p_without_ties_is_scipys_exact_one(n):
    generator = np.random.default_rng(n)
    a, b = generator.normal(0.2, 1, n), generator.normal(size=n)
    theirs = scipy.stats.wilcoxon(a, b, method="exact").pvalue
    assert paired_difference(a, b).p_value == pytest.approx(theirs, rel=1e-9)


def walsh_averages(differences):
    return np.sort(np.add.outer(differences, differences)[np.triu_indices(len(differences))] / 2)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (10, 9), (25, 90)])  # Hollander & Wolfe's table: P(T <= k - 1) <= .025
def test_a_paired_difference_is_hodges_lehmanns_with_the_interval_of_the_signed_ranks(n, k):
    generator = np.random.default_rng(n)
    a, b = generator.exponential(size=n), generator.exponential(size=n)
    averages = walsh_averages(a - b)
    ours = paired_difference(a, b).difference
    assert ours.n == n
    assert (ours.estimate, *limits(ours)) == pytest.approx(
        (np.median(averages), averages[k - 1], averages[-k]), abs=1e-11
    )


def test_an_interval_that_five_pairs_cannot_give_is_unbounded():
    assert limits(paired_difference(np.arange(5.0), np.zeros(5)).difference) == (-math.inf, math.inf)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.integers(-3, 3), st.just(math.nan)), min_size=6, max_size=12), st.sampled_from([0.6, 0.9]))
def test_the_interval_excludes_a_margin_exactly_where_the_test_rejects_it(values, confidence):
    a, b = np.array(values, float), np.zeros(len(values))
    seen = []
    for margin in np.arange(-4, 4.25, 0.25):  # all ties of the signed ranks, and places between them
        found = paired_difference(a, b, confidence=confidence, margin=margin)
        excluded = not found.difference.low <= margin <= found.difference.high
        assert excluded == (found.p_value <= 1 - confidence)
        seen.append(found.p_greater)
    assert seen == sorted(seen)


def test_skewed_differences_with_the_margin_as_their_mean_are_judged_as_their_interval_says():
    # the location of exponential values lies below their mean, and the test finds it: so does the interval now
    samples = np.random.default_rng(6).exponential(size=(50, 200))
    found = [paired_difference(sample, np.zeros(200), margin=1.0) for sample in samples]
    below = [one.p_less <= 0.025 for one in found]
    assert below == [one.difference.high < 1.0 for one in found]
    assert not any(one.p_greater <= 0.025 or one.difference.low > 1.0 for one in found)
    assert 0.5 < np.mean(below) < 0.75
    assert np.median([one.difference.estimate for one in found]) < 0.9


def test_beyond_200_pairs_the_normal_distribution_takes_the_place_of_the_exact_one():
    a, b = np.random.default_rng(0).normal([[0.1], [0.0]], 1, (2, 201))
    exact = scipy.stats.wilcoxon(a, b, method="exact").pvalue
    ours = paired_difference(a, b)
    assert ours.p_value == pytest.approx(exact, rel=0.01)
    assert ours.difference.estimate == pytest.approx(np.median(walsh_averages(a - b)), abs=1e-11)
    assert paired_difference(np.zeros(300), np.zeros(300)).p_value == 1.0


@pytest.mark.parametrize("lost", DIVERGED)
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_diverged_restart_ranks_worst(lost, better):
    worst = {"lower": 1e6, "higher": -1e6}[better]
    a, b = np.arange(8.0), np.arange(8.0) + np.linspace(-1, 0.5, 8)
    with_lost, with_worst = a.copy(), a.copy()
    with_lost[2], with_worst[2] = lost, worst
    ours = paired_difference(with_lost, b, better)
    assert ours.p_value == paired_difference(with_worst, b, better).p_value
    assert ours.p_value != paired_difference(np.delete(a, 2), np.delete(b, 2), better).p_value
    assert paired_difference(b, with_lost, better).p_value == ours.p_value
    assert (ours.n, ours.diverged) == (8, (1, 0))
    averages = walsh_averages(np.where(np.arange(8) == 2, {"lower": math.inf, "higher": -math.inf}[better], a - b))
    assert ours.difference.estimate == pytest.approx(np.median(averages))
    assert ours.difference.n == 8


def test_an_arm_that_always_diverges_loses_as_clearly_as_n_allows():
    ours = paired_difference(np.full(10, math.nan), np.arange(10.0))
    assert ours.p_value == smallest_p(10) == 2**-9
    assert ours.difference == Interval(math.inf, math.inf, math.inf, 10)


def test_a_pair_of_diverged_restarts_is_a_tie():
    a, b = [1.0, 2.0, 3.0, 9.0, math.nan], [2.0, 4.0, 6.0, 1.0, math.inf]
    ours = paired_difference(a, b)
    assert ours.p_value == enumerated_p([-1, -2, -3, 8, 0])
    assert ours.diverged == (1, 1)


def test_arms_that_all_diverge_do_not_differ():
    assert paired_difference([math.nan] * 4, [math.inf] * 4).p_value == 1.0


def test_rounding_does_not_order_equal_differences_of_accuracies():
    right = np.array([300, 310, 322, 290, 305, 331])
    wrong_side = np.array([298, 308, 320, 292, 301, 329])  # five differences of two images, one of four
    a, b = right / 360, wrong_side / 360
    assert len(set(np.abs(a - b).tolist())) > 2
    assert paired_difference(a, b, "higher").p_value == enumerated_p(right - wrong_side)


def test_arms_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"one value each per seed, not shapes \(3,\) and \(1,\)"):
        paired_difference([1, 2, 3], [1])


def test_an_unknown_direction_is_refused():
    for call in (lambda: paired_difference([1], [2], "up"), lambda: best_of_k([1, 2], 1, "up")):
        with pytest.raises(ValueError, match="better=up: must be lower or higher"):
            call()


# Several arms


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.one_of(st.integers(-2, 2), st.just(math.nan))] * 2), min_size=2, max_size=8))
def test_the_probability_of_improvement_counts_all_pairs_of_restarts(values):
    a, b = np.array(values, float).T
    lost = [np.where(np.isfinite(arm), -arm, -math.inf) for arm in (a, b)]

    def share(first, second):
        return np.mean([0.5 * (x > y) + 0.5 * (x >= y) for x in first for y in second])

    found = probability_of_improvement(a, b)
    assert found.estimate == pytest.approx(share(*lost))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert probability_of_improvement(-b, -a).estimate == pytest.approx(found.estimate) or np.isnan(values).any()
    if 0 < found.estimate < 1:
        left_out = [share(*(np.delete(arm, i) for arm in lost)) for i in range(len(a))]
        half = scipy.stats.t.ppf(0.975, len(a) - 1) * math.sqrt((len(a) - 1) * np.var(left_out))
        inside = 0 < found.estimate - half and found.estimate + half < 1
        assert not inside or found.high == pytest.approx(found.estimate + half)


def test_an_arm_that_always_wins_has_wilsons_limit():
    found = probability_of_improvement(np.arange(10.0), 20 + np.arange(10.0))
    assert found == wilson(10, 10)
    assert probability_of_improvement(np.full(10, math.nan), np.arange(10.0)) == wilson(0, 10)
    assert limits(probability_of_improvement([1.0, 1.0], [1.0, 1.0])) == (0.5, 0.5)


@pytest.mark.slow
def test_the_interval_of_the_probability_of_improvement_covers_it():
    samples = np.random.default_rng(13).normal(size=(1500, 2, 30)) - [[1.0], [0.0]]
    truth = scipy.stats.norm.cdf(1 / math.sqrt(2))
    found = [probability_of_improvement(*pair) for pair in samples]
    assert 0.93 < np.mean([one.low <= truth <= one.high for one in found]) < 0.97


def test_all_pairs_of_arms_are_one_family():
    generator = np.random.default_rng(14)
    arms = {name: generator.normal(shift, 1, 12) for name, shift in (("relu", 0.0), ("tanh", 1.0), ("sigmoid", 2.0))}
    found = compare_arms(arms)
    assert [(one.a, one.b) for one in found] == [("relu", "tanh"), ("relu", "sigmoid"), ("tanh", "sigmoid")]
    assert [one.p_holm for one in found] == holm([one.paired.p_value for one in found]).tolist()
    assert found[1].paired == paired_difference(arms["relu"], arms["sigmoid"])
    assert found[1].improvement == probability_of_improvement(arms["relu"], arms["sigmoid"])
    with pytest.raises(ValueError, match="arms=relu: must be at least two"):
        compare_arms({"relu": arms["relu"]})
    with pytest.raises(ValueError, match="two values or more"):
        probability_of_improvement([1.0], [2.0])


# Families


def test_holm_steps_down():
    # sorted .01 .02 .03 .04 times 4 3 2 1 -> .04 .06 .06 .04, and never less than the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_sequential_procedure_rejects(p_values, alpha):
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p_values) <= alpha).tolist()) == rejected


@pytest.mark.parametrize("p_values", [[0.1, math.nan], [-0.1], [1.1]])
def test_holm_refuses_what_is_no_probability(p_values):
    with pytest.raises(ValueError, match="must be a list of numbers from 0 to 1"):
        holm(p_values)


@pytest.mark.parametrize("n", [1, 4, 10])
def test_smallest_p_is_reached_when_every_pair_agrees(n):
    assert paired_difference(np.arange(1.0, n + 1), np.zeros(n)).p_value == smallest_p(n)


def test_a_family_that_n_cannot_reject_is_refused_with_the_n_that_could():
    check_family(10, 25)
    with pytest.raises(ValueError, match=r"^n=10: wilcoxon cannot go below p = 0.002 and 26 comparisons .* 11 seeds$"):
        check_family(10, 26)
    check_family(11, 26)
    check_family(5, 2, alpha=0.125)  # 2^-4 is exactly enough
    check_family(2, 1000, test="t")
    with pytest.raises(ValueError, match="test=sign: not one of wilcoxon, binomial, t, rank"):
        check_family(10, 2, test="sign")


# Best of k


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize(("better", "best"), [("higher", max), ("lower", min)])
def test_best_of_k_is_the_mean_over_all_choices(k, better, best):
    values = [0.3, 0.9, 0.9, 0.1, 0.5, 0.7]
    without = [best(chosen) for chosen in itertools.combinations(values, k)]
    replaced = [best(chosen) for chosen in itertools.product(values, repeat=k)]
    assert best_of_k(values, k, better) == pytest.approx(np.mean(without), rel=1e-12)
    assert best_of_k(values, k, better, unbiased=False) == pytest.approx(np.mean(replaced), rel=1e-12)


def test_best_of_many_restarts_stays_exact():
    assert best_of_k(np.arange(1.0, 5001), 2000) == pytest.approx(2000 / 2001 * 5001, rel=1e-9)  # k (n+1) / (k+1)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_selection_chooses_by_one_value_and_reports_the_other(k, better):
    selection, report = [5.0, 1.0, 3.0, 3.0, 4.0], [0.5, 0.6, 0.9, 0.7, 0.8]
    expected = []
    for chosen in itertools.combinations(range(5), k):
        best = (min if better == "lower" else max)(selection[i] for i in chosen)
        expected.append(np.mean([report[i] for i in chosen if selection[i] == best]))
    assert select_best_of_k(selection, report, k, better) == pytest.approx(np.mean(expected), rel=1e-12)


def test_selection_never_reports_the_best_test_value():
    loss, accuracy = np.arange(6.0), np.arange(6.0)  # the lowest validation loss has the lowest test accuracy
    assert select_best_of_k(loss, accuracy, 6) == 0.0
    assert best_of_k(accuracy, 6) == 5.0


@pytest.mark.parametrize("lost", DIVERGED)
def test_a_diverged_restart_is_chosen_only_when_nothing_else_is_there(lost):
    assert select_best_of_k([lost, 2.0, 3.0], [math.nan, 0.8, 0.4], 2) == pytest.approx((0.8 + 0.8 + 0.4) / 3)
    assert math.isnan(select_best_of_k([lost, 2.0, 3.0], [math.nan, 0.8, 0.4], 1))
    assert best_of_k([lost, 0.8, 0.4], 2) == pytest.approx((0.8 + 0.8 + 0.4) / 3)
    assert best_of_k([lost, 0.8, 0.4], 1) == -math.inf
    assert best_of_k([lost, 0.8, 0.4], 1, "lower") == math.inf


def test_a_k_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="k=4: must be at least 1 and at most 3"):
        best_of_k([1, 2, 3], 4)
    with pytest.raises(ValueError, match=r"k=0: must be at least 1$"):
        best_of_k([1, 2, 3], 0, unbiased=False)
    with pytest.raises(ValueError, match="a value each per restart"):
        select_best_of_k([1, 2, 3], [1, 2], 1)
    assert best_of_k([1, 2, 3], 4, unbiased=False) < 3


def test_the_best_of_k_lies_within_its_interval_which_is_the_jackknifes():
    generator = np.random.default_rng(3)
    loss, accuracy = generator.normal(size=(2, 12))
    found = best_of_k_interval(loss, accuracy, 4)
    assert found.estimate == select_best_of_k(loss, accuracy, 4)
    left_out = [select_best_of_k(np.delete(loss, i), np.delete(accuracy, i), 4) for i in range(12)]
    half = scipy.stats.t.ppf(0.975, 11) * math.sqrt(11 * np.var(left_out))
    assert limits(found) == pytest.approx((found.estimate - half, found.estimate + half))
    mean = best_of_k_interval(loss, accuracy, 1)
    assert limits(mean) == pytest.approx(limits(mean_interval(accuracy)))  # one of one is the mean
    with pytest.raises(ValueError, match="k=12: must be below 12"):
        best_of_k_interval(loss, accuracy, 12)
    assert best_of_k_interval([1, 2, 3], [0.99, 0.2, 0.98], 2, bounds=(0, 1)).high < 1


@pytest.mark.slow
def test_the_interval_of_the_best_of_5_out_of_50_covers_it():
    loss = np.random.default_rng(4).normal(size=(400, 50))
    found = [best_of_k_interval(one, -one, 5) for one in loss]
    assert np.mean([one.low <= 1.16296 <= one.high for one in found]) > 0.89  # E[max of five normal values]


# Rates and spreads


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (843, 1000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_agrees_with_scipy(successes, n, confidence):
    theirs = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, n, confidence)
    assert (ours.estimate, ours.n) == (successes / n, n)
    assert limits(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="must be 0 <= successes <= n"):
        wilson(successes, n)


# Resampling


def test_the_interquartile_mean_drops_a_quarter_at_each_end():
    scores = np.array([[100.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, -100.0]])
    assert interquartile_mean(scores, resamples=50).estimate == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(scores, resamples=50).n == 4
    assert interquartile_mean([1.0, 2.0, 3.0, 40.0], resamples=50).estimate == 2.5


def test_the_bootstrap_of_the_interquartile_mean_resamples_within_each_task():
    scores = np.repeat([[0.0, 10.0, 20.0, 30.0]], 6, axis=0)  # tasks differ, restarts do not: nothing to resample
    assert limits(interquartile_mean(scores, resamples=200)) == (15.0, 15.0)
    scores = np.random.default_rng(2).normal(size=(10, 3))
    generator = stream(3, STATISTICS_STREAM)
    drawn = np.hstack([scores[generator.integers(10, size=(999, 10)), task] for task in range(3)])
    brute = np.quantile(np.sort(drawn)[:, 7:23].mean(axis=1), [0.025, 0.975])
    assert limits(interquartile_mean(scores, seed=3, resamples=999)) == pytest.approx(brute, rel=1e-12)


def test_a_bootstrapped_interval_agrees_with_scipy_on_the_same_draws():
    for ours, theirs in (("bca", "BCa"), ("percentile", "percentile")):
        generator = stream(5, STATISTICS_STREAM)
        expected = scipy.stats.bootstrap((SAMPLE,), np.mean, n_resamples=2000, method=theirs, rng=generator)
        interval = bootstrap_interval(SAMPLE, seed=5, method=ours, resamples=2000)
        assert limits(interval) == pytest.approx(tuple(expected.confidence_interval), rel=1e-12)
        assert (interval.estimate, interval.n) == (SAMPLE.mean(), 12)


def test_the_studentised_bootstrap_of_the_mean_uses_its_standard_error():
    generator = stream(5, STATISTICS_STREAM)
    drawn = SAMPLE[generator.integers(12, size=(2999, 12))]
    t = np.sort((drawn.mean(axis=1) - SAMPLE.mean()) / (drawn.std(axis=1, ddof=1) / np.sqrt(12)))
    error = SAMPLE.std(ddof=1) / np.sqrt(12)
    expected = SAMPLE.mean() - t[2924] * error, SAMPLE.mean() - t[74] * error  # 2925th and 75th of 2999
    ours = bootstrap_interval(SAMPLE, seed=5, method="studentised", resamples=2999)
    assert limits(ours) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("method", ["bca", "percentile", "studentised"])
def test_every_interval_repeats_with_its_seed_and_moves_with_another(method):
    def interval(seed):
        return bootstrap_interval(SAMPLE, seed=seed, method=method, resamples=500)

    assert interval(1) == interval(1) != interval(2)
    assert interquartile_mean(SAMPLE, 1, resamples=500) == interquartile_mean(SAMPLE, 1, resamples=500)
    assert interquartile_mean(SAMPLE, 1, resamples=500) != interquartile_mean(SAMPLE, 2, resamples=500)


@pytest.mark.parametrize("method", ["bca", "percentile", "studentised"])
def test_a_sample_of_equal_values_has_an_interval_of_no_width(method):
    assert bootstrap_interval([2.0, 2.0, 2.0], method=method) == Interval(2.0, 2.0, 2.0, 3)


def test_a_bootstrap_that_cannot_answer_says_so():
    with pytest.raises(ValueError, match="method=jackknife: not one of bca, percentile, studentised"):
        bootstrap_interval(SAMPLE, method="jackknife")
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_interval([1.0])
    with pytest.raises(ValueError, match="at least two restarts"):
        interquartile_mean([[1.0, 2.0]])
    with pytest.raises(ValueError, match="must be finite"):
        interquartile_mean([[1.0, math.nan], [1.0, 2.0]])


@pytest.mark.filterwarnings("ignore::scipy.stats.DegenerateDataWarning")
def test_bca_refuses_a_statistic_that_leaving_one_out_does_not_move():
    with pytest.raises(ValueError, match="method=bca: undefined for this sample"):
        bootstrap_interval([1.0, 5.0, 5.0, 5.0, 5.0, 9.0], np.median, resamples=200)


# Coverage


@pytest.mark.slow
def test_the_interval_of_a_spread_covers_30_restarts():
    samples = np.random.default_rng(8).normal(size=(10_000, 30))
    hits = [interval.low <= 1 <= interval.high for interval in map(spread_interval, samples)]
    assert np.mean(hits) == pytest.approx(0.945, abs=0.012)


@pytest.mark.slow
def test_intervals_cover_at_n_10_as_often_as_is_written():
    generator = np.random.default_rng(7)

    def covered(samples, mean, interval):
        hits = [low <= mean <= high for low, high in (limits(interval(sample)) for sample in samples)]
        return np.mean(hits)

    normal, skewed = generator.normal(size=(20_000, 10)), generator.lognormal(size=(20_000, 10))
    assert covered(normal, 0, mean_interval) == pytest.approx(0.95, abs=0.006)
    assert covered(skewed, math.exp(0.5), mean_interval) == pytest.approx(0.85, abs=0.02)

    def bootstrapped(method):
        return lambda sample: bootstrap_interval(sample, method=method, resamples=999)

    assert covered(normal[:1500], 0, bootstrapped("percentile")) == pytest.approx(0.89, abs=0.025)
    assert covered(normal[:1500], 0, bootstrapped("bca")) == pytest.approx(0.90, abs=0.025)
    assert covered(skewed[:1500], math.exp(0.5), bootstrapped("bca")) == pytest.approx(0.83, abs=0.03)
    assert covered(normal[:1500], 0, bootstrapped("studentised")) == pytest.approx(0.95, abs=0.02)
    studentised = covered(skewed[:1500], math.exp(0.5), bootstrapped("studentised"))
    assert studentised > covered(skewed[:1500], math.exp(0.5), bootstrapped("percentile")) + 0.05


# distribution of outcomes


def test_a_quantile_lies_between_order_statistics():
    # of 6 values the median lies below the least, or above the largest, with probability 1/64 each
    interval = quantile_interval([5, 1, 4, 2, 6, 3])
    assert (interval.estimate, *limits(interval)) == (3.5, 1, 6)
    assert limits(quantile_interval([5, 1, 4, 2, 3])) == (-math.inf, math.inf)
    assert quantile_interval(range(1, 201), 0.05).estimate == 10.5
    assert quantile_interval([1.0, 2.0, math.inf] * 20, 0.9).high == math.inf


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_interval_of_a_quantile_covers_it_whatever_the_distribution(share):
    samples = np.random.default_rng(2).lognormal(size=(1500, 60))
    truth = math.exp(scipy.stats.norm.ppf(share))
    covered = np.mean([one.low <= truth <= one.high for one in (quantile_interval(row, share) for row in samples)])
    assert 0.945 < covered < 0.99


def test_an_empty_sample_or_a_share_beyond_its_range_has_no_quantile():
    for values, share in (([], 0.5), ([1.0, math.nan], 0.5), ([1.0, 2.0], 1.0)):
        with pytest.raises(ValueError, match="share"):
            quantile_interval(values, share)


# correlation and what test noise leaves of it


@pytest.mark.parametrize(("spread", "covered"), [(lambda z: z, (0.93, 0.97)), (np.exp, (0.90, 0.96))])
def test_the_interval_of_a_correlation_covers_it_on_normal_and_on_lognormal_pairs(spread, covered):
    rho, generator = 0.8, np.random.default_rng(3)
    truth = rho if spread(2.0) == 2.0 else (math.exp(rho) - 1) / (math.e - 1)
    first = generator.normal(size=(1500, 60))
    second = rho * first + math.sqrt(1 - rho**2) * generator.normal(size=first.shape)
    found = [correlation_interval(spread(a), spread(b)) for a, b in zip(first, second, strict=True)]
    assert covered[0] < np.mean([one.low <= truth <= one.high for one in found]) < covered[1]


def test_a_correlation_is_pearsons_and_its_error_the_jackknifes():
    generator = np.random.default_rng(4)
    a, b = generator.lognormal(size=(2, 15))
    interval = correlation_interval(a, b)
    assert interval.estimate == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    left_out = [np.arctanh(np.corrcoef(np.delete(a, i), np.delete(b, i))[0, 1]) for i in range(15)]
    half = 2.160368656 * math.sqrt(14 * np.var(left_out))  # Student's t, 13 degrees of freedom
    assert interval.high == pytest.approx(math.tanh(math.atanh(interval.estimate) + half), rel=1e-9)


def test_a_correlation_of_what_does_not_vary_is_none_and_one_of_equal_values_is_one():
    assert math.isnan(correlation_interval([1, 1, 1, 1], [1, 2, 3, 5]).estimate)
    interval = correlation_interval([1, 2, 3, 5], [2, 4, 6, 10])
    assert (interval.estimate, interval.high) == (pytest.approx(1), pytest.approx(1))
    with pytest.raises(ValueError, match="one each per restart"):
        correlation_interval([1, 2, 3, 4], [1, 2, 3, 4, 5])


def test_reliability_is_the_correlation_between_means_over_two_test_sets():
    generator = np.random.default_rng(5)
    ability = generator.normal(size=(4000, 1))

    def scores():
        difficulty = 5 * generator.normal(size=(1, 50))
        return ability + difficulty + 7 * generator.normal(size=(4000, 50))

    one, other = scores(), scores()
    expected = 1 / (1 + 49 / 50)  # variance of the restarts over itself and what 50 samples leave open
    assert reliability(one) == pytest.approx(expected, abs=0.03)
    assert np.corrcoef(one.mean(axis=1), other.mean(axis=1))[0, 1] == pytest.approx(expected, abs=0.03)


def test_reliability_is_one_without_noise_and_nothing_without_differences():
    assert reliability([[1, 5, 9], [2, 6, 10]]) == pytest.approx(1)
    assert math.isnan(reliability([[1, 5, 9], [1, 5, 9]]))
    assert reliability(np.random.default_rng(6).normal(size=(300, 40))) < 0.3
    with pytest.raises(ValueError, match="two restarts"):
        reliability([[1.0, 2.0]])


# modes


def least_distance_to_a_unimodal_distribution(sample):
    """The dip by its definition: a linear program for every place of the mode."""
    x, counts = np.unique(sample, return_counts=True)
    points, upper = len(x), np.cumsum(counts) / len(sample)
    lower, unit = upper - counts / len(sample), np.eye(2 * len(x) + 1)
    left, right, distance = unit[:points], unit[points:-1], unit[-1]  # limits of G at x, and sup |F - G|
    least = math.inf
    for mode in range(points):
        side = np.where((np.arange(points) <= mode)[:, None], left, right)
        rows, bounds = [left[mode] - right[mode], *(right[:-1] - left[1:])], [0.0] * points
        for limit, step in ((left, lower), (right, upper)):
            rows += [*(limit - distance), *(-limit - distance)]
            bounds += [*step, *-step]
        for i in range(1, points - 1):
            part = left if i < mode else right
            if i != mode:
                ends = (side if i < mode else right)[[i - 1, i + 1]]
                bend = (part[i] - ends[0]) / (x[i] - x[i - 1]) - (ends[1] - part[i]) / (x[i + 1] - x[i])
                rows.append(bend if i < mode else -bend)
                bounds.append(0.0)
        apart = [left[i] - right[i] for i in range(points) if i != mode]
        equal = {"A_eq": apart, "b_eq": [0.0] * len(apart)} if apart else {}
        found = scipy.optimize.linprog(distance, rows, bounds, **equal, bounds=[(0, 1)] * (2 * points + 1))
        least = min(least, found.fun)
    return max(least, 1 / (2 * len(sample)))


@pytest.mark.parametrize("seed", range(8))
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed):
    generator = np.random.default_rng(seed)
    sample = np.concatenate([generator.normal(size=5), 4 * (seed % 2) + generator.normal(size=6)])
    if seed > 5:
        sample = np.round(sample)
    assert dip_test(sample, simulations=1).dip == pytest.approx(least_distance_to_a_unimodal_distribution(sample))


def test_one_mode_is_not_two_and_two_are_not_one():
    generator = np.random.default_rng(8)
    one = dip_test(generator.normal(size=100), simulations=500)
    two = dip_test(np.concatenate([generator.normal(size=50), 5 + generator.normal(size=50)]), simulations=500)
    levels = dip_test([0.0] * 60 + [0.125] * 30 + [0.25] * 10, simulations=500)
    assert one.p_value > 0.5
    assert two.p_value == levels.p_value == 1 / 501
    assert dip_test([3.0] * 9, simulations=20).p_value == 1
    assert dip_test(generator.random(30), seed=1, simulations=50) != dip_test(generator.random(30), simulations=50)


@pytest.mark.parametrize("outlier", [1e9, -1e9, 1e300])
def test_one_distant_value_does_not_hide_two_modes(outlier):
    generator = np.random.default_rng(10)
    sample = np.concatenate([generator.normal(size=100), 8 + generator.normal(size=100), [outlier]])
    found = dip_test(sample, simulations=500)
    assert found.p_value == 1 / 501
    assert found.dip == pytest.approx(dip_test(sample[:-1], simulations=1).dip, abs=0.006)  # 1 / n
    few = np.concatenate([generator.normal(size=6), 8 + generator.normal(size=6), [1e9]])
    assert dip_test(few, simulations=1).dip == pytest.approx(least_distance_to_a_unimodal_distribution(few), abs=1e-6)


def test_the_dip_does_not_depend_on_unit_and_origin():
    generator = np.random.default_rng(11)
    sample = np.round(np.concatenate([generator.normal(size=20), 6 + generator.normal(size=20)]), 1)
    expected = dip_test(sample, simulations=1).dip
    for scale, shift in ((1e-300, 0.0), (2.0**1000, 0.0), (-4.0, 1e6)):
        assert dip_test(scale * sample + shift, simulations=1).dip == pytest.approx(expected, abs=1e-9)


def test_a_uniform_sample_is_found_to_have_modes_as_often_as_alpha_says():
    samples = np.random.default_rng(9).random((300, 25))
    assert 0.02 < np.mean([dip_test(sample, simulations=400).p_value <= 0.05 for sample in samples]) < 0.09


@pytest.mark.parametrize("n", [40, 240])
@pytest.mark.parametrize("huge", [1e13, 1e145, 1e300])
def test_a_few_huge_values_do_not_make_the_other_pairs_equal(n, huge):
    rng = np.random.default_rng(5)
    a, b = rng.uniform(0.97, 1.2, n), rng.uniform(0.15, 0.59, n)
    differences = np.concatenate([np.full(5, 50.0), (a - b)[5:]])  # what is larger than all others, whatever its size
    means = 0.5 * np.add.outer(differences, differences)[np.triu_indices(n)]
    a[:2], a[2:5] = (huge, 2 * huge), np.nan
    found = paired_difference(a, b)
    assert found.difference.estimate == pytest.approx(np.median(means), rel=1e-9)
    assert 0.5 < found.difference.low < found.difference.estimate < found.difference.high < 1.2
    assert found.p_value < 1e-11  # every difference is positive: 2^(1 - n), or normal beyond 200 pairs


@pytest.mark.parametrize("n", [40, 240])
def test_a_limit_among_huge_values_is_a_mean_of_two_differences_or_infinite(n):
    rng = np.random.default_rng(8)
    a, b = rng.uniform(1.0, 1.2, n), np.zeros(n)
    a[: n // 3] = 1e13
    found = paired_difference(a, b).difference
    means = 0.5 * np.add.outer(a, a)
    assert found.low == pytest.approx(means.flat[np.abs(means - found.low).argmin()], rel=1e-9)
    if n <= 200:
        assert found.high > 1e12
        assert found.high == pytest.approx(means.flat[np.abs(means - found.high).argmin()], rel=1e-9)
    else:
        assert found.high == np.inf
