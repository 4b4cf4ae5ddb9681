"""How a command ends: bad input in one line; SIGTERM and SIGHUP like Ctrl-C, so that open runs are marked."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from descentlab.values import InputError


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM or SIGHUP); handled like Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise Terminated(signal.Signals(number).name)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C; a second one is answered with a line, so that it does not interrupt the clean-up."""
    signal.signal(signal.SIGINT, _answer)
    raise KeyboardInterrupt


def _answer(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    text = b"descentlab: marking open runs as stopped; press Ctrl-C again to leave them open\n"
    with contextlib.suppress(OSError):
        os.write(2, text)  # print must not be called here while another print is running


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, unless another handler is set."""
    caught = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminate)
                caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a second Ctrl-C wait for the clean-up of the first one; a third one ends at once."""
    own = threading.current_thread() is threading.main_thread()
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        yield


class OutputLost(Exception):
    """Standard output cannot be written."""


class _Stream:
    """A text stream that calls a function in place of raising OSError."""

    def __init__(self, stream: TextIO, lost: Callable[[TextIO, OSError], None]) -> None:
        self._stream, self._lost = stream, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as the stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lost(self._stream, error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(self._stream, error)


def _drop(stream: TextIO, error: OSError) -> None:
    """Send a stream to the null device from now on; Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _output_lost(stream: TextIO, error: OSError) -> None:
    _drop(stream, error)
    if isinstance(error, BrokenPipeError):  # the reader is gone
        raise error
    raise OutputLost(error.strerror or str(error))


def _open_standard_streams() -> None:
    """Give a process that was started without some of its standard streams a substitute for each.

    Otherwise the next file that it opens would take the stream's number. Writing to a closed standard output is an
    error; messages to a closed standard error are dropped.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _check_surroundings() -> None:
    """Refuse a working directory that no longer exists, and set a home if there is none: libraries need both."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(
            f"working directory: cannot be used ({error.strerror}); change to another one: cd ~"
        ) from error
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        os.environ["HOME"] = "/nonexistent"


def guarded(work: Callable[[], int]) -> int:
    """Run a command; bad input becomes one line on standard error and exit status 2.

    A closed or full standard error does not stop the command. Lost standard output is one line and status 1.
    """
    _open_standard_streams()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream(sys.stdout, _output_lost), _Stream(sys.stderr, _drop)
    try:
        with terminable(), _interruptible():
            _check_surroundings()
            status = work()
        sys.stdout.flush()  # here, where a closed pipe is handled
        return status
    except InputError as error:
        print(f"descentlab: error: {error}", file=sys.stderr)
        return 2
    except OutputLost as error:
        print(
            f"descentlab: error: standard output cannot be written ({error}); finished runs are stored", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt as error:
        name = str(error)  # of the signal, where it was not Ctrl-C
        print(f"descentlab: stopped{f' ({name})' if name else ''}; finished cells are stored", file=sys.stderr)
        return 128 + getattr(signal, name, signal.SIGINT)
    except BrokenPipeError:  # the reader of the output is gone
        return 0
    finally:
        sys.stdout, sys.stderr = streams
