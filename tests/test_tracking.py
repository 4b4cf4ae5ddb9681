import contextlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shared import cell, children, diverged, gone, keep, of, trained

from descentlab import tracking
from descentlab.config import resolving as configs
from descentlab.nn.recipe import Record
from descentlab.nn.trainer import iterate
from descentlab.tracking import (
    cell_run,
    checksums,
    environment,
    locations,
    params,
    sqlite_file,
    tables,
    tracker,
    trained_cell,
    trainings,
    writer,
)
from descentlab.tracking import store as stores
from descentlab.tracking.locations import home
from descentlab.values import InputError, Option


def file_of(option):
    return Path(option.numbers["uri"].removeprefix("sqlite:///"))


def history(option, run_id, metric):
    return stores.open_store(option).client.get_metric_history(run_id, metric)


def statuses(option):
    with contextlib.closing(sqlite3.connect(file_of(option))) as connection:
        return [row[0] for row in connection.execute("SELECT status FROM runs")]


# --- the store ---------------------------------------------------------------------------------------------------


def test_the_default_store_lies_at_the_root_of_the_clone(monkeypatch):
    monkeypatch.setattr(locations, "home", home)
    root = Path(__file__).resolve().parents[1]
    assert tracking.store_uri(Option("local", {"uri": "auto"})) == f"sqlite:///{root / 'mlflow.db'}"


def test_the_default_store_of_an_installed_wheel_lies_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site-packages/descentlab/tracking/contents.py"))
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path


def test_connections_to_a_file_wait_for_the_disk_at_checkpoints_only(option):
    from sqlalchemy import create_engine, text

    uri = stores.open_store(option).uri
    with create_engine(uri).connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1  # NORMAL


