"""What answers are worth beside their loss: one registry of scores, each for the tasks that it means something for.

accuracy       share of samples whose class is right (largest output; one output: above or below .5);
               of several labels a sample (multilabel) the share of labels that are right at .5
exact_match    share of samples with all labels right at .5 (multilabel)
r2             1 - residual / total sum of squares, averaged over outputs (regression); an output whose targets do not
               vary counts 1 where they are met exactly and 0 elsewhere

A score is measured block by block of samples: `part` says what every sample adds to its sums, `whole` makes the score
of the sums. To add one, enter it in METRICS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from descentlab.nn.outputs import Output


@dataclass(frozen=True)
class Metric:
    """A score of R networks on one split.

    Attributes:
        name: it is recorded as <split>/<name>; one name may stand for different scores of different tasks.
        tasks: of losses.TASKS, those that it is measured for.
        part: `part(z, y, output) -> (R, B, Q)`, what each sample adds to Q sums, for z (R, B, K) of the output layer,
            targets y (B, K) and the output function; neither array may be changed.
        whole: `whole(sums, y) -> (R,)`, the score, for sums (R, Q) in float64 and all targets y (N, K).
    """

    name: str
    tasks: tuple[str, ...]
    part: Callable[[ndarray, ndarray, Output], ndarray]
    whole: Callable[[ndarray, ndarray], ndarray]


def _share(sums: ndarray, y: ndarray) -> ndarray:
    return sums[:, 0] / len(y)


def _right_class(z: ndarray, y: ndarray, output: Output) -> ndarray:
    if z.shape[-1] > 1:  # sigmoid and softmax keep the order of z
        return (z.argmax(axis=-1) == y.argmax(axis=-1))[..., None]
    return (output.value(z) > 0.5) == (y > 0.5)


def _right_labels(z: ndarray, y: ndarray, output: Output) -> ndarray:
    return ((output.value(z) > 0.5) == (y > 0.5)).mean(axis=-1, keepdims=True)


def _all_labels(z: ndarray, y: ndarray, output: Output) -> ndarray:
    return ((output.value(z) > 0.5) == (y > 0.5)).all(axis=-1, keepdims=True)


def _squares(z: ndarray, y: ndarray, output: Output) -> ndarray:
    return np.square(output.value(z) - y)


def _r2(residual: ndarray, y: ndarray) -> ndarray:
    exact = y.astype(np.float64)
    variation = np.square(exact - exact.mean(axis=0)).sum(axis=0)
    varies = np.ptp(exact, axis=0) > 0  # the rounded mean of equal numbers may differ from all of them
    return (1.0 - np.where(varies, residual / np.where(varies, variation, 1.0), residual > 0)).mean(axis=-1)


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", ("binary", "multiclass"), _right_class, _share),
    Metric("accuracy", ("multilabel",), _right_labels, _share),
    Metric("exact_match", ("multilabel",), _all_labels, _share),
    Metric("r2", ("regression",), _squares, _r2),
)


def metrics_of(task: str) -> list[Metric]:
    """The scores of a task, the one that tells first."""
    return [metric for metric in METRICS if task in metric.tasks]
