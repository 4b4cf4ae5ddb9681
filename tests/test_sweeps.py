"""What the store holds is not trained again: cells, restarts, sweeps, and runs that nobody trains any more."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from shared import assert_same_run, assert_same_training, cell, children, of, sweep

from descentlab import cli, tracking
from descentlab.cli import listing, planning, status
from descentlab.config import composing
from descentlab.config import resolving as configs
from descentlab.config.cells import cells as made
from descentlab.studies import study
from descentlab.sweeps import progress, queue
from descentlab.sweeps import running as sweeps
from descentlab.sweeps import training as sweeps_training
from descentlab.tracking import cell_run, find, locations, ownership, results, retrying, tables, trainings
from descentlab.tracking import store as stores
from descentlab.values import InputError, Option


@pytest.fixture
def trained(monkeypatch):
    """The (seed, restarts) of every training that is started."""
    calls = []
    whole = sweeps_training.iterate

    def iterate(recipe, *arguments, **more):
        calls.append((recipe.seed, recipe.restarts))
        return whole(recipe, *arguments, **more)

    monkeypatch.setattr(sweeps_training, "iterate", iterate)
    return calls


def test_the_same_sweep_again_trains_nothing_and_gives_the_same_bits(option, trained, capsys):
    cells = [cell(), cell(activation="relu")]
    first, before = sweep(option, *cells)
    assert len(trained) == 2
    again, after = sweep(option, *cells)
    assert len(trained) == 2
    assert again == first
    assert "2 of 2 cells are stored already" in capsys.readouterr().err
    for one, other in zip(before, after, strict=True):
        assert_same_training(one, other)
    assert len(find(option, status=None)) == 2


def test_progress_is_shown_of_a_sweep_that_has_nothing_left_to_train(option):
    cells = [cell(), cell(activation="relu")]
    for _ in range(2):
        with tracking.open_tracker(option) as tracker:
            sweeps.run(made(cells), tracker, progress=True)


def test_of_more_restarts_the_new_ones_are_trained_and_the_old_run_stays(option, trained, tmp_path, capsys):
    sweep(option, cell(restarts=2))
    (old,) = find(option)
    _, (grown,) = sweep(option, cell(restarts=4, seed=6))
    assert trained == [(7, 2), (6, 1), (9, 1)]
    assert "2 of 4 restarts are stored already" in capsys.readouterr().err
    assert grown.seeds.tolist() == [6, 7, 8, 9]
    now = find(option)
    assert (now[0].tags, now[0].metrics, now[0].status) == (old.tags, old.metrics, "FINISHED")
    assert (now[1].tags["reused"], now[1].tags["reused_from"]) == ("2", old.run_id)
    assert {run.info.run_name for run in children(option, now[1].run_id)} == {"s6", "s9"}
    anew = replace(option, numbers={**option.numbers, "experiment": "anew"})
    _, (whole,) = sweep(anew, cell(restarts=4, seed=6))
    assert_same_training(grown, whole)
    assert_same_run(now[1], find(anew)[0])


def test_of_fewer_restarts_none_is_trained(option, trained):
    _, (whole,) = sweep(option, cell(restarts=4))
    _, (part,) = sweep(option, cell(restarts=1, seed=9))
    assert trained == [(7, 4)]
    assert_same_training(part, trainings.only(whole, np.array([2])))


def test_where_only_the_best_restarts_weights_were_kept_the_best_of_fewer_is_trained_for_them(
    option, trained, monkeypatch
):
    monkeypatch.setattr(trainings, "WEIGHTS_LIMIT", 100)
    _, (whole,) = sweep(option, cell(restarts=4))
    best = int(tables.ranking(whole)[0])
    others = [row for row in range(4) if row != best and abs(row - best) <= 3]
    first = 0 if best == 3 else best + 1 if best < 2 else 0
    count = 3 if best == 3 else 4 - first if best < 2 else best
    wanted = list(range(first, first + count))
    assert set(wanted) <= set(others)
    _, (part,) = sweep(option, cell(restarts=count, seed=7 + first))
    now_best = int(tables.ranking(part)[0])
    assert trained == [(7, 4), (7 + wanted[now_best], 1)]
    run = find(option)[1]
    with np.load(run.artifact("final.npz")) as final:
        assert final["seeds"].tolist() == [7 + wanted[now_best]]
        np.testing.assert_array_equal(final["W1"][0], whole.final.W[0][wanted[now_best]])
    known = ~np.isnan(part.final.flat).all(axis=1)
    assert known.tolist() == [row == now_best for row in range(count)]


def test_a_new_sweep_adopts_cells_under_its_own_order_and_names(option, trained):
    sweep(option, replace(cell(activation="relu"), name="alone"))
    sweep(option, replace(cell(seed=1), name="alone"))
    names = ("c", "a", "b")
    arms = [cell(activation="elu"), cell(seed=1), cell(activation="relu")]
    mine, _ = sweep(option, *(replace(arm, name=name) for arm, name in zip(arms, names, strict=True)))
    assert len(trained) == 3
    for which in (mine, "last", mine[:10] + "%"):
        found = find(option, sweep=which)
        assert [run.name for run in found if run.tags["sweep"] == mine] == ["c", "a", "b"]
    assert results.cells(option, sweep=mine)["cell"].tolist() == ["c", "a", "b"]
    assert results.restarts(option, sweep=mine)["cell"].tolist() == [name for name in names for _ in range(3)]
    assert len(find(option)) == 3


def test_without_resume_all_is_trained_anew_and_the_old_runs_stay(option, trained):
    first, _ = sweep(option, cell())
    second, _ = sweep(option, replace(cell(), resume=False))
    assert trained == [(7, 3), (7, 3)]
    assert first != second
    assert [len(find(option, sweep=one)) for one in (first, second)] == [1, 1]
    assert len(find(option)) == 2
    third, _ = sweep(option, cell())
    assert third == second
    assert len(trained) == 2


def test_equal_settings_over_other_data_are_not_the_same_run(option, trained, tmp_path):
    for content in ("1,2\n2,4\n3,6\n4,9.5\n", "1,2\n2,4\n3,6\n4,9.5\n", "1,2\n2,4\n3,6\n4,8.5\n"):
        (tmp_path / "own.csv").write_text(content * 5)
        sweep(
            option,
            cell(
                data={"name": "file", "path": str(tmp_path / "own.csv"), "header": False, "target": 2},
                loss="auto",
                restarts=1,
            ),
        )
    assert len(trained) == 2
    assert len(find(option, sweep="last")) == 1


def test_a_sweep_whose_definition_changed_says_what_differs(option, capsys):
    sweep(option, cell(restarts=1), cell(restarts=1, activation="relu"), label="mine")
    capsys.readouterr()
    sweep(option, *(cell(restarts=2, activation=name) for name in ("tanh", "relu", "elu")), label="mine")
    told = capsys.readouterr().err
    assert "restarts 1 -> 2" in told
    assert "activation.name tanh,relu -> tanh,relu,elu" in told
    assert "1 cells added, 0 removed" in told
    sweep(option, cell(restarts=1), label="another")
    assert "differs" not in capsys.readouterr().err


def test_equal_cells_of_two_parts_are_trained_once_and_found_in_both(option, trained):
    with tracking.open_tracker(option) as tracker:
        parts = {"one": made([cell()]), "two": made([cell(activation="relu"), cell()])}
        sweeps.begin(parts, tracker, "study")
        for part, cells in parts.items():
            sweeps.run(cells, tracker, progress=False, part=part)
        assert [len(find(tracker, sweep=f"{tracker.sweep}-{part}")) for part in parts] == [1, 2]
        assert len(find(tracker, sweep=f"{tracker.sweep}%")) == 3
    assert len(trained) == 2


# --- runs that nobody trains any more --------------------------------------------------------------------------------


def gone(option, config, **tags):
    """A run whose process was killed: a finished and a running restart under a running parent; its id."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    digest = of(config).digest
    with tracking.open_tracker(option) as tracker:
        given = {"level": "cell", "config_hash": config.hash, "cell_hash": config.cell_hash, "data_digest": digest}
        start = ownership.owner()["process_start"].rpartition("/")[0] + "/1"
        given |= {**ownership.owner(), "pid": str(process.pid), "process_start": start, **tags}
        run_id = tracker.queue.create_run("killed", given)
        for status in ("FINISHED", "RUNNING"):
            child = tracker.queue.create_run("s7", {"level": "restart", "mlflow.parentRunId": run_id})
            tracker.client.set_terminated(child, status) if status == "FINISHED" else None
    return run_id


