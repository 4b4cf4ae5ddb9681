"""The barrier of the loss between two restarts, before and after matching their hidden units.

Claims:
    * Matching hidden units lowers the barrier between two restarts, and from width 25 on by more than half: most of the
      difference between two ends of training is the order of their units (Entezari et al. 2022).
    * Both barriers fall with width like width^-1/2.

Method: the networks of experiments/local_minima.py, read from the store if it has them: one hidden layer of ReLU,
widths 2 to 250, MNIST at 10 x 10 pixels. Restarts 0 and 1, 2 and 3, ... form pairs that share no network, so the values
are independent. The barrier is the maximal rise of the training loss above the chord on the straight line between two
networks, over 25 points (Frankle et al. 2020). Matching removes softmax's shift and the rescaling of ReLU units, then
assigns the units of one network to those of the other to minimise the distance of the weights; with one hidden layer
the assignment is exact. Exponents are fitted to widths 5 to 250 in each of ten blocks of pairs, which gives ten
independent values.
    Slices show the training loss around an end, along two random directions whose units have the norms of the network's
(Li et al. 2018), and on the plane through three ends, raw and matched to the first (Garipov et al. 2018).

Cost: two to three minutes on two cores, and two more for training if the store does not have the networks.

Departures from Entezari et al. 2022: units are matched by their weights instead of simulated annealing on the loss;
MNIST at 10 x 10 pixels; widths to 250 instead of 2^10 and more. Garipov et al. search a curve of low loss between two
ends; the plane here goes through three ends.
"""

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis import matching
from descentlab.analysis.statistics import mean_interval
from descentlab.analysis.verdicts import Values
from descentlab.nn.activations import relu
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters
from descentlab.studies.study import Part, Study, main

KINDS = ("raw", "matched")
HALVED_FROM = 25  # width
FITTED_FROM = 5  # width from which the power law is fitted
BLOCKS = 10
SLICED = (5, 25, 100)  # widths of which slices are drawn
GRID = 25  # points of a slice along each axis
REACH = 1.0  # of a random slice, in norms of the weights
MARGIN = 0.3  # of a plane beyond its three ends, as a share of their extent

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
    restarts = study.restarts(part)
    restarts = restarts.assign(width=restarts["hidden"].astype(int)).sort_values(["width", "seed"], ignore_index=True)
    about = f"{restarts['data'].iloc[0]}, one hidden ReLU layer, {restarts['epochs'].iloc[0]} epochs"

    paths = study.measured("paths", lambda: measure_paths(study, part, restarts))
    pairs = barrier_of_each_pair(paths)
    table = barrier_table(pairs)
    study.table("barriers", table)
    shown = paths[paths["split"] == "train"].rename(columns={"pair": "seed", "loss": "value"})
    title = f"Training loss on the line between two restarts: {about}"
    study.figure("paths", figures.paths(shown, "t", "kind", "width", ("t", "training loss (nats)"), title))

    fits = {kind: block_slopes(pairs[(pairs["split"] == "train") & (pairs["kind"] == kind)]) for kind in KINDS}
    study.table("slopes", pd.concat([slope_table(kind, fit) for kind, fit in fits.items()], ignore_index=True))
    study.figure("barriers", barrier_figure(table, fits, about), table)

    widths = SLICED[:1] if study.quick else SLICED
    slices = study.measured("slices", lambda: measure_slices(study, part, restarts, widths, 9 if study.quick else GRID))
    study.figure("slices", slice_figure(slices, about))
    values = claimed(pairs, fits)
    if study.quick:  # what is claimed width by width is not judged on some of the widths
        values = {name: None if isinstance(some, dict) else some for name, some in values.items()}
    study.verdicts(values)


