"""How the cost of a step grows with restarts, width, depth and batch size, beside the machine's GEMM peak.

From 64-32-10 at 32 samples a step and 30 restarts (sigmoid, softmax and cross-entropy), one of the four is varied. The
line of the peak is what the step's matrix products alone would take at the speed of a large product.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine

ROUNDS = 5
SECONDS = 0.1  # about what one timing takes
VARIED: dict[str, Sequence[int]] = {
    "restarts": (1, 3, 10, 30, 100, 300, 1000),
    "width": (4, 8, 16, 32, 64, 128, 256),
    "depth": (1, 2, 4, 8, 16),
    "batch size": (1, 4, 16, 64, 256, 1024),
}
LABELS = {
    "restarts": "restarts R",
    "width": "units in the hidden layer",
    "depth": "hidden layers of 32",
    "batch size": "samples a step B",
}


def measure(quick: bool) -> dict[str, Any]:
    """Seconds per net-step and per net-step at the peak: `points` of axis, value, dtype; medians of the rounds."""
    import speed
    from workloads import WORKLOADS

    (base,) = (workload for workload in WORKLOADS if workload.title == "W2 R=100")
    points = []
    for axis, values in VARIED.items():
        for value in values[::4] if quick else values:
            given: dict[str, Any] = {"restarts": 30, "epochs": 3}
            if axis == "restarts":
                given["restarts"] = value
            elif axis == "batch size":
                given["batch"] = value
            else:
                given["layers"] = (64, value, 10) if axis == "width" else (64, *[32] * value, 10)
            workload = replace(base, **given)
            if quick:
                workload = replace(workload.quick(), samples=100)
            for dtype in ("float32", "float64"):
                train = workload.data(dtype)
                first = speed.project(workload, dtype, train)
                epoch = first * len(workload.steps) * workload.restarts
                workload = replace(workload, epochs=min(200, max(3, round(SECONDS / epoch))))
                peaks, seconds = [], []
                for _ in range(1 if quick else ROUNDS):
                    peaks.append(machine.gemm_peak(dtype))
                    seconds.append(speed.project(workload, dtype, train))
                operations = workload.operations() / len(workload.steps)
                points.append(
                    {
                        "axis": axis,
                        "value": value,
                        "dtype": dtype,
                        "seconds": statistics.median(seconds),
                        "at_peak": operations / statistics.median(peaks),
                    }
                )
        print(f"growth: {axis}", file=sys.stderr, flush=True)
    return {"points": points}


def draw(result: dict[str, Any], path: Path) -> None:
    """Four panels: microseconds per net-step and their lower bound, both axes logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    styles = {"float64": ("#00429d", "o"), "float32": ("#d95f02", "s")}
    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    for axis, panel in zip(VARIED, panels.flat, strict=True):
        for dtype, (colour, marker) in styles.items():
            points = [p for p in result["points"] if p["axis"] == axis and p["dtype"] == dtype]
            x = [p["value"] for p in points]
            panel.plot(x, [1e6 * p["seconds"] for p in points], marker=marker, color=colour, label=f"{dtype}, measured")
            panel.plot(x, [1e6 * p["at_peak"] for p in points], "--", color=colour, label=f"{dtype}, at GEMM peak")
        panel.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        panel.xaxis.set_major_locator(FixedLocator(x if len(x) < 10 else x[::2]))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if axis == "restarts" else (1,)))
        panel.yaxis.set_minor_formatter(NullFormatter())
        for scale in (panel.xaxis, panel.yaxis):
            scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.grid(alpha=0.3)
    for row in panels:
        row[0].set_ylabel("microseconds per net-step")
    panels[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle("One step of one network on one core, from 64-32-10, B = 32, R = 30", fontsize=11)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    machine.confine(1)
    json.dump(measure(sys.argv[1:] == ["quick"]), sys.stdout)