@pytest.mark.parametrize("tags", [{}, {"host": "elsewhere", "heartbeat": "1000000000"}])
def test_a_run_whose_process_is_gone_is_marked_with_its_restarts_and_trained_again(option, trained, tags):
    run_id = gone(option, cell(), **tags)
    sweep(option, cell())
    assert len(trained) == 1
    killed = tracking.get(option, run_id)
    assert killed.status == "KILLED"
    assert killed.tags["reason"].startswith("no heartbeat since 2001" if tags else "its process ")
    assert {run.info.status for run in children(option, run_id)} == {"KILLED"}
    (parent,) = find(option)
    assert {run.info.status for run in children(option, parent.run_id)} == {"FINISHED"}


def test_list_show_and_status_call_a_run_killed_whose_process_is_gone(option):
    with tracking.open_tracker(option) as tracker:
        tracker.begin({"": made([cell()])})
    run_id = gone(option, cell(), sweep=tracker.sweep)
    assert "killed" in listing.list_runs([], option)
    assert run_id[:8] in listing.list_runs(["status=killed"], option)
    assert run_id[:8] not in listing.list_runs(["status=running"], option)
    assert "is gone" in listing.show([run_id], option)
    header, row = status.status([], option).splitlines()[:2]
    assert row[: header.index("killed") + len("killed")].endswith(" 1")


