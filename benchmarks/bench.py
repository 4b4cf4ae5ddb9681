"""Measure speed and cost: tables, figures and JSON.

    make bench                      everything, a quarter of an hour; writes results, figures and the tables of the docs
    make bench ARGS=--quick         every part in a small form, in seconds; writes nothing but the terminal
    make bench ARGS="speed growth"  some parts: speed, growth, overhead, end_to_end

Every part is a script of its own in a process of its own. Peers that are not installed are named and skipped.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import growth
import machine
import speed

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"
PEERS = ("jax", "jax tuned", "torch bmm", "torch modules", "scikit-learn", "naive numpy")
NOISE = 0.1  # ms: what is found as a smaller difference of two times is not told from nothing
MARKERS = ("o", "D", "s", "^", "v", "X")
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#000000")

Result = dict[str, Any]
Table = list[list[str]]


def run(part: str, *arguments: str) -> Result:
    """A part's result, measured in a process of its own."""
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, str(HERE / f"{part}.py"), *arguments]
        if subprocess.run(command, stdout=out, check=False).returncode:
            raise SystemExit(f"{part}: failed")
        out.seek(0)
        return json.load(out)


def measure(part: str, quick: bool) -> Result:
    """A part's result; the speed of both numbers of cores is one."""
    form = "quick" if quick else "full"
    if part == "end_to_end":
        return run(part, *(["--quick"] if quick else []))
    if part != "speed":
        return run(part, form)
    both = [run(part, str(cores), form) for cores in (1, 2) if cores <= machine.available()]
    return {"machine": both[0]["machine"], "results": [line for one in both for line in one["results"]]}


# --- tables --------------------------------------------------------------------------------------------------------


def speed_table(result: Result, dtype: str) -> Table:
    """A line per workload: time per net-step, share of the peak, and every peer's time over the project's."""
    rows = [["", "µs per net-step", "of the peak", *PEERS]]
    for line in result["results"]:
        if line["dtype"] == dtype:
            seconds = speed.medians(line)
            ratios = [f"{seconds[peer] / seconds['project']:.3g}" if peer in seconds else "" for peer in PEERS]
            rows.append([line["title"], f"{1e6 * seconds['project']:.3g}", f"{speed.share_of_peak(line):.0%}", *ratios])
    return rows


def compilation_table(result: Result) -> Table:
    """A line per workload: what JAX's compilation takes, and its time over the project's with that included."""
    rows = [["float64", "steps of a usual run", "jax compiles, s", "tuned, s", "jax in all", "tuned in all"]]
    for line in result["results"]:
        if line["dtype"] == "float64" and line["compile"]:
            names = list(line["compile"])
            rows.append(
                [line["title"], str(line["usual_steps"]), *(f"{line['compile'][name]:.2f}" for name in names)]
                + [f"{speed.including_compilation(line, name):.3g}" for name in names]
            )
    return rows


def agreement_text(result: Result) -> str:
    """How far apart the weights of all ways ended, at most."""
    worst: dict[str, float] = {}
    allowed: dict[str, float] = {}
    for line in result["results"]:
        limit = speed.tolerance(line["title"], line["dtype"])
        plain = limit == speed.TOLERANCE[line["dtype"]]
        key = line["dtype"] if plain else f"{line['title']} in {line['dtype']}"
        allowed[key] = limit
        worst[key] = max(worst.get(key, 0.0), 0.0, *line["disagreement"].values())
    parts = [f"{apart:.1g} ({key}, at most {allowed[key]:g} allowed)" for key, apart in worst.items()]
    skipped = {name: why for line in result["results"] for name, why in line["skipped"].items() if "absent" in why}
    text = "Largest difference of two weights after training, over the largest change: " + ", ".join(parts) + "."
    about = ", ".join(f"{key} {value}" for key, value in result["machine"].items() if key not in ("cores", "processor"))
    peak = {
        dtype: statistics.median(p for line in result["results"] if line["dtype"] == dtype and line["cores"] == 1
                                 for p in line["peak"])
        for dtype in speed.TOLERANCE
    }  # fmt: skip
    text += f" {result['machine']['processor']}; GEMM peak {peak['float32'] / 1e9:.0f} / {peak['float64'] / 1e9:.0f}"
    text += f" GFLOP/s a core; {about}."
    return text + "".join(f" {name}: {why}." for name, why in skipped.items())


