import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import cell, children, diverged, keep, of, trained

from descentlab import tracking
from descentlab.cli import listing
from descentlab.tracking import results, trained_cell
from descentlab.tracking import store as stores
from descentlab.values import InputError, Option


@pytest.fixture
def option(store):
    return store


@pytest.fixture
def sweep(option):
    """Two cells of three restarts; in the second, one of them has diverged."""
    trainings = []
    with tracking.open_tracker(option) as tracker:
        for activation in ("tanh", "relu"):
            config = cell(activation=activation)
            dataset, training = trained(config)
            training = diverged(training, [1], 2) if activation == "relu" else training
            trainings.append(training)
            with tracker.cell(of(config, dataset)) as run:
                run.finish(training)
    return trainings


def test_cells_are_one_row_each_with_typed_params_and_final_means(option, sweep):
    frame = results.cells(option)
    assert frame["cell"].tolist() == ["tanh-bce-mini32", "relu-bce-mini32"]
    assert frame["learning_rate"].tolist() == [0.5, 0.5]
    assert frame["epochs"].dtype.kind == "i"
    assert frame["hidden"].tolist() == ["5", "5"]
    assert frame["outcome"].tolist() == ["finite", "mixed"]
    assert frame["diverged"].tolist() == [0, 1]
    expected = [np.nanmean(training.curves["test/loss"][-1]) for training in sweep]
    np.testing.assert_allclose(frame["test/loss"], expected, rtol=1e-12)


def test_a_cell_of_which_every_restart_diverged_has_no_final_metrics(option):
    _, training = trained(cell())
    keep(option, cell(), diverged(training, [0, 1, 2], 2))
    (row,) = results.cells(option).to_dict("records")
    assert np.isnan(row["test/loss"])
    assert np.isnan(row["delta_norm/layer_1"])
    assert (row["test/loss_n"], row["test/loss_diverged"], row["outcome"]) == (0, 3, "diverged")


def test_restarts_are_one_row_each_with_their_cells_params(option, sweep):
    frame = results.restarts(option)
    assert len(frame) == 6
    assert frame["seed"].tolist() == [7, 8, 9] * 2
    assert frame["activation"].tolist() == ["tanh"] * 3 + ["relu"] * 3
    assert frame["outcome"].tolist() == ["finite"] * 4 + ["diverged", "finite"]
    assert frame["diverged_epoch"].tolist() == [-1, -1, -1, -1, 2, -1]
    assert frame["test/loss"].iloc[:3].tolist() == sweep[0].curves["test/loss"][-1].tolist()
    assert np.isnan(frame["test/loss"].iloc[4])
    assert frame["rank"].iloc[4] == 2


def test_curves_are_long_and_have_the_trainers_bits(option, sweep):
    frame = results.curves(option, metrics=["train/loss", "delta_norm/layer_1"])
    assert set(frame["metric"]) == {"train/loss", "delta_norm/layer_1"}
    mine = frame[(frame["activation"] == "tanh") & (frame["seed"] == 8) & (frame["metric"] == "train/loss")]
    assert mine["value"].tolist() == sweep[0].curves["train/loss"][:, 1].tolist()
    assert mine["epoch"].tolist() == [0, 1, 2, 3, 4]
    lost = frame[(frame["activation"] == "relu") & (frame["seed"] == 8) & (frame["metric"] == "train/loss")]
    assert lost["value"].isna().tolist() == [False, False, True, True, True]


def test_results_can_be_narrowed_by_sweep_and_params(option, sweep):
    keep(option, cell(seed=1, restarts=2))
    assert len(results.restarts(option)) == 8
    assert len(results.restarts(option, sweep="last")) == 2
    assert results.cells(option, where={"activation": "relu"})["cell"].tolist() == ["relu-bce-mini32"]
    assert results.cells(option, where={"activation": "gelu"}).empty
    assert results.curves(option, where={"activation": "gelu"}).empty


