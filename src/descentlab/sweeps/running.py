"""A sweep: claim one cell after the other, train what is missing, store it; a single run is a sweep of one.

What the store holds is not trained again: a cell by the hash of all that alters its results and the digest of its data,
a restart by the same without seed and restarts, and its own seed. So a sweep that was killed is resumed, and one with
more restarts trains those that are new.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from descentlab.config.cells import Cell, different
from descentlab.config.options import LAUNCHER
from descentlab.data import describing
from descentlab.nn.recipe import Training
from descentlab.sweeps import capacity, launchers, remote
from descentlab.sweeps.progress import say, shown
from descentlab.sweeps.queue import Queue
from descentlab.sweeps.training import Finish
from descentlab.values import refusal
from descentlab.values import shown as quoted

if TYPE_CHECKING:
    from descentlab.tracking import StoredRun, Tracker


class CellsFailed(Exception):
    """Some cells of a sweep failed; the others were trained and stored.

    Attributes:
        failures: each failed cell with its error.
        trainings: one per cell in their order, None where it failed.
    """

    def __init__(self, failures: list[tuple[Cell, Exception]], trainings: list[Training | None]) -> None:
        names = ", ".join(cell.name for cell, _ in failures[:5]) + (", ..." if len(failures) > 5 else "")
        super().__init__(f"{len(failures)} of {len(trainings)} cells failed: {names}")
        self.failures, self.trainings = failures, trainings


def begin(parts: Mapping[str, Sequence[Cell]], tracker: "Tracker", label: str = "") -> None:
    """Resume a sweep of several parts, or begin it where it is new; `tracker.sweep` is its id from then on.

    Args:
        parts: the cells of each part; a command's only part is "".
        tracker: stores what comes of them.
        label: of the experiment or study; where its cells are not those of the last sweep with this label, a line on
            standard error says what differs.

    Raises:
        InputError: a launcher that cannot run.
    """
    launched = [cell.config.launcher for cells in parts.values() for cell in cells]
    if any(other != launched[0] for other in launched):
        raise refusal(LAUNCHER, launched[0].name, "must be the same in all cells of a sweep, with the same numbers")
    for launcher in launched[:1]:
        launchers.check(launcher)
    if tracker.stores:
        say(f"storing in {tracker.location}")
    datasets = dict.fromkeys(cell.dataset for cells in parts.values() for cell in cells)
    for line in dict.fromkeys(line for dataset in datasets for line in describing.lines(dataset)):
        say(line)
    fresh = not all(cell.config.resume for cells in parts.values() for cell in cells)
    if note := tracker.begin({part: different(cells) for part, cells in parts.items()}, label, fresh):
        say(note)


def run(
    cells: Sequence[Cell],
    tracker: "Tracker",
    progress: bool = True,
    workers: int | None = None,
    on_finish: Finish | None = None,
    part: str | None = None,
    label: str = "",
) -> list[Training]:
    """Train every cell that the store does not hold yet; cells with one key are trained once.

    Args:
        cells: as `config.cells` makes them.
        tracker: stores what comes of them.
        progress: show on standard error how far it is: a bar on a terminal, else a line every few seconds.
        workers: threads or processes, in place of what each cell asks for.
        on_finish: is shown each cell, trained now or before.
        part: of the sweep that the tracker has begun; None begins one of these cells alone.
        label: as for `begin`, where this begins it.

    Returns:
        One Training per cell, in their order; cells with one key share one.

    Raises:
        InputError: a launcher that cannot run, more restarts than the memory has room for, or a store that is lost.
        CellsFailed: at the end, where cells of several failed. The error of a single cell comes through as it is.
    """
    queue = different(cells)
    fresh = not all(cell.config.resume for cell in cells)
    standing = {} if fresh else tracker.finished(queue)
    missing = [place for place, cell in enumerate(queue) if cell.key not in standing]
    handed = [place for place in missing if queue[place].config.launcher.name != "none"]
    if own := [queue[place] for place in missing if place not in handed]:
        capacity.check(own, [cell for cell in queue if cell.key in standing])
    if part is None:
        begin({"": cells}, tracker, label)
    _say_standing(queue, standing)
    sweep = Queue(queue, tracker, part or "", range(len(queue)), fresh, standing, workers, on_finish, _say_failed)
    tracker.expect(own)
    with shown(queue, progress) as show:
        sweep.train([place for place in range(len(queue)) if place not in handed], show)
        if handed:
            remote.train(sweep, handed, show)
    if sweep.failures:
        raise CellsFailed(sweep.failures, [sweep.trained.get(cell.key) for cell in cells])
    return [sweep.trained[cell.key] for cell in cells]


def _say_failed(cells: Sequence[Cell], error: Exception) -> None:
    say(f"{', '.join(cell.name for cell in cells)}: failed: {type(error).__name__}: {quoted(error)}")


def _say_standing(cells: Sequence[Cell], standing: "Mapping[str, StoredRun]") -> None:
    if not standing:
        return
    if len(cells) == 1:
        (run,) = standing.values()
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
        say(f"{cells[0].name}: is stored already (trained {when}); resume=false trains it again")
    elif len(standing) == len(cells):
        say(f"{len(cells)} of {len(cells)} cells are stored already; resume=false trains them again")
    else:
        say(f"{len(standing)} of {len(cells)} cells are stored already; {len(cells) - len(standing)} to train")