def claimed(pairs: pd.DataFrame, fits: Mapping[str, ndarray]) -> Mapping[str, Values | Mapping[str, Values]]:
    """The values of every claim.

    Args:
        pairs: as from `barrier_of_each_pair`.
        fits: kind -> exponents, as from `block_slopes`.
    """
    train = pairs[pairs["split"] == "train"]
    by_kind = train.pivot_table(index=["width", "pair"], columns="kind", values="barrier")
    widths = sorted(set(train["width"]))
    return {
        "matching_lowers": {
            f"width {width}": (by_kind.loc[width]["raw"].to_numpy(), by_kind.loc[width]["matched"].to_numpy())
            for width in widths
        },
        "matched_halves": {
            f"width {width}": (by_kind.loc[width]["matched"] - 0.5 * by_kind.loc[width]["raw"]).to_numpy()
            for width in widths
            if width >= HALVED_FROM
        },
        "matched_slope": fits["matched"] + 0.5,
        "raw_slope": fits["raw"] + 0.5,
    }


# --- paths and their barriers ------------------------------------------------------------------------------------


def networks(study: Study, part: str, restarts: pd.DataFrame) -> Iterator[tuple[int, Network, Parameters, ndarray]]:
    """Width, network, final parameters and seeds of every cell; restarts that diverged are left out."""
    recipe = study.cell(part).recipe
    for run_id, cell in restarts.groupby("run_id", sort=False):
        weights = study.weights(str(run_id))
        parameters = Parameters.stacked(weights.final)
        network = Network(parameters.layers, relu(), recipe.output, recipe.loss)
        finite = np.flatnonzero(np.isfinite(parameters.flat).all(axis=1))
        yield int(cell["width"].iloc[0]), network, parameters[finite], weights.seeds[finite]


def measure_paths(study: Study, part: str, restarts: pd.DataFrame) -> pd.DataFrame:
    """The loss at every point between every pair: width, pair, seed_a, seed_b, kind, split, t, loss."""
    splits = study.cell(part).dataset.splits
    tables = []
    for width, network, ends, seeds in networks(study, part, restarts):
        first, second = (np.arange(start, len(ends) - 1 + start, 2) for start in (0, 1))
        pairs = {"raw": (ends[first], ends[second])}
        pairs["matched"] = matching.matched(network, *pairs["raw"])
        for kind, (a, b) in pairs.items():
            for split in ("train", "test"):
                losses = matching.path_losses(network, a, b, *splits[split])
                number, point = np.indices(losses.shape).reshape(2, -1)
                about = {
                    "width": width,
                    "pair": number,
                    "seed_a": seeds[first][number],
                    "seed_b": seeds[second][number],
                }
                along = {"t": point / (losses.shape[1] - 1), "loss": losses.ravel()}
                tables.append(pd.DataFrame(about | {"kind": kind, "split": split} | along))
    return pd.concat(tables, ignore_index=True)


def barrier_of_each_pair(paths: pd.DataFrame) -> pd.DataFrame:
    """One row per width, split, kind and pair: barrier."""
    keys = ["width", "split", "kind", "pair"]
    found = [(*key, float(matching.barriers(one.sort_values("t")["loss"]))) for key, one in paths.groupby(keys)]
    return pd.DataFrame(found, columns=[*keys, "barrier"])


def barrier_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean barriers with Student's interval, by width, split and kind."""
    rows = []
    for (width, split, kind), cell in pairs.groupby(["width", "split", "kind"], sort=False):
        found = mean_interval(cell["barrier"])
        row = {"width": width, "split": split, "kind": kind, "pairs": found.n, "estimate": found.estimate}
        row |= {"low": found.low, "high": found.high, "median": cell["barrier"].median()}
        rows.append(row | {"least": cell["barrier"].min(), "most": cell["barrier"].max()})
    return pd.DataFrame(rows).sort_values(["split", "kind", "width"], ascending=[False, False, True], ignore_index=True)


