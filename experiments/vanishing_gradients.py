"""Do gradients vanish with depth, by how much, and does this keep networks from learning?

Claims, each declared with its test, margin and family in experiments/claims/vanishing_gradients.yaml:
    * At a random start, deltas of wide networks fade per layer as mean field predicts, for eleven activations under
      four initialisers.
    * Sigmoid's and tanh's deltas fade with depth, ReLU's less. Where ReLU's deltas fade, under Glorot's spread, the
      gradient of the weights hides it.
    * Networks of many sigmoid layers stop learning at depths where ReLU networks still learn; leaky ReLU improves on
      ReLU.
    * The speeds of layers that Nielsen prints (Neural Networks and Deep Learning, 2015, ch. 5) are ordinary among
      networks of his recipe, and layers keep their order over his 500 epochs.

Method:
    start     networks of 20 equally wide hidden layers, before training. Decades lost per layer are the slope of a
              straight line through log10 of |delta| (root mean square over nets and inputs, as in the theory) against
              the layer, over hidden layers only. The interval comes from jackknife pseudo-values, one per net; a TOST
              compares them with theory.propagate at the same finite depth.
    training  sigmoid, tanh, ReLU and leaky ReLU at depths 1 to 10 on digits, and 2 to 10 on MNIST, under one common
              initialiser (glorot_uniform) and under each activation's own (the common one for sigmoid and tanh).
              Each arm has its best rate on validation, with separate tuning seeds (`--tune`). Pairs share seeds.
    nielsen   his exact setting; 300 networks before training, 8 over 500 epochs.

Verdict (full form): mean field holds to .003 decade per layer except for GELU, SiLU and softplus under he_normal, where
no length is stable and the effect of finite width grows with depth: at 20 layers they miss it by .046, .009 and .019.
Sigmoid loses .63 decade per layer and stops learning at depth 4 on digits and 6 on MNIST; ReLU and tanh learn at
every depth. Tanh fades a little (.04 to .07) but ends above ReLU: the claim that it learns worse is not supported. The
gain of leaky ReLU is undecided nearly everywhere. Training removes the fading wherever a network learns. Nielsen's
speeds are ordinary, and layers keep their order.

Cost: about eight minutes on two cores, six without MNIST; tuning takes about twenty. Data: digits are shipped. MNIST is
read from the folder that DESCENTLAB_MNIST names; without it the parts on MNIST are skipped.

Departures from the sources: mean field holds for infinite width; the networks have 200 units a layer. Nielsen shows one
network each, with unknown seed. For training at depth MNIST is reduced to 5000 images of 10 x 10 pixels.
"""

import sys

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures, train
from descentlab.analysis import theory
from descentlab.analysis.statistics import equivalence, mean_interval, metric_bounds
from descentlab.config.cells import Cell
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.studies.study import Part, Study, main

COMMON, HE = "glorot_uniform", "he_normal"
SERIES = (  # activation, initialiser; sigmoid's and tanh's own is the common one
    *(("sigmoid", COMMON), ("relu", HE), ("tanh", COMMON)),
    *(("relu", COMMON), ("leaky_relu", COMMON), ("leaky_relu", HE)),
)
DEPTHS, MNIST_DEPTHS = (10, 2, 1, 4, 7), (2, 6, 10)
DEEP = 4  # claims are about networks of so many hidden layers, or more
LEARNS = 0.5  # test accuracy that a network which has learned exceeds; guessing gives .1

START = {  # initialiser of all layers at the start -> the claim about it
    "lecun_normal": "theory_lecun",
    "glorot_uniform": "theory_glorot",
    "he_normal": "theory_he",
    "normal": "theory_normal",
}
SHOWN = ("identity", "sigmoid", "tanh", "relu", "gelu", "softplus")  # in the figure of layers
WIDTH, NETS, STACK, INPUTS = 200, {5: 50, 10: 50, 20: 100}, 25, 20  # nets by depth
QUICK_WIDTH, QUICK_NETS = 64, {10: 20}

