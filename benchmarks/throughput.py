"""How many restarts a second a store takes in: sqlite, PostgreSQL and MLflow's server, by the number of writers.

    python benchmarks/throughput.py             the tables of docs/scale.md, and benchmarks/results/throughput.json
    python benchmarks/throughput.py --quick     a tenth of the restarts

A restart is what a sweep keeps of one: a nested run with its params and curves of 6 metrics at 20 epochs. *ours* keeps
a cell of them through the tracker, tables, weights and figures included; *plain loop* is what one would write with
MLflow's public client: a run, one log_batch of its params and curves, its end. Writers are processes of their own, each
with one cell of as many restarts however many there are, all into one experiment. Stores are fresh; the
PostgreSQL database is the empty one that DESCENTLAB_DATABASE names; it and the server are left out where none is named.
What tracking adds to training is measured on the grid of experiments/sweep.py, each of whose cells is written while the
next one trains.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from descentlab import tracking
from descentlab.config import composing
from descentlab.config.cells import Cell
from descentlab.config.cells import cells as made
from descentlab.tracking import params, results, servers
from descentlab.values import Option

POINTS, SCORES = 20, ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "test/loss",
                      "test/accuracy")  # fmt: skip
WRITERS = (1, 2, 4, 8)
OUTPUT = Path(__file__).parent / "results" / "throughput.json"


def prepared(restarts: int, seed: int = 0):
    """A configuration with a finished training of so many restarts; the curves are random, as costs do not care."""
    from descentlab.nn.trainer import train_recipe

    words = ["data=iris", "network.hidden=4", f"epochs={POINTS - 1}", "log_every=1", "diagnostics=none"]
    (cell,) = composing.compose([*words, f"restarts={restarts}", f"seed={seed}"], sweep=False)
    dataset = made([cell])[0].dataset
    return cell, dataset, train_recipe(Cell(cell, dataset).recipe, dataset.splits)


def plain_loop(uri: str, restarts: int, queue) -> None:
    """The same restarts as one would write them with the client alone, in a process of its own."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    cell, _, training = prepared(restarts)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("plain").experiment_id
    settings = [Param(key, value) for key, value in params.params(cell).items()]
    began = time.perf_counter()
    parent = client.create_run(experiment).info.run_id
    for row, seed in enumerate(training.seeds):
        tags = {"mlflow.parentRunId": parent, "level": "plain", "outcome": "finite"}
        run_id = client.create_run(experiment, tags=tags, run_name=f"s{seed}").info.run_id
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(training.curves[name][place, row]), now, int(epoch))
            for name in SCORES
            for place, epoch in enumerate(training.epochs)
        ]
        client.log_batch(run_id, metrics=metrics, params=settings)
        client.set_terminated(run_id)
    client.set_terminated(parent)
    queue.put(time.perf_counter() - began)


def ours(option: Option, cell, dataset, training) -> None:
    """The same restarts as a sweep keeps them."""
    with tracking.open_tracker(option) as tracker, tracker.cell(Cell(cell, dataset)) as run:
        run.finish(training)


def _writer(option: Option, restarts: int, place: int, start, done) -> None:
    first = prepared(2, seed=1000 * place + 999)
    cell, dataset, training = prepared(restarts, seed=1000 * place)
    with tracking.open_tracker(option) as tracker:
        with tracker.cell(Cell(*first[:2])) as run:  # imports, fonts and connections are no part of a rate
            run.finish(first[2])
        tracker.flush()
        start.wait()
        began = time.time()
        with tracker.cell(Cell(cell, dataset)) as run:
            run.finish(training)
        tracker.flush()
        done.put((began, time.time()))


def rate(option: Option, writers: int, restarts: int) -> float:
    """Restarts a second of so many writing processes together, each a cell of `restarts`."""
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(writers), context.Queue()
    processes = [
        context.Process(target=_writer, args=(option, restarts, place, start, done)) for place in range(writers)
    ]
    for process in processes:
        process.start()
    times = [done.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    return writers * restarts / (max(end for _, end in times) - min(began for began, _ in times))


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _apart(work, *arguments) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(*arguments, queue))
    process.start()
    seconds = queue.get(timeout=900)
    process.join()
    return seconds


