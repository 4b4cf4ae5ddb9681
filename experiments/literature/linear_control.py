"""Linear networks as a control: all minima are global, by restarts, certificates and Saxe's exact learning curve.

Claims:
    * Of restarts: identity activations with squared error end at the optimum from the singular value decomposition,
      whatever the start, within 1 % of the learnable part of the loss; restarts do not vary.
    * Of minima: an end polishes to that optimum, to nine digits, or to a certified saddle (Baldi & Hornik 1989). The
      dimension of its valley equals the number of ways to write the same map.
    * From an aligned and balanced start on whitened inputs every mode grows as solved by Saxe et al. (2013),
      u(t) = s e^(2 s t / T) / (e^(2 s t / T) - 1 + s / u_0), within 1 % of its strength s.

Method: digits at 4x4 pixels (300 rows, 10 outputs) and iris (4 measures, 3 outputs), standardised inputs, one-hot
targets, linear output; no hidden layer, one bottleneck, or a bottleneck between wider layers; 100 restarts, 5000 steps
on the whole batch (20 000 for the deep net on digits). The optimum of a net whose narrowest layer has r units is the
regression on centred data without the singular values of its outputs beyond the r-th (Eckart & Young 1936). Descent
never leaves a start with all weights zero; this start shows that certificates recognise a saddle. Every end is
certified. Affine maps of rank r have r (n_0 + K - r) + K dimensions; the remaining dimensions of a net's P parameters
only rewrite the same map.
    Saxe's curve: the same digits with inputs centred and whitened and targets centred, a hidden layer of 10. With
Y^T X / N = U S V^T the start is W1 = sqrt(u_0) V^T and W2 = sqrt(u_0) U, no biases, u_0 = .001. One step at rate eta is
eta / K of Saxe's time, because the loss is a mean over K outputs, halved: T = K / eta steps.

Cost: about three minutes on two cores, half of it for the certificates of the widest nets.

Departures from Saxe et al.: steps of .002 T / s_1 instead of a flow; digits instead of a constructed hierarchy.
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.theory import saxe_mode
from descentlab.analysis.verdicts import Values
from descentlab.config.cells import cells
from descentlab.config.composing import compose
from descentlab.config.configuration import Config
from descentlab.data.loading import Dataset
from descentlab.nn.activations import identity
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters, input_table, parameter_count, target_table
from descentlab.nn.program import gradient
from descentlab.nn.recipe import Training
from descentlab.studies.study import Part, Study, main
from descentlab.sweeps import judges

DIGITS = ["data=digits", "data.image_size=4", "data.limit=300"]
NETS = {  # data and sizes of the hidden layers -> overrides
    ("digits", "none"): [*DIGITS, "network.hidden=[]", "learning_rate=1"],
    ("digits", "3"): [*DIGITS, "network.hidden=3", "learning_rate=1"],
    ("digits", "6-3-6"): [*DIGITS, "network.hidden=6-3-6", "learning_rate=0.5", "epochs=20000"],  # slow to start
    ("iris", "none"): ["data=iris", "network.hidden=[]", "learning_rate=0.5"],
    ("iris", "1"): ["data=iris", "network.hidden=1", "learning_rate=0.3"],
    ("iris", "3-1-3"): ["data=iris", "network.hidden=3-1-3", "learning_rate=0.1"],
}
FROM_ZERO = (("iris", "3-1-3"), ("digits", "3"))
MODES, QUICK_MODES = 9, 2
WEAK = 0.001  # u_0, every mode's strength at the start
FINE = 0.002  # a step's share of the strongest mode's time constant
TIMES = 120  # at which the curve is held against theory
WITHIN = 0.01  # of what there is to learn, and of a mode's strength
EXACT = 1e-9  # of the loss: where a polished end counts as at the optimum


def against_the_optimum(cell: Config, dataset: Dataset, training: Training) -> pd.DataFrame:
    """Judge restarts by their certificates and by the known optimum.

    Returns:
        outcome and loss_level (optimum, above); optimum, constant (the loss of the best constant output), gap (the loss
        of the end above the optimum, as a share of constant minus optimum), polished_gap, valley (the number of
        directions of the weights that only rewrite the same map); then the attributes of the certificate.
    """
    inputs, targets = dataset.splits["train"]
    layers = training.recipe.layers
    rank, n_in, n_out = min(layers), layers[0], layers[-1]
    best, constant = optimum(inputs, targets, rank), optimum(inputs, targets, 0)
    table = judges.certificates(cell, dataset, training)
    gaps = {
        name: (table[loss] - best) / (constant - best)
        for name, loss in (("gap", "decayed_loss"), ("polished_gap", "polished_loss"))
    }
    level = np.where(gaps["gap"] < WITHIN, "optimum", "above")
    known = {
        "optimum": best,
        "constant": constant,
        "valley": parameter_count(layers) - rank * (n_in + n_out - rank) - n_out,
    }
    return table.assign(loss_level=level, **known, **gaps)


PARTS = {
    "linear_control": Part(
        ["restarts=3", "epochs=500", "log_every=500"],
        few=slice(3, 7),
        judge=against_the_optimum,
    )
}


def report(study: Study) -> None:
    """Gaps to the optimum, certificates, Saxe's modes and verdicts."""
    restarts = study.restarts("linear_control")
    start = restarts["initializer"].map(lambda rule: ", from zero" if rule == "zeros" else "")
    restarts["net"] = restarts["data"] + " " + restarts["hidden"].astype(str) + start
    study.table("optimum", optimum_table(restarts))
    gaps = restarts.assign(share=restarts["gap"].clip(lower=1e-12))
    about = f"{int(restarts.groupby('net')['seed'].size().max())} restarts each"
    label = "training loss above the SVD optimum, as a share of the learnable part (1e-12 or less at the edge)"
    title = f"Final loss of linear nets: {about}"
    study.figure("gaps", figures.ends(gaps, "share", "polished", "net", label, title))
    modes = study.measured("saxe", lambda: saxe_table(QUICK_MODES if study.quick else MODES))
    study.table("modes", mode_table(modes))
    thinned = modes[modes["time"].isin(np.unique(modes["time"])[::4]) & (modes["mode"] % 2 == 1)]
    figure = figures.predicted(
        thinned.assign(measured_low=thinned["measured"], measured_high=thinned["measured"]),
        "time",
        {"measured": "points: trained net   dotted: Saxe's solution"},
        "mode",
        labels=("updates", "strength of a mode"),
        note=None,
        title="A linear net learns its modes one by one\ndigits 4x4, whitened, from a balanced start",
    )
    study.figure("saxe", figure)
    study.verdicts(claimed(restarts, modes))