def test_unfinished_cells_are_left_out_unless_asked_for(option):
    with pytest.raises(RuntimeError), tracking.open_tracker(option) as tracker, tracker.cell(of(cell())):
        raise RuntimeError
    assert results.cells(option).empty
    assert results.cells(option, status=None)["status"].tolist() == ["FAILED"]


def test_an_open_tracker_is_waited_for(option):
    dataset, training = trained(cell())
    with tracking.open_tracker(option) as tracker:
        with tracker.cell(of(cell(), dataset)) as run:
            run.finish(training)
        assert len(results.restarts(tracker)) == 3
    assert len(results.restarts(tracker)) == 3


def test_weights_of_a_cell_and_of_a_restart_come_back(option):
    _, training = trained(cell())
    run_id = keep(option, cell(), training)
    kept = results.weights(option, run_id)
    assert kept.seeds.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(kept.final["W1"], training.final.W[0])
    np.testing.assert_array_equal(kept.initial["b2"], training.initial.b[1])
    (child,) = (run for run in children(option, run_id) if run.info.run_name == "s8")
    one = results.weights(option, child.info.run_id)
    assert one.seeds.tolist() == [8]
    np.testing.assert_array_equal(one.final["W2"], training.final.W[1][[1]])


def test_weights_that_were_not_kept_are_refused_in_one_line(option):
    with pytest.raises(RuntimeError), tracking.open_tracker(option) as tracker, tracker.cell(of(cell())) as run:
        raise RuntimeError
    with pytest.raises(InputError, match=r"^run \w+ \(tanh-bce-mini32, FAILED\): has no artifact initial.npz$"):
        results.weights(option, run.run_id)


def test_nothing_can_be_read_where_nothing_is_kept():
    for source in (Option("none", {}), tracking.open_tracker(Option("none", {}))):
        with pytest.raises(InputError, match="tracking=none: stores nothing"):
            results.cells(source)


def test_one_search_serves_all_cells(option, sweep, monkeypatch):
    from mlflow import MlflowClient

    calls = []
    whole = MlflowClient.search_runs
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *a, **k: calls.append(1) or whole(*a, **k))
    results.curves(option)
    assert len(calls) == 1


def test_a_params_value_may_hold_a_quote(option):
    assert results.cells(option, where={"data.path": "it's.csv"}).empty
    with pytest.raises(InputError, match="both kinds of quotes"):
        results.cells(option, where={"data.path": 'it\'s "x".csv'})


def test_numbers_in_params_come_back_as_numbers(option):
    _, training = trained(cell())
    config = replace(cell(), learning_rate=1e-05, hidden=(64, 32))
    keep(option, config, training)
    (row,) = results.cells(option).to_dict("records")
    assert row["learning_rate"] == 1e-05
    assert row["hidden"] == "64-32"
    assert pd.isna(results.cells(option)["seconds"]).sum() == 0


def test_reading_results_never_imports_the_trainer():
    tracking = Path(results.__file__).parent
    for module in (tracking / "results.py", *(tracking.parent / "figures").glob("*.py")):
        tree = ast.parse(module.read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name.startswith("descentlab.nn")]


# --- what has no value at the end ------------------------------------------------------------------------------------


def exploded(training, rows):
    """The same training, had the loss of some restarts ended at 1e160."""
    curves = {name: values.copy() for name, values in training.curves.items()}
    for split in ("train", "validation", "test"):
        curves[f"{split}/loss"][2:, rows] = 1e160
    return replace(training, curves=curves)


def test_a_value_of_an_earlier_epoch_is_no_result(option):
    _, training = trained(cell())
    run_id = keep(option, cell(), diverged(training, [1, 2], 2))
    metrics = tracking.get(option, run_id).metrics
    assert metrics["test/loss"] == training.curves["test/loss"][-1, 0]
    assert (metrics["test/loss_n"], metrics["test/loss_diverged"]) == (1, 2)
    assert all(np.isnan(metrics[f"test/loss{part}"]) for part in ("_sd", "_ci_low", "_ci_high"))
    (line,) = [line for line in listing.show([run_id], option).splitlines() if "test/loss " in line]
    assert line.split()[2] == "-"
    (child,) = (run for run in children(option, run_id) if run.info.run_name == "s8")
    assert np.isnan(child.data.metrics["train/loss"])