def test_telemetry_and_the_job_runner_are_off():
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a_store_is_in_write_ahead_mode_and_leaves_no_unfinished_file(empty_store):
    with contextlib.closing(sqlite3.connect(empty_store)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(empty_store.parent.glob("*.new*"))


def test_an_unfinished_store_is_made_anew(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db.new").write_text("killed half way")
    monkeypatch.setattr(sqlite_file, "_migrate", lambda path: sqlite3.connect(path).close())
    sqlite_file.create_store(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.glob("mlflow.db*") if path.suffix != ".lock"] == ["mlflow.db"]


def test_a_store_whose_creation_is_interrupted_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(path):
        path.write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlite_file, "_migrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sqlite_file.create_store(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_artifacts_lie_beside_the_store_whatever_the_working_directory(option, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tracking.get(option, keep(option, cell(restarts=1)))
    assert run.artifact("config.json").is_relative_to(file_of(option).parent / "mlartifacts")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_may_have_spaces_and_signs_in_its_name(empty_store, tmp_path):
    folder = tmp_path / "a b#c%20d?e"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    option = Option("local", {"uri": str(folder / "mlflow.db")})
    assert tracking.get(option, keep(option, cell(restarts=1))).artifact("curves.parquet").is_relative_to(folder)


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_fresh_store_all_open_it(tmp_path):
    code = """if True:
        import sys
        from descentlab.values import Option
        from descentlab.tracking import open_tracker
        with open_tracker(Option("local", {"uri": sys.argv[1]})) as tracker:
            print(tracker.store.experiment_id)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "mlflow.db")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, answers
    assert len({out for out, _ in answers}) == 1


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://x/y", "tracking.uri=ftp://...: must start with sqlite:///, http://, https:// or postgresql://"),
        ("http://127.0.0.1:9", "tracking.uri=http://127.0.0.1:9: no server answers there"),
        ("http://me:secret@127.0.0.1:9", "tracking.uri=http://127.0.0.1:9: no server answers there"),
        ("/proc/nowhere/mlflow.db", "tracking.uri=sqlite:////proc/nowhere/mlflow.db: "),
    ],
)
def test_a_store_that_cannot_be_had_is_refused_in_one_line(uri, message):
    with pytest.raises(InputError) as error:
        tracking.open_tracker(Option("server", {"uri": uri}))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database at all" * 100)
    with pytest.raises(InputError, match=r"tracking.uri=sqlite:.*file is not a database$"):
        tracking.open_tracker(Option("local", {"uri": str(tmp_path / "mlflow.db")}))


def test_another_programs_database_is_refused_untouched(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE addresses (name TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(InputError, match=r"is a database, but not one of MLflow's$"):
        tracking.open_tracker(Option("local", {"uri": str(tmp_path / "other.db")}))
    assert (tmp_path / "other.db").read_bytes() == before


def test_a_folder_in_place_of_the_store_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"tracking.uri=.*: is a folder; name a file in it"):
        tracking.open_tracker(Option("local", {"uri": str(tmp_path)}))


def test_reading_where_there_is_no_store_says_so_and_makes_none(tmp_path):
    with pytest.raises(InputError, match="there is no store yet"):
        tracking.find(Option("local", {"uri": str(tmp_path / "mlflow.db")}))
    assert not list(tmp_path.iterdir())


def test_a_deleted_experiment_is_refused_with_a_command_that_restores_it(option):
    opened = stores.open_store(option)
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(InputError, match=r"tracking.experiment=tests: deleted .*") as error:
        tracking.open_tracker(option)
    command = str(error.value).split("`")[1]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, capture_output=True, env={**os.environ, "PATH": programs})
    with tracking.open_tracker(option) as tracker:
        assert tracker.store.experiment_id == opened.experiment_id


def test_the_environments_address_counts_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    assert tracking.store_uri(Option("local", {"uri": "auto"})) == f"sqlite:///{tmp_path / 'theirs.db'}"
    assert tracking.store_uri(Option("local", {"uri": str(tmp_path / "own.db")})) == f"sqlite:///{tmp_path / 'own.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.store_uri(Option("server", {"uri": "auto"})) == "http://127.0.0.1:5000"
    for strange in ("databricks://profile", "file:/tmp/mlruns"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", strange)
        with pytest.raises(InputError, match=r"^MLFLOW_TRACKING_URI=\w+://...: must start with sqlite:///"):
            tracking.store_uri(Option("local", {"uri": "auto"}))


def test_a_large_sweep_goes_to_a_server_only_where_it_is_asked_for(option):
    store = replace(stores.open_store(option), uri="http://127.0.0.1:5000")
    planned = [of(cell(restarts=50, seed=seed)) for seed in (1, 51)]
    quiet = tracker._StoreTracker(store, "auto", 600.0, tracker.UNASKED_RUNS)
    with pytest.raises(
        InputError, match=r"^tracking.uri=http://127.0.0.1:5000: is a server.* 102 runs; add tracking=server"
    ):
        quiet.begin({"": planned})
    quiet.begin({"": [of(cell(restarts=40))]})
    asked = tracker._StoreTracker(store, "auto", 600.0, np.inf)
    asked.begin({"": planned})


def test_artifacts_of_every_run_of_the_store_are_counted_and_no_others(option, tmp_path):
    import mlflow

    from descentlab.tracking import upkeep

    beside = Option("local", {"uri": str(file_of(option).with_name("other.db")), "experiment": "tests"})
    keep(beside, cell(restarts=1))
    client = mlflow.MlflowClient(option.numbers["uri"])
    plain = client.create_experiment("plain", artifact_location=(tmp_path / "plain").as_uri())
    client.log_text(client.create_run(plain).info.run_id, "12345", "note.txt")
    for name in ("plain", "tests"):
        assert upkeep.sizes(replace(option, numbers={**option.numbers, "experiment": name}))[2] == 5


# --- a cell ------------------------------------------------------------------------------------------------------


def test_a_cell_is_a_parent_with_one_nested_run_per_restart(option):
    config = cell()
    run_id = keep(option, config)
    parent = tracking.get(option, run_id)
    nested = children(option, run_id)
    assert (parent.name, parent.status, parent.tags["level"]) == ("tanh-bce-mini32", "FINISHED", "cell")
    assert {run.info.run_name for run in nested} == {"s7", "s8", "s9"}
    assert {run.info.status for run in nested} == {"FINISHED"}
    assert {run.data.tags["level"] for run in nested} == {"restart"}
    assert {run.data.tags["cell_hash"] for run in nested} == {config.cell_hash}
    assert {run.data.tags["config_hash"] for run in nested} == {cell(seed=s, restarts=1).hash for s in (7, 8, 9)}


def test_a_runs_duration_is_that_of_its_training(option, monkeypatch):
    whole, written = trainings.write_weights, []
    monkeypatch.setattr(trainings, "write_weights", lambda *some: written.append(1000 * time.time()) or whole(*some))
    run_id = keep(option, cell(restarts=2), *reversed(trained(cell(restarts=2))))
    client = stores.open_store(option).client
    for info in (client.get_run(run_id).info, *(run.info for run in children(option, run_id))):
        assert info.start_time <= info.end_time <= written[0]


def test_a_single_restart_is_one_run_with_plain_metrics(option):
    run_id = keep(option, cell(restarts=1))
    assert not children(option, run_id)
    run = tracking.get(option, run_id)
    assert run.tags["level"] == "cell"
    assert not [name for name in run.metrics if name.endswith(("_sd", "_n", "_ci_low"))]


def test_params_are_few_and_repeated_on_the_children(option):
    run_id = keep(option, cell(update="momentum", weight_decay=0.01))
    parent = tracking.get(option, run_id).params
    assert parent == {
        "data": "moons",
        "data.samples": "60",
        "hidden": "5",
        "activation": "tanh",
        "output": "sigmoid",
        "loss": "binary_cross_entropy",
        "initializer": "glorot_uniform",
        "descent": "mini_batch",
        "batch_size": "32",
        "update": "momentum",
        "learning_rate": "0.5",
        "weight_decay": "0.01",
        "epochs": "4",
        "dtype": "float64",
        "seed": "7",
        "restarts": "3",
    }
    for run in children(option, run_id):
        assert run.data.params == parent | {"seed": run.info.run_name[1:], "restarts": "1"}


def test_tags_say_what_the_bits_depend_on(option):
    tags = tracking.get(option, keep(option, cell())).tags
    assert tags["config_hash"] == cell().hash
    assert tags["numpy"] == np.__version__
    assert tags["outcome"] == "finite"
    assert float(tags["wall_seconds"]) > 0
    assert {"sweep", "cell_hash", "python", "descentlab", "blas", "cpu_features", "device"} <= set(tags)
    if (Path(__file__).parents[1] / ".git").exists():
        assert len(tags["git_commit"]) == 40
        assert tags["git_dirty"] in ("true", "false")


def test_the_blas_that_is_named_is_numpys_whatever_else_is_loaded():
    code = "from descentlab.tracking import environment; print(environment.environment()['blas'])"
    alone, beside = (
        subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, check=True).stdout
        for first in ("", "import scipy.linalg; ")
    )
    assert alone == beside
    assert alone.strip()


def test_the_dataset_is_an_input_of_the_run(option):
    opened = stores.open_store(option)
    dataset, training = trained(cell())
    (entry,) = opened.client.get_run(keep(option, cell(), training, dataset)).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == (dataset.name, dataset.digest[:16])
    assert json.loads(entry.dataset.profile)["train_rows"] == len(dataset.splits["train"][0])


def test_a_parents_metrics_are_mean_and_spread_over_its_restarts(option):
    _, training = trained(cell())
    run_id = keep(option, cell(), training)
    losses = training.curves["test/loss"]
    mean, sd = losses.mean(axis=1), losses.std(axis=1, ddof=1)
    half = stats.t.ppf(0.975, 2) * sd / np.sqrt(3)
    expected = {
        "": mean,
        "_sd": sd,
        "_min": losses.min(axis=1),
        "_max": losses.max(axis=1),
        "_ci_low": mean - half,
        "_ci_high": mean + half,
        "_n": np.full(5, 3),
        "_diverged": np.zeros(5),
    }
    for suffix, values in expected.items():
        entries = history(option, run_id, f"test/loss{suffix}")
        assert [entry.step for entry in entries] == [0, 1, 2, 3, 4]
        np.testing.assert_allclose([entry.value for entry in entries], values, rtol=1e-12)
    names = set(tracking.get(option, run_id).metrics)
    assert {"delta_norm/layer_1", "gradient_norm/layer_2", "weight_norm/layer_2", "train/accuracy_sd"} <= names
    assert not [name for name in names if name.startswith("delta_norm") and not name[-1].isdigit()]


def test_children_have_their_own_metrics(option):
    _, training = trained(cell())
    for run in children(option, keep(option, cell(), training)):
        row = int(run.info.run_name[1:]) - 7
        values = [entry.value for entry in history(option, run.info.run_id, "train/loss")]
        assert values == training.curves["train/loss"][:, row].tolist()
        assert run.data.metrics["weight_norm/layer_1"] == training.curves["weight_norm/layer_1"][-1, row]


def test_a_long_curve_is_thinned_in_the_store_and_whole_in_the_artifact(option):
    run_id = keep(option, cell(epochs=400, restarts=1))
    steps = [entry.step for entry in history(option, run_id, "test/loss")]
    assert (steps[0], steps[-1]) == (0, 400)
    assert trained_cell.CELL_POINTS / 2 < len(steps) <= trained_cell.CELL_POINTS
    assert len(pd.read_parquet(tracking.get(option, run_id).artifact("curves.parquet"))) == 401


def test_a_childs_long_curve_is_thinned_with_both_ends_kept(option):
    run = children(option, keep(option, cell(epochs=150, restarts=2)))[0]
    steps = [entry.step for entry in history(option, run.info.run_id, "test/loss")]
    assert steps[0] == 0
    assert steps[-1] == 150
    assert len(steps) <= trained_cell.CHILD_POINTS


def test_every_stored_number_before_the_last_step_is_finite_and_every_step_an_integer(option):
    _, training = trained(cell())
    lost = diverged(training, [1], 2)
    lost.curves["train/loss"][3, 0] = np.inf
    keep(option, cell(), lost)
    with contextlib.closing(sqlite3.connect(file_of(option))) as connection:
        columns = "value, is_nan, step, typeof(step), typeof(timestamp)"
        rows = connection.execute(f"SELECT {columns} FROM metrics").fetchall()
    assert {(step, stamp) for *_, step, stamp in rows} == {("integer", "integer")}
    assert {step for _, is_nan, step, *_ in rows if is_nan} == {4}  # what has no value at the end
    assert max(abs(value) for value, *_ in rows) < 1e300


def test_parent_means_are_over_the_finite_restarts_and_say_how_many_were_left_out(option):
    _, training = trained(cell())
    run_id = keep(option, cell(), diverged(training, [1], 2))
    run = tracking.get(option, run_id)
    assert run.metrics["test/loss"] == pytest.approx(training.curves["test/loss"][-1, [0, 2]].mean(), rel=1e-12)
    assert (run.metrics["test/loss_n"], run.metrics["test/loss_diverged"]) == (2, 1)
    assert (run.tags["outcome"], run.tags["diverged"]) == ("mixed", "1")
    tags = {child.info.run_name: child.data.tags for child in children(option, run_id)}
    assert (tags["s8"]["outcome"], tags["s8"]["diverged_epoch"]) == ("diverged", "2")
    assert tags["s7"]["outcome"] == "finite"


def test_a_diverged_restart_ranks_worst():
    _, training = trained(cell())
    best = int(np.argmin(training.curves["validation/loss"][-1]))
    assert tables.ranking(training)[0] == best
    assert tables.ranking(diverged(training, [best], 3))[-1] == best
    marked = replace(training, diverged_epoch=np.where(np.arange(3) == best, 4, -1))  # its loss still looks the best
    assert tables.ranking(marked)[-1] == best


@pytest.mark.parametrize(("given", "number"), [("all", 4), ("none", 0)])
def test_children_can_be_asked_for_or_left_out(option, given, number, monkeypatch):
    monkeypatch.setattr(tables, "CHILDREN_LIMIT", 2)
    option = replace(option, numbers={**option.numbers, "children": given})
    assert len(children(option, keep(option, cell(restarts=4)))) == number


def test_of_many_restarts_the_telling_ones_get_a_run(option, monkeypatch):
    monkeypatch.setattr(tables, "CHILDREN_LIMIT", 10)
    _, training = trained(cell(restarts=12))
    training = diverged(training, [0, 2, 4, 6], 1)
    run_id = keep(option, cell(restarts=12), training)
    nested = {run.info.run_name: run.data.tags for run in children(option, run_id)}
    order = 7 + tables.ranking(training)
    stands_for = {name: tags["stands_for"] for name, tags in nested.items()}
    assert stands_for[f"s{order[0]}"] == "best"
    assert stands_for[f"s{order[6]}"] == "median"
    assert stands_for[f"s{order[-1]}"] == "worst"
    assert {"s7", "s9", "s11", "s8", "s10", "s12"} <= set(nested)
    assert len(nested) <= 9
    assert len(pd.read_parquet(tracking.get(option, run_id).artifact("restarts.parquet"))) == 12


def test_a_run_id_in_the_environment_does_not_break_the_nesting(option, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    assert len(children(option, keep(option, cell()))) == 3


def test_artifacts_hold_all_that_is_needed_to_read_the_run(option):
    _, training = trained(cell())
    run = tracking.get(option, keep(option, cell(), training))
    curves = pd.read_parquet(run.artifact("curves.parquet"))
    for row, seed in enumerate(training.seeds):
        mine = curves[curves["seed"] == seed]
        assert mine["epoch"].tolist() == training.epochs.tolist()
        assert mine["step"].tolist() == training.steps.tolist()
        assert mine["test/loss"].tolist() == training.curves["test/loss"][:, row].tolist()
    restarts = pd.read_parquet(run.artifact("restarts.parquet"))
    assert restarts["seed"].tolist() == [7, 8, 9]
    assert restarts["test/accuracy"].tolist() == training.curves["test/accuracy"][-1].tolist()
    with np.load(run.artifact("final.npz"), allow_pickle=False) as final:
        assert final["W1"].shape == (3, 5, 2)
        np.testing.assert_array_equal(final["b2"], training.final.b[1])
    assert run.artifact("learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert configs.resolve(json.loads(run.artifact("config.json").read_text())).hash == cell().hash


def test_an_artifact_that_was_changed_is_refused_when_it_is_read(option):
    run_id = keep(option, cell())
    with tracking.open_tracker(option) as tracker, tracker.summary("sweep", {"restarts": 3}) as summary:
        summary.table("losses", pd.DataFrame({"loss": [0.5]}))
    for one in (run_id, summary.run_id):
        run = tracking.get(option, one)
        files = {path.name: path for path in run.artifact("config.json").parent.iterdir()}
        listed = json.loads(files["checksums.json"].read_text())
        assert set(listed) == set(files) - {"checksums.json"}
        for name in listed:
            whole = files[name].read_bytes()
            files[name].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            with pytest.raises(InputError) as error:
                run.artifact(name)
            begin = f"run {one} ({run.name}, FINISHED): {name} was changed after it was written; "
            assert str(error.value).startswith(begin)
            files["checksums.json"].write_text(json.dumps(listed | {name: checksums.file_digest(files[name])}))
            with pytest.raises(InputError, match=r"checksums.json was changed after it was written; [^\n]+$"):
                run.artifact(name)
            files["checksums.json"].write_text(json.dumps(listed, indent=2) + "\n")
            files[name].write_bytes(whole)
            assert run.artifact(name).read_bytes() == whole
        assert run.artifact("checksums.json") == files["checksums.json"]
        added = files["config.json"].with_name("added.csv")
        added.write_text("a")
        with pytest.raises(InputError, match="none of the run's own files"):
            run.artifact("added.csv")
        files["checksums.json"].unlink()
        with pytest.raises(InputError, match=r"checksums.json is gone; [^\n]+$"):
            run.artifact("config.json")
    with pytest.raises(InputError, match="gone"):
        tracking.replay(run_id, option)


def test_what_is_no_table_or_holds_a_pickle_is_refused_unread(option, tmp_path):
    canary = tmp_path / "canary"
    run_id = keep(option, cell())
    stores.open_store(option).client.delete_tag(run_id, "checksums")  # as of a run from before there were any
    run = tracking.get(option, run_id)
    assert run.arrays("final.npz")["W1"].shape == (3, 5, 2)
    assert len(run.table("restarts.parquet")) == 3
    song = np.empty(1, dtype=object)
    song[0] = Canary(canary)
    np.savez(run.artifact("final.npz"), W1=song)
    for name, read in (("final.npz", run.arrays), ("restarts.parquet", run.table)):
        for data in (None, b"", b"PAR1", pickle.dumps(Canary(canary)), b"\x00" * 100):
            if data is not None:
                run.artifact(name).write_bytes(data)
            elif name == "restarts.parquet":
                continue
            with pytest.raises(InputError, match=rf"^run {run_id} \([^\n]+\): {name} cannot be read \([^\n]+$"):
                read(name)
    assert not canary.exists()


class Canary:
    """Sings, by making a file, when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_of_weights_that_are_too_large_the_best_restarts_are_kept(option, monkeypatch):
    monkeypatch.setattr(trainings, "WEIGHTS_LIMIT", 100)
    _, training = trained(cell())
    run = tracking.get(option, keep(option, cell(), training))
    best = tables.ranking(training)[0]
    with np.load(run.artifact("initial.npz"), allow_pickle=False) as initial:
        assert initial["seeds"].tolist() == [7 + best]
        np.testing.assert_array_equal(initial["W1"], training.initial.W[0][[best]])


def test_where_a_run_was_tracked_is_not_kept_with_it():
    secret = replace(cell(), tracking=Option("server", {"uri": "https://me:secret@host", "experiment": "x"}))
    assert "secret" not in json.dumps(params.recorded(secret))
    assert configs.resolve(params.recorded(secret)).hash == cell().hash


def test_a_long_cell_shows_its_means_while_it_trains(option, monkeypatch):
    monkeypatch.setattr(cell_run, "FLUSH_SECONDS", 0.0)
    config = cell()
    made = of(config)
    with tracking.open_tracker(option) as tracker:
        with tracker.cell(made) as run:
            records = iterate(made.recipe, made.dataset.splits)
            for record in records:
                run.record(record)
                if record.epoch == 2:
                    break
            tracker.flush()
            assert [entry.step for entry in history(option, run.run_id, "train/loss")] == [0, 1, 2]
            run.finish(trained(config)[1])
        tracker.flush()
        assert [entry.step for entry in history(option, run.run_id, "train/loss")] == [0, 1, 2, 3, 4]


# --- interrupts and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("a bad\nthing"), "FAILED", "ValueError: a bad"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (tracking.Terminated("SIGTERM"), "KILLED", "Terminated: SIGTERM"),
    ],
)
def test_a_cell_left_by_an_exception_is_marked_with_the_reason(option, error, status, reason):
    def work():
        with tracking.open_tracker(option) as tracker, tracker.cell(of(cell())) as run:
            run.record(Record(0, 0, {"train/loss": np.array([1.0, 2.0, 3.0])}))
            raise error

    with pytest.raises(type(error)):
        work()
    (kept,) = tracking.find(option, status=None)
    assert (kept.status, kept.tags["reason"]) == (status, reason)
    assert kept.metrics["train/loss"] == 2.0


