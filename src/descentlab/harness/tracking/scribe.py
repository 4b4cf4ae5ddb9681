"""A second process that writes restarts' runs and draws cells' figures, where there are many restarts.

A restart costs MLflow's client about 20 ms, nearly all of it Python above the database, and SQLite's lock is held for a
small part of that. Written by a thread they would take Python's lock from the training beside it. So from the hundredth
restart on a process does it, which takes two seconds to start; while training waits for it, this process writes too.
It gets its work over a pipe, and ends with this process, however that ends.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from descentlab.harness.tracking.store import Store, client_of, one_line
from descentlab.nn import workers

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param

MANY = 100  # restarts from which a second process is worth its start
BATCH = 4  # restarts that it gets at once
PAUSE_SECONDS = 0.02  # how often the first process looks whether it has to help


@dataclass(frozen=True)
class Restart:
    """What is kept of one restart: a finished run, whose parent is among its tags; times in milliseconds."""

    name: str
    tags: dict[str, str]
    params: "list[Param]"
    metrics: "list[Metric]"
    began: int
    ended: int


class Scribe:
    """Writes into one experiment of a store, for one thread."""

    def __init__(self, store: Store) -> None:
        """Start nothing yet."""
        self._store = store
        self._seen = self._waiting = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="scribe")
        self._ready = threading.Event()  # the second process has opened the store

    @contextlib.contextmanager
    def hurry(self) -> Iterator[None]:
        """Someone waits meanwhile: the first process helps; entered by one thread."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def call(self, function: Callable[..., None], *arguments: Any) -> "Future[None]":
        """Have a function of some module called in the second process; at once in this one where there is none."""
        if self._ready.is_set():
            return self._asking.submit(self._ask, function, *arguments)
        done: Future[None] = Future()
        function(*arguments)
        done.set_result(None)
        return done

    def write(self, restarts: Iterator[Restart], count: int) -> None:
        """Write so many restarts; when this returns or raises, nobody writes any more.

        Raises:
            MlflowException: and what else the client raises; what was not begun by then is not written.
        """
        self._seen += count
        if self._process is None and self._seen >= MANY and self._store.uri.startswith("sqlite:"):
            self._start()
        heap = _Heap(restarts)
        there = self._asking.submit(self._there, heap) if self._process else None
        try:
            self._here(heap)
        finally:
            if there is not None:
                there.result()

    def _here(self, heap: "_Heap") -> None:
        with heap.closed_by_errors():
            while not heap.empty:
                if self._ready.is_set() and not self._waiting:
                    time.sleep(PAUSE_SECONDS)
                    continue
                for restart in heap.take(1):
                    _write(self._store.client, str(self._store.experiment_id), restart)

    def _there(self, heap: "_Heap") -> None:
        with heap.closed_by_errors():
            while not heap.empty:
                if self._ready.wait(PAUSE_SECONDS) and (taken := heap.take(BATCH)):
                    self._ask(_write_all, taken)

    def _start(self) -> None:
        self._process = process = workers.start(__name__, self._store.uri, str(self._store.experiment_id))

        def await_it() -> None:
            with contextlib.suppress(OSError, EOFError, ValueError):  # one that does not come up is not needed
                _answer(process)
                self._ready.set()

        threading.Thread(target=await_it, name="scribe-start", daemon=True).start()

    def _ask(self, function: Callable[..., None], *arguments: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            problem = _answer(self._process, (function, arguments))
        except (OSError, EOFError) as error:
            raise MlflowException("the process that writes beside this one is gone") from error
        if problem:
            raise MlflowException(problem)

    def close(self) -> None:
        """End the second process, with nothing left to write."""
        self._asking.shutdown()
        if self._process is not None:
            workers.end(self._process)
            self._process = None


def _answer(process: "subprocess.Popen[bytes] | None", work: "tuple[Callable, tuple] | None" = None) -> str:
    """What the second process says of its work, or of itself: "" or what went wrong."""
    if process is None or process.stdin is None or process.stdout is None:
        raise EOFError
    if work:
        pickle.dump(work, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    return str(pickle.load(process.stdout))


class _Heap:
    """Restarts that two threads take from."""

    def __init__(self, restarts: Iterator[Restart]) -> None:
        self._restarts = restarts
        self._lock = threading.Lock()
        self.empty = False

    def take(self, count: int) -> list[Restart]:
        with self._lock:
            taken = [] if self.empty else list(islice(self._restarts, count))
            self.empty = self.empty or len(taken) < count
        return taken

    @contextlib.contextmanager
    def closed_by_errors(self) -> Iterator[None]:
        """Where one thread fails, the other takes nothing any more."""
        try:
            yield
        except BaseException:
            self.empty = True
            raise


def _write(client: Any, experiment_id: str, restart: Restart) -> None:
    """By the client's own calls, since the fluent ones would nest the run by MLFLOW_RUN_ID."""
    run_id = client.create_run(experiment_id, restart.began, restart.tags, restart.name).info.run_id
    client.log_batch(run_id, metrics=restart.metrics, params=restart.params)
    client.set_terminated(run_id, status="FINISHED", end_time=restart.ended)


_opened: tuple[Any, str] | None = None  # in the second process: client and experiment


def _write_all(restarts: list[Restart]) -> None:
    """In the second process."""
    assert _opened is not None
    for restart in restarts:
        _write(*_opened, restart)


def serve() -> None:
    """The second process: do what comes over standard input, answer "" or what went wrong."""
    global _opened
    work, answers = workers.parent_pipes()
    uri, experiment_id = sys.argv[1:]
    _opened = client_of(uri), experiment_id

    def answer(text: str) -> None:
        pickle.dump(text, answers)
        answers.flush()

    answer("")
    while True:
        try:
            function, arguments = pickle.load(work)
        except EOFError:
            os._exit(0)
        try:
            function(*arguments)
        except Exception as error:
            answer(one_line(error) or type(error).__name__)
        else:
            answer("")
