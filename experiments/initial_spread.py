"""Does an initial spread scaled by the layer size make learning faster? Epochs to a target loss.

Claim of the course notebook: dividing the initial weights by the square root of the layer's size makes learning faster
than leaving them N(0, 1).

Method: digits, [64, 64, 32, 10], sigmoid and ReLU, 30 seeds. The unscaled rule is N(0, 1). The scaled rules are the
notebook's (variance 1 / n_out, biases too), LeCun's 1 / n_in, Glorot's 2 / (n_in + n_out) and He's 2 / n_in. N(0, .1^2)
is a constant of about the size that these rules give here; it separates the effect of the size of the spread from the
effect of scaling it by layer. A restart arrives at the end of the first epoch with a training loss of at most .2. A
restart that does not arrive within 20 epochs is censored and ranks last, like one that diverges; none is dropped. Arms
share their seeds, and arms of normal rules share their draws (the notebook's rule has its own stream), so they are
compared in pairs. Each arm has the rate that is best on validation at the end of training, from a grid of four a
decade over 5 separate tuning seeds (100000 on): conf/experiment/initial_spread.yaml, written by --tune.

Cost: about 30 seconds on two cores; tuning takes about two minutes.

Limits: with 64 inputs N(0, 1) is far too wide for ReLU but not for sigmoid, whose slope of at most 1/4 compensates. The
results for sigmoid hold for layers this narrow.

Departures from the notebook: digits instead of 300 rows of MNIST, softmax and cross-entropy instead of sigmoid and
squared error, batches of 32 in shuffled order, tuned rates instead of 300, one set of widths. The rate is tuned for the
loss at the end, not for an early arrival.
"""

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.statistics import wilson
from descentlab.analysis.verdicts import Values
from descentlab.studies.study import Part, Study, main

TARGET = 0.2  # nats of training loss
UNSCALED = "N(0, 1)"
SCALED = ("notebook", "lecun_normal", "glorot_normal", "he_normal")
RULES = {
    UNSCALED: ["initializer=normal", "initializer.spread=1"],
    "N(0, .1²)": ["initializer=normal", "initializer.spread=0.1"],
    **{name: [f"initializer={name}"] for name in SCALED},
}
ACTIVATIONS = ("sigmoid", "relu")

PARTS = {
    "initial_spread": Part(
        ["restarts=3", "epochs=3"],
        few=slice(0, None, 3),
        tuned=True,
    )
}


def report(study: Study) -> None:
    """Table, curves and verdicts of the epochs at which restarts arrive."""
    restarts = arrivals(study.curves("initial_spread", ["train/loss"]))
    horizon = int(restarts["epochs"].iloc[0])
    study.table("arrivals", arrival_table(restarts, horizon))
    seeds = restarts["seed"].nunique()
    title = f"Digits, 64-64-32-10: restarts with a training loss still above {TARGET:g} nats, {seeds} seeds a curve"
    figure = figures.arrivals(restarts, horizon, by="rule", panels="activation", goal=f"{TARGET:g} nats", title=title)
    columns = ["activation", "rule", "seed", "learning_rate", "arrival"]
    study.figure("initial_spread", figure, restarts[columns])
    study.verdicts(claimed(restarts))


def arrivals(curves: pd.DataFrame, target: float = TARGET) -> pd.DataFrame:
    """The epoch at which each restart arrives.

    Args:
        curves: long, with train/loss at every epoch, as from `results.curves`.
        target: the loss to reach.

    Returns:
        One row per restart: params, seed, rule, and arrival, the first epoch with a loss at or below the target; NaN
        where there is none.
    """
    there = curves[curves["value"] <= target].groupby(["run_id", "seed"])["epoch"].min().rename("arrival")
    restarts = curves.drop_duplicates(["run_id", "seed"]).drop(columns=["epoch", "step", "metric", "value"])
    restarts = restarts.merge(there.reset_index(), on=["run_id", "seed"], how="left")
    return restarts.assign(rule=[_rule(row) for row in restarts.to_dict("records")])


def _rule(params: Mapping[str, object]) -> str:
    if params["initializer"] != "normal":
        return str(params["initializer"])
    return "N(0, .1²)" if params.get("initializer.spread") == 0.1 else UNSCALED  # a default is not among the params


def arrival_table(restarts: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Arrivals per arm: their number, the median epoch, and the mean epoch with late ones counted at the horizon."""
    rows = []
    for (activation, rule), arm in restarts.groupby(["activation", "rule"], sort=False):
        arrived = arm["arrival"].notna()
        share = wilson(int(arrived.sum()), len(arm))
        late = np.sort(arm["arrival"].fillna(np.inf))
        rows.append(
            {
                "activation": activation,
                "rule": rule,
                "rate": arm["learning_rate"].iloc[0],
                "n": len(arm),
                "arrived": int(arrived.sum()),
                "share": share.estimate,
                "share_low": share.low,
                "share_high": share.high,
                "median_epoch": late[(len(late) - 1) // 2],
                "mean_epoch_restricted": np.minimum(late, horizon).mean(),
            }
        )
    return pd.DataFrame(rows)


def claimed(restarts: pd.DataFrame) -> dict[str, Values | dict[str, Values] | None]:
    """Epochs to the target of each scaled rule against N(0, 1), pair by pair, NaN where a restart is censored.

    None where not all arms were run, as in the quick form.
    """
    if len(restarts.groupby(["activation", "rule"])) < len(ACTIVATIONS) * len(RULES):
        return {"scaled_spread_is_faster": None}

    def values(activation: str, rule: str) -> ndarray:
        arm = restarts[(restarts["activation"] == activation) & (restarts["rule"] == rule)]
        return arm.sort_values("seed")["arrival"].to_numpy(dtype=float)

    return {
        "scaled_spread_is_faster": {
            f"{activation}, {rule}": (values(activation, rule), values(activation, UNSCALED))
            for activation in ACTIVATIONS
            for rule in SCALED
        }
    }


if __name__ == "__main__":
    sys.exit(main("initial_spread", __doc__, PARTS, report))
