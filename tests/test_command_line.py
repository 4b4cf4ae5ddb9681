import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from descentlab import cli, interrupts, tracking
from descentlab.cli import final_values
from descentlab.cli.commands import COMMANDS
from descentlab.cli.entry import train_parser
from descentlab.cli.parsing import parsed
from descentlab.cli.words import store_words
from descentlab.config import composing, hydra_api
from descentlab.config.cells import cells as made
from descentlab.config.options import GROUPS
from descentlab.config.resolving import resolve
from descentlab.sweeps import progress
from descentlab.sweeps import running as sweeps
from descentlab.sweeps import training as sweeps_training
from descentlab.tracking import find, open_tracker
from descentlab.values import InputError, Option

EXPERIMENTS = sorted(path.stem for path in (composing.conf_folder() / "experiment").glob("*.yaml"))
QUICK = ["data=xor", "epochs=3", "tracking=none"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []  # no command leaves anything in the working directory


@pytest.fixture
def run(capsys):
    def run(*words):
        # -> exit status, standard output, standard error
        status = cli.main(words)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def own(tmp_path):
    # a folder with option files of the user's own
    def own(**files):
        folder = tmp_path / "own"
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(folder)

    return own


def refused(run, *words):
    status, _, error = run(*words)
    assert status == 2
    assert error.startswith("descentlab: error: ")
    assert len(error.splitlines()) == 1
    return error.removeprefix("descentlab: error: ").strip()


# --- one run is explained by few lines ---------------------------------------------------------------------------


def explained_by(experiment):
    # the files that a run of this experiment is composed of
    conf = composing.conf_folder()
    loader = hydra_api.loader_of([conf])
    from hydra.types import RunMode

    words = [f"experiment={experiment}"] if experiment else []
    chosen = loader.load_configuration("config", words, RunMode.RUN).hydra.runtime.choices
    groups = [group for group in (*GROUPS, "experiment") if chosen[group] is not None]
    assert set(chosen) - {"experiment"} <= {*GROUPS} | {key for key in chosen if key.startswith("hydra/")}
    return [conf / "config.yaml", *(conf / group / f"{chosen[group]}.yaml" for group in groups)]


@pytest.mark.parametrize("experiment", [None, *EXPERIMENTS])
def test_one_run_is_explained_by_at_most_9_files_and_110_lines(experiment):
    files = explained_by(experiment)
    assert len(files) == (9 if experiment else 8)
    assert sum(len(file.read_text().splitlines()) for file in files) <= 110


def test_the_longest_choice_of_options_stays_within_110_lines():
    conf = composing.conf_folder()
    longest = [max(len(f.read_text().splitlines()) for f in (conf / group).glob("*.yaml")) for group in GROUPS]
    config = len((conf / "config.yaml").read_text().splitlines())
    experiment = max(len(f.read_text().splitlines()) for f in (conf / "experiment").glob("*.yaml"))
    assert config + sum(longest) + experiment <= 110


@pytest.mark.parametrize("group", GROUPS)
def test_an_option_file_is_short_and_holds_the_defaults_of_the_code(group):
    from descentlab.config.options import schemas

    for name, schema in schemas(group).items():
        text = (composing.conf_folder() / group / f"{name}.yaml").read_text()
        longest = {"data": 22 if name == "file" else 12, "tracking": 6}.get(group, 5)  # a file has 21 keys of its own
        assert len(text.splitlines()) <= longest
        assert yaml.safe_load(text) == {"name": name, **{key: default for key, (_, default) in schema.items()}}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment):
    assert composing.compose([], experiment)[0].name


def test_no_private_name_of_hydra_is_used():
    package = Path(hydra_api.__file__).parents[1]
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if names and names[0].split(".")[0] in ("hydra", "omegaconf"):
                assert not any(part.startswith("_") for name in names for part in name.split(".")), path
            if path.stem == "hydra_api" and isinstance(node, ast.Attribute):
                assert not re.match("_[a-z]", node.attr), node.attr


# --- composing ---------------------------------------------------------------------------------------------------


def test_defaults_are_digits_relu_32_units_and_mini_batches_of_32():
    (config,) = composing.compose([])
    chosen = [config.data.name, config.activation.name, config.hidden, config.update.name, config.tracking.name]
    assert chosen == ["digits", "relu", (32,), "gradient_descent", "local"]
    assert dict(config.descent.numbers) == {"batch_size": 32}
    assert config.dtype == "float64"


