"""`descentlab export`: one table of every restart of the stored cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from descentlab.cli.output import filesize, many, when
from descentlab.cli.words import wanted_runs
from descentlab.tracking import StoredRun, find
from descentlab.values import InputError, Option, refusal, shown

if TYPE_CHECKING:
    import pandas as pd


def export(words: Sequence[str], option: Option) -> str:
    """Write one table of all finished cells, a row per restart.

    Args:
        words: a file that ends in .csv or .parquet, or - (the default) to return the CSV; then filters as for
            `descentlab list`.
        option: names the store.

    Raises:
        InputError: for another kind of file, one that cannot be written, or filters that no finished cell matches.
    """
    files = [word for word in words if "=" not in word]
    files = [] if files == ["-"] else files
    try:
        path = Path(files[0]).expanduser() if files else None
    except RuntimeError as error:  # of ~nobody
        raise InputError(f"export: {shown(files[0])}: {error}") from error
    if len(files) > 1 or (path is not None and path.suffix not in (".csv", ".parquet")):
        raise InputError(f"{shown(' '.join(files))}: export writes one file that ends in .csv or .parquet")
    wanted = wanted_runs([word for word in words if "=" in word], "export")
    if wanted.status not in (None, "FINISHED"):
        raise refusal("status", wanted.status, "only finished cells can be exported")
    runs = wanted.runs(option, "cell", "FINISHED")[::-1]
    if not runs:
        raise InputError(f"{shown(' '.join(['export', *words]))}: no finished cell matches; descentlab list shows all")
    table = everything(runs, find(option, "restart", status=None))
    if path is None:
        return table.to_csv(index=False).rstrip("\n")
    part = path.with_name(path.name + ".part")
    try:
        table.to_csv(part, index=False) if path.suffix == ".csv" else table.to_parquet(part, index=False)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise refusal("export", str(path), f"cannot be written ({error.strerror or error})") from error
    written = filesize(path.stat().st_size)
    return (
        f"{path}: {many(len(table), 'restart')} of {many(len(runs), 'cell')}, {len(table.columns)} columns, {written}"
    )


def everything(cells: Sequence[StoredRun], restarts: Sequence[StoredRun]) -> "pd.DataFrame":
    """A row per restart: its cell, sweep, params, seed, outcome, final metrics, and the ids of its runs."""
    from descentlab.tracking.results import joined

    table = joined(cells, "restarts.parquet")
    if table.empty:
        return table
    by_id = {run.run_id: run for run in cells}
    own = {(run.parent, run.seed): run.run_id for run in restarts}
    pairs = zip(table["run_id"], table["seed"], strict=True)
    table.insert(1, "restart_run_id", [own.get(pair) for pair in pairs])
    table.insert(2, "sweep", [by_id[run_id].sweep for run_id in table["run_id"]])
    table.insert(3, "started", [when(by_id[run_id].started) for run_id in table["run_id"]])
    for name in table.columns:  # a setting that is a number here and a word there
        kinds = {type(value) for value in table[name] if value is not None and value == value}
        if str in kinds and len(kinds) > 1:
            table[name] = [None if value is None or value != value else str(value) for value in table[name]]
    return table
