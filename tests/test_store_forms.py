"""Stores of earlier forms can be read, and nothing is added to them; keys that come later change no stored key."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from shared import cell, sweep

from descentlab import cli
from descentlab.config import configuration, resolving
from descentlab.config.resolving import resolve
from descentlab.studies import report, study
from descentlab.tracking import find, results, stored_cell
from descentlab.tracking import store as stores
from descentlab.values import InputError, Option

FORMS = sorted((Path(__file__).parent / "stores").glob("form_*.tar.xz"))  # each written by the code of its time

SMALL = '''"""What a small study asks."""
from descentlab import figures
from descentlab.studies.study import Part
PARTS = {"widths": Part()}
def report(study):
    ends = study.restarts("widths")
    study.table("ends", ends[["hidden", "seed", "test/accuracy"]])
    study.table("measured", study.measured("speeds", lambda: 1 / 0))
    study.figure("curves", figures.learning_curves(study.curves("widths", ["test/loss"])))
    study.verdicts({"better": ends[ends["hidden"].astype(str) == "4"]["test/accuracy"].to_numpy()})
'''
CLAIM = """claims: [{id: better, statement: is better, family: f, metric: test accuracy (fraction), test: greater,
  margin: 0.2, n: 6, conditional_on: iris}]"""


@pytest.fixture(params=FORMS, ids=lambda path: path.name.partition(".")[0])
def earlier(request, tmp_path):
    """A store of an earlier form: two judged cells of a study, a sweep of two and a cell on a CSV file."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    return Option("local", {"uri": str(tmp_path / "earlier" / "mlflow.db"), "experiment": "earlier"})


@pytest.fixture
def command(earlier, capsys):
    place = [f"tracking.{key}={earlier.numbers[key]}" for key in ("uri", "experiment")]

    def run(*words):
        status = cli.main([*words, *place])
        return status, *capsys.readouterr()

    return run


def test_the_archives_are_small():
    assert FORMS
    assert all(path.stat().st_size < 200_000 for path in FORMS)


def test_an_earlier_store_is_listed_shown_exported_and_read(earlier, command):
    runs = find(earlier)
    assert len(runs) == 5
    status, output, _ = command("list")
    assert (status, all(run.run_id[:8] in output for run in runs)) == (0, True)
    assert command("list", "sweeps")[1].count("2026") == 2 * 3
    assert command("list", "summaries")[1].count("small") == 1
    assert command("status")[1].count("command line") == 2
    for run in runs:
        assert command("show", run.run_id)[0] == 0
    status, table, _ = command("export", "-")
    assert (status, len(table.splitlines())) == (0, 1 + 2 + 2 + 2 + 6 + 6)
    assert len(results.restarts(earlier)) == len(table.splitlines()) - 1
    assert results.weights(earlier, runs[0].run_id).final["W1"].shape == (2, 4, 4)
    assert results.curves(earlier, metrics=["train/loss"])["value"].notna().all()


def test_an_earlier_study_is_reported(earlier, command, tmp_path, monkeypatch):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "small.yaml").write_text(CLAIM)
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.setattr(study, "EXPERIMENTS", tmp_path)
    one = report.rebuild(earlier, "small", tmp_path / "reports")
    assert one.verdicts["claim"].tolist() == ["better"]
    assert (one.folder / "speeds.csv").read_text() == "speed\n0.5\n2.0\n"
    assert (one.folder / "curves.svg").is_file()


def test_the_settings_and_data_of_an_earlier_run_are_known(earlier):
    known = [run for run in find(earlier) if run.data == "iris"]
    assert len(known) == 4
    assert {stored_cell(run).config.data.name for run in known} == {"iris"}


@pytest.mark.parametrize(
    "words",
    [
        ["data=iris", "activation=tanh", "epochs=3", "restarts=2", "network.hidden=4"],
        ["data=iris", "activation=tanh", "epochs=3", "restarts=3", "network.hidden=4"],
        ["plan", "data=iris", "restarts=3"],
        ["replay"],
    ],
    ids=["the same", "growing", "plan", "replay"],
)
def test_adding_to_an_earlier_store_and_replaying_its_runs_is_refused_in_one_line(earlier, command, words):
    before = {run.run_id for run in find(earlier, status=None)}
    words = [*words, find(earlier)[0].run_id] if words == ["replay"] else words
    status, output, error = command(*words)
    assert (status, output) == (2, "")
    (line,) = [line for line in error.splitlines() if "artifact paths" not in line]
    assert "tracking.experiment=earlier: was written by an earlier version of descentlab" in line
    assert {run.run_id for run in find(earlier, status=None)} == before


def test_new_runs_go_into_another_experiment_of_an_earlier_store(earlier, command):
    other = replace(earlier, numbers={**earlier.numbers, "experiment": "new"})
    assert len(sweep(other, cell(restarts=1))[1]) == 1
    assert len(find(other)) == 1
    assert len(find(earlier)) == 5


def test_an_experiment_carries_the_form_of_its_runs(store):
    sweep(store, cell(restarts=1))
    opened = stores.open_store(store)
    assert opened.client.get_experiment(opened.experiment_id).tags[stores.FORM_TAG] == stores.FORM
    opened.client.set_experiment_tag(opened.experiment_id, stores.FORM_TAG, "99")
    with pytest.raises(InputError, match="was written by another version of descentlab"):
        sweep(store, cell(restarts=1, seed=3))


def test_an_experiment_that_others_made_and_left_empty_gets_the_form(store, tmp_path):
    opened = stores.open_client(store.numbers["uri"])
    made = opened.create_experiment("plain", artifact_location=(tmp_path / "artifacts").as_uri())
    plain = replace(store, numbers={**store.numbers, "experiment": "plain"})
    sweep(plain, cell(restarts=1))
    assert opened.get_experiment(made).tags[stores.FORM_TAG] == stores.FORM


def test_a_key_that_comes_later_has_its_default_in_earlier_configurations_and_changes_no_hash(monkeypatch):
    now = cell()
    stored = {key: value for key, value in now.as_dict().items() if key != "learning_rate_decay"}
    stored["data"] = {key: value for key, value in stored["data"].items() if key != "noise"}
    with pytest.raises(InputError, match="learning_rate_decay: is missing"):
        resolve(stored)
    hashed = {key: value for key, value in stored.items() if key not in configuration.HASHED_NOT}
    canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"))  # as it was before the keys came
    before = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    later = {"learning_rate_decay": 1.0, "data.noise": now.data.numbers["noise"]}
    for module in (configuration, resolving):
        monkeypatch.setattr(module, "LATER", later)
    assert resolve(stored) == now
    assert resolve(stored).hash == before
    assert cell(learning_rate_decay=0.9).hash != before
    assert cell(data={"name": "moons", "samples": 60, "noise": 0.5}).hash != before
