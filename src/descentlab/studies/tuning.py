"""Learning rates chosen on the validation split, with seeds that no run reports."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from descentlab.config import composing
from descentlab.config.cells import cells as made
from descentlab.config.configuration import Config
from descentlab.nn.trainer import train_recipe
from descentlab.values import InputError

if TYPE_CHECKING:
    import pandas as pd

RATES = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-8, 7))  # .01 to 31.6, four per decade
RATE_LIMITS = (1e-6, 1e6)
TUNING_SEED, TUNING_RESTARTS = 100_000, 5  # apart from every reported seed


def tune(parts: Sequence[str], overrides: Sequence[str]) -> None:
    """Choose the learning rate of every arm of some parts, and write it into their files.

    Args:
        parts: their names in conf/experiment/.
        overrides: for every cell.
    """
    for key in parts:
        chosen = []
        arms = [[word for word in arm if not word.startswith("learning_rate=")] for arm in composing.listed_arms(key)]
        for arm in arms:
            cell = composing.compose(overrides, key, [arm])[0]  # the first of those that an axis over all arms makes
            table = choose_rate(cell)
            best = table[table["chosen"]].iloc[0]
            chosen.append([*arm, f"learning_rate={best['learning_rate']:g}"])
            print(f"{key}: {' '.join(chosen[-1])}, validation loss {best['validation_loss']:.4g}", flush=True)
        composing.write_arms(key, chosen)


def choose_rate(config: Config, rates: Sequence[float] = RATES) -> "pd.DataFrame":
    """Compare learning rates on the validation split with the tuning seeds, all rates and seeds in one stack.

    While a rate at an edge of the grid is the best, the grid is widened there by half its length. A rate with which any
    restart diverges is not chosen.

    Args:
        config: the cell; its learning rate, seed and restarts are replaced.
        rates: the grid to start from, rising.

    Returns:
        One row per rate tried: learning_rate, validation_loss (mean over tuning seeds, infinite where one diverged),
        chosen.

    Raises:
        InputError: the data has no validation split, or every rate diverges.
    """
    import pandas as pd

    (cell,) = made([config])
    if "validation" not in cell.dataset.rows:
        raise InputError(f"data={config.data.name}: has no validation split to choose a learning rate on")
    tried: dict[float, float] = {}
    wanted = sorted(rates)
    while wanted:
        recipe = dataclasses.replace(
            cell.recipe,
            learning_rate=tuple(wanted),
            seed=TUNING_SEED,
            restarts=TUNING_RESTARTS,
            log_every=max(1, config.epochs),
            diagnostics="none",
        )
        splits = {name: cell.dataset.splits[name] for name in ("train", "validation")}
        final = train_recipe(recipe, splits, workers="auto").curves["validation/loss"][-1]
        means = np.nan_to_num(final, nan=np.inf).reshape(len(wanted), TUNING_RESTARTS).mean(axis=1)
        tried |= dict(zip(wanted, means.tolist(), strict=True))
        wanted = _beyond(tried, len(rates) // 2)
    best = min(tried, key=lambda rate: (tried[rate], rate))
    if not np.isfinite(tried[best]):
        raise InputError(f"{config.name}: diverges at every learning rate from {min(tried)} to {max(tried)}")
    rows = [(rate, loss, rate == best) for rate, loss in sorted(tried.items())]
    return pd.DataFrame(rows, columns=["learning_rate", "validation_loss", "chosen"])


def _beyond(tried: dict[float, float], steps: int) -> list[float]:
    """More rates beyond the edge that is best; none if the best rate lies inside."""
    rates = sorted(tried)
    best = min(rates, key=lambda rate: (tried[rate], rate))
    factor = 10**0.25
    if best == rates[0]:
        more = [best / factor**k for k in range(1, steps + 1)]
    elif best == rates[-1]:
        more = [best * factor**k for k in range(1, steps + 1)]
    else:
        return []
    low, high = RATE_LIMITS
    return sorted(float(f"{rate:.3g}") for rate in more if low <= rate <= high)