def test_a_cell_left_without_a_result_is_marked_as_failed(option):
    tracker = tracking.open_tracker(option)
    with pytest.raises(RuntimeError, match="before finish"), tracker.cell(of(cell())) as run:
        pass
    tracker.close()
    assert tracking.get(option, run.run_id).status == "FAILED"


def test_what_goes_wrong_while_writing_marks_the_run_and_comes_back(option, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainings, "write_weights", full)
    with pytest.raises(InputError, match=r"tracking.uri=sqlite:.*No space left on device"):
        keep(option, cell())
    (run,) = tracking.find(option, status=None)
    assert (run.status, run.tags["reason"]) == ("FAILED", "OSError: [Errno 28] No space left on device")


def test_a_child_that_cannot_be_written_is_not_left_running(option, monkeypatch):
    dataset, training = trained(cell())
    with tracking.open_tracker(option) as tracker:
        with tracker.cell(of(cell(), dataset)) as run:
            tracker.flush()
            monkeypatch.setattr(params, "params", lambda config: {"a [name] that is refused": 1})
            run.finish(training)
        with pytest.raises(InputError, match="Invalid"):
            tracker.flush()
    assert statuses(option) == ["FAILED", "FAILED"]


def test_the_cells_after_one_that_could_not_be_written_are_kept(option, monkeypatch):
    whole = trainings.write_weights
    _, training = trained(cell())
    with tracking.open_tracker(option) as tracker:
        for seed, writes in ((7, lambda *arguments: 1 / 0), (8, whole)):
            monkeypatch.setattr(trainings, "write_weights", writes)
            with tracker.cell(of(cell(seed=seed))) as run:
                run.finish(training)
            with pytest.raises(ZeroDivisionError) if seed == 7 else contextlib.nullcontext():
                tracker.flush()
    assert [run.status for run in tracking.find(option, status=None)] == ["FAILED", "FINISHED"]


