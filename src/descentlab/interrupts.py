"""How a command ends: bad input in one line, and SIGTERM and SIGHUP as Ctrl-C, so that open runs are marked."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from descentlab.values import InputError


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM or SIGHUP); handled like Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; a second must not break the tidying up
    raise Terminated(signal.Signals(number).name)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C at the command line: the second one is answered, so that it cannot break the tidying up."""
    signal.signal(signal.SIGINT, _answer)
    raise KeyboardInterrupt


def _answer(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    text = b"descentlab: marking open runs as stopped; press Ctrl-C again to leave them open\n"
    os.write(2, text)  # print is not allowed here while another is under way


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, unless someone else has a use for them."""
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
    """Let a second Ctrl-C wait for what the first one ends, and a third one not."""
    own = threading.current_thread() is threading.main_thread()
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        yield


def guarded(work: Callable[[], int]) -> int:
    """Run what a command does; bad input becomes one line on standard error and exit status 2."""
    try:
        with terminable(), _interruptible():
            status = work()
        sys.stdout.flush()  # here, where a reader that has left can be borne
        return status
    except InputError as error:
        print(f"descentlab: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        name = str(error)  # of the signal, where it was not Ctrl-C
        print(f"descentlab: stopped{f' ({name})' if name else ''}; what had finished is kept", file=sys.stderr)
        return 128 + getattr(signal, name, signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return 0
