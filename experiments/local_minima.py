"""The effect of the random start, by width: where restarts end (Choromanska et al. 2015).

Claims:
    * At every width most restarts perform well: their test error is within 1 point of the expected error of the best of
      20 restarts, chosen by validation.
    * The wider the network, the better its restarts end and the less they differ: the standard deviation of the test
      loss falls as a power of the width, -1/2 in theory.
    * The wider the network, the less the test loss follows the training loss: a better minimum of the training loss is
      worth less.
    * Training many restarts and keeping the best is a remedy: the best of five by validation gains at least half a
      point.

Method: MNIST at 10 x 10 pixels, 8000 rows to train, 2000 to validate, t10k to test; one hidden layer of ReLU, softmax,
cross-entropy; Glorot's uniform spread, zero biases, batches of 50, rates of .5 x .85^epoch for 20 epochs. 200 restarts
of widths 2 to 50, 100 of widths 100 and 250. The end of training is an outcome; it is not called a minimum.
    A restart performs well if its test error is at most .01 above the expected test error of the best of 20 by
validation loss (over all subsets of 20). Most means more than one half: by the lower Wilson limit in the table and by
the family's exact binomial tests in the verdict. The table also shows the older rule, the share within 10 % of the best
test loss seen; this share falls as the number of restarts grows, because the best improves.
    Claims about width are judged on ten blocks of seeds. Each block has its own standard deviations, correlations and
fit, so the ten values are independent.
    The test set is finite, so no correlation with its mean losses can be expected above the root of their reliability.

Cost: two to three minutes on two cores.

Departures from Choromanska et al. 2015: 8000 training rows instead of 60 000, a 1-point rule instead of histograms,
widths to 250 instead of 500. Without MNIST, and in the quick form, digits are used, with more epochs and a slower decay
because an epoch has fewer steps.
"""

import sys
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis.statistics import (
    Interval,
    best_of_k_interval,
    correlation_interval,
    dip_test,
    mean_interval,
    metric_bounds,
    quantile_interval,
    reliability,
    select_best_of_k,
    spread_interval,
    wilson,
)
from descentlab.analysis.verdicts import Values
from descentlab.nn.activations import relu
from descentlab.nn.network import Network, predict
from descentlab.nn.parameters import Parameters
from descentlab.studies.study import Part, Study, main

K = 20  # the best of so many is the standard
MARGIN = 0.01  # of test error
MARGINS = (0.005, 0.01, 0.015, 0.02, 0.03)
COUNTS = (20, 50, 100, 200)  # restarts, for what depends on their number
OLDER = 1.1  # of the best test loss
FITTED_FROM = 5  # width from which the power law is fitted
NARROW, WIDE = 5, 100  # of the claim about correlation
BLOCKS = 10
KEPT = 5  # restarts of which the best is kept
CURVE = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80)

PARTS = {
    "local_minima": Part(needs="DESCENTLAB_MNIST", full_only=True),
    "local_minima_digits": Part(
        ["restarts=6", "epochs=2", "log_every=2"],
        few=slice(1, None, 2),  # widths 5, 25, 100
        in_place_of="local_minima",
    ),
}


