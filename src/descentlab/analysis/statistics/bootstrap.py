"""Bootstrap intervals: restarts resampled with replacement."""

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics.samples import Interval, finite_sample, upper_tail
from descentlab.nn.initializers import STATISTICS_STREAM, stream

BOOTSTRAPS = ("bca", "percentile", "studentised")


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., ndarray] = np.mean,
    seed: int = 0,
    method: str = "bca",
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Bootstrap interval of any statistic of one sample.

    `percentile` takes quantiles of the statistic over resamples, `bca` corrects them for bias and skew (Efron 1987).
    `studentised` resamples (statistic - estimate) / standard error, the latter by the jackknife and so for smooth
    statistics only, not the median (Efron 1982; Hall 1988).

    Both `percentile` and `bca` are too short for small n. Measured coverage of a mean at a nominal 95 %, 2000 samples
    each, of normal values (of lognormal ones in brackets):

        n             10           20           50
        bca           .90 (.83)    .91 (.87)    .94 (.91)
        percentile    .90 (.81)    .91 (.85)    .94 (.91)
        studentised   .95 (.91)    .94 (.91)    .94 (.94)

    Below n = 50 take `studentised`, or Student's interval (`mean_interval`) for a mean.

    Args:
        values: (n,), finite, n at least 2.
        statistic: `statistic(values, axis=...)` like numpy.mean.
        seed: of the resampling.
        method: bca, percentile or studentised.
        confidence: wanted coverage, between 0 and 1.
        resamples: bootstrap samples.

    Raises:
        ValueError: unknown method, or a sample for which the method is undefined.
    """
    if method not in BOOTSTRAPS:
        raise ValueError(f"method={method}: not one of {', '.join(BOOTSTRAPS)}")
    sample = finite_sample(values, at_least=2)
    estimate = float(statistic(sample, axis=-1))
    if np.ptp(sample) == 0:
        return Interval(estimate, estimate, estimate, sample.size)
    if method == "studentised":
        low, high = _studentised(sample, statistic, seed, confidence, resamples)
    else:
        low, high = _resampled((sample,), statistic, seed, method, confidence, resamples)
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"method={method}: undefined for this sample, whose statistic hardly varies")
    return Interval(estimate, low, high, sample.size)


def interquartile_mean(scores: ArrayLike, seed: int = 0, confidence: float = 0.95, resamples: int = 2000) -> Interval:
    """Mean of the middle half of all scores, with a stratified percentile bootstrap (Agarwal et al. 2021).

    A quarter of the scores, rounded down, is cut off at each end. Restarts are resampled within each task.

    Args:
        scores: (n,) restarts of one task, or (n, T) restarts by tasks; finite.
        seed: of the resampling.
        confidence: wanted coverage, between 0 and 1.
        resamples: bootstrap samples.

    Returns:
        The interval; its n counts restarts per task.

    Raises:
        ValueError: fewer than two restarts, or a score that is not finite.
    """
    from scipy.stats import trim_mean

    table = np.asarray(scores, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    finite_sample(table.ravel())
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"scores of shape {table.shape}: must be (restarts, tasks) with at least two restarts")

    def middle(*tasks: ndarray, axis: int = -1) -> ndarray:
        return trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)

    low, high = _resampled(tuple(table.T), middle, seed, "percentile", confidence, resamples)
    return Interval(float(trim_mean(table.ravel(), 0.25)), low, high, len(table))


def _resampled(
    samples: tuple[ndarray, ...],
    statistic: Callable[..., ndarray],
    seed: int,
    method: str,
    confidence: float,
    resamples: int,
) -> tuple[float, float]:
    from scipy.stats import bootstrap

    upper_tail(confidence)
    with np.errstate(divide="ignore", invalid="ignore"):  # a degenerate jackknife ends in NaN
        low, high = bootstrap(
            samples,
            statistic,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 10_000_000 // sum(map(len, samples))),
            confidence_level=confidence,
            method="BCa" if method == "bca" else method,
            rng=stream(seed, STATISTICS_STREAM),
        ).confidence_interval
    return float(low), float(high)


def _studentised(
    sample: ndarray, statistic: Callable[..., ndarray], seed: int, confidence: float, resamples: int
) -> tuple[float, float]:
    upper, generator = upper_tail(confidence), stream(seed, STATISTICS_STREAM)
    n = sample.size
    all_but_one = np.array([np.delete(np.arange(n), i) for i in range(n)])  # (n, n-1)

    def standard_error(samples: ndarray) -> ndarray:
        left_out = statistic(samples[..., all_but_one], axis=-1)  # (..., n)
        return np.sqrt((n - 1) * left_out.var(axis=-1))

    estimate = statistic(sample, axis=-1)
    block = max(1, 4_000_000 // (n * n))  # resamples at a time, for some 32 MB
    pivots = []
    for start in range(0, resamples, block):
        drawn = sample[generator.integers(n, size=(min(block, resamples - start), n))]
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample of one value: no error, infinite pivot
            pivots.append((statistic(drawn, axis=-1) - estimate) / standard_error(drawn))
    limits = np.quantile(np.concatenate(pivots), [upper, 1 - upper], method="inverted_cdf")
    low, high = estimate - limits * standard_error(sample)
    return float(low), float(high)
