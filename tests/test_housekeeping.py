import io
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import cell, diverged, of, trained

from descentlab import cli, tracking
from descentlab.analysis.statistics import holm, paired_difference, probability_of_improvement
from descentlab.cli import comparing, deleting, exporting, listing, output
from descentlab.tracking import find, get, results
from descentlab.values import InputError, Option


@pytest.fixture(scope="module")
def kept(empty_store, tmp_path_factory):
    """A store with a sweep of tanh and relu (five seeds each, one of relu's diverged), a single run, and a summary."""
    path = tmp_path_factory.mktemp("kept") / "mlflow.db"
    shutil.copy(empty_store, path)
    option = Option("local", {"uri": str(path), "experiment": "tests", "children": "auto"})
    ids = {}
    with tracking.open_tracker(option) as tracker:
        for name, sweep, settings in (
            ("tanh", "one", {"restarts": 5}),
            ("relu", "one", {"restarts": 5, "activation": "relu", "seed": 8}),
            ("single", "two", {"restarts": 1, "descent": "batch", "seed": 9, "data": "xor"}),
        ):
            config = cell(**settings)
            dataset, training = trained(config)
            training = diverged(training, [1], 2) if name == "relu" else training
            with tracker.cell(of(config, dataset), {"sweep": sweep}) as run:
                run.finish(training)
            ids[name] = run.run_id
        with pytest.raises(ZeroDivisionError), tracker.cell(of(cell(seed=3)), {"sweep": "three"}) as run:
            1 / 0  # noqa: B018
        ids["failed"] = run.run_id
        with tracker.summary("losses", {"study": "sweep"}, {"sweep": "one"}) as summary:
            summary.metrics({"verdict/claim": 1.0})
            summary.table("table", pd.DataFrame({"a": [1]}))
        ids["summary"] = summary.run_id
    return option, ids


@pytest.fixture
def option(kept):
    """The option that names that store, all of it there again afterwards."""
    yield kept[0]
    for level in ("cell", "restart", "summary"):
        tracking.upkeep.delete(kept[0], find(kept[0], level, status=None, deleted=True), restore=True)


@pytest.fixture
def ids(kept):
    return kept[1]


def listed(text):
    """The lines of a list that stand for a run."""
    return text.split("\n\n")[0].splitlines()[1:] if "\n\n" in text else []


# --- list --------------------------------------------------------------------------------------------------------


def test_cells_are_listed_newest_first_with_their_score_and_the_stores_size(option, ids):
    text = listing.list_runs([], option)
    assert [line[:8] for line in listed(text)] == [ids[name][:8] for name in ("failed", "single", "relu", "tanh")]
    path = Path(option.numbers["uri"])
    for word in ("failed", "relu-bce-mini32", "test/accuracy", "4 cells", f"sqlite:///{path}: ", "artifacts"):
        assert word in text
    scores = results.cells(option, where={"activation": "tanh", "restarts": 5})
    assert f"{scores['test/accuracy'].iloc[0]:.4g}" in text
    sizes = tracking.upkeep.sizes(option)
    assert sizes[1] >= path.stat().st_size
    assert sizes[2] == sum(file.stat().st_size for file in path.parent.glob("mlartifacts/**/*") if file.is_file())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweep=one"], ["relu", "tanh"]),
        (["sweep=last"], ["failed"]),
        (["status=failed"], ["failed"]),
        (["activation=relu"], ["relu"]),
        (["activation=ReLU"], ["relu"]),
        (["lr=.5", "descent=batch"], ["single"]),
        (["learning_rate=.5", "descent=batch"], ["single"]),
        (["network.hidden=5", "restarts=5"], ["relu", "tanh"]),
        (["name=relu-bce-mini32"], ["relu"]),
        (["descent.batch_size=32", "data.samples=60"], ["failed", "relu", "tanh"]),
        (["limit=2"], ["failed", "single"]),
        (["cells", "data=iris"], []),
    ],
)
def test_a_list_is_narrowed_by_words(option, ids, words, expected):
    assert [line[:8] for line in listed(listing.list_runs(words, option))] == [ids[name][:8] for name in expected]


