"""Runs being written: trackers, cells and summaries.

Writing costs 20 to 40 ms a restart, nearly all of it Python above the database, so a cell is written by a thread of
its own while the next one trains. What goes wrong there marks the run, and is raised by flush and close.
"""

import contextlib
import functools
import getpass
import json
import os
import secrets
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from descentlab.harness.config import Config, InputError, Option
from descentlab.harness.tracking import checksums, contents
from descentlab.harness.tracking.interrupts import terminable
from descentlab.harness.tracking.store import EXPERIMENT, Store, one_line, open_store, shown, store_errors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from descentlab.harness.data import Dataset
    from descentlab.nn.trainer import Record, Training

CELL_POINTS = 200  # logged epochs that a cell shows in the store; the whole curves are in its Parquet
FLUSH_POINTS = 20  # of those that came since the last flush
CHILD_POINTS = 20  # likewise of a restart's losses and scores
CHILD_LAYER_POINTS = 2  # likewise of norms per layer; a row costs 0.1 ms, and a sweep has many restarts
FIGURE_POINTS = 400  # likewise that its figure shows
FLUSH_SECONDS = 60.0  # a longer cell shows its means while it trains
QUEUED_CELLS = 2  # cells that may wait to be written, weights and all
DIGEST_LENGTH = 16  # of the data's hash, of which MLflow takes 36 characters and shows them all
REASON_LENGTH = 1000  # MLflow cuts tags at 8000 characters


class CellRun:
    """One configuration being trained and kept; made by `Tracker.cell`.

    Attributes:
        run_id: of the run in the store; None where nothing is kept.
        name: short and telling.
    """

    run_id: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished = False  # the training was handed over

    def record(self, record: "Record") -> None:
        """Take note of a logged epoch; a long cell's are written once a minute."""

    def finish(
        self,
        training: "Training",
        figures: "Mapping[str, Figure] | None" = None,
        judgement: "pd.DataFrame | None" = None,
    ) -> None:
        """Keep the finished training.

        Args:
            training: of all restarts.
            figures: name -> Figure, drawn beside the learning curves.
            judgement: what a judge said of the restarts, as `judges.judged`.
        """
        self.finished = True