def block_slopes(pairs: pd.DataFrame) -> ndarray:
    """The exponent of the width in the mean barrier, fitted to each block of pairs; not finite where a barrier is 0."""
    fitted = pairs[pairs["width"] >= FITTED_FROM]
    fewest = fitted.groupby("width").size().min()
    block = fitted["pair"] % max(2, min(BLOCKS, fewest // 5))  # the same at every width
    means = fitted.groupby([block, "width"])["barrier"].mean().unstack("width")
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(means.to_numpy())
        x = np.log(means.columns.to_numpy(dtype=float))
        x -= x.mean()
        return (logs @ x) / (x @ x)


def slope_table(kind: str, fit: ndarray) -> pd.DataFrame:
    """The exponent of one kind: mean over blocks with its interval."""
    found = mean_interval(fit[np.isfinite(fit)])
    row = {"kind": kind, "blocks": found.n, "slope": found.estimate, "slope_low": found.low, "slope_high": found.high}
    return pd.DataFrame([row])


def barrier_figure(table: pd.DataFrame, fits: Mapping[str, ndarray], about: str) -> figures.Figure:
    """Mean barriers over width, with the fitted powers and theory's."""
    train = table[table["split"] == "train"]
    lines = {}
    for kind in KINDS:
        rows = train[(train["kind"] == kind) & (train["width"] >= FITTED_FROM)]
        x, fit = rows["width"].to_numpy(dtype=float), mean_interval(fits[kind][np.isfinite(fits[kind])])
        centred = x / np.exp(np.log(x).mean())
        middle = np.exp(np.log(rows["estimate"]).mean())
        name = f"{kind}: width^{fit.estimate:.2f} (95 %: {fit.low:.2f} to {fit.high:.2f})"
        lines[name] = (x, middle * centred**fit.estimate)
    lines["width^-0.5 (theory)"] = (x, middle * centred**-0.5)
    labels = ("width", "barrier of the training loss (nats)")
    title = f"Barriers between restarts: {about}"
    return figures.estimates(train, "width", "kind", labels, None, lines, log=True, log_y=True, title=title)


# --- slices of the loss ------------------------------------------------------------------------------------------


def measure_slices(
    study: Study, part: str, restarts: pd.DataFrame, widths: tuple[int, ...], points: int
) -> pd.DataFrame:
    """The training loss on three planes: width, plane, x, y, loss; the rows of ends have their seed in `end`.

    Positions on a random plane are in norms of the weights; on one through three ends Euclidean, per largest extent.
    """
    inputs, targets = study.cell(part).dataset.splits["train"]
    tables = []
    for width, network, ends, seeds in networks(study, part, restarts[restarts["width"].isin(widths)]):
        three = ends[:3]
        planes = {"random directions around an end": (matching.random_plane(three[:1]), np.zeros((1, 2)), REACH)}
        for name, corners in (("through three ends", three), ("through three matched ends", align(network, three))):
            plane, places = matching.plane_through(corners)
            planes[name] = (plane, places, float(places.max()))
        for name, (plane, places, size) in planes.items():
            low, high = places.min(axis=0) / size, places.max(axis=0) / size
            span = [(-REACH, REACH)] * 2 if len(places) == 1 else list(zip(low - MARGIN, high + MARGIN, strict=True))
            x, y = (np.linspace(*limits, points) for limits in span)
            losses = matching.plane_losses(network, plane, x * size, y * size, inputs, targets)
            across, up = np.meshgrid(x, y)
            table = pd.DataFrame({"x": across.ravel(), "y": up.ravel(), "loss": losses.ravel()})
            corners = pd.DataFrame(places / size, columns=["x", "y"]).assign(end=seeds[: len(places)])
            tables.append(pd.concat([table, corners]).assign(width=width, plane=name))
    return pd.concat(tables, ignore_index=True)


def align(network: Network, three: Parameters) -> Parameters:
    """The first of three networks and the two others matched to it."""
    fixed, moved = matching.matched(network, three[np.array([0, 0])], three[np.array([1, 2])])
    return Parameters(three.layers, np.concatenate([fixed.flat[:1], moved.flat]))


def slice_figure(slices: pd.DataFrame, about: str) -> figures.Figure:
    """A row of planes per width, one scale of colour for all."""
    title = f"The training loss around ends of training, named by their seeds: {about}"
    label = "position: in norms of the weights along random directions, in largest extents through three ends"
    return figures.slices(slices, "width", "plane", "loss", (label, "training loss (nats)"), title)


if __name__ == "__main__":
    sys.exit(main("barriers", __doc__, PARTS, report))
