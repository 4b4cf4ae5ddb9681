"""Threads that train the chunks of a stack, or processes where there is enough work for them."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy import ndarray

from descentlab.nn.memory import THREAD_WORK, Workspace
from descentlab.nn.parameters import parameter_count
from descentlab.nn.stack import Advance, Chunk, Stack
from descentlab.nn.workers import NotSent, holding, warm

PROCESS_WORK = 20_000  # multiplications a step from which a process saves more than the calls that it repeats
COLD_WORK = 10_000_000_000  # multiplications of a whole training, about a second, that pay for starting a process
WARM_WORK = 4_000_000_000  # that pay for what is sent to one that is up, and comes back

Tell = Callable[[int], None]  # is told how many restarts have gone through one more epoch
Train = Callable[[Chunk, int, int, bool, Workspace, Tell], Advance]  # a chunk through epochs first..last


class _Left(Exception):
    """Ends a thread's epochs when the training is left in its middle."""


@dataclass(frozen=True)
class Pool:
    """Workers with the chunks of a stack.

    Attributes:
        advance: `advance(first, last, logged)`, all chunks through epochs first..last, measured then where logged.
        chunks: the chunks as they now are.
    """

    advance: Callable[[int, int, bool], list[Advance]]
    chunks: Callable[[], list[Chunk]]


@contextlib.contextmanager
def pool(
    train: Train, stack: Stack, workers: int, start: Mapping[str, ndarray] | None, told: Tell | None
) -> Iterator[Pool]:
    """Threads or processes, whichever suits the stack; arguments as for `trainer.iterate`."""
    with contextlib.ExitStack() as exits:
        made = None
        if (several := _processes_for(stack, workers)) > 1:
            with contextlib.suppress(NotSent):
                made = exits.enter_context(
                    _processes(train, stack, stack.chunks(several, PROCESS_WORK, start), several, told)
                )
        if made is None:
            made = exits.enter_context(_threads(train, stack, stack.chunks(workers, THREAD_WORK, start), workers, told))
        yield made


def _processes_for(stack: Stack, workers: int) -> int:
    """The number of processes that pay, at most `workers`; 1 where threads are as fast."""
    recipe, restarts = stack.recipe, len(stack.seeds)
    numbers = restarts * parameter_count(recipe.layers)
    whole = numbers * stack.samples * (recipe.epochs + len(recipe.logged_epochs()))
    least = WARM_WORK if warm() >= workers else COLD_WORK
    return max(1, min(workers, restarts, numbers * stack.steps[0][1] // PROCESS_WORK, whole // least))


@contextlib.contextmanager
def _threads(train: Train, stack: Stack, chunks: list[Chunk], count: int, told: Tell | None) -> Iterator[Pool]:
    """Threads that take the next chunk when they are free."""
    left = threading.Event()
    workspaces: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    for _ in range(count):
        workspaces.put(Workspace(stack.recipe.network, stack.recipe.dtype))

    def tell(restarts: int) -> None:
        if left.is_set():
            raise _Left
        if told:
            told(restarts)

    def advance_one(chunk: Chunk, first: int, last: int, logged: bool) -> Advance:
        workspace = workspaces.get()
        try:
            return train(chunk, first, last, logged, workspace, tell)
        finally:
            workspaces.put(workspace)

    with ThreadPoolExecutor(count) as threads:

        def advance(first: int, last: int, logged: bool) -> list[Advance]:
            pending = [threads.submit(advance_one, chunk, first, last, logged) for chunk in chunks]
            return [future.result() for future in pending]

        try:
            yield Pool(advance, lambda: chunks)
        finally:
            left.set()  # after an interrupt the executor waits for its threads


@contextlib.contextmanager
def _processes(train: Train, stack: Stack, chunks: list[Chunk], count: int, told: Tell | None) -> Iterator[Pool]:
    """Processes, each of which keeps its part of the chunks to the end."""
    edges = [len(chunks) * i // count for i in range(count + 1)]
    network, dtype = stack.recipe.network, stack.recipe.dtype
    parts = [_Part(train, chunks[first:last], network, dtype) for first, last in pairwise(edges)]
    with holding(parts) as ask:
        parts.clear()  # the processes have them now
        chunks.clear()
        yield Pool(
            lambda *span: [advance for part in ask("advance", *span, told=told) for advance in part],
            lambda: [chunk for part in ask("chunks_now") for chunk in part],
        )


class _Part:
    """The chunks that a process trains, one after the other."""

    def __init__(self, train: Train, chunks: list[Chunk], *shape: Any) -> None:
        self._train, self._chunks, self._shape = train, chunks, shape

    @functools.cached_property
    def _workspace(self) -> Workspace:
        return Workspace(*self._shape)

    def advance(self, first: int, last: int, logged: bool, tell: Tell = lambda restarts: None) -> list[Advance]:
        return [self._train(chunk, first, last, logged, self._workspace, tell) for chunk in self._chunks]

    def chunks_now(self) -> list[Chunk]:
        return self._chunks