@pytest.mark.parametrize(
    "word", ["network.hidden=64-32", "network.hidden=[64,32]", "network.hidden=[64, 32]", "network.hidden='64-32'"]
)
def test_hidden_layers_can_be_given_as_text_or_list(word):
    assert composing.compose([word])[0].hidden == (64, 32)


def test_values_reach_the_configuration_and_later_words_win():
    (config,) = composing.compose(
        ["activation=elu", "activation.alpha=1", "activation.alpha=2e0", "seed=3", "+epochs=4"]
    )
    assert dict(config.activation.numbers) == {"alpha": 2.0}
    assert (config.seed, config.epochs) == (3, 4)


def test_a_sweep_is_the_product_of_its_axes_in_order():
    cells = composing.compose(["activation=tanh,relu", "seed=range(0,2)", "network.hidden=8,16-8", "epochs=choice(1)"])
    assert [(cell.activation.name, cell.seed, cell.hidden) for cell in cells] == [
        (activation, seed, hidden) for activation in ("tanh", "relu") for seed in (0, 1) for hidden in ((8,), (16, 8))
    ]
    assert len({cell.name for cell in cells}) == 8


def test_globs_sweep_over_options():
    names = [cell.activation.name for cell in composing.compose(["activation=glob(s*)"])]
    assert names == sorted(names)
    assert {"sigmoid", "softplus", "selu"} <= set(names)


def test_each_choice_of_options_is_composed_once(monkeypatch):
    composed = []
    original = hydra_api.composed
    monkeypatch.setattr(hydra_api, "composed", lambda loader, words: composed.append(words) or original(loader, words))
    assert len(composing.compose(["activation=tanh,relu", "seed=range(0,50)"])) == 100
    assert len(composed) == 2


def test_arms_are_expanded_and_the_words_for_all_have_the_last_say():
    arms = [["loss=mean_squared_error", "learning_rate=2", "epochs=7"], ["activation=tanh,relu", "learning_rate=0.5"]]
    cells = composing.compose(["epochs=1"], arms=arms)
    assert [(cell.loss.name, cell.activation.name, cell.learning_rate, cell.epochs) for cell in cells] == [
        ("mean_squared_error", "relu", 2.0, 1),
        ("categorical_cross_entropy", "tanh", 0.5, 1),
        ("categorical_cross_entropy", "relu", 0.5, 1),
    ]


def test_what_one_arm_sets_does_not_reach_the_next():
    cells = composing.compose([], arms=[["seed=5", "descent.batch_size=8"], ["epochs=1"]])
    assert [(cell.seed, cell.descent.numbers["batch_size"]) for cell in cells] == [(5, 8), (0, 32)]


SWEEP = """# @package _global_
epochs: 5
hydra:
  sweeper:
    params:
      activation: tanh,relu
arms:
  - [loss=mean_squared_error, learning_rate=2]
  - [loss=categorical_cross_entropy, learning_rate=0.5]
"""


def test_an_experiment_file_can_list_axes_and_arms(own):
    folder = own(experiment__pairs=SWEEP)
    cells = composing.compose(["experiment=pairs", "seed=1"], config_dir=folder)
    assert [(cell.loss.name, cell.activation.name, cell.learning_rate) for cell in cells] == [
        ("mean_squared_error", "tanh", 2.0),
        ("mean_squared_error", "relu", 2.0),
        ("categorical_cross_entropy", "tanh", 0.5),
        ("categorical_cross_entropy", "relu", 0.5),
    ]
    assert {(cell.epochs, cell.seed) for cell in cells} == {(5, 1)}
    assert len(composing.compose(["activation=elu"], "pairs", config_dir=folder)) == 2
    assert len(composing.compose([], "pairs", arms=[["learning_rate=1"]], config_dir=folder)) == 2


def test_an_experiment_of_arms_or_axes_is_no_single_run(run, own):
    folder = own(experiment__pairs=SWEEP, experiment__axes=SWEEP.partition("arms:")[0])
    assert "is a sweep of 4 cells; add -m" in refused(run, "--config-dir", folder, "experiment=pairs")
    assert "is a sweep over activation; add -m to run it, or give activation=VALUE" in refused(
        run, "--config-dir", folder, "experiment=axes"
    )
    (alone,) = composing.compose(["experiment=axes", "activation=elu"], sweep=False, config_dir=folder)
    assert alone.activation.name == "elu"


