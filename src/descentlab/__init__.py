"""descentlab: how small fully connected networks learn, measured over stacked restarts.

`from descentlab import train` trains restarts on arrays, without configuration files or tracking.
"""

from descentlab.api import Training, train

__all__ = ["Training", "train"]
