"""Worker processes, each of which holds an object and calls its methods on request.

They start when they are first needed, exchange pickles over pipes, serve one training after the other, and end with
this process in any case. They are not forked, because a fork copies the locks that other threads hold. BLAS runs on one
thread in them.

loky's reusable executor was tried in their place: bits are the same, but its tasks keep no state, so that parameters
and random streams travel at every logged epoch. 1000 nets of 64-32-10 over 20 epochs on two cores take 2.06 times as
long (float32, wall time, 5 pairs, 1.91 to 2.35).
"""

import atexit
import contextlib
import io
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, BinaryIO

BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
LOOK_SECONDS = 0.1  # between two checks that the parent is alive
TELL_SECONDS = 0.05  # between two reports of progress

Ask = Callable[..., list[Any]]


class NotSent(Exception):
    """No worker can hold the object: it or a part of it cannot be sent, or no process can be started."""


class WorkerGone(RuntimeError):
    """A worker has died, or was ended by another thread."""


@contextlib.contextmanager
def holding(objects: Sequence[object]) -> Iterator[Ask]:
    """Send each object to a worker of its own, which drops it when the context ends.

    Yields:
        `ask(method, *arguments, told=None)`: all workers call this method of their objects at the same time; returns
        their results. With `told` the method gets one more argument, tell=tell; a thread passes the sums of the counts
        that the method reports by it to `told`, several times a second.

    Raises:
        NotSent: if an object cannot be sent.
        WorkerGone: from `ask`, if a worker has died. An exception of a method is raised again.
    """
    sent = [_packed((None, one)) for one in objects]
    workers = _taken(len(objects))
    try:
        with ThreadPoolExecutor(len(workers), thread_name_prefix="worker") as pool:

            def all_of(requests: Sequence[Sequence[memoryview]], told: Callable[[int], None] | None) -> list[Any]:
                for worker in workers:
                    worker.busy = True
                pending = [pool.submit(worker.answer, one, told) for worker, one in zip(workers, requests, strict=True)]
                return [future.result() for future in pending]

            def ask(method: str, *arguments: Any, told: Callable[[int], None] | None = None) -> list[Any]:
                return all_of([_packed((method, (arguments, told is not None)))] * len(workers), told)

            try:
                try:
                    all_of(sent, None)
                except Exception as error:
                    raise NotSent(str(error)) from error
                sent.clear()
                yield ask
            finally:
                for worker in workers:
                    if worker.busy and worker.owner == os.getpid():  # the pool would wait for what it does
                        worker.process.kill()
    finally:
        for worker in workers:
            worker.leave()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warm() -> int:
    """The number of workers that are up and idle."""
    return sum(worker.owner == os.getpid() for worker in _idle)


_idle: "list[Worker]" = []
_lock = threading.Lock()


def _taken(count: int) -> "list[Worker]":
    """Workers, idle ones first, then new ones."""
    taken: list[Worker] = []
    with _lock:
        while _idle and len(taken) < count:
            worker = _idle.pop()
            if worker.owner == os.getpid() and worker.process.poll() is None:
                taken.append(worker)
            else:
                worker.end()
    try:
        while len(taken) < count:
            taken.append(Worker())
    except OSError as error:
        for worker in taken:
            worker.leave()
        raise NotSent(str(error)) from error
    return taken


@atexit.register
def _end_all() -> None:
    for worker in _idle:
        worker.end()