def report(study: Study) -> None:
    """Tables, figures and verdicts."""
    part = next(name for name in PARTS if study.has(name))
    restarts = with_width(study.restarts(part))
    about = f"{restarts['data'].iloc[0]}, one hidden ReLU layer, {restarts['epochs'].iloc[0]} epochs"
    ceilings = study.measured("reliability", lambda: reliabilities(study, part, restarts))

    table = outcome_table(restarts, simulations=200 if study.quick else 2000)
    study.table("outcomes", table)
    best_of = f"best_of_{min(K, restarts.groupby('width').size().min())}"
    marked = restarts.assign(**{best_of: restarts["width"].map(1 - standards(restarts))})
    title = f"Final test results of every restart: {about}"
    figure = figures.histograms(marked, "test/accuracy", "width", "test accuracy", best_of, title)
    study.figure("outcomes_accuracy", figure)
    shares, older = performing_well(restarts), older_rule(restarts)
    study.table("performs_well", shares)
    study.table("older_rule", older)

    spreads, fits = spread_table(restarts), block_slopes(restarts)
    study.table("spread", spreads)
    study.table("spread_slopes", slope_table(restarts))
    study.figure("spread", spread_figure(spreads, fits, about), spreads)

    correlations = correlation_table(restarts, ceilings)
    study.table("correlation", correlations)
    study.figure("correlation", correlation_figure(correlations, about))
    curve = study.measured("best_of_k", lambda: best_of_k_table(restarts))
    study.figure("best_of_k", best_of_k_figure(curve, about))

    if not study.quick:
        figure = figures.histograms(restarts, "test/loss", "width", "test loss (nats)", title=title)
        study.figure("outcomes_loss", figure)
        study.figure("outcomes_together", figures.spread(restarts, "test/loss", by="width"))
        study.figure("performs_well", sensitivity_figure(shares, older, about))
        labels = ("training loss (nats)", "test loss (nats)")
        title = f"Training and test loss of every restart: {about}"
        study.figure("train_and_test", figures.scatter(restarts, "train/loss", "test/loss", "width", labels, title))
    values = claimed(restarts, fits)
    if study.quick:  # what is claimed width by width is not judged on some of the widths
        values = {name: None if isinstance(some, dict) else some for name, some in values.items()}
    study.verdicts(values)


def with_width(restarts: pd.DataFrame) -> pd.DataFrame:
    """Restarts with their width, sorted by it and by seed."""
    return restarts.assign(width=restarts["hidden"].astype(int)).sort_values(["width", "seed"], ignore_index=True)


def claimed(restarts: pd.DataFrame, fits: pd.DataFrame) -> Mapping[str, Values | Mapping[str, Values]]:
    """The values of every claim.

    Args:
        restarts: one row per restart with width and final metrics.
        fits: as from `block_slopes`.
    """
    limit = standards(restarts) + MARGIN
    good = {
        width: np.where(cell["test/accuracy"].isna(), np.nan, 1 - cell["test/accuracy"] <= limit[width])
        for width, cell in restarts.groupby("width")
    }
    accuracy = restarts.pivot_table(index="seed", columns="width", values="test/accuracy", dropna=False)
    pairs = {}
    for narrow, wide in pairwise(accuracy.columns):
        shared = accuracy[[narrow, wide]].loc[restarts[restarts["width"] == wide]["seed"]]
        pairs[f"width {wide} over {narrow}"] = (shared[wide].to_numpy(), shared[narrow].to_numpy())
    follows = block_correlations(restarts)
    return {
        "most_perform_well": {f"width {width}": well for width, well in good.items() if width < WIDE},
        "most_perform_well_wide": {f"width {width}": well for width, well in good.items() if width >= WIDE},
        "spread_narrows": fits["slope"].to_numpy() + 0.5,
        "correlation_falls": (follows[NARROW].to_numpy(), follows[WIDE].to_numpy()),
        "wider_is_better": pairs,
        "keeping_the_best_pays": {
            f"width {width}": kept_less_mean(cell) for width, cell in restarts.groupby("width", sort=True)
        },
    }


# --- where restarts end ------------------------------------------------------------------------------------------


def standards(restarts: pd.DataFrame) -> "pd.Series":
    """By width: the expected test error of the best of K restarts, chosen by validation loss."""
    return pd.Series({width: 1 - best(cell, min(K, len(cell))) for width, cell in restarts.groupby("width")})


def best(cell: pd.DataFrame, k: int, unbiased: bool = True) -> float:
    """Expected test accuracy of the restart with the least validation loss out of k; 0 where all have diverged."""
    return select_best_of_k(cell["validation/loss"], cell["test/accuracy"].fillna(0.0), k, "lower", unbiased)


