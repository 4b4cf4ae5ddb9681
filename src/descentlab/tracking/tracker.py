"""Trackers: find stored cells, claim cells to train, and queue finished ones for the writer."""

import contextlib
import functools
import getpass
import itertools
import json
import math
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from descentlab.config.cells import Cell
from descentlab.data import describing
from descentlab.interrupts import terminable
from descentlab.tracking import checksums, closing, environment, ownership, params, plans, tables, trained_cell
from descentlab.tracking.cell_run import CellRun, Claim, SummaryRun, TrackedCell
from descentlab.tracking.locations import store_errors
from descentlab.tracking.plans import Parts, member, member_tag
from descentlab.tracking.reading import quoted, search
from descentlab.tracking.retrying import RetryingClient
from descentlab.tracking.store import Store, check_form, open_store
from descentlab.tracking.stored_run import StoredRun
from descentlab.tracking.write_queue import WriteQueue
from descentlab.values import InputError, Option
from descentlab.values import without_password as shown

UNASKED_RUNS = 50  # of a sweep that go to a server without tracking=server
FEW_KEYS = 50  # that are searched one by one; for more, all finished cells are read at once
CHECKPOINTS = "mlcheckpoints"  # folder beside the store, of files that must survive a crash until their run is written
UNLABELLED = "command line"  # label of sweeps that belong to no experiment or study