class _TrackedCell(CellRun):
    def __init__(self, tracker: "_StoreTracker", config: Config, tags: dict[str, str]) -> None:
        super().__init__(config.name)
        self._tracker, self._config, self._tags = tracker, config, tags
        self._began = self._ended = contents.milliseconds()
        self.run_id = tracker.create_run(config.name, tags, self._began)
        self._times: dict[int, int] = {}  # logged epoch -> timestamp
        self._pending: list[Record] = []
        self._written: set[int] = set()
        self._flushed = time.monotonic()
        self.ended = False  # the run in the store is no longer open

    def start(self, dataset: "Dataset | None") -> None:
        """Write what is known before training."""
        from mlflow.entities import Param

        client, run_id = self._tracker.client, self.run_id
        client.log_batch(run_id, params=[Param(key, value) for key, value in contents.params(self._config).items()])
        if dataset is not None:
            client.log_inputs(run_id, datasets=[_dataset_input(dataset)])
        client.log_text(run_id, self._config_text(), "config.json")

    def _config_text(self) -> str:
        return json.dumps(contents.recorded(self._config), indent=2) + "\n"

    def record(self, record: "Record") -> None:
        """Take note of a logged epoch; a long cell's are written once a minute."""
        self._times[record.epoch] = contents.milliseconds()
        self._pending.append(record)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._tracker.submit(self, functools.partial(self._write_records, self._some_pending()))

    def _some_pending(self) -> "list[Record]":
        pending, self._pending = self._pending, []
        return [pending[place] for place in contents.thinned(len(pending), FLUSH_POINTS)]

    def _write_records(self, records: "Sequence[Record]") -> None:
        metrics = []
        for record in records:
            series = contents.cell_series({name: values[None, :] for name, values in record.metrics.items()})
            metrics += self._metrics(series, [record.epoch])
            self._written.add(record.epoch)
        self._tracker.client.log_batch(self.run_id, metrics=metrics)

    def _metrics(self, series: Mapping[str, ndarray], epochs: Sequence[int] | ndarray) -> list[Any]:
        """MLflow's rows of the finite values of series (name -> (P,)); it would store inf as a number and NaN as 0."""
        from mlflow.entities import Metric

        now = contents.milliseconds()
        points = [(epoch, self._times.get(epoch, now)) for epoch in map(int, epochs)]
        return [
            Metric(name, value, timestamp, epoch)
            for name, values in series.items()
            for value, (epoch, timestamp) in zip(values.tolist(), points, strict=True)
            if np.isfinite(value)
        ]

    def finish(
        self,
        training: "Training",
        figures: "Mapping[str, Figure] | None" = None,
        judgement: "pd.DataFrame | None" = None,
    ) -> None:
        """Hand the finished training over to be written."""
        self._ended = contents.milliseconds()  # not when it is written
        self._pending.clear()
        job = functools.partial(self._write, training, dict(figures or {}), judgement)
        self._tracker.submit(self, job, heavy=True)
        self.finished = True

    def _write(self, training: "Training", figures: "dict[str, Figure]", judgement: "pd.DataFrame | None") -> None:
        from mlflow.entities import RunTag

        client, run_id = self._tracker.client, self.run_id
        shown = contents.thinned(len(training.epochs), CELL_POINTS)
        left = np.array([place for place in shown if int(training.epochs[place]) not in self._written], dtype=np.int64)
        series = contents.cell_series({name: values[left] for name, values in training.curves.items()})
        lost = int((training.diverged_epoch >= 0).sum())
        tags = {
            "outcome": "finite" if not lost else "diverged" if lost == len(training.seeds) else "mixed",
            "diverged": str(lost),
            "wall_seconds": f"{training.seconds:.3f}",
        }
        if len(training.seeds) == 1:
            tags |= contents.verdict_tags(training, 0, judgement)
        metrics = self._metrics(series, training.epochs[left])
        if len(training.seeds) > 1:
            counts = contents.outcome_counts(training, judgement)
            metrics += self._metrics({name: np.array([count]) for name, count in counts.items()}, training.epochs[-1:])
        with tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
            self._write_artifacts(training, figures, judgement, Path(folder))
            tags |= checksums.seal(Path(folder), {"config.json": self._config_text().encode()})
            client.log_batch(run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])
            client.log_artifacts(run_id, folder)
        for row, stands_for in contents.with_own_run(training, self._tracker.children, judgement).items():
            self._write_child(training, row, stands_for, judgement)
        client.set_terminated(run_id, status="FINISHED", end_time=self._ended)
        self.ended = True

    def _write_artifacts(
        self,
        training: "Training",
        drawn: "dict[str, Figure]",
        judgement: "pd.DataFrame | None",
        folder: Path,
    ) -> None:
        from descentlab.harness import figures

        curves = contents.curve_table(training)
        curves.to_parquet(folder / "curves.parquet", index=False)
        restarts = contents.restart_table(training, judgement)
        restarts.to_parquet(folder / "restarts.parquet", index=False)
        contents.write_weights(training, folder)
        drawn_epochs = training.epochs[contents.thinned(len(training.epochs), FIGURE_POINTS)]
        shown = curves.loc[
            curves["epoch"].isin(drawn_epochs), [c for c in curves if contents.is_score(c) or "/" not in c]
        ]
        about = {"cell": self.name, "data": self._config.data.name, "loss": self._config.loss.name}
        figure = figures.learning_curves(contents.long_form(shown.assign(**about)))
        figures.save(figure, folder / "learning_curves.png", dpi=100)
        if len(restarts) > 1:
            title = f"Where the {len(restarts)} restarts of {self.name} ended"
            figure = figures.ends(restarts.assign(**about), contents.telling(restarts), title=title)
            figures.save(figure, folder / "spread.png", dpi=100)
        for name, figure in drawn.items():
            figures.save(figure, folder / f"{contents.safe_name(name)}.png")

    def _write_child(self, training: "Training", row: int, stands_for: str, judgement: "pd.DataFrame | None") -> None:
        from mlflow.entities import Param

        seed = int(training.seeds[row])
        config = replace(self._config, seed=seed, restarts=1)
        shared = ("sweep", "cell_hash", "mlflow.user")
        tags: dict[str, str] = {key: self._tags[key] for key in shared}
        tags |= {
            "level": "restart",
            "mlflow.parentRunId": str(self.run_id),
            "config_hash": config.hash,
            **contents.verdict_tags(training, row, judgement),
        }
        if stands_for:
            tags["stands_for"] = stands_for
        client = self._tracker.client
        run_id = self._tracker.create_run(f"s{seed}", tags, self._began)
        metrics = []
        for scores, most in ((True, CHILD_POINTS), (False, CHILD_LAYER_POINTS)):
            kept = contents.thinned(len(training.epochs), most)
            series = {
                name: curve[kept, row] for name, curve in training.curves.items() if contents.is_score(name) == scores
            }
            metrics += self._metrics(series, training.epochs[kept])
        settings = [Param(key, value) for key, value in contents.params(config).items()]
        client.log_batch(run_id, metrics=metrics, params=settings)
        client.set_terminated(run_id, status="FINISHED", end_time=self._ended)

    def abandon(self, error: BaseException) -> None:
        """Mark the run as killed or failed, with what was measured until then."""
        records = self._some_pending()

        def job() -> None:
            if not self.ended:
                with contextlib.suppress(Exception):  # a broken store must not hide why the run ended
                    self._write_records(records)
                self.ended = True
                self._tracker.mark(str(self.run_id), error)

        self._tracker.submit(self, job).result()


