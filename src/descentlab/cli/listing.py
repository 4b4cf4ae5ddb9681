"""`descentlab list` and `descentlab show`: tables of stored cells, sweeps and summaries, and all about one run."""

import re
from collections.abc import Sequence

import numpy as np

from descentlab.cli.output import filesize, many, number, pairs, table, when
from descentlab.cli.words import STATUSES, named_runs, wanted_runs
from descentlab.data import is_score, leading
from descentlab.tracking import StoredRun, upkeep
from descentlab.values import InputError, Option, nearest, shown

SHORT = 8  # characters of a run's id; `get` takes them


def list_runs(words: Sequence[str], option: Option) -> str:
    """List cells, sweeps or summaries, the newest first.

    Args:
        words: first cells (the default), sweeps, summaries or deleted; then filters.
        option: names the store.

    Raises:
        InputError: for unknown words, or a store that does not exist.
    """
    kinds = ("cells", "sweeps", "summaries", "deleted")
    kind = words[0] if words and "=" not in words[0] else "cells"
    if kind not in kinds:
        raise InputError(f"{shown(kind)}: list takes one of {', '.join(kinds)}{nearest(kind, kinds)}, then filters")
    wanted = wanted_runs(words[1:] if words and words[0] == kind else words, "list")
    found = wanted.runs(option, "summary" if kind == "summaries" else "cell", deleted=kind == "deleted")
    rows = _sweep_rows(found, wanted.sweep is None) if kind == "sweeps" else [_row(run) for run in found]
    place = size_of_store(option)
    if not rows:
        some = "such " if any("=" in word for word in words) else ""
        return f"no {some}{'deleted cells' if kind == 'deleted' else kind}\n{place}"
    few = rows[: wanted.limit]
    spare = ["sweep", "seconds", "data", "started", "~cell", "status", "n"]
    spare = ["data", "seconds", "started"] if kind == "sweeps" else spare
    left = ("run", "started", "status", "cell", "sweep", "score", "data")
    lines = table(few, left, spare)
    names = {"cells": "cell", "deleted": "deleted cell", "sweeps": "sweep", "summaries": "summary"}
    counted = many(len(rows), names[kind])
    if len(few) < len(rows):
        counted = f"the newest {len(few)} of {counted}; limit=all lists all"
    return "\n".join([*lines, "", counted, place])


def _row(run: StoredRun) -> dict[str, str]:
    metric = leading(run.metrics) if run.status == "FINISHED" else ""  # else the epoch that was written last
    value = run.metrics.get(metric, np.nan)
    half = (run.metrics.get(f"{metric}_ci_high", np.nan) - run.metrics.get(f"{metric}_ci_low", np.nan)) / 2
    return {
        "run": run.run_id[:SHORT],
        "started": when(run.started),
        "status": run.state,
        "cell": run.name,
        "n": str(run.restarts or ""),
        "score": metric,
        "mean": number(value) if metric else "",
        "+-95%": f"{half:.2g}" if np.isfinite(half) else "",
        "lost": str(run.lost or ""),
        "seconds": _seconds(run),
        "data": run.data,
        "sweep": run.sweep,
    }


def _seconds(run: StoredRun) -> str:
    return "" if run.seconds != run.seconds else f"{run.seconds:.1f}"


