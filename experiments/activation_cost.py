"""Time of an activation's value and slope per element, in units of a plain copy of the same array.

Claim of the course notebook: ReLU's derivative is much cheaper to compute. Declared here: it takes less than half the
time of sigmoid's and of tanh's derivative, in single and in double precision. A second claim measures the benefit: one
gradient of the notebook's network on 32 samples takes less than .9 of the time with ReLU than with sigmoid.

Method: arrays have 8192 elements and fit the second-level cache, like the blocks of training. Each round times every
job (a copy, each activation's value, each activation's slope, and the value followed by the slope) on newly drawn and
allocated arrays, in a new random order, so that other load on the machine affects all jobs equally. The time of a job
is the minimum of three timings of four calls, because interruptions only add time. It is divided by the time of the
copy in the same round. Tables show medians over rounds with 95 % bootstrap intervals. The slope gets z and the value,
as in backpropagation, so sigmoid's slope needs no exponential. `from z` computes the value and then the slope, like the
notebook's derivatives, which start from z. One core is used; BLAS runs one thread.

Cost: about 15 seconds on one core; nothing is trained.

Departures from the notebook: its derivatives are functions of z (`from z` here); the claim is judged on the slope that
backpropagation computes. The timings are of NumPy's vectorised functions; another library or machine can give another
answer. The n of the verdicts counts rounds of one process on one machine.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from descentlab import figures
from descentlab.analysis.statistics import bootstrap_interval
from descentlab.analysis.verdicts import Values
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS, STATISTICS_STREAM, stream
from descentlab.nn.losses import LOSSES
from descentlab.nn.memory import Workspace
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters, input_table, target_table
from descentlab.nn.program import gradient
from descentlab.studies.study import Part, Study, main

ELEMENTS = 8192
LAYERS, SAMPLES = (784, 128, 64, 10), 32
DTYPES = ("float32", "float64")
WORK = ("value", "slope", "from z")
TIMINGS, CALLS = 3, 4  # a job's time in a round is the least of TIMINGS, each over CALLS calls
ROUNDS, QUICK_ROUNDS = 60, 4

PARTS: dict[str, Part] = {}  # nothing is trained


def report(study: Study) -> None:
    """Medians per activation, their figure, and the ratios of the claims."""
    rounds = QUICK_ROUNDS if study.quick else ROUNDS
    elements = study.measured("timings", lambda: cost_per_element(rounds))
    gradients = study.measured("gradient_timings", lambda: cost_per_gradient(rounds))
    table = medians(elements, ["dtype", "activation", "work"], ["copies", "nanoseconds"])
    study.table("activation_cost", table)
    shown = table[table["activation"] != "copy"]
    label = "time per element, in copies of the same array"
    title = f"Time of an activation: {rounds} rounds over {ELEMENTS} elements, one core"
    study.figure("activation_cost", figures.costs(shown, WORK, "dtype", "copies", "activation", label, 1.0, title))
    whole = medians(gradients, ["dtype", "activation"], ["microseconds"]).assign(work="gradient")
    study.table("gradient_cost", whole)
    label = f"µs per gradient, {'-'.join(map(str, LAYERS))}, {SAMPLES} samples"
    title = f"Time of one gradient of the notebook's network: {rounds} rounds, one core"
    study.figure(
        "gradient_cost", figures.costs(whole, ["gradient"], "dtype", "microseconds", "activation", label, title=title)
    )
    study.verdicts(claimed(elements, gradients))


def medians(rounds: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Medians of some columns over rounds with bootstrap intervals, per combination of keys."""
    rows = []
    for values, cell in rounds.groupby(list(keys)):
        row = dict(zip(keys, values, strict=True)) | {"n": len(cell)}
        for column in columns:
            interval = bootstrap_interval(cell[column], np.median, method="percentile", resamples=1000)
            row |= {column: interval.estimate, f"{column}_low": interval.low, f"{column}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def claimed(elements: pd.DataFrame, gradients: pd.DataFrame) -> dict[str, Values | dict[str, Values]]:
    """Ratios of times in the same round: ReLU's over another activation's."""
    axes = {"index": ["dtype", "round"], "columns": "activation"}
    slope = elements[elements["work"] == "slope"].pivot(**axes, values="nanoseconds")
    whole = gradients.pivot(**axes, values="microseconds")
    return {
        "relu_slope_is_cheap": {
            f"{other}, {dtype}": (slope.loc[dtype, "relu"] / slope.loc[dtype, other]).to_numpy()
            for dtype in DTYPES
            for other in ("sigmoid", "tanh")
        },
        "relu_gradient_is_cheap": {
            dtype: (whole.loc[dtype, "relu"] / whole.loc[dtype, "sigmoid"]).to_numpy() for dtype in DTYPES
        },
    }


def cost_per_element(rounds: int, elements: int = ELEMENTS, names: Sequence[str] = tuple(ACTIVATIONS)) -> pd.DataFrame:
    """Time every activation's value and slope, round by round.

    Args:
        rounds: repetitions, each on new arrays and in a new order.
        elements: of the arrays.
        names: keys of ACTIVATIONS.

    Returns:
        One row per round, dtype, activation and work (value, slope, from z): nanoseconds per element, and `copies`,
        the same in units of a copy in the same round.
    """
    rows = []
    for each in range(rounds):
        draw = stream(each, STATISTICS_STREAM)
        jobs: dict[tuple[str, str, str], Callable[[], object]] = {}
        for dtype in DTYPES:
            for name in names:
                jobs |= {(dtype, name, work): job for work, job in _elementwise(name, draw, elements, dtype).items()}
            source = draw.standard_normal(elements).astype(dtype)
            jobs[dtype, "copy", "copy"] = partial(np.copyto, np.empty_like(source), source)
        seconds = _timed(jobs, draw)
        for (dtype, name, work), taken in seconds.items():
            copies = taken / seconds[dtype, "copy", "copy"]
            rows.append((each, dtype, name, work, 1e9 * taken / elements, copies))
    return pd.DataFrame(rows, columns=["round", "dtype", "activation", "work", "nanoseconds", "copies"])


def cost_per_gradient(rounds: int, names: Sequence[str] = tuple(ACTIVATIONS)) -> pd.DataFrame:
    """Time one gradient of the notebook's network on a batch: round, dtype, activation, microseconds."""
    rows = []
    for each in range(rounds):
        draw = stream(each, STATISTICS_STREAM)
        jobs = {(dtype, name): _gradient(name, draw, dtype) for dtype in DTYPES for name in names}
        with ThreadpoolController().limit(limits=1, user_api="blas"):  # as in training
            rows += [(each, *key, 1e6 * taken) for key, taken in _timed(jobs, draw).items()]
    return pd.DataFrame(rows, columns=["round", "dtype", "activation", "microseconds"])


def _elementwise(name: str, draw: np.random.Generator, elements: int, dtype: str) -> dict[str, Callable[[], object]]:
    activation = ACTIVATIONS[name]()
    z = draw.standard_normal(elements).astype(dtype)
    a, out = np.empty_like(z), np.empty_like(z, dtype=bool if activation.slope_is_mask else z.dtype)
    activation.value(z, a)  # the slope reads this value

    def from_z() -> None:
        activation.value(z, a)
        activation.slope(z, a, out)

    return {
        "value": partial(activation.value, z, a),
        "slope": partial(activation.slope, z, a, out),
        "from z": from_z,
    }


def _gradient(name: str, draw: np.random.Generator, dtype: str) -> Callable[[], object]:
    network = Network(LAYERS, ACTIVATIONS[name](), "softmax", LOSSES["categorical_cross_entropy"])
    rule = INITIALIZERS["glorot_uniform"]()
    parameters = Parameters.empty(LAYERS, 1, dtype)
    for theta in parameters.theta:
        theta[0, :, :-1] = rule.weights(draw, theta.shape[1], theta.shape[2] - 1)
        theta[0, :, -1] = 0.0
    inputs = input_table(draw.random((SAMPLES, LAYERS[0])), dtype)
    targets = target_table(np.eye(LAYERS[-1])[draw.integers(LAYERS[-1], size=SAMPLES)], dtype)
    return partial(gradient, network, parameters, inputs, targets, 1.0 / SAMPLES, Workspace(network, dtype))


def _timed(jobs: dict[Any, Callable[[], object]], draw: np.random.Generator) -> dict[Any, float]:
    """Seconds per call of every job; each pass runs all jobs in a new random order."""
    taken: dict[Any, list[float]] = {key: [] for key in jobs}
    keys = list(jobs)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(TIMINGS):
            for place in draw.permutation(len(keys)):
                job = jobs[keys[place]]
                job()  # brings its arrays into the cache
                began = time.perf_counter()
                for _ in range(CALLS):
                    job()
                taken[keys[place]].append((time.perf_counter() - began) / CALLS)
    finally:
        if collecting:
            gc.enable()
    return {key: min(times) for key, times in taken.items()}


if __name__ == "__main__":
    sys.exit(main("activation_cost", __doc__, PARTS, report))
