"""Sweeps in processes of their own, killed at moments drawn at random, and what stands in the store afterwards.

`make fault` runs the long form and prints how many kills fell where; the ordinary suite kills five times.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from descentlab.harness import cli, tracking
from descentlab.harness.config import Option

CELLS = ["data=xor", "network.hidden=2", "descent=batch", "restarts=3", "epochs=2000", "activation=tanh,relu,sigmoid"]


def main(words, log):
    """What a process of the tests does: one command, its output in a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
    with Path(log).open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        status = cli.main(words)
        sys.stdout.flush()
    os._exit(status)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a command in a process forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mlflow", "matplotlib.figure", "pandas", "descentlab.harness.sweeps", "test_faults"]
    )
    started = []

    def run(*words, log=os.devnull):
        process = context.Process(target=main, args=(list(words), str(log)))
        process.start()
        started.append(process)
        return process

    warm = run("--version")
    warm.join()
    yield run
    for process in started:
        process.kill()


def sweep(option, *more):
    return ["-m", *(f"tracking.{key}={value}" for key, value in option.numbers.items()), *CELLS, *more]


def local(folder):
    return Option("local", {"uri": str(folder / "mlflow.db"), "experiment": "tests"})


def standing(option):
    """Everything that counts in a store: key -> tables and metric histories of its one finished run."""
    found = {}
    store = tracking.store.open_store(option, create=False)
    for level in ("cell", "restart"):
        for run in tracking.find(option, level):
            key = (level, run.tags["config_hash"])
            assert key not in found, f"two finished runs of {key}"
            histories = {
                name: [(one.step, one.value) for one in store.client.get_metric_history(run.run_id, name)]
                for name in sorted(run.metrics)
            }
            tags = {name: run.tags.get(name) for name in ("outcome", "diverged", "diverged_epoch", "cell_hash")}
            tables = {}
            if level == "cell":
                for name in ("curves.parquet", "restarts.parquet"):
                    tables[name] = pd.read_parquet(run.artifact(name)).to_csv()
                for name in ("initial.npz", "final.npz"):
                    with np.load(run.artifact(name)) as arrays:
                        tables[name] = {one: arrays[one].tobytes() for one in arrays.files}
                tables["config"] = json.loads(run.artifact("config.json").read_text())
            found[key] = (run.name if level == "restart" else "", run.params, tags, histories, tables)
    return found


def left_open(option):
    return [run for level in ("cell", "restart", "sweep") for run in tracking.find(option, level, status="RUNNING")]


def phase(folder):
    """Where a killed process was, from what it left."""
    path = folder / "mlflow.db"
    if not path.is_file():
        return "while the store was made"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        runs = dict(connection.execute("SELECT run_uuid, status FROM runs"))
        levels = dict(connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'level'"))
        parents = dict(connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
        written = {run for (run,) in connection.execute("SELECT DISTINCT run_uuid FROM metrics")}
    running = [run for run, status in runs.items() if status == "RUNNING" and levels.get(run) == "cell"]
    if any(levels.get(run) == "sweep" for run, status in runs.items() if status == "RUNNING"):
        return "while the sweep was recorded"
    if any(run in written or run in parents.values() for run in running):
        return "while a cell was written"
    if running:
        return "while a cell was trained"
    return (
        "between cells, or at the start"
        if any(level == "cell" for level in levels.values())
        else "before the first cell"
    )


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """What stands after a sweep that nobody killed, and how long it took, the store's creation included."""
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    process = start(*sweep(local(folder)), log=folder / "log")
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()
    found = standing(local(folder))
    assert len(found) == 12
    return found, time.monotonic() - began


def kill_often(start, undisturbed, empty_store, tmp_path, kills, seed):
    """Kill sweeps until so many kills have struck, each sweep gone on with until it ends; kills by phase."""
    expected, seconds = undisturbed
    draw = random.Random(seed)
    struck: Counter[str] = Counter()
    rounds = 0
    while struck.total() < kills:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        whole = seconds
        if rounds % 3:  # a store that is there already
            shutil.copy(empty_store, folder / "mlflow.db")
            whole = seconds / 2
        rounds += 1
        for _ in range(8):
            process = start(*sweep(local(folder)), log=folder / "log")
            process.join(draw.uniform(0, whole))
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (folder / "log").read_text()
            struck[phase(folder)] += 1
        process = start(*sweep(local(folder)), log=folder / "log")
        process.join()
        assert process.exitcode == 0, (folder / "log").read_text()
        assert standing(local(folder)) == expected
        assert not left_open(local(folder))
    return struck, rounds


@pytest.mark.slow
def test_a_sweep_that_is_killed_five_times_ends_as_one_that_was_not(start, undisturbed, empty_store, tmp_path):
    kill_often(start, undisturbed, empty_store, tmp_path, 5, seed=1)


@pytest.mark.fault
def test_sweeps_that_are_killed_fifty_times_end_as_one_that_was_not(start, undisturbed, empty_store, tmp_path, capsys):
    struck, rounds = kill_often(start, undisturbed, empty_store, tmp_path, 50, seed=2)
    with capsys.disabled():
        print(f"\nsqlite: {struck.total()} kills over {rounds} sweeps, all of them whole in the end")
        print("\n".join(f"  {count:3} {where}" for where, count in struck.most_common()))