def optimum(inputs: ndarray, targets: ndarray, rank: int) -> float:
    """The least half mean squared error of an affine map of a given rank: regression without its weakest modes.

    Args:
        inputs: (N, n_0).
        targets: (N, K).
        rank: of the linear part, such as the size of the narrowest layer.
    """
    x, y = inputs - inputs.mean(axis=0), targets - targets.mean(axis=0)
    answers = x @ np.linalg.lstsq(x, y)[0]
    left_out = np.linalg.svd(answers, compute_uv=False)[rank:]
    return float((np.square(y - answers).sum() + np.square(left_out).sum()) / (2 * y.size))


def optimum_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Per net, outcome and polished point: restarts, largest gaps, zero modes found and known."""
    table = restarts.groupby(["net", "outcome", "polished"], sort=False).agg(
        restarts=("seed", "size"),
        optimum=("optimum", "first"),
        constant=("constant", "first"),
        largest_gap=("gap", "max"),
        polished_gap=("polished_gap", "max"),
        zero_modes=("zero_modes", "max"),
        valley=("valley", "first"),
        by_symmetry=("symmetry_modes", "max"),
        negative_modes=("negative_modes", "max"),
    )
    return table.reset_index()


def whitened() -> tuple[ndarray, ndarray]:
    """Digits at 4x4 pixels: inputs (N, 16) with covariance 1, targets (N, 10) centred."""
    (setting,) = compose([], "linear_control", [NETS["digits", "none"]])
    x, y = cells([setting])[0].dataset.splits["train"]
    x = x - x.mean(axis=0)
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    return x @ axes / np.sqrt(values), y - y.mean(axis=0)


def saxe_table(modes: int) -> pd.DataFrame:
    """Train a linear net from an aligned start and measure its modes.

    Args:
        modes: how many of the strongest modes to follow; training ends when the weakest of them has been learnt.

    Returns:
        One row per mode and logged update: mode (1 the strongest), time (updates), strength, measured, theory.
    """
    x, y = whitened()
    left, strengths, right = np.linalg.svd(y.T @ x / len(x), full_matrices=False)
    outputs = y.shape[1]
    rate = FINE * outputs / strengths[0]
    constant = outputs / rate  # T in updates
    last = int(0.5 * constant / strengths[modes - 1] * np.log(20 * strengths[modes - 1] / WEAK))
    logged = np.unique(np.linspace(0, last, TIMES).astype(int))
    network = Network((x.shape[1], outputs, outputs), identity(), "linear", LOSSES["mean_squared_error"])
    parameters = Parameters.empty(network.layers, 1, "float64")
    parameters.flat[...] = 0.0
    parameters.W[0][0], parameters.W[1][0] = np.sqrt(WEAK) * right, np.sqrt(WEAK) * left
    slope = partial(gradient, network, parameters, input_table(x, "float64"), target_table(y, "float64"), 1 / len(x))
    workspace = Workspace(network, "float64")
    rows = []
    for update in range(last + 1):
        if update in logged:
            map_ = left.T @ parameters.W[1][0] @ parameters.W[0][0] @ right.T
            for mode in range(modes):
                expected = float(saxe_mode(update, strengths[mode], WEAK, constant))
                rows.append((mode + 1, update, strengths[mode], map_[mode, mode], expected))
        parameters.flat -= rate * slope(workspace).flat
    return pd.DataFrame(rows, columns=["mode", "time", "strength", "measured", "theory"])


def mode_table(modes: pd.DataFrame) -> pd.DataFrame:
    """Per mode: strength, final measured value, and the largest deviation from theory as a share of the strength."""
    deviation = (modes["measured"] - modes["theory"]).abs() / modes["strength"]
    table = modes.assign(deviation=deviation).groupby("mode")
    return table.agg(
        strength=("strength", "first"), learnt=("measured", "last"), largest_deviation=("deviation", "max")
    ).reset_index()


def claimed(restarts: pd.DataFrame, modes: pd.DataFrame) -> dict[str, Values | dict[str, Values] | None]:
    """The values of every claim; None if not all nets were run."""
    drawn = {str(net): arm for net, arm in restarts.groupby("net", sort=False) if "from zero" not in str(net)}
    whole = len(drawn) == len(NETS)
    at_optimum = restarts["polished_gap"] < EXACT
    minimum = restarts["polished"].isin(("strict minimum", "flat minimum"))
    by_mode = {f"mode {mode}": one for mode, one in modes.groupby("mode")}
    return {
        "restarts_end_at_the_optimum": (
            {net: (arm["gap"] < WITHIN).to_numpy(dtype=float) for net, arm in drawn.items()} if whole else None
        ),
        "optimum_or_saddle": (
            (at_optimum & minimum | (restarts["polished"] == "saddle")).to_numpy(dtype=float) if whole else None
        ),
        "no_other_minimum": (minimum & ~at_optimum).to_numpy(dtype=float) if whole else None,
        "valleys_write_one_map": (
            (restarts["zero_modes"] == restarts["valley"])[at_optimum].to_numpy(dtype=float)
            if whole and at_optimum.any()
            else None
        ),
        "saxe_within_one_percent": (
            {
                mode: ((one["measured"] - one["theory"]).abs() < WITHIN * one["strength"]).to_numpy(dtype=float)
                for mode, one in by_mode.items()
            }
            if len(by_mode) == MODES
            else None
        ),
    }


if __name__ == "__main__":
    sys.exit(main("linear_control", __doc__, PARTS, report))
