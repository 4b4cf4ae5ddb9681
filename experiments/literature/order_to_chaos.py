"""Which deep networks train: tanh between order and chaos, ReLU with He's and with Xavier's spread.

Claims:
    * Tanh nets train up to a depth of about 6 correlation depths xi_c, the distance that a signal travels at the random
      start (Schoenholz et al. 2017). Deep nets train near the critical spread. They do not train well below it (order:
      all inputs look alike) or well above it (chaos: similar inputs become different).
    * ReLU nets of 30 layers train with He's spread, 2 / n_in. They do not train with Xavier's, 1 / n for equal widths,
      which halves the variance in every layer (He et al. 2015).

Method: digits, layers of 64 units. Tanh: weights N(0, sw2 / 64), biases N(0, .05), seven values of sw2 by six depths, 6
epochs (204 updates in batches of 32), 30 seeds a cell. The rate of each cell is the best on validation of a grid of
four a decade, over 5 separate tuning seeds. The prediction is 6 xi_c from the mean field at infinite width; no constant
is fitted. The measured depth of a seed is where its test accuracy falls below .5, interpolated between the depths run.
    ReLU: zero biases, gradient descent with momentum .9 as in He's paper, 12 epochs, standardised pixels, a grid of
rates for each spread. The spreads are compared at a common rate, .001, and each at its best rate on validation. The
figure also shows 5, 10 and 20 layers with fewer seeds.

Cost: four to six minutes on two cores, most of it in the 48-layer nets; --tune takes about ten.

Departures from Schoenholz et al.: digits instead of MNIST and CIFAR10, width 64 instead of 300, depths to 48 instead of
300, one rate per cell instead of one for all, 204 updates instead of up to 10^4: nets that would train later are
missed. From He et al.: digits and fully connected layers instead of ImageNet and convolutions.
"""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.statistics import Interval, mean_interval, metric_bounds
from descentlab.analysis.theory import MeanField
from descentlab.analysis.verdicts import Values
from descentlab.nn.activations import tanh
from descentlab.studies.study import Part, Study, main

WIDTH = 64  # of every layer, digits' 64 pixels included, so that one spread is one sw2 throughout
SB2 = 0.05
CRITICAL = 1.761  # sw2 at which tanh is critical for this sb2
SPREADS = (0.5, 0.75, 1.0, 1.25, CRITICAL, 2.5, 4.0)
ORDERED = (0.5, 0.75, 1.0, 1.25)
DEPTHS = (4, 8, 16, 24, 32, 48)
REACH = 6  # depths xi_c that a trainable signal crosses (Schoenholz et al. 2017)
TRAINED = 0.5  # test accuracy below which a net counts as not trained
RULES = {"He": "he_normal", "Xavier": "glorot_normal"}
RATES = {"He": (0.0003, 0.001, 0.003), "Xavier": (0.001, 0.01, 0.1, 1.0)}
COMMON_RATE = 0.001
RELU_DEPTHS = {5: 6, 10: 6, 20: 6, 30: 30}  # hidden layers: restarts


PARTS = {
    "order_to_chaos": Part(
        ["restarts=3", "epochs=2", "log_every=2"],
        few=slice(0, 2 * len(SPREADS), 3),
        tuned=True,
    ),
    "thirty_layers": Part(
        ["restarts=3", "epochs=2", "log_every=2"],
        few=slice(1, 8, 3),
    ),
}


