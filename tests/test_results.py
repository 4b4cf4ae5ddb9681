import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import cell, children, diverged, keep, trained

from descentlab import tracking
from descentlab.tracking import results
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
            with tracker.cell(config, dataset) as run:
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
    with pytest.raises(RuntimeError), tracking.open_tracker(option) as tracker, tracker.cell(cell()):
        raise RuntimeError
    assert results.cells(option).empty
    assert results.cells(option, status=None)["status"].tolist() == ["FAILED"]


def test_an_open_tracker_is_waited_for(option):
    dataset, training = trained(cell())
    with tracking.open_tracker(option) as tracker:
        with tracker.cell(cell(), dataset) as run:
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
    with pytest.raises(RuntimeError), tracking.open_tracker(option) as tracker, tracker.cell(cell()) as run:
        raise RuntimeError
    with pytest.raises(InputError, match=r"^run \w+ \(tanh-bce-mini32, FAILED\): has no artifact initial.npz$"):
        results.weights(option, run.run_id)


def test_nothing_can_be_read_where_nothing_is_kept():
    for source in (Option("none", {}), tracking.open_tracker(Option("none", {}))):
        with pytest.raises(InputError, match="tracking=none: keeps nothing"):
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
