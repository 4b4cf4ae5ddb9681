import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from shared import assert_same_trainings, drained, recipe, splits, with_snapshots

from descentlab.nn import memory
from descentlab.nn.checkpoints import KEPT, latest, read, read_arrays, write
from descentlab.nn.descent import DESCENTS
from descentlab.nn.trainer import iterate, train_recipe
from descentlab.nn.updates import UPDATES


@pytest.fixture
def several_chunks(monkeypatch):
    monkeypatch.setattr(memory, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(memory, "THREAD_WORK", 1)


# a resumed training has the bits of an uninterrupted one


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("descent", DESCENTS)
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(descent, update, dtype, tmp_path, several_chunks):
    # three rates side by side, two of them too large: restarts are lost early and late; logged epochs are far apart
    settings = recipe(
        descent=descent, update=update, dtype=dtype, learning_rate=(0.05, 1e3, 1e160), restarts=3, epochs=7,
        weight_decay=0.01, learning_rate_decay=0.9, seed=3, activation="leaky_relu", log_every=4,
        loss="mean_squared_error", output="linear", task="regression",
    )  # fmt: skip
    data = splits()
    whole = train_recipe(settings, data)
    assert (whole.diverged_epoch >= 0).any()
    assert (whole.diverged_epoch < 0).any()
    saving, kept = with_snapshots(settings, data)
    assert_same_trainings(whole, saving)
    assert [int(snapshot["epoch"]) for snapshot in kept] == list(range(7))
    for snapshot, workers in zip(kept, (1, 2, 3, 1, 2, 3, 1), strict=True):
        back = read(write(tmp_path, snapshot))
        resumed, records = drained(iterate(settings, data, workers, start=back))
        assert_same_trainings(whole, resumed)
        assert [record.epoch for record in records] == [0, 4, 7]
        assert resumed.seconds > float(snapshot["seconds"])


def test_a_training_may_stop_and_go_on_many_times(several_chunks):
    settings = recipe(update="adam", restarts=4, epochs=6, log_every=6, learning_rate=0.05)
    whole = train_recipe(settings, splits())
    start = None
    for epoch in range(6):
        kept = []
        records = iterate(settings, splits(), 1 + epoch % 2, save=kept.append, save_seconds=0, start=start)
        training, _ = drained(records)
        assert_same_trainings(whole, training)
        start = kept[0]
        assert int(start["epoch"]) == epoch


def test_snapshots_fall_between_logged_epochs_that_are_far_apart():
    settings = recipe(epochs=400, log_every=400, restarts=2)
    kept = []
    drained(iterate(settings, splits(), save=kept.append, save_seconds=0.01))
    assert all(0 < int(snapshot["epoch"]) < 400 for snapshot in kept)
    assert kept


def test_a_training_that_is_over_soon_makes_no_snapshot_and_is_hardly_cut(monkeypatch):
    from descentlab.nn.trainer import _Epochs

    spans = []
    advance = _Epochs.advance
    monkeypatch.setattr(_Epochs, "advance", lambda self, *a: spans.append(a[1:3]) or advance(self, *a))
    drained(iterate(recipe(epochs=50, log_every=50), splits(), save=lambda snapshot: pytest.fail("not due")))
    assert spans == [(0, 0), (1, 1), (2, 50)]


def test_progress_of_a_resumed_training_counts_what_was_done_before():
    settings = recipe(epochs=6, log_every=4, restarts=3)
    _, kept = with_snapshots(settings, splits())
    told = []
    drained(iterate(settings, splits(), 1, told.append, start=kept[5]))
    assert sum(told) == 3 * (6 - 4)


def test_a_snapshot_of_another_recipe_or_other_data_is_refused():
    settings = {"epochs": 2, "restarts": 2}
    _, kept = with_snapshots(recipe(**settings), splits())
    others = [{"seed": 1}, {"learning_rate": 0.2}, {"update": "momentum"}, {"activation": "relu"}, {"epochs": 3},
              {"descent": "batch"}, {"weight_decay": 0.1}, {"dtype": "float32"}, {"initializer": "he_normal"},
              {"log_every": 2}, {"diagnostics": "none"}, {"loss": "mean_squared_error"}]  # fmt: skip
    for other in others:
        with pytest.raises(ValueError, match="start: is a snapshot of another"):
            drained(iterate(recipe(**{**settings, **other}), splits(), start=kept[0]))
    with pytest.raises(ValueError, match="start: is a snapshot of another"):
        drained(iterate(recipe(**settings), splits(count=44), start=kept[0]))
    with pytest.raises(ValueError, match="start: is a snapshot of another"):
        drained(iterate(recipe(**settings), splits(), start={}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", np.zeros((2, 3))),
        ("parameters", None),
        ("state/velocity", np.zeros(2, dtype=np.float32)),
        ("streams", np.zeros((2, 6))),
        ("epoch", np.array(7)),
        ("epochs", np.array([3])),
        ("curves/train/loss", np.zeros((9, 9))),
        ("seconds", None),
    ],
)
def test_a_snapshot_with_an_array_out_of_shape_is_refused(name, value):
    settings = recipe(epochs=2, restarts=2, update="momentum")
    _, kept = with_snapshots(settings, splits())
    start = kept[0] | {name: value}
    if value is None:
        del start[name]
    with pytest.raises(ValueError, match=r"start: [^\n]+$"):
        drained(iterate(settings, splits(), start=start))


# files


def arrays(epoch=1):
    return {"epoch": np.array(epoch), "a/b": np.arange(6.0).reshape(2, 3), "c": np.zeros((0, 2), np.uint64)}


def test_arrays_come_back_as_they_were(tmp_path):
    kept = arrays() | {"f": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    back = read(write(tmp_path, kept))
    assert set(back) == set(kept)
    for name, array in kept.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back[name], array)


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for epoch in (1, 2, 11, 100):
        write(tmp_path, arrays(epoch))
    assert [int(read(path)["epoch"]) for path in sorted(tmp_path.iterdir())] == [11, 100]
    assert KEPT == 2


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    write(tmp_path, arrays(1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, arrays(2))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000001.npz"]
    assert int(latest(tmp_path)["epoch"]) == 1


def test_a_damaged_file_is_passed_over_for_the_one_before(tmp_path):
    write(tmp_path, arrays(1))
    path = write(tmp_path, arrays(2))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):  # a flipped bit anywhere, or a file that ends early
        cut = rng.random() < 0.3
        at = int(rng.integers(len(whole)))
        path.write_bytes(
            whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :]
        )
        told = []
        found = latest(tmp_path, told.append)
        if told:
            assert int(found["epoch"]) == 1
            assert len(told) == 1
            assert "\n" not in told[0]
            assert str(path) in told[0]
        else:  # a byte that says nothing, such as a file's time
            assert not cut
            np.testing.assert_array_equal(found["a/b"], arrays()["a/b"])
    assert latest(tmp_path / "none") is None


class Canary:
    def __reduce__(self):
        return (Path.touch, (Path(Canary.path),))


def archive(**members):
    """An .npz as bytes, of members that may be anything."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_nothing_is_ever_unpickled(tmp_path):
    Canary.path = str(tmp_path / "pwned")
    path = tmp_path / "checkpoint-000000001.npz"
    objects = np.empty(1, dtype=object)
    objects[0] = Canary()
    for data in (
        pickle.dumps(Canary()),
        archive(**{"a.npy": npy(objects)}),
        archive(**{"a.npy": pickle.dumps(Canary())}),
        archive(**{"a": pickle.dumps(Canary())}),
        npy(objects),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            read(path)
        assert latest(tmp_path) is None
    assert not Path(Canary.path).exists()
    pickle.loads(pickle.dumps(Canary()))  # it would have sung
    assert Path(Canary.path).exists()


def test_a_header_that_announces_more_than_there_is_takes_no_memory(tmp_path):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    path.write_bytes(archive(**{"a.npy": header.getvalue() + bytes(8)}))
    with pytest.raises(ValueError, match="announces shape"):
        read_arrays(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a.npy", bytes(10**7))
    with pytest.raises(ValueError, match="compressed"):
        read_arrays(path)
