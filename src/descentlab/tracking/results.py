"""Stored runs as pandas tables, for figures, statistics and exports.

`source` is an open tracker, which is flushed first, or the option that names the store. One search of the store finds
all runs; curves and restarts are read from the runs' Parquet files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab.tracking.reading import Source, find, get
from descentlab.tracking.stored_run import StoredRun
from descentlab.tracking.tables import long_form, valid_table
from descentlab.values import InputError


def cells(
    source: Source,
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
    status: str | None = "FINISHED",
) -> pd.DataFrame:
    """One row per cell: params and final metrics.

    Args:
        source: tracker or option.
        sweep: only the cells of one sweep; "last" is the last active one.
        where: param -> value that it must have.
        status: only cells with this status; None for all.

    Returns:
        run_id, cell (its name), sweep, status, outcome, diverged, exploded, seconds, then params (numbers as numbers),
        then metrics at the last epoch: means over finite restarts, NaN without one.
    """
    rows = []
    for run in find(source, "cell", sweep, where, status):
        rows.append({**_about(run), **typed(run.params), **run.metrics})
    return pd.DataFrame(rows)


def restarts(
    source: Source,
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """One row per restart of finished cells: cell, params, seed, outcome, diverged_epoch, rank, final metrics.

    Arguments as for `cells`. Metrics of a diverged or exploded restart are NaN.
    """
    return joined(find(source, "cell", sweep, where), "restarts.parquet")


def curves(
    source: Source,
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
    metrics: Collection[str] | None = None,
) -> pd.DataFrame:
    """One row per value: run_id, cell, params, seed, epoch, step, metric, value; NaN after divergence or explosion.

    Arguments as for `cells`; with `metrics`, only those.
    """
    return long_form(joined(find(source, "cell", sweep, where), "curves.parquet", metrics))


@dataclass(frozen=True)
class Weights:
    """Stored weights: names W1, b1, ... -> (R, n_out, n_in) and (R, n_out), with the seeds (R,) they belong to."""

    seeds: ndarray
    initial: dict[str, ndarray]
    final: dict[str, ndarray]


def weights(source: Source, run_id: str) -> Weights:
    """The weights of a cell's restarts (only of the best one where all would be too large), or of one restart.

    Raises:
        InputError: if there is no such run, or no weights of it.
    """
    run = get(source, run_id)
    holder = get(source, run.parent) if run.parent else run
    parts = [holder.arrays(name) for name in ("initial.npz", "final.npz")]
    seeds = parts[0].pop("seeds")
    parts[1].pop("seeds")
    kept = seeds == run.seed if run.parent else np.ones(len(seeds), dtype=bool)
    if not kept.any():
        raise InputError(f"run_id={run_id}: only the weights of the cell's best restart are stored")
    initial, final = ({name: array[kept] for name, array in part.items()} for part in parts)
    return Weights(seeds[kept], initial, final)


def _about(run: StoredRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "cell": run.name,
        "sweep": run.sweep or None,
        "status": run.status,
        "outcome": run.outcome or None,
        "diverged": run.diverged,
        "exploded": run.exploded,
        "seconds": run.seconds,
    }


def typed(params: Mapping[str, str]) -> dict[str, Any]:
    """Params, numbers as numbers; `hidden` is a list and stays a text."""
    typed: dict[str, Any] = {}
    for key, text in params.items():
        typed[key] = text
        for kind in (int, float) if key != "hidden" else ():
            try:
                typed[key] = kind(text)
                break
            except ValueError:
                continue
    return typed


def joined(runs: Collection[StoredRun], artifact: str, metrics: Collection[str] | None = None) -> pd.DataFrame:
    """The tables of many runs in one, every row with its run's name and params."""
    parts = []
    for run in runs:
        table = run.table(artifact)
        if artifact == "curves.parquet":
            table = valid_table(table, run.params.get("dtype", "float64"))
        if metrics is not None:
            table = table[[column for column in table.columns if "/" not in column or column in metrics]]
        known = {key: value for key, value in typed(run.params).items() if key not in table.columns}
        about = {"run_id": run.run_id, "cell": run.name} | known
        keys = pd.DataFrame(about, index=table.index)
        parts.append(pd.concat([keys, table], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
