"""Whether outcomes have one mode: Hartigan's dip test."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics.samples import finite_sample
from descentlab.nn.initializers import STATISTICS_STREAM, stream

TIE_WIDTH = 1e-10  # of the range: what ties are spread over, where a distribution function must not jump


@dataclass(frozen=True)
class Dip:
    """The dip of a sample, and how often a uniform sample of its size has one as large."""

    dip: float
    p_value: float
    n: int


def dip_test(values: ArrayLike, seed: int = 0, simulations: int = 2000) -> Dip:
    """Test whether outcomes have a single mode (Hartigan & Hartigan 1985).

    The dip is the largest distance between the sample's distribution function and the nearest unimodal one. The
    uniform distribution is the worst case among unimodal ones, which makes the p-value, by simulation, a cautious one.

    Args:
        values: (n,), finite, n at least 4; a value that repeats is a narrow heap.
        seed: of the simulated samples.
        simulations: how many; p cannot go below 1 / (simulations + 1).
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
    n, reach = sample.size, float(np.ptp(sample)) or 1.0
    values, counts = np.unique(np.round((sample - sample.min()) / reach, 9), return_counts=True)
    atoms = [value + TIE_WIDTH * np.arange(count) / count for value, count in zip(values, counts, strict=True)]
    x = np.concatenate(atoms).tolist()
    lower, upper = list(range(n)), list(range(1, n + 1))  # the step function left and right of x, in counts
    first, last, dip = 0, n - 1, 1.0
    while True:
        minorant, majorant = _hull(x, lower, first, last, 1.0), _hull(x, upper, first, last, -1.0)
        below = np.interp(x[first : last + 1], [x[i] for i in minorant], [lower[i] for i in minorant])
        above = np.interp(x[first : last + 1], [x[i] for i in majorant], [upper[i] for i in majorant])
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
