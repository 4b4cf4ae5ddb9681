"""Configure, run, keep and show: the floor that knows Hydra, MLflow and matplotlib."""
