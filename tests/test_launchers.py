"""Cells trained by other processes: the same bits, BLAS held, one death is one loss, none left when stopped."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from shared import assert_same_run, assert_same_training, cell, sweep

from descentlab import cli, tracking
from descentlab.config import composing
from descentlab.config.options import LAUNCHERS
from descentlab.config.resolving import resolve
from descentlab.sweeps import launchers
from descentlab.sweeps import running as sweeps
from descentlab.tracking import find
from descentlab.values import InputError, Option

SRC = Path(launchers.__file__).parents[2]


EVERYWHERE = ["local", "cluster", "address", "slurm"]  # a Ray cluster of the sweep's own, and one that was there


def needs(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def _a_token_of_the_tests_own():
    """Ray's clusters ask for a token: here one that nobody's home keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster that was started by someone else."""
    needs("ray")
    folder = tempfile.mkdtemp(prefix="ray-")  # a socket's path may have 107 characters
    port = free_port()
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    ray += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    ray += [f"--dashboard-agent-listen-port={free_port()}"]
    given = {"PYTHONPATH": str(SRC), **os.environ}
    with (Path(folder) / "out").open("wb") as out:
        head = subprocess.Popen(ray, stdout=out, stderr=subprocess.STDOUT, env=given, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while b"Ray runtime started" not in (Path(folder) / "out").read_bytes():
            assert head.poll() is None, (Path(folder) / "out").read_text()
            assert time.monotonic() < deadline, "no Ray cluster after 90 s"
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=EVERYWHERE)
def preset(request, tmp_path):
    """Every launcher with two workers of one core."""
    name, numbers = request.param, {}
    if name == "address":
        name, numbers = "cluster", {"address": request.getfixturevalue("cluster")}
    elif name == "slurm":
        numbers = {"cluster": "local", "folder": str(tmp_path / "jobs")}
    needs(launchers.EXTRAS[name][0])
    return resolved({"name": name, "workers": 2, **numbers})


def resolved(launcher):
    return resolve(cell().as_dict() | {"launcher": launcher}).launcher


# --- configuration ---------------------------------------------------------------------------------------------------


def test_presets_are_files_with_the_numbers_of_their_launcher_and_alter_no_hash():
    folder = composing.conf_folder() / "hydra" / "launcher"
    assert {path.stem for path in folder.glob("*.yaml")} == set(LAUNCHERS) - {"none"}
    (plain,) = composing.compose([], sweep=False)
    assert plain.launcher == Option("none")
    for name in set(LAUNCHERS) - {"none"}:
        (given,) = composing.compose([f"hydra/launcher={name}", "hydra.launcher.cores=3"], sweep=False)
        defaults = {key: default for key, (_, default) in LAUNCHERS[name].items()}
        assert given.launcher == Option(name, {**defaults, "cores": 3})
        assert set(yaml.safe_load((folder / f"{name}.yaml").read_text())) == {"name", *defaults}
        assert (given.hash, given.name) == (plain.hash, plain.name)
        assert resolve(given.as_dict()) == given
        assert "launcher" not in tracking.params.recorded(given)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["hydra/launcher=lokal"], "hydra/launcher=lokal: not one of cluster, local, slurm (did you mean local?)"),
        (["hydra/launcher=local", "hydra.launcher.worker=2"], "hydra.launcher.worker=2: unknown key"),
        (["hydra/launcher=local", "hydra.launcher.workers=0"], "hydra.launcher.workers=0: must be a whole number"),
        (
            ["hydra/launcher=local", "hydra.launcher.minutes=9"],
            "hydra.launcher.minutes=9: belongs to hydra/launcher=sl",
        ),
        (["hydra.launcher.workers=2"], "hydra.launcher.workers=2: belongs to"),
        (["hydra.job.name=x"], "hydra.job.name=x: unknown key"),
        (["-m", "hydra/launcher=local,cluster"], "hydra/launcher=local: must be the same in all cells of a sweep"),
    ],
)
def test_a_launcher_is_checked_as_every_option(words, named, capsys):
    assert cli.main([*words, "data=xor", "epochs=1", "tracking=none"]) == 2
    line = capsys.readouterr().err
    assert named in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(("name", "extra"), [("cluster", "descentlab[ray]"), ("slurm", "descentlab[slurm]")])
def test_a_missing_extra_is_named_in_one_line_before_anything_trains(name, extra, capsys, monkeypatch):
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda module: None)
    assert cli.main([f"hydra/launcher={name}", "data=xor", "epochs=1", "tracking=none"]) == 2
    shown = capsys.readouterr()
    assert extra in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")


def test_slurm_without_a_queue_is_refused(monkeypatch):
    needs("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"hydra\.launcher\.cluster=slurm: there is no srun"):
        launchers.check(resolved({"name": "slurm"}))


def test_a_cluster_that_is_not_there_is_named_in_one_line():
    needs("ray")
    with (
        pytest.raises(InputError, match=r"hydra\.launcher\.address=127\.0\.0\.1:1x: no Ray cluster can be used there"),
        launchers.opened(resolved({"name": "cluster", "address": "127.0.0.1:1x"})),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_a_cluster_of_the_sweeps_own_listens_on_loopback_only():
    needs("ray")
    code = """if True:
        from pathlib import Path
        from descentlab.sweeps import launchers
        from descentlab.values import Option
        numbers = {"address": "local", "cores": 1, "workers": 1}
        def listening():
            text = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
            lines = [line.split() for line in text.splitlines()]
            return {(line[1], line[9]) for line in lines if line[3] == "0A"}
        before = listening()
        with launchers.opened(Option("cluster", numbers)) as workers:
            assert dict(workers.results([int])) == {0: 0}
            print(*(address for address, _ in listening() - before))
    """
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    addresses = {address.partition(":")[0] for address in answer.stdout.split()}
    assert addresses, answer.stderr
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["local", "address", "slurm"], indirect=True)
def test_a_worker_that_dies_loses_its_own_work_and_blas_is_held_to_the_cores(preset):
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)

    def fails():
        raise ZeroDivisionError("by nothing")

    def threads():
        import scipy.linalg  # noqa: F401  # brings a BLAS of its own
        from threadpoolctl import threadpool_info

        return [pool["num_threads"] for pool in threadpool_info()], os.environ["OPENBLAS_NUM_THREADS"]

    with launchers.opened(preset) as workers:
        found = dict(workers.results([dies, threads, fails, threads]))
    assert isinstance(found[0], launchers.WorkerLost)
    assert isinstance(found[2], ZeroDivisionError)
    for place in (1, 3):
        held, variable = found[place]
        assert set(held) == {1}
        assert variable == "1"


@pytest.fixture(scope="module")
def alone(empty_store, tmp_path_factory):
    """The lone process's trainings and runs."""
    path = tmp_path_factory.mktemp("alone") / "mlflow.db"
    shutil.copy(empty_store, path)
    option = Option("local", {"uri": f"sqlite:///{path}", "experiment": "tests", "children": "auto"})
    sweep_id, trainings = sweep(option, *CELLS)
    return trainings, find(option, sweep=sweep_id)


