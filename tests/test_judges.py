import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from descentlab.config import cells as cells_module
from descentlab.config.cells import cells
from descentlab.config.composing import compose
from descentlab.nn.trainer import train_recipe
from descentlab.sweeps import judges
from descentlab.sweeps import running as sweeps
from descentlab.sweeps import training as sweeps_training
from descentlab.tracking import find, open_tracker, results, tables, trainings


def trained(*overrides):
    (cell,) = compose(["tracking=none", "data=xor", "descent=batch", "network.hidden=2", "log_every=200", *overrides])
    (cell,) = cells([cell], judges.certificates)
    return cell, train_recipe(cell.recipe, cell.dataset.splits)


STUCK = [
    "activation=relu",
    "loss=mean_squared_error",
    "initializer=normal",
    "learning_rate=0.6",
    "epochs=3000",
    "restarts=6",
]


def test_certificates_say_what_every_end_is():
    cell, training = trained(*STUCK)
    table = judges.judged(cell, training)
    assert len(table) == 6
    assert set(table["outcome"]) <= {"flat minimum", "non-smooth", "at infinity", "unfinished", "saddle"}
    np.testing.assert_allclose(table["decayed_loss"], training.curves["train/loss"][-1], rtol=1e-6)
    assert (table["polished_loss"] <= table["decayed_loss"] + 1e-9).all()
    assert (table["gradient_norm"] < 1e-8)[table["outcome"] != "non-smooth"].all()


def test_certificates_are_of_the_loss_with_its_weight_decay():
    cell, training = trained("activation=tanh", "weight_decay=0.01", "epochs=2000", "restarts=2", "learning_rate=0.5")
    table = judges.judged(cell, training)
    decay = 0.005 * np.array([sum(np.square(w[row]).sum() for w in training.final.W) for row in range(2)])
    np.testing.assert_allclose(table["decayed_loss"], training.curves["train/loss"][-1] + decay)
    assert set(table["outcome"]) <= {"strict minimum", "flat minimum", "saddle"}


def test_a_restart_that_diverged_is_not_judged():
    cell, training = trained("activation=relu", "loss=mean_squared_error", "output=linear", "learning_rate=20",
                             "initializer=normal", "epochs=200", "restarts=4")  # fmt: skip
    lost = training.diverged_epoch >= 0
    assert lost.any()
    table = judges.judged(cell, training)
    assert (table["outcome"] == "diverged").tolist() == lost.tolist()
    assert table.loc[lost, "polished_loss"].isna().all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"outcome": ["a"]}), r"must give a row per restart \(6\) with an outcome"),
        (pd.DataFrame({"level": range(6)}), "with an outcome"),
        (pd.DataFrame({"outcome": ["a"] * 6, "seed": range(6)}), "seed is a column of its own"),
        (pd.DataFrame({"outcome": ["a"] * 6, "test/loss": range(6)}), "test/loss is a column of its own"),
    ],
)
def test_a_table_that_is_no_judgement_is_refused_with_the_judges_name(table, message):
    def careless(cell, dataset, training):
        return table

    cell, training = trained(*STUCK[:-2], "epochs=1", "restarts=6")
    with pytest.raises(ValueError, match=f"judge careless: .*{message}"):
        judges.judged(replace(cell, judge=careless), training)


def test_a_judges_outcomes_take_the_place_of_finite_and_diverged():
    _, training = trained(*STUCK[:-2], "epochs=1", "restarts=60")
    said = pd.DataFrame({"outcome": ["saddle"] * 50 + ["flat minimum"] * 10, "loss_level": ["0"] * 60})
    table = tables.restart_table(training, said)
    assert table["outcome"].value_counts().to_dict() == {"saddle": 50, "flat minimum": 10}
    assert table.columns[-1] == "loss_level"
    assert tables.outcome_counts(training, said) == {"outcome/saddle": 50, "outcome/flat minimum": 10}
    assert tables.outcome_counts(training) == {"outcome/finite": 60, "outcome/diverged": 0}
    stands_for = tables.with_own_run(training, "auto", said)
    assert sum(kind == "flat minimum" for kind in stands_for.values()) >= 1
    assert {0, 1, 2, 50, 51, 52} <= set(stands_for)


# --- in the store ------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(store):
    """A judged cell of six stuck and solved nets, as `sweeps` keeps it."""
    where = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]

    def keep(*overrides, judge=judges.certificates):
        settings = ["tracking=local", "data=xor", "descent=batch", "network.hidden=2", "log_every=500", *STUCK]
        configs = compose([*settings, *overrides, *where])
        with open_tracker(store) as tracker:
            sweeps.run(cells(configs, judge), tracker, progress=False)
        return configs

    return keep


def test_runs_are_filtered_by_what_they_ended_in(store, kept):
    from mlflow.tracking import MlflowClient

    kept("restarts=12", "epochs=1000")
    (cell,) = find(store, "cell")
    table = pd.read_parquet(cell.artifact("restarts.parquet"))
    counts = table["outcome"].value_counts()
    assert "flat minimum" in counts
    client = MlflowClient(f"sqlite:///{Path(store.numbers['uri'].removeprefix('sqlite:///'))}")
    experiment = client.get_experiment_by_name("tests").experiment_id
    for outcome, number in counts.items():
        found = client.search_runs([experiment], f"params.activation = 'relu' and tags.outcome = '{outcome}'")
        assert len(found) == number
        assert cell.metrics[f"outcome/{outcome}"] == number
    assert not client.search_runs([experiment], "params.activation = 'tanh' and tags.outcome = 'flat minimum'")
    assert "spread.png" in cell.artifacts()
    assert cell.tags["outcome"] == "finite"  # of the cell, none of whose restarts diverged
    restarts = results.restarts(store)
    assert restarts["outcome"].tolist() == table["outcome"].tolist()
    assert {"polished_loss", "smallest", "kinks"} <= set(restarts)