def _sweep_rows(runs: Sequence[StoredRun], shared: bool) -> list[dict[str, str]]:
    """A row per sweep; with `shared`, each counts the cells that another sweep trained too."""
    sweeps: dict[str, list[StoredRun]] = {}
    for run in runs:
        for sweep in {run.sweep, *(run.memberships if shared else ())}:
            sweeps.setdefault(sweep, []).append(run)
    began = {}  # of the sweep's own cells, if it has any
    for sweep, cells in sweeps.items():
        began[sweep] = min((cell.sweep != sweep, cell.started) for cell in cells)[1]
    rows = []
    for sweep in sorted(sweeps, key=lambda sweep: (began[sweep], sweep), reverse=True):
        cells = sweeps[sweep]
        ended = {status: sum(cell.state == status.lower() for cell in cells) for status in STATUSES}
        rows.append(
            {
                "sweep": sweep,
                "started": when(began[sweep]),
                "cells": str(len(cells)),
                **{status.lower(): str(count or "") for status, count in ended.items()},
                "restarts": str(sum(cell.restarts for cell in cells)),
                "lost": str(sum(cell.lost for cell in cells) or ""),
                "seconds": f"{np.nansum([cell.seconds for cell in cells]):.0f}",
                "data": " ".join(sorted({cell.data for cell in cells})),
            }
        )
    return rows


def size_of_store(option: Option) -> str:
    """A store's address, and its size where it is a file here."""
    where, database, artifacts = upkeep.sizes(option)
    if database is None or artifacts is None:
        return where
    return f"{where}: {filesize(database + artifacts)} (database {filesize(database)}, artifacts {filesize(artifacts)})"


def show(words: Sequence[str], option: Option) -> str:
    """Show one run: settings, results, files and origin.

    Args:
        words: the id of a cell, restart or summary, or the beginning of an id.
        option: names the store.

    Raises:
        InputError: if there is no such run.
    """
    run = named_runs(words, 1, "show", option)[0]
    level = run.level or "run"
    lines = [f"{run.name}: {level} {run.run_id}{', deleted' if run.deleted else ''}"]
    about = {
        "status": run.state,
        "reason": run.reason or (run.given_up if run.status == "RUNNING" else ""),
        "started": when(run.started),
    }
    about |= {"seconds": _seconds(run), "parent": run.parent}
    about |= {"sweep": run.sweep, "outcome": run.outcome, "data": run.description if level == "cell" else ""}
    lines += pairs({name: value for name, value in about.items() if value})
    lines += ["", "configuration", *pairs(run.params)]
    if results := _results(run):
        many = level == "cell" and run.restarts != 1
        means = f", means of the finite restarts; {run.diverged} of {run.restarts} diverged"
        means += f", {run.exploded} exploded" if run.exploded else ""
        point = "end" if run.status == "FINISHED" else "last epoch that was written"
        lines += ["", f"results at the {point}{means if many else ''}", *("  " + line for line in results)]
    files = run.artifacts()
    if files:
        lines += ["", f"artifacts, {filesize(sum(files.values()))}"]
        lines += pairs({name: filesize(size) for name, size in files.items()})
    lines += ["", "provenance", *pairs({**run.provenance, **run.origin})]
    return "\n".join(lines)


def _results(run: StoredRun) -> list[str]:
    """Metrics at the end, losses and scores first, each with its spread over restarts."""
    spreads = ("_sd", "_min", "_max", "_ci_low", "_ci_high", "_n", "_diverged")
    names = set(run.metrics)
    if run.level == "cell":
        names = {re.sub(f"({'|'.join(spreads)})$", "", name) for name in names}
    rows = []
    for name in sorted(names, key=lambda name: (not is_score(name), name)):
        part = {suffix: run.metrics.get(name + suffix, np.nan) for suffix in spreads}
        row = {"metric": name, "mean": number(run.metrics.get(name, np.nan))}
        if any(key + "_n" in run.metrics for key in names):
            between = f"{number(part['_ci_low'])} to {number(part['_ci_high'])}"
            missing = "-" if name + "_n" in run.metrics else ""
            row |= {"95 % interval": between if np.isfinite(part["_ci_low"]) else missing}
            row |= {key[1:]: number(part[key]) if part[key] == part[key] else "" for key in ("_sd", "_min", "_max")}
            row |= {"n": f"{part['_n']:.0f}" if part["_n"] == part["_n"] else ""}
        else:
            row = {"metric": name, "value": row["mean"]}
        rows.append(row)
    return table(rows, ("metric",), ("min", "max", "sd")) if rows else []
