"""End runs in the store: as finished, or as killed or failed together with their restarts."""

import os
from typing import Any

from descentlab.tracking.reading import search
from descentlab.tracking.store import Store
from descentlab.tracking.stored_run import local_folder

REASON_LENGTH = 1000  # MLflow cuts tags at 8000 characters


def conclude(store: Store, run_id: str, ended: int) -> None:
    """Mark a written run as finished, unless another process has given it up and trains it again.

    Args:
        store: where it is.
        run_id: of the run.
        ended: milliseconds since 1970.
    """
    to_disk(store.client.get_run(run_id).info.artifact_uri)  # before the database says that the run is finished
    with store.exclusive():
        status = store.client.get_run(run_id).info.status
        if status == "RUNNING":
            for child in running(store, f"tags.`mlflow.parentRunId` = '{run_id}'") if outages(store) else []:
                give_up(store, child, "KILLED", "its creation was not confirmed")
            store.client.set_terminated(run_id, status="FINISHED", end_time=ended)
            return
    tags = store.client.get_run(run_id).data.tags
    give_up(store, run_id, status, tags.get("reason", "given up by another process"))


def to_disk(artifacts: str) -> None:
    """Write a run's files to the disk, where they are on this machine, so that they survive a power cut."""
    folder = local_folder(artifacts)
    for path in sorted(folder.rglob("*")) if folder else []:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def give_up(store: Store, run_id: str, status: str, reason: str) -> None:
    """End a run without a result; its restarts first, so that an interrupted call can be repeated."""
    open_or_done = ("RUNNING", "SCHEDULED", "FINISHED")
    found = search(store, [f"tags.`mlflow.parentRunId` = '{run_id}'"])
    for marked in [*(child.run_id for child in found if child.status in open_or_done), run_id]:
        store.client.set_tag(marked, "reason", reason[:REASON_LENGTH])
        store.client.set_terminated(marked, status=status)


def running(store: Store, query: str) -> list[str]:
    """Open runs that pass a test in MLflow's filter language."""
    tests = f"attributes.status = 'RUNNING' and {query}"
    return [run.info.run_id for run in store.client.search_runs([str(store.experiment_id)], tests)]


def outages(store: Store) -> int:
    """How often the store did not answer; it may hold a run whose creation it could not confirm."""
    client: Any = store.client
    return int(getattr(client, "outages", 0))
