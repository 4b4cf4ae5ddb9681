"""Dead ReLU units: born dead by the random draw, killed during training by the rate; leaky ReLU for comparison.

Claims:
    * A ReLU net with zero biases is born dead for one non-zero input (one layer is silent and the output is constant)
      with probability 1 - prod_l (1 - 2^-N_l) over the widths N_l of its hidden layers.
    * Fewer nets are dead on a whole interval of inputs.
    * The larger the learning rate, the more hidden units are silent on every sample at the end of training.
    * Leaky ReLU, whose slope is nowhere zero, keeps a higher accuracy than ReLU at such rates.

Method: born dead: 40 blocks of 2000 nets for each of 5 widths, 50 layers deep, drawn together; scalar input, weights
N(0, 2/n_in) (the spread does not matter), biases 0. Without biases the output for x is |x| times the output for
x / |x|, so a net is dead on [-1, 1] exactly if it is dead at both ends: no sampling is needed. Each block gives one
value, its share of dead nets minus the theory's. An equivalence test asks whether the mean is 0 within .01.
    During training: digits, hidden layers of 32, 32 and 32 units, six rates with 30 seeds each. ReLU and leaky ReLU
start from the same weights and see the samples in the same order. A unit is silent if z <= 0 on all training samples:
a ReLU unit is then dead, a leaky ReLU unit still has a slope of .01.

Cost: about 30 seconds on two cores.

Departures from Lu et al. 2019 and Rister & Rubin 2020: a net counts as dead if a hidden layer is silent, which for
continuous weights is equivalent to a constant output. Training uses digits, at rates that are too large for practical
use on purpose.
"""

import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.statistics import Interval, mean_interval, metric_bounds, wilson
from descentlab.analysis.theory import born_dead_probability
from descentlab.analysis.verdicts import Values
from descentlab.nn.initializers import INITIALIZERS, WEIGHT_STREAM, stream
from descentlab.studies.study import Part, Study, main

WIDTHS = (2, 3, 4, 6, 8)
DEPTHS = (1, 2, 3, 5, 8, 12, 20, 32, 50)
BLOCKS, NETS = 40, 2000
INTERVAL_DEPTH = 8  # at which the interval is held against one input
SLOPES = {"relu": 0.0, "leaky_relu": 0.01}  # left of 0
FEW_OR_MANY = (0.1, 1.0)  # the rates of the claim about silent units
KILLING = (0.5, 1.0)  # the rates at which leaky ReLU is held against ReLU

PARTS = {
    "dying_relu": Part(
        ["restarts=3", "epochs=2", "log_every=2"],
        few=slice(1, None, 2),  # the rates that the claims are about
    )
}


def report(study: Study) -> None:
    """Tables, figures and verdicts of both halves."""
    size = (3, 100) if study.quick else (BLOCKS, NETS)
    blocks = study.measured("born_dead_blocks", lambda: born_dead(*size))
    table = born_dead_table(blocks)
    study.table("born_dead", table)
    figure = figures.predicted(
        table,
        "depth",
        {"one_input": "dead for one input", "interval": "dead on [-1, 1] (line: theory for one input)"},
        by="width",
        labels=("hidden layers", "share of ReLU nets born dead"),
        title=f"ReLU nets born dead, {table['nets'].iloc[0]} per point, and 1 - prod(1 - 2^-N)",
    )
    study.figure("born_dead", figure)

    restarts = study.restarts("dying_relu")
    silent = study.measured("silent_units", lambda: silent_table(study, restarts))
    joined = restarts.merge(silent, on=["activation", "learning_rate", "seed"])
    study.table("dying", dying_table(joined))
    panels = {
        "silent": "share of hidden units that are silent",
        "test/accuracy": "test accuracy (fraction of samples)",
    }
    about = f"{restarts['epochs'].iloc[0]} epochs, {restarts['seed'].nunique()} restarts a point"
    title = f"Units silent on all training samples: digits, 64-32-32-32-10, {about}"
    study.figure("dying", figures.trends(joined, "learning_rate", panels, by="activation", title=title))
    study.verdicts(claimed(blocks, joined))