ENDLESS = """
import sys
from shared import cell, of
from descentlab import tracking
from descentlab.nn.trainer import iterate
from descentlab.values import Option
option = Option("local", {"uri": sys.argv[1], "experiment": "tests"})
config = cell(epochs=10**7, log_every=1)
made = of(config)
with tracking.open_tracker(option) as tracker, tracker.cell(made) as run:
    for record in iterate(made.recipe, made.dataset.splits):
        run.record(record)
        if record.epoch == 3:
            print("training", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_process_leaves_no_run_behind_as_running(option, number):
    command = [sys.executable, "-c", ENDLESS, option.numbers["uri"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a job in the background is born deaf to some
    ) as run:
        try:
            assert run.stdout.readline() == "training\n"
            time.sleep(0.2)
            run.send_signal(number)
            assert run.wait(timeout=60) != 0
        finally:
            run.kill()
    (kept,) = tracking.find(option, status=None)
    assert kept.status == "KILLED"
    expected = "KeyboardInterrupt" if number == signal.SIGINT else f"Terminated: {number.name}"
    assert kept.tags["reason"] == expected
    assert "train/loss" in kept.metrics


def test_closing_gives_the_signals_back(option):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a database of the whole run may have its own use for it
    try:
        with tracking.open_tracker(option):
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


# --- a second process that writes ----------------------------------------------------------------------------------


@contextlib.contextmanager
def second_process(tracker):
    """The tracker's scribe with its process up."""
    tracker.queue.writer._start()
    assert tracker.queue.writer._ready.wait(60)
    yield tracker.queue.writer._worker.process