def outcome_table(restarts: pd.DataFrame, simulations: int) -> pd.DataFrame:
    """The distribution of outcomes by width: test accuracy, test loss, and whether the latter has several modes."""
    rows = []
    for width, cell in restarts.groupby("width"):
        finite = cell[np.isfinite(cell["test/loss"])]
        accuracy, loss = finite["test/accuracy"], finite["test/loss"]
        row = {"width": width, "n": len(cell), "diverged": len(cell) - len(finite)}
        for name, found in (
            ("accuracy", mean_interval(accuracy, bounds=metric_bounds("accuracy"))),
            ("accuracy_sd", spread_interval(accuracy)),
            ("accuracy_median", quantile_interval(accuracy)),
            ("accuracy_5_percent", quantile_interval(accuracy, 0.05)),
            ("loss", mean_interval(loss, bounds=metric_bounds("loss"))),
        ):
            row |= _columns(name, found)
        row |= {"accuracy_least": accuracy.min(), "accuracy_most": accuracy.max()}
        row |= {f"best_of_{k}": best(cell, k) for k in (KEPT, K) if k <= len(cell)}
        dip = dip_test(loss, simulations=simulations)
        rows.append(row | {"dip": dip.dip, "dip_p": dip.p_value})
    return pd.DataFrame(rows)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def performing_well(restarts: pd.DataFrame) -> pd.DataFrame:
    """The share that performs well by width, margin and number of restarts (the first ones), with Wilson's limits."""
    rows = []
    for width, whole in restarts.groupby("width"):
        for count in sorted({*(count for count in COUNTS if count < len(whole)), len(whole)}):
            cell = whole.iloc[:count]
            standard = 1 - best(cell, min(K, count))
            for margin in MARGINS:
                share = wilson(int((1 - cell["test/accuracy"] <= standard + margin).sum()), count)
                row = {"width": width, "n": count, "best_of_20_error": standard, "margin": margin}
                row |= {"estimate": share.estimate, "low": share.low, "high": share.high, "most": share.low > 0.5}
                rows.append(row)
    return pd.DataFrame(rows)


def older_rule(restarts: pd.DataFrame) -> pd.DataFrame:
    """The expected share within 10 % of the best test loss, by width and number of restarts."""
    rows = []
    for width, cell in restarts.groupby("width"):
        loss = cell["test/loss"].fillna(np.inf).to_numpy()
        for count in sorted({*(count for count in COUNTS if count < len(loss)), len(loss)}):
            rows.append({"width": width, "n": count, "share": share_near_the_best(loss, count)})
    return pd.DataFrame(rows)


def share_near_the_best(losses: ndarray, count: int, factor: float = OLDER) -> float:
    """The expected share of `count` losses, drawn from all without replacement, within a factor of their least.

    Exact: where the i-th smallest of n is the least, the others are drawn from the n - i above it.
    """
    ordered = np.sort(losses)
    n, share, chance = len(ordered), 0.0, count / len(ordered)  # chance that the least is the first one
    for place, least in enumerate(ordered[: n - count + 1]):
        above = n - place - 1
        near = int((ordered[place + 1 :] <= factor * least).sum()) / above if above else 0.0
        share += chance * (1 + (count - 1) * near) / count
        chance *= (above - count + 1) / above if above else 0.0
    return float(share)


def sensitivity_figure(shares: pd.DataFrame, older: pd.DataFrame, about: str) -> figures.Figure:
    """The share that performs well, by margin and by number of restarts, and by the older rule."""
    most = shares[shares["n"] == shares.groupby("width")["n"].transform("max")]
    parts = [
        most.assign(x=100 * most["margin"], panel="by margin (points of test error)"),
        shares[shares["margin"] == MARGIN].assign(x=lambda rows: rows["n"], panel="by number of restarts, at 1 point"),
        older.assign(x=older["n"], panel="older rule: within 10 % of the best loss", estimate=older["share"]),
    ]
    shown = pd.concat(parts, ignore_index=True).sort_values("width", kind="stable")
    shown = shown.assign(series=[f"width {width}" for width in shown["width"]])
    labels = ("", "share of restarts that perform well")
    lines = {"one half": ([0.5, 200], [0.5, 0.5])}
    title = f"Do most restarts perform well? {about}"
    return figures.estimates(shown, "x", "series", labels, "panel", lines, log=True, title=title)


# --- spread against width ----------------------------------------------------------------------------------------