CELLS = [cell(restarts=2), cell(restarts=2, activation="relu"), cell(restarts=2, learning_rate=0.4)]


@pytest.mark.slow
def test_the_same_sweep_gives_the_same_bits_under_every_launcher(preset, store, alone):
    before, runs = alone
    cells = [replace(one, launcher=preset, tracking=store) for one in CELLS]
    sweep_id, trainings = sweep(store, *cells)
    for one, other in zip(trainings, before, strict=True):
        assert_same_training(one, other)
        assert one.recipe.network.layers == other.recipe.network.layers
    found = find(store, sweep=sweep_id, status=None)
    assert [run.tags["pid"] for run in found].count(str(os.getpid())) == 0
    for one, other in zip(found, runs, strict=True):
        assert one.name == other.name
        assert_same_run(one, other)
    again, _ = sweep(store, *cells)  # finds all without a worker
    assert again == sweep_id
    assert len(find(store, status=None)) == len(CELLS)


@pytest.mark.slow
def test_without_a_store_results_come_back_as_values(alone):
    none = Option("none")
    cells = [replace(one, launcher=resolved({"name": "local"}), tracking=none) for one in CELLS]
    for one, other in zip(sweep(none, *cells)[1], alone[0], strict=True):
        assert_same_training(one, other)


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_its_cell_and_the_sweep_goes_on_from_there(store, tmp_path, capsys):
    marker = tmp_path / "killed"

    def deadly(cell, dataset, training):
        import pandas as pd

        if cell.activation.name == "relu" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"outcome": ["lives"] * len(training.seeds)})

    cells = [replace(one, launcher=resolved({"name": "local"}), tracking=store) for one in CELLS]
    with pytest.raises(sweeps.CellsFailed, match="1 of 3 cells failed"):
        sweep(store, *cells, judge=deadly)
    assert "its worker ended without a result" in capsys.readouterr().err
    (killed,) = find(store, status="KILLED")
    assert killed.name.startswith("relu")
    assert "is gone" in killed.tags["reason"]
    kept = {run.run_id for run in find(store)}
    assert len(kept) == 2
    sweep(store, *cells, judge=deadly)
    assert len(find(store)) == 3
    assert kept < {run.run_id for run in find(store)}


@pytest.mark.slow
def test_a_sweep_that_is_stopped_ends_its_workers_and_keeps_what_had_finished(store):
    words = ["-m", "epochs=10,10000000,20000000", "data=xor", "network.hidden=2", "descent=batch", "resume=true"]
    words += ["hydra/launcher=local", f"tracking.uri={store.numbers['uri']}", "tracking.experiment=tests"]
    given = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-m", "descentlab", *words]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=given, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (len(find(store)) == 1 and len(find(store, status="RUNNING")) == 2):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.3)
    workers = [int(run.tags["pid"]) for run in find(store, status="RUNNING")]
    os.killpg(parent.pid, signal.SIGINT)  # all of them, as a terminal's Ctrl-C does
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "finished cells are stored" in said
    assert "Traceback" not in said
    assert sorted(run.status for run in find(store, status=None)) == ["FINISHED", "KILLED", "KILLED"]
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