NETWORKS = {"[784,30,30,10]": (30, 30), "[784,30,30,30,10]": (30, 30, 30)}
PUBLISHED = {  # speed of each hidden layer before training
    "[784,30,30,10]": (0.0657, 0.3092),
    "[784,30,30,30,10]": (0.0118, 0.0600, 0.2831),
}
NIELSEN_SEEDS = 300


PARTS = {
    "vanishing_digits": Part(["restarts=3", "epochs=2"], few=slice(0, 2), tuned=True),
    "vanishing_mnist": Part(tuned=True, needs="DESCENTLAB_MNIST", full_only=True),
    "nielsen": Part(needs="DESCENTLAB_MNIST", full_only=True),
}


def report(study: Study) -> None:
    """The start against theory, training on digits and on MNIST, Nielsen's speeds, and the verdicts."""
    values = dict.fromkeys(claim.id for claim in study.claims)
    values |= report_start(study)
    values |= report_training(study, "digits", "vanishing_digits", "")
    if study.has("vanishing_mnist"):
        values |= report_training(study, "MNIST", "vanishing_mnist", "_mnist")
    if study.has("nielsen"):
        values |= report_nielsen(study)
    study.verdicts({claim.id: values[claim.id] for claim in study.claims})


# --- at the start, against theory --------------------------------------------------------------------------------


def report_start(study: Study) -> dict:
    """Decades lost per layer, measured and predicted."""
    drawn = study.measured("start_nets", lambda: measure_start(study.quick))
    predicted = study.measured("start_predicted", lambda: predict_start(drawn))
    rows, values = [], {claim: {} for claim in START.values()}
    for (rule, activation, depth), nets in drawn.groupby(["initializer", "activation", "depth"], sort=False):
        expected = predicted.set_index(["initializer", "activation", "depth"]).loc[(rule, activation, depth)]
        slopes = pseudo_slopes(logs(nets))
        off = equivalence(slopes - expected["decades"], margin(study))
        rows.append(
            {
                "initializer": rule,
                "activation": activation,
                "depth": depth,
                "n": len(nets),
                "predicted": expected["decades"],
                "measured": slopes.mean(),
                "estimate": off.mean.estimate,
                "low": off.mean.low,
                "high": off.mean.high,
                "one_net": slope(logs(nets)).mean(),  # the mean of what single nets show
                "gradient": nets["gradient_decades"].mean(),
            }
        )
        if depth == drawn["depth"].max():
            values[START[rule]][activation] = slopes - expected["decades"]
    table = pd.DataFrame(rows)
    study.table("start", table)
    few, many = table["n"].min(), table["n"].max()
    figure = figures.deviations(
        table,
        margin(study),
        by="activation",
        series="depth",
        panels="initializer",
        label="measured − predicted\n(decades of |δ| per layer)",
        title=f"Networks of width {width(study)} minus mean field, {few} to {many} nets each",
    )
    study.figure("start_deviations", figure, table)
    for name, rules in (("start_layers", (COMMON, HE)), ("start_layers_normal", ("normal",))):
        shown = drawn[drawn["initializer"].isin(rules)]
        if len(shown):
            study.figure(name, layers_figure(shown, predicted, study))
    missing = len(ACTIVATIONS) != len(next(iter(values.values())))
    return {} if missing else values  # the quick form has no cases for some of the claims


def width(study: Study) -> int:
    return QUICK_WIDTH if study.quick else WIDTH


def margin(study: Study) -> float:
    return next(claim.margin for claim in study.claims if claim.id == "theory_lecun")


