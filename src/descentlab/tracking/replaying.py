"""Train a stored run again from its own artifacts and compare every bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.config.cells import DIGEST_LENGTH, Cell, cells
from descentlab.config.resolving import resolve
from descentlab.tracking.environment import environment
from descentlab.tracking.reading import get, reading
from descentlab.tracking.store import check_form
from descentlab.tracking.stored_run import StoredRun
from descentlab.tracking.tables import curve_table
from descentlab.tracking.trainings import weight_arrays
from descentlab.values import InputError, Option, refusal

if TYPE_CHECKING:
    from descentlab.nn.recipe import Trainer


@dataclass(frozen=True)
class Replay:
    """The result of training a stored run again.

    Attributes:
        run_id, name: which run.
        same_bits: whether every curve and every stored final weight is bit-identical.
        largest_difference: the largest |new - old| of a curve or a layer's weights, over its largest |old|.
        worst: the curve or array where it occurs; "" if none differs.
        departures: key -> (then, now), of versions, BLAS, CPU and data that have changed since.
    """

    run_id: str
    name: str
    same_bits: bool
    largest_difference: float
    worst: str
    departures: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        """The report, one line and one more per departure."""
        verdict = "the same bits in every curve and final weight"
        if not self.same_bits:
            verdict = f"not the same bits: largest relative difference {self.largest_difference:.2g}, in {self.worst}"
        lines = [f"{self.name} ({self.run_id}): {verdict}"]
        lines += [f"  {key}: {then} then, {now} now" for key, (then, now) in self.departures.items()]
        return "\n".join(lines)


def stored_settings(run: StoredRun) -> dict[str, Any]:
    """The settings that a cell was trained with, from its own config.json."""
    settings: dict[str, Any] = json.loads(run.artifact("config.json").read_text(encoding="utf-8"))
    return settings


def stored_cell(run: StoredRun) -> Cell:
    """A stored run's cell: its own settings, on the data that it was trained on.

    Raises:
        InputError: the data are not there any more, or have other values.
    """
    cell = _cell(stored_settings(run))
    if run.digest not in (cell.digest, _first_digest(cell)):
        raise refusal("data", run.data, f"has other values than those that run {run.run_id} was trained on")
    return cell


def _first_digest(cell: Cell) -> str:
    """The digest that stores of the first form have: of the scaled arrays of every split."""
    digest = sha256()
    for name, arrays in sorted(cell.dataset.splits.items()):
        for array in arrays:
            digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:DIGEST_LENGTH]


def _cell(settings: Mapping[str, Any]) -> Cell:
    return cells([resolve(settings)])[0]


def replay(
    run_id: str,
    option: Option,
    trainer: "Trainer | None" = None,
) -> Replay:
    """Rebuild a cell or a single restart from its own artifacts, train it again and compare.

    Args:
        run_id: of a cell or a restart.
        option: names the store.
        trainer: that trained the run; None for the package's own.

    Raises:
        InputError: there is no such run, it has no results, or another trainer or version of descentlab trained it.
    """
    from descentlab.nn.trainer import iterate, train_recipe

    run = get(option, run_id)
    level = run.level or "unknown"
    if level not in ("cell", "restart"):
        raise InputError(f"run_id={run_id}: is of level {level}; only a cell or a restart can be replayed")
    store = reading(option)
    check_form(store, store.client.get_run(run.run_id).info.experiment_id)
    cell = get(option, run.parent) if level == "restart" else run
    if cell.trainer != (trainer.__name__ if trainer else ""):
        by = f"{cell.trainer}; run: python {cell.script}" if cell.trainer else "descentlab itself; run: descentlab"
        raise InputError(f"run_id={run_id}: was trained by {by} replay {run_id}")
    curves = cell.table("curves.parquet")
    raw = stored_settings(cell)
    if level == "restart":
        raw |= {"seed": run.seed, "restarts": 1}
        curves = curves[curves["seed"] == raw["seed"]]
    anew = _cell(raw)
    workers: Any = anew.config.workers
    training = train_recipe(anew.recipe, anew.dataset.splits, workers, trainer=trainer or iterate)
    then = {name: curves[name].to_numpy() for name in curves.columns if "/" in name}
    again = curve_table(training)
    now = {name: again[name].to_numpy() for name in again.columns if "/" in name}
    weights = cell.arrays("final.npz")
    seeds = weights.pop("seeds")
    rows, kept = np.isin(training.seeds, seeds), np.isin(seeds, training.seeds)
    then |= {f"final {name}": array[kept] for name, array in weights.items()}
    now |= {f"final {name}": array for name, array in weight_arrays(training.final, training.seeds, rows).items()}
    differences = {name: _difference(values, now.get(name)) for name, values in then.items()}
    worst = max(differences, key=lambda name: differences[name])
    recorded, current = (
        {**cell.tags, "data": cell.digest},
        {**environment(), "data": anew.digest},
    )
    watched = ("python", "numpy", "descentlab", "blas", "cpu_features", "data")
    return Replay(
        run_id=run_id,
        name=run.name if level == "cell" else f"{cell.name} {run.name}",
        same_bits=all(_same_bits(values, now.get(name)) for name, values in then.items()),
        largest_difference=differences[worst],
        worst=worst if differences[worst] else "",
        departures={key: (recorded.get(key, ""), current[key]) for key in watched if recorded.get(key) != current[key]},
    )


def _same_bits(old: ndarray, new: ndarray | None) -> bool:
    return new is not None and old.dtype == new.dtype and old.shape == new.shape and old.tobytes() == new.tobytes()


def _difference(old: ndarray, new: ndarray | None) -> float:
    if new is None or old.shape != new.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        gap = np.where(np.isnan(old) & np.isnan(new), 0.0, np.abs(new.astype(np.float64) - old))
        gap = np.where(old == new, 0.0, gap)
        size = np.nanmax(np.abs(old), initial=0.0)
        largest = float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))
        return largest / float(size) if size and largest else largest
