"""The evidence for and against one claim in the values of one case, before Holm's correction."""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics import (
    Interval,
    equivalence,
    fisher_tails,
    paired_difference,
    rate_difference,
    rate_tails,
    wilson,
)
from descentlab.analysis.verdicts.claims import Claim

Values = ArrayLike | tuple[ArrayLike, ArrayLike]  # a, or (a, b) at the same seeds; (simulated, published) for `within`


@dataclass(frozen=True)
class Evidence:
    """P-values and estimate of one case.

    Attributes:
        n: values that were tested.
        diverged: how many of them are not finite.
        interval: the estimate that belongs to the test.
        p, p_against: for the claim and for its opposite; p is NaN for `within`.
        inside: for `within`, whether the published value lies between the quantiles.
    """

    n: int
    diverged: int
    interval: Interval
    p: float
    p_against: float
    inside: bool = False


NOTHING = Evidence(0, 0, Interval(math.nan, math.nan, math.nan, 0), 1.0, 1.0)


def confidence(claim: Claim) -> float:
    """Coverage of the interval beside the verdict: 1 - alpha, but 1 - 2 alpha for an equivalence test."""
    return 1 - (2 if claim.test == "equivalent" else 1) * claim.alpha


def weigh(claim: Claim, values: Values) -> Evidence:
    """Test a claim on the first n values of one case.

    Args:
        claim: as declared.
        values: (n,) values a, or (a, b) at the same seeds; (simulated (n,), published) for `within`. Diverged restarts
            are NaN or infinite.

    Raises:
        ValueError: values of another form than the test takes.
    """
    if claim.test == "within":
        return _published(claim, values)
    first, second = values if isinstance(values, tuple) else (values, None)
    a = _first(claim, first)
    b = None if second is None else _first(claim, second)
    if claim.test in ("rate_above", "rate_below"):
        return _rate(claim, a)
    if claim.test == "more_often":
        return _rates(claim, a, b)
    b = np.zeros_like(a) if b is None else b
    if a.shape != b.shape:
        raise ValueError(f"{claim.id}: needs one value each per seed, not shapes {a.shape} and {b.shape}")
    lost = int((~np.isfinite(a) | ~np.isfinite(b)).sum())
    if claim.test == "equivalent":
        if lost or a.size < 2:
            return Evidence(a.size, lost, Interval(math.nan, math.nan, math.nan, a.size - lost), 1.0, 1.0)
        found = equivalence(a - b, claim.margin, claim.alpha)
        return Evidence(a.size, 0, found.mean, found.p_within, found.p_beyond)
    pairs = paired_difference(a, b, claim.better, confidence(claim), claim.margin)
    tails = (pairs.p_greater, pairs.p_less) if claim.test == "greater" else (pairs.p_less, pairs.p_greater)
    return _two_sided(a.size, lost, pairs.difference, tails)


def _first(claim: Claim, values: ArrayLike) -> ndarray:
    """The values that decide: the first n, or all of them if they are not in the order of seeds."""
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(f"{claim.id}: values of shape {sample.shape} must be one per seed")
    return sample[: claim.n] if claim.restarts else sample


def _two_sided(n: int, diverged: int, interval: Interval, tails: tuple[float, float]) -> Evidence:
    return Evidence(n, diverged, interval, min(1.0, 2 * tails[0]), min(1.0, 2 * tails[1]))


def _is_true(claim: Claim, values: ndarray, diverged: bool) -> ndarray:
    """True or false values (n,), with what a diverged restart counts as."""
    lost = ~np.isfinite(values)
    if not np.isin(values[~lost], (0, 1)).all():
        raise ValueError(f"{claim.id}: test={claim.test} takes values that are true or false")
    return np.where(lost, diverged, values == 1)


def _rate(claim: Claim, a: ndarray) -> Evidence:
    below = claim.test == "rate_below"
    successes = int(_is_true(claim, a, diverged=below).sum())  # a diverged restart speaks against the claim
    tails = rate_tails(successes, a.size, claim.margin)
    interval = wilson(successes, a.size, confidence(claim))
    return _two_sided(a.size, int((~np.isfinite(a)).sum()), interval, tails[::-1] if below else tails)


def _rates(claim: Claim, a: ndarray, b: ndarray | None) -> Evidence:
    if b is None:
        raise ValueError(f"{claim.id}: test={claim.test} takes two lists of values, a and b")
    successes = int(_is_true(claim, a, diverged=False).sum()), int(_is_true(claim, b, diverged=True).sum())
    trials = a.size, b.size
    interval = rate_difference(successes, trials, confidence(claim))
    diverged = int((~np.isfinite(a)).sum() + (~np.isfinite(b)).sum())
    return _two_sided(interval.n, diverged, interval, fisher_tails(successes, trials))


def _published(claim: Claim, values: Values) -> Evidence:
    if not isinstance(values, tuple) or not np.size(values[0]) or np.isnan(values[1]):
        raise ValueError(f"{claim.id}: test=within takes a list of simulated values and a published number")
    simulated, published = _first(claim, values[0]).copy(), float(np.asarray(values[1]))
    lost = ~np.isfinite(simulated)
    simulated[lost] = -math.inf if claim.better == "higher" else math.inf
    n, shares = simulated.size, [(1 - claim.margin) / 2, (1 + claim.margin) / 2]
    low, high = np.quantile(simulated, shares, method="inverted_cdf" if lost.any() else "linear").tolist()
    rank = 1 + min(int((simulated <= published).sum()), int((simulated >= published).sum()))
    p_against = min(1.0, 2 * rank / (n + 1))
    interval = Interval(published, low, high, n)
    return Evidence(n, int(lost.sum()), interval, math.nan, p_against, low <= published <= high)
