"""A cell: one configuration with its data, checked against each other; all that training, judging and storing need.

`cells` makes them, once per process, and is the only function that loads data for a run. Whoever is given a cell
composes, loads and checks nothing again.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descentlab.config.configuration import Config
from descentlab.config.options import schemas
from descentlab.data import loading as data
from descentlab.data.loading import Dataset
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.losses import LOSSES, check_pair
from descentlab.nn.recipe import Recipe, Trainer, Training
from descentlab.nn.updates import UPDATES
from descentlab.values import InputError, refusal

if TYPE_CHECKING:
    import pandas as pd

    Judge = Callable[[Config, Dataset, Training], pd.DataFrame]

DIGEST_LENGTH = 16  # of a hash; MLflow takes 36 characters of the data's and shows them all


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration on its data.

    Attributes:
        config: resolved.
        dataset: its data, checked against it.
        judge: says what restarts ended in (`sweeps.judges`); None for nobody.
        trainer: trains it in place of `nn.trainer.iterate`.
    """

    config: Config
    dataset: Dataset
    judge: "Judge | None" = None
    trainer: Trainer | None = None

    @property
    def name(self) -> str:
        """The name of its run."""
        return self.config.name

    @cached_property
    def recipe(self) -> Recipe:
        """What the trainer is to do."""
        return recipe(self.config, self.dataset.inputs, self.dataset.outputs, self.dataset.task)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the values of its data."""
        return self.dataset.digest[:DIGEST_LENGTH]

    @cached_property
    def key(self) -> str:
        """What a finished run stands for: all that alters results, the values of the data and the trainer included."""
        return self._with_data(self.config.hash)

    @cached_property
    def family(self) -> str:
        """The key without seed and restarts: cells of one family share the restarts of equal seeds."""
        return self._with_data(self.config.cell_hash)

    @cached_property
    def stack(self) -> str:
        """The key without the learning rate: cells of one stack can train side by side."""
        return self._with_data(self.config.stack_hash)

    def _with_data(self, settings: str) -> str:
        return "-".join([settings, self.digest, *([self.trained_by] if self.trainer else [])])

    @property
    def trained_by(self) -> str:
        """The name of the trainer; "" for the package's own."""
        return self.trainer.__name__ if self.trainer else ""

    @property
    def script(self) -> str:
        """The file that another trainer stands in, relative to the working folder where it lies there."""
        if not self.trainer:
            return ""
        path, here = _file(self.trainer), Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @cached_property
    def judged_by(self) -> str:
        """The judge's file and name with a digest of the file: an edited judge is another one; "" without a judge."""
        return _identity(self.judge) if self.judge else ""


def _file(function: Any) -> Path:
    """The file that a function, or the class of a callable object, stands in."""
    return Path(inspect.getfile(function if inspect.isroutine(function) else type(function)))


@cache
def _identity(judge: "Judge") -> str:
    path = _file(judge)
    try:
        source = path.read_bytes()
    except OSError:  # of a function that was typed in
        code: Any = getattr(judge, "__code__", None)
        source = code.co_code if code else b""
    return (
        f"{path.stem}.{getattr(judge, '__name__', type(judge).__name__)}@{sha256(source).hexdigest()[:DIGEST_LENGTH]}"
    )


def cells(configs: Sequence[Config], judge: "Judge | None" = None, trainer: Trainer | None = None) -> list[Cell]:
    """Load the data of some configurations, each data set once, and check every configuration against its own.

    Args:
        configs: resolved.
        judge: of all of them.
        trainer: likewise.

    Raises:
        InputError: for bad data, or a configuration that does not fit its data.
    """
    loaded: dict[str, Dataset] = {}
    made = []
    for config in configs:
        option = json.dumps(config.data.as_dict(), sort_keys=True)
        if option not in loaded:
            loaded[option] = data.load(config.data)
        _check(config, loaded[option])
        made.append(Cell(config, loaded[option], judge, trainer))
    return made


def different(cells: Sequence[Cell]) -> list[Cell]:
    """Cells without repetition; of those with one key the first, with its name."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.key, cell)
    return list(first.values())


def _check(config: Config, dataset: Dataset) -> None:
    """Refuse a batch larger than the training split, and a loss that cannot judge the targets.

    The default batch is all there is where there is less, so that it goes with the four rows of XOR.
    """
    rows = len(dataset.rows["train"])
    own = schemas("descent")[config.descent.name]
    for key, value in config.descent.numbers.items():
        if key == "batch_size" and value > rows and value != own[key][1]:
            raise refusal(f"descent.{key}", value, f"must be at most {rows}, the rows of the training split")
    for targets in dataset.targets.values():
        try:
            check_pair(config.loss.name, config.output, targets.shape[1], targets, dataset.task)
        except ValueError as error:
            raise InputError(str(error)) from error


def recipe(config: Config, inputs: int, outputs: int, task: str) -> Recipe:
    """What the trainer is to do with data of so many columns.

    Args:
        config: resolved.
        inputs: n_0.
        outputs: K.
        task: of nn.losses.TASKS.
    """
    return Recipe(
        layers=(inputs, *config.hidden, outputs),
        activation=ACTIVATIONS[config.activation.name](**config.activation.numbers),
        output=config.output,
        loss=LOSSES[config.loss.name],
        initializer=INITIALIZERS[config.initializer.name](**config.initializer.numbers),
        output_initializer=INITIALIZERS[config.output_initializer.name](**config.output_initializer.numbers),
        descent=DESCENTS[config.descent.name](**config.descent.numbers),
        update=UPDATES[config.update.name](**config.update.numbers),
        learning_rate=config.learning_rate,
        learning_rate_decay=config.learning_rate_decay,
        weight_decay=config.weight_decay,
        epochs=config.epochs,
        seed=config.seed,
        restarts=config.restarts,
        dtype=config.dtype,
        log_every=config.log_every,  # type: ignore[arg-type]
        diagnostics=config.diagnostics,
        task=task,
    )
