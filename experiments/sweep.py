"""The main job: gradients by depth, the effect of the random start, and the descent that ends highest.

Questions, on scikit-learn's digits:
    depth   how fast does mean |delta| fall from layer to layer, sigmoid against ReLU, under one common initialiser
            (glorot_uniform) and under each activation's own (glorot_uniform, he_normal), compared with mean field?
    width   how much do 60 restarts of one configuration differ at the end, by the width of the hidden layer?
    grid    where does training end for every hidden activation x loss x descent mode, and which ends highest?

Method: the learning rate of every cell has the lowest mean validation loss of a grid of four a decade over 5 tuning
seeds (100000 on), which are separate from the reported seeds (0 on), on split 0 of the data. The grid is widened while
the rate at its edge is the best. The chosen rates are in conf/experiment/, in grid.yaml, depth.yaml and width.yaml,
written by `python experiments/sweep.py --tune`, so `descentlab -m experiment=grid` trains the grid.

The grid crosses 6 splits of the data with 5 seeds, and its unit is the split: the mean over a split's seeds is one
value, and intervals are Student's t over 6 of them. The splits share their rows, so an interval says what another draw
of the split would change and not what other data would. The best configuration is the one with the highest mean
validation accuracy. Another one is a near-tie unless its validation accuracy is lower, paired by split, in a t interval
that counts all comparisons with the best (Bonferroni). Test accuracy chooses nothing.

Depth and width have one split, with 30 and 60 seeds: 95 % intervals over seeds, Student's t for means and Bonett's for
standard deviations, hold for that split.

The claims are in experiments/claims/sweep.yaml with the power that their margins leave, computed from a pilot with
other seeds and splits.

Cost: about 75 seconds on two cores, 134 s of processor time; tuning takes about six minutes.

Departures from the course notebook: digits (8 x 8 pixels) instead of 300 rows of MNIST. All modes get the same number
of epochs, which is not the same number of updates: the table gives both.
"""

import sys
import textwrap

import numpy as np
import pandas as pd

from descentlab import figures
from descentlab.analysis.statistics import Interval, mean_interval, metric_bounds, spread_interval
from descentlab.analysis.theory import layer_spreads, propagate
from descentlab.analysis.verdicts import Values, Verdict
from descentlab.config.cells import Cell
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.studies.study import Part, Study, main

COMMON, OWN = "glorot_uniform", "he_normal"
ARMS = (f"sigmoid, {COMMON}", f"relu, {COMMON}", f"relu, {OWN}")
CELL = ["loss", "descent", "activation"]
BLOCK = 5  # restarts behind each standard deviation that the claim on width compares
SPLIT = "data.split_seed"
COLUMNS = 79  # of printed text
WORDS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "mini_batch": "mini-batch"}
SHORT = {"mean_squared_error": "MSE", "categorical_cross_entropy": "CE", "mini_batch": "mini", "stochastic": "sgd"}

PARTS = {
    "depth": Part(["restarts=3", "epochs=1"], few=slice(3), tuned=True),
    "width": Part(["restarts=6", "epochs=2"], few=slice(0, 6, 3), tuned=True),
    "grid": Part(["restarts=3", "epochs=1", f"{SPLIT}=0,1"], few=slice(0, 48, 8), tuned=True),
}


