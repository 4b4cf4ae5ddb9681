"""Write trainings to files and read them; take parts of trainings and join them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.tracking.tables import curve_table, ranking, restart_table

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.nn.parameters import Parameters
    from descentlab.nn.recipe import Recipe, Training


WEIGHTS_LIMIT = 64 * 2**20  # bytes of initial and final weights; above it only the best restart's are stored
SAVED = "finished"  # beside a cell's checkpoints: its training, where the store did not accept it


def weight_arrays(parameters: "Parameters", seeds: ndarray, rows: ndarray | slice) -> dict[str, Any]:
    """Weights W1.. and biases b1.. of some restarts (R, ...), with their seeds."""
    arrays: dict[str, Any] = {"seeds": seeds[rows]}
    for layer, (weights, biases) in enumerate(zip(parameters.W, parameters.b, strict=True), start=1):
        arrays |= {f"W{layer}": weights[rows], f"b{layer}": biases[rows]}
    return arrays


def all_weights(training: "Training") -> bool:
    """Whether the weights of all restarts are stored."""
    return training.initial.flat.nbytes + training.final.flat.nbytes <= WEIGHTS_LIMIT


def write_weights(training: "Training", folder: Path) -> None:
    """Write initial.npz and final.npz: all restarts where they fit WEIGHTS_LIMIT, else the best."""
    rows: ndarray | slice = slice(None) if all_weights(training) else ranking(training)[:1]
    np.savez(folder / "initial.npz", **weight_arrays(training.initial, training.seeds, rows))
    np.savez(folder / "final.npz", **weight_arrays(training.final, training.seeds, rows))


def read_training(
    table: "Callable[[str], pd.DataFrame]",
    arrays: Callable[[str], dict[str, ndarray]],
    recipe: "Recipe",
    seconds: float,
) -> "Training":
    """A stored cell as the Training it was.

    Args:
        table: reads a Parquet file by its name.
        arrays: reads an .npz.
        recipe: what was run.
        seconds: its wall time.

    Returns:
        The Training. Parameters that were too large to be stored are NaN.
    """
    from descentlab.nn.recipe import Training

    curves, restarts = table("curves.parquet"), table("restarts.parquet")
    seeds = restarts["seed"].to_numpy()
    points = len(curves) // len(seeds)
    series = {name: curves[name].to_numpy().reshape(-1, points).T.copy() for name in curves if "/" in name}
    return Training(
        recipe=recipe,
        seeds=seeds,
        rates=np.full(len(seeds), recipe.learning_rate, dtype=np.float64),
        epochs=curves["epoch"].to_numpy()[:points],
        steps=curves["step"].to_numpy()[:points],
        curves=series,
        diverged_epoch=restarts["diverged_epoch"].to_numpy(),
        initial=_parameters(arrays("initial.npz"), recipe, seeds),
        final=_parameters(arrays("final.npz"), recipe, seeds),
        seconds=seconds,
    )


def _parameters(stored: Mapping[str, ndarray], recipe: "Recipe", seeds: ndarray) -> "Parameters":
    """Parameters of some restarts (R); NaN where they were not stored."""
    from descentlab.nn.parameters import Parameters, parameter_count

    count = parameter_count(recipe.layers)
    parameters = Parameters(recipe.layers, np.full((len(seeds), count), np.nan, dtype=recipe.dtype))
    places = {seed: place for place, seed in enumerate(stored["seeds"].tolist())}
    rows = [row for row, seed in enumerate(seeds.tolist()) if seed in places]
    source = [places[int(seed)] for seed in seeds[rows]]
    for layer, (weights, biases) in enumerate(zip(parameters.W, parameters.b, strict=True), start=1):
        weights[rows], biases[rows] = stored[f"W{layer}"][source], stored[f"b{layer}"][source]
    return parameters


def save_training(training: "Training", folder: Path) -> None:
    """Save a training that the store did not accept, with all weights; the folder appears when it is complete."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    curve_table(training).to_parquet(part / "curves.parquet", index=False)
    restart_table(training).to_parquet(part / "restarts.parquet", index=False)
    np.savez(part / "initial.npz", **weight_arrays(training.initial, training.seeds, slice(None)))
    np.savez(part / "final.npz", **weight_arrays(training.final, training.seeds, slice(None)))
    (part / "seconds").write_text(repr(training.seconds), encoding="ascii")
    part.replace(folder)


def read_saved(folder: Path, recipe: "Recipe") -> "Training":
    """A training from `save_training`."""
    import pandas as pd

    from descentlab.nn.checkpoints import read_arrays

    return read_training(
        lambda name: pd.read_parquet(folder / name),
        lambda name: read_arrays(folder / name),
        recipe,
        float((folder / "seconds").read_text(encoding="ascii")),
    )


def only(training: "Training", rows: ndarray) -> "Training":
    """Some restarts of a training, in the order given, with their share of its time."""
    return replace(
        training,
        seeds=training.seeds[rows],
        rates=training.rates[rows],
        curves={name: values[:, rows] for name, values in training.curves.items()},
        diverged_epoch=training.diverged_epoch[rows],
        initial=training.initial[rows],
        final=training.final[rows],
        seconds=training.seconds * len(rows) / len(training.seeds),
    )


def joined(recipe: "Recipe", trainings: "Sequence[Training]") -> "Training":
    """One training from several of the same cell over different seeds, in the order of the seeds.

    Raises:
        ValueError: they did not log the same metrics at the same epochs.
    """
    from descentlab.nn.parameters import Parameters

    first = trainings[0]
    for other in trainings:
        if list(other.curves) != list(first.curves) or not np.array_equal(other.epochs, first.epochs):
            raise ValueError("trainings: did not log the same metrics at the same epochs")

    def parameters(name: str) -> "Parameters":
        return Parameters(recipe.layers, np.concatenate([getattr(one, name).flat for one in trainings]))

    whole = replace(
        first,
        recipe=recipe,
        seeds=np.concatenate([one.seeds for one in trainings]),
        rates=np.concatenate([one.rates for one in trainings]),
        curves={name: np.concatenate([one.curves[name] for one in trainings], axis=1) for name in first.curves},
        diverged_epoch=np.concatenate([one.diverged_epoch for one in trainings]),
        initial=parameters("initial"),
        final=parameters("final"),
        seconds=sum(one.seconds for one in trainings),
    )
    return replace(only(whole, np.argsort(whole.seeds)), seconds=whole.seconds)