@pytest.mark.parametrize(("ends", "expected"), [("FINISHED", 0), ("FAILED", 1), ("RUNNING", 1)])
def test_a_cell_that_another_process_trains_is_waited_for_or_taken_over(
    option, trained, monkeypatch, capsys, ends, expected
):
    with tracking.open_tracker(option) as other:
        planned = of(cell())
        if ends == "FINISHED":
            sweep(option, cell())
            trained.clear()
            (run,) = find(option)
            other.client.update_run(run.run_id, status="RUNNING")
            for key, value in ownership.owner().items():
                other.client.set_tag(run.run_id, key, value)
            taken = run.run_id
        else:
            taken = gone(option, cell(), **ownership.owner())
        waits = []

        def end(seconds):
            waits.append(seconds)
            if ends == "RUNNING":
                other.client.set_tag(taken, "process_start", ownership.owner()["process_start"] + "1")
            else:
                other.client.set_terminated(taken, ends)

        monkeypatch.setattr(queue.time, "sleep", end)
        sweep(option, cell(), cell(activation="relu"))
    assert waits
    assert f" (process {os.getpid()} on " in capsys.readouterr().err
    assert len(trained) == 1 + expected
    assert [run.tags["config_hash"] for run in find(option)].count(planned.config.hash) == 1


def test_a_run_that_was_given_up_while_it_was_written_does_not_stand(option, monkeypatch):
    whole = trainings.write_weights

    def given_up(training, folder):
        opened = stores.open_store(option)
        (run,) = find(option, status="RUNNING")
        opened.client.set_terminated(run.run_id, "KILLED")
        monkeypatch.setattr(trainings, "write_weights", whole)
        whole(training, folder)

    monkeypatch.setattr(trainings, "write_weights", given_up)
    sweep(option, cell())
    (run,) = find(option, status=None)
    assert run.status == "KILLED"
    assert {child.info.status for child in children(option, run.run_id)} == {"KILLED"}
    sweep(option, cell())
    assert len(find(option)) == 1