def measure_start(quick: bool) -> pd.DataFrame:
    """One row per net: log10 of the root mean square of |delta| over inputs, and decades of |dC/dW| lost per layer."""
    wide, nets_by_depth = (QUICK_WIDTH, QUICK_NETS) if quick else (WIDTH, NETS)
    names = ("sigmoid", "relu") if quick else tuple(ACTIVATIONS)
    rules = (COMMON, HE) if quick else tuple(START)
    x = np.random.default_rng(0).normal(0, 1, (INPUTS, wide))
    x *= np.sqrt(wide) / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.arange(INPUTS) % 10
    rows = []
    for rule in rules:
        for name in names:
            for depth, nets in nets_by_depth.items():
                for first in range(0, nets, STACK):
                    settings = {
                        "activation": name,
                        "initializer": rule,
                        "epochs": 0,
                        "seed": first,
                        "diagnostics": "full",
                    }
                    stack = min(STACK, nets - first)
                    curves = train(x, y, hidden=(wide,) * depth, restarts=stack, **settings).curves
                    layers = range(1, depth + 1)
                    deltas = np.log10([curves[f"delta_rms/layer_{layer}"][0] for layer in layers]).T  # (R, depth)
                    slopes = slope(np.log10([curves[f"gradient_norm/layer_{layer}"][0] for layer in layers]).T)
                    for net in range(stack):
                        about = {"initializer": rule, "activation": name, "depth": depth, "seed": first + net}
                        values = {f"layer_{layer}": round(deltas[net, layer - 1], 6) for layer in layers}
                        rows.append(about | {"width": wide, "gradient_decades": slopes[net]} | values)
    return pd.DataFrame(rows)


def predict_start(drawn: pd.DataFrame) -> pd.DataFrame:
    """Mean field for the same networks: decades per layer, and log10 |delta[l]| / |delta[depth]|."""
    rows = []
    for (rule, name, depth), nets in drawn.groupby(["initializer", "activation", "depth"], sort=False):
        sizes = [nets["width"].iloc[0]] * (depth + 1) + [10]
        spreads = theory.layer_spreads([INITIALIZERS[rule]()] * (depth + 1), sizes)
        fall = theory.propagate(ACTIVATIONS[name](), spreads, 1.0).log10_delta[:depth]
        values = {f"layer_{layer}": value - fall[-1] for layer, value in enumerate(fall, start=1)}
        rows.append({"initializer": rule, "activation": name, "depth": depth, "decades": slope(fall)} | values)
    return pd.DataFrame(rows)


def logs(nets: pd.DataFrame) -> ndarray:
    """log10 |delta| of one kind of net: (nets, hidden layers)."""
    return nets[[f"layer_{layer}" for layer in range(1, int(nets["depth"].iloc[0]) + 1)]].to_numpy(dtype=np.float64)


def slope(values: ndarray) -> ndarray:
    """Slope of the straight line through (..., layers) against the layer: decades lost per layer towards the input."""
    layers = np.arange(values.shape[-1]) - (values.shape[-1] - 1) / 2
    return values @ layers / (layers @ layers)


def pseudo_slopes(values: ndarray) -> ndarray:
    """Jackknife pseudo-values, one per net, of the slope of the root mean square over nets (Tukey 1958).

    Args:
        values: (nets, layers), log10 |delta|.

    Returns:
        (nets,), whose mean estimates the slope and whose spread is that of a sample.
    """
    n = len(values)
    squares = 10.0 ** (2.0 * (values - values.mean(axis=0)))
    level = slope(values.mean(axis=0))
    whole = slope(0.5 * np.log10(squares.mean(axis=0)))
    without = slope(0.5 * np.log10((squares.sum(axis=0) - squares) / (n - 1)))  # (nets,)
    return level + n * whole - (n - 1) * without


def layers_figure(drawn: pd.DataFrame, predicted: pd.DataFrame, study: Study) -> figures.Figure:
    """|delta| by layer for every net, on the predicted lines."""
    depth = drawn["depth"].max()
    deepest = drawn[(drawn["depth"] == depth) & drawn["activation"].isin(SHOWN)]
    columns = [f"layer_{layer}" for layer in range(1, depth + 1)]
    frame = deepest.melt(["initializer", "activation", "seed"], columns, "layer", "log")
    frame = frame.assign(metric="delta_rms/" + frame["layer"], epoch=0, value=10.0 ** frame["log"])
    lines = {}
    for (rule, name), nets in deepest.groupby(["initializer", "activation"], sort=False):
        known = predicted.set_index(["initializer", "activation", "depth"]).loc[(rule, name, depth)]
        squares = 10.0 ** (2.0 * logs(nets))
        lines[rule, name] = np.sqrt(squares[:, -1].mean()) * 10.0 ** known[columns].to_numpy(dtype=np.float64)
    title = f"{len(deepest.groupby('seed'))} nets of width {width(study)} before training, and mean field"
    return figures.layer_decay(frame, lines, by="activation", panels="initializer", quantity="delta_rms", title=title)