@pytest.mark.slow
def test_restarts_that_two_processes_write_are_those_that_one_writes(option, monkeypatch):
    dataset, training = trained(cell(restarts=40))
    alone = keep(option, cell(restarts=40), training, dataset)
    here, whole = [], trained_cell.TrainedCell.write_restart

    def write(self, store, row, stands_for):
        here.append(row)
        whole(self, store, row, stands_for)
        time.sleep(0.3)  # the other draws first, and imports for it

    monkeypatch.setattr(trained_cell.TrainedCell, "write_restart", write)
    with tracking.open_tracker(option) as tracker, second_process(tracker) as process:
        with tracker.cell(of(cell(restarts=40), dataset)) as run:
            run.finish(training)
    assert process.poll() is not None
    assert 0 < len(here) < 40
    both = [sorted(children(option, one), key=lambda child: child.info.run_name) for one in (alone, run.run_id)]
    assert len(both[0]) == len(both[1]) == 40
    for one, other in zip(*both, strict=True):
        assert (one.info.run_name, one.info.status) == (other.info.run_name, other.info.status)
        assert (one.data.params, one.data.metrics) == (other.data.params, other.data.metrics)
        differ = {key for key, value in one.data.tags.items() if other.data.tags[key] != value}
        assert differ <= {"mlflow.parentRunId", "sweep"}
        curves = [history(option, child.info.run_id, "train/loss") for child in (one, other)]
        assert [(row.step, row.value) for row in curves[0]] == [(row.step, row.value) for row in curves[1]]


