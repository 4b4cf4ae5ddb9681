"""The rows and files of a cell, before and after training, as values that any process can write."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from descentlab.config.cells import DIGEST_LENGTH
from descentlab.config.configuration import Config
from descentlab.data import is_score
from descentlab.tracking import checksums, closing, params, tables, trainings
from descentlab.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import DatasetInput, Metric

    from descentlab.data.loading import Dataset
    from descentlab.nn.recipe import Training


CELL_POINTS = 200  # logged epochs of a cell in the database; the complete curves are in curves.parquet
CHILD_POINTS = 20  # of a restart's losses and scores
CHILD_LAYER_POINTS = 2  # of its norms per layer; a row costs 0.1 ms, and a sweep has many restarts
FIGURE_POINTS = 400  # of a cell in its figure
DATASET_TRIES = 3


def write_new(store: Store, run_id: str, config: Config, inputs: "list[DatasetInput]") -> None:
    """Write what is known of a cell before training: params, dataset and config.json."""
    from mlflow.entities import Param

    rows = [Param(key, value) for key, value in params.params(config).items()]
    store.client.log_batch(run_id, params=rows)
    _log_inputs(store, run_id, inputs)
    store.client.log_text(run_id, _config_text(config), "config.json")


@dataclass(frozen=True)
class TrainedCell:
    """A trained cell: `write_cell` and `write_restart` for each of `rows`, in any order and at once, then `conclude`.

    Attributes:
        run_id: of the cell's run.
        config: of the cell.
        tags: of the cell's run.
        training: of all restarts, without its recipe, whose functions cannot be sent to a process.
        judgement: a judge's table of the restarts, as `judges.judged`.
        reused: seed -> cell, for restarts that another cell trained and holds the runs of.
        children: which restarts get runs of their own: auto, all or none.
        began: when the training began, milliseconds since 1970.
        ended: when it ended.
        times: logged epoch -> when it was logged.
        written: epochs whose means are in the store already.
    """

    run_id: str
    config: Config
    tags: Mapping[str, str]
    training: "Training"
    judgement: "pd.DataFrame | None"
    reused: Mapping[int, str]
    children: str
    began: int
    ended: int
    times: Mapping[int, int]
    written: frozenset[int]

    def rows(self, store: Store) -> dict[int, str]:
        """Restarts that get a run of their own: row -> "", or what it is an example of."""
        judge = self.tags.get("judge", "")
        sources = set(self.reused.values())
        alike = {one for one in sources if store.client.get_run(one).data.tags.get("judge", "") == judge}
        own = tables.with_own_run(self.training, self.children, self.judgement)
        seeds = self.training.seeds
        return {row: why for row, why in own.items() if self.reused.get(int(seeds[row])) not in alike}

    def write_cell(self, store: Store) -> None:
        """Write the cell's own metrics, tags and artifacts."""
        from mlflow.entities import RunTag

        training = self.training
        shown = tables.thinned(len(training.epochs), CELL_POINTS)
        left = np.array([place for place in shown if int(training.epochs[place]) not in self.written], dtype=np.int64)
        curves = tables.valid_curves(training)
        series = tables.cell_series({name: values[left] for name, values in curves.items()})
        metrics = self._metrics(series, training.epochs[left])
        ended = training.outcome
        tags = {"outcome": str(ended[0]) if len(set(ended)) == 1 else "mixed"}
        tags |= {kind: str((ended == kind).sum()) for kind in ("diverged", "exploded")}
        tags["wall_seconds"] = f"{training.seconds:.3f}"
        if self.reused:
            listed = ",".join(dict.fromkeys(self.reused.values()))
            tags |= {"reused": str(len(self.reused)), "reused_from": listed}
        if len(training.seeds) == 1:
            tags |= tables.verdict_tags(training, 0, self.judgement)
        else:
            counts = tables.outcome_counts(training, self.judgement)
            metrics += self._metrics({name: np.array([count]) for name, count in counts.items()}, training.epochs[-1:])
        with tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
            self._fill(Path(folder))
            tags |= checksums.seal(Path(folder), {"config.json": _config_text(self.config).encode()})
            rows = [RunTag(key, value) for key, value in tags.items()]
            store.client.log_batch(self.run_id, metrics=metrics, tags=rows)
            store.client.log_artifacts(self.run_id, folder)

    def _fill(self, folder: Path) -> None:
        """Write the artifacts."""
        training = self.training
        tables.curve_table(training).to_parquet(folder / "curves.parquet", index=False)
        curves = tables.curve_table(training, tables.valid_curves(training))
        restarts = tables.restart_table(training, self.judgement)
        restarts.to_parquet(folder / "restarts.parquet", index=False)
        trainings.write_weights(training, folder)
        drawn = training.epochs[tables.thinned(len(training.epochs), FIGURE_POINTS)]
        scores = [column for column in curves if is_score(column) or "/" not in column]
        about = {"cell": self.config.name, "data": self.config.data.name, "loss": self.config.loss.name}
        shown = curves.loc[curves["epoch"].isin(drawn), scores]
        draw(shown.assign(**about), restarts.assign(**about), folder)

    def write_restart(self, store: Store, row: int, stands_for: str) -> None:
        """Write the run of a restart; with the client's calls, since MLflow's fluent ones nest it by MLFLOW_RUN_ID."""
        from mlflow.entities import Param

        training, seed = self.training, int(self.training.seeds[row])
        config = replace(self.config, seed=seed, restarts=1)
        shared = ("sweep", "cell_hash", "mlflow.user", "judge")  # the judge tells a judged restart from another
        tags: dict[str, str] = {key: self.tags[key] for key in shared if key in self.tags}
        tags |= {
            "level": "restart",
            "mlflow.parentRunId": self.run_id,
            "config_hash": config.hash,
            **tables.verdict_tags(training, row, self.judgement),
        }
        if stands_for:
            tags["stands_for"] = stands_for
        metrics, curves = [], tables.valid_curves(training)
        for scores, most in ((True, CHILD_POINTS), (False, CHILD_LAYER_POINTS)):
            kept = tables.thinned(len(training.epochs), most)
            series = {name: curve[kept, row] for name, curve in curves.items() if is_score(name) == scores}
            metrics += self._metrics(series, training.epochs[kept])
        settings = [Param(key, value) for key, value in params.params(config).items()]
        client = store.client
        run_id = client.create_run(str(store.experiment_id), self.began, tags, f"s{seed}").info.run_id
        client.log_batch(run_id, metrics=metrics, params=settings)
        client.set_terminated(run_id, status="FINISHED", end_time=self.ended)

    def conclude(self, store: Store) -> None:
        """Mark the run as finished."""
        closing.conclude(store, self.run_id, self.ended)

    def _metrics(self, series: Mapping[str, ndarray], epochs: ndarray) -> "list[Metric]":
        rows = metric_rows(series, epochs.tolist(), self.times, self.ended, int(self.training.epochs[-1]))
        return rows[::-1]  # in rising order MLflow would replace its latest value at every row