def claimed(blocks: pd.DataFrame, restarts: pd.DataFrame) -> dict[str, Values | dict[str, Values]]:
    """The values of every claim.

    Args:
        blocks: as from `born_dead`.
        restarts: one row per restart with `silent` and test/accuracy, paired by seed.
    """
    cells = blocks.groupby(["width", "depth"])
    one = {
        f"width {width}, depth {depth}": (cell["dead_at_one_input"] / cell["nets"] - cell["theory"]).to_numpy()
        for (width, depth), cell in cells
    }
    interval = {
        f"width {width}": (cell["dead_on_interval"] / cell["nets"] - cell["theory"]).to_numpy()
        for (width, depth), cell in cells
        if depth == INTERVAL_DEPTH
    }

    def values(column: str, activation: str, rate: float) -> ndarray:
        arm = restarts[(restarts["activation"] == activation) & (restarts["learning_rate"] == rate)]
        return arm.sort_values("seed")[column].to_numpy(dtype=float)

    low, high = FEW_OR_MANY
    return {
        "born_dead_as_predicted": one,
        "interval_below_one_input": interval,
        "large_steps_kill_units": (values("silent", "relu", high), values("silent", "relu", low)),
        "leaky_relu_outlives_relu": {
            f"rate {rate}": (values("test/accuracy", "leaky_relu", rate), values("test/accuracy", "relu", rate))
            for rate in KILLING
        },
    }


def silent_table(study: Study, restarts: pd.DataFrame) -> pd.DataFrame:
    """Share of silent hidden units of every restart, before and after training, in all and layer by layer.

    Args:
        study: holds the weights.
        restarts: one row per restart, as from `results.restarts`.

    Returns:
        One row per activation, learning_rate and seed: born_silent, silent, silent_1 .. silent_3; NaN where training
        diverged.
    """
    inputs = study.cell("dying_relu").dataset.splits["train"][0]
    rows = []
    for run_id, arm in restarts.groupby("run_id", sort=False):
        weights = study.weights(str(run_id))
        slope = SLOPES[arm["activation"].iloc[0]]
        layers = range(1, sum(name.startswith("W") for name in weights.final))
        start, end = (
            silent_units(
                [part[f"W{layer}"] for layer in layers], [part[f"b{layer}"] for layer in layers], inputs, slope
            )
            for part in (weights.initial, weights.final)
        )
        finite = arm.set_index("seed")["diverged_epoch"].reindex(weights.seeds).to_numpy() < 0
        by_layer = np.stack([part.mean(axis=1) for part in np.split(end, len(layers), axis=1)])
        shares = np.where(finite, [end.mean(axis=1), *by_layer], np.nan)
        for place, seed in enumerate(weights.seeds):
            about = (arm["activation"].iloc[0], arm["learning_rate"].iloc[0], int(seed), start[place].mean())
            rows.append((*about, *shares[:, place]))
    names = [f"silent_{layer}" for layer in range(1, len(rows[0]) - 4)]
    return pd.DataFrame(rows, columns=["activation", "learning_rate", "seed", "born_silent", "silent", *names])