def by_size(cell, dataset, training):
    """Judge restarts by the size of their largest weight."""
    size = np.abs(training.final.flat).max(axis=1)
    level = [f"{value:.0f}" for value in size]
    return pd.DataFrame({"outcome": np.where(size > 2, "large", "small"), "loss_level": level})


def test_a_level_is_a_tag_of_the_restart_beside_its_outcome(store, kept):
    kept(judge=by_size)
    for run in find(store, "restart"):
        assert run.tags["level"] == "restart"
        assert run.tags["outcome"] == ("large" if int(run.tags["loss_level"]) > 2 else run.tags["outcome"])
    assert {run.tags["outcome"] for run in find(store, "restart")} <= {"large", "small"}


def test_a_cell_that_stands_unjudged_is_judged_from_its_weights_and_then_stands(store, kept, capsys):
    kept(judge=None)
    (unjudged,) = find(store, "cell")
    kept(judge=by_size)
    assert "6 of 6 restarts are stored already" in capsys.readouterr().err
    _, judged = find(store, "cell")
    assert judged.tags["reused_from"] == unjudged.run_id
    assert re.fullmatch("test_judges.by_size@[0-9a-f]{16}", judged.tags["judge"])
    table = judged.table("restarts.parquet")
    assert set(table["outcome"]) <= {"large", "small"}
    assert table["train/loss"].tolist() == unjudged.table("restarts.parquet")["train/loss"].tolist()
    assert len(find(store, "restart", parent=judged.run_id)) == 6
    kept(judge=by_size)
    assert len(find(store, "cell")) == 2
    assert "is stored already" in capsys.readouterr().err


def test_a_restart_has_one_finished_run_per_judge_however_often_its_cell_grows(store, kept):
    kept("restarts=2", judge=None)
    kept("restarts=2", judge=by_size)
    kept("restarts=3", judge=by_size)
    kept("restarts=4", judge=None)
    known = [(run.tags.get("judge", "").partition("@")[0], int(run.params["seed"])) for run in find(store, "restart")]
    first = min(seed for _, seed in known)
    expected = [("", first + place) for place in range(4)]
    assert sorted(known) == expected + [("test_judges.by_size", first + place) for place in range(3)]


def test_weights_that_were_too_large_to_be_kept_are_trained_again_to_be_judged(store, kept, monkeypatch):
    monkeypatch.setattr(trainings, "WEIGHTS_LIMIT", 100)
    kept(judge=None)
    kept(judge=by_size)
    unjudged, judged = find(store, "cell")
    assert "reused" not in judged.tags
    pd.testing.assert_frame_equal(judged.table("curves.parquet"), unjudged.table("curves.parquet"))
    assert set(judged.table("restarts.parquet")["outcome"]) <= {"large", "small"}


def test_a_lone_run_carries_its_own_verdict(store, kept):
    kept("restarts=1", judge=by_size)
    (cell,) = find(store, "cell")
    assert cell.tags["outcome"] in ("large", "small")
    assert cell.tags["loss_level"]
    assert "spread.png" not in cell.artifacts()


def test_without_a_judge_a_cell_counts_finite_and_diverged(store, kept):
    kept("epochs=5", judge=None)
    (cell,) = find(store, "cell")
    assert (cell.metrics["outcome/finite"], cell.metrics["outcome/diverged"]) == (6, 0)
    assert "spread.png" in cell.artifacts()


def test_an_edited_judge_judges_stored_weights_again_and_retrains_nothing(store, kept, tmp_path, monkeypatch):
    def judge(text):
        path = tmp_path / "opinions.py"
        path.write_text(f"import pandas as pd\n\ndef by_age(cell, dataset, training):\n    return {text}\n")
        spec = importlib.util.spec_from_file_location("opinions", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "opinions", module)
        spec.loader.exec_module(module)
        cells_module._identity.cache_clear()
        return module.by_age

    first, second = (f'pd.DataFrame({{"outcome": ["{word}"] * len(training.seeds)}})' for word in ("young", "old"))
    kept("restarts=2", judge=judge(first))
    trained = []
    whole = sweeps_training.iterate
    monkeypatch.setattr(
        sweeps_training, "iterate", lambda *given, **more: trained.append(given) or whole(*given, **more)
    )
    for text, word in ((first, "young"), (second, "old"), (second, "old")):
        kept("restarts=2", judge=judge(text))
        runs = find(store, "cell")
        assert set(runs[-1].table("restarts.parquet")["outcome"]) == {word}
    assert (len(runs), trained) == (2, [])
    assert runs[1].tags["reused_from"] == runs[0].run_id
    assert [run.tags["outcome"] for run in find(store, "restart")] == ["young", "young", "old", "old"]
