"""Runs being written: trackers, cells and summaries.

What is written of a cell (`manuscripts`) is written while the next one trains, by a thread and, where there is much of
it, by a process (`scribe`). What goes wrong there marks the run, and is raised by flush and close.
"""

import contextlib
import functools
import getpass
import itertools
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from descentlab.config.configuration import Config
from descentlab.interrupts import terminable
from descentlab.tracking import checksums, claims, contents, manuscripts, plans, scribe
from descentlab.tracking.claims import Claim, owner
from descentlab.tracking.contents import DIGEST_LENGTH
from descentlab.tracking.manuscripts import Manuscript, Opening
from descentlab.tracking.patience import PatientClient
from descentlab.tracking.plans import Parts, Planned, key_of, member, member_tag
from descentlab.tracking.store import (
    EXPERIMENT,
    Store,
    StoredRun,
    one_line,
    open_store,
    quoted,
    search,
    shown,
    store_errors,
)
from descentlab.values import InputError, Option

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from descentlab.data.loading import Dataset
    from descentlab.nn.trainer import Record, Training

FLUSH_SECONDS = 60.0  # a longer cell shows its means while it trains
FLUSH_POINTS = 20  # at so many of the epochs that it logged since
QUEUED_CELLS = 4  # that may wait to be written; a crash loses them
QUEUED_BYTES = 2**28  # of their weights together; one that has more waits for those before it

FEW_KEYS = 50  # that are looked up one by one; for more, all finished cells are read at once
CHECKPOINTS = "mlcheckpoints"  # beside the store: what must outlive a crash until its run is written
UNLABELLED = "command line"  # sweeps that are no experiment's or study's


