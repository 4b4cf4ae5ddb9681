"""descentlab: how small fully connected networks learn, measured over stacked restarts."""
