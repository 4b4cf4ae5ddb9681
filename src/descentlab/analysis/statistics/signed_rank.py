"""Wilcoxon's signed-rank test, and the estimate and interval of the location that belong to it (Hodges & Lehmann 1963).

The test ranks |d - m| for differences d and a margin m. Equal values share the mean of their ranks. A difference equal
to the margin keeps its rank and counts for neither side (Pratt 1959). As m grows, p_greater never falls and p_less
never rises, ties included: where two values become equal or unequal, no choice of signs loses more rank than the
observed one. So the margins that the two-sided test does not reject form an interval, and this interval excludes a
margin exactly if the test rejects it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray
from scipy.special import ndtr

from descentlab.analysis.statistics.samples import Interval, upper_tail

RESOLUTION = 40  # bits of the scale down to which values are told apart, so that rounding breaks no ties
FARTHEST = 2.0**61  # places from 0 that a search over more than EXACT_UP_TO differences can reach
EXACT_UP_TO = 200  # differences; beyond, p-values come from the normal distribution


@dataclass(frozen=True)
class SignedRank:
    """The location of differences, and the test of a margin.

    Attributes:
        location: the Hodges-Lehmann estimate (the median of the means of all pairs of differences), with the interval
            of all margins that the two-sided test does not reject.
        p_greater: one-sided p-value that the location is above the margin.
        p_less: that it is below.
    """

    location: Interval
    p_greater: float
    p_less: float


def signed_rank(differences: ndarray, scale: float, margin: float = 0.0, confidence: float = 0.95) -> SignedRank:
    """Estimate the location of differences and test it against a margin.

    Args:
        differences: (n,); infinite for a diverged restart, never NaN. More than about 29 % infinite differences of one
            sign make the estimate infinite.
        scale: size of the subtracted values, above 0; differences closer than 1e-12 of it are equal, and so are those
            beyond 1e6 times it if there are more than EXACT_UP_TO: a limit there is infinite.
        margin: tested location, in the unit of the differences.
        confidence: of the interval, between 0 and 1; a limit is infinite if n differences are too few for it.
    """
    tail = 1 - upper_tail(confidence)
    half_unit = math.ldexp(1.0, math.frexp(scale)[1] - RESOLUTION - 1)
    few = differences.size <= EXACT_UP_TO
    with np.errstate(over="ignore"):
        places = 2.0 * np.round(differences / (2 * half_unit))  # whole numbers, and so are the means of two of them
    farthest = 2.0**1000 if few else FARTHEST
    places = np.where(np.isinf(differences), differences, np.clip(places, -farthest, farthest))
    finite = places[np.isfinite(places)]
    bottom, top = int(finite.min(initial=0.0)) - 1, int(finite.max(initial=0.0)) + 1
    order: Sequence[float] = range(bottom, top + 1)
    if few:  # ranks change at means of two only, which makes a shorter search
        means = 0.5 * np.add.outer(finite, finite).ravel()
        order = np.unique(np.concatenate(([bottom, top], means, means + 1.0))).tolist()

    def crossing(holds: Callable[[float], bool]) -> float:
        """The smallest place at which a condition holds; it must hold at all places above."""
        index = bisect_left(order, True, key=holds)
        return -math.inf if index == 0 else math.inf if index == len(order) else order[index]

    def value(place: float) -> float:
        if not few and abs(place) > FARTHEST / 4:  # a mean with a difference that was cut off
            return math.copysign(math.inf, place)
        return round(place * half_unit, 11 - math.floor(math.log10(scale)))

    below = crossing(lambda place: _balance(places - place) <= 0) - 1
    above = crossing(lambda place: _balance(places - place) < 0)
    low = value(crossing(lambda place: _tails(places - place)[0] > tail))
    high = value(crossing(lambda place: _tails(places - place)[1] <= tail) - 1)
    p_greater, p_less = _tails(places - 2.0 * round(margin / (2 * half_unit)))
    # a limit at the margin is moved by a last bit, if need be, to agree with the test
    low = max(low, math.nextafter(margin, math.inf)) if p_greater <= tail else min(low, margin)
    high = min(high, math.nextafter(margin, -math.inf)) if p_less <= tail else max(high, margin)
    estimate = math.nan if math.isinf(below) and below == -above else value(0.5 * (below + above))
    return SignedRank(Interval(estimate, low, high, places.size), p_greater, p_less)


def _twice_ranks(differences: ndarray) -> ndarray:
    """Ranks of the absolute values, doubled, which makes averages of ranks whole: (n,) int."""
    _, group, sizes = np.unique(np.abs(differences), return_inverse=True, return_counts=True)
    return (2 * np.cumsum(sizes) - sizes + 1)[group]


def _balance(differences: ndarray) -> int:
    """The doubled ranks of positive values less those of negative ones."""
    return int((_twice_ranks(differences) * np.sign(differences)).sum())


def _tails(differences: ndarray) -> tuple[float, float]:
    """One-sided p-values that the location is above 0 and below 0, given the ranks."""
    ranks = _twice_ranks(differences)
    observed, sided = int(ranks[differences > 0].sum()), ranks[differences != 0]
    if differences.size <= EXACT_UP_TO:
        chance = _chances(np.sort(sided).tobytes())
        return float(min(1.0, chance[observed:].sum())), float(min(1.0, chance[: observed + 1].sum()))
    centre, deviation = 0.5 * sided.sum(), 0.5 * math.sqrt(float((sided.astype(float) ** 2).sum()))
    if not deviation:
        return 1.0, 1.0
    above, below = ((side * (centre - observed) + 1) / deviation for side in (1, -1))  # 1 is half a rank, doubled
    return float(ndtr(above)), float(ndtr(below))


@lru_cache(maxsize=64)
def _chances(twice_ranks: bytes) -> ndarray:
    """The chance of every sum of the doubled ranks on the positive side: all 2^n signs are equally likely."""
    chance = np.ones(1)
    for rank in np.frombuffer(twice_ranks, dtype=np.int64):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    return chance