def report(study: Study) -> None:
    """Draw the map with the predicted depth, ReLU's rates, and the verdicts."""
    tanh_nets = study.restarts("order_to_chaos")
    tanh_nets = tanh_nets.assign(
        depth=_depths(tanh_nets), sw2=(WIDTH * tanh_nets["initializer.spread"] ** 2).round(3).astype(float)
    )
    spreads = [
        *np.linspace(0.5, 1.7, 4 if study.quick else 13),
        *(() if study.quick else (1.85, 2.0, 2.5, 3.0, 3.5, 4)),
    ]
    scales = study.measured("depth_scales", lambda: depth_scales([*spreads, *ORDERED]))
    columns = ["sw2", "depth", "seed", "learning_rate", "test/accuracy", "diverged_epoch"]
    seeds, epochs = tanh_nets["seed"].nunique(), tanh_nets["epochs"].iloc[0]
    figure = figures.phase_map(
        tanh_nets,
        "sw2",
        "depth",
        "test/accuracy",
        {rf"${REACH}\,\xi_c$, predicted": (scales["sw2"], REACH * scales["correlation_depth"])},
        (r"$\sigma_w^2$, variance of a weight times the inputs of its layer", "hidden layers", "mean test accuracy"),
        title=rf"Tanh on digits, width {WIDTH}, $\sigma_b^2$ = {SB2}, {epochs} epochs, {seeds} restarts a cell",
    )
    study.figure("order_to_chaos", figure, tanh_nets[columns])
    reached = trainable_depths(tanh_nets)
    study.table("trainable_depth", depth_table(reached, scales))

    relu_nets = study.restarts("thirty_layers")
    names = {rule: name for name, rule in RULES.items()}
    relu_nets = relu_nets.assign(hidden_layers=_depths(relu_nets), spread=relu_nets["initializer"].map(names))
    study.table("relu_accuracy", relu_table(relu_nets))
    figure = figures.trends(
        relu_nets,
        "learning_rate",
        {"test/accuracy": "test accuracy (fraction of samples)"},
        by="spread",
        panels="hidden_layers",
        title=f"ReLU on digits, width {WIDTH}, momentum .9, {relu_nets['epochs'].iloc[0]} epochs",
    )
    shown = ["hidden_layers", "spread", "learning_rate", "seed", "validation/loss", "test/accuracy", "diverged_epoch"]
    study.figure("thirty_layers", figure, relu_nets[shown])
    study.verdicts(claimed(tanh_nets, reached, scales, relu_nets))


def _depths(restarts: pd.DataFrame) -> "pd.Series[int]":
    return restarts["hidden"].map(lambda sizes: len(str(sizes).split("-")))


def depth_scales(spreads: Sequence[float]) -> pd.DataFrame:
    """Predictions of the mean field of tanh: sw2, q, chi, correlation_depth, gradient_depth, sorted by sw2."""
    rows = []
    for sw2 in sorted({round(float(one), 6) for one in spreads}):
        settled = MeanField(tanh(), sw2, SB2).fixed_point()
        rows.append((sw2, settled.q, settled.chi, settled.correlation_depth, settled.gradient_depth))
    return pd.DataFrame(rows, columns=["sw2", "q", "chi", "correlation_depth", "gradient_depth"])


def trainable_depths(restarts: pd.DataFrame, accuracy: float = TRAINED) -> pd.DataFrame:
    """The depth at which each seed's accuracy falls below a level, for every sw2.

    Between two depths that were run it is interpolated over log depth; a diverged net counts as untrained. A seed that
    is below the level at the smallest depth, or above it at the largest, gets that depth and is `censored`.

    Args:
        restarts: one row per restart with sw2, depth, seed and test/accuracy.
        accuracy: the level.

    Returns:
        One row per sw2 and seed: depth, censored.
    """
    rows = []
    for (sw2, seed), one in restarts.groupby(["sw2", "seed"]):
        one = one.sort_values("depth")
        depths, scores = one["depth"].to_numpy(dtype=float), one["test/accuracy"].fillna(0.0).to_numpy()
        below = np.flatnonzero(scores < accuracy)
        last = int(below[0]) if len(below) else len(depths)
        if last in (0, len(depths)):
            rows.append((sw2, seed, depths[min(last, len(depths) - 1)], True))
            continue
        share = (scores[last - 1] - accuracy) / (scores[last - 1] - scores[last])
        between = np.log(depths[last - 1]) + share * np.log(depths[last] / depths[last - 1])
        rows.append((sw2, seed, float(np.exp(between)), False))
    return pd.DataFrame(rows, columns=["sw2", "seed", "depth", "censored"])


