"""Minima that are not global, and how often descent ends in them: ReLU students of orthonormal ReLU teachers.

Claims:
    * Of restarts: with as many students as teachers most restarts find their teachers, and the share that does not is
      the published one (Safran & Shamir 2018; recomputed: 4.9 % of 1000 with seven, 23.7 % with nine).
    * Of minima: the other restarts end in strict minima, each with a certificate; this loss attains its minima and has
      no zero modes there.
    * One student more than teachers removes nearly all of them.

Method: the loss is half the expected squared difference of the outputs for standard normal inputs, in closed form
(analysis/students.py), so there are no data and no noise. 1000 restarts for every k = 6 .. 12 teachers, once with k and
once with k + 1 students; weights from Glorot's normal rule; descent with a step of .1 until |gradient| < 1e-9. An end
with a loss below 1e-6 has learnt; any other end below the gradient limit is spurious; one that did not get there within
100 000 steps is unfinished. With k + 1 students the loss has a valley at 0 whose sides rise with the third power only,
where descent becomes slower and slower: a restart stops there once its loss is below 1e-6.
    Every end of k students and every spurious end of k + 1 gets a certificate (analysis/minima.py): polish to
|gradient| < 1e-10, exact Hessian, all its eigenvalues. The outcome of a restart and the certificate of its end are
different results with separate verdicts. Equal losses (to 1e-6) are one level. The table of levels counts the distinct
minima on each level; minima that differ in the order of students count once.

Cost: six to seven minutes on two cores. The restarts of an arm are one stack; its certificates are computed one by one.

Departures from Safran & Shamir: k to 12 instead of 20; the certificate requires more than a positive smallest
eigenvalue. A share of 1000 restarts has an error of up to 3 points.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray

from descentlab import figures
from descentlab.analysis import matching
from descentlab.analysis.minima import Certificate, certificates, certify
from descentlab.analysis.statistics import wilson
from descentlab.analysis.students import Students
from descentlab.analysis.verdicts import Values
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.initializers import INITIALIZERS, WEIGHT_STREAM, stream
from descentlab.nn.losses import LOSSES
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters
from descentlab.studies.study import Part, Study, main

TEACHERS = range(6, 13)
EXTRA = (0, 1)  # students beyond the teachers
RESTARTS, QUICK_RESTARTS = 1000, 10
QUICK_TEACHERS = (8,)
STEP, TOLERANCE, MOST_STEPS = 0.1, 1e-9, 100_000
LEARNT = 1e-6  # loss below which the teachers were found
LOOK = 20  # steps between looks for restarts that are done
BLOCK = 125  # restarts a thread takes at a time
PUBLISHED = {7: 0.049, 9: 0.237}  # share of 1000 restarts that end in spurious minima

PARTS: dict[str, Part] = {}  # no network is trained


def report(study: Study) -> None:
    """Shares, levels, certificates and verdicts."""
    teachers, restarts = (QUICK_TEACHERS, QUICK_RESTARTS) if study.quick else (TEACHERS, RESTARTS)
    ends = pd.concat(
        study.measured(f"ends_{k + extra}_of_{k}", partial(end_table, k + extra, k, restarts))
        for k in teachers
        for extra in EXTRA
    )
    arms = shares_table(ends)
    study.table("shares", arms)
    study.table("levels", level_table(ends))
    study.table("certificates", certificate_table(ends))
    about = f"ReLU students of orthonormal ReLU teachers, {restarts} restarts each"
    study.figure(
        "shares",
        figures.estimates(
            arms,
            "teachers",
            "students",
            ("teachers k", "share above the global minimum"),
            references={k: share for k, share in PUBLISHED.items() if k in teachers},
            title=f"Restarts that do not find their teachers\n{about}",
        ),
    )
    lone = ends[ends["students"] == ends["teachers"]]
    spurious = lone[lone["ended"] != "learnt"].assign(found=lambda rows: rows["certificate"])
    if len(spurious):
        label = "final loss of ends above the global minimum"
        title = f"Ends of k students that did not learn, by certificate\n{about}"
        study.figure("levels", figures.ends(spurious, "loss", "found", "teachers", label, title))
    study.verdicts(claimed(ends))


def end_table(students: int, teachers: int, restarts: int) -> pd.DataFrame:
    """Descend from every seed and certify the ends.

    Args:
        students: number of students.
        teachers: number of teachers.
        restarts: seeds 0 .. restarts - 1.

    Returns:
        One row per restart: students, teachers, seed, steps, loss, gradient, ended (learnt, spurious, unfinished);
        then certificate (the outcome, none where none was made), polished_loss, smallest and largest eigenvalue,
        negative_modes, zero_modes, distance and lower_nearby of the certificate; minimum, a number for each strict
        minimum up to the order of students, missing where the end is none.
    """
    loss = Students(students, teachers)
    stop = LEARNT if students > teachers else -np.inf
    theta, steps = descend(loss, np.stack([drawn(loss, seed) for seed in range(restarts)]), stop)
    values, gradients = loss.value_and_gradient(theta)
    norms = np.linalg.norm(gradients, axis=1)
    ended = np.where(values < LEARNT, "learnt", np.where(norms < TOLERANCE, "spurious", "unfinished"))
    rows = pd.DataFrame(
        {
            "students": students,
            "teachers": teachers,
            "seed": np.arange(restarts),
            "steps": steps,
            "loss": values,
            "gradient": norms,
            "ended": ended,
        }
    )
    asked = np.flatnonzero((ended != "learnt") | (students <= teachers))
    found = certificates(partial(certificate, loss), theta[asked]) if len(asked) else []
    made = [
        (
            *(one.outcome, one.loss, one.smallest, one.largest, one.negative_modes, one.zero_modes),
            *(one.distance, one.lower_nearby),
        )
        for one in found
    ]
    names = ["certificate", "polished_loss", "smallest", "largest", "negative_modes", "zero_modes", "distance"]
    table = pd.DataFrame(made, index=asked, columns=[*names, "lower_nearby"]).reindex(range(restarts))
    strict = [row for row, one in enumerate(found) if one.polished == "strict minimum"]
    kinds = minima_of(loss, np.reshape([found[row].point for row in strict], (-1, loss.size)))
    table["minimum"] = pd.Series(kinds, index=asked[strict])
    return rows.join(table.fillna({"certificate": "none"}))


def minima_of(loss: Students, points: ndarray) -> ndarray:
    """Number the minima (R, P) that remain when students may change places, (R,).

    Students are the hidden units of a ReLU network without biases whose output adds them up.
    """
    weights = points.reshape(-1, loss.students, loss.teachers)
    network = Network((loss.teachers, loss.students, 1), ACTIVATIONS["relu"](), "linear", LOSSES["mean_squared_error"])
    arrays = {"W1": weights, "b1": np.zeros(weights.shape[:2])}
    arrays |= {"W2": np.ones((len(weights), 1, loss.students)), "b2": np.zeros((len(weights), 1))}
    return matching.distinct(network, Parameters.stacked(arrays))


def drawn(loss: Students, seed: int) -> ndarray:
    """The students before they learn, flat."""
    rule = INITIALIZERS["glorot_normal"]()
    return rule.weights(stream(seed, WEIGHT_STREAM), loss.students, loss.teachers).ravel()


def certificate(loss: Students, theta: ndarray) -> Certificate:
    """Certify one end; losses that differ by more than 1e-6 are different levels."""
    return certify(
        loss.value_and_gradient,
        loss.hessian_vector_product,
        theta,
        hessian=loss.hessian,
        level_tolerance=LEARNT,
        stacked=True,
    )


def descend(loss: Students, start: ndarray, stop: float = -np.inf, most: int = MOST_STEPS) -> tuple[ndarray, ndarray]:
    """Gradient descent until |gradient| < 1e-9 or the loss is below `stop`; a restart's end depends on its start alone.

    Args:
        loss: the function.
        start: (R, P).
        stop: a restart ends once its loss is below this.
        most: largest number of steps.

    Returns:
        Ends (R, P), and the number of steps of each (R,).
    """
    blocks = [start[row : row + BLOCK] for row in range(0, len(start), BLOCK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(lambda block: _descend(loss, block, stop, most), blocks))
    ends, steps = zip(*done, strict=True)
    return np.concatenate(ends), np.concatenate(steps)


def _descend(loss: Students, theta: ndarray, stop: float, most: int) -> tuple[ndarray, ndarray]:
    ends, steps, rows = theta.copy(), np.full(len(theta), most), np.arange(len(theta))
    for step in range(most):
        value, gradient = loss.value_and_gradient(theta)
        if step % LOOK == 0:
            done = (np.linalg.norm(gradient, axis=1) < TOLERANCE) | (value < stop)
            ends[rows[done]], steps[rows[done]] = theta[done], step
            theta, gradient, rows = theta[~done], gradient[~done], rows[~done]
            if not len(rows):
                return ends, steps
        theta = theta - STEP * gradient
    ends[rows] = theta
    return ends, steps


def shares_table(ends: pd.DataFrame) -> pd.DataFrame:
    """Share of restarts that did not learn, with Wilson's interval, per teachers and students; counts beside it."""
    rows = []
    for (teachers, students), arm in ends.groupby(["teachers", "students"]):
        counts = arm["ended"].value_counts()
        share = wilson(len(arm) - int(counts.get("learnt", 0)), len(arm))
        row = {"teachers": teachers, "students": "k students" if students == teachers else "k + 1 students"}
        row |= {"n": len(arm), "estimate": share.estimate, "low": share.low, "high": share.high}
        row |= {name: counts.get(name, 0) for name in ("learnt", "spurious", "unfinished")}
        rows.append(row | {"median_steps": arm["steps"].median(), "most_steps": arm["steps"].max()})
    return pd.DataFrame(rows)


