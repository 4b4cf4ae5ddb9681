"""XOR from a thousand starts: the level of the loss where a net gets stuck, its certificate, the benefit of retries.

Claims:
    * Of restarts: every net ends on one of four levels of the loss (Hamey 1998), and in three known settings the
      share that solves XOR is the known one: 84.3, 69.6 and 20.0 % of 1000. With two hidden units more than one start
      in twenty fails; with eight, nine starts in ten succeed.
    * Of minima: sigmoid and tanh nets do not end in minima. Their weights grow without end while the gradient falls, or
      they stand on a saddle (Sprinkhuizen-Kuyper & Boers 1999). Stuck ReLU nets do end in minima, which are flat.

Method: nets 2-h-1 with h = 2, 3, 4, 8; hidden sigmoid, tanh or ReLU; sigmoid output; half the squared error or binary
cross-entropy; full-batch descent; 1000 restarts each; weights N(0, 1), biases N(0, 1), or 0 for ReLU; 20 000 steps at
one rate per activation and loss. A net has solved XOR if all four outputs lie within .4 of their targets. The level of
a net is the one within 4 % of the highest level; all other losses are between levels.
    Each of the 27 000 ends gets a certificate (analysis/minima.py): polish in float64, exact Hessian. If the polish
ends on another level, training was unfinished, and the outcome of the restart says so; the polished point is reported
separately. Flat minima are not counted as distinct: each lies in a valley, so no two ends meet. The best of k is the
one with the lowest training loss. It is solved if any of the k is, with probability 1 - (1 - p)^k; the band comes from
Wilson's interval of p.

Cost: about eight minutes on two cores, a third of it for certificates, most of these for ReLU nets on their kinks.

Departures: the four levels of the squared error are 0, 1/16, 1/12 and 1/8, because the loss is halved, and rates are
twice those of the un-halved loss. The setting of 84.3 % draws biases U(-1, 1); here they are normal with the same
variance.
"""

import sys
from itertools import product

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.statistics import wilson
from descentlab.analysis.verdicts import Values
from descentlab.config.configuration import Config
from descentlab.data.loading import Dataset
from descentlab.nn.recipe import Training
from descentlab.studies.study import Part, Study, main
from descentlab.sweeps import judges

WIDTHS = (2, 3, 4, 8)
RATES = {  # by activation and loss; no one tuned them
    ("sigmoid", "mean_squared_error"): 4.0,
    ("tanh", "mean_squared_error"): 2.0,
    ("relu", "mean_squared_error"): 0.6,
    ("sigmoid", "binary_cross_entropy"): 1.0,
    ("tanh", "binary_cross_entropy"): 0.5,
    ("relu", "binary_cross_entropy"): 0.3,
}
LEVELS = {
    "mean_squared_error": {"0": 0.0, "1/16": 1 / 16, "1/12": 1 / 12, "1/8": 1 / 8},
    "binary_cross_entropy": {"0": 0.0, "1/2 ln 2": 0.5 * np.log(2), ".477": 0.4774, "ln 2": np.log(2)},
}
NAMES = ("solved: 0", "1/16 or 1/2 ln 2", "1/12 or .477", "1/8 or ln 2", "between")
NEAR = 0.04  # of the highest level: further away is between levels
CLOSE = 0.4  # of its target: an answer further away is wrong
PUBLISHED = {  # share of 1000 nets 2-2-1 that solve XOR
    ("sigmoid", "mean_squared_error"): 0.843,
    ("sigmoid", "binary_cross_entropy"): 0.696,
    ("relu", "mean_squared_error"): 0.2,
}
MINIMA = ("strict minimum", "flat minimum")
OUTCOMES = ("at infinity", "saddle", "flat minimum", "strict minimum", "non-smooth", "unfinished")
TRIES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)


def by_level(cell: Config, dataset: Dataset, training: Training) -> pd.DataFrame:
    """Judge restarts by their certificates and by the level of their loss.

    Returns:
        outcome, loss_level and polished_level (of NAMES), solved; then the attributes of the certificate.
    """
    inputs, targets = dataset.splits["train"]
    table = judges.certificates(cell, dataset, training)
    solved = (np.abs(training.predict(inputs) - targets) < CLOSE).all(axis=(1, 2))
    before, after = (level(cell.loss.name, table[name].to_numpy()) for name in ("decayed_loss", "polished_loss"))
    return table.assign(loss_level=before, polished_level=after, solved=solved.astype(float))


PARTS = {
    "xor": Part(["restarts=12", "epochs=1000", "log_every=1000"], few=slice(0, 24, 8), judge=by_level),
    "xor_published": Part(full_only=True, judge=by_level),
}


def report(study: Study) -> None:
    """Levels, certificates, best of k and verdicts."""
    restarts = study.restarts("xor")
    published = study.restarts("xor_published") if study.has("xor_published") else restarts.head(0)
    for rows in (restarts, published):
        rows["net"] = rows["activation"] + " 2-" + rows["hidden"].astype(str) + "-1"
    study.table("levels", level_table(pd.concat([restarts, published])))
    study.table("outcomes", outcome_table(restarts))
    about = f"{restarts['seed'].nunique()} restarts a net, {restarts['epochs'].iloc[0]} steps on XOR's four rows"
    study.figure("levels", figures.shares(restarts, "loss_level", "net", "loss", NAMES, f"Level of the loss\n{about}"))
    title = f"Ends of training, by certificate\n{about}"
    study.figure("outcomes", figures.shares(restarts, "outcome", "net", "loss", OUTCOMES, title))
    stuck = restarts[restarts["loss_level"] != NAMES[0]]
    if len(stuck):
        title = f"Polished points of stuck nets, by certificate\n{about}"
        study.figure("stuck", figures.shares(stuck, "polished", "net", "loss", OUTCOMES, title))
    tries = best_of_table(restarts)
    for loss, rows in tries.groupby("loss", sort=False):
        labels = ("k starts, best by training loss", "probability of solving XOR")
        title = f"Solved by the best of k starts: {loss}\n{about}".replace("_", " ")
        drawn = figures.estimates(rows, "k", "net", labels, panels="activation", log=True, title=title)
        study.figure(f"best_of_k_{loss}", drawn, rows)
    study.verdicts(claimed(restarts, published))


