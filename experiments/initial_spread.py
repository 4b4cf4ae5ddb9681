"""Does an initial spread that follows the layer's size make learning faster? Epochs to a target loss.

Claim of the course notebook: dividing the initial weights by the square root of the layer's size makes learning faster
than leaving them N(0, 1).

Method: digits, [64, 64, 32, 10], sigmoid and ReLU, 30 seeds. Unscaled is N(0, 1); scaled are the notebook's own rule
(variance 1 / n_out, biases too), LeCun's 1 / n_in, Glorot's 2 / (n_in + n_out) and He's 2 / n_in. N(0, .1^2), a
constant of about the size that the rules give here, stands beside them: it shows what is due to the size of the spread
and what to its following the layers. A restart arrives at the end of the first epoch with a training loss at or below
.2; one that never does within 20 epochs is censored and ranks last, as does one that diverges; none is dropped. Arms
share their seeds, and those of normal rules their draws (the notebook's rule has a stream of its own), so that they are
compared pair by pair. Rates are the best of a grid of four a decade on validation at the end of training, per arm, over
5 tuning seeds apart (100000 on): conf/experiment/initial_spread.yaml, written by --tune.

Cost: about half a minute on two cores; tuning takes about two.

Read with care: with 64 inputs N(0, 1) is far too wide for ReLU and not for sigmoid, whose slope of at most 1/4 makes up
for it. What is said here of sigmoid is said of layers this narrow.

Departures from the notebook: digits in place of 300 rows of MNIST, softmax and cross-entropy in place of sigmoid and
squared error, batches of 32 in shuffled order, tuned rates in place of 300. At one set of widths only. The rate is
tuned for the loss at the end and not for an early arrival.
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
    """When restarts arrive, as a table, as curves and as verdicts."""
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
    """Arrivals per arm: how many, by when half of them, and the mean epoch with late ones counted at the horizon."""
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
