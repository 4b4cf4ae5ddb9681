import contextlib
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from shared import cell

from descentlab import cli
from descentlab.cli import planning
from descentlab.config.cells import cells as made
from descentlab.config.composing import compose
from descentlab.sweeps import capacity
from descentlab.sweeps import running as sweeps
from descentlab.tracking import open_tracker

QUICK = ["data=xor", "epochs=3"]


def anothers(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")


STORES = {
    "another program's": anothers,
    "corrupt": lambda path: path.write_bytes(b"no database" * 100),
    "a folder": lambda path: path.mkdir(),
    "under a file": lambda path: path.parent.joinpath("file").write_text("x"),
}


@pytest.mark.parametrize("kind", STORES)
def test_a_plan_over_a_store_that_cannot_be_read_is_refused_as_a_list_is(kind, tmp_path, capsys):
    path = tmp_path / "runs.db"
    STORES[kind](path)
    place = f"tracking.uri={path if kind != 'under a file' else tmp_path / 'file' / 'runs.db'}"
    assert cli.main(["list", place]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert (": is a folder; name a file in it, such as " in line) == (kind == "a folder")
    if "there is no store yet" not in line:
        for words in (["plan", *QUICK, place], [*QUICK, place]):
            assert cli.main(words) == 2
            said = capsys.readouterr()
            assert (said.out, said.err) == ("", line)


@pytest.mark.parametrize("place", ["tracking.uri=nowhere/runs.db", "tracking=none"])
def test_a_plan_without_a_store_counts_nothing_as_stored(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *QUICK, place]) == 0
    assert capsys.readouterr().out.startswith("cells     1: 0 stored already")
    assert list(tmp_path.iterdir()) == []


def bytes_of(folder):
    for path in folder.glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "words",
    [
        ["restarts=1"],
        ["restarts=30"],
        ["restarts=3", "network.hidden=100-100", "data=digits", "epochs=2"],
        ["restarts=400", "tracking.children=none"],
    ],
)
def test_a_plan_tells_the_disk_space_within_a_factor_of_two(words, store):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    configs = compose(["data=xor", "network.hidden=2", "epochs=20", *place, *words], sweep=False)
    (one,) = made(configs)
    told, source = planning._estimated_bytes([(one, one.config.restarts)], [])
    assert source == "computed from the sizes of weights and curves"
    folder = Path(store.numbers["uri"].removeprefix("sqlite:///")).parent
    with open_tracker(one.config.tracking) as tracker:  # the experiment itself is no part of a cell
        tracker.flush()
    before = bytes_of(folder)
    with open_tracker(one.config.tracking) as tracker:
        sweeps.run([one], tracker, progress=False)
    assert 0.5 < told / (bytes_of(folder) - before) < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("restarts", "words"),
    [
        (1500, ["tracking=none", "log_every=1", "epochs=100"]),
        (40, ["tracking=none", "network.hidden=400-400", "epochs=1", "diagnostics=none", "dtype=float32"]),
        (40, ["tracking=none", "network.hidden=400-400", "epochs=1", "diagnostics=none", "update=adam"]),
        (1500, ["epochs=20"]),
    ],
)
def test_the_memory_that_a_sweep_is_said_to_need_is_what_it_takes(restarts, words, store):
    place = (
        [] if "tracking=none" in words else [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    )
    base = ["data=xor", "network.hidden=2", "descent=batch", "learning_rate=1e-3", "workers=1", *place, *words]
    peaks = []
    for count in (2, restarts // 10, restarts):  # the first imports everything; the difference leaves out what is fixed
        cells = made(compose([*base, f"restarts={count}", f"seed={count * 10}"], sweep=False))
        with open_tracker(cells[0].config.tracking) as tracker:
            tracemalloc.start()
            try:
                sweeps.run(cells, tracker, progress=False)
                tracker.flush()
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    needed = capacity.needed(cells) * (1 - 1 / 10)
    assert 0.6 < needed / (peaks[2] - peaks[1]) < 1.7


def test_more_restarts_than_the_memory_holds_are_refused_with_those_that_fit(monkeypatch, capsys, tmp_path):
    place = f"tracking.uri={tmp_path / 'runs.db'}"
    words = ["data=xor", "network.hidden=2", "epochs=20", "restarts=2000", "seed=5"]
    monkeypatch.setattr(capacity, "available", lambda: 10_000_000)
    assert cli.main([*words, "tracking=none"]) == 0
    assert cli.main([*words, place]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("descentlab: error: restarts=2000: needs about 56.9 MB of memory, and 10.0 MB is free; ")
    fit = int(line.partition("; restarts=")[2].split()[0])
    assert line.endswith(f"restarts={fit} fits; train the others by a further command, from seed={5 + fit}")
    assert capacity.needed(made(compose([*words, f"restarts={fit}", place], sweep=False))) <= 10_000_000
    assert capacity.needed(made(compose([*words, f"restarts={fit + 2}", place], sweep=False))) > 10_000_000
    assert cli.main(["plan", *words, place]) == 0
    assert (
        "memory    about 56.9 MB of 10.0 MB that is free: too much, the command would be refused"
        in capsys.readouterr().out
    )


def test_a_plan_trains_less_than_a_tenth_of_the_work_or_one_epoch(monkeypatch):
    trained = []

    def train_recipe(recipe, *arguments):
        trained.append(recipe.epochs * recipe.restarts)
        return planning_train(recipe, *arguments)

    planning_train = planning.train_recipe
    monkeypatch.setattr(planning, "train_recipe", train_recipe)
    for settings in ({"epochs": 3, "restarts": 4}, {"epochs": 300}, {"restarts": 40_000, "network": {"hidden": [2]}}):
        trained.clear()
        config = cell(**{"tracking": "none", "workers": 1, **settings})
        planning.plan([config], config.tracking)
        assert sum(trained) <= max(config.epochs * config.restarts / 10, min(config.restarts, 10_000))