class Worker:
    """A process that serves this one, for one thread at a time."""

    def __init__(self) -> None:
        """Start the process; it is up when it first answers."""
        self.process = _start()
        self.owner = os.getpid()  # a fork of it has the pipes too, but must not use them
        self.busy = False

    def hold(self, value: object) -> None:
        """Send the object whose methods are to be called; it replaces the one before."""
        self.answer(_packed((None, value)))

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object that it holds; an exception of the method is raised again."""
        return self.answer(_packed((method, (arguments, False))))

    def answer(self, request: Sequence[memoryview], told: Callable[[int], None] | None = None) -> Any:
        """Send a request, pass on reports of progress, return the result."""
        work, answers = self.process.stdin, self.process.stdout
        try:
            _write(work, request)
            kind, content = _read(answers)
            while kind == "told":
                if told:
                    told(content)
                kind, content = _read(answers)
        except (OSError, EOFError) as error:
            raise WorkerGone(f"a worker process is gone: {self._fate()}") from error
        self.busy = False
        if kind == "raised":
            raise content
        return content

    def _fate(self) -> str:
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return f"killed by signal {-code}, out of memory perhaps" if code < 0 else f"exit status {code}"

    def leave(self) -> None:
        """Drop the object and become idle; a busy worker is ended."""
        if not self.busy and self.owner == os.getpid():
            with contextlib.suppress(RuntimeError, ValueError):  # the pipes may be closed at exit
                self.busy = True
                self.hold(None)
                with _lock:
                    _idle.append(self)
                return
        self.end()

    def end(self) -> None:
        """End the process at once."""
        if self.owner != os.getpid():
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written
                    pipe.close()


def _start() -> "subprocess.Popen[bytes]":
    """A process that calls serve() with this one's sys.path. Ctrl-C in a terminal does not reach it."""
    code = f"import importlib, sys; sys.path[:] = {sys.path!r}; importlib.import_module({__name__!r}).serve()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict.fromkeys(BLAS, "1"),
        start_new_session=True,
    )


# --- the worker's side -------------------------------------------------------------------------------------------


def serve() -> None:
    """Read requests from standard input and answer on standard output until the parent is gone."""
    work, answers = _parent_pipes()
    held: object = None
    untold, last = 0, time.monotonic()

    def tell(count: int) -> None:
        nonlocal untold, last
        untold += count
        if time.monotonic() - last >= TELL_SECONDS:
            _write(answers, _packed(("told", untold)))
            untold, last = 0, time.monotonic()

    while True:
        try:
            method, content = _read(work)
            answer = None
            if method is None:
                held = content
            else:
                arguments, tells = content
                answer = getattr(held, method)(*arguments, **({"tell": tell} if tells else {}))
            if untold:
                _write(answers, _packed(("told", untold)))
                untold = 0
            packed = _packed(("done", answer))
        except EOFError:
            os._exit(0)
        except Exception as error:
            untold = 0
            packed = _packed(("raised", _portable(error)))
        _write(answers, packed)


def _parent_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes from and to the parent; from now on this process ends with its parent."""
    parent = os.getppid()

    def look() -> None:  # a busy worker does not read the pipe, and other processes may hold it open
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with answers
    return sys.stdin.buffer, answers


def _portable(error: Exception) -> Exception:
    """An exception that can be pickled, with a note of where it happened."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker process:\n{where}")
    return error


# --- messages ----------------------------------------------------------------------------------------------------


def _packed(value: object) -> list[memoryview]:
    """A pickle, and the arrays in it where they lie; functions that cannot be found by name go as their code.

    Raises:
        NotSent: if it cannot be pickled.
    """
    import cloudpickle  # late: it is slow to load and seldom needed

    arrays: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    try:
        cloudpickle.Pickler(head, 5, buffer_callback=arrays.append).dump(value)
    except Exception as error:
        raise NotSent(str(error)) from error
    return [head.getbuffer(), *(array.raw() for array in arrays)]


def _write(pipe: IO[bytes] | None, parts: Sequence[memoryview]) -> None:
    assert pipe is not None
    pickle.dump([part.nbytes for part in parts], pipe)
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _read(pipe: IO[bytes] | None) -> Any:
    assert pipe is not None
    parts = [bytearray(size) for size in pickle.load(pipe)]
    for part in parts:
        if part and pipe.readinto(part) < len(part):  # type: ignore[attr-defined]
            raise EOFError
    return pickle.loads(parts[0], buffers=parts[1:])