class CellRun:
    """One configuration being trained and kept; made by `Tracker.claim` or `Tracker.cell`, used as a context.

    Left by an exception, or before `finish`, it is marked as failed; by Ctrl-C, as killed.

    Attributes:
        run_id: of the run in the store; None where nothing is kept.
        name: short and telling.
        finished: whether the training was handed over.
        checkpoints: the folder for what must outlive a crash before the run is written; None where nothing is kept.
        checkpoint_seconds: how often a training puts by where it stands.
    """

    run_id: str | None = None
    checkpoints: Path | None = None
    checkpoint_seconds: float = np.inf

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished = False

    def __enter__(self) -> "CellRun":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing to tidy up."""

    def record(self, record: "Record") -> None:
        """Take note of a logged epoch; a long cell's are written once a minute."""

    def finish(
        self,
        training: "Training",
        judgement: "pd.DataFrame | None" = None,
        reused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Keep the finished training.

        Args:
            training: of all restarts.
            judgement: what a judge said of the restarts, as `judges.judged`.
            reused: seed -> run, of restarts that were trained for another run, which has their own runs.
        """
        self.finished = True


class FinishedRun(CellRun):
    """A run that stands already."""

    def __init__(self, stored: StoredRun) -> None:
        """See a stored run as one that was kept just now."""
        super().__init__(stored.name)
        self.run_id, self.finished = stored.run_id, True


class _TrackedCell(CellRun):
    def __init__(self, tracker: "_StoreTracker", config: Config, tags: dict[str, str], checkpoints: Path) -> None:
        super().__init__(config.name)
        self.checkpoints: Path = checkpoints
        self.checkpoint_seconds = tracker.checkpoint_seconds
        self._tracker, self._config, self._tags = tracker, config, tags
        self._began = self._ended = contents.milliseconds()
        self.run_id = tracker.create_run(config.name, tags, self._began)
        self._times: dict[int, int] = {}  # logged epoch -> timestamp
        self._pending: list[Record] = []
        self._written: set[int] = set()
        self._flushed = time.monotonic()
        self._reused: dict[int, str] = {}
        self._training: Training | None = None  # as long as it is not written
        self.ended = False  # the run in the store is no longer open

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Mark the run if there is no result."""
        if self.finished:
            return
        if error is None:
            lost = RuntimeError(f"{self._config.name}: its run was left before finish()")
            self.abandon(lost)
            raise lost
        self.abandon(error)

    def record(self, record: "Record") -> None:
        """Take note of a logged epoch; a long cell's are written once a minute."""
        self._times[record.epoch] = contents.milliseconds()
        self._pending.append(record)
        if time.monotonic() - self._flushed > FLUSH_SECONDS and record.epoch < self._config.epochs:
            self._flushed = time.monotonic()
            self._tracker.submit(self, functools.partial(self._write_records, self._some_pending()))

    def _some_pending(self) -> "list[Record]":
        pending, self._pending = self._pending, []
        return [pending[place] for place in contents.thinned(len(pending), FLUSH_POINTS)]

    def _write_records(self, records: "Sequence[Record]") -> None:
        metrics = []
        for record in records:
            series = contents.cell_series({name: values[None, :] for name, values in record.metrics.items()})
            metrics += manuscripts.metric_rows(series, [record.epoch], self._times, self._ended)
            self._written.add(record.epoch)
        self._tracker.client.log_batch(self.run_id, metrics=metrics)

    def finish(
        self,
        training: "Training",
        judgement: "pd.DataFrame | None" = None,
        reused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Hand the finished training over to be written."""
        self._ended = contents.milliseconds()  # not when it is written
        self._reused, self._training = dict(reused), training
        self._pending.clear()
        weight = training.initial.flat.nbytes + training.final.flat.nbytes
        self._tracker.submit(self, functools.partial(self._write, training, judgement), weight)
        self.finished = True

    def spool(self) -> None:
        """Put the training by, if there is one that the store could not take: it need not be trained again."""
        if self._training is not None:
            with contextlib.suppress(OSError):  # a full disk may have been the reason
                contents.spool(self._training, self.checkpoints / contents.SPOOL)

    def _write(self, training: "Training", judgement: "pd.DataFrame | None") -> None:
        self._tracker.scribe.write(
            Manuscript(
                run_id=str(self.run_id),
                config=self._config,
                tags=self._tags,
                training=replace(training, recipe=None),  # type: ignore[arg-type]
                judgement=judgement,
                reused=self._reused,
                children=self._tracker.children,
                began=self._began,
                ended=self._ended,
                times=self._times,
                written=frozenset(self._written),
            )
        )
        self.ended, self._training = True, None
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def abandon(self, error: BaseException) -> None:
        """Mark the run as killed or failed, with what was measured until then."""
        records = self._some_pending()

        def job() -> None:
            if not self.ended:
                with contextlib.suppress(Exception):  # a broken store must not hide why the run ended
                    self._write_records(records)
                self.ended = True
                self._tracker.mark(str(self.run_id), error)

        with self._tracker.scribe.hurry():
            self._tracker.submit(self, job).result()


class SummaryRun:
    """Tables, figures and numbers over many cells; made by `Tracker.summary`. Written when its context is left.

    Attributes:
        run_id: of the run in the store; None where nothing is kept.
    """

    run_id: str | None = None

    def __init__(self, folder: Path | None, send: Callable[[Path], None] | None = None) -> None:
        """Collect in a folder; `send` puts one of its files into the store before the run ends."""
        self._folder, self._send = folder, send
        self._metrics: dict[str, float] = {}

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        """Keep a table as CSV, exact, and as HTML to look at."""
        if self._folder:
            frame.to_csv(self._file(name, ".csv"), index=False)
            html = frame.to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="", border=0)
            page = _PAGE.format(title=contents.safe_name(name), body=html)
            self._file(name, ".html").write_text(page, encoding="utf-8")

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a figure as PNG and SVG."""
        if self._folder:
            from descentlab import figures

            for ending in (".png", ".svg"):
                figures.save(figure, self._file(name, ending))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Keep numbers; those that are not finite are left out."""
        self._metrics |= {contents.safe_name(key): float(value) for key, value in values.items() if np.isfinite(value)}

    def text(self, name: str, text: str, at_once: bool = False) -> None:
        """Keep a text under its file name (.txt where it has no ending); at once, where it is to outlive a crash."""
        if self._folder:
            path = self._file(name, "" if Path(name).suffix else ".txt")
            path.write_text(text, encoding="utf-8")
            if at_once and self._send:
                self._send(path)

    def _file(self, name: str, ending: str) -> Path:
        assert self._folder is not None
        path = self._folder / (contents.safe_name(name) + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:14px sans-serif;margin:1em}}table{{border-collapse:collapse}}
th,td{{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}}th{{border-bottom:2px solid #888}}</style>
{body}
"""


class Tracker:
    """Keeps runs; this one keeps nothing. Opened by `open_tracker`, used as a context or closed by hand.

    Attributes:
        sweep: the tag that joins the cells of one sweep, unless `tags` names another.
        location: where to look, for people.
    """

    location = "not tracked"

    def __init__(self) -> None:
        self.sweep = _new_sweep()

    def __enter__(self) -> "Tracker":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what is left; a run still open when an error ended the work is marked with it."""
        self.close(error)

    def cell(self, config: Config, dataset: "Dataset | None" = None, tags: Mapping[str, str] | None = None) -> CellRun:
        """Open a run for one configuration, whatever there is already."""
        return CellRun(config.name)

    def begin(self, parts: Parts, label: str = "", fresh: bool = False) -> str:
        """Take up the sweep that is defined so, or found one; `sweep` is its id then.

        Args:
            parts: its cells, part by part.
            label: of the experiment or study; the newest sweep with this label is what differences are told from.
            fresh: found a new one in any case.

        Returns:
            What the user should know of it, in a line; "" for nothing.
        """
        return ""

    def standing(self, cells: Sequence[Planned]) -> dict[str, StoredRun]:
        """The finished runs that stand for some keys already: key -> run."""
        return {}

    def adopt(self, run: StoredRun, sweep: str, place: int, name: str) -> None:
        """Make a finished run a member of a sweep, with its place and name there."""

    def claim(
        self, cell: Planned, dataset: "Dataset | None", sweep: str = "", place: int = 0, fresh: bool = False
    ) -> Claim:
        """Be the one process that trains a cell, unless it is done or another is at it.

        Args:
            cell: what is to be trained.
            dataset: its data.
            sweep: the sweep (or part of one) that it is trained for.
            place: in that sweep.
            fresh: only runs of this very sweep count as done.
        """
        return Claim(run=self.cell(cell.config, dataset))

    def expect(self, cells: Sequence[Config]) -> None:
        """Be ready to keep these cells soon."""

    def bury(self, cells: Sequence[Planned]) -> None:
        """Mark the runs of some cells whose processes are gone, before anyone wants to train them again."""

    @contextlib.contextmanager
    def summary(
        self, name: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[SummaryRun]:
        """Open a run for what is said over many cells."""
        yield SummaryRun(None)

    def flush(self) -> None:
        """Wait until everything is written; raise what went wrong with it."""

    def opened(self) -> Store:
        """The store for reading, with everything written.

        Raises:
            InputError: if nothing is kept.
        """
        raise InputError("tracking=none: keeps nothing that could be read; choose tracking=local")

    def close(self, error: BaseException | None = None) -> None:
        """Flush and end; `error` is why the work ended early."""


class _StoreTracker(Tracker):
    def __init__(self, store: Store, children: str, checkpoint_seconds: float) -> None:
        super().__init__()
        self.checkpoint_seconds = checkpoint_seconds
        self.store, self.client, self.children = store, store.client, children
        self.location = f"experiment {store.experiment} in {shown(store.uri)}"
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._heavy: deque[tuple[Future, int]] = deque()  # cells that wait, and the bytes of their weights
        self._open: dict[str, _TrackedCell] = {}
        self._places = itertools.count()
        self._heart: threading.Thread | None = None
        self._stop = threading.Event()
        self._failed: tuple[str, BaseException] | None = None  # the first cell that could not be written, and why
        self._closed = False
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(terminable())
        self.scribe = scribe.Scribe(store)

    def close(self, error: BaseException | None = None) -> None:
        """Flush and end; `error` is why the work ended early."""
        try:
            with self.scribe.hurry():
                self._writer.shutdown(wait=True)
            if error is not None or claims.outages(self.store):  # between a run's creation and its being known here
                with contextlib.suppress(Exception):
                    for run_id in claims.running(self.store, f"tags.process = '{self._process}'"):
                        self.mark(run_id, error or RuntimeError("its creation was not confirmed"))
        finally:
            self._closed = True
            self._stop.set()
            self.scribe.close()
            self.store.shorten()
            self._signals.close()
        if error is None:
            self._raise()

    def flush(self) -> None:
        """Wait until everything is written; raise what went wrong with it."""
        if not self._closed:
            with self.scribe.hurry():
                self._writer.submit(lambda: None).result()
        self._raise()

    def opened(self) -> Store:
        """The store for reading, with everything written."""
        self.flush()
        return self.store

    def submit(self, run: _TrackedCell, job: Callable[[], None], weight: int = 0) -> Future:
        """Queue a job of a run for the writing thread; with one of some bytes, wait while too many are queued."""
        while self._heavy and self._heavy[0][0].done():
            self._heavy.popleft()
        while weight and self._heavy and self._too_many(weight):
            with self.scribe.hurry():
                self._heavy.popleft()[0].result()

        def work() -> None:
            if run.ended:
                return
            try:
                job()
            except BaseException as error:
                run.ended = True
                run.spool()
                self._failed = self._failed or (run.name, error)
                self.mark(str(run.run_id), error)

        future = self._writer.submit(work)
        if weight:
            self._heavy.append((future, weight))
        return future

    def _too_many(self, weight: int) -> bool:
        return len(self._heavy) >= QUEUED_CELLS or sum(size for _, size in self._heavy) + weight > QUEUED_BYTES

    def _raise(self) -> None:
        """Raise what went wrong in the writing thread, once."""
        if self._failed is not None:
            (name, error), self._failed = self._failed, None
            error.add_note(f"while keeping {name}")
            with store_errors(self.store.uri):
                raise error

    def mark(self, run_id: str, error: BaseException) -> None:
        """Mark a run as killed or failed, and with it whatever restarts of it were written."""
        status = "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) else "FAILED"
        reason = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        with contextlib.suppress(Exception):  # what broke the store must not be hidden by what it breaks
            claims.give_up(self.store, run_id, status, reason)

    def create_run(self, name: str, tags: Mapping[str, str], began: int | None = None) -> str:
        """A new run; by the client's own call, since the fluent one would nest it by MLFLOW_RUN_ID."""
        return self.client.create_run(self.store.experiment_id, began, dict(tags), name).info.run_id

    def _tags(self, level: str, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            "level": level,
            "sweep": self.sweep,
            "process": self._process,
            "mlflow.user": _user(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": "descentlab",
            **contents.environment(),
            **{key: str(value) for key, value in (more or {}).items()},
        }

    def cell(self, config: Config, dataset: "Dataset | None" = None, tags: Mapping[str, str] | None = None) -> CellRun:
        """Open a run for one configuration, whatever there is already."""
        planned = Planned(config, dataset.digest if dataset else "")
        with store_errors(self.store.uri):
            return self._opened(planned, dataset, (tags or {}).get("sweep", self.sweep), next(self._places), tags)

    def _opened(
        self,
        cell: Planned,
        dataset: "Dataset | None",
        sweep: str,
        place: int,
        more: Mapping[str, str] | None = None,
    ) -> "_TrackedCell":
        config = cell.config
        tags = self._tags("cell", more) | owner() | {"sweep": sweep, member_tag(sweep): member(place, config.name)}
        tags |= {"config_hash": config.hash, "cell_hash": config.cell_hash, "data_digest": cell.digest[:DIGEST_LENGTH]}
        tags |= {"judge": cell.judge} if cell.judge else {}
        checkpoints = self.store.folder / CHECKPOINTS / str(self.store.experiment_id) / cell.key
        run = _TrackedCell(self, config, tags, checkpoints)
        self._open[str(run.run_id)] = run
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._heart.start()
        inputs = [manuscripts.dataset_input(dataset)] if dataset else []
        opening = Opening(str(run.run_id), config, inputs)
        self.submit(run, functools.partial(self.scribe.open, opening))
        return run

    def _beat(self) -> None:
        """Say every so often that what is open here is alive."""
        while not self._stop.wait(claims.BEAT_SECONDS):
            for run_id, run in list(self._open.items()):
                if run.ended:
                    self._open.pop(run_id, None)
                    continue
                with contextlib.suppress(Exception):  # the next beat may get through
                    client = self.client
                    client = getattr(client, "impatient", client)
                    client.set_tag(run_id, "heartbeat", claims.beat())

    def begin(self, parts: Parts, label: str = "", fresh: bool = False) -> str:
        """Take up the sweep that is defined so, or found one; `sweep` is its id then."""
        label, defined = label or UNLABELLED, plans.definition(label or UNLABELLED, parts)
        plan, size = plans.written(label, parts), sum(len(cells) for cells in parts.values())
        with store_errors(self.store.uri), self.store.exclusive():
            test = f"tags.definition = '{defined}'"
            known = [] if fresh else search(self.store, ["tags.level = 'sweep'", test], limit=1)
            if known:
                (record,) = known
                self.sweep, run_id = record.tags["sweep"], record.run_id
                self.client.set_tag(run_id, "at_work", f"{time.time():.3f}")
                if record.status == "FINISHED":
                    return ""
            else:
                before = search(self.store, ["tags.level = 'sweep'", f"tags.label = {quoted(label)}"], limit=1)
                self.sweep = _new_sweep()
                tags = {"label": label, "definition": defined, "cells": str(size), "at_work": f"{time.time():.3f}"}
                tags["parts"] = " ".join(plans.part_id(self.sweep, part) for part in parts)
                run_id = self.create_run(label, self._tags("sweep", tags))
            self.client.log_text(run_id, plan, "plan.json")
            self.client.set_terminated(run_id, status="FINISHED")
        if known or fresh or not before or (label == UNLABELLED and min(size, int(before[0].tags["cells"])) == 1):
            return ""
        with contextlib.suppress(InputError):  # a record that was cut short has no plan
            earlier = before[0].artifact("plan.json").read_text(encoding="utf-8")
            if differs := plans.difference(earlier, plan):
                return f"differs from {label} as swept before ({before[0].tags['sweep']}): {differs}"
        return ""

    def standing(self, cells: Sequence[Planned]) -> dict[str, StoredRun]:
        """The finished runs that stand for some keys already: key -> run."""
        tests = ["tags.level = 'cell'", "attributes.status = 'FINISHED'"]
        hashes = {cell.config.hash for cell in cells}
        one_by_one = [[f"tags.config_hash = '{one}'"] for one in hashes] if len(hashes) <= FEW_KEYS else [[]]
        found = [run for more in one_by_one for run in search(self.store, [*tests, *more])]
        judges = {cell.key: cell.judge for cell in cells}
        return {key_of(run): run for run in found if judges.get(key_of(run)) == run.tags.get("judge", "")}

    def adopt(self, run: StoredRun, sweep: str, place: int, name: str) -> None:
        """Make a finished run a member of a sweep, with its place and name there."""
        tag, value = member_tag(sweep), member(place, name)
        if run.tags.get(tag) != value:
            with store_errors(self.store.uri):
                self.client.set_tag(run.run_id, tag, value)

    def claim(
        self, cell: Planned, dataset: "Dataset | None", sweep: str = "", place: int = 0, fresh: bool = False
    ) -> Claim:
        """Be the one process that trains a cell, unless it is done or another is at it."""
        sweep, digest = sweep or self.sweep, cell.digest[:DIGEST_LENGTH]
        while True:
            with store_errors(self.store.uri), self.store.exclusive():
                runs = search(self.store, ["tags.level = 'cell'", f"tags.cell_hash = '{cell.config.cell_hash}'"])
                runs = [run for run in runs if key_of(run).endswith(f"-{digest}")]
                if fresh:
                    runs = [run for run in runs if member_tag(sweep) in run.tags]
                finished = [run for run in runs if run.status == "FINISHED"]
                same = [run for run in runs if key_of(run) == cell.key and run.tags.get("judge", "") == cell.judge]
                stands = [run for run in same if run.status == "FINISHED"]
                if stands:
                    members = [run for run in stands if member_tag(sweep) in run.tags]
                    chosen = members[0] if members else stands[-1]
                    self.adopt(chosen, sweep, place, cell.config.name)
                    return Claim(finished=chosen)
                at_it = [run for run in same if run.status == "RUNNING"]
                ours = [run for run in at_it if run.run_id in self._open]
                if not ours:
                    for run in at_it:
                        reason = claims.given_up(run.tags, run.started)
                        if run.tags.get("process") == self._process:
                            reason = "its creation was not confirmed"
                        if not reason:
                            return Claim(holder=claims.holder(run.tags, run.started))
                        claims.give_up(self.store, run.run_id, "KILLED", reason)
                    finished.sort(key=lambda run: run.tags.get("judge", "") != cell.judge)  # whose restarts are ours
                    return Claim(run=self._opened(cell, dataset, sweep, place), parents=finished)
            with self.scribe.hurry():
                self._writer.submit(lambda: None).result()  # a run of our own that is still being written
            for run in ours:
                if self._open[run.run_id].ended:
                    del self._open[run.run_id]

    def expect(self, cells: Sequence[Config]) -> None:
        """Be ready to keep these cells soon."""
        self.scribe.expect(len(cells), sum(contents.own_runs(cell.restarts, self.children) for cell in cells))

    def bury(self, cells: Sequence[Planned]) -> None:
        """Mark the runs of some cells whose processes are gone, before anyone wants to train them again."""
        keys = {cell.key for cell in cells}
        if not keys:
            return
        with contextlib.suppress(Exception), self.store.exclusive():  # else who claims them next will find them
            for run in search(self.store, ["tags.level = 'cell'", "attributes.status = 'RUNNING'"]):
                if key_of(run) in keys and (reason := claims.given_up(run.tags, run.started)):
                    claims.give_up(self.store, run.run_id, "KILLED", reason)

    @contextlib.contextmanager
    def summary(
        self, name: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[SummaryRun]:
        """Open a run for what is said over many cells."""
        from mlflow.entities import Metric, Param, RunTag

        self.flush()
        rows = {key: value for key, value in (config or {}).items() if not isinstance(value, Mapping)}
        with store_errors(self.store.uri):
            run_id = self.create_run(name, self._tags("summary", tags))
        try:
            with store_errors(self.store.uri):  # first, so that a run which is cut short says what it was
                settings = [Param(contents.safe_name(key), contents.plain(value)[:500]) for key, value in rows.items()]
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
                        metrics=[Metric(key, value, contents.milliseconds(), 0) for key, value in run._metrics.items()],
                        tags=[RunTag(key, value) for key, value in seal.items()],
                    )
                    self.client.log_artifacts(run_id, folder)
                    self.client.set_terminated(run_id, status="FINISHED")
        except BaseException as error:
            self.mark(run_id, error)
            raise


def _new_sweep() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def open_tracker(option: Option, experiment: str = EXPERIMENT) -> Tracker:
    """Open the tracker that a configuration asks for.

    Args:
        option: name local, server or none; numbers uri, experiment and children (auto, all or none).
        experiment: the experiment's name where the option leaves it open.

    Returns:
        A Tracker; with name none, one that keeps nothing.

    Raises:
        InputError: for a store that cannot be created, opened or reached.
    """
    if option.name == "none":
        return Tracker()
    children = str(option.numbers.get("children", "auto"))
    if children not in contents.CHILDREN:
        raise InputError(f"tracking.children={children}: not one of {', '.join(contents.CHILDREN)}")
    store = open_store(option, experiment)
    if not store.uri.startswith("sqlite:"):
        patience = float(option.numbers.get("patience", 300.0))
        client: Any = PatientClient(store.client, shown(store.uri), patience)
        store = replace(store, client=client)
    return _StoreTracker(store, children, float(option.numbers.get("checkpoint_seconds", 600.0)))
