"""Descent modes: which samples each step sees, and in which order an epoch goes through them.

To add one, enter a factory below (@DESCENTS.enter) and add conf/descent/<name>.yaml.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.registry import Named, Registry

DESCENTS = Registry("descent")


@dataclass(frozen=True)
class Descent(Named):
    """A descent mode.

    Attributes:
        name: its key in DESCENTS.
        batch_size: samples a step, None for all of them; the last batch of an epoch may be short and is used.
        shuffled: whether every epoch goes through a fresh random order, without replacement, or through file order.
    """

    name: str
    batch_size: int | None
    shuffled: bool

    def steps(self, samples: int) -> list[tuple[int, int]]:
        """The [start, stop) ranges of an epoch's order, one per update step."""
        size = min(self.batch_size or samples, samples)
        return [(start, min(start + size, samples)) for start in range(0, samples, size)]

    def order(self, generator: np.random.Generator, samples: int) -> ndarray:
        """One epoch's order of the samples, shape (samples,), drawn from the restart's own stream."""
        return generator.permutation(samples)


@DESCENTS.enter
def batch() -> Descent:
    """All samples in every step."""
    return Descent("batch", None, shuffled=False)


@DESCENTS.enter
def stochastic() -> Descent:
    """One sample a step, in a fresh random order without replacement every epoch."""
    return Descent("stochastic", 1, shuffled=True)


@DESCENTS.enter
def mini_batch(batch_size: int = 32) -> Descent:
    """batch_size samples a step, reshuffled every epoch; the last short batch is used.

    Raises:
        ValueError: for a batch_size that is no whole number from 1.
    """
    if not (isinstance(batch_size, (int, np.integer)) and batch_size >= 1):
        raise ValueError(f"descent.batch_size={batch_size}: must be a whole number from 1")
    return Descent("mini_batch", batch_size, shuffled=True)


@DESCENTS.enter
def sequential() -> Descent:
    """One sample a step in file order, no shuffling: what the notebook's in-place update really runs."""
    return Descent("sequential", 1, shuffled=False)
