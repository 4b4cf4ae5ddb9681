"""Tests of two arms, or of one against a margin, each with its estimate."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from descentlab.analysis.statistics.intervals import mean_intervals, wilson
from descentlab.analysis.statistics.samples import Better, Interval, finite_sample, sign
from descentlab.analysis.statistics.signed_rank import signed_rank


@dataclass(frozen=True)
class PairedDifference:
    """Two arms that share their seeds, compared pair by pair.

    Attributes:
        difference: the Hodges-Lehmann estimate of a - b over all n pairs, diverged ones included, with the interval
            that belongs to Wilcoxon's test: it excludes the margin exactly where p_value is at or below
            1 - confidence.
        p_value: two-sided Wilcoxon signed-rank test of a - b against the margin.
        n: number of pairs.
        diverged: how many restarts of a and of b diverged.
        p_greater, p_less: the same test, one-sided: that a - b is above, or below, the margin.
    """

    difference: Interval
    p_value: float
    n: int
    diverged: tuple[int, int]
    p_greater: float
    p_less: float


def paired_difference(
    a: ArrayLike, b: ArrayLike, better: Better = "lower", confidence: float = 0.95, margin: float = 0.0
) -> PairedDifference:
    """Compare two arms restart by restart: Wilcoxon's signed-rank test with the estimate that belongs to it.

    The test ranks |a - b - margin| (`signed_rank`). Where one restart of a pair diverged, the other one wins by an
    infinite difference; where both did, the pair is a tie. Up to 200 pairs p-values are exact, given the ranks.
    Differences closer than 1e-12 of the values' median size count as equal, so that rounding does not order equal
    counts (accuracies).

    Args:
        a: (n,), one value per seed; NaN or infinite where the restart diverged.
        b: (n,), the other arm at the same seeds.
        better: which values are good; diverged restarts rank at the other end.
        confidence: of the interval, between 0 and 1.
        margin: tested value of a - b, in the unit of the values; the interval is of a - b whatever the margin.

    Raises:
        ValueError: arms of different length, or none.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"paired arms need one value each per seed, not shapes {first.shape} and {second.shape}")
    lost = ~np.isfinite(first), ~np.isfinite(second)
    both = ~(lost[0] | lost[1])
    worst = -sign(better) * np.inf
    differences = np.zeros(first.size)
    differences[both] = first[both] - second[both]
    differences[lost[0] & ~lost[1]] = worst
    differences[lost[1] & ~lost[0]] = -worst
    sizes = np.maximum(
        np.abs(first[both]), np.abs(second[both])
    )  # of most pairs: a few may be on their way to infinity
    scale = (np.median(sizes) or sizes.max()) if sizes.any() else 1.0
    found = signed_rank(differences, float(scale), margin, confidence)
    return PairedDifference(
        found.location,
        min(1.0, 2 * min(found.p_greater, found.p_less)),
        first.size,
        (int(lost[0].sum()), int(lost[1].sum())),
        found.p_greater,
        found.p_less,
    )


@dataclass(frozen=True)
class Equivalence:
    """Whether a mean lies within +-margin of 0.

    Attributes:
        mean: Student's interval of coverage 1 - 2 alpha: within +-margin exactly where p_within <= alpha.
        p_within: p-value that |mean| < margin, of the two one-sided tests.
        p_beyond: p-value that |mean| > margin.
    """

    mean: Interval
    p_within: float
    p_beyond: float


def equivalence(values: ArrayLike, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of a mean against a margin of practical equality (TOST, Schuirmann 1987).

    Args:
        values: (n,), finite, n at least 2: differences from the predicted value.
        margin: above 0, in the unit of the values.
        alpha: of each one-sided test.

    Raises:
        ValueError: a margin that is not above 0, fewer than two values, or one that is not finite.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin={margin}: must be a finite number above 0")
    sample = finite_sample(values, at_least=2)
    n, found = sample.size, mean_intervals(sample[None, :], 1 - 2 * alpha)
    mean, sd, low, high, _ = (float(part[0]) for part in found)
    if sd == 0:
        within = float(abs(mean) >= margin)
        return Equivalence(Interval(mean, mean, mean, n), within, float(abs(mean) <= margin))
    statistics = np.array([-mean - margin, mean - margin, mean + margin, margin - mean]) / (sd / math.sqrt(n))
    not_below, not_above, below, above = stdtr(n - 1, statistics).tolist()
    return Equivalence(Interval(mean, low, high, n), max(not_below, not_above), min(1.0, 2 * min(below, above)))


def rate_tails(successes: int, n: int, rate: float = 0.5) -> tuple[float, float]:
    """Exact one-sided binomial p-values that a success rate is above, and below, a given one.

    Args:
        successes: how many of n succeeded.
        n: trials, at least 1.
        rate: strictly between 0 and 1.

    Raises:
        ValueError: counts or a rate that are impossible.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n < 1 or not 0 < rate < 1:
        raise ValueError(f"successes={successes}, n={n}, rate={rate}: must be 0 <= successes <= n and 0 < rate < 1")
    tails = (binomtest(successes, n, rate, alternative).pvalue for alternative in ("greater", "less"))
    above, below = (min(1.0, float(p)) for p in tails)
    return above, below


def fisher_tails(successes: tuple[int, int], trials: tuple[int, int]) -> tuple[float, float]:
    """Exact one-sided p-values that successes are more likely in a first group, and less likely (Fisher 1935).

    Args:
        successes: of the first group and of the second.
        trials: likewise, at least one each.

    Raises:
        ValueError: counts that are impossible.
    """
    from scipy.stats import fisher_exact

    (a, b), (n_a, n_b) = successes, trials
    if not (0 <= a <= n_a and 0 <= b <= n_b and n_a > 0 and n_b > 0):
        raise ValueError(
            f"successes={successes}, trials={trials}: must be 0 <= successes <= trials, and trials above 0"
        )
    table = [[a, n_a - a], [b, n_b - b]]
    more, less = (min(1.0, float(fisher_exact(table, alternative).pvalue)) for alternative in ("greater", "less"))
    return more, less


def rate_difference(successes: tuple[int, int], trials: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Difference between two success rates, with an interval from both Wilson intervals (Newcombe 1998).

    Args:
        successes: of the first group and of the second.
        trials: likewise, at least one each.
        confidence: wanted coverage, between 0 and 1.

    Returns:
        The interval; its n is that of the smaller group.

    Raises:
        ValueError: counts that are impossible.
    """
    first, second = (wilson(*group, confidence) for group in zip(successes, trials, strict=True))
    difference = first.estimate - second.estimate
    below = math.hypot(first.estimate - first.low, second.high - second.estimate)
    above = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(difference, difference - below, difference + above, min(trials))