def test_a_cell_without_a_finite_restart_ranks_last_in_both_directions(option):
    _, training = trained(cell())
    good = keep(option, cell(), training)
    lost = [
        keep(option, cell(seed=20), diverged(training, [0, 1, 2], 2)),
        keep(option, cell(seed=30), exploded(training, [0, 1, 2])),
    ]
    opened = stores.open_store(option)
    for order in ("ASC", "DESC"):
        by = [f"metrics.`test/loss` {order}"]
        found = opened.client.search_runs([opened.experiment_id], "tags.level = 'cell'", order_by=by)
        assert found[0].info.run_id == good
    for run_id in lost:
        (line,) = [line for line in listing.list_runs([], option).splitlines() if line.startswith(run_id[:8])]
        assert line.split()[-5:-2] == ["-", "3", line.split()[-3]]
        assert np.isnan(tracking.get(option, run_id).metrics["test/loss"])


def test_a_run_of_an_earlier_version_shows_no_value_older_than_its_last_epoch(option, monkeypatch):
    _, training = trained(cell())
    whole = trained_cell.metric_rows
    monkeypatch.setattr(
        trained_cell, "metric_rows", lambda *rows: [row for row in whole(*rows) if np.isfinite(row.value)]
    )
    run_id = keep(option, cell(), diverged(training, [0, 1, 2], 2))
    assert np.isnan(tracking.get(option, run_id).metrics["test/loss"])


def test_an_exploded_restart_is_counted_beside_the_diverged_and_left_out_of_means(option):
    _, training = trained(cell(restarts=5))
    training = exploded(diverged(training, [1], 2), [3])
    run_id = keep(option, cell(restarts=5), training)
    run = tracking.get(option, run_id)
    assert (run.tags["outcome"], run.tags["diverged"], run.tags["exploded"], run.lost) == ("mixed", "1", "1", 2)
    assert run.metrics["test/loss"] == pytest.approx(training.curves["test/loss"][-1, [0, 2, 4]].mean(), rel=1e-12)
    assert (run.metrics["outcome/exploded"], run.metrics["outcome/diverged"], run.metrics["test/loss_n"]) == (1, 1, 3)
    assert run.metrics["test/loss_max"] < 10
    frame = results.restarts(option)
    assert frame["outcome"].tolist() == ["finite", "diverged", "finite", "exploded", "finite"]
    assert frame["test/loss"].isna().tolist() == [False, True, False, True, False]
    assert sorted(frame["rank"][[1, 3]]) == [3, 4]
    curves = results.curves(option, metrics=["test/accuracy", "train/loss"])
    lost = curves[(curves["seed"] == 10) & (curves["metric"] == "test/accuracy")]
    assert lost["value"].isna().tolist() == [False, False, True, True, True]
    kept = run.table("curves.parquet")
    assert kept["test/loss"].max() == 1e160


def test_stored_statistics_of_shares_and_losses_stay_within_what_they_can_be(option):
    _, training = trained(cell())
    curves = {name: values.copy() for name, values in training.curves.items()}
    curves["test/accuracy"][-1] = 0.98, 1.0, 0.5
    curves["test/loss"][-1] = 0.01, 0.02, 5.0
    curves["validation/accuracy"][-1] = 0.1
    metrics = tracking.get(option, keep(option, cell(), replace(training, curves=curves))).metrics
    assert 0 < metrics["test/accuracy_ci_low"] < metrics["test/accuracy_ci_high"] < 1
    assert 0 < metrics["test/loss_ci_low"]
    assert metrics["validation/accuracy_sd"] == 0
    assert metrics["validation/accuracy_ci_low"] == metrics["validation/accuracy"] == 0.1
