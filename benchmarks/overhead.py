"""What measuring and keeping cost beside training, how long commands take to start, and what a stack holds in memory.

The setting is W2 as a run of the harness: 64-32-10, sigmoid, trained on all 1797 digits, 32 samples a step, 200 epochs,
30 or 100 restarts, on two cores where there are; validation and test are the first fifth of the digits each. Memory is
the process's peak while it trains one epoch of W2 in float64, less what it held before, and all that processes hold
which train for it; each number of restarts in a process of its own.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import machine

ROUNDS = 5
EPOCHS, RESTARTS, MORE = 200, 30, 100
COMMANDS = ("--help", "learning_rate=-1", "data=xor epochs=10 tracking=none")
STACKS = (1, 10, 100, 1000, 10_000)


def measure(quick: bool) -> dict[str, Any]:
    """Seconds by what is measured and kept (`logging`) and of measuring once (`diagnostics`), bytes by R (`memory`)."""
    from dataclasses import replace

    from descentlab.config.cells import cells
    from descentlab.config.composing import compose

    epochs, restarts, rounds = (2, 2, 1) if quick else (EPOCHS, RESTARTS, ROUNDS)
    words = ["activation=sigmoid", "data.split=100-0-0", f"epochs={epochs}", f"restarts={restarts}", "tracking=none"]
    (cell,) = cells(compose(words, sweep=False))
    recipe = cell.recipe
    x, y = cell.dataset.splits["train"]
    fifth = x[: len(x) // 5], y[: len(x) // 5]
    splits = {"train": (x, y), "validation": fifth, "test": fifth}
    stacks = (1, 10) if quick else STACKS
    return {
        "epochs": epochs,
        "restarts": restarts,
        "cores": machine.available(),
        "logging": _logging(cell.config, recipe, splits, rounds),
        "more_restarts": (more := 3 if quick else MORE),
        "logging_more": _logging(
            replace(cell.config, restarts=more), replace(recipe, restarts=more), splits, rounds, True
        ),
        "diagnostics": _diagnostics(recipe, splits, rounds),
        "startup": {words: _startup(words.split(), rounds) for words in COMMANDS},
        "memory": {str(stack): _in_a_process(stack) for stack in stacks},
    }


def _startup(words: list[str], rounds: int) -> dict[str, float]:
    """Seconds of a command from start to end, of the clock and of the processor; medians."""
    wall, processor = [], []
    for _ in range(rounds):
        before, began = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "descentlab", *words], capture_output=True, check=False)
        wall.append(time.perf_counter() - began)
        after = os.times()
        processor.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return {"wall": statistics.median(wall), "processor": statistics.median(processor)}


def _logging(config: Any, recipe: Any, splits: Any, rounds: int, default: bool = False) -> dict[str, float]:
    """Seconds of training alone, of training as it is measured by default, and kept in a store too; medians."""
    from dataclasses import replace

    from descentlab.config.cells import cells as made
    from descentlab.nn.trainer import train_recipe
    from descentlab.sweeps import running as sweeps
    from descentlab.tracking import open_tracker
    from descentlab.values import Option

    alone = replace(recipe, log_every=recipe.epochs, diagnostics="none")
    train = {"train": splits["train"]}
    forms = {
        "training alone": (alone, train),
        "measured": (recipe, train),
        "three splits": (recipe, splits),
        "full": (replace(recipe, diagnostics="full"), splits),
    }
    if default:
        forms = {name: forms[name] for name in ("training alone", "measured")}
    found: dict[str, list[float]] = {**{name: [] for name in forms}, "kept": []}
    with tempfile.TemporaryDirectory(prefix="descentlab-") as folder:
        store = Option("local", {"uri": f"{folder}/mlflow.db", "experiment": "descentlab", "children": "auto"})
        with open_tracker(store) as tracker:  # the store is made here
            sweeps.run(made([replace(config, epochs=1, restarts=1)]), tracker, progress=False)
            tracker.flush()
        for place in range(rounds):
            for name, (one, given) in forms.items():
                began = time.perf_counter()
                train_recipe(one, given, "auto")
                found[name].append(time.perf_counter() - began)
            began = time.perf_counter()
            with open_tracker(store) as tracker:  # another seed each round: what is there already is not trained again
                sweeps.run(made([replace(config, seed=1000 * (1 + place))]), tracker, progress=False)
            found["kept"].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _diagnostics(recipe: Any, splits: Any, rounds: int) -> dict[str, float]:
    """Milliseconds per restart of measuring once, by what is left out; and of one epoch of training, for scale."""
    from dataclasses import replace

    from descentlab.nn import diagnostics, trainer

    kept = replace(recipe, epochs=3, log_every=1)
    nothing = mock.patch.multiple(diagnostics, _of_gradient=lambda *args: {})
    no_ranks = mock.patch.multiple(diagnostics, _effective_rank=lambda gram: gram[:, 0, 0])
    still = mock.patch.multiple(
        diagnostics._Activity, add=lambda self, trace: None, metrics=lambda self, samples: {}, create=False
    )
    train = {"train": splits["train"]}
    forms: Mapping[str, tuple[str, Any, list[Any]]] = {
        "none, training split alone": ("none", train, []),
        "none": ("none", splits, []),
        "basic": ("basic", splits, []),
        "full": ("full", splits, []),
        "full less bias_gradient_norm, update_ratio": ("full", splits, [nothing]),
        "full less effective_rank": ("full", splits, [no_ranks]),
        "full less all of activations and delta_rms": ("full", splits, [still]),
    }
    found: dict[str, list[float]] = {"an epoch": [], **{name: [] for name in forms}}
    for _ in range(rounds):
        bare = _spans(trainer, replace(kept, diagnostics="none", epochs=6, log_every=5), train)
        epoch = (bare[0] - bare[1]) / 4
        found["an epoch"].append(epoch)
        for name, (level, given, patches) in forms.items():
            with _all(patches):
                spans = _spans(trainer, replace(kept, diagnostics=level), given)
            found[name].append(statistics.median(spans) - epoch)
    return {name: 1e3 * statistics.median(seconds) / recipe.restarts for name, seconds in found.items()}


def _spans(trainer: Any, recipe: Any, splits: Any) -> list[float]:
    times = [time.process_time() for _ in trainer.iterate(recipe, splits, 1)]
    return [after - before for before, after in pairwise(times)]


@contextlib.contextmanager
def _all(contexts: list[Any]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


# --- memory --------------------------------------------------------------------------------------------------------


def _in_a_process(restarts: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "memory", str(restarts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _memory(restarts: int) -> dict[str, float]:
    """Bytes: the stack's parameters, and the peak beyond what the process held before training."""
    from dataclasses import replace

    from workloads import WORKLOADS

    from descentlab.nn.trainer import train_recipe

    (base,) = (workload for workload in WORKLOADS if workload.title == "W2 R=100")
    workload = replace(base, restarts=restarts, epochs=1)
    train = {"train": workload.data("float64")}
    train_recipe(workload.recipe("float64", 1, restarts=1), train, 1)  # what is loaded at first use
    before = _bytes("VmRSS")
    training = train_recipe(workload.recipe("float64", 1), train, "auto")
    helpers = sum(_bytes("VmHWM", one) for one in _helpers())  # all that they hold, Python and NumPy included
    return {"parameters": training.final.flat.nbytes, "peak": _bytes("VmHWM") - before + helpers, "helpers": helpers}


def _helpers() -> list[str]:
    """Processes that this one has started, where the machine tells."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return []


def _bytes(field: str, process: str = "self") -> float:
    """Memory of a process: VmRSS now, VmHWM its largest since the program was started."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith(field)).split()[1])
    except OSError:
        import resource

        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        json.dump(_memory(int(sys.argv[2])), sys.stdout)
    else:
        json.dump(measure(sys.argv[1:] == ["quick"]), sys.stdout)