def logging_table(result: Result) -> Table:
    """What measuring and keeping add to training."""
    names = {
        "training alone": "training alone",
        "measured": "with the default measurements (20 logged epochs, `basic`)",
        "kept": "the same kept in MLflow, from opening the store to closing it",
        "three splits": "with the default measurements, on validation and test too",
        "full": "with `diagnostics=full` on all three splits",
    }
    rows = [[f"{result['epochs']} epochs, {result['restarts']} restarts, {result['cores']} cores", "s", "more"]]
    for taken, about in (("logging", ""), ("logging_more", f"{result['more_restarts']} restarts: ")):
        seconds = result[taken]
        alone = seconds["training alone"]
        rows += [
            [about + text, f"{seconds[name]:.2f}", f"{seconds[name] / alone - 1:+.0%}"]
            for name, text in names.items()
            if name in seconds
        ]
    return rows


def diagnostics_table(result: Result) -> Table:
    """What measuring once costs, by what is measured."""
    cost = result["diagnostics"]
    epoch, full = cost["an epoch"], cost["full"]
    one = cost["none, training split alone"]
    lines = {
        "loss and score of the training split": one,
        "of validation and test too (all that `none` measures)": cost["none"] - one,
        "`basic`: delta_norm, gradient_norm, weight_norm (one backward pass)": cost["basic"] - cost["none"],
        "`full`: bias_gradient_norm, update_ratio": full - cost["full less bias_gradient_norm, update_ratio"],
        "`full`: effective_rank (its eigenvalues)": full - cost["full less effective_rank"],
        "`full`: all of activations, that included, and delta_rms": full
        - cost["full less all of activations and delta_rms"],
        "all of `full`": full,
    }
    rows = [["measured once", "ms per restart", "epochs of training"]]
    return rows + [
        [name, f"{value:.2f}", f"{value / epoch:.2f}"]
        if value >= NOISE
        else [name, f"< {NOISE}", f"< {NOISE / epoch:.2f}"]
        for name, value in lines.items()
    ]


def memory_table(result: Result) -> Table:
    """Peak memory against the number of restarts."""
    rows = [["restarts of 64-32-10, float64", "parameters, MiB", "peak beyond the start, MiB", "over parameters"]]
    for restarts, held in result["memory"].items():
        share = held["peak"] / held["parameters"]
        rows.append([restarts, f"{held['parameters'] / 2**20:.1f}", f"{held['peak'] / 2**20:.1f}", f"{share:.1f}"])
    return rows


def startup_table(result: Result) -> Table:
    """How long short commands take."""
    rows = [["", "s", "of the processor's, s"]]
    for words, seconds in result["startup"].items():
        rows.append([f"`descentlab {words}`", f"{seconds['wall']:.2f}", f"{seconds['processor']:.2f}"])
    return rows


def end_to_end_table(result: Result) -> Table:
    """The ways from the conventional one to the project's, each with what the last change gave."""
    names = {
        "conventional": "one Hydra job per seed, a PyTorch loop, `mlflow.log_metrics` per logged epoch",
        "own trainer": "the project's trainer in its place, a seed at a time",
        "batched logging": "the project's sweep and tracker: no job per seed, one write a run",
        "stacked": "seeds stacked: the project as it is",
    }
    size = f"{result['cells']} cells, {result['restarts']} seeds, {result['epochs']} epochs"
    rows = [[size, "measured seeds", "measured, s", "all seeds, s", "of the processors', s", "times faster"]]
    before = None
    for name, text in names.items():
        if name in result["ways"]:
            way = result["ways"][name]
            faster = f"{before / way['seconds']:.2g}" if before else ""
            before = way["seconds"]
            figures = [f"{way['wall']:.1f}", f"{way['seconds']:.0f}", f"{way['processor']:.0f}", faster]
            rows.append([text, str(way["seeds"]), *figures])
    if "conventional" in result["ways"]:
        whole = result["ways"]["conventional"]["seconds"] / result["ways"]["stacked"]["seconds"]
        rows.append(["**first over last**", "", "", "", "", f"**{whole:.3g}**"])
    return rows