def test_what_the_store_could_not_take_is_not_trained_again(option, trained, monkeypatch):
    whole = trainings.write_weights
    monkeypatch.setattr(trainings, "write_weights", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(option, cell())
    monkeypatch.setattr(trainings, "write_weights", whole)
    _, (training,) = sweep(option, cell())
    assert trained == [(7, 3)]
    (run,) = find(option)
    assert_same_training(training, sweeps_training.stored_training(of(cell()), run))
    assert not list(stores.open_store(option).folder.rglob("*.npz.part"))
    assert not [path for path in (stores.open_store(option).folder / "mlcheckpoints").rglob("*") if path.is_file()]


def test_a_plan_holds_every_cell_with_its_configuration(option):
    sweep(option, cell(), cell(activation="relu"), label="mine")
    (record,) = find(option, "sweep")
    plan = json.loads(record.artifact("plan.json").read_text())
    assert plan["label"] == "mine"
    assert [configs.resolve(one["config"]).hash for one in plan["cells"]] == [
        one["config_hash"] for one in plan["cells"]
    ]


# --- checkpoints and stores that do not answer -----------------------------------------------------------------------


def test_a_training_that_was_cut_short_goes_on_from_its_checkpoint_to_the_same_bits(option, monkeypatch, capsys):
    often = replace(option, numbers={**option.numbers, "checkpoint_seconds": 0.0})
    config = cell(epochs=12, update="adam", learning_rate=0.01)
    whole = tables.curve_table
    record = cell_run.TrackedCell.record

    def cut(self, given):
        if given.epoch == 7:
            raise KeyboardInterrupt
        record(self, given)

    monkeypatch.setattr(cell_run.TrackedCell, "record", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(often, config)
    folder = stores.open_store(option).folder / "mlcheckpoints"
    assert len(list(folder.rglob("checkpoint-*.npz"))) == 2
    monkeypatch.setattr(cell_run.TrackedCell, "record", record)
    _, (training,) = sweep(often, config)
    assert "continues from epoch 6" in capsys.readouterr().err
    assert not list(folder.rglob("checkpoint-*.npz"))
    anew = replace(option, numbers={**option.numbers, "experiment": "anew"})
    _, (other,) = sweep(anew, config)
    assert_same_training(training, other)
    assert_same_run(find(option)[0], find(anew)[0])
    assert whole(training).equals(whole(other))


def test_a_store_that_does_not_answer_is_waited_for_aloud(monkeypatch, capsys):
    answers = [ConnectionError("refused"), ConnectionError("refused"), "here"]

    class Client:
        def get_run(self, run_id):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    assert retrying.RetryingClient(Client(), "http://host", 60).get_run("x") == "here"
    said = capsys.readouterr().err
    assert "http://host does not answer; waiting for up to 60 s more" in said
    assert "answers again" in said


def test_a_store_that_never_answers_is_given_up_with_what_to_do():
    class Client:
        def get_run(self, run_id):
            raise ConnectionError("refused")

    with pytest.raises(InputError, match=r"has not answered for 0 s; start the server again and rerun the command"):
        retrying.RetryingClient(Client(), "http://host", 0).get_run("x")


def test_a_refusal_is_not_waited_for():
    class Client:
        def get_run(self, run_id):
            raise ValueError("no such run")

    with pytest.raises(ValueError, match="no such run"):
        retrying.RetryingClient(Client(), "http://host", 60).get_run("x")


# --- learning rates ----------------------------------------------------------------------------------------------


@pytest.fixture
def stacks(monkeypatch):
    """The learning rates of every training that is started."""
    calls = []
    whole = sweeps_training.iterate

    @functools.wraps(whole)  # a trainer is asked by its signature whether it can continue from a checkpoint
    def iterate(recipe, *arguments, **more):
        calls.append(recipe.rates)
        return whole(recipe, *arguments, **more)

    monkeypatch.setattr(sweeps_training, "iterate", iterate)
    return calls


def rates(*values, **more):
    return [cell(learning_rate=value, **more) for value in values]


def test_cells_that_differ_in_rate_alone_train_as_one_stack_and_are_the_runs_they_are_alone(option, stacks):
    cells = rates(0.1, 1e200, 0.5)  # the second diverges
    with tracking.open_tracker(option) as tracker:
        alone = [sweeps.run(made([one]), tracker, progress=False)[0] for one in cells]
    first = find(option)
    fresh = [replace(one, resume=False) for one in cells]
    _, together = sweep(option, *fresh)
    assert stacks == [(0.1,), (1e200,), (0.5,), (0.1, 1e200, 0.5)]
    for one, other in zip(alone, together, strict=True):
        assert one.recipe.learning_rate == other.recipe.learning_rate
        assert_same_training(one, other)
    assert (together[1].diverged_epoch >= 0).all()
    again = [run for run in find(option) if run.run_id not in {run.run_id for run in first}]
    assert [run.tags["config_hash"] for run in again] == [one.hash for one in cells]
    for one, other in zip(first, again, strict=True):
        assert_same_run(one, other)


def test_a_stack_leaves_out_what_is_there_already_and_what_differs_in_more(option, stacks):
    sweep(option, *rates(0.2))
    one, two, three = rates(0.1, 0.2, 0.3)
    _, trainings = sweep(option, one, cell(learning_rate=0.1, activation="relu"), two, three)
    assert stacks == [(0.2,), (0.1, 0.3), (0.1,)]
    assert [training.recipe.rates for training in trainings] == [(0.1,), (0.1,), (0.2,), (0.3,)]
    assert [training.recipe.activation.name for training in trainings] == ["tanh", "relu", "tanh", "tanh"]


def test_a_stack_holds_no_more_than_its_bound(option, stacks, monkeypatch):
    cells = rates(0.1, 0.2, 0.3, 0.4, 0.5)
    (training,) = sweep(option, cells[0])[1]
    monkeypatch.setattr(queue, "STACK_BYTES", 2 * training.final.flat.nbytes + 1)
    sweep(option, *(replace(one, resume=False) for one in cells))
    assert stacks == [(0.1,), (0.1, 0.2), (0.3, 0.4), (0.5,)]


def test_a_stack_that_fails_marks_all_of_its_cells_and_the_others_go_on(option, monkeypatch):
    whole = sweeps_training.iterate

    def iterate(recipe, *arguments, **more):
        if len(recipe.rates) > 1:
            raise MemoryError("no room")
        return whole(recipe, *arguments, **more)

    monkeypatch.setattr(sweeps_training, "iterate", iterate)
    with pytest.raises(sweeps.CellsFailed, match="2 of 3 cells failed"):
        sweep(option, *rates(0.1, 0.2), cell(activation="relu"))
    assert sorted(run.status for run in find(option, status=None)) == ["FAILED", "FAILED", "FINISHED"]


def test_a_stack_that_was_cut_short_goes_on_from_its_checkpoint_to_the_same_bits(option, stacks, monkeypatch, capsys):
    often = replace(option, numbers={**option.numbers, "checkpoint_seconds": 0.0})
    cells = rates(0.1, 0.5, epochs=6)
    record = cell_run.TrackedCell.record

    def cut(self, given):
        if given.epoch == 4:
            raise KeyboardInterrupt
        record(self, given)

    monkeypatch.setattr(cell_run.TrackedCell, "record", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(often, *cells)
    monkeypatch.setattr(cell_run.TrackedCell, "record", record)
    _, together = sweep(often, *cells)
    assert "continues from epoch 3" in capsys.readouterr().err
    _, alone = sweep(option, replace(cells[1], resume=False))
    assert stacks == [(0.1, 0.5), (0.1, 0.5), (0.5,)]
    assert_same_training(together[1], alone[0])


def test_the_list_shows_no_score_of_a_run_that_did_not_finish(option, monkeypatch):
    def cut(self, given):
        if given.epoch == 4:
            raise KeyboardInterrupt
        record(self, given)

    record = cell_run.TrackedCell.record
    monkeypatch.setattr(cell_run.TrackedCell, "record", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(option, cell(epochs=6))
    (run,) = find(option, status=None)
    assert run.metrics  # those of epoch 3
    assert "accuracy" not in listing.list_runs([], option)


# --- plan and status -------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_there_and_what_the_rest_would_take(option):
    cells = [cell(restarts=2), cell(restarts=4), cell(activation="relu")]
    before = planning.plan(cells, Option("local", {"uri": str(locations.home() / "nowhere.db")}))
    assert "cells     3: 0 stored already, 0 partly, 3 to train\nrestarts  9: 0 stored already, 9 to train" in before
    assert "from a few epochs timed now (for 3 of 3)" in before
    assert "computed from the sizes" in before
    sweep(option, cells[0])
    told = planning.plan(cells, option)
    assert "cells     3: 1 stored already, 1 partly, 1 to train\nrestarts  9: 4 stored already, 5 to train" in told
    assert "finished cells of the same kind (for 1 of 2); a few epochs timed now (for 1 of 2)" in told
    assert "measured on stored cells (for 2 of 2)" in told
    anew = planning.plan([replace(cells[0], resume=False)], option)
    assert "restarts  2: 0 stored already, 2 to train" in anew
    assert "nothing is trained" in planning.plan(cells[:1], option)


def test_the_status_counts_what_is_planned_done_running_failed_and_diverged(option, monkeypatch):
    arms = [cell(activation=name, restarts=1) for name in ("tanh", "relu", "elu", "silu", "gelu")]
    whole = cell_run.TrackedCell.finish

    def finish(self, training, **more):
        if self.name.startswith("relu"):
            raise ValueError("no")
        if self.name.startswith("elu"):
            raise KeyboardInterrupt
        return whole(self, training, **more)

    monkeypatch.setattr(cell_run.TrackedCell, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
        sweep(option, *arms, label="mine")
    monkeypatch.setattr(cell_run.TrackedCell, "finish", whole)
    last = find(option, sweep="last", status=None)[0].tags["sweep"]
    gone(option, arms[3], **{"sweep": last})
    gone(option, arms[4], **ownership.owner(), sweep=last)
    header, row, *_ = status.status([], option).splitlines()
    assert header.split()[-7:] == ["planned", "done", "running", "failed", "killed", "to", "do"]
    assert row.split()[-6:] == ["5", "1", "1", "1", "2", "3"]
    assert "mine" in row
    with pytest.raises(InputError, match="status takes"):
        status.status(["limit=x"], option)


def test_a_runs_files_are_on_the_disk_before_it_counts(option, monkeypatch):
    seen = set()
    whole = os.fsync

    def fsync(number):
        path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        if "mlartifacts" in path:
            (run,) = find(option, status=None)
            seen.add((os.path.basename(path), run.status))  # noqa: PTH119
        whole(number)

    monkeypatch.setattr(os, "fsync", fsync)
    sweep(option, cell())
    assert {("curves.parquet", "RUNNING"), ("final.npz", "RUNNING"), ("checksums.json", "RUNNING")} <= seen
    assert {status for _, status in seen} == {"RUNNING"}


def test_a_sweep_that_goes_on_shows_how_far_it_is(option, trained, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    cells = [cell(restarts=2), cell(restarts=2, seed=40)]
    sweep(option, cells[0])
    with tracking.open_tracker(option) as tracker:
        sweeps.run(made(cells), tracker)
    assert len(trained) == 2
    assert "2/2 " in capsys.readouterr().err


def test_of_a_cell_that_two_processes_trained_at_once_the_earliest_run_counts(option):
    config = cell(restarts=1)
    (training,) = sweep(option, config)[1]
    first = find(option)[0]
    with tracking.open_tracker(option) as tracker:  # as on a server, where nothing keeps a second one from starting
        with tracker._opened(of(config), first.tags["sweep"], 0) as run:
            run.finish(training)
        tracker.flush()
        assert len(find(tracker)) == 2
        assert [one.run_id for one in find(tracker, sweep=first.tags["sweep"])] == [first.run_id]
        assert len(results.restarts(tracker, sweep="last")) == 1


# --- cells that differ in their data alone --------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Two files of the same shape and other values, in folders of their own: a.csv and b.csv, and b's copy named a."""
    rng = np.random.default_rng(0)
    paths = []
    for name, noise in (("one/a.csv", 0.1), ("two/b.csv", 3.0), ("two/a.csv", 3.0)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        labels = np.arange(60) % 2
        inputs = labels[:, None] + noise * rng.standard_normal((60, 3)) if len(paths) < 2 else None
        table = np.column_stack([inputs, labels]) if inputs is not None else np.loadtxt(paths[-1], delimiter=",")
        np.savetxt(path, table, delimiter=",")
        paths.append(str(path))
    return paths


CSV = ["data=file", "network.hidden=3", "epochs=3", "restarts=2", "data.split_seed=1"]


def alone(path, *words):
    """The training of one file by itself."""
    (one,) = composing.compose([*CSV, f"data.path={path}", "tracking=none", *words], sweep=False)
    return sweeps.run(made([one]), tracking.open_tracker(one.tracking), progress=False)[0]


@pytest.mark.parametrize("form", ["-m", "arms", pytest.param("local", marks=pytest.mark.slow)])
def test_cells_that_differ_in_the_values_of_their_data_alone_are_trained_each(form, files, option, capsys):
    words = [*CSV, f"tracking.uri={option.numbers['uri']}", "tracking.experiment=tests"]
    if form == "arms":
        cells = composing.compose(words, arms=[[f"data.path={path}"] for path in files])
    else:
        launcher = ["hydra/launcher=local"] if form == "local" else []
        cells = composing.compose([*words, f"data.path={','.join(files)}", *launcher])
    seen = []
    with tracking.open_tracker(option) as tracker:
        trainings = sweeps.run(made(cells), tracker, progress=False, on_finish=lambda *told: seen.append(told))
        sweep_id = tracker.sweep
    for path, training in zip(files, trainings, strict=True):
        assert_same_training(training, alone(path))
    assert trainings[2] is trainings[1]  # equal values are one cell, wherever they lie
    assert len(seen) == 2
    for one, training, kept in seen:
        place = next(at for at, cell in enumerate(cells) if cell.data == one.config.data)
        assert_same_training(training, trainings[place])
        (run,) = [run for run in find(option) if run.run_id == kept.run_id]
        assert run.params["data.path"] == one.config.data.numbers["path"]
    found = find(option, sweep=sweep_id)
    assert [run.name for run in found] == [cell.name for cell in cells[:2]]
    assert len({run.tags["data_digest"] for run in found}) == 2
    again, after = sweep(option, *cells)  # finds both
    assert (again, len(find(option, status=None))) == (sweep_id, 2)
    for one, other in zip(trainings, after, strict=True):
        assert_same_training(one, other)


def test_the_command_line_shows_each_file_its_own_score(files, capsys):
    assert cli.main(["-m", *CSV, f"data.path={files[0]},{files[1]}", "tracking=none"]) == 0
    table = capsys.readouterr().out.splitlines()
    shown = []
    for path in files[:2]:
        assert cli.main([*CSV, f"data.path={path}", "tracking=none"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("test/accuracy"))
        shown.append(line.split()[1:])
    assert [line.split()[2:] for line in table[1:3]] == shown
    assert shown[0] != shown[1]


def test_cells_on_different_data_never_train_as_one_stack(files, option):
    cells = composing.compose(
        [*CSV, f"data.path={files[0]},{files[1]}", "learning_rate=0.1,0.5"], arms=[["tracking=none"]]
    )
    _, trainings = sweep(option, *cells)
    for one, training in zip(cells, trainings, strict=True):
        assert_same_training(training, alone(one.data.numbers["path"], f"learning_rate={one.learning_rate}"))


def test_a_plan_counts_cells_of_different_data_each(files, option):
    cells = composing.compose([*CSV, f"data.path={','.join(files)}"])
    assert planning.plan(cells, option).startswith("cells     2: 0 stored already, 0 partly, 2 to train")


@pytest.mark.parametrize("form", ["command", "study"])
def test_each_data_set_is_read_once_and_each_cell_checked_once(form, files, tmp_path, option, monkeypatch):
    from descentlab.config import cells as cells_module
    from descentlab.data.sources import SOURCES

    reads, checks = [], []
    for name in ("file", "moons"):
        whole = SOURCES[name].read
        counted = replace(SOURCES[name], read=lambda numbers, whole=whole: reads.append(numbers) or whole(numbers))
        monkeypatch.setitem(SOURCES, name, counted)
    check = cells_module._check
    monkeypatch.setattr(cells_module, "_check", lambda *given: checks.append(given) or check(*given))
    for number in range(6):  # the values of every file are its own
        np.savetxt(
            tmp_path / f"{number}.csv", np.loadtxt(files[0], delimiter=",") + np.array([number, 0, 0, 0]), delimiter=","
        )
    words = [f"tracking.uri={option.numbers['uri']}", "tracking.experiment=tests", "epochs=2", "network.hidden=3"]
    paths = ",".join(str(tmp_path / f"{number}.csv") for number in range(6))
    if form == "command":
        assert cli.main(["-m", "data=file", f"data.path={paths}", "activation=tanh,relu", *words]) == 0
    else:
        text = "# @package _global_\ndefaults:\n  - override /data: moons\ndata:\n  samples: 40\nhydra:\n  sweeper:\n"
        (tmp_path / "conf" / "experiment").mkdir(parents=True)
        text += "    params:\n      data.sample_seed: range(0,6)\n      activation: tanh,relu\n"
        (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
        monkeypatch.setenv("DESCENTLAB_CONF", str(tmp_path / "conf"))
        parts = {"mine": study.Part(judge=judges_any)}
        assert study.main("none", "", parts, lambda study: None, words) == 0
    assert len(find(option)) == 12
    assert (len(reads), len(checks)) == (6, 12)  # 36 and 48 when every step loaded and checked again


def judges_any(cell, dataset, training):
    return pd.DataFrame({"outcome": ["any"] * len(training.seeds)})
