import sqlite3

import pytest

from descentlab import cli

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
    assert capsys.readouterr().out.startswith("cells     1: 0 there already")
    assert list(tmp_path.iterdir()) == []
