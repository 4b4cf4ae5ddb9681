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
from descentlab.analysis import verdicts
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
    assert 0 < len(f"{path.stem}: {study._cost(opening)}; stored cells are reused") <= 80


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
    **{"convex": 2, "convex_digits": 2, "depth": 9, "dying_relu": 12, "grid": 144, "initial_spread": 12},
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
        assert config.data.numbers["split_seed"] == 0
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


def test_the_main_job_is_the_whole_grid_over_six_splits_and_five_seeds():
    cells = composing.compose(["tracking=none"], "grid")
    axes = [
        (cell.activation.name, cell.loss.name, cell.descent.name, cell.data.numbers["split_seed"]) for cell in cells
    ]
    assert len(set(axes)) == len(cells) == 4 * 2 * 3 * 6
    assert {(cell.seed, cell.restarts) for cell in cells} == {(0, 5)}


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


# --- the main job ------------------------------------------------------------------------------------------------


def grid_restarts(best_on_validation="tanh", best_on_test="relu", lost=()):
    """Restarts of four cells on six splits with five seeds; validation and test disagree about the best one."""
    rng = np.random.default_rng(3)
    rows = []
    for activation in ("sigmoid", "tanh", "relu"):
        for descent in ("batch", "mini_batch"):
            for split in range(6):
                for seed in range(5):
                    fine = descent == "mini_batch"
                    ends = {
                        f"{name}/accuracy": 0.5 + 0.4 * fine + 0.01 * fine * (activation == best) + rng.normal(0, 0.001)
                        for name, best in (("validation", best_on_validation), ("test", best_on_test))
                    }
                    row = {"loss": "categorical_cross_entropy", "descent": descent, "activation": activation}
                    row |= {"data.split_seed": float(split) if split else np.nan, "seed": seed, "data": "digits"}
                    row |= {"run_id": f"{activation}-{descent}-{split}", "learning_rate": 0.1, "diverged_epoch": -1}
                    if (activation, split, seed) in lost:
                        row["diverged_epoch"], ends = 3, dict.fromkeys(ends, np.nan)
                    rows.append(row | ends | {"test/loss": 0.1 if row["diverged_epoch"] < 0 else np.nan})
    return pd.DataFrame(rows)


def main_grid(sweep, restarts):
    splits = sweep.split_means(restarts)
    steps = pd.DataFrame({"run_id": splits["run_id"], "step": 20})
    return splits, sweep.grid_table(splits, steps)


def fading_curves(fewer_decades=0.0):
    rows = []
    for layers in (2, 4, 8):
        for arm, slope in (("sigmoid, glorot_uniform", 0.63), ("relu, glorot_uniform", 0.16), ("relu, he_normal", 0.0)):
            slope -= fewer_decades if arm.startswith("sigmoid") else 0.0
            for seed in range(30):
                about = {"hidden_layers": layers, "arm": arm, "seed": seed, "epoch": 0}
                for layer in range(1, layers + 2):
                    value = 10 ** ((slope + 1e-4 * seed) * layer)
                    rows.append(about | {"metric": f"delta_norm/layer_{layer}", "value": value})
                rows.append(about | {"metric": "test/accuracy", "value": 0.9})
    return pd.DataFrame(rows)


def width_restarts(exponent=-1.0, widths=(2, 4, 8)):
    rng = np.random.default_rng(1)
    normal = rng.normal(0, 1, (len(widths), 60))
    rows = [
        {"width": width, "seed": seed, "diverged_epoch": -1, "test/loss": 2 + width**exponent * normal[place, seed]}
        for place, width in enumerate(widths)
        for seed in range(60)
    ]
    return pd.DataFrame(rows).assign(**{"test/accuracy": 0.9})


def test_the_best_configuration_is_chosen_on_validation_and_told_on_test():
    sweep = script("sweep")
    splits, grid = main_grid(sweep, grid_restarts())
    first = sweep.best(grid)
    assert (first["activation"], first["descent"]) == ("tanh", "mini_batch")
    told = sweep.grid_answer(grid, splits)
    assert "On validation tanh, mini-batch, categorical cross entropy: test accuracy 0.900" in told
    assert "No other is a near-tie" in told
    assert "6 splits x 5 seeds" in told


def test_configurations_that_validation_cannot_tell_from_the_best_are_near_ties():
    sweep = script("sweep")
    restarts = grid_restarts(best_on_validation="none of them")
    splits, grid = main_grid(sweep, restarts)
    assert set(grid[grid["near_best"]]["descent"]) == {"mini_batch"}
    assert grid["near_best"].sum() == 3
    assert "2 of the 5 others are near-ties (*)" in sweep.grid_answer(grid, splits)
    view = sweep.grid_view(grid).set_index("test accuracy")
    assert list(view.columns) == ["CE, batch", "CE, mini"]
    assert view.drop(index="updates")["CE, mini"].str.endswith("*").all()
    assert view.loc["updates", "CE, mini"].strip() == "20"
    assert not view["CE, batch"].str.contains("*", regex=False).any()