# --- during training ---------------------------------------------------------------------------------------------


def report_training(study: Study, data: str, part: str, suffix: str) -> dict:
    """Fading and learning by depth; returns the values of the claims by their id."""
    curves = study.curves(part)
    curves = curves.assign(
        arm=curves["activation"] + ", " + curves["initializer"],
        hidden_layers=curves["hidden"].map(lambda sizes: len(str(sizes).split("-"))),
    )
    last = curves["epoch"].max()
    start, end = (fading(curves, epoch, "delta_norm") for epoch in (0, last))
    accuracy = curves[(curves["metric"] == "test/accuracy") & (curves["epoch"] == last)]
    study.table(f"training{suffix}", training_table(curves, start, end))
    study.table(f"stops{suffix}", stops_table(accuracy))
    deepest = curves[curves["hidden_layers"] == curves["hidden_layers"].max()]
    depth = deepest["hidden_layers"].iloc[0]
    title = f"{data}, {depth} hidden layers of 32, mean over {deepest['seed'].nunique()} seeds"
    for quantity in ("delta_norm", "gradient_norm"):
        heat = deepest[deepest["metric"].str.startswith(f"{quantity}/")]
        figure = figures.heat_maps(
            heat.assign(arm=heat["arm"].str.replace(", ", "\n")), quantity, by="arm", title=title
        )
        means = heat.assign(log10=np.log10(heat["value"])).groupby(["arm", "metric", "epoch"], sort=False)["log10"]
        study.figure(f"heat_{quantity}{suffix}", figure, means.mean().reset_index())
    losses = deepest[deepest["metric"].isin(["train/loss", "test/loss"])]
    title = f"{data}, {depth} hidden layers of 32, {deepest['seed'].nunique()} seeds"
    figure = figures.learning_curves(losses, ["train/loss", "test/loss"], by="arm", title=title)
    study.figure(f"losses{suffix}", figure, losses[["arm", "seed", "epoch", "metric", "value"]])
    keys = ["arm", "hidden_layers", "seed"]
    outcomes = curves[curves["epoch"] == last].pivot_table(index=keys, columns="metric", values="value", sort=False)
    outcomes = outcomes[["test/accuracy", "train/loss"]].reset_index()
    if outcomes["hidden_layers"].nunique() > 1:
        columns = {"test/accuracy": "test accuracy (fraction)", "train/loss": "training loss (nats)"}
        title = f"{data}: which depths still learn, after {last} epochs"
        figure = figures.trends(outcomes, "hidden_layers", columns, by="arm", title=title)
        study.figure(f"depths{suffix}", figure, outcomes)
    return {} if study.quick else training_values(curves, accuracy, start, end, suffix)


def fading(curves: pd.DataFrame, epoch: int, quantity: str, first: int = 1) -> pd.Series:
    """Decades lost per layer towards the input over hidden layers, by (hidden_layers, arm, seed).

    Args:
        curves: of many cells.
        epoch: a logged one.
        quantity: delta_norm or gradient_norm.
        first: layer of the fit; for the gradient of the weights 2, since layer 1 has another number of inputs.
    """
    norms = curves[curves["metric"].str.startswith(f"{quantity}/") & (curves["epoch"] == epoch)]
    norms = norms.assign(layer=norms["metric"].str.rpartition("_")[2].astype(int), log=np.log10(norms["value"]))
    norms = norms[(norms["layer"] <= norms["hidden_layers"]) & (norms["layer"] >= first)]
    table = norms.pivot_table(index=["hidden_layers", "arm", "seed"], columns="layer", values="log", dropna=False)
    parts = []
    for depth, rows in table.sort_index().groupby(level="hidden_layers"):
        if depth > first:
            parts.append(pd.Series(slope(rows[list(range(first, depth + 1))].to_numpy()), rows.index))
    return pd.concat(parts).sort_index()


