"""Families of comparisons: Holm's correction, and the smallest p-value that n values can give."""

import math
from bisect import bisect_left

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

TESTS = ("wilcoxon", "binomial", "t", "rank", "fisher")


def smallest_p(n: int, test: str = "wilcoxon", rate: float = 0.5) -> float:
    """The smallest two-sided p-value that n values can give.

    2^(1-n) for `wilcoxon`, 2 rate^n for `binomial` (n successes), 0 for `t`, 2 / (n + 1) for `rank` (of one value among
    n simulated ones), 2 / C(2n, n) for `fisher` (n trials in either group).

    Args:
        n: values behind the test, 0 or more.
        test: one of TESTS.
        rate: for `binomial`, the success rate to compare n successes with.

    Raises:
        ValueError: unknown test.
    """
    if test not in TESTS:
        raise ValueError(f"test={test}: not one of {', '.join(TESTS)}")
    by_test = {"t": 0.0, "rank": 2 / (n + 1), "binomial": 2 * rate**n, "wilcoxon": 2.0 ** (1 - n)}
    return min(1.0, by_test[test] if test in by_test else 2 / math.comb(2 * n, n))


def check_family(n: int, size: int, alpha: float = 0.05, test: str = "wilcoxon", rate: float = 0.5) -> None:
    """Refuse a family of comparisons of which none could be rejected after Holm's correction.

    Args:
        n: pairs behind each comparison.
        size: number of comparisons in the family.
        alpha: familywise error rate.
        test: as in `smallest_p`.
        rate: as in `smallest_p`.

    Raises:
        ValueError: even the smallest p-value is above alpha / size; the message says how many pairs suffice.
    """
    reach, needed = smallest_p(n, test, rate), alpha / size
    if reach > needed:
        most = n + 1
        while smallest_p(most, test, rate) > needed:
            most *= 2
        enough = bisect_left(range(most), True, lo=n, key=lambda more: smallest_p(more, test, rate) <= needed)
        raise ValueError(
            f"n={n}: {test} cannot go below p = {reach:.2g} and {size} comparisons at alpha = {alpha:g} "
            f"need {needed:.2g}: take at least {enough} seeds"
        )


def holm(p_values: ArrayLike) -> ndarray:
    """Holm's step-down correction: p-values to compare with the familywise alpha (Holm 1979).

    Args:
        p_values: (m,), one per comparison of the declared family.

    Returns:
        (m,), adjusted, in the order given.

    Raises:
        ValueError: not a list of numbers from 0 to 1.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values={p.tolist()}: must be a list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return adjusted
