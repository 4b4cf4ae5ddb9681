"""`descentlab delete` and `descentlab restore`: runs hidden from every search, and brought back."""

from collections.abc import Sequence

from descentlab.cli.listing import SHORT
from descentlab.cli.output import filesize, many, table, when
from descentlab.cli.words import LISTED, store_words, wanted_runs
from descentlab.tracking import StoredRun, get, upkeep
from descentlab.values import InputError, Option


def delete(words: Sequence[str], option: Option, yes: bool = False) -> str:
    """Hide runs from every search, or show which.

    Args:
        words: ids of runs, or filters as for `descentlab list`.
        option: names the store.
        yes: hide them; otherwise only show them.

    Raises:
        InputError: for words that name no run.
    """
    tops, restarts, shared = _doomed(words, "delete", option, deleted=False)
    stay = [f"kept {many(shared, 'cell')} that other sweeps share; delete them by id"] if shared else []
    if not tops:
        return "\n".join([*stay, "nothing to delete"])
    rows = [_doomed_row(run, len(nested)) for run, nested in zip(tops, restarts, strict=True)]
    lines = table(rows[:LISTED], ("run", "status", "level", "name", "started"), ("~name", "started", "status"))
    lines += [f"... and {len(tops) - LISTED} more"] if len(tops) > LISTED else []
    nested = [run for found in restarts for run in found]
    total = filesize(sum(sum(run.artifacts().values()) for run in tops))
    counted = f"{many(len(tops), 'run')} with {many(len(nested), 'nested restart')} and {total} of artifacts"
    exact = [run.run_id[:SHORT] for run in tops]  # the meaning of sweep=last may change
    what = " ".join(exact if len(exact) <= 8 else words)
    what += store_words(option)
    if not yes:
        return "\n".join([*lines, "", *stay, f"would delete {counted}; to delete: descentlab delete {what} --yes"])
    upkeep.delete(option, [*nested, *tops])  # cells last: after an interruption they still name what is left
    back = f"To bring them back: descentlab restore {what}"
    place = upkeep.sizes(option)[0]
    database = "DATABASE, on the server's machine" if place.startswith("http") else place
    room = f"To free their disk space for good: mlflow gc --tracking-uri {place} --backend-store-uri {database}"
    return "\n".join([*lines, "", *stay, f"deleted {counted}", back, room])


def restore(words: Sequence[str], option: Option) -> str:
    """Bring deleted runs back with their restarts; words as for `delete`."""
    tops, restarts, _ = _doomed(words, "restore", option, deleted=True)
    if not tops:
        return "nothing to restore"
    nested = [run for found in restarts for run in found]
    upkeep.delete(option, [*tops, *nested], restore=True)
    return f"restored {many(len(tops), 'run')} with {many(len(nested), 'nested restart')}"


def _doomed(
    words: Sequence[str], command: str, option: Option, deleted: bool
) -> tuple[list[StoredRun], list[list[StoredRun]], int]:
    """The runs that words name, deleted or not, the restarts nested in each, and a count of cells that others share."""
    if not words or any(word.startswith("-") for word in words) or (deleted and "sweep=last" in words):
        raise InputError(
            f"{command}: needs ids of runs or filters, as in: descentlab {command} sweep=ID; descentlab list shows them"
        )
    shared = 0
    found = [get(option, word) for word in words if "=" not in word]
    for run in found:
        if run.deleted != deleted:
            raise InputError(f"run_id={run.run_id}: is {'already' if run.deleted else 'not'} deleted")
    if filters := [word for word in words if "=" in word]:
        wanted = wanted_runs(filters, command)
        for level in ("cell",) if wanted.where else ("cell", "summary", "sweep"):
            chosen = wanted.runs(option, level, deleted=deleted)  # a running cell is deleted only by name
            chosen = [run for run in chosen if run.state != "running" or deleted or wanted.status == "RUNNING"]
            if wanted.sweep and not deleted:
                asked = {run.sweep for run in chosen}
                elsewhere = [run for run in chosen if set(run.memberships) - asked]
                shared += len(elsewhere)
                chosen = [run for run in chosen if run not in elsewhere]
            found += chosen
    tops = list({run.run_id: run for run in found}.values())
    return tops, [upkeep.restarts_of(option, run, deleted) for run in tops], shared


def _doomed_row(run: StoredRun, nested: int) -> dict[str, str]:
    return {
        "run": run.run_id[:SHORT],
        "level": run.level,
        "name": run.name,
        "status": run.state,
        "started": when(run.started),
        "restarts": str(nested),
        "artifacts": filesize(sum(run.artifacts().values())),
    }
