import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def rooms(monkeypatch):
    # the benchmarks' modules, which import each other by name
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench
    import peers
    import speed
    import workloads

    return {"bench": bench, "peers": peers, "speed": speed, "workloads": workloads}


@pytest.fixture
def small(rooms):
    return next(w for w in rooms["workloads"].WORKLOADS if w.title == "W2 R=10").quick()


def bench(*words):
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--quick", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_quick_form_prints_tables_and_writes_nothing():
    results = BENCHMARKS / "results"
    before = {path: path.read_bytes() for path in [*results.glob("*"), ROOT / "docs" / "performance.md"]}
    done = bench("speed", "growth", "overhead")
    assert done.returncode == 0, done.stderr
    names = [
        "speed float32",
        "speed float64",
        "compilation",
        "agreement",
        "logging",
        "diagnostics",
        "memory",
        "start-up",
    ]
    assert [name for name in names if f"\n{name}\n" not in done.stdout] == []
    assert {path: path.read_bytes() for path in before} == before


def test_an_unknown_part_is_refused():
    done = bench("sped")
    assert done.returncode == 1
    assert "speed, growth, overhead, end_to_end" in done.stderr


def test_peers_that_are_here_end_with_the_weights_of_the_project(rooms, small):
    result = rooms["speed"].measure(small, "float64", rounds=1)
    assert result["disagreement"].keys() >= {"naive numpy", "scikit-learn"}
    assert max(result["disagreement"].values()) < 1e-12


def test_the_share_of_the_peak_is_what_the_products_alone_would_take_over_what_a_step_takes(rooms):
    result = {"operations": 3e6, "seconds": {"project": [2e-3, 1e-3, 9e-3]}, "peak": [3e9, 1e9, 9e9]}
    assert rooms["speed"].share_of_peak(result) == 0.5


def test_an_absent_peer_is_named_and_skipped(rooms, small, monkeypatch):
    monkeypatch.setattr(rooms["peers"], "PEERS", [rooms["peers"].Peer("a wish", "no_such_package", None)])
    assert rooms["speed"].measure(small, "float64", rounds=1)["skipped"] == {"a wish": "no_such_package is absent"}


def test_a_peer_that_does_other_work_ends_the_benchmark(rooms, small, monkeypatch):
    naive = rooms["peers"].naive

    def hasty(workload, dtype):
        return naive(replace(workload, rate=1.001 * workload.rate), dtype)

    monkeypatch.setattr(rooms["peers"], "PEERS", [rooms["peers"].Peer("hasty", "numpy", hasty)])
    with pytest.raises(SystemExit, match="W2 R=3 float64: weights of hasty differ from the project's"):
        rooms["speed"].measure(small, "float64", rounds=1)


def test_operations_are_those_of_the_products_of_a_step(rooms, small):
    # 40 samples: 64 * 32 + 32 * 10 forward and for the weights, 32 * 10 to hand the error back
    assert small.operations() == 2 * 40 * (2 * (64 * 32 + 32 * 10) + 32 * 10)


def test_the_tables_of_the_documentation_are_those_of_the_results(rooms):
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for path in sorted((BENCHMARKS / "results").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for name, text in rooms["bench"].texts(path.stem, result).items():
            shown = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)[1]
            assert shown == text, name