def test_sweeps_are_listed_with_how_their_cells_ended(option):
    header, *rows = listing.list_runs(["sweeps"], option).split("\n\n")[0].splitlines()
    assert header.split() == ["sweep", "started", "cells", "finished", "failed", "restarts", "lost", "seconds", "data"]
    assert [row.split()[0] for row in rows] == ["three", "two", "one"]
    assert rows[2].split()[3:7] == ["2", "2", "10", "1"]
    assert "1 summary" in listing.list_runs(["summaries"], option)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweps"], "sweps: list takes one of cells, sweeps, summaries, deleted (did you mean sweeps?)"),
        (["activaton=relu"], "activaton=relu: unknown key"),
        (["status=done"], "status=done: not one of"),
        (["workers=2"], "workers=2: unknown key"),
        (["limit=0"], "limit=0: must be all or a whole number from 1"),
        (["activation="], "activation=: list takes words such as"),
        (["sweep='\""], "'\": MLflow cannot search for a text that holds both kinds of quotes"),
    ],
)
def test_a_word_that_means_nothing_to_list_is_refused(option, words, message):
    with pytest.raises(InputError) as error:
        listing.list_runs(words, option)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# --- show --------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_by_the_beginning_of_its_id(option, ids):
    run = get(option, ids["relu"])
    text = listing.show([ids["relu"][:6]], option)
    for word in (
        ids["relu"], "finished", "activation     relu", "4 of 5", "1 of 5 diverged", "95 % interval", "test/accuracy",
        f"{run.metrics['test/loss']:.4g}", f"{run.metrics['test/loss_ci_low']:.4g} to", "curves.parquet",
        "delta_norm/layer_1", "numpy", np.__version__, run.digest,
    ):  # fmt: skip
        assert word in text.replace("means of the finite restarts; 1 of 5", "4 of 5 1 of 5")
    assert "ZeroDivisionError" in listing.show([ids["failed"]], option)
    assert "verdict/claim" in listing.show([ids["summary"]], option)
    (child, *_) = find(option, "restart", parent=ids["relu"])
    assert ids["relu"] in listing.show([child.run_id], option)


def test_an_id_that_is_none_or_several_is_refused(option, ids):
    for words in ([], ["a=b"], ["x", "y"], ["--yes"]):
        with pytest.raises(InputError, match=r"^show: needs the id of a run, as in: "):
            listing.show(words, option)
    for word in ("0000", "zz", "abc", "a%", "' OR 1"):
        with pytest.raises(InputError, match=r": no run has this id in "):
            listing.show([word], option)
    path = Path(option.numbers["uri"])
    twin = ids["tanh"][:20] + "0" * 12
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "run_uuid"]
        names = ", ".join(columns)
        copy = f"INSERT INTO runs (run_uuid, {names}) SELECT ?, {names} FROM runs WHERE run_uuid = ?"
        connection.execute(copy, (twin, ids["tanh"]))
    try:
        with pytest.raises(InputError, match="several ids begin with this"):
            listing.show([ids["tanh"][:20]], option)
    finally:
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM runs WHERE run_uuid = ?", (twin,))


# --- compare -----------------------------------------------------------------------------------------------------


def test_two_cells_are_compared_by_the_seeds_they_share(option, ids):
    text = comparing.compare([ids["tanh"][:8], ids["relu"][:8]], option)
    table = results.restarts(option)
    a, b = (table[table["run_id"] == ids[name]].set_index("seed") for name in ("tanh", "relu"))
    shared = a.index.intersection(b.index)
    assert shared.tolist() == [8, 9, 10, 11]
    scores = [name for name in a.columns if name.split("/")[0] in ("train", "validation", "test")]
    tests = [
        paired_difference(a.loc[shared, name], b.loc[shared, name], "lower" if "loss" in name else "higher")
        for name in scores
    ]
    corrected = holm([test.p_value for test in tests])
    for name, test, p in zip(scores, tests, corrected, strict=True):
        (line,) = (line for line in text.splitlines() if line.startswith(name))
        better = probability_of_improvement(
            a.loc[shared, name], b.loc[shared, name], "lower" if "loss" in name else "higher"
        )
        for number in (
            f"{better.estimate:.2f}",
            f"{test.difference.estimate:.4g}",
            f"{test.difference.low:.4g} to",
            f"{p:.2g}",
        ):
            assert number in line
    assert "n = 4 shared seeds, of which 0 of A and 1 of B diverged" in text
    assert "holds for the split" in text
    for line in ("activation     tanh            relu", "seed           7               8"):
        assert line.split() in [line.split() for line in text.splitlines()]
    assert "epochs" not in text
    text = comparing.compare([ids["tanh"], ids["relu"], "metric=test/loss"], option)
    (alone,) = (line for line in text.splitlines() if "test/" in line)
    assert f"{tests[scores.index('test/loss')].p_value:.2g}" in alone


