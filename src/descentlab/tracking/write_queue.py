"""The queue of jobs that write runs while the next cell trains: one thread, in order.

`flush` and `close` raise the first error of a job.
"""

import contextlib
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from descentlab.tracking import closing
from descentlab.tracking.locations import one_line, store_errors
from descentlab.tracking.store import Store
from descentlab.tracking.writer import CellWriter

QUEUED_CELLS = 4  # cells that may wait; a crash loses them
QUEUED_BYTES = 2**28  # of weights that may wait; a larger cell waits for those before it


class WriteQueue:
    """Jobs for the thread that writes into one store.

    Attributes:
        store: where the runs are.
        writer: writes trained cells.
        process: names this process in the tags of its runs.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.writer = store, CellWriter(store)
        self.process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._jobs = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._heavy: deque[tuple[Future, int]] = deque()  # waiting cells with the bytes of their weights
        self._failed: tuple[str, BaseException] | None = (
            None  # name and error of the first cell that could not be written
        )
        self._closed = False

    def submit(self, job: Callable[[], None], weight: int = 0) -> Future:
        """Queue a job; one with weights (bytes) waits here while too many are queued."""
        while self._heavy and self._heavy[0][0].done():
            self._heavy.popleft()
        while weight and self._heavy and self._too_many(weight):
            with self.writer.urgently():
                self._heavy.popleft()[0].result()
        future = self._jobs.submit(job)
        if weight:
            self._heavy.append((future, weight))
        return future

    def _too_many(self, weight: int) -> bool:
        return len(self._heavy) >= QUEUED_CELLS or sum(size for _, size in self._heavy) + weight > QUEUED_BYTES

    def drain(self) -> None:
        """Wait until every job is done, without raising the error of one."""
        if not self._closed:
            with self.writer.urgently():
                self._jobs.submit(lambda: None).result()

    def flush(self) -> None:
        """Wait until every job is done.

        Raises:
            InputError: the first failure since the last call, if the store caused it; any other as it is.
        """
        self.drain()
        self._raise()

    def close(self, error: BaseException | None = None) -> None:
        """Flush and end; `error` is why the work ended early: runs of this process that are still open get it."""
        try:
            with self.writer.urgently():
                self._jobs.shutdown(wait=True)
            if error is not None or closing.outages(
                self.store
            ):  # a run may have been created whose id never arrived here
                with contextlib.suppress(Exception):
                    for run_id in closing.running(self.store, f"tags.process = '{self.process}'"):
                        self.mark(run_id, error or RuntimeError("its creation was not confirmed"))
        finally:
            self._closed = True
            self.writer.close()
            self.store.shorten()
        if error is None:
            self._raise()

    def failed(self, name: str, run_id: str, error: BaseException) -> None:
        """Remember that a run could not be written, and mark it."""
        self._failed = self._failed or (name, error)
        self.mark(run_id, error)

    def _raise(self) -> None:
        if self._failed is not None:
            (name, error), self._failed = self._failed, None
            error.add_note(f"while storing {name}")
            with store_errors(self.store.uri):
                raise error

    def mark(self, run_id: str, error: BaseException) -> None:
        """Mark a run as killed or failed, and with it whatever restarts of it were written."""
        status = "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) else "FAILED"
        reason = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        with contextlib.suppress(Exception):  # an error of the store must not hide the one that is being reported
            closing.give_up(self.store, run_id, status, reason)

    def create_run(self, name: str, tags: Mapping[str, str], began: int | None = None) -> str:
        """Create a run; with the client's call, since MLflow's fluent one nests it by MLFLOW_RUN_ID."""
        return self.store.client.create_run(self.store.experiment_id, began, dict(tags), name).info.run_id