def markdown(table: Table) -> str:
    """A table as Markdown; all columns but the first are numbers."""
    head, *rows = table
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def texts(part: str, result: Result) -> dict[str, str]:
    """What the documentation shows of a part, by the name of its place."""
    if part == "speed":
        return {
            "speed float32": markdown(speed_table(result, "float32")),
            "speed float64": markdown(speed_table(result, "float64")),
            "compilation": markdown(compilation_table(result)),
            "agreement": agreement_text(result),
        }
    if part == "overhead":
        tables = {"logging": logging_table, "diagnostics": diagnostics_table, "memory": memory_table}
        tables |= {"start-up": startup_table}
        return {name: markdown(table(result)) for name, table in tables.items()}
    return {"end to end": markdown(end_to_end_table(result))} if part == "end_to_end" else {}


# --- figures -------------------------------------------------------------------------------------------------------


def draw_speed(result: Result, path: Path) -> None:
    """Every peer's time over the project's, a line per workload, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, panels = pyplot.subplots(1, 2, figsize=(10.5, 5.6), sharey=True, layout="constrained")
    for panel, dtype in zip(panels, speed.TOLERANCE, strict=True):
        lines = [line for line in result["results"] if line["dtype"] == dtype]
        for peer, marker, colour in zip(PEERS, MARKERS, COLOURS, strict=True):
            points = [
                (speed.medians(line)[peer] / speed.medians(line)["project"], place)
                for place, line in enumerate(lines)
                if peer in line["seconds"]
            ]
            if points:
                panel.plot(*zip(*points, strict=True), marker, color=colour, label=peer, markersize=7, alpha=0.85)
        panel.axvline(1, color="0.3", linewidth=1)
        panel.set(xscale="log", title=dtype, xlabel="peer's time / project's time (right of 1: the project is faster)")
        panel.set_yticks(range(len(lines)), [line["title"] for line in lines])
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(PEERS), frameon=False)
    figure.savefig(path, dpi=100)


DRAWN = {"speed": draw_speed, "growth": growth.draw}


# --- the whole -----------------------------------------------------------------------------------------------------


def publish(part: str, result: Result) -> None:
    """Write a part's JSON and figure, and its tables into the documentation between their marks."""
    RESULTS.mkdir(exist_ok=True)
    result = json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.5g}"))
    (RESULTS / f"{part}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if part in DRAWN:
        DRAWN[part](result, DOCS / "images" / f"{part}.png")
    page = DOCS / "performance.md"
    text = page.read_text(encoding="utf-8")
    for name, body in texts(part, result).items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, found = place.subn(lambda match, body=body: match[1] + body + match[2], text)
        if found != 1:
            raise SystemExit(f"docs/performance.md: has {found} places for {name}, and should have one")
    page.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """See the module's docstring."""
    parts = [word for word in arguments if not word.startswith("-")] or ["speed", "growth", "overhead", "end_to_end"]
    quick = "--quick" in arguments
    known = {"speed", "growth", "overhead", "end_to_end", "--quick"}
    if set(arguments) - known:
        raise SystemExit(__doc__)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    for part in parts:
        result = measure(part, quick)
        for name, text in texts(part, result).items():
            print(f"\n{name}\n{text}", flush=True)
        if quick and part in DRAWN:
            with tempfile.TemporaryDirectory() as folder:
                DRAWN[part](result, Path(folder) / f"{part}.png")
        elif not quick:
            publish(part, result)
    print(f"\n{', '.join(parts)}: {time.perf_counter() - began:.0f} s" + ("" if quick else f"; kept in {RESULTS}"))


if __name__ == "__main__":
    main(sys.argv[1:])
