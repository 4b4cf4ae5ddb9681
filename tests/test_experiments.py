"""Every script of experiments/ in its quick form, and what the main job's and the notebook's scripts claim."""

import contextlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import script

from descentlab import cli
from descentlab.config import composing
from descentlab.studies import study, tuning
from descentlab.tracking import find, results
from descentlab.values import InputError

SCRIPTS = list(study.scripts().values())


def run(name: str, store, *arguments: str) -> int:
    """Run a script as a user would, but for the store."""
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments, *place])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(study.scripts()[name]), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_experiment_opens_with_method_cost_and_departures(path):
    opening = script(path.stem).__doc__
    for heading in ("Method:", "Cost:", "Departures"):
        assert heading in opening


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_experiment_runs_in_its_quick_form_and_keeps_its_tables_and_figures(path, store, request):
    if path.stem == "notebook":
        request.getfixturevalue("mnist")
    assert run(path.stem, store, "--quick") == 0
    (summary,) = find(store, "summary")
    assert summary.status == "FINISHED"
    assert json.loads(summary.artifact("config.json").read_text())["form"] == "quick"
    for sweep in {cell.tags["sweep"] for cell in find(store, "cell")}:
        assert len(results.restarts(store, sweep))
    artifacts = [Path(summary.artifact(name)) for name in summary.artifacts()]
    figures = {file.stem for file in artifacts if file.suffix == ".png"}
    assert figures
    assert figures <= {file.stem for file in artifacts if file.suffix == ".svg"}
    for table in (file for file in artifacts if file.suffix == ".csv"):
        assert len(pd.read_csv(table))


PRESETS = sorted(path.stem for path in (composing.conf_folder() / "experiment").glob("*.yaml"))
CELLS = {  # of the studies
    **{"convex": 2, "convex_digits": 2, "depth": 9, "dying_relu": 12, "grid": 24, "initial_spread": 12},
    **{"linear_control": 8, "local_minima": 7, "local_minima_digits": 7, "nielsen": 2, "notebook": 3},
    **{"notebook_published": 1, "notebook_restarts": 4, "notebook_restarts_digits": 4, "one_layer": 3},
    **{"one_layer_digits": 3, "order_to_chaos": 42, "thirty_layers": 28, "vanishing_digits": 30},
    **{"vanishing_mnist": 18, "width": 6, "xor": 24, "xor_published": 3},
}


