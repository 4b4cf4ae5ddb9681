"""The runs of restarts, written by two processes where there are many.

A restart costs MLflow's client about 20 ms, nearly all of it Python above the database, and SQLite's lock is held for a
small part of that. So from the hundredth restart on a second process writes beside this one; it takes two seconds to
start. It gets plain values over a pipe, and it ends with this process, however that ends.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from descentlab.harness.tracking.store import Store, client_of, one_line

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param

MANY = 100  # restarts from which a second process is worth its start
BATCH = 4  # restarts that it gets at once
LOOK_SECONDS = 0.1  # how often it looks whether the first process is alive


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
    """Writes restarts into one experiment of a store; used by one thread."""

    def __init__(self, store: Store) -> None:
        """Start nothing yet."""
        self._store = store
        self._seen = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()  # the second process has opened the store

    def write(self, restarts: Iterator[Restart], count: int) -> None:
        """Write so many restarts; when this returns or raises, nobody writes any more.

        Raises:
            MlflowException: and what else the client raises; what was not begun by then is not written.
        """
        self._seen += count
        if self._process is None and self._seen >= MANY and self._store.uri.startswith("sqlite:"):
            self._start()
        heap = _Heap(restarts)
        if self._process is None:
            self._here(heap)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="scribe") as pool:
            other = pool.submit(self._there, heap)
            self._here(heap)
            other.result()

    def _here(self, heap: "_Heap") -> None:
        with heap.closed_by_errors():
            while taken := heap.take(1):
                _write(self._store.client, str(self._store.experiment_id), taken[0])

    def _there(self, heap: "_Heap") -> None:
        from mlflow.exceptions import MlflowException

        with heap.closed_by_errors():
            while not heap.empty:
                if self._ready.wait(0.05) and (taken := heap.take(BATCH)):
                    try:
                        problem = _answer(self._process, taken)
                    except (OSError, EOFError) as error:
                        raise MlflowException("the process that writes beside this one is gone") from error
                    if problem:
                        raise MlflowException(problem)

    def _start(self) -> None:
        code = "from descentlab.harness.tracking import scribe; scribe.serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, self._store.uri, str(self._store.experiment_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the first process, which decides what becomes of this one
        )
        self._process = process

        def await_it() -> None:
            with contextlib.suppress(OSError, EOFError, ValueError):  # one that does not come up is not needed
                _answer(process)
                self._ready.set()

        threading.Thread(target=await_it, name="scribe-start", daemon=True).start()

    def close(self) -> None:
        """End the second process."""
        if self._process is not None:
            self._process.kill()  # it holds nothing: whatever it was given is written
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None


def _answer(process: "subprocess.Popen[bytes] | None", restarts: Sequence[Restart] = ()) -> str:
    """What the second process says of these restarts, or of itself: "" or what went wrong."""
    if process is None or process.stdin is None or process.stdout is None:
        raise EOFError
    if restarts:
        pickle.dump(restarts, process.stdin)
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


def serve() -> None:
    """The second process: write what comes over standard input, answer "" or what went wrong."""
    parent = os.getppid()

    def look() -> None:  # a pipe tells of a dead parent too, unless others hold it open
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
    work, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    uri, experiment_id = sys.argv[1:]
    client = client_of(uri)

    def answer(text: str) -> None:
        pickle.dump(text, answers)
        answers.flush()

    answer("")
    while True:
        try:
            restarts = pickle.load(work)
        except EOFError:
            os._exit(0)
        try:
            for restart in restarts:
                _write(client, experiment_id, restart)
        except Exception as error:
            answer(one_line(error) or type(error).__name__)
        else:
            answer("")
