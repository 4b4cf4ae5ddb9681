"""Which cells to run, where, and what to do when something breaks."""