def _dataset_input(dataset: "Dataset") -> Any:
    """A dataset as MLflow's input; without a source, since MLflow refuses schemes it does not know."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shapes = {name: {"inputs": list(x.shape), "targets": list(y.shape)} for name, (x, y) in dataset.splits.items()}
    rows = {f"{name}_rows": len(x) for name, (x, _) in dataset.splits.items()}
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {}}),
        schema=json.dumps({"task": dataset.task, "splits": shapes}),
        profile=json.dumps(rows),
    )
    return DatasetInput(dataset=entity, tags=[InputTag("mlflow.data.context", "training")])


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
            from descentlab.harness import figures

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
        self.sweep = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)

    def __enter__(self) -> "Tracker":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write what is left; a run still open when an error ended the work is marked with it."""
        self.close(error)

    @contextlib.contextmanager
    def cell(
        self, config: Config, dataset: "Dataset | None" = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[CellRun]:
        """Open a run for one configuration; leaving it by an exception marks it FAILED, or KILLED by Ctrl-C."""
        yield CellRun(config.name)

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
    def __init__(self, store: Store, children: str) -> None:
        super().__init__()
        self.store, self.client, self.children = store, store.client, children
        self.location = f"experiment {store.experiment} in {shown(store.uri)}"
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._heavy: deque[Future] = deque()
        self._failed: tuple[str, BaseException] | None = None  # the first cell that could not be written, and why
        self._closed = False
        self._signals = contextlib.ExitStack()
        self._signals.enter_context(terminable())

    def close(self, error: BaseException | None = None) -> None:
        """Flush and end; `error` is why the work ended early."""
        try:
            self._writer.shutdown(wait=True)
            if error is not None:  # it may have struck between a run's creation and its being known here
                with contextlib.suppress(Exception):
                    for run in self._running(f"tags.process = '{self._process}'"):
                        self.mark(run.info.run_id, error)
        finally:
            self._closed = True
            self._signals.close()
        if error is None:
            self._raise()

    def flush(self) -> None:
        """Wait until everything is written; raise what went wrong with it."""
        if not self._closed:
            self._writer.submit(lambda: None).result()
        self._raise()

    def opened(self) -> Store:
        """The store for reading, with everything written."""
        self.flush()
        return self.store

    def submit(self, run: _TrackedCell, job: Callable[[], None], heavy: bool = False) -> Future:
        """Queue a job of a run for the writing thread; with a heavy one, wait while too many of them are queued."""
        while heavy and len(self._heavy) >= QUEUED_CELLS:
            self._heavy.popleft().result()

        def work() -> None:
            if run.ended:
                return
            try:
                job()
            except BaseException as error:
                run.ended = True
                self._failed = self._failed or (run.name, error)
                self.mark(str(run.run_id), error)

        future = self._writer.submit(work)
        if heavy:
            self._heavy.append(future)
        return future

    def _raise(self) -> None:
        """Raise what went wrong in the writing thread, once."""
        if self._failed is not None:
            (name, error), self._failed = self._failed, None
            error.add_note(f"while keeping {name}")
            with store_errors(self.store.uri):
                raise error

    def mark(self, run_id: str, error: BaseException) -> None:
        """Mark a run as killed or failed, and with it the restart of it that was being written."""
        status = "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) else "FAILED"
        reason = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        with contextlib.suppress(Exception):  # what broke the store must not be hidden by what it breaks
            children = self._running(f"tags.`mlflow.parentRunId` = '{run_id}'")
            for marked in [run_id, *(child.info.run_id for child in children)]:
                self.client.set_tag(marked, "reason", reason[:REASON_LENGTH])
                self.client.set_terminated(marked, status=status)

    def _running(self, query: str) -> list[Any]:
        return self.client.search_runs([self.store.experiment_id], f"attributes.status = 'RUNNING' and {query}")

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

    @contextlib.contextmanager
    def cell(
        self, config: Config, dataset: "Dataset | None" = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[CellRun]:
        """Open a run for one configuration; leaving it by an exception marks it FAILED, or KILLED by Ctrl-C."""
        hashes = {"config_hash": config.hash, "cell_hash": config.cell_hash}
        with store_errors(self.store.uri):
            run = _TrackedCell(self, config, self._tags("cell", tags) | hashes)
        try:
            self.submit(run, functools.partial(run.start, dataset))
            yield run
            if not run.finished:
                raise RuntimeError(f"{config.name}: its run was left before finish()")
        except BaseException as error:
            if not run.finished:
                run.abandon(error)
            raise

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
    return _StoreTracker(open_store(option, experiment), children)
