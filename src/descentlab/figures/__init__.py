"""Figures of the tables that `results` returns: every restart is visible, the mean and its 95 % interval on top."""

from matplotlib.figure import Figure

from descentlab.figures.curves import accuracies, arrivals, layer_decay, learning_curves, paths
from descentlab.figures.intervals import costs, deviations, estimates, predicted
from descentlab.figures.outcomes import ends, shares
from descentlab.figures.restarts import histograms, published, scatter, spread, trends
from descentlab.figures.style import save, words
from descentlab.figures.tables import grid_table, heat_maps, phase_map, slices

__all__ = [
    "Figure",
    "accuracies",
    "arrivals",
    "costs",
    "deviations",
    "ends",
    "estimates",
    "grid_table",
    "heat_maps",
    "histograms",
    "layer_decay",
    "learning_curves",
    "paths",
    "phase_map",
    "predicted",
    "published",
    "save",
    "scatter",
    "shares",
    "slices",
    "spread",
    "trends",
    "words",
]
