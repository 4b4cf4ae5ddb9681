"""experiments/literature/student_teacher.py: descent of students, and the values of its claims."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from descentlab.analysis.students import Students
from descentlab.analysis.verdicts import declared, judge

PATH = Path(__file__).resolve().parents[1] / "experiments" / "literature" / "student_teacher.py"
spec = importlib.util.spec_from_file_location("student_teacher", PATH)
student_teacher = importlib.util.module_from_spec(spec)
spec.loader.exec_module(student_teacher)


def test_a_students_end_does_not_depend_on_its_company():
    loss = Students(4, 4)
    start = np.stack([student_teacher.drawn(loss, seed) for seed in range(6)])
    ends, steps = student_teacher.descend(loss, start)
    assert len(set(steps)) > 1
    assert (np.linalg.norm(loss.value_and_gradient(ends)[1], axis=1) < 1e-9).all()
    for row in (0, 5):
        end, step = student_teacher.descend(loss, start[row : row + 1])
        np.testing.assert_array_equal(end[0], ends[row])
        assert step[0] == steps[row]


def test_a_descent_that_is_cut_short_is_unfinished_where_it_stands():
    loss = Students(4, 4)
    end, steps = student_teacher.descend(loss, student_teacher.drawn(loss, 0)[None], most=3)
    assert steps[0] == 3
    assert np.linalg.norm(loss.value_and_gradient(end)[1]) > 1e-3


def test_a_known_spurious_minimum_is_told_from_the_global_one():
    table = student_teacher.end_table(8, 8, 8)
    assert set(table["ended"]) == {"learnt", "spurious"}
    assert (table["certificate"] == "strict minimum").all()
    spurious = table[table["ended"] == "spurious"]
    assert spurious["loss"].to_numpy() == pytest.approx(0.02151, abs=1e-5)
    assert (table["smallest"] > 0.02).all()
    assert student_teacher.level_table(table)["level"].iloc[0] == 0


def test_minima_that_differ_in_the_order_of_students_alone_are_counted_once():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 3))
    points = [one, one[[2, 0, 3, 1]], other, one[:, [1, 0, 2]], other[::-1] + 1e-9]
    kinds = student_teacher.minima_of(Students(4, 3), np.reshape(points, (5, 12)))
    assert kinds.tolist() == [0, 0, 1, 2, 1]


def test_the_students_that_learn_find_one_minimum_and_the_level_table_counts_it():
    table = student_teacher.end_table(8, 8, 8)
    levels = student_teacher.level_table(table)
    assert levels["distinct"].iloc[0] == 1  # each teacher has its student, in some order
    assert (levels["distinct"] <= levels["restarts"]).all()


def ends(missed, extra_missed):
    rows = []
    for k in student_teacher.TEACHERS:
        for extra, share in ((0, missed), (1, extra_missed)):
            for seed in range(1000):
                ended = "spurious" if seed < 1000 * share(k) else "learnt"
                rows.append((k + extra, k, seed, ended, "strict minimum" if not extra else "none"))
    return pd.DataFrame(rows, columns=["students", "teachers", "seed", "ended", "certificate"])


def test_claims_follow_from_the_shares_and_the_certificates():
    import yaml

    raw = yaml.safe_load((PATH.parent / "claims" / "student_teacher.yaml").read_text())
    published = {7: 0.049, 9: 0.237}
    table = ends(lambda k: published.get(k, 0.3), lambda k: 0.01)
    rows = judge(declared(raw), student_teacher.claimed(table))
    assert {row.verdict for row in rows} == {"supported"}
    worse = ends(lambda k: 0.6, lambda k: 0.1).assign(certificate="saddle")
    assert {row.verdict for row in judge(declared(raw), student_teacher.claimed(worse))} == {"not supported"}
    few = table[table["teachers"] == 8]
    assert student_teacher.claimed(few)["most_restarts_learn"] is None