def test_an_empty_first_arm_is_the_single_run_of_an_experiment():
    (alone,) = composing.compose(["experiment=notebook"], sweep=False)
    assert alone.hash == composing.compose(["experiment=notebook"])[0].hash


# --- a user's own folder -----------------------------------------------------------------------------------------

GLOBAL = "# @package _global_\n"
MINE = "name: leaky_relu\nnegative_slope: 0.3\n"


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_option_files_of_ones_own_are_found(by, run, own, monkeypatch):
    folder = own(activation__mine=MINE)
    words = ["--cfg", "job", "activation=mine"]
    if by == "flag":
        words = ["--config-dir", folder, *words]
    else:
        monkeypatch.setenv("DESCENTLAB_CONF", folder)
    status, output, _ = run(*words)
    assert status == 0
    assert yaml.safe_load(output)["activation"] == {"name": "leaky_relu", "negative_slope": 0.3}


def test_a_folder_whose_name_hydra_would_stumble_over_is_read(tmp_path, own):
    folder = tmp_path / "a [b], 'c' $x"
    Path(own(activation__mine=MINE)).rename(folder)
    assert composing.compose(["activation=mine"], config_dir=str(folder))[0].activation.name == "leaky_relu"


@pytest.mark.parametrize(
    ("files", "words", "says"),
    [
        ({"activation__mine": "_target_: os.system\nname: relu\n"}, ["activation=mine"], "data, not code"),
        ({"activation__mine": "name: ${oc.env:HOME}\n"}, ["activation=mine"], "interpolations are refused"),
        ({"activation__mine": "name: [relu\n"}, ["activation=mine"], "configuration: "),
        ({"activation__mine": "negative_slope: 1\n"}, ["activation=mine"], "activation=null: not one of"),
        ({"activation__mine": "- relu\n"}, ["activation=mine"], "activation=[relu]: not one of"),
        ({"activation__mine": ""}, ["activation=mine"], "activation=null: not one of"),
        ({"experiment__mine": "learning_rat: 1\n"}, ["experiment=mine"], "unknown key"),
        ({"experiment__mine": GLOBAL + "learning_rat: 1\n"}, ["experiment=mine"], "did you mean learning_rate?"),
        ({"experiment__mine": GLOBAL + "defaults:\n  - override /loss: nope\n"}, ["experiment=mine"], "nope"),
        ({"experiment__mine": GLOBAL + "defaults:\n  - override /los: auto\n"}, ["experiment=mine"], "los"),
        ({"experiment__mine": GLOBAL + "arms: 3\n"}, ["experiment=mine"], "must be a list of override lists"),
        ({"activation__relu": "name: tanh\n"}, [], "relu.yaml would be hidden by the project's own"),
    ],
)  # fmt: skip
def test_a_broken_option_file_is_refused_in_one_line(files, words, says, run, own):
    assert says in refused(run, "--config-dir", own(**files), *words)