def spread_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of test loss and accuracy by width, with Bonett's interval."""
    rows = []
    for width, cell in restarts.groupby("width"):
        for metric in ("test/loss", "test/accuracy"):
            values = cell[metric][np.isfinite(cell[metric])]
            found = spread_interval(values)
            row = {"width": width, "metric": metric, "n": len(values)}
            rows.append(row | {"estimate": found.estimate, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def with_block(restarts: pd.DataFrame) -> pd.DataFrame:
    """Add the block of seeds, the same at every width: ten blocks, or fewer if a block would have less than ten."""
    fewest = restarts.groupby("width").size().min()
    return restarts.assign(block=restarts["seed"] % max(2, min(BLOCKS, fewest // 10)))


def block_slopes(restarts: pd.DataFrame, metric: str = "test/loss", narrowest: int = FITTED_FROM) -> pd.DataFrame:
    """The exponent of the width in the standard deviation, fitted to each block of seeds alone: block, slope."""
    fitted = with_block(restarts[restarts["width"] >= narrowest])
    spreads = fitted.groupby(["block", "width"])[metric].std().unstack("width")
    slopes = np.polyfit(np.log(spreads.columns.to_numpy(dtype=float)), np.log(spreads.to_numpy()).T, 1)[0]
    return pd.DataFrame({"block": spreads.index, "slope": slopes})


def slope_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """The exponent from every width on: of all restarts together, and the mean over blocks with its interval."""
    rows = []
    for narrowest in sorted(set(restarts["width"]))[:-2]:
        spreads = restarts[restarts["width"] >= narrowest].groupby("width")["test/loss"].std()
        whole = np.polyfit(np.log(spreads.index.to_numpy(dtype=float)), np.log(spreads), 1)
        fits = block_slopes(restarts, narrowest=narrowest)["slope"]
        row = {"from_width": narrowest, "declared": narrowest == FITTED_FROM, "all_restarts": whole[0]}
        rows.append(row | {"factor": np.exp(whole[1]), "blocks": len(fits)} | _columns("slope", mean_interval(fits)))
    return pd.DataFrame(rows)


def spread_figure(spreads: pd.DataFrame, fits: pd.DataFrame, about: str) -> figures.Figure:
    """Standard deviations over width with the fitted power and theory's."""
    losses = spreads[spreads["metric"] == "test/loss"].assign(series="standard deviation of the test loss")
    fitted = losses[losses["width"] >= FITTED_FROM]
    x, mean = fitted["width"].to_numpy(dtype=float), mean_interval(fits["slope"])
    centre, middle = np.exp(np.log(x).mean()), np.exp(np.log(fitted["estimate"]).mean())
    lines = {
        f"width^{mean.estimate:.2f} (fitted; 95 %: {mean.low:.2f} to {mean.high:.2f})": (
            x,
            middle * (x / centre) ** mean.estimate,
        ),
        "width^-0.50 (theory)": (x, middle * (x / centre) ** -0.5),
    }
    labels = ("width", "standard deviation over restarts (nats)")
    title = f"Spread of the test loss: {about}"
    return figures.estimates(losses, "width", "series", labels, None, lines, log=True, log_y=True, title=title)


# --- training and test loss --------------------------------------------------------------------------------------


def reliabilities(study: Study, part: str, restarts: pd.DataFrame) -> pd.DataFrame:
    """How reliable mean test losses are by width, from every network's loss on every test sample.

    Returns:
        One row per width: width, reliability.
    """
    cell_of_part = study.cell(part)
    inputs, targets = cell_of_part.dataset.splits["test"]
    rows = []
    for run_id, cell in restarts.groupby("run_id", sort=False):
        parameters = Parameters.stacked(study.weights(str(run_id)).final)
        network = Network(parameters.layers, relu(), cell_of_part.recipe.output, cell_of_part.recipe.loss)
        answers = predict(network, parameters, inputs)[:, targets.astype(bool)]  # (R, N), of the right class
        losses = -np.log(np.maximum(answers, np.finfo(float).tiny))
        finite = np.isfinite(losses).all(axis=1)
        rows.append({"width": cell["width"].iloc[0], "reliability": reliability(losses[finite])})
    return pd.DataFrame(rows)


def correlation_table(restarts: pd.DataFrame, ceilings: pd.DataFrame) -> pd.DataFrame:
    """Correlation of training and test loss by width, and its upper limit from the test set's noise."""
    rows = []
    for width, cell in restarts.groupby("width"):
        finite = cell[np.isfinite(cell["test/loss"])]
        found = correlation_interval(finite["train/loss"], finite["test/loss"])
        steady = float(ceilings[ceilings["width"] == width]["reliability"].iloc[0])
        row = {"width": width, "n": len(finite)} | _columns("correlation", found)
        rows.append(row | {"reliability": steady, "ceiling": np.sqrt(max(steady, 0.0))})
    return pd.DataFrame(rows)


def block_correlations(restarts: pd.DataFrame) -> pd.DataFrame:
    """Fisher's z of the correlation in every block of seeds: a row per block, a column per width."""
    table = {}
    for width, cell in with_block(restarts).groupby("width"):
        found = [part["train/loss"].corr(part["test/loss"]) for _, part in cell.groupby("block")]
        table[width] = np.arctanh(np.clip(found, -1 + 1e-12, 1 - 1e-12))
    return pd.DataFrame(table)


def correlation_figure(table: pd.DataFrame, about: str) -> figures.Figure:
    """Correlations and their ceilings over width."""
    found = table.rename(columns={"correlation": "estimate", "correlation_low": "low", "correlation_high": "high"})
    ceiling = table.assign(estimate=table["ceiling"], series="upper limit from the test set's noise")
    title = f"Training and test loss: {about}"
    shown = pd.concat([found.assign(series="correlation of training and test loss"), ceiling], ignore_index=True)
    return figures.estimates(shown, "width", "series", ("width", "correlation over restarts"), log=True, title=title)


# --- the best of many --------------------------------------------------------------------------------------------


def best_of_k_table(restarts: pd.DataFrame) -> pd.DataFrame:
    """Expected test accuracy of the restart chosen by validation out of k, with the jackknife's interval over restarts.

    Returns:
        One row per width and k up to half of the restarts: unbiased, low, high, with_replacement (Dodge et al. 2019).
    """
    rows = []
    for width, cell in restarts.groupby("width"):
        values = cell["validation/loss"], cell["test/accuracy"].fillna(0.0)
        for k in (k for k in CURVE if k <= len(cell) // 2):
            found = best_of_k_interval(*values, k, bounds=metric_bounds("test/accuracy"))
            row = {"width": width, "k": k, "unbiased": found.estimate, "low": found.low, "high": found.high}
            rows.append(row | {"with_replacement": best(cell, k, unbiased=False)})
    return pd.DataFrame(rows)


def best_of_k_figure(curve: pd.DataFrame, about: str) -> figures.Figure:
    """Both estimators over k, a panel per width."""
    biased = curve[["width", "k"]].assign(estimate=curve["with_replacement"], series="with replacement (biased)")
    shown = curve.rename(columns={"unbiased": "estimate"}).assign(series="without replacement (unbiased)")
    shown = pd.concat([shown, biased], ignore_index=True)
    shown = shown.assign(panel=[f"width {width}" for width in shown["width"]])
    title = f"Test accuracy of the best of k restarts by validation: {about}"
    labels = ("k", "expected test accuracy")
    return figures.estimates(shown, "k", "series", labels, "panel", log=True, share_y=False, title=title)


def kept_less_mean(cell: pd.DataFrame) -> ndarray:
    """The gain of the best of KEPT restarts by validation over their mean, per group of seeds."""
    whole = len(cell) // KEPT * KEPT
    loss = cell["validation/loss"].fillna(np.inf).to_numpy()[:whole].reshape(-1, KEPT)
    accuracy = cell["test/accuracy"].to_numpy()[:whole].reshape(-1, KEPT)
    return accuracy[np.arange(len(loss)), loss.argmin(axis=1)] - accuracy.mean(axis=1)


if __name__ == "__main__":
    sys.exit(main("local_minima", __doc__, PARTS, report))
