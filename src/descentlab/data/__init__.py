"""Read, check, split and scale data: what comes out is plain arrays."""

from collections.abc import Collection

SPLITS = ("train", "validation", "test")  # of the data, in the order in which they are cut


def is_score(metric: str) -> bool:
    """Whether a metric is a loss or score of a split, not a norm of a layer."""
    return metric.partition("/")[0] in SPLITS


def leading(metrics: Collection[str]) -> str:
    """The metric that stands for a result: the test split's score, else its loss, else another split's; "" for none."""
    names = (f"{split}/{name}" for split in SPLITS[::-1] for name in ("accuracy", "r2", "loss"))
    return next((name for name in names if name in metrics), "")
