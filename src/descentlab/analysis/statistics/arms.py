"""Several arms that share their seeds: every pair compared, and how likely one arm is to beat another."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics.comparisons import PairedDifference, paired_difference
from descentlab.analysis.statistics.families import holm
from descentlab.analysis.statistics.intervals import jackknife_interval, wilson
from descentlab.analysis.statistics.samples import Better, Interval, sign


@dataclass(frozen=True)
class ArmComparison:
    """One arm against another.

    Attributes:
        a, b: names of the arms.
        paired: a - b seed by seed, with Wilcoxon's test.
        p_holm: its two-sided p-value after Holm's correction over all pairs of arms.
        improvement: the probability that a restart of a is better than a restart of b.
    """

    a: str
    b: str
    paired: PairedDifference
    p_holm: float
    improvement: Interval


def compare_arms(
    arms: Mapping[str, ArrayLike], better: Better = "lower", confidence: float = 0.95
) -> list[ArmComparison]:
    """Compare all pairs of arms.

    Args:
        arms: name -> (n,) values, all at the same n seeds; NaN or infinite for a diverged restart.
        better: which values are good; diverged restarts rank at the other end.
        confidence: of the intervals, between 0 and 1; intervals are not corrected for the number of pairs.

    Returns:
        One comparison per pair, in the order of `arms`.

    Raises:
        ValueError: fewer than two arms, or arms of different length.
    """
    if len(arms) < 2:
        raise ValueError(f"arms={', '.join(arms)}: must be at least two")
    pairs = list(combinations(arms, 2))
    tests = [paired_difference(arms[a], arms[b], better, confidence) for a, b in pairs]
    corrected = holm([test.p_value for test in tests]).tolist()
    return [
        ArmComparison(a, b, test, p, probability_of_improvement(arms[a], arms[b], better, confidence))
        for (a, b), test, p in zip(pairs, tests, corrected, strict=True)
    ]


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, better: Better = "lower", confidence: float = 0.95
) -> Interval:
    """The probability that a restart of a is better than one of b, ties counted half (Mann & Whitney 1947).

    The estimate is over all n^2 pairs of restarts, as in Agarwal et al. (2021). Its interval is Student's with the
    jackknife over seeds, since the arms share them, on the logit scale close to 0 and 1. If one arm is better in all
    pairs, the jackknife has no error to go by, and the limit is Wilson's of n successes in n trials.

    Args:
        a: (n,), n at least 2; NaN or infinite for a diverged restart.
        b: (n,), the other arm at the same seeds.
        better: which values are good; diverged restarts rank at the other end, and two of them tie.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: arms of different length, or fewer than two values.
    """
    good_a, good_b = (np.where(np.isfinite(arm), sign(better) * arm, -np.inf) for arm in _arms(a, b))
    n, same_seed = good_a.size, 0.5 * ((good_a > good_b) + 1.0 * (good_a >= good_b))
    wins, losses = _values_below(good_a, good_b), _values_below(good_b, good_a)  # (n,) each, ties counted half
    estimate = float(wins.sum() / n**2)
    left_out = (wins.sum() - wins - (n - losses) + same_seed) / (n - 1) ** 2
    if estimate in (0.0, 1.0):
        limits = wilson(int(estimate) * n, n, confidence)
        return Interval(estimate, limits.low, limits.high, n)
    return jackknife_interval(estimate, left_out, confidence, (0.0, 1.0))


def _arms(a: ArrayLike, b: ArrayLike) -> tuple[ndarray, ndarray]:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or first.size < 2:
        raise ValueError(f"arms need two values or more, one per seed each, not shapes {first.shape}, {second.shape}")
    return first, second


def _values_below(values: ndarray, others: ndarray) -> ndarray:
    """How many of the others lie below each value, equal ones counted half: (n,)."""
    ordered = np.sort(others)
    return 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"))
