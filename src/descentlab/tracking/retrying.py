"""Retry calls of a server that stops answering in the middle of a sweep, with a message and a limit.

MLflow's own client retries for minutes without a message; `store` switches that off.
"""

import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from descentlab.values import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries, doubled from one to the next


class StoreLost(InputError):
    """The store has not answered within the time limit."""


class RetryingClient:
    """MLflow's client, which repeats a call while the store does not answer.

    Where only the answer was lost, the store carries out a call twice: params, metrics and tags are then written again
    with the same values, and a run that was created twice is found by its process and given up.
    """

    def __init__(self, client: "MlflowClient", name: str, seconds: float) -> None:
        """Wrap a client.

        Args:
            client: MLflow's.
            name: of the store, for people.
            seconds: how long to wait for it.
        """
        self.direct = client
        self._name, self._seconds = name, seconds
        self._lock = threading.Lock()
        self.outages = 0
        self._silent_since: float | None = None
        self._told = 0.0

    def __getattr__(self, name: str) -> Any:
        """A method of the client that retries."""
        method = getattr(self.direct, name)
        return functools.partial(self._call, method) if callable(method) else method

    def _call(self, method: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        pause = FIRST_PAUSE
        while True:
            try:
                answer = method(*arguments, **more)
            except Exception as error:
                if not unanswered(error):
                    raise
                self._wait(pause, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                with self._lock:
                    if self._silent_since is not None:
                        self._silent_since = None
                        print(f"descentlab: {self._name} answers again", file=sys.stderr, flush=True)
                return answer

    def _wait(self, pause: float, error: Exception) -> None:
        """Sleep before the next try; the message comes once, whichever threads wait."""
        with self._lock:
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since, self._told = now, 0.0
                self.outages += 1
            left = self._silent_since + self._seconds - now
            if left <= 0:
                raise StoreLost(
                    f"tracking.uri={self._name}: has not answered for {self._seconds:g} s; start the server again and"
                    " rerun the command to continue; unwritten results are saved locally"
                ) from error
            if now >= self._told:
                self._told = now + pause
                text = f"{self._name} does not answer; waiting for up to {left:.0f} s more while training goes on"
                print(f"descentlab: {text}", file=sys.stderr, flush=True)
        time.sleep(min(pause, left))


def unanswered(error: BaseException) -> bool:
    """Whether an error says that the server, or the database behind it, did not answer."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError as Refused
    from requests.exceptions import Timeout

    if isinstance(error, (Refused, Timeout, ConnectionError)):
        return True
    if not isinstance(error, MlflowException):
        return False
    text = str(error)
    gateway = any(f"failed with error code {code}" in text for code in (502, 503, 504))
    silent = "failed with exception" in text or "failed with timeout exception" in text
    return gateway or silent or error.error_code == "TEMPORARILY_UNAVAILABLE"
