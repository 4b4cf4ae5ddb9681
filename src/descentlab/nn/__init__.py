"""The network and how it learns: NumPy alone, nothing above it."""
