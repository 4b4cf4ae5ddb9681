"""`descentlab compare`: the differences of two runs, in settings and in results seed by seed."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from descentlab.cli.listing import SHORT
from descentlab.cli.output import many, number, table, when
from descentlab.cli.words import named_runs
from descentlab.config.configuration import flattened
from descentlab.data import is_score
from descentlab.tracking import StoredRun, get
from descentlab.values import InputError, Option, unknown

if TYPE_CHECKING:
    import pandas as pd


def compare(words: Sequence[str], option: Option) -> str:
    """Compare the settings of two runs, and their results seed by seed.

    Args:
        words: two ids; then metric=NAME,... in place of all losses and scores.
        option: names the store.

    Raises:
        InputError: if there are no such runs, or they have no metric in common.
    """
    metrics = [word.removeprefix("metric=").split(",") for word in words if word.startswith("metric=")]
    pair = named_runs([word for word in words if not word.startswith("metric=")], 2, "compare", option)
    for run in pair:
        if run.level not in ("cell", "restart"):
            raise InputError(f"run_id={run.run_id}: is of level {run.level}; only cells can be compared")
    lines = [
        f"{letter} = {run.name} ({run.run_id[:SHORT]}, {when(run.started)})"
        for letter, run in zip("AB", pair, strict=True)
    ]
    cells = [get(option, run.parent) if run.level == "restart" else run for run in pair]
    settings = [_settings(run, cell) for run, cell in zip(pair, cells, strict=True)]
    lines += ["", *_differences("configuration", *settings)]
    origins = [run.provenance for run in cells]
    if origins[0] != origins[1]:
        lines += ["", *_differences("provenance", *origins)]
    tables = [cell.table("restarts.parquet") for cell in cells]
    for place, run in enumerate(pair):
        if run.level == "restart":
            tables[place] = tables[place][tables[place]["seed"] == run.seed]
    lines += ["", *_paired(tables[0], tables[1], metrics[-1] if metrics else None)]
    if cells[0].digest != cells[1].digest:
        lines.append("The data differ too, so these differences are not those of the settings alone.")
    return "\n".join(lines)


def _settings(run: StoredRun, cell: StoredRun) -> dict[str, str]:
    """Every key of a run's configuration with its value as text."""
    try:
        kept = json.loads(cell.artifact("config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{cell}: config.json cannot be read ({error})") from error
    flat = flattened(kept)
    if run is not cell:
        flat |= {"seed": run.seed, "restarts": "1"}
    return {key.removesuffix(".name"): str(value) for key, value in flat.items()}


def _differences(what: str, a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    differing = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    if not differing:
        return [f"{what}: the same"]
    rows = [{what: key, "A": a.get(key, "-"), "B": b.get(key, "-")} for key in differing]
    return table(rows, (what, "A", "B"), ("~A", "~B"))


def _paired(a: "pd.DataFrame", b: "pd.DataFrame", metrics: Sequence[str] | None) -> list[str]:
    """Differences a - b over the seeds that both runs have, with Wilcoxon's test, corrected over the metrics shown."""
    from descentlab.analysis.statistics import holm, paired_difference, probability_of_improvement

    scores = [name for name in a.columns if name in b.columns and is_score(name)]
    for name in metrics or ():
        if name not in a.columns or name not in b.columns or "/" not in name:
            raise unknown("metric", name, [name for name in a.columns if "/" in name and name in b.columns])
    chosen = list(dict.fromkeys(metrics)) if metrics else scores
    both = a.merge(b, on="seed", suffixes=(" A", " B"))
    if both.empty or not chosen:
        return ["results: no seed is in both" if both.empty else "results: no loss or score is in both"]
    tests, wins = [], []
    with np.errstate(over="ignore", invalid="ignore"):  # a restart on its way to infinity may be among them
        for name in chosen:
            better: Literal["lower", "higher"] = "lower" if name.endswith("loss") else "higher"
            arms = both[name + " A"], both[name + " B"]
            tests.append(paired_difference(*arms, better))
            wins.append(f"{probability_of_improvement(*arms, better).estimate:.2f}" if len(both) > 1 else "-")
        means = [[number(both[f"{name} {letter}"].mean()) for letter in "AB"] for name in chosen]
    rows = []
    corrected = holm([test.p_value for test in tests])
    for name, mean, test, win, p in zip(chosen, means, tests, wins, corrected, strict=True):
        gap = test.difference
        between = f"{number(gap.low)} to {number(gap.high)}"
        rows.append(
            {"metric": name, "A": mean[0], "B": mean[1], "A - B": number(gap.estimate), "95 % interval": between,
             "A better": win, "p": f"{test.p_value:.2g}", "p (Holm)": f"{p:.2g}"}
        )  # fmt: skip
    lost = tests[0].diverged
    n = len(both)
    note = f"n = {many(n, 'shared seed')}"
    if sum(lost):
        note += f", of which {lost[0]} of A and {lost[1]} of B diverged (tests and intervals count them, means do not)"
    notes = [
        note + "; Wilcoxon's signed-rank test, Holm over the metrics shown; A - B is Hodges and Lehmann's estimate."
    ]
    notes.append("A better: the probability that a restart of A is better than one of B, ties counted half.")
    notes.append("An interval over seeds holds for the split it was measured on.")
    if (smallest := 2.0 ** (1 - n) * len(rows)) > 0.05:
        notes.append(f"No p (Holm) can be below {min(1.0, smallest):.2g} with so few seeds.")
    return [*table(rows, ("metric",), ("p", "B", "A", "A better")), *notes]
