"""The main job: compare descent modes, gradients by depth, and the effect of the random start.

Questions, on scikit-learn's digits:
    grid    where does training end for every hidden activation x loss x descent mode, over the same 30 seeds?
    depth   how fast does mean |delta| fall from layer to layer, sigmoid against ReLU, under one common initialiser
            (glorot_uniform) and under each activation's own (glorot_uniform, he_normal), compared with mean field?
    width   how much do 60 restarts of one configuration differ at the end, by the width of the hidden layer?

Method: the learning rate of every cell has the lowest mean validation loss of a grid of four a decade over 5 tuning
seeds (100000 on), which are separate from the reported seeds (0 on). The grid is widened while the rate at its edge is
the best. The chosen rates are in conf/experiment/, in grid.yaml, depth.yaml and width.yaml, written by
`python experiments/sweep.py --tune`, so `descentlab -m experiment=grid` trains the grid. Intervals are 95 % over seeds,
Student's t for means and Bonett's for standard deviations; they hold for the one split of the data.

Cost: about two minutes on two cores; tuning takes about six.

Departures from the course notebook: digits (8 x 8 pixels) instead of 300 rows of MNIST. All modes get the same number
of epochs, which is not the same number of updates: the table gives both.
"""

import sys

import numpy as np
import pandas as pd

from descentlab import figures
from descentlab.analysis.statistics import Interval, mean_interval, metric_bounds, spread_interval
from descentlab.analysis.theory import layer_spreads, propagate
from descentlab.config.cells import Cell
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.studies.study import Part, Study, main

COMMON = "glorot_uniform"

PARTS = {
    "width": Part(["restarts=6", "epochs=2"], few=slice(0, 6, 3), tuned=True),
    "depth": Part(["restarts=3", "epochs=1"], few=slice(3), tuned=True),
    "grid": Part(["restarts=3", "epochs=1"], few=slice(0, 24, 7), tuned=True),
}


def report(study: Study) -> None:
    """One table and its figures for each comparison."""
    grid = study.restarts("grid")
    study.table("grid", grid_table(grid, study.curves("grid", ["train/loss"])))
    study.figure("grid", figures.grid_table(grid))

    depth = study.curves("depth")
    depth = depth.assign(
        arm=depth["activation"] + ", " + depth["initializer"],
        hidden_layers=depth["hidden"].map(lambda sizes: len(str(sizes).split("-"))),
    )
    falls = depth_table(depth)
    study.table("depth", falls)
    predicted = depth_theory(depth, study.measured("depth_inputs", lambda: inputs_table(study.cell("depth"))))
    figure = figures.layer_decay(depth, predicted, by="arm", panels="hidden_layers", title=depth_title(falls))
    study.figure("depth", figure)

    width = study.restarts("width")
    width = width.assign(width=width["hidden"].astype(int))
    spreads = width_table(width).sort_values("width")
    study.table("width", spreads)
    ends = [f"{row.sd_of_test_loss:.2g} at width {row.width}" for row in spreads.iloc[[0, -1]].itertuples()]
    title = f"Standard deviation of the test loss over restarts: {' and '.join(ends)}"
    study.figure("width", figures.spread(width, by="width", title=title))


