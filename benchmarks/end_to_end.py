"""The grid of the main job from start to end, tracked, against the conventional way; and what each step between gives.

    conventional    one Hydra job per seed, a PyTorch loop, mlflow.log_metrics after every epoch (conventional.py)
    own trainer     the same with the project's trainer in PyTorch's place, one seed at a time
    batched logging no Hydra job per seed: the project's sweep and tracker, every seed a cell of its own
    stacked         the project as it is: the seeds of a cell in one stack

All do the same configurations, log the same metrics at the same epochs and keep weights; all use two cores, the first
three as two processes, each with half of the seeds. They are timed on a few seeds of every cell, and what follows
a process's start is scaled to all seeds; the last is timed whole. The conventional way's losses after an epoch must be
the project's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).resolve().parent
RESTARTS, EPOCHS = 30, 20
CELLS = ["loss=mean_squared_error,categorical_cross_entropy", "descent=batch,mini_batch,stochastic"]
CELLS += ["activation=sigmoid,tanh,relu,leaky_relu"]
QUICK = ["loss=mean_squared_error", "descent=mini_batch", "activation=relu"]
TOLERANCE = 1e-9  # of a loss, relative


def arms(quick: bool) -> list[list[str]]:
    """The cells of the grid, each with its learning rate."""
    from descentlab.config import composing

    found = composing.listed_arms("grid")
    return found[6:7] if quick else found


def sweep(store: str, seeds: Sequence[int], restarts: int, epochs: int, quick: bool) -> None:
    """The project's way, in a process of its own: a cell per arm and per entry of `seeds`, stacked over restarts."""
    from descentlab.config import composing
    from descentlab.config.cells import cells as made
    from descentlab.sweeps import running as sweeps
    from descentlab.tracking import open_tracker

    words = [f"tracking.uri={store}", f"epochs={epochs}", f"restarts={restarts}", f"seed={','.join(map(str, seeds))}"]
    words.append("data.split_seed=0")
    cells = composing.compose(words, "grid", arms(quick))
    with open_tracker(cells[0].tracking) as tracker:
        _mark("job")
        sweeps.run(made(cells), tracker, progress=False, workers=None if len(seeds) == 1 and restarts > 1 else 1)
    _mark("end")


def _mark(what: str) -> None:
    used = sum(os.times()[:4])  # with that of the process that wrote, once it has ended
    print(f"{what} {time.perf_counter():.6f} {used:.6f}", file=sys.stderr, flush=True)


