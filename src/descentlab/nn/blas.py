"""How many threads BLAS may use, for all of this process: several in it may want a limit at the same time.

Each alone would put back what it found when it came, which is another's limit or none, while that other still counts.
"""

import threading
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_wanted: list[int] = []  # by those who hold it now
_before: dict[int, Any] = {}  # threadpoolctl's notes of what a limit found when it was first held


class BlasLimit:
    """A context in which BLAS has at most so many threads; the least that anyone wants holds, for everyone.

    It can be entered again and again, also by several threads at once. Libraries are looked for when it is made, which
    takes a millisecond: NumPy and SciPy each bring their own, when they are imported.
    """

    def __init__(self, threads: int = 1) -> None:
        """Limit nothing yet."""
        self._threads, self._controller = threads, ThreadpoolController()

    def __enter__(self) -> None:
        """Hold it from now on."""
        with _lock:
            _wanted.append(self._threads)
            _before.setdefault(id(self), self._set())

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go; who is last puts back what the first found."""
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
        """Be obeyed: threadpoolctl minds the first thread that sets something, and no other while that one lives."""
        for library in self._controller.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)