def level(loss: str, values: ndarray) -> ndarray:
    """The name of the level of each loss (R,), or between."""
    heights = np.array(list(LEVELS[loss].values()))
    distance = np.abs(values[:, None] - heights)  # (R, 4)
    nearest = np.array(NAMES)[distance.argmin(axis=1)]
    return np.where(distance.min(axis=1) <= NEAR * heights.max(), nearest, NAMES[-1])


def level_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Share of solved nets with Wilson's interval, and restarts per level, for every cell."""
    rows = []
    for (_, cell, net, loss), arm in restarts.groupby(["run_id", "cell", "net", "loss"], sort=False):
        share, counts = wilson(int(arm["solved"].sum()), len(arm)), arm["loss_level"].value_counts()
        row = {"cell": cell, "net": net, "loss": loss, "n": len(arm), "epochs": arm["epochs"].iloc[0]}
        row |= {"solved": share.estimate, "low": share.low, "high": share.high}
        rows.append(row | {name: int(counts.get(name, 0)) for name in NAMES})
    return pd.DataFrame(rows)


def outcome_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Certificates per net, level and outcome: the number of restarts, and the evidence.

    none_lower is the share of ends at which no random step lowers the loss. Ends on a kink have no Hessian; this share
    of them are local minima.
    """
    keys = ["loss", "net", "loss_level", "outcome", "polished"]
    table = restarts.groupby(keys, sort=False).agg(
        restarts=("seed", "size"),
        polished_loss=("polished_loss", "median"),
        gradient_start=("gradient_start", "median"),
        gradient=("gradient_norm", "max"),
        growth=("growth", "median"),
        negative_modes=("negative_modes", "median"),
        zero_modes=("zero_modes", "median"),
        by_symmetry=("symmetry_modes", "median"),
        kinks=("kinks", "median"),
        none_lower=("lower_nearby", lambda shares: (shares == 0).mean()),
    )
    return table.reset_index()


def best_of_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Probability that the best of k starts is solved, per net and k, with the band of Wilson's interval at k = 1."""
    rows = []
    for (loss, activation, net), arm in restarts.groupby(["loss", "activation", "net"], sort=False):
        share = wilson(int(arm["solved"].sum()), len(arm))
        for k in TRIES:
            of_k = (1 - (1 - one) ** k for one in (share.estimate, share.low, share.high))
            rows.append((loss, activation, net.removeprefix(f"{activation} "), k, *of_k))
    return pd.DataFrame(rows, columns=["loss", "activation", "net", "k", "estimate", "low", "high"])


def claimed(restarts: pd.DataFrame, published: pd.DataFrame) -> dict[str, Values | dict[str, Values] | None]:
    """The values of every claim; None if not all of its cells were run."""
    cells = {
        (activation, loss, width): arm.sort_values("seed")
        for (activation, loss, width), arm in restarts.groupby(["activation", "loss", "hidden"])
    }
    cells = {(activation, loss, int(width)): arm for (activation, loss, width), arm in cells.items()}
    settings = {setting: arm["solved"] for setting, arm in published.groupby(["activation", "loss"])}
    whole = len(cells) == len(RATES) * len(WIDTHS)

    def column(width: int, name: str) -> dict[str, Values]:
        return {
            f"{activation}, {loss}": cells[activation, loss, width][name].to_numpy(dtype=float)
            for activation, loss in RATES
        }

    def about(activation: str, loss: str, width: int) -> str:
        return f"{activation} 2-{width}-1, {loss}"

    smooth = [key for key in product(("sigmoid", "tanh"), LEVELS, WIDTHS) if key in cells]
    relu = {
        loss: arm[arm["loss_level"] != NAMES[0]] for loss in LEVELS if (arm := cells.get(("relu", loss, 2))) is not None
    }
    return {
        "solved_as_published": (
            {", ".join(key): settings[key].to_numpy(dtype=float) - share for key, share in PUBLISHED.items()}
            if set(settings) == set(PUBLISHED)
            else None
        ),
        "four_levels": (
            {about(*key): (arm["loss_level"] != NAMES[-1]).to_numpy(dtype=float) for key, arm in cells.items()}
            if whole
            else None
        ),
        "two_units_get_stuck": column(2, "solved") if whole else None,
        "eight_units_succeed": column(8, "solved") if whole else None,
        "no_minimum_is_attained": (
            {about(*key): cells[key]["polished"].isin(MINIMA).to_numpy(dtype=float) for key in smooth}
            if whole
            else None
        ),
        "at_infinity_or_saddle": (
            {
                about(*key): cells[key]["polished"].isin(("at infinity", "saddle")).to_numpy(dtype=float)
                for key in smooth
            }
            if whole
            else None
        ),
        "relu_minima": (
            {loss: arm["outcome"].isin(MINIMA).to_numpy(dtype=float) for loss, arm in relu.items()} if whole else None
        ),
    }


if __name__ == "__main__":
    sys.exit(main("xor", __doc__, PARTS, report))