def _seconds(commands: Sequence[Sequence[str]], environment: dict[str, str], scale: float) -> dict[str, float]:
    """Run commands side by side.

    Returns:
        Seconds of the clock (`wall`), and what they (`seconds`) and the processor's (`processor`) would be if each
        command had `scale` times the jobs: starting up happens once.
    """
    began, before = time.perf_counter(), os.times()
    running = [
        subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                         text=True)
        for words in commands
    ]  # fmt: skip
    work = processor = 0.0
    for process in running:
        _, errors = process.communicate()
        marks = [line.split() for line in errors.splitlines() if line.startswith(("job ", "end "))]
        if process.returncode or not marks or marks[-1][0] != "end":
            raise SystemExit(f"{' '.join(process.args)}: failed\n{errors[-2000:]}")
        times = [[float(number) for number in mark[1:]] for mark in marks]  # clock, processor
        first = 1 if len(times) > 2 else 0  # the first job of several also opens what all use: taken as the second
        second = times[first + 1] if first else times[first]
        clock, used = (times[-1][k] - 2 * times[first][k] + second[k] for k in (0, 1))
        work = max(work, clock)
        processor += times[-1][1] + used * (scale - 1)
    wall, after = time.perf_counter() - began, os.times()
    if scale == 1:  # nothing to be scaled, so that what its own processes used can be counted in
        processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": wall, "seconds": wall + work * (scale - 1), "processor": processor}


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of every way, scaled to all seeds; peers that cannot run are named in `skipped`."""
    import importlib.util

    restarts, epochs = (2, 2) if quick else (RESTARTS, EPOCHS)
    one = {name: "1" for name in machine.BLAS_THREADS}
    result: dict[str, Any] = {"restarts": restarts, "epochs": epochs, "cells": len(arms(quick))}
    result |= {"ways": {}, "skipped": {}}
    with tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
        processes = 1 if quick else 2
        seeds = [[str(process)] for process in range(processes)]
        scale = restarts / processes
        for way, trainer in (("conventional", "torch"), ("own trainer", "project")):
            if trainer == "torch" and importlib.util.find_spec("torch") is None:
                result["skipped"][way] = "torch is absent"
                continue
            store = f"sqlite:///{folder}/{trainer}.db"
            _make_store(store, "conventional")
            commands = [
                [sys.executable, str(HERE / "conventional.py"), "-m", *(QUICK if quick else CELLS), f"epochs={epochs}",
                 "network.hidden=[32]", f"seed={','.join(own)}", f"hydra.sweep.dir={folder}/{trainer}-{own[0]}"]
                for own in seeds
            ]  # fmt: skip
            environment = one | {"CONVENTIONAL_STORE": store, "CONVENTIONAL_TRAINER": trainer}
            result["ways"][way] = {"seeds": processes, **_seconds(commands, environment, scale)}
        me = [sys.executable, str(Path(__file__).resolve()), *(["--quick"] if quick else []), "--epochs", str(epochs)]
        store = f"{folder}/batched.db"
        _make_store(f"sqlite:///{store}", "descentlab")
        commands = [[*me, "--sweep", store, "--seeds", *own] for own in seeds]
        result["ways"]["batched logging"] = {"seeds": processes, **_seconds(commands, one, scale)}
        store = f"{folder}/stacked.db"
        whole = _seconds([[*me, "--sweep", store, "--restarts", str(restarts)]], {}, 1)
        result["ways"]["stacked"] = {"seeds": restarts, **whole}
        if "conventional" in result["ways"]:
            result["disagreement"] = _disagreement(f"sqlite:///{folder}/torch.db", store)
    if result.get("disagreement", 0.0) > TOLERANCE:
        raise SystemExit(f"losses of the two ways differ by {result['disagreement']:.2g} of themselves")
    return result


def _make_store(uri: str, experiment: str) -> None:
    """Tables and experiment, before processes would race to make them."""
    code = "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_experiment(sys.argv[2])"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    folder = Path(uri.removeprefix("sqlite:///")).parent  # where MLflow puts artifacts
    subprocess.run([sys.executable, "-c", code, uri, experiment], env=environment, check=True, capture_output=True,
                   cwd=folder)  # fmt: skip


def _disagreement(conventional: str, stacked: str) -> float:
    """The largest relative difference between training losses of the same configuration and seed after an epoch.

    Later they may part: at some of the chosen rates the last bit grows twentyfold in an epoch.
    """
    from mlflow import MlflowClient

    from descentlab.tracking import results
    from descentlab.values import Option

    client = MlflowClient(conventional)
    (experiment,) = client.search_experiments(filter_string="name = 'conventional'")
    key = ("loss", "descent", "activation", "seed")
    names = [name if name == "seed" else f"{name}.name" for name in key]
    theirs = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        history = client.get_metric_history(run.info.run_id, "train/loss")
        (loss,) = (metric.value for metric in history if metric.step == 1)
        theirs[tuple(run.data.params[name] for name in names)] = loss
    store = Option("local", {"uri": stacked, "experiment": "descentlab", "children": "auto"})
    ours = results.curves(store, metrics=["train/loss"])
    ours = ours[ours["epoch"] == 1]
    losses = {tuple(map(str, (row[name] for name in key))): row["value"] for _, row in ours.iterrows()}
    return max(abs(losses[name] - loss) / abs(losses[name]) for name, loss in theirs.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sweep", metavar="STORE")
    given = parser.parse_args()
    if given.sweep:
        sweep(given.sweep, given.seeds, given.restarts, given.epochs, given.quick)
    else:
        json.dump(measure(given.quick), sys.stdout)