def level_table(ends: pd.DataFrame) -> pd.DataFrame:
    """The losses that restarts of each arm end at, to six decimals: restarts, and distinct strict minima among them."""
    minimum = ends["minimum"] if "minimum" in ends else np.nan  # ends stored before minima were numbered
    rounded = ends.assign(level=ends["loss"].where(ends["ended"] != "learnt", 0.0).round(6), minimum=minimum)
    grouped = rounded.groupby(["teachers", "students", "level"])
    return grouped.agg(
        restarts=("seed", "size"), distinct=("minimum", "nunique"), smallest_eigenvalue=("smallest", "min")
    ).reset_index()


def certificate_table(ends: pd.DataFrame) -> pd.DataFrame:
    """Certificates per arm and outcome: their number, and the range of the smallest eigenvalue."""
    made = ends[ends["certificate"] != "none"]
    grouped = made.groupby(["teachers", "students", "ended", "certificate"])
    table = grouped.agg(
        ends=("seed", "size"),
        smallest_from=("smallest", "min"),
        smallest_to=("smallest", "max"),
        largest=("largest", "max"),
        farthest=("distance", "max"),
        lower_nearby=("lower_nearby", "max"),
    )
    return table.reset_index()


def claimed(ends: pd.DataFrame) -> dict[str, Values | dict[str, Values] | None]:
    """The values of every claim; None if not all of its arms were run."""
    missed = {
        (int(k), int(students - k)): (arm.sort_values("seed")["ended"] != "learnt").to_numpy(dtype=float)
        for (k, students), arm in ends.groupby(["teachers", "students"])
    }
    whole = all((k, extra) in missed for k in TEACHERS for extra in EXTRA)
    lone = ends[(ends["students"] == ends["teachers"]) & (ends["ended"] != "unfinished")]
    spurious = lone[lone["ended"] == "spurious"]
    learnt = lone[lone["ended"] == "learnt"]
    return {
        "most_restarts_learn": {f"k = {k}": 1 - missed[k, 0] for k in TEACHERS} if whole else None,
        "shares_are_the_published": (
            {f"k = {k}": missed[k, 0] - share for k, share in PUBLISHED.items()} if whole else None
        ),
        "an_extra_student_learns": {f"k = {k}": missed[k, 1] for k in TEACHERS} if whole else None,
        "spurious_ends_are_minima": _strict(spurious) if len(spurious) else None,
        "learnt_ends_are_minima": _strict(learnt) if len(learnt) else None,
    }


def _strict(ends: pd.DataFrame) -> ndarray:
    return (ends["certificate"] == "strict minimum").to_numpy(dtype=float)


if __name__ == "__main__":
    sys.exit(main("student_teacher", __doc__, PARTS, report))