@pytest.mark.parametrize("folder", ["nowhere", "", "\0"])
def test_a_folder_that_is_not_there_is_refused(folder, run):
    assert refused(run, "--config-dir", folder).startswith("--config-dir=")


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["activation=rleu"], "activation=rleu: not one of "),
        (["activation=null"], "activation=null: not one of "),
        (["activation=[relu]"], "activation=[relu]: not one of "),
        (["experiment=swep"], "experiment=swep: not one of "),
        (["lerning_rate=1"], "lerning_rate=1: unknown key; not one of activation, data, "),
        (["learning_rate="], "learning_rate=: must be a finite number above 0"),
        (["learning_rate=-1"], "learning_rate=-1: must be a finite number above 0"),
        (["learning_rate=nan"], "learning_rate=nan: must be a finite number above 0"),
        (["learning_rate=1e400"], "learning_rate=inf: must be a finite number above 0"),
        (["epochs=0"], "epochs=0: must be a whole number from 1"),
        (["epochs=" + "9" * 5000], "epochs=9999"),
        (["data.train_rows=7:7"], "data.train_rows=7:7: must be auto or a range of rows"),
        (["data.train_rows=7:9999"], "data.train_rows=7:9999: digits has 1797 rows"),
        (["descent.batch_size=1080"], "descent.batch_size=1080: must be at most 1079"),
        (["descent=batch", "descent.batch_size=8"], "descent.batch_size=8: belongs to descent=mini_batch"),
        (["activation.negative_slope=1"], "activation.negative_slope=1: belongs to activation=leaky_relu"),
        (["output=linear"], "output=linear: does not go with loss=categorical_cross_entropy"),
        (["seed=${oc.env:HOME}"], "seed=${oc.env:HOME}: interpolations are refused"),
        (["network.hidden=[1,"], "network.hidden=[1,: cannot be read"),
        (["network.hidden=" + "[" * 3000], "network.hidden=[[["),
        (["name='x"], "name='x: cannot be read"),
        (["name=\udcff"], "name=\\udcff: cannot be read"),
        (["name=a\nb"], "name=a\\nb: cannot be read"),
        (["name=\u202e"], "name=\\u202e: cannot be read"),
        (["seed=0,1"], "seed=0,1: several values make a sweep; add -m"),
        (["~seed"], "~seed: must be KEY=VALUE"),
        (["activation@x=relu"], "activation@x=relu: must be KEY=VALUE"),
        (["hydra.run.dir=x"], "hydra.run.dir=x: unknown key"),
        (["seed.deep=3"], "seed.deep=3: unknown key"),
        (["network.deep=3"], "network.deep=3: unknown key"),
        (["activation._target_=os.system"], "activation._target_=os.system: is refused"),
        (["relu"], "relu: must be KEY=VALUE, or one of check, ui, replay"),
        ([""], ": must be KEY=VALUE"),
        (["uii"], "uii: must be KEY=VALUE, or one of check, ui, replay, "),
        (["--foo"], "--foo: unknown flag; not one of -m, "),
        (["--multi"], "--multi: unknown flag"),
        (["--cfg", "all"], "--cfg=all: must be job"),
        (["--config-dir"], "--config-dir=: must be a folder"),
        (["-sc", "install=dos"], "-sc install=dos: must be -sc install=SHELL"),
        (["replay"], "replay: needs the id of a run"),
        (["ui", "port=0"], "port=0: must be a whole number from 1 to 65535"),
        (["ui", "seed=3"], "seed=3: must be an override of tracking"),
        (["-m", "seed=shuffle(range(0,1000000000))"], "seed=shuffle(range(0,1000000000)): makes more than"),
        (["-m", "seed=range(0,1000000000)"], "seed=range(0,1000000000): makes more than 100000 cells"),
        (["-m", "seed=range(0,1000)", "epochs=range(1,1000)"], "sweep: has more than 100000 cells"),
        (["-m", "seed=interval(0,1)"], "seed=interval(0,1): is not a sweep over single values"),
        (["-m", "seed=range(0,0)"], "seed=range(0,0): is a sweep over nothing"),
        (["-m", "activation=relu,rleu"], "activation=rleu: not one of"),
        (["-m", "tracking=none,local"], "tracking=local: must be the same in all cells"),
    ],
)
def test_bad_words_end_in_one_line_and_status_2(words, says, run):
    assert refused(run, *words).startswith(says)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["seed=", "network.hidden=", "activation=", "name=", "data.split=", "", "-", "--cfg="]),
    st.text(max_size=12) | st.text("[]{}()'\"\\$,=:.0123456789ae-~+@#* ", max_size=12),
)
def test_random_words_are_composed_or_refused_and_nothing_else(key, value):
    try:
        given = parsed(train_parser(), [key + value])
        composing.compose(given.words, sweep=given.sweep)
    except InputError as error:
        line = str(error)
    else:
        line = "composed"
    assert len(line.splitlines()) == 1


def test_a_command_that_is_nearly_one_is_asked_about(run):
    assert refused(run, "uii").endswith(" (did you mean ui?)")
    assert refused(run, "lst").endswith(" (did you mean list?)")


def test_a_bad_value_is_refused_before_any_store_is_made(run, tmp_path):
    refused(run, "descent.batch_size=5000", f"tracking.uri={tmp_path}/runs.db")
    assert not (tmp_path / "runs.db").exists()


# --- running -----------------------------------------------------------------------------------------------------


def spread(metric, values):
    return list(final_values._spread(metric, values).values())


def test_restarts_on_their_way_to_infinity_are_shown_without_a_warning():
    assert spread("train/loss", np.array([1e308, 1e308, 1e200, np.nan]))[-3:] == ["1e+200", "1e+308", "1"]


