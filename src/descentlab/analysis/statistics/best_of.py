"""The expected best of k restarts."""

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics.intervals import UNBOUNDED, jackknife_interval
from descentlab.analysis.statistics.samples import Better, Interval, sign


def best_of_k(values: ArrayLike, k: int, better: Better = "higher", unbiased: bool = True) -> float:
    """Expected best of k restarts, chosen and reported by the same values (Dodge et al. 2019).

    A search over k seeds would report this value. It is too good: use `select_best_of_k` to choose on one split and
    report another.

    Args:
        values: (n,); a diverged restart counts as infinitely bad.
        k: restarts in one search.
        better: whether the best is the lowest or the highest.
        unbiased: sum x_(i) C(i-1, k-1) / C(n, k), k restarts without replacement; otherwise Dodge's
            sum x_(i) [(i/n)^k - ((i-1)/n)^k], with replacement.

    Raises:
        ValueError: k below 1, or above n where unbiased.
    """
    scores = np.asarray(values, dtype=float)
    return select_best_of_k(scores, np.where(np.isfinite(scores), scores, -sign(better) * np.inf), k, better, unbiased)


def select_best_of_k(
    selection: ArrayLike, report: ArrayLike, k: int, better: Better = "lower", unbiased: bool = True
) -> float:
    """Expected reported value of the restart that is chosen out of k by another value.

    Args:
        selection: (n,), the values to choose by, such as the validation loss. A diverged restart ranks worst; restarts
            with equal values are equally likely to be chosen.
        report: (n,), the values to report, such as the test accuracy.
        k: restarts in one search.
        better: which end of `selection` is chosen.
        unbiased: as in `best_of_k`.

    Returns:
        The expectation. NaN if a search can consist of diverged restarts alone and their report is NaN.

    Raises:
        ValueError: lengths differ, k below 1, or k above n where unbiased.
    """
    chosen_by, reported = np.asarray(selection, dtype=float), np.asarray(report, dtype=float)
    n = chosen_by.size
    if chosen_by.shape != reported.shape or chosen_by.ndim != 1 or not n:
        raise ValueError(
            f"selection and report need a value each per restart, not {chosen_by.shape} and {reported.shape}"
        )
    if k < 1 or (unbiased and k > n):
        raise ValueError(
            f"k={k}: must be at least 1" + (f" and at most {n}, the number of restarts" if unbiased else "")
        )
    if unbiased:
        i = np.arange(n, 1, -1)  # C(i-1, k-1) / C(n, k) from i = n down, each from the one above
        weights: ndarray = np.cumprod(np.concatenate(([k / n], (i - k).clip(0) / (i - 1))))[::-1]
    else:
        weights = np.diff((np.arange(n + 1) / n) ** k)
    goodness = np.where(np.isfinite(chosen_by), sign(better) * chosen_by, -np.inf)
    _, group, sizes = np.unique(goodness, return_inverse=True, return_counts=True)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    weight = (np.add.reduceat(weights, starts) / sizes)[group]
    return float(np.sum(weight[weight > 0] * reported[weight > 0]))


def best_of_k_interval(
    selection: ArrayLike,
    report: ArrayLike,
    k: int,
    better: Better = "lower",
    confidence: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval:
    """The unbiased estimate of `select_best_of_k` with Student's interval from the jackknife's standard error.

    A bootstrap would be biased: a resample holds the best restarts several times or not at all, and the estimate can
    lie outside its own interval. Measured coverage at a nominal 95 % and n = 200, for normal values that are both
    selection and report (150 samples; 60 for the percentile bootstrap in brackets): .94 (.85) for k = 1, .96 (.95)
    for 5, .93 (.82) for 20, .81 (.70) for 100. Intervals for k close to n are too short.

    Args:
        selection: (n,), as in `select_best_of_k`.
        report: (n,), finite.
        k: restarts in one search, below n.
        better: which end of `selection` is chosen.
        confidence: wanted coverage, between 0 and 1.
        bounds: the smallest and largest possible value of `report`.

    Raises:
        ValueError: as `select_best_of_k`, and for k = n.
    """
    chosen_by, reported = np.asarray(selection, dtype=float), np.asarray(report, dtype=float)
    estimate, n = select_best_of_k(chosen_by, reported, k, better), chosen_by.size
    if k == n:
        raise ValueError(f"k={k}: must be below {n}, the number of restarts, for an interval")
    left_out = np.array(
        [select_best_of_k(np.delete(chosen_by, i), np.delete(reported, i), k, better) for i in range(n)]
    )
    return jackknife_interval(estimate, left_out, confidence, bounds)
