"""The cells of a sweep that one process trains: it claims one after the other, cells of other processes last."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from descentlab.config.cells import Cell
from descentlab.nn.parameters import parameter_count
from descentlab.nn.recipe import Training
from descentlab.sweeps.progress import Show, say
from descentlab.sweeps.training import Finish, is_whole, settle
from descentlab.tracking import Claim, StoreLost, part_id

if TYPE_CHECKING:
    from descentlab.tracking import StoredRun, Tracker

BUSY_SECONDS = 1.0  # between looks at cells that another process trains
STACK_BYTES = 16 * 2**20  # of the parameters of cells that are trained as one stack; larger stacks are no faster


@dataclass
class Queue:
    """The cells of one part of a sweep, no two with the same key, and their outcomes so far.

    Attributes:
        cells: in order.
        tracker: has begun the sweep.
        part: of the sweep.
        places: the cells' places in the part.
        fresh: whether only runs of this very sweep count as done.
        standing: key -> finished run, of cells that are known to be done.
        threads: threads or processes, in place of what the cells ask for.
        on_finish: is shown each cell's outcome.
        say_failed: is given the cells that failed together, and the error.
        trained: key -> outcome.
        failures: each failed cell with its error.
    """

    cells: Sequence[Cell]
    tracker: "Tracker"
    part: str
    places: Sequence[int]
    fresh: bool = False
    standing: "Mapping[str, StoredRun]" = field(default_factory=dict)
    threads: int | None = None
    on_finish: Finish | None = None
    say_failed: Callable[[Sequence[Cell], Exception], None] = lambda cells, error: None
    trained: dict[str, Training] = field(default_factory=dict)
    failures: list[tuple[Cell, Exception]] = field(default_factory=list)

    def take(self, place: int) -> Claim:
        """Claim a cell, or use its finished run."""
        cell, sweep = self.cells[place], part_id(self.tracker.sweep, self.part)
        if found := self.standing.get(cell.key):
            self.tracker.add_to_sweep(found, sweep, self.places[place], cell.name)
            return Claim(finished=found)
        return self.tracker.claim(cell, sweep, self.places[place], self.fresh)

    def train(self, waiting: Sequence[int], show: Show) -> None:
        """Train cells in this process; wait at the end for cells that other processes train."""
        places, busy = deque(waiting), dict[int, str]()
        while places:
            place = places.popleft()
            if busy and len(places) < len(busy):  # all that is left is another's
                time.sleep(BUSY_SECONDS)
            claim = self.take(place)
            if claim.holder:
                if busy.get(place) != claim.holder:
                    say(f"{self.cells[place].name}: {claim.holder} trains this cell; waiting for it after the others")
                busy[place] = claim.holder
                places.append(place)
                continue
            claims = {place: claim}
            for mate in mates(self.cells, place, places) if is_whole(self.cells[place], claim) else []:
                claims[mate] = self.take(mate)
                if claims[mate].holder:  # its turn will come
                    del claims[mate]
                else:
                    places.remove(mate)
            stack = [one for one in claims if is_whole(self.cells[one], claims[one])]
            for together in [*([stack] if stack else []), *([one] for one in claims if one not in stack)]:
                self._settle(together, [claims[one] for one in together], show)
                for one in together:
                    busy.pop(one, None)

    def _settle(self, places: Sequence[int], claims: Sequence[Claim], show: Show) -> None:
        cells = [self.cells[place] for place in places]
        try:
            found = settle(cells, claims, self.threads, partial(show, places), self.on_finish)
            self.trained |= {cell.key: training for cell, training in zip(cells, found, strict=True)}
        except Exception as error:
            self.failed(cells, error)
        show(places, None)

    def failed(self, cells: Sequence[Cell], error: Exception) -> None:
        """Note the error of some of several cells; raise it where there is one cell, or the store is lost."""
        if len(self.cells) == 1 or isinstance(error, StoreLost):
            raise error
        self.failures += [(cell, error) for cell in cells]
        self.say_failed(cells, error)


def mates(cells: Sequence[Cell], place: int, waiting: Sequence[int]) -> list[int]:
    """Which of the waiting cells differ from one in their learning rate alone, as many as a stack may hold."""
    cell = cells[place]
    found = [other for other in waiting if cells[other].stack == cell.stack]
    if not found or cell.trainer:
        return []
    size = cell.config.restarts * parameter_count(cell.recipe.layers) * np.dtype(cell.config.dtype).itemsize
    return found[: max(0, STACK_BYTES // size - 1)]