def test_a_single_run_ends_with_a_table_over_its_restarts(run):
    status, output, error = run(*QUICK, "restarts=5")
    assert (status, error) == (0, "")
    lines = [line.split() for line in output.splitlines()]
    assert lines[0][0] == "relu-bce-mini32:"
    assert lines[1] == "at the end n mean 95 % interval sd best worst diverged".split()
    table = {line[0]: line[1:] for line in lines[2:-1]}
    assert set(table) == {f"{split}/{m}" for split in ("train", "validation", "test") for m in ("loss", "accuracy")}
    (cell,) = composing.compose([*QUICK, "restarts=5"])
    (training,) = sweeps.run(made([cell]), open_tracker(cell.tracking))
    n, mean, low, to, high, _, best, worst, diverged = table["train/loss"]
    losses = training.curves["train/loss"][-1]
    assert (n, to, diverged) == ("5", "to", "0")
    assert [float(mean), float(best), float(worst)] == pytest.approx(
        [losses.mean(), losses.min(), losses.max()], rel=1e-3
    )
    assert float(low) < float(mean) < float(high)


def test_an_exploded_restart_is_counted_and_left_out_of_the_mean(run):
    words = ["data=iris", "loss=mean_squared_error", "output=linear", "activation=tanh", "dtype=float64", "epochs=8"]
    status, output, _ = run(*words, "learning_rate=20", "restarts=3", "tracking=none")
    header, loss = (line.split() for line in output.splitlines()[1:3])
    assert (status, header[-2:]) == (0, ["diverged", "exploded"])
    assert loss == ["train/loss", "0", "-", "-", "-", "-", "-", "0", "3"]
    status, output, _ = run(*words, "learning_rate=.1,20", "restarts=3", "tracking=none", "-m")
    cells = [line.split() for line in output.splitlines() if line.startswith("tanh-mse")]
    assert [(cell[2], cell[-1]) for cell in cells[-2:]] == [("3", "0"), ("0", "3")]


def test_a_diverged_restart_is_counted_and_left_out_of_the_mean():
    assert spread("test/accuracy", np.full(7, 0.1))[1:4] == ["0.1", "0.1 to 0.1", "0"]
    assert spread("test/accuracy", np.array([1.0, 0.98, 0.5]))[2] == "0.03405 to 0.9985"
    assert spread("train/loss", np.array([3e153, 9e153]))[3] == "4.2e+153"
    finite = spread("train/loss", np.array([1.0, np.nan, 3.0]))
    assert (finite[0], finite[1], finite[-1]) == ("2", "2", "1")
    assert spread("test/accuracy", np.array([0.5, 0.75]))[4:6] == ["0.75", "0.5"]
    assert spread("train/loss", np.array([np.nan]))[-1] == "1"


def test_a_sweep_ends_with_a_row_per_cell(run):
    status, output, _ = run("-m", *QUICK, "activation=tanh,relu", "seed=0,1")
    assert status == 0
    rows = [line.split()[0] for line in output.splitlines()]
    assert rows[1:5] == ["tanh-bce-mini32-s0", "tanh-bce-mini32-s1", "relu-bce-mini32-s0", "relu-bce-mini32-s1"]


@pytest.fixture
def trained(monkeypatch):
    # the seeds that training was begun for; seed 13 fails
    seeds = []
    original = sweeps_training.iterate

    def iterate(recipe, *arguments):
        seeds.append(recipe.seed)
        if recipe.seed == 13:
            raise MemoryError("no room\nat all")
        return original(recipe, *arguments)

    monkeypatch.setattr(sweeps_training, "iterate", iterate)
    return seeds


def test_all_cells_are_checked_before_the_first_one_trains(run, trained):
    refused(run, "-m", "data=iris", "tracking=none", "epochs=1", "descent.batch_size=8,90,91")
    assert trained == []
    cells = composing.compose(["data=iris", "tracking=none", "epochs=1", "descent.batch_size=8,91"])
    with pytest.raises(InputError, match=r"^descent\.batch_size=91"):
        sweeps.run(made(cells), open_tracker(cells[0].tracking))
    assert trained == []


def test_a_failing_cell_is_reported_at_once_the_others_go_on_and_the_status_is_not_0(run, trained):
    status, output, error = run("-m", *QUICK, "seed=13,1,2")
    assert status == 1
    assert trained == [13, 1, 2]
    assert error.splitlines() == [
        "descentlab: relu-bce-mini32-s13: failed: MemoryError: no room\\nat all",
        "descentlab: 1 of 3 cells failed: relu-bce-mini32-s13",
    ]
    assert [line.split()[0] for line in output.splitlines()[1:-1]] == ["relu-bce-mini32-s1", "relu-bce-mini32-s2"]


