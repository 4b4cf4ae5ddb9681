"""The trainer against its peers on the workloads, and against the machine's own GEMM peak.

All ways are timed in turn, round after round in one process, and medians over rounds are compared; the peak is measured
in every round too. On one core, time is the processor's, which is the clock's where nothing else runs. Before that each
way trains once from the project's initial weights in the project's orders, and its weights must agree with the
project's: all do the same work, or the benchmark ends with an error.

The project's time is that of training alone: it is the difference of two spans of epochs in one training, which both
end with a measurement of the loss. It includes drawing its orders and looking for divergence after every epoch. Peers
are timed from arrays to arrays, compilation apart; they do neither.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import machine

TOLERANCE = {"float32": 2e-4, "float64": 1e-12}  # of |difference of two weights|, over the largest |change of a weight|
LOOSER = {("W3 relu", "float32"): 2e-2}  # a unit whose z rounds to the other side of 0 has another slope
ROUNDS = 5
SPAN_STEPS = 12  # that the project is timed over at least: a difference of fewer is noise


def tolerance(title: str, dtype: str) -> float:
    """What weights may differ by on a workload, over the largest change of a weight."""
    return next((limit for (begin, of), limit in LOOSER.items() if title.startswith(begin) and of == dtype),
                TOLERANCE[dtype])  # fmt: skip


def measure(workload: Any, dtype: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Time one workload in one precision.

    Returns:
        title, dtype, operations per net-step, the rounds' peak (operations per second), seconds per net-step of
        `project` and of every peer by name, `compile` seconds, `disagreement`; a peer that is absent or cannot do the
        job is named in `skipped`.

    Raises:
        SystemExit: where a peer's weights do not agree with the project's.
    """
    import numpy as np
    import peers
    import workloads

    from descentlab.nn.trainer import train_recipe

    x, y = workload.data(dtype)
    trained = train_recipe(workload.recipe(dtype, workload.epochs), {"train": (x, y)}, workload.cores)
    start, goal = workloads.plain(trained.initial), workloads.plain(trained.final)
    orders = workload.orders(workload.restarts, workload.epochs)
    result: dict[str, Any] = {
        "title": workload.title,
        "dtype": dtype,
        "cores": workload.cores,
        "operations": workload.operations() / len(workload.steps),
        "usual_steps": workload.usual_epochs * len(workload.steps),
        "restarts": workload.restarts,
        "peak": [],
        "seconds": {"project": []},
        "compile": {},
        "disagreement": {},
        "timed_restarts": {},
        "skipped": {},
    }
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    for peer in peers.PEERS:
        if not peer.present or not peer.can(workload) or (workload.cores > 1 and peer.at_once):
            reason = "one core only" if workload.cores > 1 else "cannot do it"
            result["skipped"][peer.name] = reason if peer.present else f"{peer.needs} is absent"
            continue
        count = min(workload.restarts, peer.at_once or workload.restarts)
        given = [(w[:count], b[:count]) for w, b in start]
        train = peer.build(workload, dtype)

        def call(train: Any = train, given: Any = given, count: int = count) -> Any:
            return train(given, orders[:count], x, y)

        began = time.perf_counter()  # a compiler uses what threads it likes
        reached = call()
        first = time.perf_counter() - began
        moved = max(float(np.abs(w - before).max()) for (w, _), (before, _) in zip(goal, start, strict=True))
        apart = max(
            float(np.abs(ours[:count] - theirs).max())
            for layer, other in zip(goal, reached, strict=True)
            for ours, theirs in zip(layer, other, strict=True)
        )
        result["disagreement"][peer.name] = apart / moved
        limit = tolerance(workload.title, dtype)
        if not apart <= limit * moved:
            raise SystemExit(f"{workload.title} {dtype}: weights of {peer.name} differ from the project's by"
                             f" {apart / moved:.2g} of the largest change, more than {limit:g}")  # fmt: skip
        if peer.compiles:
            result["compile"][peer.name] = first
        result["timed_restarts"][peer.name] = count
        result["seconds"][peer.name] = []
        calls[peer.name] = (call, workload.epochs * len(workload.steps) * count)
    now = machine.clock(workload.cores)
    for _ in range(rounds):
        result["peak"].append(machine.gemm_peak(dtype, workload.cores))
        result["seconds"]["project"].append(project(workload, dtype, (x, y)))
        for name, (call, net_steps) in calls.items():
            began = now()
            call()
            result["seconds"][name].append((now() - began) / net_steps)
    for name in result["compile"]:  # the first call also trained
        usual = statistics.median(result["seconds"][name]) * calls[name][1]
        result["compile"][name] = max(0.0, result["compile"][name] - usual)
    return result


def project(workload: Any, dtype: str, train: Any) -> float:
    """Seconds per net-step of training alone: the long span's measurement is taken off by the short one's."""
    from descentlab.nn.trainer import iterate

    epochs = max(3, workload.epochs, SPAN_STEPS // len(workload.steps))
    long = epochs - max(1, epochs // 10)
    recipe = workload.recipe(dtype, epochs, log_every=long)
    now = machine.clock(workload.cores)
    times = [now() for _ in iterate(recipe, {"train": train}, workload.cores)]  # epochs 0, long, last
    spans = (times[1] - times[0]) - (times[2] - times[1])
    return spans / ((2 * long - epochs) * len(workload.steps) * workload.restarts)


def medians(result: dict[str, Any]) -> dict[str, float]:
    """Seconds per net-step by name."""
    return {name: statistics.median(seconds) for name, seconds in result["seconds"].items()}


def share_of_peak(result: dict[str, Any]) -> float:
    """The part of the GEMM peak that the project reaches."""
    return result["operations"] / medians(result)["project"] / statistics.median(result["peak"])


def including_compilation(result: dict[str, Any], name: str) -> float:
    """Peer's time over the project's for a training of usual length, compilation included."""
    seconds, steps = medians(result), result["usual_steps"] * result["restarts"]
    return (result["compile"][name] + seconds[name] * steps) / (seconds["project"] * steps)


def main(arguments: Sequence[str]) -> None:
    """`speed.py CORES FORM [ONLY]`: measure workloads of so many cores, whose titles begin so, to standard output."""
    cores, quick, only = int(arguments[0]), arguments[1] == "quick", (*arguments[2:], "")[0]
    machine.confine(cores)
    from workloads import WORKLOADS

    results = []
    for workload in WORKLOADS:
        if workload.cores != cores or not workload.title.startswith(only):
            continue
        for dtype in ("float32", "float64"):
            began = time.perf_counter()
            results.append(measure(workload.quick() if quick else workload, dtype, 1 if quick else ROUNDS))
            seconds = medians(results[-1])
            ratios = ", ".join(f"{name} {seconds[name] / seconds['project']:.3g}" for name in list(seconds)[1:])
            print(f"{workload.title} {dtype}: {share_of_peak(results[-1]):.0%} of the peak; {ratios}"
                  f" ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)  # fmt: skip
    json.dump({"machine": machine.described(cores), "results": results}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