def test_every_preset_is_a_part_of_a_study():
    parts = {key for path in SCRIPTS for key in getattr(script(path.stem), "PARTS", {})}
    assert set(CELLS) <= parts == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sweep_of_a_preset_composes_the_cells_of_its_study(preset, capsys):
    assert cli.main(["-m", "--cfg", "job", "tracking=none", f"experiment={preset}"]) == 0
    hashes = re.findall("^# hash (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(set(hashes)) == len(hashes) == CELLS.get(preset, len(hashes))


def test_every_arm_of_a_tuned_part_has_a_rate_of_its_own():
    tuned = {key for path in SCRIPTS for key, part in getattr(script(path.stem), "PARTS", {}).items() if part.tuned}
    assert {"grid", "depth", "width"} < tuned
    for key in tuned:
        assert all(arm[-1].startswith("learning_rate=") for arm in composing.listed_arms(key))


def test_tuning_writes_the_rate_of_every_arm_of_the_main_grid_into_its_preset(tmp_path, monkeypatch):
    shutil.copytree(composing.conf_folder(), tmp_path / "conf")
    monkeypatch.setattr(composing, "conf_folder", lambda: tmp_path / "conf")
    asked = []

    def choose(config):
        asked.append([f"{key}={getattr(config, key).name}" for key in ("activation", "loss", "descent")])
        best = float(len(asked) // 2)
        return pd.DataFrame({"learning_rate": [0.5, best], "validation_loss": [2.0, 1.0], "chosen": [False, True]})

    monkeypatch.setattr(tuning, "choose_rate", choose)
    grid = script("sweep").PARTS["grid"]
    before = (tmp_path / "conf/experiment/grid.yaml").read_text().partition("arms:")[0]
    arms = [arm[:-1] for arm in composing.listed_arms("grid")]
    assert grid.tuned
    tuning.tune(["grid"], ["tracking=none"])
    assert asked == arms
    assert composing.listed_arms("grid") == [[*arm, f"learning_rate={at // 2}"] for at, arm in enumerate(arms, start=1)]
    assert (tmp_path / "conf/experiment/grid.yaml").read_text().startswith(before)


def test_the_main_job_is_the_whole_grid_over_thirty_seeds():
    cells = composing.compose(["tracking=none"], "grid")
    axes = [(cell.activation.name, cell.loss.name, cell.descent.name) for cell in cells]
    assert len(set(axes)) == 4 * 2 * 3
    assert {cell.restarts for cell in cells} == {30}


def test_a_rate_is_chosen_on_validation_with_seeds_of_its_own(monkeypatch):
    (cell,) = composing.compose(["tracking=none", "data=iris", "epochs=3", "restarts=2", "log_every=1"])
    seen = []

    def spy(recipe, splits, workers):
        seen.append((recipe, set(splits)))
        return trained(recipe, splits, workers)

    trained = tuning.train_recipe
    monkeypatch.setattr(tuning, "train_recipe", spy)
    table = tuning.choose_rate(cell, (0.01, 0.1, 1.0))
    assert all(recipe.seed >= 100_000 and splits == {"train", "validation"} for recipe, splits in seen)
    chosen = table[table["chosen"]]
    assert len(chosen) == 1
    assert chosen["validation_loss"].iloc[0] == table["validation_loss"].min()


def test_a_grid_of_rates_is_widened_until_its_edge_does_not_win():
    (cell,) = composing.compose(["tracking=none", "data=iris", "epochs=5"])
    table = tuning.choose_rate(cell, (1e-5, 1e-4)).sort_values("learning_rate")
    best = table["chosen"].to_numpy().argmax()
    assert 0 < best < len(table) - 1
    assert table["learning_rate"].iloc[best] > 1e-4


def test_a_rate_with_which_a_restart_diverges_is_not_chosen():
    (cell,) = composing.compose(["tracking=none", "data=diabetes", "activation=identity", "epochs=40"])
    table = tuning.choose_rate(cell, (0.01, 0.1, 1e9))
    assert not np.isfinite(table["validation_loss"].iloc[-1])
    assert not table["chosen"].iloc[-1]


@pytest.mark.mnist
def test_data_without_a_validation_split_has_no_rate_to_choose(mnist):
    cell = composing.compose(["tracking=none"], "notebook")[0]
    with pytest.raises(InputError, match="validation"):
        tuning.choose_rate(cell)


def test_what_a_study_had_measured_when_it_was_cut_short_is_not_measured_again(store):
    asked = []

    def measure(name):
        asked.append(name)
        if asked == ["first", "second"]:
            raise KeyboardInterrupt
        return pd.DataFrame({"name": [name], "value": [0.1]})

    def report(one):
        for name in ("first", "second"):
            assert one.measured(name, lambda name=name: measure(name)).to_dict("list") == {
                "name": [name],
                "value": [0.1],
            }

    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            study.main("a_study_without_cells", "about", {}, report, place)
    assert asked == ["first", "second", "second", "first", "second"]  # the third run comes after one that ended
    assert [run.status for run in find(store, "summary", status=None)] == ["KILLED", "FINISHED", "FINISHED"]


def test_an_unknown_flag_of_a_script_is_refused_in_one_line(capsys):
    assert study.main("sweep", "about", {}, lambda _: None, ["--fast"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--fast" in error


def test_a_bad_override_of_a_script_is_refused_before_anything_trains(capsys, store):
    assert run("sweep", store, "epochs=-1") == 2
    assert "epochs=-1" in capsys.readouterr().err
    assert not find(store, "cell")


def test_decades_per_layer_are_the_slope_over_hidden_layers_alone():
    sweep = script("sweep")
    rows = [
        {"hidden_layers": 3, "arm": "x", "seed": 0, "epoch": 0, "metric": f"delta_norm/layer_{layer}", "value": value}
        for layer, value in enumerate((1e-3, 1e-2, 1e-1, 7.0), start=1)
    ]
    assert sweep.decades_per_layer(pd.DataFrame(rows), 0).iloc[0] == pytest.approx(1.0)


def test_the_drawn_weights_are_the_notebooks():
    notebook = script("notebook")
    for name, values in notebook.computed_weights().items():
        np.testing.assert_allclose(values, notebook.PRINTED_WEIGHTS[name], atol=1e-8)


@pytest.mark.mnist
def test_every_figure_that_the_notebook_prints_is_computed_here(mnist, store):
    assert run("notebook", store) == 0
    (summary,) = find(store, "summary")
    printed = pd.read_csv(summary.artifact("printed.csv"))
    assert len(printed) == 50 + 5 + 10 + 10 + 25 + 25
    assert printed["agree"].all()
    ends = printed[printed["place"] == 24].set_index("figure")["computed"]
    assert ends["accuracy after epoch, t10k rows 0-49 (the notebook's)"] == pytest.approx(0.86)
    assert ends["accuracy after epoch, training rows 250-299 (published)"] == pytest.approx(0.80)
    runs = pd.read_csv(summary.artifact("runs.csv")).set_index("run")["test_accuracy"]
    sequential, collapsed, sane = runs
    assert (sequential, sane) == (pytest.approx(0.86), pytest.approx(0.82, abs=0.06))
    assert collapsed < 0.2
    sweeps = {cell.tags["sweep"] for cell in find(store, "cell")}
    curves = [results.curves(store, sweep, metrics=["train/loss"]) for sweep in sweeps]
    own, published = (frame[frame["cell"].str.contains("seq") | (frame["cell"].nunique() == 1)] for frame in curves)
    own, published = (frame.sort_values("epoch")["value"].to_numpy() for frame in (own, published))
    np.testing.assert_allclose(own, published, rtol=1e-7)  # the CSV file has ten digits: one network, epoch by epoch


def test_the_notebook_script_prints_what_needs_no_data_and_names_what_is_missing(store, monkeypatch, tmp_path, capsys):
    import sklearn.datasets

    def fetch(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.delenv("DESCENTLAB_MNIST", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run("notebook", store) == 0
    said = capsys.readouterr().out
    assert "notebook: skipped, data.path=auto: OpenML does not send MNIST (no network)" in said
    (summary,) = find(store, "summary")
    printed = pd.read_csv(summary.artifact("printed.csv"))
    assert len(printed) == 50 + 5 + 10
    assert printed["agree"].all()
