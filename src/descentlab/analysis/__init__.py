"""Statistics, theory and certificates for measurements of networks. Needs NumPy and SciPy only."""