@pytest.mark.slow
@pytest.mark.parametrize(("dies", "message"), [(False, "Invalid"), (True, "is gone; rerun the command to continue")])
def test_a_cell_whose_second_process_cannot_write_is_not_finished(option, monkeypatch, dies, message):
    dataset, training = trained(cell(restarts=12))
    monkeypatch.setattr(writer.CellWriter, "_here", lambda *arguments: None)  # all is left to the other
    with tracking.open_tracker(option) as tracker, second_process(tracker) as process:
        with tracker.cell(of(cell(restarts=12), dataset)) as run:
            tracker.flush()
            if dies:
                process.kill()
            run.finish(
                replace(training, curves={**training.curves, "a [name] that is refused": training.curves["train/loss"]})
            )
        with pytest.raises(InputError, match=message):
            tracker.flush()
        assert "FINISHED" not in statuses(option)
        monkeypatch.undo()
        with tracker.cell(of(cell(restarts=3, seed=50))) as run:  # and the next one is
            run.finish(trained(cell(restarts=3, seed=50))[1])
    assert [run.status for run in tracking.find(option, status=None)] == ["FAILED", "FINISHED"]


@pytest.mark.slow
def test_the_second_process_ends_with_a_first_one_that_is_killed(option):
    code = """if True:
        import sys, time
        from descentlab.values import Option
        from descentlab.tracking import open_tracker
        writer = open_tracker(Option("local", {"uri": sys.argv[1], "experiment": "tests"})).queue.writer
        writer._start()
        writer._ready.wait(60)
        print(writer._worker.process.pid, flush=True)
        time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, option.numbers["uri"]], stdout=subprocess.PIPE, text=True, env=environment
    ) as first:
        pid = int(first.stdout.readline())
        assert not gone(pid, 0.1)
        first.kill()
    assert gone(pid, 30)


# --- the other trackers and runs ---------------------------------------------------------------------------------


def test_the_tracker_none_keeps_nothing_and_never_imports_mlflow(tmp_path):
    code = """if True:
        import sys
        from descentlab.values import Option
        from descentlab.tracking import open_tracker
        class Cell: name = "x"
        with open_tracker(Option("none", {})) as tracker:
            with tracker.cell(Cell()) as run:
                run.record(None)
                run.finish(None)
            with tracker.summary("s") as summary:
                summary.table("t", None)
                summary.figure("f", None)
                summary.metrics({"a": 1.0})
                summary.text("n", "")
        print(run.run_id, "mlflow" in sys.modules, "matplotlib" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["None", "False", "False"]
    assert not list(tmp_path.iterdir())


def test_a_summary_keeps_tables_figures_numbers_and_texts(option):
    from matplotlib.figure import Figure

    frame = pd.DataFrame({"cell": ["a", "b"], "loss": [0.1234567890123, np.nan]})
    with tracking.open_tracker(option) as tracker, tracker.summary("sweep", {"restarts": 3}) as summary:
        summary.table("losses", frame)
        summary.figure("spread", Figure())
        summary.metrics({"best/test=loss": 0.5, "lost": float("nan")})
        summary.text("method", "as told")
    (run,) = tracking.find(option, "summary")
    assert run.name == "sweep"
    assert run.params == {"restarts": "3"}
    assert run.metrics == {"best/test_loss": 0.5}
    pd.testing.assert_frame_equal(pd.read_csv(run.artifact("losses.csv")), frame)
    assert "0.1235" in run.artifact("losses.html").read_text()
    assert run.artifact("spread.png").stat().st_size
    assert run.artifact("spread.svg").stat().st_size
    assert run.artifact("method.txt").read_text() == "as told"


def test_a_summary_that_fails_is_marked(option):
    with pytest.raises(KeyError), tracking.open_tracker(option) as tracker, tracker.summary("sweep"):
        raise KeyError("test/loss")
    (run,) = tracking.find(option, "summary", status=None)
    assert run.status == "FAILED"


def test_runs_are_found_by_sweep_and_params(option):
    with tracking.open_tracker(option) as tracker:
        for sweep, activation in (("one", "tanh"), ("one", "relu"), ("two", "relu")):
            config = cell(activation=activation, restarts=1)
            dataset, training = trained(config)
            with tracker.cell(of(config, dataset), {"sweep": sweep}) as run:
                run.finish(training)
        assert [run.tags["sweep"] for run in tracking.find(tracker, sweep="last")] == ["two"]
        assert len(tracking.find(tracker, sweep="one")) == 2
        assert len(tracking.find(tracker, where={"activation": "relu", "epochs": 4})) == 2
    assert [run.params["activation"] for run in tracking.find(option)] == ["tanh", "relu", "relu"]
    assert [run.params["activation"] for run in tracking.find(option, limit=2)] == ["relu", "relu"]


# --- replay ------------------------------------------------------------------------------------------------------


def test_a_replayed_cell_or_restart_has_the_same_bits(option):
    run_id = keep(option, cell())
    report = tracking.replay(run_id, option)
    assert report.same_bits
    assert not report.departures
    assert "the same bits" in str(report)
    (child,) = (run for run in children(option, run_id) if run.info.run_name == "s9")
    assert tracking.replay(child.info.run_id, option).same_bits


def test_a_replay_that_departs_says_where_and_by_how_much(option):
    run_id = keep(option, cell())
    path = tracking.get(option, run_id).artifact("curves.parquet")
    curves = pd.read_parquet(path)
    curves.loc[2, "test/loss"] *= 1 + 1e-6
    curves.to_parquet(path)
    client = stores.open_store(option).client
    client.delete_tag(run_id, "checksums")
    client.set_tag(run_id, "numpy", "1.0")
    report = tracking.replay(run_id, option)
    assert not report.same_bits
    assert report.worst == "test/loss"
    assert 1e-7 < report.largest_difference <= 1e-6
    assert report.departures == {"numpy": ("1.0", np.__version__)}
    assert "test/loss" in str(report)
    assert f"numpy: 1.0 then, {np.__version__} now" in str(report)


def test_a_diverged_run_replays_to_the_same_bits(option):
    config = cell(data="diabetes", activation="relu", learning_rate=1e3, restarts=2)
    dataset, training = trained(config)
    assert (training.diverged_epoch > 0).any()
    assert tracking.replay(keep(option, config, training, dataset), option).same_bits


@pytest.mark.parametrize("run_id", ["nonsense", "0123456789abcdef0123456789abcdef", "", "../../etc", "a'b"])
def test_a_wrong_run_id_is_refused_in_one_line(option, run_id):
    stores.open_store(option)
    with pytest.raises(InputError) as error:
        tracking.replay(run_id, option)
    assert str(error.value).startswith(f"run_id={run_id}: no run has this id in sqlite:")
    assert "\n" not in str(error.value)


def test_a_summary_cannot_be_replayed(option):
    with tracking.open_tracker(option) as tracker, tracker.summary("sweep") as summary:
        pass
    with pytest.raises(InputError, match="is of level summary"):
        tracking.replay(summary.run_id, option)