def draw(curves: "pd.DataFrame", restarts: "pd.DataFrame", folder: Path) -> None:
    """Draw a cell's usual figures into a folder.

    Args:
        curves: as from `curve_table`, with columns cell, data and loss.
        restarts: as from `restart_table`, likewise.
        folder: gets learning_curves.png, and spread.png where there is more than one restart.
    """
    from descentlab import figures

    def learning_curves() -> figures.Figure:
        return figures.learning_curves(tables.long_form(curves))

    def spread() -> figures.Figure:
        title = f"Where the {len(restarts)} restarts of {restarts['cell'].iloc[0]} ended"
        shown = tables.telling(restarts.drop(columns=["cell", "data", "loss"]))
        return figures.ends(restarts, shown, title=title)

    for make in [learning_curves, spread][: 2 if len(restarts) > 1 else 1]:
        path = folder / f"{make.__name__}.png"
        try:
            figures.save(make(), path, dpi=100, last=True)
        except Exception as error:  # whatever matplotlib raises, the run has its numbers
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"descentlab: {path.name} is left out, it cannot be drawn ({why})", file=sys.stderr, flush=True)


def metric_rows(
    series: Mapping[str, ndarray], epochs: Sequence[int], times: Mapping[int, int], otherwise: int, last: int = -1
) -> "list[Metric]":
    """MLflow's rows of some series: finite values, and NaN for any other at the last epoch.

    MLflow shows and sorts by the latest value that it has, so an older one would stand for a result. It sorts NaN after
    every number in both directions. It would store inf as the largest number.

    Args:
        series: name -> (P,).
        epochs: (P,).
        times: epoch -> milliseconds since 1970.
        otherwise: the time of an epoch that is not among them.
        last: the last epoch; -1 where it is not among these.
    """
    from mlflow.entities import Metric

    points = [(epoch, times.get(epoch, otherwise)) for epoch in epochs]
    return [
        Metric(name, value if isfinite(value) else nan, timestamp, epoch)
        for name, values in series.items()
        for value, (epoch, timestamp) in zip(values.tolist(), points, strict=True)
        if isfinite(value) or epoch == last
    ]


def _config_text(config: Config) -> str:
    return json.dumps(params.recorded(config), indent=2) + "\n"


def _log_inputs(store: Store, run_id: str, inputs: "list[DatasetInput]") -> None:
    """Log the dataset of a run; MLflow fails where two runs are the first on a dataset at the same time."""
    from mlflow.exceptions import MlflowException

    for left in reversed(range(DATASET_TRIES)):
        try:
            store.client.log_inputs(run_id, datasets=inputs)
            return
        except MlflowException as error:
            if not left or "constraint" not in str(error).lower():
                raise


def dataset_input(dataset: "Dataset") -> "DatasetInput":
    """A dataset as MLflow's input; without a source, since MLflow refuses schemes it does not know."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rows = {f"{name}_rows": len(rows) for name, rows in dataset.rows.items()}
    sizes = {"inputs": dataset.inputs, "targets": dataset.outputs}
    shapes = {name: {key: [len(rows), size] for key, size in sizes.items()} for name, rows in dataset.rows.items()}
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {}}),
        schema=json.dumps({"task": dataset.task, "splits": shapes}),
        profile=json.dumps(rows),
    )
    return DatasetInput(dataset=entity, tags=[InputTag("mlflow.data.context", "training")])
