"""Runs being written: a cell while it trains, and a summary over many cells."""

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

import numpy as np

from descentlab.config.configuration import Config
from descentlab.tracking import params, tables, trained_cell, trainings
from descentlab.tracking.stored_run import StoredRun
from descentlab.tracking.trained_cell import TrainedCell
from descentlab.tracking.write_queue import WriteQueue

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.figures import Figure
    from descentlab.nn.recipe import Record, Training


FLUSH_SECONDS = 60.0  # a longer cell shows its means while it trains
FLUSH_POINTS = 20  # at so many of the epochs that it logged since


class CellRun:
    """The run of one cell while it trains; created by `Tracker.claim` or `Tracker.cell`, used as a context.

    An exception, or leaving it before `finish`, marks it as failed; Ctrl-C marks it as killed.

    Attributes:
        run_id: of the run in the store; None where nothing is stored.
        name: of the cell.
        finished: whether the training was handed over.
        checkpoints: the folder of files that must survive a crash; None where nothing is stored.
        checkpoint_seconds: seconds between checkpoints.
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
        """Do nothing."""

    def record(self, record: "Record") -> None:
        """Take a logged epoch; those of a long training are written once a minute."""

    def finish(
        self,
        training: "Training",
        judgement: "pd.DataFrame | None" = None,
        reused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Store the finished training.

        Args:
            training: of all restarts.
            judgement: a judge's table of the restarts, as `judges.judged`.
            reused: seed -> cell, for restarts that another cell trained and holds the runs of.
        """
        self.finished = True


class FinishedRun(CellRun):
    """A run that is in the store already."""

    def __init__(self, name: str, run_id: str | None) -> None:
        """Present a stored run as one that was stored just now."""
        super().__init__(name)
        self.run_id, self.finished = run_id, True


@dataclass(frozen=True)
class Claim:
    """The answer to a process that asks to train a key.

    Attributes:
        run: for this process to train; None where another run has or will have the results.
        finished: the finished run of the key.
        holder: the process that is training it, for people; "" where there is none.
        parents: finished runs with restarts of the same family, which need not be trained again; same judge first.
    """

    run: "CellRun | None" = None
    finished: "StoredRun | None" = None
    holder: str = ""
    parents: "list[StoredRun]" = field(default_factory=list)


