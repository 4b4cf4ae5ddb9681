"""What restarts ended in: a judge is asked once training is over, and answers with a row per restart.

A judge is a function (cell, dataset, training) -> table with a text column `outcome`, perhaps a text column
`loss_level`, and whatever numbers speak for them. Its outcome takes the place of finite in a cell's restarts, counts
and tags. A restart that diverged or exploded is not judged.
"""

from typing import TYPE_CHECKING

import numpy as np

from descentlab.config.configuration import Config

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.config.cells import Cell
    from descentlab.data.loading import Dataset
    from descentlab.nn.recipe import Training

OWN = ("seed", "diverged_epoch", "rank")  # columns of a cell's restarts that a judge cannot give


def judged(cell: "Cell", training: "Training") -> "pd.DataFrame":
    """Ask a cell's judge.

    Args:
        cell: what was trained.
        training: how it ended.

    Returns:
        Its table, a row per restart in their order; a diverged or exploded one keeps that outcome, the rest is missing.

    Raises:
        ValueError: for a table that is no judgement.
    """
    judge = cell.judge
    assert judge is not None
    table = judge(cell.config, cell.dataset, training).reset_index(drop=True)
    ended = training.outcome
    lost = ended != "finite"
    name = getattr(judge, "__name__", str(judge))
    if len(table) != len(lost) or "outcome" not in table:
        raise ValueError(f"judge {name}: must give a row per restart ({len(lost)}) with an outcome, not {table.shape}")
    taken = [column for column in table if column in OWN or "/" in str(column)]
    if taken:
        raise ValueError(f"judge {name}: {taken[0]} is a column of its own already")
    rest = table.drop(columns="outcome").apply(lambda column: column.mask(lost))
    rest.insert(0, "outcome", table["outcome"].mask(lost, ended))
    return rest


def certificates(cell: Config, dataset: "Dataset", training: "Training") -> "pd.DataFrame":
    """Judge restarts by the certificates of their ends (`analysis.minima`).

    Returns:
        outcome, then the attributes of the certificate, its loss as polished_loss and loss_start as decayed_loss: both
        with the share of the weight decay.
    """
    import pandas as pd

    from descentlab.analysis import minima
    from descentlab.analysis.curvature import Objective

    goal = Objective(training.recipe.network, *dataset.splits["train"], weight_decay=cell.weight_decay)
    finite = np.flatnonzero(training.outcome == "finite")
    ends = training.final.flat[finite].astype(np.float64)
    rows = [one.as_dict() for one in minima.certificates(goal.certificate, ends)]
    columns = None if rows else ["outcome", "loss", "loss_start"]  # where all are lost
    table = pd.DataFrame(rows, index=finite, columns=columns).reindex(range(len(training.seeds)))
    return table.rename(columns={"loss": "polished_loss", "loss_start": "decayed_loss"})