class Tracker:
    """Stores runs; this class itself stores nothing. Created by `open_tracker`, used as a context or closed by `close`.

    Attributes:
        sweep: the id of the sweep that new cells belong to.
        location: the experiment and its store, for people.
        stores: whether runs are stored.
    """

    location, stores = "not tracked", False

    def __init__(self) -> None:
        self.sweep = _new_sweep()

    def __enter__(self) -> "Tracker":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close; an error marks the runs that are still open."""
        self.close(error)

    def cell(self, cell: Cell, tags: Mapping[str, str] | None = None) -> CellRun:
        """Create a run for a cell, whether it is stored already or not."""
        return CellRun(cell.name)

    def begin(self, parts: Parts, label: str = "", fresh: bool = False) -> str:
        """Resume the sweep with this label and these cells, or create it; `sweep` is its id from then on.

        Args:
            parts: its cells, part by part.
            label: of the experiment or study; the cells are compared with those of the newest sweep of this label.
            fresh: create a new sweep in any case.

        Returns:
            A line that says what differs from the sweep before; "" for nothing.
        """
        return ""

    def finished(self, cells: Sequence[Cell]) -> dict[str, StoredRun]:
        """Finished runs of some cells: key -> run."""
        return {}

    def add_to_sweep(self, run: StoredRun, sweep: str, place: int, name: str) -> None:
        """Add a finished run to a sweep, with its place and name there."""

    def claim(self, cell: Cell, sweep: str = "", place: int = 0, fresh: bool = False) -> Claim:
        """Claim a cell to train, unless it is finished or another process is training it.

        Args:
            cell: to train.
            sweep: id of the sweep, or of a part of one.
            place: of the cell in that sweep.
            fresh: only finished runs of this sweep count.
        """
        return Claim(run=self.cell(cell))

    def expect(self, cells: Sequence[Cell]) -> None:
        """Prepare to write these cells soon."""

    def give_up_lost(self, cells: Sequence[Cell]) -> None:
        """Mark runs of these cells whose processes are gone as killed."""

    @contextlib.contextmanager
    def summary(
        self, name: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[SummaryRun]:
        """Create a run for tables, figures and numbers over many cells."""
        yield SummaryRun(None)

    def flush(self) -> None:
        """Wait until everything is written; raise the first error of it."""

    def opened(self) -> Store:
        """The store, after everything is written.

        Raises:
            InputError: nothing is stored.
        """
        raise InputError("tracking=none: stores nothing, so there is nothing to read; choose tracking=local")

    def close(self, error: BaseException | None = None) -> None:
        """Write what is left and close; `error` is what ended the work early."""


class _StoreTracker(Tracker):
    """A tracker that stores runs."""

    def __init__(self, store: Store, children: str, checkpoint_seconds: float, most: float) -> None:
        super().__init__()
        self._most = most  # runs that a sweep may have
        self.checkpoint_seconds = checkpoint_seconds
        self.store, self.client, self.children = store, store.client, children
        self.stores, self.location = True, f"experiment {store.experiment} in {shown(store.uri)}"
        self.queue = WriteQueue(store)
        self._open: dict[str, TrackedCell] = {}
        self._places = itertools.count()
        self._heartbeat: threading.Thread | None = None
        self._stop = threading.Event()
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(terminable())

    def close(self, error: BaseException | None = None) -> None:
        try:
            self.queue.close(error)
        finally:
            self._stop.set()
            self._signals.close()

    def flush(self) -> None:
        self.queue.flush()

    def opened(self) -> Store:
        self.flush()
        return self.store

    def _tags(self, level: str, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            "level": level,
            "sweep": self.sweep,
            "process": self.queue.process,
            "mlflow.user": _user(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": "descentlab",
            **environment.environment(),
            **{key: str(value) for key, value in (more or {}).items()},
        }

    def cell(self, cell: Cell, tags: Mapping[str, str] | None = None) -> CellRun:
        with store_errors(self.store.uri):
            return self._opened(cell, (tags or {}).get("sweep", self.sweep), next(self._places), tags)

    def _opened(
        self,
        cell: Cell,
        sweep: str,
        place: int,
        more: Mapping[str, str] | None = None,
    ) -> "TrackedCell":
        config = cell.config
        tags = (
            self._tags("cell", more)
            | ownership.owner()
            | {"sweep": sweep, member_tag(sweep): member(place, config.name)}
        )
        tags |= {"config_hash": config.hash, "cell_hash": config.cell_hash, "data_digest": cell.digest}
        if lines := describing.lines(cell.dataset):  # shown by MLflow as the run's description
            tags["mlflow.note.content"] = "; ".join(lines)[:4000]
        told = {"judge": cell.judged_by, "trainer": cell.trained_by, "mlflow.source.name": cell.script}
        tags |= {key: value for key, value in told.items() if value}
        checkpoints = self.store.folder / CHECKPOINTS / str(self.store.experiment_id) / cell.key
        run = TrackedCell(self.queue, config, tags, checkpoints, self.checkpoint_seconds, self.children)
        self._open[str(run.run_id)] = run
        if self._heartbeat is None:
            self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._heartbeat.start()
        inputs = [trained_cell.dataset_input(cell.dataset)]
        run.submit(functools.partial(self.queue.writer.write_new, str(run.run_id), config, inputs))
        return run

    def _beat(self) -> None:
        while not self._stop.wait(ownership.BEAT_SECONDS):
            for run_id, run in list(self._open.items()):
                if run.ended:
                    self._open.pop(run_id, None)
                    continue
                with contextlib.suppress(Exception):  # the next beat may get through
                    client = self.client
                    client = getattr(client, "direct", client)
                    client.set_tag(run_id, "heartbeat", ownership.beat())

    def begin(self, parts: Parts, label: str = "", fresh: bool = False) -> str:
        count = sum(
            1 + tables.own_runs(one.config.restarts, self.children) for cells in parts.values() for one in cells
        )
        if count > self._most:
            valid = f"is a server, and this sweep has about {count} runs; add tracking=server to store them there"
            raise InputError(f"tracking.uri={shown(self.store.uri)}: {valid}, or name a file in tracking.uri")
        label, defined = label or UNLABELLED, plans.definition(label or UNLABELLED, parts)
        plan, size = plans.written(label, parts), sum(len(cells) for cells in parts.values())
        with store_errors(self.store.uri), self.store.exclusive():
            test = f"tags.definition = '{defined}'"
            known = [] if fresh else search(self.store, ["tags.level = 'sweep'", test], limit=1)
            if known:
                (record,) = known
                self.sweep, run_id = record.sweep, record.run_id
                self.client.set_tag(run_id, "at_work", f"{time.time():.3f}")
                if record.status == "FINISHED":
                    return ""
            else:
                before = search(self.store, ["tags.level = 'sweep'", f"tags.label = {quoted(label)}"], limit=1)
                self.sweep = _new_sweep()
                tags = {"label": label, "definition": defined, "cells": str(size), "at_work": f"{time.time():.3f}"}
                tags["parts"] = " ".join(plans.part_id(self.sweep, part) for part in parts)
                run_id = self.queue.create_run(label, self._tags("sweep", tags))
            self.client.log_text(run_id, plan, "plan.json")
            self.client.set_terminated(run_id, status="FINISHED")
        if known or fresh or not before or (label == UNLABELLED and min(size, int(before[0].tags["cells"])) == 1):
            return ""
        with contextlib.suppress(InputError):  # an interrupted record has no plan
            earlier = before[0].artifact("plan.json").read_text(encoding="utf-8")
            if differs := plans.difference(earlier, plan):
                return f"differs from {label} as swept before ({before[0].sweep}): {differs}"
        return ""

    def finished(self, cells: Sequence[Cell]) -> dict[str, StoredRun]:
        tests = ["tags.level = 'cell'", "attributes.status = 'FINISHED'"]
        hashes = {cell.config.hash for cell in cells}
        one_by_one = [[f"tags.config_hash = '{one}'"] for one in hashes] if len(hashes) <= FEW_KEYS else [[]]
        found = [run for more in one_by_one for run in search(self.store, [*tests, *more])]
        judges = {cell.key: cell.judged_by for cell in cells}
        return {run.key: run for run in found if judges.get(run.key) == run.judge}

    def add_to_sweep(self, run: StoredRun, sweep: str, place: int, name: str) -> None:
        tag, value = member_tag(sweep), member(place, name)
        if run.tags.get(tag) != value:
            with store_errors(self.store.uri):
                self.client.set_tag(run.run_id, tag, value)

    def claim(self, cell: Cell, sweep: str = "", place: int = 0, fresh: bool = False) -> Claim:
        sweep = sweep or self.sweep
        while True:
            with store_errors(self.store.uri), self.store.exclusive():
                runs = search(self.store, ["tags.level = 'cell'", f"tags.cell_hash = '{cell.config.cell_hash}'"])
                runs = [run for run in runs if run.family == cell.family]
                if fresh:
                    runs = [run for run in runs if member_tag(sweep) in run.tags]
                finished = [run for run in runs if run.status == "FINISHED"]
                same = [run for run in runs if run.key == cell.key and run.judge == cell.judged_by]
                stands = [run for run in same if run.status == "FINISHED"]
                if stands:
                    members = [run for run in stands if member_tag(sweep) in run.tags]
                    chosen = members[0] if members else stands[-1]
                    self.add_to_sweep(chosen, sweep, place, cell.config.name)
                    return Claim(finished=chosen)
                running = [run for run in same if run.status == "RUNNING"]
                ours = [run for run in running if run.run_id in self._open]
                if not ours:
                    for run in running:
                        reason = run.given_up
                        if run.process == self.queue.process:
                            reason = "its creation was not confirmed"
                        if not reason:
                            return Claim(holder=run.owner)
                        closing.give_up(self.store, run.run_id, "KILLED", reason)
                    finished.sort(
                        key=lambda run: run.judge != cell.judged_by
                    )  # their restarts need not be written again
                    return Claim(run=self._opened(cell, sweep, place), parents=finished)
            self.queue.drain()  # our own run is still being written
            for run in ours:
                if self._open[run.run_id].ended:
                    del self._open[run.run_id]

    def expect(self, cells: Sequence[Cell]) -> None:
        self.queue.writer.expect(
            len(cells), sum(tables.own_runs(cell.config.restarts, self.children) for cell in cells)
        )

    def give_up_lost(self, cells: Sequence[Cell]) -> None:
        keys = {cell.key for cell in cells}
        if not keys:
            return
        with contextlib.suppress(Exception), self.store.exclusive():  # a later claim finds them too
            for run in search(self.store, ["tags.level = 'cell'", "attributes.status = 'RUNNING'"]):
                if run.key in keys and (reason := run.given_up):
                    closing.give_up(self.store, run.run_id, "KILLED", reason)

    @contextlib.contextmanager
    def summary(
        self, name: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[SummaryRun]:
        from mlflow.entities import Metric, Param, RunTag

        self.flush()
        rows = {key: value for key, value in (config or {}).items() if not isinstance(value, Mapping)}
        with store_errors(self.store.uri):
            run_id = self.queue.create_run(name, self._tags("summary", tags))
        try:
            with store_errors(self.store.uri):  # first, so that an interrupted run has them
                settings = [Param(params.safe_name(key), params.plain(value)[:500]) for key, value in rows.items()]
                self.client.log_batch(run_id, params=settings)
            with tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
                run = SummaryRun(Path(folder), lambda path: self.client.log_artifact(run_id, str(path)))
                run.run_id = run_id
                yield run
                if config:
                    run.text("config.json", json.dumps(config, indent=2, default=str) + "\n")
                seal = checksums.seal(Path(folder))
                with store_errors(self.store.uri):
                    self.client.log_batch(
                        run_id,
                        metrics=[Metric(key, value, params.milliseconds(), 0) for key, value in run._metrics.items()],
                        tags=[RunTag(key, value) for key, value in seal.items()],
                    )
                    self.client.log_artifacts(run_id, folder)
                    self.client.set_terminated(run_id, status="FINISHED")
        except BaseException as error:
            self.queue.mark(run_id, error)
            raise


def _new_sweep() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def open_tracker(option: Option) -> Tracker:
    """Open the tracker that a configuration asks for.

    Args:
        option: name local, server or none, with the numbers of `config.options.TRACKING`.

    Returns:
        A Tracker; with name none, one that stores nothing.

    Raises:
        InputError: the store cannot be created, opened or reached.
    """
    if option.name == "none":
        return Tracker()
    store, most = open_store(option), math.inf
    check_form(store, begin=True)
    if not store.uri.startswith("sqlite:"):
        seconds = float(option.numbers.get("retry_seconds", 300.0))
        client: Any = RetryingClient(store.client, shown(store.uri), seconds)
        store, most = replace(store, client=client), math.inf if option.name == "server" else UNASKED_RUNS
    children, seconds = option.numbers.get("children", "auto"), option.numbers.get("checkpoint_seconds", 600.0)
    return _StoreTracker(store, children, seconds, most)