def series(values: pd.Series, depth: int, activation: str, initializer: str) -> ndarray:
    """The values of one arm, by seed."""
    return values.loc[(depth, f"{activation}, {initializer}")].sort_index().to_numpy()


def training_values(
    curves: pd.DataFrame, accuracy: pd.DataFrame, start: pd.Series, end: pd.Series, suffix: str
) -> dict:
    """The values of the claims about training."""
    ends = accuracy.set_index(["hidden_layers", "arm", "seed"])["value"].sort_index()
    depths = [depth for depth in sorted(ends.index.unique("hidden_layers")) if depth >= DEEP]
    both = [(depth, rule) for depth in depths for rule in (COMMON, HE)]

    def pairs(values: pd.Series, first: tuple[str, str | None], second: tuple[str, str | None]) -> dict:
        """Pairs by depth and initialiser of the ReLU family; None in an arm stands for this initialiser."""
        return {
            f"depth {depth}, {rule}": tuple(
                series(values, depth, activation, fixed or rule) for activation, fixed in (first, second)
            )
            for depth, rule in both
        }

    relu, sigmoid, tanh, leaky = ("relu", None), ("sigmoid", COMMON), ("tanh", COMMON), ("leaky_relu", None)
    values = {
        f"relu_learns_deeper{suffix}": pairs(ends, relu, sigmoid),
        f"leaky_improves{suffix}": pairs(ends, leaky, relu),
    }
    if suffix:
        return values
    inner = {quantity: fading(curves, 0, quantity, first=2) for quantity in ("delta_norm", "gradient_norm")}
    deepest = depths[-1]
    own = {f"depth {depth}": depth for depth in depths}
    return values | {
        "tanh_learns_shallower": pairs(ends, relu, tanh),
        "sigmoid_fades_more": pairs(start, sigmoid, relu),
        "sigmoid_fades_more_trained": pairs(end, sigmoid, relu),
        "tanh_fades": {case: series(start, depth, "tanh", COMMON) for case, depth in own.items()},
        "tanh_fades_more": {
            case: (series(start, depth, "tanh", COMMON), series(start, depth, "relu", HE))
            for case, depth in own.items()
        },
        "relu_glorot_delta": series(inner["delta_norm"], deepest, "relu", COMMON),
        "relu_glorot_gradient": series(inner["gradient_norm"], deepest, "relu", COMMON),
    }


def training_table(curves: pd.DataFrame, start: pd.Series, end: pd.Series) -> pd.DataFrame:
    """Per depth and arm: rate, decades lost before and after training, final loss and accuracy with intervals."""
    last = curves[curves["epoch"] == curves["epoch"].max()]
    rows = []
    for (depth, arm), cell in last.groupby(["hidden_layers", "arm"]):
        accuracy = cell[cell["metric"] == "test/accuracy"]["value"].dropna()
        interval = mean_interval(accuracy, bounds=metric_bounds("accuracy"))
        fades = depth > 1
        rows.append(
            {
                "hidden_layers": depth,
                "arm": arm,
                "rate": cell["learning_rate"].iloc[0],
                "n": len(accuracy),
                "decades_start": start[depth, arm].mean() if fades else np.nan,
                "decades_end": end[depth, arm].mean() if fades else np.nan,
                "train_loss": cell[cell["metric"] == "train/loss"]["value"].mean(),
                "accuracy": interval.estimate,
                "accuracy_low": interval.low,
                "accuracy_high": interval.high,
                "learned": (accuracy > LEARNS).mean(),
            }
        )
    return pd.DataFrame(rows)


