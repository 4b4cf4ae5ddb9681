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
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from descentlab import cli, tracking
from descentlab.tracking import writer
from descentlab.values import Option

WRITING = "while the rows of a cell and of its restarts were written"
CELLS = ["data=xor", "network.hidden=2", "descent=batch", "restarts=3", "epochs=2000", "activation=tanh,relu,sigmoid"]


def main(words, log, two):
    """What a process of the tests does: one command, its output in a file; with two, a second process writes."""
    if two:
        start = writer.CellWriter._start
        writer.SECOND_PROCESS_WORK = 1
        writer.CellWriter._start = lambda writer: start(writer) or writer._ready.wait(60)
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
        ["mlflow", "matplotlib.figure", "pandas", "descentlab.sweeps.running", "test_faults"]
    )
    started = []

    def run(*words, log=os.devnull, two=False):
        process = context.Process(target=main, args=(list(words), str(log), two))
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
        return WRITING
    if running:
        return "while a cell was trained, or its files were made"
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
        whole, two = seconds, rounds % 4 == 1
        if rounds % 3:  # a store that is there already
            shutil.copy(empty_store, folder / "mlflow.db")
            whole = seconds / 2
        rounds += 1
        for _ in range(8):
            process = start(*sweep(local(folder)), log=folder / "log", two=two)
            process.join(draw.uniform(0, whole))
            if draw.random() < 0.4:  # few moments fall into the short time that writing rows takes: aim at it
                while process.is_alive() and phase(folder) != WRITING:
                    process.join(0.002)
                process.join(draw.uniform(0, 0.1))
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (folder / "log").read_text()
            struck[phase(folder)] += 1
        process = start(*sweep(local(folder)), log=folder / "log", two=two)
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


@pytest.mark.fault
def test_eight_processes_that_start_a_sweep_at_once_on_a_fresh_store_train_every_cell_once(
    start, undisturbed, tmp_path, capsys
):
    logs = [tmp_path / f"log{number}" for number in range(8)]
    processes = [start(*sweep(local(tmp_path)), log=log) for log in logs]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8, [log.read_text() for log in logs]
    assert standing(local(tmp_path)) == undisturbed[0]
    assert len(tracking.find(local(tmp_path), status=None)) == 3
    assert len(tracking.find(local(tmp_path), "sweep", status=None)) == 1
    with capsys.disabled():
        print("\neight processes at once on a fresh store: one sweep, every cell trained once")


@pytest.mark.slow
def test_two_people_who_start_the_same_sweep_share_it(start, undisturbed, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    logs = [tmp_path / f"log{number}" for number in range(2)]
    processes = [start(*sweep(local(tmp_path)), log=log) for log in logs]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], [log.read_text() for log in logs]
    assert standing(local(tmp_path)) == undisturbed[0]
    assert len(tracking.find(local(tmp_path), status=None)) == 3
    assert all(log.read_text().count("test/accuracy") == 3 for log in logs)


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_told_to_end_says_so_and_goes_on(start, undisturbed, empty_store, tmp_path, number):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    draw = random.Random(3)
    stopped = 0
    for _ in range(6):
        process = start(*sweep(local(tmp_path)), log=tmp_path / "log")
        process.join(draw.uniform(0.3, undisturbed[1] / 2))
        if process.is_alive():
            os.kill(process.pid, number)
        process.join()
        assert process.exitcode in (0, 128 + number), (tmp_path / "log").read_text()
        stopped += process.exitcode != 0
        assert not left_open(local(tmp_path))
    assert stopped
    assert "descentlab: stopped" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    process = start(*sweep(local(tmp_path)), log=tmp_path / "log")
    process.join()
    assert standing(local(tmp_path)) == undisturbed[0]


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of few megabytes in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_a_sweep_in_one_line_and_it_goes_on_when_there_is_room(
    start, undisturbed, empty_store, small_disk, tmp_path
):
    shutil.copy(empty_store, small_disk / "mlflow.db")
    option = local(small_disk)
    free = shutil.disk_usage(small_disk).free
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(max(0, free - 1_500_000)))
    process = start(*sweep(option), log=tmp_path / "log")
    process.join()
    said = [line for line in (tmp_path / "log").read_text().splitlines() if "error" in line or "full" in line]
    assert process.exitcode in (1, 2), (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert any("disk is full" in line or "No space left" in line for line in said), (tmp_path / "log").read_text()
    with contextlib.closing(sqlite3.connect(small_disk / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (small_disk / "ballast").unlink()
    process = start(*sweep(option), log=tmp_path / "log")
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert standing(option) == undisturbed[0]
    assert not left_open(option)


# --- a server --------------------------------------------------------------------------------------------------------


class Server:
    """An MLflow server that can be killed and started again at the same address."""

    def __init__(self, backend, folder, port):
        self.backend, self.folder, self.port = backend, folder, port
        self.option = Option("server", {"uri": f"http://127.0.0.1:{port}", "experiment": "tests", "retry_seconds": 4})
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment = {**os.environ, **quiet, "MLFLOW_BACKEND_STORE_URI": self.backend}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(option):
    """The words of the sweep on a server."""
    return ["tracking=server", *sweep(option)]


@pytest.mark.fault
def test_a_sweep_whose_server_dies_ends_with_what_to_do_and_goes_on(start, undisturbed, empty_store, tmp_path, capsys):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    server = Server(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, free_port())
    server.start()
    try:
        process = start(*served(server.option), log=tmp_path / "log")
        while not tracking.find(server.option, status=None):
            time.sleep(0.2)
        server.kill()
        process.join()
        said = (tmp_path / "log").read_text()
        assert process.exitcode == 2, said
        assert "does not answer; waiting for up to 4 s more" in said
        assert "has not answered for 4 s; start the server again and rerun the command to continue" in said
        assert "Traceback" not in said
        server.start()
        process = start(*served(server.option), log=tmp_path / "log")
        while not tracking.find(server.option, status="FINISHED"):
            time.sleep(0.1)
        server.kill()  # for a moment only
        time.sleep(1)
        server.start()
        process.join()
        said = (tmp_path / "log").read_text()
        if process.exitcode:
            process = start(*served(server.option), log=tmp_path / "log")
            process.join()
        assert process.exitcode == 0, said
        assert standing(server.option) == undisturbed[0]
        assert not left_open(server.option)
    finally:
        server.kill()
    with capsys.disabled():
        print("\na server that dies: waited for, ended with status 2 and what to do, gone on with to the same bits")


@pytest.mark.fault
def test_sweeps_on_a_server_over_postgresql_that_are_killed_twenty_times_end_as_one_that_was_not(
    start, undisturbed, server_uri, tmp_path, capsys
):
    draw, kills, rounds = random.Random(4), 0, 0
    while kills < 20:
        option = Option("server", {"uri": server_uri, "experiment": f"faults-{rounds}"})
        rounds += 1
        for _ in range(8):
            process = start(*served(option), log=tmp_path / "log")
            process.join(draw.uniform(0.2, undisturbed[1]))
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
            kills += 1
        process = start(*served(option), log=tmp_path / "log")
        process.join()
        assert process.exitcode == 0, (tmp_path / "log").read_text()
        assert standing(option) == undisturbed[0]
        assert not left_open(option)
    with capsys.disabled():
        print(f"\nserver over PostgreSQL: {kills} kills over {rounds} sweeps, all of them whole in the end")