def test_equal_cells_of_a_sweep_train_once_and_share_what_comes_of_it(trained):
    cells = composing.compose([*QUICK, "seed=1,2,1", "workers=1,2"])
    trainings = sweeps.run(made(cells), open_tracker(cells[0].tracking))
    assert trained == [1, 2]
    assert [training.recipe.seed for training in trainings] == [1, 1, 2, 2, 1, 1]


def test_a_single_cells_error_comes_through_as_it_is(trained):
    cells = composing.compose([*QUICK, "seed=13"])
    with pytest.raises(MemoryError):
        sweeps.run(made(cells), open_tracker(cells[0].tracking))


def test_a_tracked_run_says_where_it_is_and_can_be_replayed(run, store):
    words = [f"tracking.uri={store.numbers['uri']}"]
    status, output, _ = run("data=xor", "epochs=3", "restarts=2", *words)
    assert status == 0
    (cell,) = find(store.__class__("local", {**store.numbers, "experiment": "descentlab"}))
    assert f"stored: run {cell.run_id} of experiment descentlab" in output
    assert output.splitlines()[-1].endswith(f"to see it: descentlab list {words[0]}, descentlab ui {words[0]}")
    status, output, _ = run("replay", cell.run_id, *words)
    assert status == 0
    assert "the same bits" in output


def test_a_replay_whose_bits_differ_ends_with_status_1(run, store, monkeypatch):
    outcome = tracking.Replay("0" * 32, "relu", False, 1e-16, "train/loss", {})
    monkeypatch.setattr(tracking, "replay", lambda run_id, option, trainer=None: outcome)
    status, output, _ = run("replay", "0" * 32, f"tracking.uri={store.numbers['uri']}")
    assert (status, output) == (1, f"{outcome}\n")


@pytest.mark.parametrize(
    ("name", "numbers", "words"),
    [
        ("local", {"uri": "auto", "experiment": "descentlab"}, ""),
        ("local", {"uri": "a b.db", "experiment": "mine"}, " tracking.experiment=mine 'tracking.uri=a b.db'"),
        ("server", {"uri": "http://x:5000"}, " tracking=server tracking.uri=http://x:5000"),
        ("local", {"uri": "postgresql://me:secret@x/y"}, ""),
    ],
)
def test_a_store_is_named_again_by_the_words_that_name_it(name, numbers, words):
    assert store_words(Option(name, numbers)) == words


def test_a_second_ctrl_c_does_not_break_the_tidying_up_and_a_third_one_does(capfd):
    tidied = []

    def interrupted(times):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            for _ in range(times - 1):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            tidied.append(times)

    for times in (1, 2, 3):
        assert interrupts.guarded(lambda: interrupted(times)) == 130  # noqa: B023
    assert tidied == [1, 2]
    assert capfd.readouterr().err.count("press Ctrl-C again to leave them open") == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_in_one_line_and_leaves_no_run_running(run, store, monkeypatch):
    def iterate(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps_training, "iterate", iterate)
    status, _, error = run("data=xor", f"tracking.uri={store.numbers['uri']}", "tracking.experiment=tests")
    assert status == 130
    assert error.splitlines()[1:] == ["descentlab: stopped; finished cells are stored"]
    assert [cell.status for cell in find(store, status=None)] == ["KILLED"]


