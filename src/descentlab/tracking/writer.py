"""Write cells, in this process and, where there is much to write, in a second one.

MLflow's client takes about 20 ms for a restart, nearly all of it in Python, and SQLite's lock is held for a small part
of that. A thread would take Python's lock from the training. So where there is much to write, a second process writes
whole cells with their tables and figures; it takes two seconds to start. While the training waits, this process writes
too. The second process ends with this one, however that ends.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from descentlab.nn.workers import NotSent, Worker, WorkerGone
from descentlab.tracking.store import Store, open_client
from descentlab.tracking.trained_cell import TrainedCell, write_new

SECOND_PROCESS_WORK = 150  # of writing, in restarts: from here on a second process pays for its start
CELL_WORK = 15  # of a cell's tables, weights and figures, in restarts
RESTARTS_AT_ONCE = 4  # that the second process gets in one call
PAUSE_SECONDS = 0.02  # between checks whether the first process has to help


class CellWriter:
    """Writes into one experiment of a store, for one thread; other threads call `expect` and `urgently`."""

    def __init__(self, store: Store) -> None:
        """The second process starts later."""
        self._store = store
        self._expected = self._seen = self._waiting = 0
        self._worker: Worker | None = None
        self._starting = threading.Lock()
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._ready = threading.Event()  # the second process has opened the store

    @contextlib.contextmanager
    def urgently(self) -> Iterator[None]:
        """While someone waits, the first process writes too."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def expect(self, cells: int, restarts: int) -> None:
        """Start the second process early if this many cells with this many runs of restarts need it."""
        self._expected += CELL_WORK * cells + restarts
        self._start_for(self._expected)

    def write_new(self, *cell: Any) -> None:
        """Write what is known of a cell before training, as `trained_cell.write_new`."""
        if self._ready.is_set():
            with contextlib.suppress(WorkerGone):
                self._asking.submit(self._ask, "write_new", *cell).result()
                return
        write_new(self._store, *cell)

    def write(self, cell: TrainedCell) -> None:
        """Write a trained cell; after this returns or raises, neither process writes to it.

        Raises:
            MlflowException: or any other error of the client; rows that had not begun are not written.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._write(cell)
        except WorkerGone as error:
            raise MlflowException("the second writing process is gone; rerun the command to continue") from error

    def _write(self, cell: TrainedCell) -> None:
        rows = cell.rows(self._store)
        self._seen += CELL_WORK + len(rows)  # not all are expected
        self._start_for(self._seen)
        queue = _Queue(rows)
        there = self._asking.submit(self._there, cell, queue) if self._worker else None
        taken = False
        try:
            self._here(cell, queue)
        finally:
            if there is not None:
                taken = there.result()
        if taken:
            self._asking.submit(self._ask, "conclude").result()
        else:
            cell.conclude(self._store)

    def _here(self, cell: TrainedCell, queue: "_Queue") -> None:
        with queue.closed_by_errors():
            while not queue.empty:
                if self._ready.is_set() and not self._waiting and not queue.only_here:
                    time.sleep(PAUSE_SECONDS)
                else:
                    _write_parts(self._store, cell, queue.take(1))

    def _there(self, cell: TrainedCell, queue: "_Queue") -> bool:
        """Let the second process write once it is ready; whether it received the cell."""
        with queue.closed_by_errors():
            while not self._ready.wait(PAUSE_SECONDS):
                if queue.empty:
                    return False
            try:
                self._ask("take", cell)
            except NotSent:
                queue.only_here = True
                return False
            while not queue.empty:
                self._ask("write", queue.take(RESTARTS_AT_ONCE))
        return True

    def _start_for(self, work: int) -> None:
        with self._starting:
            if self._worker is None and work >= SECOND_PROCESS_WORK and self._store.uri.startswith("sqlite:"):
                self._start()

    def _start(self) -> None:
        with contextlib.suppress(OSError):  # this process can write alone
            self._worker = worker = Worker()
            threading.Thread(target=self._await, args=(worker,), name="writer-start", daemon=True).start()

    def _await(self, worker: Worker) -> None:
        with contextlib.suppress(Exception):  # this process can write alone
            worker.hold(RemoteWriter(self._store))
            worker.call("open_store")
            self._ready.set()

    def _ask(self, method: str, *arguments: Any) -> None:
        assert self._worker is not None
        try:
            self._worker.call(method, *arguments)
        except WorkerGone:  # this process writes the rest
            self._ready.clear()
            raise

    def close(self) -> None:
        """End the second process; everything is written."""
        self._asking.shutdown()
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class RemoteWriter:
    """The writer in the second process: holds the store and the cell that it is writing."""

    def __init__(self, store: Store) -> None:
        """Hold the address of the store; its client cannot be sent."""
        self._place = store.uri, store.experiment, store.experiment_id

    def open_store(self) -> None:
        """Open the store."""
        uri, experiment, experiment_id = self._place
        self._store = Store(open_client(uri), uri, experiment, experiment_id)

    def write_new(self, *cell: Any) -> None:
        """Write what is known of a cell before training."""
        write_new(self._store, *cell)

    def take(self, cell: TrainedCell) -> None:
        """Receive the cell to write."""
        self._cell = cell

    def write(self, parts: "Sequence[Part]") -> None:
        """Write some parts of it."""
        _write_parts(self._store, self._cell, parts)

    def conclude(self) -> None:
        """Mark it as finished."""
        self._cell.conclude(self._store)
        del self._cell


Part = tuple[int, str] | None  # a row and what it stands for; None is the cell itself


def _write_parts(store: Store, cell: TrainedCell, parts: Sequence[Part]) -> None:
    for part in parts:
        if part is None:
            cell.write_cell(store)
        else:
            cell.write_restart(store, *part)


class _Queue:
    """The parts of a cell that are still to be written; two threads take from it."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        self._parts: deque[Part] = deque([None, *rows.items()])
        self._lock = threading.Lock()
        self.only_here = False  # the second process cannot take them

    @property
    def empty(self) -> bool:
        return not self._parts

    def take(self, count: int) -> list[Part]:
        """Up to `count` restarts, or the cell alone."""
        with self._lock:
            if self._parts and self._parts[0] is None:
                return [self._parts.popleft()]
            return [self._parts.popleft() for _ in range(min(count, len(self._parts)))]

    @contextlib.contextmanager
    def closed_by_errors(self) -> Iterator[None]:
        """Where one thread fails, the other stops too."""
        try:
            yield
        except BaseException:
            with self._lock:
                self._parts.clear()
            raise