def report(study: Study) -> None:
    """Tables and figures of the three comparisons; printed are a sentence and a small table of each."""
    depth = study.curves("depth")
    depth = depth.assign(
        arm=depth["activation"] + ", " + depth["initializer"],
        hidden_layers=depth["hidden"].map(lambda sizes: len(str(sizes).split("-"))),
    )
    falls = depth_table(depth)
    study.summary.table("depth", falls)
    predicted = depth_theory(depth, study.measured("depth_inputs", lambda: inputs_table(study.cell("depth"))))
    figure = figures.layer_decay(depth, predicted, by="arm", panels="hidden_layers", title=depth_title(falls))
    study.figure("depth", figure)

    width = study.restarts("width")
    width = width.assign(width=width["hidden"].astype(int))
    spreads = width_table(width).sort_values("width")
    study.summary.table("width", spreads)
    ends = [f"{row.sd_of_test_loss:.2g} at width {row.width}" for row in spreads.iloc[[0, -1]].itertuples()]
    title = f"Standard deviation of the test loss over restarts: {' and '.join(ends)}"
    study.figure("width", figures.spread(width, by="width", title=title))

    splits = split_means(study.restarts("grid"))
    grid = grid_table(splits, study.curves("grid", ["train/loss"]))
    study.summary.table("grid", grid)
    updates = ", ".join(f"{_words(mode)} {count}" for mode, count in grid.groupby("descent")["updates"].first().items())
    caption = f"{_crossed(splits)}, mean ± half of the 95 % interval over splits; updates: {updates}"
    title = f"Highest on validation: {_named(best(grid))}\n{int(grid['near_best'].sum()) - 1} others are near-ties"
    study.figure("grid", figures.grid_table(splits, title=title, caption=caption))

    rows = [] if study.quick else study.judge(claimed(depth, width, splits))
    _print(depth_answer(falls), depth_view(falls), _verdicts(rows, "sigmoid"))
    _print(width_answer(spreads), width_view(spreads), _verdicts(rows, "spread"))
    _print(grid_answer(grid, splits), grid_view(grid), _verdicts(rows, "batch", "activation"))
    if study.quick:
        print(study.no_verdict())
    print("make report shows all tables and figures, make ui every run in MLflow.", flush=True)


# --- the grid ------------------------------------------------------------------------------------------------------


def split_means(restarts: pd.DataFrame) -> pd.DataFrame:
    """Means over the finite restarts of every cell and split: one row each, with n and diverged."""
    split = restarts[SPLIT] if SPLIT in restarts else pd.Series(0, restarts.index)
    restarts = restarts.assign(seed=split.fillna(0).astype(int), lost=restarts["diverged_epoch"] >= 0)
    metrics = ["validation/accuracy", "test/accuracy", "test/loss"]
    known = {key: (key, "first") for key in ("learning_rate", "data", "run_id")}
    rows = restarts.groupby([*CELL, "seed"], sort=False).agg(
        **known, **{name: (name, "mean") for name in metrics}, n=("lost", "size"), diverged=("lost", "sum")
    )
    return rows.reset_index()