def test_cells_of_different_data_are_compared_with_a_warning(option, ids):
    assert "The data differ too" in comparing.compare([ids["tanh"], ids["single"]], option)
    same = comparing.compare([ids["tanh"], ids["tanh"]], option)
    assert "configuration: the same" in same


def test_two_restarts_can_be_compared(option, ids):
    (one,), (two,) = (
        [run for run in find(option, "restart", parent=ids[name]) if run.params["seed"] == "9"]
        for name in ("tanh", "relu")
    )
    text = comparing.compare([one.run_id, two.run_id], option)
    assert "n = 1 shared seed" in text


def test_what_cannot_be_compared_is_refused(option, ids):
    for words, message in (
        ([ids["tanh"]], "compare: needs the ids of 2 runs"),
        ([ids["tanh"], ids["summary"]], "run_id=.*: is of level summary"),
        ([ids["tanh"], ids["relu"], "metric=loss"], "metric=loss: not one of"),
        ([ids["tanh"], ids["failed"]], "has no artifact restarts.parquet"),
    ):
        with pytest.raises(InputError, match=message):
            comparing.compare(words, option)


# --- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_everything_is_exported_as_one_row_per_restart(option, ids, ending, tmp_path):
    path = tmp_path / f"all{ending}"
    said = exporting.export([str(path)], option)
    assert said.startswith(f"{path}: 11 restarts of 3 cells")
    table = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
    assert len(table) == 11
    assert table["sweep"].tolist() == ["one"] * 10 + ["two"]
    assert table["seed"].tolist() == [7, 8, 9, 10, 11, 8, 9, 10, 11, 12, 9]
    assert table["outcome"].tolist().count("diverged") == 1
    frame = results.restarts(option)
    np.testing.assert_allclose(table["test/loss"], frame["test/loss"], rtol=1e-12)
    for _, row in table.iterrows():
        own = row["restart_run_id"] if isinstance(row["restart_run_id"], str) else row["run_id"]
        assert get(option, own).params["seed"] == str(row["seed"])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_export_is_narrowed_by_words_and_goes_to_a_pipe_as_csv(option, ids):
    table = pd.read_csv(io.StringIO(exporting.export(["activation=relu"], option)))
    assert table["run_id"].tolist() == [ids["relu"]] * 5


def test_an_export_to_a_dash_is_the_csv_itself(option):
    assert exporting.export(["-", "activation=relu"], option) == exporting.export(["activation=relu"], option)


@pytest.mark.parametrize("words", [["sweep=nonsense"], ["-", "data=iris"]])
def test_an_export_of_nothing_is_refused_and_writes_no_file(option, words, tmp_path):
    for more in ([], [str(tmp_path / "all.csv")]):
        with pytest.raises(InputError, match=r"^export .*: no finished cell matches"):
            exporting.export([*words, *more] if "-" not in words else words, option)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_written_is_refused_and_leaves_nothing(option, tmp_path):
    for words, message in (
        ([str(tmp_path / "all.xlsx")], "ends in .csv or .parquet"),
        ([str(tmp_path / "none" / "all.csv")], "cannot be written"),
        (["a.csv", "b.csv"], "export writes one file"),
        (["~nobody-here/a.csv"], "home directory"),
        (["limit=3"], "unknown key"),
        (["status=failed"], "status=FAILED: only finished cells can be exported"),
    ):
        with pytest.raises(InputError, match=message):
            exporting.export(words, option)
    (tmp_path / "all.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        exporting.export([str(tmp_path / "all.csv")], option)
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]


# --- delete and restore ------------------------------------------------------------------------------------------


def test_a_deletion_is_only_told_until_yes_is_said(option, ids):
    for text in (deleting.delete(["sweep=one"], option), deleting.delete(["sweep=one"], option, yes=False)):
        assert "would delete 3 runs with 10 nested restarts" in text
        assert {line[:8] for line in listed(text)} == {ids[name][:8] for name in ("tanh", "relu", "summary")}
        assert not find(option, "cell", deleted=True)
    assert len(find(option)) == 3


