"""What Python's people import: train() on arrays and its result."""

from descentlab.api.training import Training, train

__all__ = ["Training", "train"]
