"""What the measurements mean: statistics and theory, standing on NumPy and SciPy."""
