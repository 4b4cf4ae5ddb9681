"""A limit on BLAS's threads that several threads of this process may hold at the same time.

threadpoolctl alone would restore the limit that it found, which may be another thread's that still holds or has ended.
"""

import threading
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_wanted: list[int] = []  # the limits that are held now
_before: dict[int, Any] = {}  # what each limit found when it was first set


class BlasLimit:
    """A context in which BLAS has at most so many threads; of several limits the smallest holds for all.

    It can be entered repeatedly, also by several threads at once. It finds the loaded BLAS libraries when it is made,
    which takes a millisecond; NumPy and SciPy each load their own on import.
    """

    def __init__(self, threads: int = 1) -> None:
        """Find the libraries; limit nothing yet."""
        self._threads, self._controller = threads, ThreadpoolController()

    def __enter__(self) -> None:
        """Set the limit."""
        with _lock:
            _wanted.append(self._threads)
            _before.setdefault(id(self), self._set())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drop the limit; the last one to leave restores what the first one found."""
        with _lock:
            _wanted.remove(self._threads)
            if _wanted:
                self._set()
            while not _wanted and _before:
                self._take_over()
                _before.popitem()[1].restore_original_limits()
            self._take_over()

    def _set(self) -> Any:
        self._take_over()
        return self._controller.limit(limits=min(_wanted), user_api="blas")

    def _take_over(self) -> None:
        """Let this thread set limits: the library accepts only the first thread that did, while that one lives."""
        for library in self._controller.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)
