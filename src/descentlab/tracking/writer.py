"""Who writes cells: this process, and where there is much to write a second one.

A restart costs MLflow's client about 20 ms, nearly all of it Python above the database, and SQLite's lock is held for a
small part of that. Written by a thread they would take Python's lock from the training beside it. So where there is
much to write a process does it, whole cells with their tables and figures, which takes two seconds to start; while
training waits for it, this process writes too. It ends with this process, however that ends.
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
from descentlab.tracking.trained_cell import NewCell, TrainedCell

SECOND_PROCESS_WORK = 150  # restarts' worth of writing from which a second process is worth its start
CELL_WORK = 15  # restarts that a cell's tables, weights and figures cost as much as
RESTARTS_AT_ONCE = 4  # restarts that it gets at once
PAUSE_SECONDS = 0.02  # how often the first process looks whether it has to help


class CellWriter:
    """Writes into one experiment of a store, for one thread; `expect` and `hurry` are another's."""

    def __init__(self, store: Store) -> None:
        """Start nothing yet."""
        self._store = store
        self._expected = self._seen = self._waiting = 0
        self._worker: Worker | None = None
        self._starting = threading.Lock()
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._ready = threading.Event()  # the second process has opened the store

    @contextlib.contextmanager
    def urgently(self) -> Iterator[None]:
        """Someone waits meanwhile: the first process helps."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def expect(self, cells: int, restarts: int) -> None:
        """Be ready for so many more cells, with so many runs of restarts in all."""
        self._expected += CELL_WORK * cells + restarts
        self._start_for(self._expected)

    def open(self, opening: NewCell) -> None:
        """Write what is known before training."""
        if self._ready.is_set():
            with contextlib.suppress(WorkerGone):
                self._asking.submit(self._ask, "open", opening).result()
                return
        opening.write(self._store)

    def write(self, cell: TrainedCell) -> None:
        """Write a trained cell; when this returns or raises, nobody writes any more.

        Raises:
            MlflowException: and what else the client raises; what was not begun by then is not written.
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
        heap = _Queue(rows)
        there = self._asking.submit(self._there, cell, heap) if self._worker else None
        taken = False
        try:
            self._here(cell, heap)
        finally:
            if there is not None:
                taken = there.result()
        if taken:
            self._asking.submit(self._ask, "conclude").result()
        else:
            cell.conclude(self._store)

    def _here(self, cell: TrainedCell, heap: "_Queue") -> None:
        with heap.closed_by_errors():
            while not heap.empty:
                if self._ready.is_set() and not self._waiting and not heap.only_here:
                    time.sleep(PAUSE_SECONDS)
                else:
                    _write_parts(self._store, cell, heap.take(1))

    def _there(self, cell: TrainedCell, heap: "_Queue") -> bool:
        """Have the second process write, once it is up; whether it knows the cell."""
        with heap.closed_by_errors():
            while not self._ready.wait(PAUSE_SECONDS):
                if heap.empty:
                    return False
            try:
                self._ask("take", cell)
            except NotSent:
                heap.only_here = True
                return False
            while not heap.empty:
                self._ask("write", heap.take(RESTARTS_AT_ONCE))
        return True

    def _start_for(self, work: int) -> None:
        with self._starting:
            if self._worker is None and work >= SECOND_PROCESS_WORK and self._store.uri.startswith("sqlite:"):
                self._start()

    def _start(self) -> None:
        with contextlib.suppress(OSError):  # one that does not come up is not needed
            self._worker = worker = Worker()
            threading.Thread(target=self._await, args=(worker,), name="writer-start", daemon=True).start()

    def _await(self, worker: Worker) -> None:
        with contextlib.suppress(Exception):  # likewise
            worker.hold(RemoteWriter(self._store))
            worker.call("open_store")
            self._ready.set()

    def _ask(self, method: str, *arguments: Any) -> None:
        assert self._worker is not None
        try:
            self._worker.call(method, *arguments)
        except WorkerGone:  # what comes after is written here
            self._ready.clear()
            raise

    def close(self) -> None:
        """End the second process, with nothing left to write."""
        self._asking.shutdown()
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class RemoteWriter:
    """What the second process holds: the store, and the cell that it helps with."""

    def __init__(self, store: Store) -> None:
        """Take along where the store is, but not its client."""
        self._place = store.uri, store.experiment, store.experiment_id

    def open_store(self) -> None:
        """Open the store."""
        uri, experiment, experiment_id = self._place
        self._store = Store(open_client(uri), uri, experiment, experiment_id)

    def open(self, opening: NewCell) -> None:
        """Write what is known before training."""
        opening.write(self._store)

    def take(self, cell: TrainedCell) -> None:
        """Have this cell in hand from now on."""
        self._cell = cell

    def write(self, parts: "Sequence[Part]") -> None:
        """Write some of it."""
        _write_parts(self._store, self._cell, parts)

    def conclude(self) -> None:
        """Let it stand, with everything written."""
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
    """The parts of a cell, which two threads take from."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        self._parts: deque[Part] = deque([None, *rows.items()])
        self._lock = threading.Lock()
        self.only_here = False  # the second process cannot take them

    @property
    def empty(self) -> bool:
        return not self._parts

    def take(self, count: int) -> list[Part]:
        """Up to so many restarts, or the cell alone."""
        with self._lock:
            if self._parts and self._parts[0] is None:
                return [self._parts.popleft()]
            return [self._parts.popleft() for _ in range(min(count, len(self._parts)))]

    @contextlib.contextmanager
    def closed_by_errors(self) -> Iterator[None]:
        """Where one thread fails, the other takes nothing any more."""
        try:
            yield
        except BaseException:
            with self._lock:
                self._parts.clear()
            raise
