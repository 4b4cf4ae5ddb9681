"""Whether a figure averages over nothing but what its caller named."""

from collections.abc import Collection, Iterable

import pandas as pd

from descentlab.values import InputError, shown

# Columns that are no settings of a run: its names, what it measured, and the seeds that every figure averages over.
NO_SETTINGS = {
    *("run_id", "cell", "sweep", "status", "outcome", "diverged", "exploded", "seconds", "seed", "restarts", "rank"),
    *("diverged_epoch", "loss_level", "metric", "epoch", "step", "value", "arrival"),
}
SETTINGS = {  # where no column tells the runs apart
    *("data", "hidden", "activation", "output", "loss", "initializer", "descent", "batch_size", "update", "epochs"),
    *("learning_rate", "learning_rate_decay", "weight_decay", "dtype", "split_seed", "order_seed"),
}


def check_pooling(
    frame: pd.DataFrame, drawn: Iterable[str | None], over: Collection[str] = (), seeds: bool = True
) -> None:
    """Refuse rows that would be pooled although they differ in a setting that is neither drawn nor named in `over`.

    Args:
        frame: one row per restart, or per restart and position.
        drawn: the columns that the figure tells apart; None is left out.
        over: the columns to average over besides the seeds.
        seeds: whether a seed may occur once only among rows that are pooled.

    Raises:
        InputError: naming the setting, or the seed that occurs twice.
    """
    keys = [key for key in dict.fromkeys(drawn) if key is not None]
    runs = next((key for key in ("run_id", "cell") if key in frame.columns), None)
    if frame.empty or (runs and frame[runs].nunique() == 1):
        return
    settings = [name for name in frame if name not in {*keys, *over} | NO_SETTINGS and "/" not in str(name)]
    if runs:
        inside = frame.groupby(runs, sort=False, dropna=False)
        settings = [name for name in settings if inside[name].nunique(dropna=False).max() == 1]
    else:
        settings = [name for name in settings if name in SETTINGS or "." in str(name)]
    for name in settings:
        values = _most(frame, keys, name)
        if len(values) > 1:
            few = ", ".join(shown(value) for value in values[:3]) + (", ..." if len(values) > 3 else "")
            raise InputError(
                f"{name}: {len(values)} values ({few}) would be averaged as if they were restarts;"
                f" draw {name}, select one of its values, or name it in over="
            )
    if seeds and "seed" in frame.columns:
        twice = frame[frame.duplicated([*keys, *over, "seed"])]
        if len(twice):
            raise InputError(f"seed={twice['seed'].iloc[0]}: occurs twice among rows that are averaged; select one run")


def _most(frame: pd.DataFrame, keys: list[str], name: str) -> list[object]:
    """The distinct values of a column within one group of rows that the keys do not tell apart, where it has most."""
    if not keys:
        return list(frame[name].unique())
    groups = frame.groupby(keys, sort=False, dropna=False, observed=True)[name]
    counts = groups.nunique(dropna=False)
    if counts.max() < 2:
        return []
    return list(groups.unique().loc[counts.idxmax()])
