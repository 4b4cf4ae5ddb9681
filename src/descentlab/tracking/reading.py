"""Find stored runs by id, sweep, status and params."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from descentlab.tracking.locations import one_line, store_errors
from descentlab.tracking.params import plain
from descentlab.tracking.plans import member_tag
from descentlab.tracking.store import Store, open_store
from descentlab.tracking.stored_run import StoredRun, stored
from descentlab.values import InputError, Option
from descentlab.values import without_password as shown


class OpenStore(Protocol):
    """An object with an open store, such as a tracker."""

    def opened(self) -> Store:
        """The store, after everything is written."""


Source = Option | OpenStore
SWEEP_LENGTH = len("20260131-235959-1f2e")  # of a sweep's id; a study appends the names of its parts

ACTIVE, DELETED, ALL = 1, 2, 3  # MLflow's ViewType


def reading(source: Source) -> Store:
    """The store of a tracker, after everything is written, or the existing store that an option names.

    Raises:
        InputError: if there is none.
    """
    if not isinstance(source, Option):
        return source.opened()
    if source.name == "none":
        raise InputError("tracking=none: stores nothing, so there is nothing to read; choose tracking=local")
    return open_store(source, create=False)


def get(source: Source, run_id: str) -> StoredRun:
    """The run with this id, or the only one whose id begins with it (four characters or more), deleted or not.

    Raises:
        InputError: if there is none, or more than one.
    """
    from mlflow.exceptions import MlflowException

    store = reading(source)
    try:
        if re.fullmatch("[0-9a-f]{4,31}", run_id) and store.experiment_id is not None:
            like = f"attributes.run_id LIKE '{run_id}%'"
            found = store.client.search_runs([store.experiment_id], like, ALL, max_results=4)
            if len(found) > 1:
                ids = ", ".join(run.info.run_id[: len(run_id) + 4] for run in found[:3])
                raise InputError(f"run_id={run_id}: several ids begin with this: {ids}, ...; give more characters")
            if found:
                return stored(found[0], store)
        return stored(store.client.get_run(run_id), store)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(f"tracking.uri={shown(store.uri)}: {one_line(error)}") from error
        hint = "; give at least the first 4 characters of an id" if re.fullmatch("[0-9a-f]{1,3}", run_id) else ""
        raise InputError(f"run_id={run_id}: no run has this id in {shown(store.uri)}{hint}") from error


def find(
    source: Source,
    level: str = "cell",
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
    status: str | None = "FINISHED",
    limit: int | None = None,
    deleted: bool = False,
    parent: str | None = None,
) -> list[StoredRun]:
    """Runs of the experiment, the earliest first; runs of a sweep in the order and with the names of the sweep.

    Args:
        source: an open tracker, which is flushed first, or the option that names the store.
        level: cell, restart, summary or sweep.
        sweep: only its runs, also those that another sweep trained; "last" is the last active sweep; an id that ends
            with % stands for all sweeps whose ids begin with it, part by part.
        where: param -> value that it must have.
        status: only runs with this status; None for all. A sweep's finished cells: the earliest run of each key.
        limit: only the newest ones, this many at most.
        deleted: search the deleted runs instead.
        parent: only the restarts of this cell.
    """
    store = reading(source)
    if sweep == "last":
        sweep = last_sweep(store)
        if not sweep:
            return []
    tests = [f"tags.level = {quoted(level)}"]
    tests += [f"attributes.status = {quoted(status)}"] if status else []
    tests += [f"tags.`mlflow.parentRunId` = {quoted(parent)}"] if parent else []
    tests += [f"params.`{key}` = {quoted(plain(value))}" for key, value in (where or {}).items()]
    if not sweep:
        return search(store, tests, limit, deleted)
    own = search(store, [*tests, f"tags.sweep {'LIKE' if '%' in sweep else '='} {quoted(sweep)}"], limit, deleted)
    if level != "cell":
        return own
    sweeps = [sweep]
    if "%" in sweep:
        records = search(store, ["tags.level = 'sweep'", f"tags.sweep LIKE {quoted(sweep)}"])
        sweeps = [part for record in records for part in record.parts]
        sweeps += [run.sweep for run in own]
    found: list[StoredRun] = []
    for one in dict.fromkeys(sweeps):
        tag = member_tag(one)
        members = search(store, [*tests, f"tags.{_backticked(tag)} LIKE '%'"], limit, deleted)
        known = {run.run_id for run in members}
        members += [run for run in own if run.sweep == one and run.run_id not in known]
        found += _in_order(members, one, status)
    return found[-limit:] if limit else found


def _in_order(runs: list[StoredRun], sweep: str, status: str | None) -> list[StoredRun]:
    """Runs in the order and with the names of a sweep; of several finished runs with one key the earliest."""
    placed = []
    for run in sorted(runs, key=lambda run: (run.started, run.run_id)):
        place, name = run.memberships.get(sweep, (0, ""))
        placed.append((place, replace(run, name=name or run.name, tags={**run.tags, "sweep": sweep})))
    placed.sort(key=lambda pair: pair[0])
    if status != "FINISHED":
        return [run for _, run in placed]
    single: dict[Any, StoredRun] = {}
    for place, run in placed:
        single.setdefault((place, run.key if run.config_hash else run.run_id, run.judge), run)
    return list(single.values())


def last_sweep(store: Store) -> str:
    """The last active sweep; "" where there is none."""
    newest = search(store, ["tags.level = 'cell'"], limit=1)
    records = search(store, ["tags.level = 'sweep'"])
    latest = max(records, key=lambda run: run.last_active, default=None)
    if latest and (not newest or latest.last_active > newest[0].started):
        return latest.parts[-1]
    return newest[0].sweep if newest else ""


def search(store: Store, tests: Sequence[str], limit: int | None = None, deleted: bool = False) -> list[StoredRun]:
    """Runs of the experiment that pass tests in MLflow's filter language, the earliest first; the newest `limit`."""
    if store.experiment_id is None:
        return []
    runs: list[Any] = []
    token = None
    with store_errors(store.uri):
        while True:
            page = min(1000, limit - len(runs)) if limit else 1000
            found = store.client.search_runs(
                [store.experiment_id], " and ".join(tests), DELETED if deleted else ACTIVE,
                order_by=["attributes.start_time DESC"], max_results=page, page_token=token,
            )  # fmt: skip
            runs += found
            token = found.token
            if not token or (limit and len(runs) >= limit):
                return [stored(run, store) for run in reversed(runs)]


def _backticked(name: str) -> str:
    if "`" in name:
        raise InputError(f"{name}: MLflow cannot search for a name with a backtick")
    return f"`{name}`"


def quoted(value: Any) -> str:
    """A text in MLflow's filter language, which has no escape character: in the quotes that it does not hold."""
    text = str(value)
    quote = '"' if "'" in text else "'"
    if quote in text:
        raise InputError(f"{text}: MLflow cannot search for a text that holds both kinds of quotes")
    return quote + text + quote
