"""Processes beside this one, each of which holds an object and calls its methods when asked.

They are started when first needed, get and give pickles over pipes, serve one training after the other, and end with
this process, however that ends. They are started anew and not forked, since a fork copies whatever lock another thread
happens to hold, and each holds BLAS to one thread.

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
LOOK_SECONDS = 0.1  # how often a worker looks whether its parent is alive
TELL_SECONDS = 0.05  # between two tidings of how far it is

Ask = Callable[..., list[Any]]


class NotSent(Exception):
    """No worker can hold the object: it or a part of it cannot be sent, or no process can be started."""


class WorkerGone(RuntimeError):
    """A worker has died, or was ended by another thread."""


@contextlib.contextmanager
def holding(objects: Sequence[object]) -> Iterator[Ask]:
    """Give each object to a worker of its own; nothing of it stays there when the context is left.

    Yields:
        `ask(method, *arguments, told=None)`, which has all workers call this method of their objects at the same time
        and returns what each returns. With `told` the method is given a function more, tell=tell, and the sums of the
        counts that it tells are handed to `told` every now and then, by a thread.

    Raises:
        NotSent: if any of them cannot be given away.
        WorkerGone: from `ask`, if a worker has died; what else a method raises is raised again.
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


def warm() -> int:
    """How many workers are up and have nothing to do."""
    return sum(worker.owner == os.getpid() for worker in _idle)


_idle: "list[Worker]" = []
_lock = threading.Lock()


def _taken(count: int) -> "list[Worker]":
    """So many workers: those that are idle, and new ones."""
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
        """Start it; it is up when it first answers."""
        self.process = _start()
        self.owner = os.getpid()  # a fork of it has the pipes too, but must not use them
        self.busy = False

    def hold(self, value: object) -> None:
        """Give it the object whose methods are to be called, in place of the one before."""
        self.answer(_packed((None, value)))

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of what it holds; what that raises is raised again."""
        return self.answer(_packed((method, (arguments, False))))

    def answer(self, request: Sequence[memoryview], told: Callable[[int], None] | None = None) -> Any:
        """Send a request, pass on what is told meanwhile, return what comes of it."""
        work, answers = self.process.stdin, self.process.stdout
        try:
            _write(work, request)
            kind, content = _read(answers)
            while kind == "told":
                if told:
                    told(content)
                kind, content = _read(answers)
        except (OSError, EOFError) as error:
            raise WorkerGone(f"a process that worked for this one is gone: {self._fate()}") from error
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
        """Let go of the object and be there for the next one; a worker that is busy with something ends."""
        if not self.busy and self.owner == os.getpid():
            with contextlib.suppress(RuntimeError, ValueError):  # its pipes may be closed, where all comes to an end
                self.busy = True
                self.hold(None)
                with _lock:
                    _idle.append(self)
                return
        self.end()

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.owner != os.getpid():
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written
                    pipe.close()


def _start() -> "subprocess.Popen[bytes]":
    """A process that calls serve(), of the packages that this one sees; BLAS has one thread in it.

    Ctrl-C in a terminal is not for it: this process decides what becomes of it.
    """
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
    """Do what standard input asks for, and answer on standard output, until the parent is gone."""
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
    """What its parent sends, and where its answers go; from now on it ends with its parent."""
    parent = os.getppid()

    def look() -> None:  # while it works nobody reads the pipe; and others may hold it open
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    return sys.stdin.buffer, answers


def _portable(error: Exception) -> Exception:
    """An exception as it may leave a worker, with where it happened; not every one survives the journey."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a process that works for this one:\n{where}")
    return error


# --- messages ----------------------------------------------------------------------------------------------------


def _packed(value: object) -> list[memoryview]:
    """A pickle, and the arrays in it where they lie; functions that cannot be found by name go as their code.

    Raises:
        NotSent: if it cannot be pickled.
    """
    import cloudpickle  # late: it is slow to load, and most trainings never need it

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