def dying_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Silent units and accuracy after training, per activation and rate."""
    rows = []
    for (activation, rate), arm in restarts.groupby(["activation", "learning_rate"], sort=False):
        finite = arm[arm["diverged_epoch"] < 0]
        row = {"activation": activation, "rate": rate, "n": len(finite), "diverged": len(arm) - len(finite)}
        row["born_silent"] = arm["born_silent"].mean()
        for name in ("silent", "test/accuracy"):
            interval = Interval(np.nan, np.nan, np.nan, 0)
            if len(finite):
                interval = mean_interval(finite[name], bounds=metric_bounds("accuracy"))  # either is a share
            row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
        layers = [name for name in arm.columns if name.startswith("silent_")]
        rows.append(row | finite[layers].mean().to_dict())
    return pd.DataFrame(rows)


def silent_layers(width: int, depth: int, nets: int, seed: int) -> ndarray:
    """Draw ReLU nets with one input and zero biases, and find the depths at which they are silent.

    Args:
        width: units of every hidden layer.
        depth: number of hidden layers.
        nets: how many to draw.
        seed: of the draw.

    Returns:
        (2, depth, nets) bool: whether a hidden layer up to this one is silent for x = 1, and for x = -1.
    """
    draw = stream(seed, WEIGHT_STREAM)
    rule = INITIALIZERS["he_normal"]()  # its spread depends on n_in alone, so that one call draws all nets' layer
    a = np.tile(np.array([1.0, -1.0])[:, None], (nets, 1, 1))  # (nets, 2, 1)
    silent = np.empty((depth, nets, 2), dtype=bool)
    for layer in range(depth):
        n_in = a.shape[-1]
        weights = rule.weights(draw, nets * width, n_in).reshape(nets, width, n_in)
        a = np.maximum(a @ weights.mT, 0.0)  # (nets, 2, width)
        silent[layer] = ~a.any(axis=-1)  # a silent layer silences all that follow
    return np.moveaxis(silent, 2, 0)


def born_dead(
    blocks: int = BLOCKS, nets: int = NETS, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS
) -> pd.DataFrame:
    """Simulate the share of nets that are born dead, and add the theory's.

    Args:
        blocks: seeds, each with draws of its own.
        nets: drawn per block and width; those of one width share their first layers across depths.
        widths: of the hidden layers, all equal.
        depths: numbers of hidden layers.

    Returns:
        One row per width, depth and seed: nets, dead_at_one_input (x = 1), dead_on_interval ([-1, 1]) as counts, and
        theory, the probability for one input.
    """
    rows = []
    for width, seed in product(widths, range(blocks)):
        silent = silent_layers(width, max(depths), nets, seed)
        one, both = silent[0].sum(axis=-1), silent.all(axis=0).sum(axis=-1)
        for depth in depths:
            theory = born_dead_probability([width] * depth)
            rows.append((width, depth, seed, nets, int(one[depth - 1]), int(both[depth - 1]), theory))
    columns = ["width", "depth", "seed", "nets", "dead_at_one_input", "dead_on_interval", "theory"]
    return pd.DataFrame(rows, columns=columns)


def born_dead_table(blocks: pd.DataFrame) -> pd.DataFrame:
    """Shares over all blocks with Wilson intervals, per width and depth."""
    rows = []
    for (width, depth), cell in blocks.groupby(["width", "depth"]):
        nets = int(cell["nets"].sum())
        row = {"width": width, "depth": depth, "nets": nets, "theory": cell["theory"].iloc[0]}
        for name in ("one_input", "interval"):
            column = "dead_at_one_input" if name == "one_input" else "dead_on_interval"
            share = wilson(int(cell[column].sum()), nets)
            row |= {name: share.estimate, f"{name}_low": share.low, f"{name}_high": share.high}
        rows.append(row)
    return pd.DataFrame(rows)


def silent_units(weights: Sequence[ndarray], biases: Sequence[ndarray], inputs: ndarray, slope: float) -> ndarray:
    """Find the silent hidden units: z <= 0 on every sample.

    Args:
        weights: of the hidden layers, (R, n_l, n_{l-1}).
        biases: of the hidden layers, (R, n_l).
        inputs: (N, n_0).
        slope: of the activation left of 0: 0 for ReLU.

    Returns:
        (R, n_1 + ... + n_{L-1}) bool, layer by layer.
    """
    a = inputs[None]  # (1, N, n_0)
    silent = []
    for w, b in zip(weights, biases, strict=True):
        z = a @ w.mT + b[:, None]  # (R, N, n_l)
        silent.append((z <= 0.0).all(axis=1))
        a = np.maximum(z, slope * z)
    return np.concatenate(silent, axis=1)


if __name__ == "__main__":
    sys.exit(main("dying_relu", __doc__, PARTS, report))