def test_an_interval_of_the_grid_is_over_splits_and_diverged_restarts_are_left_out_and_counted():
    sweep = script("sweep")
    restarts = grid_restarts(lost=[("relu", 0, 0), ("sigmoid", 2, 1)])
    splits, grid = main_grid(sweep, restarts)
    assert (splits["n"] == 5).all()
    relu = grid[(grid["activation"] == "relu") & (grid["descent"] == "mini_batch")].iloc[0]
    chosen = restarts[(restarts["activation"] == "relu") & (restarts["descent"] == "mini_batch")]
    means = chosen.groupby(chosen["data.split_seed"].fillna(0))["test/accuracy"].mean()
    assert (relu["splits"], relu["restarts"], relu["diverged"]) == (6, 30, 1)
    assert relu["test_accuracy"] == pytest.approx(means.mean())
    wide = 2.570582 * means.std() / 6**0.5  # Student's t with 5 degrees of freedom
    assert relu["test_accuracy_high"] - relu["test_accuracy"] == pytest.approx(wide, rel=1e-6)


def test_the_claims_of_the_main_job_have_values_for_every_case_and_can_be_decided():
    sweep = script("sweep")
    claims = study.declared_claims("sweep")
    verdicts.check(claims)
    splits = sweep.split_means(grid_restarts(best_on_test="tanh"))
    good = verdicts.judge(claims, sweep.claimed(fading_curves(), width_restarts(), splits))
    assert {row.verdict for row in good} == {"supported"}
    bad = verdicts.judge(claims, sweep.claimed(fading_curves(0.3), width_restarts(0.0), splits))
    wrong = {"sigmoid_fades_more", "sigmoid_fades_more_own", "spread_falls"}
    assert {row.claim for row in bad if row.verdict == "not supported"} == wrong
    lines = sweep._verdicts(good, "sigmoid", "spread")
    assert [line.partition(":")[0] for line in lines] == ["supported 3 of 3", "supported 3 of 3", "supported"]


def test_the_exponent_of_the_width_is_fitted_block_by_block_and_a_lost_restart_ranks_worst():
    sweep = script("sweep")
    restarts = width_restarts(-0.7).assign(seed=lambda frame: frame["seed"] + 1000)
    restarts["test/loss"] = 2 + restarts["width"] ** -0.7 * np.sin(restarts["seed"])  # the same draws at every width
    slopes = sweep.block_slopes(restarts)
    np.testing.assert_allclose(slopes, np.full(12, -0.7))
    restarts.loc[7, ["diverged_epoch", "test/loss"]] = 2, np.nan
    slopes = sweep.block_slopes(restarts)
    assert slopes[1] == np.inf
    assert np.isfinite(np.delete(slopes, 1)).all()


def test_a_block_of_the_grid_without_a_finite_restart_is_no_candidate():
    sweep = script("sweep")
    lost = [("tanh", split, seed) for split in range(6) for seed in range(5)]
    _, grid = main_grid(sweep, grid_restarts(lost=lost))
    assert sweep.best(grid)["activation"] != "tanh"
    assert not grid[grid["activation"] == "tanh"]["near_best"].any()


def test_the_answers_of_the_main_job_fit_a_terminal(capsys):
    sweep = script("sweep")
    depth = sweep.depth_table(fading_curves())
    width = width_restarts(widths=(2, 4, 8, 16, 32, 64))
    spreads = sweep.width_table(width)
    splits, grid = main_grid(sweep, whole_grid())
    rows = verdicts.judge(study.declared_claims("sweep"), sweep.claimed(fading_curves(), width, splits))
    sweep._print(sweep.depth_answer(depth), sweep.depth_view(depth), sweep._verdicts(rows, "sigmoid"))
    sweep._print(sweep.width_answer(spreads), sweep.width_view(spreads), sweep._verdicts(rows, "spread"))
    sweep._print(sweep.grid_answer(grid, splits), sweep.grid_view(grid), sweep._verdicts(rows, "batch", "activation"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 33  # and seven: time, store, three of cells that are stored, two at the end
    assert [line for line in lines if len(line) > 80] == []
    assert sum("supported" in line for line in lines) == 5


def whole_grid():
    half = grid_restarts(best_on_test="tanh")
    half = pd.concat([half, half[half["descent"] == "batch"].assign(descent="stochastic")])
    half = pd.concat([half, half[half["activation"] == "relu"].assign(activation="leaky_relu")])
    return pd.concat([half.assign(loss="mean_squared_error"), half])


@pytest.mark.slow
def test_the_main_job_prints_at_most_forty_lines_of_eighty_columns(store, capsys):
    for _ in range(2):  # the second run finds all cells stored
        assert run("sweep", store, "--quick") == 0
        said = capsys.readouterr()
        lines = said.out.splitlines() + [line for line in said.err.splitlines() if line.startswith("descentlab:")]
        assert len(lines) <= 40
        assert [line for line in lines if len(line) > 80 and str(store.numbers["uri"]) not in line] == []
        assert "No verdict (quick form): run python experiments/sweep.py" in lines


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