def grid_table(restarts: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Final results of every cell: finite restarts, mean test accuracy and loss with intervals, number of updates."""
    steps = curves.groupby("cell")["step"].max()
    rows = []
    for (loss, descent, activation), cell in restarts.groupby(["loss", "descent", "activation"], sort=False):
        finite = cell[cell["diverged_epoch"] < 0]
        rows.append(
            {
                "loss": loss,
                "descent": descent,
                "activation": activation,
                "rate": cell["learning_rate"].iloc[0],
                "updates": steps[cell["cell"].iloc[0]],
                "n": len(finite),
                "diverged": len(cell) - len(finite),
                **_columns("test_accuracy", mean_interval(finite["test/accuracy"], bounds=metric_bounds("accuracy"))),
                **_columns("test_loss", mean_interval(finite["test/loss"], bounds=metric_bounds("loss"))),
            }
        )
    return pd.DataFrame(rows)


def decades_per_layer(curves: pd.DataFrame, epoch: int) -> pd.Series:
    """Decades of mean |delta| lost per layer towards the input, one value per (hidden_layers, arm, seed).

    The slope of a straight line through log10 of delta_norm over the hidden layers, which are equally wide; the output
    layer, which is not, is left out.
    """
    norms = curves[curves["metric"].str.startswith("delta_norm/layer_") & (curves["epoch"] == epoch)]
    layer = norms["metric"].str.removeprefix("delta_norm/layer_").astype(int)
    norms = norms.assign(layer=layer, log=np.log10(norms["value"]))[layer <= norms["hidden_layers"]]
    groups = norms.groupby(["hidden_layers", "arm", "seed"], sort=False)
    return groups.apply(lambda one: float(np.polyfit(one["layer"], one["log"], 1)[0]), include_groups=False)


def depth_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Decades lost per layer at the start and at the end of training, ReLU less sigmoid seed by seed, and accuracy."""
    last = curves["epoch"].max()
    final = curves[(curves["metric"] == "test/accuracy") & (curves["epoch"] == last)]
    start, end = decades_per_layer(curves, 0), decades_per_layer(curves, last)
    rows = []
    for (layers, arm), values in start.groupby(level=["hidden_layers", "arm"], sort=False):
        sigmoid = start[layers, f"sigmoid, {COMMON}"]
        accuracy = final[(final["hidden_layers"] == layers) & (final["arm"] == arm)]["value"]
        paired = mean_interval(values[layers, arm].to_numpy() - sigmoid.to_numpy())
        rows.append(
            {
                "hidden_layers": layers,
                "arm": arm,
                "n": len(values),
                **_columns("decades_per_layer", mean_interval(values)),
                **(_columns("less_sigmoid", paired) if not arm.startswith("sigmoid") else {}),
                "after_training": end[layers, arm].mean(),
                **_columns(
                    "accuracy",
                    mean_interval(accuracy, bounds=metric_bounds("accuracy")),
                ),
            }
        )
    return pd.DataFrame(rows)


def depth_title(table: pd.DataFrame) -> str:
    """What each arm does to the signal in the deepest networks, in a sentence."""
    deepest = table[table["hidden_layers"] == table["hidden_layers"].max()]
    falls = [f"{10**row.decades_per_layer:.1f} ({figures.words(row.arm)})" for row in deepest.itertuples()]
    return f"Before training, every layer back divides mean |δ| by {', '.join(falls)}"


def inputs_table(cell: Cell) -> pd.DataFrame:
    """What theory asks of the training data: the number of inputs and their mean square."""
    inputs, _ = cell.dataset.splits["train"]
    return pd.DataFrame({"inputs": [inputs.shape[1]], "mean_square": [np.square(inputs).mean()]})


def depth_theory(curves: pd.DataFrame, inputs: pd.DataFrame) -> dict[tuple[int, str], np.ndarray]:
    """Mean field's |delta| per layer, (hidden_layers, arm) -> (L,), started from the measured one at the output."""
    size, moment = inputs[["inputs", "mean_square"]].iloc[0]
    outputs = curves[curves["epoch"] == 0]
    predicted = {}
    for (layers, arm), cell in outputs.groupby(["hidden_layers", "arm"], sort=False):
        activation, initializer = arm.split(", ")
        rules = [INITIALIZERS[initializer]()] * (layers + 1)
        sizes = [int(size), *[32] * layers, 10]
        field = propagate(ACTIVATIONS[activation](), layer_spreads(rules, sizes), moment)
        top = cell[cell["metric"] == f"delta_norm/layer_{layers + 1}"]["value"].mean()
        predicted[layers, arm] = top * 10**field.log10_delta
    return predicted


def width_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Final results by width: mean and standard deviation of the test loss, best and worst accuracy."""
    rows = []
    for width, cell in restarts.groupby("width", sort=False):
        finite = cell[cell["diverged_epoch"] < 0]
        rows.append(
            {
                "width": width,
                "n": len(finite),
                "diverged": len(cell) - len(finite),
                **_columns("test_loss", mean_interval(finite["test/loss"], bounds=metric_bounds("loss"))),
                **_columns("sd_of_test_loss", spread_interval(finite["test/loss"])),
                "worst_accuracy": finite["test/accuracy"].min(),
                "mean_accuracy": finite["test/accuracy"].mean(),
                "best_accuracy": finite["test/accuracy"].max(),
            }
        )
    return pd.DataFrame(rows)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


if __name__ == "__main__":
    sys.exit(main("sweep", __doc__, PARTS, report))