def test_deleted_runs_no_longer_count_and_come_back(option, ids):
    text = deleting.delete(["sweep=one"], option, yes=True)
    assert "deleted 3 runs with 10 nested restarts" in text
    back = next(line for line in text.splitlines() if "restore" in line)
    assert all(ids[name][:8] in back for name in ("tanh", "relu", "summary"))
    assert back.endswith(f" tracking.uri={option.numbers['uri']}")
    assert [run.run_id for run in find(option)] == [ids["single"]]
    assert not find(option, "restart")
    assert set(results.restarts(option)["run_id"]) == {ids["single"]}
    text = listing.list_runs(["deleted"], option)
    assert [line[:8] for line in listed(text)] == [ids["relu"][:8], ids["tanh"][:8]]
    assert ", deleted" in listing.show([ids["relu"]], option)
    with pytest.raises(InputError, match="is already deleted"):
        deleting.delete([ids["relu"]], option)
    assert deleting.restore([ids["relu"][:8]], option) == "restored 1 run with 5 nested restarts"
    assert len(find(option, "restart")) == 5
    assert deleting.restore(["sweep=one"], option) == "restored 2 runs with 5 nested restarts"
    assert len(find(option)) == 3
    with pytest.raises(InputError, match="is not deleted"):
        deleting.restore([ids["relu"]], option)


def test_what_still_runs_is_deleted_only_when_it_is_named(option, ids):
    client = tracking.store.open_store(option).client
    client.update_run(ids["relu"], "RUNNING")
    try:
        assert ids["relu"][:8] not in deleting.delete(["sweep=one"], option)
        assert ids["relu"][:8] in deleting.delete([ids["relu"]], option)
        assert ids["relu"][:8] in deleting.delete(["status=running"], option)
    finally:
        client.update_run(ids["relu"], "FINISHED")


def test_a_cell_that_another_sweep_counts_too_stays_with_it(option, ids):
    client = tracking.store.open_store(option).client
    for sweep in ("one", "later"):
        client.set_tag(ids["tanh"], f"sweep/{sweep}", "0 tanh")
    try:
        text = deleting.delete(["sweep=one"], option)
        assert "kept 1 cell that other sweeps share; delete them by id" in text
        rows = listing.list_runs(["sweeps"], option).splitlines()
        assert [row.split()[3] for row in rows if row.startswith(("one", "later"))] == ["2", "1"]
        assert {line[:8] for line in listed(text)} == {ids[name][:8] for name in ("relu", "summary")}
        assert ids["tanh"][:8] in deleting.delete([ids["tanh"]], option)
    finally:
        for sweep in ("one", "later"):
            client.delete_tag(ids["tanh"], f"sweep/{sweep}")


@pytest.mark.parametrize("words", [[], ["--yes"], ["limit=1"], ["--force", "sweep=one"], [""], ["="]])
def test_a_deletion_of_nothing_in_particular_is_refused(option, words):
    with pytest.raises(InputError):
        deleting.delete(words, option, yes=True)
    assert len(find(option)) == 3


# --- the command line --------------------------------------------------------------------------------------------


def test_the_commands_take_a_store_and_say_bad_words_in_one_line(option, ids, capsys):
    store = [f"tracking.uri={option.numbers['uri']}", "tracking.experiment=tests"]
    assert cli.main(["list", "sweep=two", *store]) == 0
    assert ids["single"][:8] in capsys.readouterr().out
    for words in (["list", "x"], ["show"], ["compare", "a"], ["export", "a.txt"], ["delete"], ["restore"]):
        assert cli.main([*words, *store]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_store_that_is_not_there_is_not_made(tmp_path, capsys):
    for command in ("list", "export", "show 0123", "delete sweep=last --yes", "compare 0123 4567"):
        assert cli.main([*command.split(), f"tracking.uri={tmp_path / 'no.db'}"]) == 2
        assert "there is no store yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(option, ids, columns, monkeypatch):
    monkeypatch.setattr(output, "width", lambda: columns)
    texts = [
        listing.list_runs([], option),
        listing.list_runs(["sweeps"], option),
        comparing.compare([ids["tanh"], ids["relu"]], option).split("\nn = ")[0],
        listing.show([ids["relu"]], option).split("\n\n")[2],
    ]
    for text in texts:
        lines = [line for line in text.splitlines() if "sqlite:" not in line]
        assert max(map(len, lines)) <= max(columns, 75)
    assert columns < 80 or "95 % interval" in texts[2]


def test_a_table_is_whole_and_plain_where_there_is_no_terminal_and_has_no_colour_where_none_is_wanted(monkeypatch):
    rows = [{"name": "x" * 300, "n": "1"}]
    assert output.table(rows, ("name",), ("~name",)) == [f"name{' ' * 296}  n", f"{'x' * 300}  1"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    header, row = output.table(rows, ("name",), ("~name",))
    assert len(row) == 40
    assert not re.search(r"\x1b\[(?!1m|0m)", header + row)  # bold is no colour
