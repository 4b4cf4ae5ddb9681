"""Checks of a sample, and the interval that every estimate comes with."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval around an estimate from n restarts, pairs or trials."""

    estimate: float
    low: float
    high: float
    n: int


def finite_sample(values: ArrayLike, at_least: int = 1) -> ndarray:
    """The values as an array (n,).

    Args:
        values: (n,), finite.
        at_least: smallest n.

    Raises:
        ValueError: not a list, fewer than `at_least` values, or a value that is not finite.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size < at_least:
        raise ValueError(f"values of shape {sample.shape}: must be a list of at least {at_least}")
    if not np.isfinite(sample).all():
        first = int(np.argmin(np.isfinite(sample)))
        raise ValueError(f"values[{first}]={sample[first]}: must be finite; leave diverged restarts out and count them")
    return sample


def scaled(sample: ndarray) -> tuple[ndarray, int]:
    """A sample in units of a power of two, in which it lies within -1 to 1 and squares cannot overflow.

    Args:
        sample: finite, not empty.

    Returns:
        The sample divided by 2^e, which is exact, and e.
    """
    exponent = int(np.frexp(np.abs(sample).max())[1])
    return np.ldexp(sample, -exponent), exponent


def upper_tail(confidence: float) -> float:
    """The probability below the upper limit of a two-sided interval of this confidence, (1 + confidence) / 2."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must lie between 0 and 1")
    return (1 + confidence) / 2


def sign(better: str) -> float:
    """1 where high values are better, -1 where low ones are."""
    if better not in ("lower", "higher"):
        raise ValueError(f"better={better}: must be lower or higher")
    return 1.0 if better == "higher" else -1.0
