"""A store behind a network may stop answering in the middle of a sweep; it is waited for aloud, and not for ever.

MLflow's own client tries again for minutes without a word; `store` cuts that short, and the waiting is done here.
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
    """The store has not answered for as long as it was to be waited for."""


class RetryingClient:
    """MLflow's client, each call of which is tried again while the store does not answer.

    A call that the store has carried out, but whose answer was lost, is carried out twice: params, metrics and tags are
    then the same ones once more, and a run that was created so is found by its process and given up.
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
        """A method of the client, with patience."""
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
        """Sleep for a while; from any thread, but said once."""
        with self._lock:
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since, self._told = now, 0.0
                self.outages += 1
            left = self._silent_since + self._seconds - now
            if left <= 0:
                raise StoreLost(
                    f"tracking.uri={self._name}: has not answered for {self._seconds:g} s; start the server again, then"
                    " the same command goes on where this one stopped (what is trained and not written is put by)"
                ) from error
            if now >= self._told:
                self._told = now + pause
                text = f"{self._name} does not answer; waiting for up to {left:.0f} s more while training goes on"
                print(f"descentlab: {text}", file=sys.stderr, flush=True)
        time.sleep(min(pause, left))


def unanswered(error: BaseException) -> bool:
    """Whether an error says that nothing answered, or that what stands behind the server did not."""
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
