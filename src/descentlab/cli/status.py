"""`descentlab status`: the progress of sweeps."""

from collections import Counter
from collections.abc import Sequence

from descentlab.cli.output import many, table, when
from descentlab.tracking import StoredRun, find, part_id
from descentlab.values import InputError, Option, shown

SWEEPS = 10  # shown by default


def status(words: Sequence[str], option: Option) -> str:
    """Show the progress of the newest sweeps.

    Args:
        words: limit=N or limit=all (10 by default), or sweep=ID for one.
        option: names the store.

    Raises:
        InputError: for other words, an unknown sweep, or a store that does not exist.
    """
    limit, only = SWEEPS, ""
    for word in words:
        key, _, value = word.partition("=")
        if key == "limit" and (value == "all" or value.isdigit()):
            limit = 10**9 if value == "all" else int(value)
        elif key == "sweep" and value:
            only = value
        else:
            raise InputError(f"{shown(word)}: status takes limit=N or limit=all, and sweep=ID")
    records = find(option, "sweep", None if only in ("", "last") else only)
    records.sort(key=lambda run: run.last_active)
    records = records[-1:] if only == "last" else records[-limit:] if limit else []
    if not records and only not in ("", "last"):
        raise InputError(f"sweep={shown(only)}: no such sweep; descentlab list sweeps shows all")
    if not records:
        return "no sweeps"
    rows = [row for record in reversed(records) for row in _progress(record, option)]
    return "\n".join([*table(rows, ("sweep", "of", "part", "begun"), ("begun",)), "", many(len(records), "sweep")])


def _progress(record: StoredRun, option: Option) -> list[dict[str, str]]:
    """A row per part of a sweep."""
    rows = []
    for part, keys in record.planned().items():
        state: dict[str, str] = {}
        lost = 0
        for run in find(option, "cell", part_id(record.sweep, part), status=None):
            if state.get(run.key) != "finished":
                state[run.key] = run.state
                lost += run.lost if run.state == "finished" else 0
        counts = Counter(state.get(key, "waiting") for key in keys)
        rows.append(
            {
                "sweep": record.sweep,
                "of": record.label,
                "part": part,
                "begun": when(record.started),
                "planned": str(len(keys)),
                "done": str(counts["finished"] or ""),
                "running": str(counts["running"] or ""),
                "failed": str(counts["failed"] or ""),
                "killed": str(counts["killed"] or ""),
                "to do": str(len(keys) - counts["finished"] - counts["running"] or ""),
                "lost": str(lost or ""),
            }
        )
    return rows
