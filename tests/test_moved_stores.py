"""Stores that were moved or copied with their artifacts, and stores that may only be read."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import urllib.request
from pathlib import Path

import pytest
from shared import cell, keep, trained

from descentlab import tracking
from descentlab.cli import exporting, listing
from descentlab.tracking import results, sqlite_file
from descentlab.values import InputError, Option


@pytest.fixture
def option(store):
    return store


def folder_of(option):
    return Path(option.numbers["uri"].removeprefix("sqlite:///")).parent


def at(folder):
    return Option("local", {"uri": str(folder / "mlflow.db"), "experiment": "tests", "children": "auto"})


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_store_that_was_moved_or_copied_with_its_artifacts_is_read_and_written_there(option, tmp_path, capsys, how):
    config = cell()
    dataset, training = trained(config)
    run_id = keep(option, config, training, dataset)
    before, there = folder_of(option), tmp_path / "an archive" / "of 2026"
    there.parent.mkdir()
    shutil.move(before, there) if how == "moved" else shutil.copytree(before, there)
    untouched = files(before) if how == "copied" else {}
    run = tracking.get(at(there), run_id)
    assert capsys.readouterr().err.count(f"the store in {there} was in {before} before") == 1
    assert run.artifact("curves.parquet").is_relative_to(there)
    assert "curves.parquet" in listing.show([run_id], at(there))
    assert tracking.replay(run_id, at(there)).same_bits
    assert len(results.restarts(at(there))) == 3
    new = keep(at(there), cell(seed=50), trained(cell(seed=50))[1])
    assert tracking.get(at(there), new).artifact("final.npz").is_relative_to(there)
    assert capsys.readouterr().err == ""
    assert {path: path.read_bytes() for path in untouched} == untouched


def test_a_store_of_an_earlier_mlflow_without_logged_models_follows_its_artifacts(option, tmp_path):
    run_id = keep(option, cell(restarts=1))
    shutil.move(folder_of(option), tmp_path / "moved")
    with contextlib.closing(sqlite3.connect(tmp_path / "moved" / "mlflow.db")) as connection:
        connection.execute("ALTER TABLE logged_models RENAME TO not_yet_there")
        sqlite_file.usable(tmp_path / "moved" / "mlflow.db", write=True)
        (uri,) = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
    assert uri.startswith((tmp_path / "moved").as_uri())


def test_a_store_beside_a_link_to_its_folder_was_not_moved(option, tmp_path, capsys):
    run_id = keep(option, cell(restarts=1))
    (tmp_path / "link").symlink_to(folder_of(option))
    run = tracking.get(at(tmp_path / "link"), run_id)
    assert run.artifact("curves.parquet").is_relative_to(folder_of(option))
    assert capsys.readouterr().err == ""


def test_artifacts_that_stayed_where_they_were_are_read_there(option, tmp_path, capsys):
    run_id = keep(option, cell(restarts=1))
    (tmp_path / "elsewhere" / "mlartifacts").mkdir(parents=True)
    shutil.copy(folder_of(option) / "mlflow.db", tmp_path / "elsewhere")
    assert tracking.get(at(tmp_path / "elsewhere"), run_id).artifact("final.npz").is_relative_to(folder_of(option))


# --- stores that may only be read ------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path):
    """A folder on a file system of its own, and what makes that read-only."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def archived(option, folder):
    """A copy of a store that no process has open."""
    shutil.copytree(folder_of(option), folder, ignore=shutil.ignore_patterns("*-wal", "*-shm", "*.lock"))


def assert_can_be_read(option, run_id, tmp_path):
    assert run_id[:8] in listing.list_runs([], option)
    assert "curves.parquet" in listing.show([run_id], option)
    assert len(results.curves(option, metrics=["train/loss"])) == 15
    assert tracking.replay(run_id, option).same_bits
    exporting.export([str(tmp_path / "all.csv")], option)
    with pytest.raises(
        InputError, match=r"^tracking.uri=sqlite:[^\n]*: may be read but not written; name another store"
    ):
        tracking.open_tracker(option)


def test_a_store_on_a_read_only_mount_can_be_read(option, mounted, tmp_path):
    run_id = keep(option, cell())
    folder, lock = mounted
    archived(option, folder / "store")
    lock()
    assert_can_be_read(at(folder / "store"), run_id, tmp_path)


@pytest.mark.slow
def test_the_ui_shows_a_store_on_a_read_only_mount(option, mounted):
    run_id = keep(option, cell(restarts=1))
    folder, lock = mounted
    archived(option, folder / "store")
    lock()
    with tracking.ui(at(folder / "store")) as base:
        address = f"{base}/ajax-api/2.0/mlflow/runs/get?run_id={run_id}"
        assert run_id in urllib.request.urlopen(address, timeout=60).read().decode()


@pytest.fixture
def another_users(monkeypatch):
    """Make a folder one that this user may not write in; the superuser may write everywhere."""

    def make(folder):
        whole = os.access
        inside = lambda path: Path(path) == folder or folder in Path(path).parents  # noqa: E731
        monkeypatch.setattr(os, "access", lambda path, mode: False if inside(path) else whole(path, mode))

    return make


def test_another_users_store_is_read_while_its_owner_writes(option, another_users, tmp_path):
    run_id = keep(option, cell())
    path = folder_of(option) / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as owner:
        owner.execute("UPDATE experiments SET name = name")
        owner.commit()  # lies in the log beside the file
        assert path.with_name("mlflow.db-wal").stat().st_size
        another_users(folder_of(option))
        before = files(folder_of(option))
        assert_can_be_read(option, run_id, tmp_path)
        assert files(folder_of(option)) == before


def test_the_log_that_a_killed_process_left_beside_a_store_is_read_too(option, mounted):
    run_id = keep(option, cell(restarts=1))
    path, (copy, lock) = folder_of(option) / "mlflow.db", mounted
    with contextlib.closing(sqlite3.connect(path)) as owner:
        owner.execute("UPDATE runs SET name = 'renamed' WHERE run_uuid = ?", (run_id,))
        owner.commit()
        shutil.copy(path, copy)
        shutil.copy(path.with_name("mlflow.db-wal"), copy)
    lock()
    assert tracking.get(at(copy), run_id).name == "renamed"