class TrackedCell(CellRun):
    """A cell whose run is in a store."""

    def __init__(
        self, queue: WriteQueue, config: Config, tags: dict[str, str], checkpoints: Path, seconds: float, children: str
    ) -> None:
        """Create the run; `seconds` between checkpoints, `children` as in the option of tracking."""
        super().__init__(config.name)
        self.checkpoints: Path = checkpoints
        self.checkpoint_seconds = seconds
        self._queue, self._config, self._tags, self._children = queue, config, tags, children
        self._began = self._ended = params.milliseconds()
        self.run_id = queue.create_run(config.name, tags, self._began)
        self._times: dict[int, int] = {}  # logged epoch -> timestamp
        self._pending: list[Record] = []
        self._written: set[int] = set()
        self._flushed = time.monotonic()
        self._reused: dict[int, str] = {}
        self._training: Training | None = None  # until it is written
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
        """Take a logged epoch; those of a long training are written once a minute."""
        self._times[record.epoch] = params.milliseconds()
        self._pending.append(record)
        if time.monotonic() - self._flushed > FLUSH_SECONDS and record.epoch < self._config.epochs:
            self._flushed = time.monotonic()
            self.submit(functools.partial(self._write_records, self._some_pending()))

    def _some_pending(self) -> "list[Record]":
        pending, self._pending = self._pending, []
        return [pending[place] for place in tables.thinned(len(pending), FLUSH_POINTS)]

    def _write_records(self, records: "Sequence[Record]") -> None:
        metrics = []
        for record in records:
            series = tables.cell_series({name: values[None, :] for name, values in record.metrics.items()})
            metrics += trained_cell.metric_rows(series, [record.epoch], self._times, self._ended)
            self._written.add(record.epoch)
        self._queue.store.client.log_batch(self.run_id, metrics=metrics)

    def finish(
        self,
        training: "Training",
        judgement: "pd.DataFrame | None" = None,
        reused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Hand the finished training over to be written."""
        self._ended = params.milliseconds()  # not when it is written
        self._reused, self._training = dict(reused), training
        self._pending.clear()
        weight = training.initial.flat.nbytes + training.final.flat.nbytes
        self.submit(functools.partial(self._write, training, judgement), weight)
        self.finished = True

    def submit(self, job: Callable[[], None], weight: int = 0) -> Future:
        """Queue a job of this run; where it fails the run is marked and its training saved."""

        def work() -> None:
            if self.ended:
                return
            try:
                job()
            except BaseException as error:
                self.ended = True
                self._save()
                self._queue.failed(self.name, str(self.run_id), error)

        return self._queue.submit(work, weight)

    def _save(self) -> None:
        """Save a training that the store did not accept, so that it need not be trained again."""
        if self._training is not None:
            with contextlib.suppress(OSError):  # a full disk may have been the reason
                trainings.save_training(self._training, self.checkpoints / trainings.SAVED)

    def _write(self, training: "Training", judgement: "pd.DataFrame | None") -> None:
        self._queue.writer.write(
            TrainedCell(
                run_id=str(self.run_id),
                config=self._config,
                tags=self._tags,
                training=replace(training, recipe=None),  # type: ignore[arg-type]
                judgement=judgement,
                reused=self._reused,
                children=self._children,
                began=self._began,
                ended=self._ended,
                times=self._times,
                written=frozenset(self._written),
            )
        )
        self.ended, self._training = True, None
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def abandon(self, error: BaseException) -> None:
        """Mark the run as killed or failed, with the epochs that were logged until then."""
        records = self._some_pending()

        def job() -> None:
            if not self.ended:
                with contextlib.suppress(Exception):  # an error of the store must not hide the one that ended the run
                    self._write_records(records)
                self.ended = True
                self._queue.mark(str(self.run_id), error)

        with self._queue.writer.urgently():
            self.submit(job).result()


class SummaryRun:
    """Tables, figures and numbers over many cells; created by `Tracker.summary`, written when its context is left.

    Attributes:
        run_id: of the run in the store; None where nothing is stored.
    """

    run_id: str | None = None

    def __init__(self, folder: Path | None, send: Callable[[Path], None] | None = None) -> None:
        """Collect files in a folder; `send` stores one of them at once."""
        self._folder, self._send = folder, send
        self._metrics: dict[str, float] = {}

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        """Store a table as CSV, with every digit, and as HTML."""
        if self._folder:
            frame.to_csv(self._file(name, ".csv"), index=False)
            html = frame.to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="", border=0)
            page = _PAGE.format(title=params.safe_name(name), body=html)
            self._file(name, ".html").write_text(page, encoding="utf-8")

    def figure(self, name: str, figure: "Figure") -> None:
        """Store a figure as PNG, SVG and PDF."""
        if self._folder:
            from descentlab import figures

            for ending in (".png", ".svg", ".pdf"):
                figures.save(figure, self._file(name, ending))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Store numbers; those that are not finite are left out."""
        self._metrics |= {params.safe_name(key): float(value) for key, value in values.items() if np.isfinite(value)}

    def text(self, name: str, text: str, at_once: bool = False) -> None:
        """Store a text under its file name (.txt where it has no ending); at once, if it must survive a crash."""
        if self._folder:
            path = self._file(name, "" if Path(name).suffix else ".txt")
            path.write_text(text, encoding="utf-8")
            if at_once and self._send:
                self._send(path)

    def _file(self, name: str, ending: str) -> Path:
        assert self._folder is not None
        path = self._folder / (params.safe_name(name) + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:14px sans-serif;margin:1em}}table{{border-collapse:collapse}}
th,td{{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}}th{{border-bottom:2px solid #888}}</style>
{body}
"""
