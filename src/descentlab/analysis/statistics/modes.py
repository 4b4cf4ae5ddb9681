"""Whether outcomes have one mode: Hartigan's dip test."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics.samples import finite_sample, scaled
from descentlab.nn.initializers import STATISTICS_STREAM, stream


@dataclass(frozen=True)
class Dip:
    """The dip of a sample, and how often a uniform sample of its size has one as large."""

    dip: float
    p_value: float
    n: int


def dip_test(values: ArrayLike, seed: int = 0, simulations: int = 2000) -> Dip:
    """Test whether outcomes have a single mode (Hartigan & Hartigan 1985).

    The dip is the largest distance between the sample's distribution function and the nearest unimodal one. The
    uniform distribution has the largest dips of all unimodal ones, so the simulated p-value is conservative.

    Args:
        values: (n,), finite, n at least 4. Round values that differ by rounding errors only: they count as distinct.
        seed: of the simulated samples.
        simulations: how many; p cannot go below 1 / (simulations + 1).

    Raises:
        ValueError: fewer than four values, or one that is not finite.
    """
    sample = finite_sample(values, at_least=4)
    found = _dip(sample)
    as_large = int((_uniform_dips(sample.size, seed, simulations) >= found - 1e-12).sum())
    return Dip(found, (1 + as_large) / (1 + simulations), sample.size)


@lru_cache(maxsize=32)
def _uniform_dips(n: int, seed: int, simulations: int) -> ndarray:
    generator = stream(seed, STATISTICS_STREAM)
    return np.array([_dip(generator.random(n)) for _ in range(simulations)])


def _dip(sample: ndarray) -> float:
    """Hartigan's algorithm: the modal interval shrinks until no wider gap between minorant and majorant is left."""
    n = sample.size
    x = scaled(np.sort(sample))[0]
    points = x.tolist()
    lower, upper = list(range(n)), list(range(1, n + 1))  # the step function left and right of x, in counts
    first, last, dip = 0, n - 1, 1.0
    while True:
        minorant, majorant = _hull(points, lower, first, last, 1.0), _hull(points, upper, first, last, -1.0)
        below, above = _along(x, lower, minorant), _along(x, upper, majorant)
        gap = above - below
        at_minorant = max(minorant, key=lambda i: gap[i - first])
        at_majorant = max(majorant, key=lambda i: gap[i - first])
        if gap[at_minorant - first] > gap[at_majorant - first]:
            widest, left = float(gap[at_minorant - first]), at_minorant
            right = next(i for i in majorant if i >= left)
        else:
            widest, right = float(gap[at_majorant - first]), at_majorant
            left = next(i for i in reversed(minorant) if i <= right)
        if widest <= dip:
            return dip / (2 * n)
        before = np.array(upper[first : left + 1]) - below[: left + 1 - first]
        after = above[right - first :] - np.array(lower[right : last + 1])
        dip = max(dip, float(before.max()), float(after.max()))
        if (left, right) == (first, last):
            return dip / (2 * n)
        first, last = left, right


def _hull(x: list[float], y: list[int], first: int, last: int, side: float) -> list[int]:
    """Which points first .. last the greatest convex minorant touches; with side -1, the least concave majorant."""
    touching: list[int] = []
    for i in range(first, last + 1):
        while len(touching) > 1:
            a, b = touching[-2:]
            if side * ((y[b] - y[a]) * (x[i] - x[b]) - (y[i] - y[b]) * (x[b] - x[a])) < 0:
                break
            touching.pop()
        touching.append(i)
    return touching


def _along(x: ndarray, y: list[int], corners: list[int]) -> ndarray:
    """Heights of a polygon at all points between its first and last corner; edges between equal x are vertical."""
    i = np.arange(corners[0], corners[-1] + 1)
    side = np.minimum(np.searchsorted(corners, i, side="right"), len(corners) - 1)
    start, end = np.array(corners)[side - 1], np.array(corners)[side]
    width = x[end] - x[start]
    with np.errstate(invalid="ignore"):
        share = np.where(width > 0, (x[i] - x[start]) / width, (i - start) / (end - start))
    heights = np.array(y)
    return heights[start] + share * (heights[end] - heights[start])