def test_progress_is_a_line_every_few_seconds_where_there_is_no_terminal(run, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    _, _, error = run(*QUICK, "restarts=3")
    assert error.splitlines()[-1].startswith("relu-bce-mini32: 3 restarts, epoch 3/3, train/loss 0.")
    _, _, error = run("-m", *QUICK, "seed=0,1")
    assert error.splitlines()[-1].startswith("2/2 relu-bce-mini32-s1: epoch 3/3, ")


def test_progress_names_the_epoch_at_which_its_loss_was_measured(run, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    _, _, error = run("data=xor", "tracking=none", "epochs=100", "log_every=100", "workers=1")
    shown = [line.split(": ", 1)[1].split(", about")[0] for line in error.splitlines()]
    assert error.splitlines()[0].endswith(" at epoch 0")  # nothing tells yet how long it takes
    middle = [line for line in shown if line.startswith("epoch 50/100, ")]
    assert middle
    assert all(re.fullmatch(r"epoch 50/100, train/loss 0\.\d+ at epoch 0", line) for line in middle)


def test_progress_is_a_bar_on_a_terminal(run, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    _, output, error = run(*QUICK, "restarts=3")
    assert "relu-bce-mini32" in error
    assert "3 restarts, epoch " in error
    assert "train/loss" in output


# --- help and start-up -------------------------------------------------------------------------------------------


def test_help_lists_every_group_option_number_and_key(run):
    from descentlab.config.options import schemas
    from descentlab.config.resolving import keys

    status, output, _ = run("--help")
    assert status == 0
    words = output.replace("*", "").replace(";", " ").split()
    for group in GROUPS:
        assert set(schemas(group)) <= set(words)
        assert {f"{group}.{number}" for schema in schemas(group).values() for number in schema} <= set(words)
    assert set(EXPERIMENTS) <= set(words)
    assert {key.split(".")[-1] for key in keys()} <= {word.rstrip(":") for word in words}
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_with_its_words_and_what_it_does(run, name):
    status, output, error = run(name, "--help")
    assert (status, error) == (0, "")
    assert output.startswith(f"usage: descentlab {name} ")
    assert COMMANDS[name].about[1:] in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 120
    assert run("help", name) == run(name, "x=1", "-h") == (0, output, "")
    assert f"  {name:<8} {COMMANDS[name].about}" in run("--help")[1].splitlines()


def test_help_without_a_command_and_train_are_the_command_itself(run):
    assert run("help") == run("--help") == run("train", "--help") == run("activation=tanh", "--help")
    assert run("train", *QUICK)[1].splitlines()[1:] == run(*QUICK)[1].splitlines()[1:]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "--foo"], "--foo: unknown flag; not one of -h, --help"),
        (["delete", "sweep=x", "--ye"], "--ye: unknown flag; not one of --yes, -h, --help (did you mean --yes?)"),
        (["plan", "--cfg", "job"], "--cfg: unknown flag; not one of -m, "),
        (["helpp"], "helpp: must be KEY=VALUE, or one of check, "),
        (["help", "lst"], "help=lst: not one of check, compare, "),
    ],
)
def test_a_flag_that_a_command_does_not_have_is_refused(run, words, says):
    assert refused(run, *words).startswith(says)


def test_a_list_of_learning_rates_is_a_cell_for_each_with_and_without_m(own):
    rates = [(cell.learning_rate, cell.hash) for cell in composing.compose(["learning_rate=[0.05,0.2]"], sweep=False)]
    assert rates == [(rate, composing.compose([f"learning_rate={rate}"], sweep=False)[0].hash) for rate in (0.05, 0.2)]
    cells = composing.compose(["activation=tanh,relu", "learning_rate=[0.05,0.1],0.3"])
    assert [(cell.activation.name, cell.learning_rate) for cell in cells] == [
        ("tanh", 0.05), ("tanh", 0.1), ("tanh", 0.3), ("relu", 0.05), ("relu", 0.1), ("relu", 0.3)
    ]  # fmt: skip
    assert len({cell.name for cell in cells}) == 6
    folder = own(experiment__rates="# @package _global_\nlearning_rate: [1, 2, 3]\n")
    listed = composing.compose(["experiment=rates"], sweep=False, config_dir=folder)
    assert [cell.learning_rate for cell in listed] == [1, 2, 3]


def test_a_list_without_a_rate_or_with_a_bad_one_is_refused(run):
    assert refused(run, "learning_rate=[]").startswith("learning_rate=[]: must hold a rate")
    assert refused(run, "learning_rate=[0.1,0]") == "learning_rate=0: must be a finite number above 0"
    assert refused(run, "learning_rate=[[0.1]]") == "learning_rate=[0.1]: must be a finite number above 0"


def test_version_and_cfg_do_not_train(run, trained):
    assert run("--version")[1].startswith("descentlab ")
    status, output, _ = run("--cfg", "job", "data=xor", "seed=3")
    assert status == 0
    assert resolve(yaml.safe_load(output)) == composing.compose(["data=xor", "seed=3"])[0]
    assert trained == []


def test_shell_completion_knows_groups_options_and_keys(run, monkeypatch):
    assert "complete" in run("-sc", "install=bash")[1]
    for line, expected in (("descentlab activation=", "activation=relu"), ("descentlab learning_", "learning_rate=")):
        monkeypatch.setenv("COMP_LINE", line)
        assert expected in run("-sc", "query=bash")[1].split()