def stops_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The smallest depth at which fewer than half of the seeds learn, per arm; NaN where all depths learn."""
    learned = (accuracy.assign(value=accuracy["value"] > LEARNS)).groupby(["arm", "hidden_layers"])["value"].mean()
    rows = []
    for arm, shares in learned.groupby(level="arm", sort=False):
        failed = [depth for (_, depth), share in shares.items() if share < 0.5]
        rows.append({"arm": arm, "stops_learning_at_depth": min(failed, default=np.nan), "least_share": shares.min()})
    return pd.DataFrame(rows)


# --- Nielsen's chapter 5 -----------------------------------------------------------------------------------------


def report_nielsen(study: Study) -> dict:
    """Speeds of hidden layers, before training against the published ones and over 500 epochs."""
    drawn = study.measured("nielsen_nets", lambda: nielsen_speeds(study.cell("nielsen")))
    drawn = drawn.assign(layer_of=drawn["network"] + "  hidden layer " + drawn["layer"].astype(str))
    printed = {
        f"{network}  hidden layer {layer}": speed
        for network, speeds in PUBLISHED.items()
        for layer, speed in enumerate(speeds, start=1)
    }
    figure = figures.published(
        drawn,
        printed,
        by="layer_of",
        share=0.9,
        label="speed: norm of the mean δ before training (nats)",
        title=f"Nielsen's speeds among {drawn['seed'].nunique()} networks of his recipe",
    )
    study.figure("nielsen_start", figure)
    curves = study.curves("nielsen")
    curves = curves[curves["metric"].str.startswith("bias_gradient_norm/")]
    curves = curves.assign(layer=curves["metric"].str.rpartition("_")[2].astype(int))
    curves = curves[curves["layer"] <= curves["hidden"].map(lambda sizes: len(str(sizes).split("-")))]
    named = {"-".join(map(str, hidden)): network for network, hidden in NETWORKS.items()}
    speeds = curves.assign(
        metric="speed in " + curves["hidden"].map(named), series="hidden layer " + curves["layer"].astype(str)
    )
    for network, rows in speeds.groupby("metric", sort=False):
        figure = figures.learning_curves(rows, [network], by="series", title="Nielsen's setting, 8 networks")
        size = len(rows["series"].unique())
        study.figure(f"nielsen_{size}_layers", figure, rows[["metric", "series", "seed", "epoch", "value"]])
    return {
        "nielsen_start": {
            name: (drawn[drawn["layer_of"] == name]["value"].to_numpy(), speed) for name, speed in printed.items()
        },
        "nielsen_order": {network: order(rows) for network, rows in speeds.groupby("metric", sort=False)},
    }


def order(speeds: pd.DataFrame) -> ndarray:
    """Mean over logged epochs of log10 of the last hidden layer's speed over the first one's, by seed."""
    table = np.log10(speeds.pivot_table(index=["seed", "epoch"], columns="layer", values="value"))
    return (table.iloc[:, -1] - table.iloc[:, 0]).groupby("seed").mean().to_numpy()


def nielsen_speeds(cell: Cell) -> pd.DataFrame:
    """The speed of every hidden layer of 300 networks of each shape before training."""
    recipe = cell.recipe
    x, y = cell.dataset.splits["train"]
    rows = []
    for network, hidden in NETWORKS.items():
        settings = {"output": recipe.output, "loss": recipe.loss.name, "diagnostics": "full", "epochs": 0}
        settings |= {"restarts": NIELSEN_SEEDS, "seed": 1000, "activation": recipe.activation}  # apart from the trained
        curves = train(x, y, hidden=hidden, initializer=recipe.initializer, **settings).curves
        for layer in range(1, len(hidden) + 1):
            values = curves[f"bias_gradient_norm/layer_{layer}"][0]
            rows += [
                {"network": network, "layer": layer, "seed": 1000 + net, "value": value}
                for net, value in enumerate(values)
            ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main("vanishing_gradients", __doc__, PARTS, report))