def grid_table(splits: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Where training ends in every cell of the grid, with 95 % intervals over splits.

    Returns:
        One row per cell: its rate, updates and restarts, mean validation accuracy, test accuracy and test loss, and
        `near_best`, whether validation cannot tell it from the best one (true of the best itself).
    """
    steps = curves.groupby("run_id")["step"].max()
    rows = []
    for (loss, descent, activation), cell in splits.groupby(CELL, sort=False):
        rows.append(
            {
                "loss": loss,
                "descent": descent,
                "activation": activation,
                "rate": cell["learning_rate"].iloc[0],
                "updates": steps[cell["run_id"].iloc[0]],
                "splits": len(cell),
                "restarts": cell["n"].sum(),
                "diverged": cell["diverged"].sum(),
                "validation_accuracy": cell["validation/accuracy"].mean(),
                **_columns("test_accuracy", _mean(cell["test/accuracy"], "accuracy")),
                **_columns("test_loss", _mean(cell["test/loss"], "loss")),
            }
        )
    table = pd.DataFrame(rows)
    values = splits.pivot_table(index="seed", columns=CELL, values="validation/accuracy", dropna=False)
    first = best(table)
    chosen = values[tuple(first[CELL])]
    near = []
    for row in table[CELL].itertuples(index=False):
        less = (chosen - values[tuple(row)]).dropna()
        others = max(1, len(table) - 1)
        near.append(
            tuple(row) == tuple(first[CELL]) or (len(less) > 1 and mean_interval(less, 1 - 0.05 / others).low <= 0)
        )
    return table.assign(near_best=near)


def best(grid: pd.DataFrame) -> pd.Series:
    """The row of the cell with the highest mean validation accuracy; of equal ones the first."""
    return grid.loc[grid["validation_accuracy"].fillna(-np.inf).idxmax()]


def grid_answer(grid: pd.DataFrame, splits: pd.DataFrame) -> str:
    """The best configuration by validation, what it reaches on test, and how many are near-ties."""
    first, ties = best(grid), int(grid["near_best"].sum()) - 1
    low, high = first["test_accuracy_low"], first["test_accuracy_high"]
    others = f"{ties} of the {len(grid) - 1} others are near-ties" if ties else "No other is a near-tie"
    return (
        f"Which ends highest? On validation {_named(first)}: test accuracy {first['test_accuracy']:.3f} "
        f"(95 % interval {low:.3f} to {high:.3f}; {_crossed(splits)}). {others} (*) on validation."
    )


def grid_view(grid: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by activation (rows), loss and mode (columns); the best and its near-ties have a star."""
    cells = grid.assign(
        text=[f"{row.test_accuracy:.3f}" + ("*" if row.near_best else " ") for row in grid.itertuples()],
        column=grid["loss"].map(_short) + ", " + grid["descent"].map(_short),
    )
    order = list(dict.fromkeys(cells["column"]))
    table = cells.pivot(index="activation", columns="column", values="text")[order].fillna("-")
    table = table.loc[list(dict.fromkeys(cells["activation"]))]
    table.loc["updates"] = cells.groupby("column")["updates"].first().map("{} ".format)
    table = table.reset_index()
    return table.assign(activation=table["activation"].map(_words)).rename(columns={"activation": "test accuracy"})


# --- depth ---------------------------------------------------------------------------------------------------------


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


def depth_answer(table: pd.DataFrame) -> str:
    """By how much deltas shrink per layer, as factors, over all depths."""
    factors = 10 ** table.groupby("arm", sort=False)["decades_per_layer"].mean()
    told = {arm: f"{factor:.1f}" for arm, factor in factors.items()}
    sigmoid, same, own = (told.get(arm, "-") for arm in ARMS)
    return (
        f"Do gradients fade with depth? Before training each layer divides mean |delta| by {sigmoid} with sigmoid, by "
        f"{same} with ReLU under the same initializer (Glorot) and by {own} under its own (He); digits, one split, "
        f"{table['n'].max()} seeds."
    )


def depth_view(table: pd.DataFrame) -> pd.DataFrame:
    """Factors per layer before training, a column per arm, and test accuracies after it in the same order."""
    rows = []
    for layers, arms in table.groupby("hidden_layers", sort=False):
        found = arms.set_index("arm").reindex(ARMS)
        factors = [f"{factor:.2f}" for factor in 10 ** found["decades_per_layer"]]
        accuracies = " ".join(f"{accuracy:.3f}" for accuracy in found["accuracy"])
        named = dict(zip(("sigmoid", "ReLU", "ReLU, He"), factors, strict=True))
        rows.append({"hidden layers": layers, **named, "test accuracy of the three": accuracies})
    return pd.DataFrame(rows)


def paired_decades(curves: pd.DataFrame, initializer: str) -> dict[str, Values]:
    """Decades lost per layer before training by depth: sigmoid and ReLU under an initializer, seed by seed."""
    lost = decades_per_layer(curves, 0)
    depths = lost.index.unique("hidden_layers")
    arms = (f"sigmoid, {COMMON}", f"relu, {initializer}")
    return {
        f"{depth} hidden layers": tuple(lost[depth, arm].sort_index().to_numpy() for arm in arms) for depth in depths
    }


# --- width ---------------------------------------------------------------------------------------------------------


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


def width_answer(table: pd.DataFrame) -> str:
    """The standard deviation of the test loss in the narrowest and in the widest networks."""
    narrow, wide = table.iloc[0], table.iloc[-1]
    return (
        f"How much does the random start decide? The test loss of {narrow['n']:.0f} restarts has a standard deviation "
        f"of {narrow['sd_of_test_loss']:.2g} nats at width {narrow['width']:.0f}, {wide['sd_of_test_loss']:.2g} at "
        f"width {wide['width']:.0f} (one split)."
    )


def width_view(table: pd.DataFrame) -> pd.DataFrame:
    """Spread and range of outcomes by width."""
    interval = zip(table["sd_of_test_loss_low"], table["sd_of_test_loss_high"], strict=True)
    return pd.DataFrame(
        {
            "hidden units": table["width"],
            "sd of test loss": table["sd_of_test_loss"].map("{:.3f}".format),
            "95 % interval": [f"{low:.3f} to {high:.3f}" for low, high in interval],
            "worst accuracy": table["worst_accuracy"].map("{:.3f}".format),
            "mean": table["mean_accuracy"].map("{:.3f}".format),
            "best": table["best_accuracy"].map("{:.3f}".format),
        }
    )


def block_slopes(restarts: pd.DataFrame) -> np.ndarray:
    """The exponent of the width in the standard deviation of the test loss, fitted to each block of seeds alone.

    A block in which a restart diverged counts as infinite: it ranks worst.
    """
    block = (restarts["seed"] - restarts["seed"].min()) // BLOCK
    losses = restarts["test/loss"].where(restarts["diverged_epoch"] < 0)
    spreads = losses.groupby([block, restarts["width"]]).agg(lambda one: one.std(skipna=False)).unstack("width")
    if spreads.shape[1] < 2:
        return np.full(len(spreads), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(spreads.to_numpy())
    whole = np.isfinite(logs).all(axis=1)
    slopes = np.full(len(logs), np.inf)
    x = np.log(spreads.columns.to_numpy(dtype=float))
    slopes[whole] = np.polyfit(x, logs[whole].T, 1)[0] if whole.any() else []
    return slopes


# --- claims and printing -------------------------------------------------------------------------------------------


def claimed(depth: pd.DataFrame, width: pd.DataFrame, splits: pd.DataFrame) -> dict[str, Values | dict[str, Values]]:
    """The values of every claim."""
    ends = splits.pivot_table(index="seed", columns=CELL, values="test/accuracy", dropna=False)
    modes = ends.T.groupby(level="descent").mean().T
    entropy = ends["categorical_cross_entropy", "mini_batch"]
    return {
        "sigmoid_fades_more": paired_decades(depth, COMMON),
        "sigmoid_fades_more_own": paired_decades(depth, OWN),
        "spread_falls": block_slopes(width),
        "batch_ends_lower": (modes["mini_batch"].to_numpy(), modes["batch"].to_numpy()),
        "activation_matters_little": (entropy["sigmoid"].to_numpy(), entropy["relu"].to_numpy()),
    }


def _verdicts(rows: list[Verdict], *about: str) -> list[str]:
    """A line per claim whose name starts so: the verdict in words, of how many cases, and the statement."""
    lines = []
    for claim in dict.fromkeys(row.claim for row in rows if row.claim.startswith(about)):
        cases = [row for row in rows if row.claim == claim]
        words = dict.fromkeys(row.verdict for row in cases)
        counts = {word: sum(row.verdict == word for row in cases) for word in words}
        told = ", ".join(
            f"{word} {count} of {len(cases)}" if len(cases) > 1 else word for word, count in counts.items()
        )
        lines.append(f"{told}: {cases[0].statement}")
    return lines


def _print(answer: str, table: pd.DataFrame, verdicts: list[str]) -> None:
    print("\n" + textwrap.fill(answer, COLUMNS))
    print(textwrap.indent(table.to_string(index=False), "  "))
    for line in verdicts:
        print(textwrap.fill(line, COLUMNS, subsequent_indent="  "))


def _mean(values: pd.Series, metric: str) -> Interval:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Interval(np.nan, np.nan, np.nan, 0)
    return mean_interval(finite, bounds=metric_bounds(metric))


def _named(cell: pd.Series) -> str:
    return f"{_words(cell['activation'])}, {_words(cell['descent'])}, {_words(cell['loss'])}"


def _crossed(splits: pd.DataFrame) -> str:
    return f"{splits['data'].iloc[0]}, {splits['seed'].nunique()} splits x {splits['n'].max()} seeds"


def _words(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))


def _short(name: str) -> str:
    return SHORT.get(name, name)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


if __name__ == "__main__":
    sys.exit(main("sweep", __doc__, PARTS, report))