def thousand(folder: Path, restarts: int, repeats: int) -> dict:
    """Seconds for a thousand restarts on sqlite, ours and plain alternating, the reading back, and bytes."""
    cell, dataset, training = prepared(restarts)
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "read": [], "bytes": []}
    for repeat in range(repeats):
        for name in ("plain", "ours") if repeat % 2 == 0 else ("ours", "plain"):
            place = folder / f"{name}-{repeat}"
            option = Option("local", {"uri": f"sqlite:///{place}/mlflow.db", "experiment": name, "children": "all"})
            tracking.store.open_store(option)
            empty = size_of(place)
            if name == "plain":
                seconds[name].append(_apart(plain_loop, option.numbers["uri"], restarts))
            else:
                began = time.perf_counter()
                ours(option, cell, dataset, training)
                seconds[name].append(time.perf_counter() - began)
                seconds["bytes"].append((size_of(place) - empty) / restarts)
                began = time.perf_counter()
                table = results.restarts(option)
                seconds["read"].append(time.perf_counter() - began)
                assert len(table) == restarts
    return {name: statistics.median(values) for name, values in seconds.items()}


def beside_training(folder: Path, repeats: int, quick: bool) -> dict:
    """Seconds of the main job's grid, untracked and tracked on sqlite by turns, and the median of their ratios."""
    import end_to_end

    from descentlab.sweeps import running as sweeps

    few = ["data.split_seed=0", *(["restarts=3", "epochs=1"] if quick else [f"restarts={end_to_end.RESTARTS}"])]
    seconds: dict[str, list[float]] = {"untracked": [], "tracked": []}
    for repeat in range(repeats + 1):  # the first one is for imports, data and workers that stay
        for name in ("untracked", "tracked") if repeat % 2 == 0 else ("tracked", "untracked"):
            uri = f"sqlite:///{folder}/grid-{repeat}/mlflow.db"
            words = ["tracking=none"] if name == "untracked" else [f"tracking.uri={uri}"]
            cells = composing.compose([*few, *words], "grid", end_to_end.arms(quick)[: None if repeat else 1])
            if name == "tracked":
                tracking.store.open_store(cells[0].tracking)
            began = time.perf_counter()
            with tracking.open_tracker(cells[0].tracking) as tracker:
                sweeps.run(made(cells), tracker, progress=False)
            seconds[name].append(time.perf_counter() - began)
    taken = {name: values[1:] for name, values in seconds.items()}
    ratios = [one / other for one, other in zip(taken["tracked"], taken["untracked"], strict=True)]
    return {name: statistics.median(values) for name, values in {**taken, "ratio": ratios}.items()}


@contextlib.contextmanager
def stores(folder: Path):
    """Options by the store's name, each fresh."""
    found = {"SQLite": Option("local", {"uri": str(folder / "rates.db"), "experiment": "rates", "children": "all"})}
    with contextlib.ExitStack() as stack:
        if uri := os.environ.get("DESCENTLAB_DATABASE"):
            found["PostgreSQL"] = Option("local", {"uri": uri, "experiment": "rates direct", "children": "all"})
            served = stack.enter_context(servers.shared_store(folder / "shared", database=uri))
            found["server"] = Option("server", {"uri": served.address, "experiment": "rates", "children": "all"})
        else:
            print("left out: PostgreSQL and a server over it; name an empty database in DESCENTLAB_DATABASE")
        yield found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    restarts, each, repeats = (100, 10, 3) if quick else (1000, 50, 5)
    folder = Path(tempfile.mkdtemp(prefix="descentlab-bench-"))
    try:
        single = thousand(folder, restarts, repeats)
        grid = beside_training(folder, repeats, quick)
        print(
            f"""| SQLite, {restarts} restarts, 1 writer, medians of {repeats} | |
|---|---:|
| plain loop | {single["plain"]:.1f} s |
| the tracker, with tables, weights and figures of the cell | {single["ours"]:.1f} s |
| read back as one table | {single["read"]:.2f} s |
| bytes on disk a restart, its share of the cell's artifacts included | {single["bytes"]:.0f} |
| the main job's grid, untracked | {grid["untracked"]:.1f} s |
| the same tracked | {grid["tracked"]:.1f} s |
| tracked over untracked | {grid["ratio"]:.2f} |

| writers, {each} restarts each | {" | ".join(map(str, WRITERS))} |
|---|---:|---:|---:|---:|""",
            flush=True,
        )
        rates: dict[str, dict[int, float]] = {}
        with stores(folder) as options:
            for name, option in options.items():
                tracking.store.open_store(option)
                rates[name] = {writers: rate(option, writers, each) for writers in WRITERS}
                row = " | ".join(f"{value:.1f}" for value in rates[name].values())
                print(f"| {name}, restarts a second | {row} |", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {
        "restarts": restarts, "repeats": repeats, "restarts_per_writer": each, "cores": os.cpu_count(),
        "python": platform.python_version(), "numpy": np.__version__, "sqlite": single, "grid": grid,
        "restarts_per_second": rates,
    }  # fmt: skip
    if not quick:
        OUTPUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
