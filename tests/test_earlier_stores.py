"""Stores that earlier versions wrote, one of each form in stores/, are read as the runs they were."""

import tarfile
from pathlib import Path

import pandas as pd
import pytest
from shared import of, sweep

from descentlab.cli import exporting, listing, status
from descentlab.config import composing
from descentlab.tracking import find, results
from descentlab.values import Option

STORES = sorted((Path(__file__).parent / "stores").glob("*.tar.xz"))


@pytest.fixture(params=STORES, ids=lambda path: path.name)
def option(request, tmp_path):
    """An earlier store, at another place than the one that it was written at."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return Option("local", {"uri": str(tmp_path / "mlflow.db")})


def test_an_earlier_store_is_listed_shown_and_exported(option, tmp_path):
    assert "2 cells" in listing.list_runs([], option)
    assert "1 sweep" in listing.list_runs(["sweeps"], option)
    assert status.status([], option).splitlines()[1].split()[-2:] == ["2", "2"]  # planned, done
    for run in find(option):
        text = listing.show([run.run_id], option)
        assert "curves.parquet" in text
        assert f"{run.metrics['test/loss']:.4g}" in text
    exporting.export([str(tmp_path / "all.csv")], option)
    assert pd.read_csv(tmp_path / "all.csv")["seed"].tolist() == [0, 1, 0, 1]


def test_tables_of_an_earlier_store_are_those_of_its_files(option):
    cells, restarts = results.cells(option), results.restarts(option)
    assert cells["activation"].tolist() == ["tanh", "relu"]
    assert cells[["diverged", "exploded"]].to_numpy().tolist() == [[0, 0], [0, 0]]
    means = restarts.groupby("activation", sort=False)["test/loss"].mean()
    assert cells["test/loss"].tolist() == pytest.approx(means.tolist(), rel=1e-12)
    assert len(results.curves(option, metrics=["train/loss"])) == 2 * 2 * 5
    assert results.weights(option, cells["run_id"][0]).final["W1"].shape == (2, 2, 2)


def test_a_cell_is_trained_beside_those_of_an_earlier_store(option):
    before = results.restarts(option)
    (config,) = composing.compose(["data=xor", "network.hidden=2", "restarts=3", "epochs=4"], sweep=False)
    _, (training,) = sweep(option, config)
    assert training.seeds.tolist() == [0, 1, 2]
    assert [run.key for run in find(option)].count(of(config).key) == 1
    after = results.restarts(option)
    pd.testing.assert_frame_equal(after[after["run_id"].isin(before["run_id"])][before.columns], before)
