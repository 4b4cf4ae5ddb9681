"""What is kept, looked over from the command line: list, show, compare, export, delete, restore.

Each command takes its words and the option that names the store, and returns the text to print. Tables fit the
terminal: names are shortened first, then the columns that matter least are left out. A pipe gets them whole.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from descentlab.cli.words import store_words
from descentlab.config.options import GROUPS
from descentlab.tracking import StoredRun, find, get, upkeep
from descentlab.values import InputError, Option, nearest, refusal, shown, unknown

if TYPE_CHECKING:
    import pandas as pd

LISTED = 30  # runs that a list shows where nothing else is asked for
SHORT = 8  # characters of a run's id; `get` takes them
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING")
TELLING = ("test/accuracy", "test/r2", "test/loss", "train/loss")  # what a line shows, the first that was measured
FILTERS = (  # params that words may ask for, beside <group>.<number>; and a run's name
    "name", "data", "hidden", "activation", "output", "loss", "initializer", "descent", "batch_size", "update",
    "learning_rate", "learning_rate_decay", "weight_decay", "epochs", "dtype", "seed", "restarts", "study", "form",
)  # fmt: skip
NOT_THE_QUESTION = ("name", "tracking", "workers")  # keys of a configuration that alter no result
PROVENANCE = ("git_commit", "git_dirty", "descentlab", "python", "numpy", "blas", "device")


# --- words -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """Which runs some words ask for."""

    sweep: str | None = None
    status: str | None = None
    limit: int | None = LISTED
    where: Mapping[str, str] = field(default_factory=dict)

    def runs(self, option: Option, level: str, status: str | None = None, deleted: bool = False) -> list[StoredRun]:
        """They, the newest first."""
        found = find(option, level, self.sweep, status=self.status or status, deleted=deleted)
        return [run for run in reversed(found) if all(_has(run, key, value) for key, value in self.where.items())]


def _wanted(words: Sequence[str], command: str) -> _Wanted:
    """Words such as sweep=last, status=FAILED, activation=relu, limit=all."""
    given: dict[str, Any] = {}
    where = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.removeprefix("network.").replace("descent.batch_size", "batch_size")
        if not equals or not value:
            raise InputError(f"{shown(word)}: {command} takes words such as sweep=last, status=FAILED, activation=relu")
        if key == "status":
            if value.upper() not in STATUSES:
                raise unknown(key, value, STATUSES)
            given[key] = value.upper()
        elif key == "limit" and command == "list":
            if value != "all" and not re.fullmatch("[1-9][0-9]{0,8}", value):
                raise refusal(key, value, "must be all or a whole number from 1")
            given[key] = None if value == "all" else int(value)
        elif key == "sweep":
            given[key] = value
        else:
            valid = ["sweep", "status", *(["limit"] if command == "list" else []), *FILTERS]
            group, _, number = key.partition(".")
            if key not in valid and not (number and group in GROUPS):
                raise refusal(key, value, f"unknown key; not one of {', '.join(valid)}{nearest(key, valid)}")
            where[key] = value
    return _Wanted(**given, where=where)


def _has(run: StoredRun, key: str, wanted: str) -> bool:
    """Whether a run's param (or its name) is what was asked for; numbers are compared as numbers."""
    have = run.name if key == "name" else run.params.get(key)
    if have is None or have == wanted:
        return have == wanted
    try:
        return key != "hidden" and float(have) == float(wanted)
    except ValueError:
        return False


# --- tables ------------------------------------------------------------------------------------------------------


