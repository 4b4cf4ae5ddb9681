"""What is kept of a run, as plain values and tables: params, metrics, curves, restarts, weights, environment."""

import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.config.configuration import Config
from descentlab.config.options import schemas
from descentlab.data import SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.nn.memory import Parameters
    from descentlab.nn.trainer import Recipe, Training

CHILDREN = ("auto", "all", "none")
CHILDREN_LIMIT = 50  # restarts up to which children=auto gives each its own run
WEIGHTS_LIMIT = 64 * 2**20  # bytes of initial and final weights together; above it only the best restart's are kept
DIGEST_LENGTH = 16  # of the data's hash, of which MLflow takes 36 characters and shows them all
SPOOL = "finished"  # among a cell's checkpoints: its training, where the store could not take it


def clone() -> Path | None:
    """The root of the clone that this code is run from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


@functools.cache
def environment() -> dict[str, str]:
    """What the bits of a result may depend on besides its configuration: versions, BLAS, CPU, commit."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("descentlab")
    except PackageNotFoundError:
        own = "unknown"
    found = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "descentlab": own,
        "blas": _blas(),
        "cpu_features": " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])),
        "device": f"cpu {_cpu_model()} x{os.cpu_count()}",
    }
    root = clone()
    if root and (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            commit, _, dirty = answer.stdout.strip().partition("-")
            found |= {
                "git_commit": commit,
                "git_dirty": "true" if dirty else "false",
                "mlflow.source.git.commit": commit,
            }
    return found


def _blas() -> str:
    """The library that NumPy multiplies with; SciPy may have loaded another of its own, or not yet."""
    from threadpoolctl import threadpool_info

    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    own = [library for library in loaded if "numpy" in library["filepath"]]
    names = (f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}".strip() for lib in own or loaded)
    return "; ".join(sorted(names))


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def plain(value: Any) -> str:
    """A setting as the text of a param: lists as 64-32, numbers so that they can be read back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "-".join(map(str, value)) or "none"
    return repr(float(value)) if isinstance(value, float) else str(value)


def params(config: Config) -> dict[str, str]:
    """A configuration as few readable params: the axes one compares, then what departs from the plain case."""
    rows: dict[str, Any] = {
        "data": config.data.name,
        "hidden": config.hidden,
        "activation": config.activation.name,
        "output": config.output,
        "loss": config.loss.name,
        "initializer": config.initializer.name,
        "descent": config.descent.name,
        **{key: value for key, value in config.descent.numbers.items() if key == "batch_size"},
        "update": config.update.name,
        "learning_rate": float(config.learning_rate),
        "epochs": config.epochs,
        "dtype": config.dtype,
        "seed": config.seed,
        "restarts": config.restarts,
    }
    if config.learning_rate_decay != 1:
        rows["learning_rate_decay"] = float(config.learning_rate_decay)
    if config.weight_decay != 0:
        rows["weight_decay"] = float(config.weight_decay)
    for group in ("data", "activation", "initializer", "descent", "update"):
        option = getattr(config, group)
        for key, (_, default) in schemas(group)[option.name].items():
            if key not in ("batch_size", "task") and option.numbers.get(key, default) != default:
                rows[f"{group}.{key}"] = option.numbers[key]
    return {key: plain(value) for key, value in rows.items()}


def recorded(config: Config) -> dict[str, Any]:
    """The configuration as it is kept; where it was tracked and trained is no part of it (and may hold a password)."""
    left_out = ("resume", "launcher")
    return {key: value for key, value in config.as_dict().items() if key not in left_out} | {
        "tracking": {"name": "none"}
    }


def is_score(metric: str) -> bool:
    """Whether a metric is a loss or a score of a split, not a norm of a layer."""
    return metric.partition("/")[0] in SPLITS


def cell_series(curves: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """A cell's own metrics.

    Args:
        curves: metric -> (P, R), NaN where a restart is lost.

    Returns:
        name -> (P,): means over the finite restarts; of losses and scores also _sd (n - 1), _min, _max, _ci_low and
        _ci_high (95 %, as `statistics.mean_intervals`), _n (finite restarts) and _diverged (the lost ones). NaN where
        there are too few restarts for it.
    """
    from descentlab.analysis.statistics import mean_intervals, metric_bounds

    series: dict[str, ndarray] = {}
    for name, values in curves.items():
        if values.shape[1] == 1:
            series[name] = values[:, 0]
            continue
        means = mean_intervals(values, bounds=metric_bounds(name))
        series[name] = means.mean
        if is_score(name):
            finite = np.isfinite(values)
            some = means.n > 0
            series |= {
                f"{name}_sd": means.sd,
                f"{name}_min": np.where(some, np.where(finite, values, np.inf).min(axis=1), np.nan),
                f"{name}_max": np.where(some, np.where(finite, values, -np.inf).max(axis=1), np.nan),
                f"{name}_ci_low": means.low,
                f"{name}_ci_high": means.high,
                f"{name}_n": means.n.astype(np.float64),
                f"{name}_diverged": (values.shape[1] - means.n).astype(np.float64),
            }
    return series


def thinned(points: int, most: int) -> ndarray:
    """Up to `most` of the indices 0 .. points - 1, first and last among them, denser at the start as learning is."""
    if points <= most:
        return np.arange(points)
    return np.unique(np.r_[0, np.geomspace(points - 1, 1, most - 1).round().astype(int)])


def ranking(training: "Training") -> ndarray:
    """Restarts from best to worst (R,): by final validation loss, else training loss; lost ones rank worst."""
    name = "validation/loss" if "validation/loss" in training.curves else "train/loss"
    final = training.curves[name][-1]
    kept = np.isfinite(final) & (training.outcome == "finite")
    return np.argsort(np.where(kept, final, np.inf), kind="stable")


def valid_curves(training: "Training") -> dict[str, ndarray]:
    """Curves (P, R) for means and figures: NaN from a restart's explosion on."""
    from descentlab.nn.trainer import explosions

    lost = explosions(training.curves["train/loss"], training.outcome)
    return {name: np.where(lost, np.nan, values) for name, values in training.curves.items()}


def valid_table(table: "pd.DataFrame", dtype: str) -> "pd.DataFrame":
    """The same of a table as from `curve_table`; `dtype` is that of the training."""
    from descentlab.nn.trainer import explosions, outcomes

    points = table["epoch"].nunique()
    loss = table["train/loss"].to_numpy().reshape(-1, points).T
    lost = explosions(loss, outcomes(loss, np.full(loss.shape[1], -1), dtype)).T.ravel()
    metrics = [column for column in table if "/" in column]
    return table.assign(**{name: table[name].mask(lost) for name in metrics}) if lost.any() else table


def outcomes(training: "Training", judgement: "pd.DataFrame | None" = None) -> ndarray:
    """Per restart (R,), how it ended: what a judge said, else "finite", "diverged" or "exploded"."""
    return training.outcome if judgement is None else judgement["outcome"].to_numpy(dtype=str)


def verdict_tags(training: "Training", row: int, judgement: "pd.DataFrame | None" = None) -> dict[str, str]:
    """What one restart ended in, as tags: outcome, loss_level where a judge named one, diverged_epoch."""
    tags = {"outcome": str(outcomes(training, judgement)[row])}
    if training.diverged_epoch[row] >= 0:
        return tags | {"diverged_epoch": str(int(training.diverged_epoch[row]))}
    if judgement is not None and "loss_level" in judgement and training.outcome[row] == "finite":
        tags["loss_level"] = str(judgement["loss_level"].iloc[row])
    return tags


def outcome_counts(training: "Training", judgement: "pd.DataFrame | None" = None) -> dict[str, float]:
    """How many restarts ended in what, as metrics outcome/<name>; without a judge diverged is named in any case."""
    kinds, counts = np.unique(outcomes(training, judgement), return_counts=True)
    found = {f"outcome/{safe_name(str(kind))}": float(count) for kind, count in zip(kinds, counts, strict=True)}
    return found if judgement is not None else {"outcome/diverged": 0.0} | found


def with_own_run(training: "Training", children: str, judgement: "pd.DataFrame | None" = None) -> dict[int, str]:
    """Which restarts get a run of their own, and why: row -> "" or what it stands for."""
    restarts = len(training.seeds)
    if (count := own_runs(restarts, children)) in (0, restarts):
        return dict.fromkeys(range(count), "")
    order = ranking(training)
    kinds = outcomes(training, judgement)
    chosen = {int(order[0]): "best", int(order[restarts // 2]): "median", int(order[-1]): "worst"}
    for kind in np.unique(kinds):
        for row in np.flatnonzero(kinds == kind)[:3]:
            chosen.setdefault(int(row), str(kind))
    return dict(sorted(chosen.items()))


def own_runs(restarts: int, children: str) -> int:
    """How many restarts of a cell will have runs of their own about, before it is known what they end in."""
    if restarts == 1 or children == "none":
        return 0
    return restarts if children == "all" or restarts <= CHILDREN_LIMIT else 10


def telling(restarts: "pd.DataFrame") -> list[str]:
    """The final loss and the final score that a cell's spread is shown by."""
    wanted = ("train/loss", "test/accuracy", "test/r2", "train/accuracy", "train/r2")
    known = [name for name in wanted if name in restarts]
    return known[:1] + [name for name in known[1:] if not restarts[name].isna().all()][:1]


def draw(curves: "pd.DataFrame", restarts: "pd.DataFrame", folder: Path) -> None:
    """Draw a cell's usual figures into a folder.

    Args:
        curves: as from `curve_table`, with columns cell, data and loss.
        restarts: as from `restart_table`, likewise.
        folder: gets learning_curves.png, and spread.png where there is more than one restart.
    """
    from descentlab import figures

    figures.save(figures.learning_curves(long_form(curves)), folder / "learning_curves.png", dpi=100, last=True)
    if len(restarts) > 1:
        title = f"Where the {len(restarts)} restarts of {restarts['cell'].iloc[0]} ended"
        about = ["cell", "data", "loss"]
        figure = figures.ends(restarts, telling(restarts.drop(columns=about)), title=title)
        figures.save(figure, folder / "spread.png", dpi=100, last=True)


def curve_table(training: "Training", curves: Mapping[str, ndarray] | None = None) -> "pd.DataFrame":
    """One row per restart and logged epoch: seed, epoch, step, then one column per metric; NaN after divergence.

    Args:
        training: of R restarts.
        curves: metric -> (P, R), in place of the training's own.
    """
    import pandas as pd

    points, restarts = len(training.epochs), len(training.seeds)
    curves = training.curves if curves is None else curves
    columns = {
        "seed": np.repeat(training.seeds, points),
        "epoch": np.tile(training.epochs, restarts),
        "step": np.tile(training.steps, restarts),
    }
    return pd.DataFrame(columns | {name: values.T.ravel() for name, values in curves.items()})


def restart_table(training: "Training", judgement: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """One row per restart: seed, outcome, diverged_epoch (-1: never), rank (0: best), final metrics.

    Final metrics of a diverged or exploded restart are NaN. A judge's outcome takes the place of finite, and its other
    columns stand at the end.
    """
    import pandas as pd

    rank = np.empty(len(training.seeds), dtype=np.int64)
    rank[ranking(training)] = np.arange(len(rank))
    columns = {
        "seed": training.seeds,
        "outcome": outcomes(training, judgement),
        "diverged_epoch": training.diverged_epoch,
        "rank": rank,
    }
    lost = training.outcome != "finite"
    table = pd.DataFrame(columns | {name: np.where(lost, np.nan, ends[-1]) for name, ends in training.curves.items()})
    return table if judgement is None else table.join(judgement.drop(columns="outcome"))


def weight_arrays(parameters: "Parameters", seeds: ndarray, rows: ndarray | slice) -> dict[str, Any]:
    """Weights W1.. and biases b1.. of some restarts (R, ...), with their seeds."""
    arrays: dict[str, Any] = {"seeds": seeds[rows]}
    for layer, (weights, biases) in enumerate(zip(parameters.W, parameters.b, strict=True), start=1):
        arrays |= {f"W{layer}": weights[rows], f"b{layer}": biases[rows]}
    return arrays


def all_weights(training: "Training") -> bool:
    """Whether the weights of all restarts are kept."""
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
    """A kept cell as the Training it was.

    Args:
        table: reads a Parquet file by its name.
        arrays: reads an .npz.
        recipe: what was run.
        seconds: its wall time.

    Returns:
        The Training. Of one whose weights were too large to be kept, the parameters of all restarts but the best are
        NaN.
    """
    from descentlab.nn.trainer import Training

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
    """Parameters of some restarts (R); NaN where they were not kept."""
    from descentlab.nn.memory import Parameters, parameter_count

    count = parameter_count(recipe.layers)
    parameters = Parameters(recipe.layers, np.full((len(seeds), count), np.nan, dtype=recipe.dtype))
    places = {seed: place for place, seed in enumerate(stored["seeds"].tolist())}
    rows = [row for row, seed in enumerate(seeds.tolist()) if seed in places]
    source = [places[int(seed)] for seed in seeds[rows]]
    for layer, (weights, biases) in enumerate(zip(parameters.W, parameters.b, strict=True), start=1):
        weights[rows], biases[rows] = stored[f"W{layer}"][source], stored[f"b{layer}"][source]
    return parameters


def spool(training: "Training", folder: Path) -> None:
    """Put by a training that the store could not take, with all its weights: whole, or not at all."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    curve_table(training).to_parquet(part / "curves.parquet", index=False)
    restart_table(training).to_parquet(part / "restarts.parquet", index=False)
    np.savez(part / "initial.npz", **weight_arrays(training.initial, training.seeds, slice(None)))
    np.savez(part / "final.npz", **weight_arrays(training.final, training.seeds, slice(None)))
    (part / "seconds").write_text(repr(training.seconds), encoding="ascii")
    part.replace(folder)


def read_spooled(folder: Path, recipe: "Recipe") -> "Training":
    """A training that was put by."""
    import pandas as pd

    from descentlab.nn.checkpoints import read_arrays

    return read_training(
        lambda name: pd.read_parquet(folder / name),
        lambda name: read_arrays(folder / name),
        recipe,
        float((folder / "seconds").read_text(encoding="ascii")),
    )


def only(training: "Training", rows: ndarray) -> "Training":
    """A training restricted to some of its restarts, in the order given; of its time their share."""
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
    """Trainings of the same cell over different seeds as one, in the order of its seeds.

    Raises:
        ValueError: if they did not log the same metrics at the same epochs.
    """
    from descentlab.nn.memory import Parameters

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


def long_form(wide: "pd.DataFrame") -> "pd.DataFrame":
    """One row per value: every column with a slash in its name, a metric, becomes rows of metric and value."""
    metrics = [column for column in wide.columns if "/" in column]
    keys = [column for column in wide.columns if column not in metrics]
    return wide.melt(id_vars=keys, value_vars=metrics, var_name="metric", value_name="value")


def milliseconds() -> int:
    """Now, as MLflow's timestamp."""
    return int(time.time() * 1000)


def safe_name(text: str) -> str:
    """A metric's or file's name without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-./ ]", "_", text)