def depth_table(reached: pd.DataFrame, scales: pd.DataFrame) -> pd.DataFrame:
    """Predicted and measured depth per sw2: geometric mean over seeds with its interval."""
    rows = []
    for sw2, cell in reached.groupby("sw2"):
        mean = mean_interval(np.log(cell["depth"]))
        predicted = REACH * np.interp(sw2, scales["sw2"], scales["correlation_depth"])
        known = np.isclose(scales["sw2"], sw2).any()
        row = {"sw2": sw2, "predicted": predicted if known else np.nan, "n": len(cell)}
        row |= {"censored": int(cell["censored"].sum()), "measured": np.exp(mean.estimate)}
        rows.append(row | {"measured_low": np.exp(mean.low), "measured_high": np.exp(mean.high)})
    return pd.DataFrame(rows)


def relu_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Validation loss and test accuracy of the ReLU nets per depth, spread and rate."""
    rows = []
    for (depth, spread, rate), arm in restarts.groupby(["hidden_layers", "spread", "learning_rate"]):
        finite = arm[arm["diverged_epoch"] < 0]
        score = (
            mean_interval(finite["test/accuracy"], bounds=metric_bounds("accuracy"))
            if len(finite)
            else Interval(np.nan, np.nan, np.nan, 0)
        )
        row = {"hidden_layers": depth, "spread": spread, "rate": rate, "n": len(finite)}
        row |= {"diverged": len(arm) - len(finite), "validation_loss": finite["validation/loss"].mean()}
        rows.append(row | {"accuracy": score.estimate, "accuracy_low": score.low, "accuracy_high": score.high})
    return pd.DataFrame(rows)


def claimed(
    tanh_nets: pd.DataFrame, reached: pd.DataFrame, scales: pd.DataFrame, relu_nets: pd.DataFrame
) -> dict[str, Values | dict[str, Values] | None]:
    """The values of every claim; None if its arms were not run."""

    def pair(spread: float, depth: int) -> Values | None:
        arms = [tanh_nets[(tanh_nets["sw2"] == sw2) & (tanh_nets["depth"] == depth)] for sw2 in (CRITICAL, spread)]
        return None if any(arm.empty for arm in arms) else (_by_seed(arms[0]), _by_seed(arms[1]))

    octaves: dict[str, Values] = {}
    for sw2 in ORDERED:
        depths = reached[reached["sw2"] == sw2].sort_values("seed")["depth"]
        predicted = REACH * scales[np.isclose(scales["sw2"], sw2)]["correlation_depth"]
        if len(depths) and len(predicted):
            octaves[f"sw2 {sw2:g}"] = np.log2(depths.to_numpy() / predicted.iloc[0])

    thirty = relu_nets[relu_nets["hidden_layers"] == 30]
    chosen = {name: _best_rate(thirty[thirty["spread"] == name]) for name in RULES}
    cases: dict[str, Values] = {}
    if len(thirty):
        for case, rates in (("one rate", dict.fromkeys(RULES, COMMON_RATE)), ("each its own rate", chosen)):
            arms = [thirty[(thirty["spread"] == name) & (thirty["learning_rate"] == rates[name])] for name in RULES]
            cases[case] = (_by_seed(arms[0]), _by_seed(arms[1]))
    return {
        "order_does_not_train": pair(1.0, 32),
        "chaos_does_not_train": pair(4.0, 48),
        "depth_follows_theory": octaves if len(octaves) == len(ORDERED) else None,
        "he_trains_thirty_layers": cases or None,
    }


def _by_seed(arm: pd.DataFrame) -> ndarray:
    return arm.sort_values("seed")["test/accuracy"].to_numpy(dtype=float)


def _best_rate(arms: pd.DataFrame) -> float:
    """The rate with the lowest mean validation loss; rates at which a restart diverged are excluded."""
    if arms.empty:
        return np.nan
    losses = arms.groupby("learning_rate")["validation/loss"].agg(lambda values: values.mean(skipna=False))
    return float(losses.idxmin())


if __name__ == "__main__":
    sys.exit(main("order_to_chaos", __doc__, PARTS, report))
