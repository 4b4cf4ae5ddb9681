"""Families of comparisons: Holm's correction, and whether a family can be decided at all."""

import math

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

TESTS = ("wilcoxon", "binomial", "t", "rank", "fisher")


def smallest_p(n: int, test: str = "wilcoxon") -> float:
    """The smallest two-sided p-value that n values can give.

    2^(1-n) for `wilcoxon` and for `binomial` (against a rate of one half), 0 for `t`, 2 / (n + 1) for `rank` (of one
    value among n simulated ones), 2 / C(2n, n) for `fisher` (n trials in either group).
    """
    if test not in TESTS:
        raise ValueError(f"test={test}: not one of {', '.join(TESTS)}")
    return min(1.0, {"t": 0.0, "rank": 2.0 / (n + 1), "fisher": 2 / math.comb(2 * n, n)}.get(test, 2.0 ** (1 - n)))


def check_family(n: int, size: int, alpha: float = 0.05, test: str = "wilcoxon") -> None:
    """Refuse a family of comparisons of which none could be rejected after Holm's correction.

    Args:
        n: pairs behind each comparison.
        size: number of comparisons in the family.
        alpha: familywise error rate.
        test: as in `smallest_p`.

    Raises:
        ValueError: even the smallest p-value is above alpha / size; the message says how many pairs suffice.
    """
    reach, needed = smallest_p(n, test), alpha / size
    if reach > needed:
        enough = next(more for more in range(n + 1, 10_000) if smallest_p(more, test) <= needed)
        raise ValueError(
            f"n={n}: {test} cannot go below p = {reach:.2g} and {size} comparisons at alpha = {alpha:g} "
            f"need {needed:.2g}: take at least {enough} seeds"
        )


def holm(p_values: ArrayLike) -> ndarray:
    """Holm's step-down correction: p-values that may be held against the familywise alpha (Holm 1979).

    Args:
        p_values: (m,), one per comparison of the declared family.

    Returns:
        (m,), adjusted, in the order given.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values={p.tolist()}: must be a list of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return adjusted
