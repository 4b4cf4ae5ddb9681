"""The command line: words in, calls out. No other package imports it."""

from descentlab.cli.entry import main

__all__ = ["main"]