def _width() -> int | None:
    """Columns of the terminal; None where output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _table(rows: Sequence[Mapping[str, str]], left: Collection[str] = (), spare: Sequence[str] = ()) -> list[str]:
    """Lines of a table with a header.

    Args:
        rows: column -> text, all with the same columns; one that is empty throughout is left out.
        left: columns of texts; numbers stand on the right.
        spare: what gives way in a narrow terminal, in this order: columns with a ~ in front are shortened, down to 12
            characters, others are left out.
    """
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    room = _width()

    def excess() -> int:
        return sum(widths[name] + 2 for name in columns) - 2 - room if room else 0

    for name in spare:
        if excess() > 0 and name.lstrip("~") in columns:
            if name.startswith("~"):
                widths[name[1:]] = max(min(12, widths[name[1:]]), widths[name[1:]] - excess())
            else:
                columns.remove(name)
    lines = []
    for row in [{name: name for name in columns}, *rows]:
        cells = []
        for name in columns:
            text, width = row[name], widths[name]
            text = text if len(text) <= width else text[: width - 2] + ".."
            cells.append(text.ljust(width) if name in left else text.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def _pairs(rows: Mapping[str, str]) -> list[str]:
    """Names and values in two columns, long values wrapped."""
    import textwrap

    width = max((len(name) for name in rows), default=0) + 4
    room = max((_width() or 10**6) - width, 20)
    lines = []
    for name, value in rows.items():
        first, *more = textwrap.wrap(value, room, break_on_hyphens=False) or [""]
        lines += [f"  {name.ljust(width - 2)}{first}", *(" " * width + line for line in more)]
    return lines


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4g}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what.removesuffix('y')}{'ies' if what[-1] == 'y' else 's'}"


def _size_of_store(option: Option) -> str:
    where, database, artifacts = upkeep.sizes(option)
    if database is None or artifacts is None:
        return where
    return f"{where}: {_bytes(database + artifacts)} (database {_bytes(database)}, artifacts {_bytes(artifacts)})"


# --- list --------------------------------------------------------------------------------------------------------


def list_runs(words: Sequence[str], option: Option) -> str:
    """Cells, sweeps or summaries, the newest first.

    Args:
        words: first cells (as by default), sweeps, summaries or deleted; then filters.
        option: names the store.

    Raises:
        InputError: for words that mean nothing, or a store that is not there.
    """
    kinds = ("cells", "sweeps", "summaries", "deleted")
    kind = words[0] if words and "=" not in words[0] else "cells"
    if kind not in kinds:
        raise InputError(f"{shown(kind)}: list takes one of {', '.join(kinds)}{nearest(kind, kinds)}, then filters")
    wanted = _wanted(words[1:] if words and words[0] == kind else words, "list")
    found = wanted.runs(option, "summary" if kind == "summaries" else "cell", deleted=kind == "deleted")
    rows = _sweep_rows(found, wanted.sweep is None) if kind == "sweeps" else [_row(run) for run in found]
    place = _size_of_store(option)
    if not rows:
        some = "such " if any("=" in word for word in words) else ""
        return f"no {some}{'deleted cells' if kind == 'deleted' else kind}\n{place}"
    few = rows[: wanted.limit]
    spare = ["sweep", "seconds", "data", "started", "~cell", "status", "n"]
    spare = ["data", "seconds", "started"] if kind == "sweeps" else spare
    left = ("run", "started", "status", "cell", "sweep", "score", "data")
    lines = _table(few, left, spare)
    names = {"cells": "cell", "deleted": "deleted cell", "sweeps": "sweep", "summaries": "summary"}
    counted = _many(len(rows), names[kind])
    if len(few) < len(rows):
        counted = f"the newest {len(few)} of {counted}; limit=all lists them all"
    return "\n".join([*lines, "", counted, place])


def _row(run: StoredRun) -> dict[str, str]:
    metric = next((name for name in TELLING if name in run.metrics), "")
    value = run.metrics.get(metric, np.nan)
    half = (run.metrics.get(f"{metric}_ci_high", np.nan) - run.metrics.get(f"{metric}_ci_low", np.nan)) / 2
    return {
        "run": run.run_id[:SHORT],
        "started": _when(run.started),
        "status": run.status.lower(),
        "cell": run.name,
        "n": run.params.get("restarts", ""),
        "score": metric,
        "mean": _number(value) if metric else "",
        "+-95%": f"{half:.2g}" if np.isfinite(half) else "",
        "lost": str(run.lost or ""),
        "seconds": _seconds(run),
        "data": run.params.get("data", ""),
        "sweep": run.tags.get("sweep", ""),
    }


def _seconds(run: StoredRun) -> str:
    wall = float(run.tags.get("wall_seconds", run.metrics.get("seconds", "nan")))
    return "" if wall != wall else f"{wall:.1f}"


def _sweep_rows(runs: Sequence[StoredRun], adopted: bool) -> list[dict[str, str]]:
    """A row per sweep; with `adopted`, each counts the cells that another has trained for it too."""
    sweeps: dict[str, list[StoredRun]] = {}
    for run in runs:
        for sweep in {run.tags.get("sweep", "")} | (_sweeps_of(run) if adopted else set()):
            sweeps.setdefault(sweep, []).append(run)
    began = {}  # by the cells that it has trained itself, where there are any
    for sweep, cells in sweeps.items():
        began[sweep] = min((cell.tags.get("sweep") != sweep, cell.started) for cell in cells)[1]
    rows = []
    for sweep in sorted(sweeps, key=lambda sweep: (began[sweep], sweep), reverse=True):
        cells = sweeps[sweep]
        ended = {status: sum(cell.status == status for cell in cells) for status in STATUSES}
        rows.append(
            {
                "sweep": sweep,
                "started": _when(began[sweep]),
                "cells": str(len(cells)),
                **{status.lower(): str(count or "") for status, count in ended.items()},
                "restarts": str(sum(int(cell.params.get("restarts", 0)) for cell in cells)),
                "lost": str(sum(cell.lost for cell in cells) or ""),
                "seconds": f"{sum(float(cell.tags.get('wall_seconds', 0)) for cell in cells):.0f}",
                "data": " ".join(sorted({cell.params.get("data", "") for cell in cells})),
            }
        )
    return rows


# --- show --------------------------------------------------------------------------------------------------------


def show(words: Sequence[str], option: Option) -> str:
    """One run: what it was, what came of it, its files, and where it comes from.

    Args:
        words: the id of a cell, restart or summary, or its beginning.
        option: names the store.

    Raises:
        InputError: if there is no such run.
    """
    run = _named(words, 1, "show", option)[0]
    level = run.tags.get("level", "run")
    lines = [f"{run.name}: {level} {run.run_id}{', deleted' if run.deleted else ''}"]
    about = {"status": run.status.lower(), "reason": run.tags.get("reason", ""), "started": _when(run.started)}
    about |= {"seconds": _seconds(run), "parent": run.tags.get("mlflow.parentRunId", "")}
    about |= {"sweep": run.tags.get("sweep", ""), "outcome": run.tags.get("outcome", "")}
    lines += _pairs({name: value for name, value in about.items() if value})
    lines += ["", "configuration", *_pairs(run.params)]
    if results := _results(run):
        many = level == "cell" and run.params.get("restarts") != "1"
        lost, restarts = run.tags.get("diverged", "0"), run.params.get("restarts")
        means = f", means of the finite restarts; {lost} of {restarts} diverged"
        means += f", {run.tags['exploded']} exploded" if run.tags.get("exploded", "0") != "0" else ""
        when = "end" if run.status == "FINISHED" else "latest epoch that was written"
        lines += ["", f"results at the {when}{means if many else ''}", *("  " + line for line in results)]
    files = run.artifacts()
    if files:
        lines += ["", f"artifacts, {_bytes(sum(files.values()))}"]
        lines += _pairs({name: _bytes(size) for name, size in files.items()})
    kept = {key: run.tags[key] for key in (*PROVENANCE, "config_hash", "mlflow.user", "host") if key in run.tags}
    lines += ["", "provenance", *_pairs(kept | ({"data digest": run.digest} if run.digest else {}))]
    return "\n".join(lines)


def _results(run: StoredRun) -> list[str]:
    """Metrics at the end, losses and scores of splits first, each with its spread where there are restarts."""
    spreads = ("_sd", "_min", "_max", "_ci_low", "_ci_high", "_n", "_diverged")
    names = set(run.metrics)
    if run.tags.get("level") == "cell":
        names = {re.sub(f"({'|'.join(spreads)})$", "", name) for name in names}
    rows = []
    for name in sorted(names, key=lambda name: (not _is_score(name), name)):
        part = {suffix: run.metrics.get(name + suffix, np.nan) for suffix in spreads}
        row = {"metric": name, "mean": _number(run.metrics.get(name, np.nan))}
        if any(key + "_n" in run.metrics for key in names):
            between = f"{_number(part['_ci_low'])} to {_number(part['_ci_high'])}"
            missing = "-" if name + "_n" in run.metrics else ""
            row |= {"95 % interval": between if np.isfinite(part["_ci_low"]) else missing}
            row |= {key[1:]: _number(part[key]) if part[key] == part[key] else "" for key in ("_sd", "_min", "_max")}
            row |= {"n": f"{part['_n']:.0f}" if part["_n"] == part["_n"] else ""}
        else:
            row = {"metric": name, "value": row["mean"]}
        rows.append(row)
    return _table(rows, ("metric",), ("min", "max", "sd")) if rows else []


def _is_score(metric: str) -> bool:
    return metric.partition("/")[0] in ("train", "validation", "test")


def _named(words: Sequence[str], count: int, command: str, option: Option) -> list[StoredRun]:
    """The runs that words name, as many as a command takes."""
    if len(words) != count or any("=" in word or word.startswith("-") for word in words):
        example = " ".join(("0123abcd", "4567cdef")[:count])
        ids = "the id of a run" if count == 1 else f"the ids of {count} runs"
        raise InputError(f"{command}: needs {ids}, as in: descentlab {command} {example}; descentlab list shows them")
    return [get(option, word) for word in words]


# --- compare -----------------------------------------------------------------------------------------------------


def compare(words: Sequence[str], option: Option) -> str:
    """Two cells: what differs in their configurations, and in their results seed by seed.

    Args:
        words: two ids; then metric=NAME,... in place of all losses and scores.
        option: names the store.

    Raises:
        InputError: if there are no such runs, or they have nothing to compare.
    """
    metrics = [word.removeprefix("metric=").split(",") for word in words if word.startswith("metric=")]
    pair = _named([word for word in words if not word.startswith("metric=")], 2, "compare", option)
    for run in pair:
        if run.tags.get("level") not in ("cell", "restart"):
            raise InputError(f"run_id={run.run_id}: is of level {run.tags.get('level')}; only cells can be compared")
    lines = [
        f"{letter} = {run.name} ({run.run_id[:SHORT]}, {_when(run.started)})"
        for letter, run in zip("AB", pair, strict=True)
    ]
    cells = [get(option, run.tags["mlflow.parentRunId"]) if run.tags["level"] == "restart" else run for run in pair]
    settings = [_settings(run, cell) for run, cell in zip(pair, cells, strict=True)]
    lines += ["", *_differences("configuration", *settings)]
    origins = [{key: run.tags.get(key, "") for key in PROVENANCE} | {"data digest": run.digest} for run in cells]
    if origins[0] != origins[1]:
        lines += ["", *_differences("provenance", *origins)]
    tables = [cell.table("restarts.parquet") for cell in cells]
    for place, run in enumerate(pair):
        if run.tags["level"] == "restart":
            tables[place] = tables[place][tables[place]["seed"] == int(run.params["seed"])]
    lines += ["", *_paired(tables[0], tables[1], metrics[-1] if metrics else None)]
    if cells[0].digest != cells[1].digest:
        lines.append("The data differ too: of these differences a part is theirs.")
    return "\n".join(lines)


def _settings(run: StoredRun, cell: StoredRun) -> dict[str, str]:
    """Every key of a run's configuration with its value as text."""
    try:
        kept = json.loads(cell.artifact("config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{cell}: config.json cannot be read ({error})") from error
    flat = {key: value for key, value in _flat(kept) if key.partition(".")[0] not in NOT_THE_QUESTION}
    if run is not cell:
        flat |= {"seed": run.params["seed"], "restarts": "1"}
    return {key.removesuffix(".name"): str(value) for key, value in flat.items()}


def _flat(value: Mapping[str, Any], head: str = "") -> list[tuple[str, Any]]:
    parts = []
    for key, item in value.items():
        parts += _flat(item, f"{head}{key}.") if isinstance(item, Mapping) else [(head + key, item)]
    return parts


def _differences(what: str, a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    differing = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    if not differing:
        return [f"{what}: the same"]
    rows = [{what: key, "A": a.get(key, "-"), "B": b.get(key, "-")} for key in differing]
    return _table(rows, (what, "A", "B"), ("~A", "~B"))


def _paired(a: "pd.DataFrame", b: "pd.DataFrame", metrics: Sequence[str] | None) -> list[str]:
    """Differences a - b over the seeds that both have, with Wilcoxon's test, corrected over the metrics shown."""
    from descentlab.analysis.statistics import holm, paired_difference

    scores = [name for name in a.columns if name in b.columns and _is_score(name)]
    for name in metrics or ():
        if name not in a.columns or name not in b.columns or "/" not in name:
            raise unknown("metric", name, [name for name in a.columns if "/" in name and name in b.columns])
    chosen = list(dict.fromkeys(metrics)) if metrics else scores
    both = a.merge(b, on="seed", suffixes=(" A", " B"))
    if both.empty or not chosen:
        return ["results: no seed is in both" if both.empty else "results: no loss or score is in both"]
    tests = []
    with np.errstate(over="ignore", invalid="ignore"):  # a restart on its way to infinity may be among them
        for name in chosen:
            better: Literal["lower", "higher"] = "lower" if name.endswith("loss") else "higher"
            tests.append(paired_difference(both[name + " A"], both[name + " B"], better))
        means = [[_number(both[f"{name} {letter}"].mean()) for letter in "AB"] for name in chosen]
    rows = []
    for name, mean, test, p in zip(chosen, means, tests, holm([test.p_value for test in tests]), strict=True):
        gap = test.difference
        between = f"{_number(gap.low)} to {_number(gap.high)}"
        rows.append(
            {"metric": name, "A": mean[0], "B": mean[1], "A - B": _number(gap.estimate), "95 % interval": between,
             "p": f"{test.p_value:.2g}", "p (Holm)": f"{p:.2g}"}
        )  # fmt: skip
    lost = tests[0].diverged
    n = len(both)
    note = f"n = {_many(n, 'shared seed')}"
    if sum(lost):
        note += f", of which {lost[0]} of A and {lost[1]} of B diverged (tests and intervals count them, means do not)"
    notes = [
        note + "; Wilcoxon's signed-rank test, Holm over the metrics shown; A - B is Hodges and Lehmann's estimate."
    ]
    notes.append("An interval over seeds holds for the split it was measured on.")
    if (smallest := 2.0 ** (1 - n) * len(rows)) > 0.05:
        notes.append(f"No p (Holm) can be below {min(1.0, smallest):.2g} with so few seeds.")
    return [*_table(rows, ("metric",), ("p", "B", "A")), *notes]


# --- export ------------------------------------------------------------------------------------------------------


def export(words: Sequence[str], option: Option) -> str:
    """One table of everything: a row per restart of finished cells.

    Args:
        words: a file to write, ending in .csv or .parquet; then filters as for `list_runs`. Without a file, or with -,
            the table itself is the answer, as CSV.
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
    wanted = _wanted([word for word in words if "=" in word], "export")
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
    size = _bytes(path.stat().st_size)
    return f"{path}: {_many(len(table), 'restart')} of {_many(len(runs), 'cell')}, {len(table.columns)} columns, {size}"


def everything(cells: Sequence[StoredRun], restarts: Sequence[StoredRun]) -> "pd.DataFrame":
    """A row per restart: its cell, sweep, params, seed, outcome, final metrics, and the runs that hold it."""
    from descentlab.tracking.results import joined

    table = joined(cells, "restarts.parquet")
    if table.empty:
        return table
    by_id = {run.run_id: run for run in cells}
    own = {(run.tags.get("mlflow.parentRunId"), run.params.get("seed")): run.run_id for run in restarts}
    pairs = zip(table["run_id"], table["seed"].astype(str), strict=True)
    table.insert(1, "restart_run_id", [own.get(pair) for pair in pairs])
    table.insert(2, "sweep", [by_id[run_id].tags.get("sweep") for run_id in table["run_id"]])
    table.insert(3, "started", [_when(by_id[run_id].started) for run_id in table["run_id"]])
    for name in table.columns:  # a setting that is a number here and a word there
        kinds = {type(value) for value in table[name] if value is not None and value == value}
        if str in kinds and len(kinds) > 1:
            table[name] = [None if value is None or value != value else str(value) for value in table[name]]
    return table


# --- delete and restore ------------------------------------------------------------------------------------------


def delete(words: Sequence[str], option: Option) -> str:
    """Hide runs from every search, or say what would go.

    Args:
        words: ids of runs, or filters as for `list_runs`; --yes to do it, --dry-run (as by default) to say it.
        option: names the store.

    Raises:
        InputError: for words that name nothing.
    """
    flags = [word for word in words if word.startswith("-")]
    if strange := [flag for flag in flags if flag not in ("--yes", "--dry-run")]:
        raise InputError(f"{shown(strange[0])}: delete takes --yes or --dry-run")
    tops, restarts, shared = _doomed([word for word in words if word not in flags], "delete", option, deleted=False)
    stay = [f"left alone: {_many(shared, 'cell')} that other sweeps count too; named by id they go"] if shared else []
    if not tops:
        return "\n".join([*stay, "nothing to delete"])
    rows = [_doomed_row(run, len(nested)) for run, nested in zip(tops, restarts, strict=True)]
    lines = _table(rows[:LISTED], ("run", "status", "level", "name", "started"), ("~name", "started", "status"))
    lines += [f"... and {len(tops) - LISTED} more"] if len(tops) > LISTED else []
    nested = [run for found in restarts for run in found]
    size = _bytes(sum(sum(run.artifacts().values()) for run in tops))
    counted = f"{_many(len(tops), 'run')} with {_many(len(nested), 'nested restart')} and {size} of artifacts"
    exact = [run.run_id[:SHORT] for run in tops]  # which runs sweep=last means may change
    what = " ".join(exact if len(exact) <= 8 else [word for word in words if word not in flags])
    what += store_words(option)
    if "--yes" not in flags or "--dry-run" in flags:
        return "\n".join([*lines, "", *stay, f"would delete {counted}; to do it: descentlab delete {what} --yes"])
    upkeep.delete(option, [*nested, *tops])  # the cell last: were this interrupted, it would still name what is left
    back = f"To take it back: descentlab restore {what}"
    place = upkeep.sizes(option)[0]
    database = "DATABASE, on the server's machine" if place.startswith("http") else place
    room = f"To give its room back for good: mlflow gc --tracking-uri {place} --backend-store-uri {database}"
    return "\n".join([*lines, "", *stay, f"deleted {counted}", back, room])


def restore(words: Sequence[str], option: Option) -> str:
    """Bring deleted runs back with their restarts; words as for `delete`."""
    tops, restarts, _ = _doomed(words, "restore", option, deleted=True)
    if not tops:
        return "nothing to restore"
    nested = [run for found in restarts for run in found]
    upkeep.restore(option, [*tops, *nested])
    return f"restored {_many(len(tops), 'run')} with {_many(len(nested), 'nested restart')}"


def _doomed(
    words: Sequence[str], command: str, option: Option, deleted: bool
) -> tuple[list[StoredRun], list[list[StoredRun]], int]:
    """The runs that words name, deleted or not, the restarts nested in each, and how many stay for another sweep."""
    if not words or any(word.startswith("-") for word in words) or (deleted and "sweep=last" in words):
        raise InputError(
            f"{command}: needs ids of runs or filters, as in: descentlab {command} sweep=ID; list has them"
        )
    shared = 0
    found = [get(option, word) for word in words if "=" not in word]
    for run in found:
        if run.deleted != deleted:
            raise InputError(f"run_id={run.run_id}: is {'already' if run.deleted else 'not'} deleted")
    if filters := [word for word in words if "=" in word]:
        wanted = _wanted(filters, command)
        for level in ("cell",) if wanted.where else ("cell", "summary", "sweep"):
            chosen = wanted.runs(option, level, deleted=deleted)  # what still runs is meant only if it is named
            chosen = [run for run in chosen if run.status != "RUNNING" or deleted or wanted.status == "RUNNING"]
            if wanted.sweep and not deleted:
                asked = {run.tags.get("sweep", "") for run in chosen}
                elsewhere = [run for run in chosen if _sweeps_of(run) - asked]
                shared += len(elsewhere)
                chosen = [run for run in chosen if run not in elsewhere]
            found += chosen
    tops = list({run.run_id: run for run in found}.values())
    return tops, [upkeep.restarts_of(option, run, deleted) for run in tops], shared


def _sweeps_of(run: StoredRun) -> set[str]:
    """The sweeps that count a cell as theirs."""
    return {key.removeprefix("sweep/") for key in run.tags if key.startswith("sweep/")}


def _doomed_row(run: StoredRun, nested: int) -> dict[str, str]:
    return {
        "run": run.run_id[:SHORT],
        "level": run.tags.get("level", ""),
        "name": run.name,
        "status": run.status.lower(),
        "started": _when(run.started),
        "restarts": str(nested),
        "artifacts": _bytes(sum(run.artifacts().values())),
    }