@pytest.mark.parametrize(
    ("line", "expected", "not_expected"),
    [
        ("descentlab ", "compare", "status=FAILED"),
        ("descentlab l", "list", "ui"),
        ("descentlab l", "loss=", "ui"),
        ("descentlab list s", "sweep=last", "limit=all"),
        ("descentlab delete --", "--yes", "sweep=last"),
        ("descentlab check act", "activation=", "loss="),
        ("descentlab plan activation=", "activation=relu", "compare"),
        ("descentlab train activation=", "activation=relu", "compare"),
        ("descentlab inspect data=", "data=file", "compare"),
    ],
)
def test_shell_completion_knows_commands_and_what_they_take(run, monkeypatch, line, expected, not_expected):
    monkeypatch.setenv("COMP_LINE", line)
    words = run("-sc", "query=bash")[1].split()
    assert expected in words
    assert not_expected not in words


SLOW = ("mlflow", "matplotlib", "sklearn", "pandas", "pyarrow", "scipy.stats", "scipy.optimize", "sqlalchemy", "rich")


def python(code, *, slow=SLOW):
    code += f"\nimport sys; print(sorted({set(slow)!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.splitlines()[-1]


def test_help_a_refusal_and_an_untracked_run_import_nothing_slow():
    main = "from descentlab.cli import main; main"
    assert python(f"{main}(['--help'])", slow=(*SLOW, "hydra")) == (0, "[]")
    assert python(f"{main}(['learning_rate=-1'])") == (0, "[]")
    run = tuple(name for name in SLOW if name != "rich")  # which prints the table at the end, and takes 20 ms
    assert python(f"{main}(['data=xor', 'epochs=10', 'tracking=none'])", slow=run) == (0, "[]")
    assert python(f"{main}(['epochs=1', 'tracking=none'])", slow=run) == (0, "[]")


def test_the_module_is_the_command_and_its_output_may_be_cut_off():
    command = [sys.executable, "-m", "descentlab"]
    done = subprocess.run([*command, "--foo"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    with subprocess.Popen([*command, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_told_to_end_before_it_has_opened_anything_says_so(name, capsys):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert interrupts.guarded(lambda: os.kill(os.getpid(), number) or time.sleep(60) or 0) == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == f"descentlab: stopped ({name}); finished cells are stored\n"


# --- streams and surroundings ------------------------------------------------------------------------------------


def command(*words, **given):
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given}
    return subprocess.run([sys.executable, "-m", "descentlab", *words], text=True, timeout=120, **given)


def test_a_command_without_standard_error_does_its_work(store):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    done = command("data=xor", "epochs=3", *place, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert "train/loss" in done.stdout
    assert [run.status for run in find(store, status=None)] == ["FINISHED"]


def test_a_full_standard_error_costs_a_run_nothing(run, store):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    assert run("data=xor", "epochs=3", *place)[0] == 0
    with Path("/dev/full").open("w") as full:
        done = command("data=xor", "epochs=3", *place, stderr=full)  # says that the run is there already
    assert done.returncode == 0
    assert "train/loss" in done.stdout


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_standard_output_that_cannot_be_written_is_one_line_and_status_1_and_the_run_is_kept(kind, store):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    if kind == "full":
        with Path("/dev/full").open("w") as full:
            done = command("data=xor", "epochs=3", *place, stdout=full)
    else:
        done = command("data=xor", "epochs=3", *place, preexec_fn=lambda: os.close(1))
    reason = {"full": "No space left on device", "closed": "Bad file descriptor"}[kind]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"descentlab: error: standard output cannot be written ({reason}); finished runs are stored"
    )
    assert done.stderr.splitlines()[:-1] == [f"descentlab: storing in experiment tests in {store.numbers['uri']}"]
    assert [run.status for run in find(store, status=None)] == ["FINISHED"]


def test_a_deleted_working_directory_is_named_as_such(run, tmp_path, monkeypatch):
    here = Path.cwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        assert refused(run, *QUICK).startswith("working directory: cannot be used (No such file or directory); change")
    finally:
        os.chdir(here)


def test_a_user_without_a_home_and_without_an_entry_in_the_list_of_users_gets_one_that_is_not_there(monkeypatch):
    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setenv("HOME", "to be put back")
    monkeypatch.delenv("HOME")
    with pytest.raises(RuntimeError):
        Path.home()
    assert interrupts.guarded(lambda: 0 if Path.home() == Path("/nonexistent") else 3) == 0


def test_a_store_in_a_folder_that_cannot_be_written_to_is_refused_with_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    line = refused(run, "data=xor", f"tracking.uri={tmp_path}/runs.db")
    assert line.endswith(f"since {tmp_path} cannot be written to; name another place: tracking.uri=PATH")
    assert "runs.db.lock" not in [path.name for path in tmp_path.iterdir()]
