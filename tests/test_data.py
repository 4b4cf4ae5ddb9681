import gzip
import hashlib
import struct
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from shared import changed

from descentlab.config.options import schemas
from descentlab.config.resolving import resolve
from descentlab.data import describing, scaling
from descentlab.data import loading as data
from descentlab.data import mnist as mnist_data
from descentlab.data import splits as split_rules
from descentlab.data.sources import SOURCES
from descentlab.data.table import Table
from descentlab.values import InputError, Option


def zipped(content):
    """Gzip without the time, so that a test's name is the same in every process."""
    return gzip.compress(content, mtime=0)


COMPLETE = [name for name in SOURCES if name not in ("file", "idx", "mnist", "notebook")]  # read without any file


def option(name, **numbers):
    own = {key: default for key, (_, default) in schemas("data")[name].items()}
    return Option(name, {**own, **numbers})


def load(name, **numbers):
    return data.load(option(name, **numbers))


def refused(name, **numbers):
    with pytest.raises(InputError) as caught:
        load(name, **numbers)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def labels(targets):
    return targets.argmax(axis=1) if targets.shape[1] > 1 else targets[:, 0].astype(int)


# --- every source ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETE)
def test_a_source_gives_float64_splits_of_its_own_task_and_width(name):
    dataset = load(name)
    source = SOURCES[name]
    numbers = option(name).numbers
    assert dataset.name == name
    assert dataset.task == source.task(numbers)
    assert set(dataset.splits) == {"train", "validation", "test"}
    for inputs, targets in dataset.splits.values():
        assert inputs.dtype == targets.dtype == np.float64
        assert len(inputs) == len(targets) > 0
        assert targets.shape[1] == source.outputs(numbers)
        assert np.isfinite(inputs).all()
        assert np.isfinite(targets).all()


def test_shipped_tables_are_what_scikit_learns_loaders_give():
    from sklearn import datasets

    for name in ("digits", "iris", "breast_cancer"):
        table = SOURCES[name].read(option(name).numbers)
        theirs = getattr(datasets, f"load_{name}")()
        np.testing.assert_array_equal(table.inputs, theirs.data)
        np.testing.assert_array_equal(labels(table.targets), theirs.target)
    table = SOURCES["diabetes"].read({})
    theirs = datasets.load_diabetes(scaled=False)
    np.testing.assert_array_equal(table.inputs, theirs.data)
    np.testing.assert_array_equal(table.targets[:, 0], theirs.target)


def test_xor_is_four_rows_and_every_split():
    splits = load("xor").splits
    assert splits["train"][0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert splits["train"][1].tolist() == [[0], [1], [1], [0]]
    for split in ("validation", "test"):
        np.testing.assert_array_equal(splits[split][0], splits["train"][0])


@pytest.mark.parametrize(("name", "radii"), [("circles", (1.0, 0.5)), ("moons", None), ("spirals", None)])
def test_curves_in_the_plane_have_two_classes_in_turn(name, radii):
    table = SOURCES[name].read(option(name, noise=0.0, samples=101).numbers)
    assert table.targets[:, 0].tolist() == [i % 2 for i in range(101)]
    if radii:
        for label, radius in enumerate(radii):
            distance = np.linalg.norm(table.inputs[label::2], axis=1)
            np.testing.assert_allclose(distance, radius)


def test_moons_are_scikit_learns_without_noise():
    from sklearn.datasets import make_moons

    theirs, classes = make_moons(100, shuffle=False, noise=None)
    table = SOURCES["moons"].read(option("moons", noise=0.0, samples=100).numbers)
    for label in (0, 1):
        np.testing.assert_allclose(table.inputs[label::2], theirs[classes == label], atol=1e-12)


def test_noise_moves_points_by_its_standard_deviation():
    still, moved = (SOURCES["moons"].read(option("moons", noise=n, samples=4000).numbers).inputs for n in (0, 0.3))
    assert (moved - still).std() == pytest.approx(0.3, rel=0.05)


def test_two_classes_are_one_column_or_one_hot():
    column, one_hot = (load("breast_cancer", targets=form) for form in ("column", "one_hot"))
    assert (column.task, one_hot.task) == ("binary", "multiclass")
    np.testing.assert_array_equal(column.splits["train"][1][:, 0], one_hot.splits["train"][1][:, 1])
    np.testing.assert_array_equal(column.splits["test"][0], one_hot.splits["test"][0])


def test_a_dataset_is_loaded_once_and_cannot_be_written_to():
    assert load("iris") is load("iris")
    with pytest.raises(ValueError, match="read-only"):
        load("iris").splits["train"][0][0] = 0


def test_the_digest_tells_data_apart():
    digests = [
        load("iris", **numbers).digest for numbers in ({}, {"split_seed": 1}, {"scaling": "none"}, {"limit": 20})
    ]
    assert len(set(digests)) == 4
    data.forget()
    assert load("iris").digest == digests[0]


def test_data_that_differ_in_split_or_scaling_share_one_table_which_is_read_once(monkeypatch):
    data.forget()
    read = []
    own = SOURCES["digits"]
    monkeypatch.setitem(SOURCES, "digits", replace(own, read=lambda numbers: read.append(1) or own.read(numbers)))
    datasets = [load("digits", split_seed=seed, scaling=rule) for seed in range(10) for rule in ("unit", "standard")]
    assert len(read) == 1
    assert {id(dataset.table) for dataset in datasets} == {id(datasets[0].table)}
    assert len({dataset.digest for dataset in datasets}) == 20
    for dataset in datasets:
        assert dataset.splits["train"][0].shape == (len(dataset.rows["train"]), dataset.inputs)
        assert dataset.splits["test"][1].shape == (len(dataset.rows["test"]), dataset.outputs)
    assert len(data._made) == 1


def test_twenty_splits_of_a_large_table_take_the_memory_of_row_numbers(monkeypatch):
    data.forget()
    table = Table("large", np.zeros((70_000, 784), np.uint8), np.eye(10)[np.arange(70_000) % 10], "multiclass")
    monkeypatch.setitem(SOURCES, "digits", replace(SOURCES["digits"], read=lambda numbers: table))
    tracemalloc.start()
    datasets = [load("digits", split_seed=seed) for seed in range(20)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 20 * 70_000 * 8 * 1.1
    assert len({tuple(dataset.rows["test"][:100]) for dataset in datasets}) == 20
    data.forget()  # a table that is not the digits'


def test_the_digest_is_of_the_table_and_how_it_is_split_not_of_where_the_file_lies(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n1,0.5\n2,1.5\n3,2.5\n")
    a, b = (load("file", path=str(tmp_path / name), **ALL) for name in ("a.csv", "b.csv"))
    assert a is not b
    assert a.digest == b.digest
    assert a.digest != load("file", path=str(tmp_path / "a.csv"), **{**ALL, "scaling": "standard"}).digest


# --- splits ------------------------------------------------------------------------------------------------------


def rows_of(name, **numbers):
    table = SOURCES[name].read(option(name, **numbers).numbers)
    return split_rules.chosen_rows(table, option(name, **numbers).numbers), table


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "xor"])
def test_splits_are_60_20_20_percent_of_all_rows_each_row_in_one(name):
    rows, table = rows_of(name)
    n = len(table.inputs)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(n))
    assert len(rows["test"]) == len(rows["validation"]) == round(n * 0.2)


@pytest.mark.parametrize("name", ["digits", "iris", "breast_cancer"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_split_has_the_classes_in_their_shares(name, seed):
    rows, table = rows_of(name, split_seed=seed)
    classes = labels(table.targets)
    share = np.bincount(classes) / len(classes)
    for chosen in rows.values():
        counts = np.bincount(classes[chosen], minlength=len(share))
        assert np.abs(counts - share * len(chosen)).max() <= 1


def test_splits_are_drawn_from_their_own_seed_and_not_in_file_order():
    drawn = [rows_of("diabetes", split_seed=seed)[0]["test"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != list(range(len(drawn[0])))


def test_rows_of_a_split_keep_the_order_of_the_file():
    for chosen in rows_of("digits", limit=100)[0].values():
        assert (np.diff(chosen) > 0).all()


def test_shares_may_leave_splits_out():
    assert set(load("iris", split="80-0-20").splits) == {"train", "test"}
    assert set(load("iris", split="100-0-0").splits) == {"train"}


def test_limit_leaves_each_split_at_most_so_many_rows_with_the_classes_in_their_shares():
    for inputs, targets in load("iris", limit=12).splits.values():
        assert len(inputs) == 12
        assert targets.sum(axis=0).tolist() == [4, 4, 4]


def test_row_ranges_are_taken_as_they_stand():
    splits = load("digits", train_rows="10:20", test_rows="0:5", scaling="none").splits
    table = SOURCES["digits"].read({})
    assert set(splits) == {"train", "test"}
    np.testing.assert_array_equal(splits["train"][0], table.inputs[10:20])
    np.testing.assert_array_equal(splits["test"][1], table.targets[:5])


@pytest.mark.parametrize(
    ("numbers", "begins"),
    [
        ({"train_rows": "0:1798"}, "data.train_rows=0:1798: digits has 1797 rows"),
        ({"test_rows": "0:10"}, "data.train_rows=auto: must be given"),
    ],
)
def test_rows_that_are_not_there_are_refused(numbers, begins):
    assert refused("digits", **numbers).startswith(begins)


def test_shares_that_leave_a_split_empty_are_refused():
    assert refused("moons", samples=10, split="97-2-1").startswith("data.split=97-2-1: leaves no rows for ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_rows", "5:5"), ("train_rows", "9:3"), ("train_rows", "5"), ("train_rows", 90), ("train_rows", "-1:3"),
     ("split", "60-20"), ("split", "60-20-21"), ("split", "0-50-50"), ("split", [True, 50, 49]), ("split", "1e1-0-90"),
     ("limit", 0), ("limit", "some"), ("split_seed", -1), ("scaling", "minmax"), ("image_size", 0)],
)  # fmt: skip
def test_a_number_that_means_nothing_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=rf"^data\.{key}="):
        resolve(changed(data={"name": "digits", key: value}))


# --- scaling -----------------------------------------------------------------------------------------------------


def test_standard_scaling_is_fitted_on_the_training_rows_alone():
    splits = load("iris", scaling="standard").splits
    np.testing.assert_allclose(splits["train"][0].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(splits["train"][0].std(axis=0), 1)
    assert np.abs(splits["test"][0].mean(axis=0)).min() > 1e-3


def test_unit_scaling_maps_the_training_range_to_0_and_1():
    train = load("digits").splits["train"][0]
    assert (train.min(), train.max()) == (0, 1)
    np.testing.assert_array_equal(train * 16, load("digits", scaling="none").splits["train"][0])


def test_regression_targets_are_standardised_where_asked():
    splits = load("diabetes").splits
    np.testing.assert_allclose((splits["train"][1].mean(), splits["train"][1].std()), (0, 1), atol=1e-12)
    assert load("diabetes", target_scaling="none").splits["train"][1].max() > 100


def test_a_constant_column_is_scaled_to_0():
    x = np.array([[3.7, 1.0], [3.7, 2.0], [3.7, 6.0]])
    np.testing.assert_allclose(scaling.fitted("standard", x)(x)[:, 0], 0, atol=1e-15)
    assert scaling.fitted("unit", np.full((2, 2), 5.0))(np.full((1, 2), 5.0)).tolist() == [[0, 0]]


# --- images ------------------------------------------------------------------------------------------------------


def test_an_image_is_averaged_over_areas():
    image = np.arange(16.0).reshape(1, 16)
    assert scaling.shrunk(image, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    np.testing.assert_allclose(scaling.shrunk(image, 4), image)
    # 3 -> 2: a pixel of the result covers one and a half, so the middle counts half on either side
    three = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]])
    corner = (1 + 2 / 2 + 4 / 2 + 5 / 4) / 2.25
    np.testing.assert_allclose(scaling.shrunk(three, 2)[0, 0], corner)
    np.testing.assert_allclose(scaling.shrunk(three, 1), [[5.0]])


def test_shrinking_keeps_the_mean_brightness():
    images = np.random.default_rng(0).uniform(size=(5, 784))
    np.testing.assert_allclose(scaling.shrunk(images, 10).mean(axis=1), images.mean(axis=1))


def test_image_size_is_a_setting_and_images_do_not_grow():
    assert load("digits", image_size=4).splits["train"][0].shape[1] == 16
    assert refused("digits", image_size=9) == "data.image_size=9: must be at most 8, the images' own size"


ALL = {"train_rows": "0:3", "scaling": "none"}


# --- MNIST -------------------------------------------------------------------------------------------------------


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = generator.integers(0, 256, (count, 28, 28))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(zipped(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return tmp_path


FEW = {"train_rows": "0:20", "validation_rows": "20:30", "test_rows": "30:40"}


def test_idx_files_compressed_or_not_are_read_with_t10k_after_the_training_rows(folder):
    splits = load("idx", path=str(folder), scaling="none", **FEW).splits
    assert {name: x.shape for name, (x, _) in splits.items()} == {
        "train": (20, 784), "validation": (10, 784), "test": (10, 784)
    }  # fmt: skip
    t10k = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    np.testing.assert_array_equal(splits["test"][0].ravel(), np.frombuffer(t10k, np.uint8))
    assert labels(splits["test"][1]).tolist() == list(range(10))


def test_mnist_is_looked_for_in_the_folder_that_the_environment_names(folder, monkeypatch):
    known = mnist_data.mnist_sha256(*mnist_data.idx_files(folder))
    monkeypatch.setattr(mnist_data, "MNIST_SHA256", known)
    monkeypatch.setenv("DESCENTLAB_MNIST", str(folder))
    assert load("mnist", **FEW).digest == load("mnist", path=str(folder), **FEW).digest


def test_mnist_of_other_images_is_refused_and_told_of_idx(folder, monkeypatch):
    assert "its files are not MNIST's; data=idx data.path=FOLDER" in refused("mnist", path=str(folder), **FEW)
    monkeypatch.setenv("DESCENTLAB_MNIST", str(folder))
    assert refused("mnist", **FEW).startswith("DESCENTLAB_MNIST=")


def test_idx_files_of_any_name_and_number_of_classes_are_read(tmp_path):
    for part, count in (("emnist-letters-train", 52), ("emnist-letters-test", 26)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(np.full((count, 5, 7), 9)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(zipped(idx(np.arange(count) % 26 + 1)))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97")
    dataset = load("idx", path=str(tmp_path), split="50-50-0")
    assert {split: len(rows) for split, rows in dataset.rows.items()} == {"train": 26, "validation": 26, "test": 26}
    assert (dataset.inputs, dataset.outputs, dataset.task) == (35, 26, "multiclass")
    found = describing.inspected(dataset)
    assert found["classes"] == {str(letter): 3 for letter in range(1, 27)}
    assert found["targets"] == ["label"]
    assert dataset.rows["test"].tolist() == list(range(52, 78))
    (tmp_path / "emnist-digits-train-images").write_bytes(idx(np.full((3, 5, 7), 9)))
    assert "several files of training images (emnist-digits-train-images, emnist-letters-" in refused(
        "idx", path=str(tmp_path)
    )


def test_a_folder_without_idx_files_is_refused(tmp_path):
    assert "holds no IDX file of training images" in refused("idx", path=str(tmp_path))
    assert "must be a folder" in refused("idx", path=str(tmp_path / "none"))
    assert "needs a folder" in refused("idx")


def test_a_split_of_mnist_divides_the_training_rows_and_leaves_the_test_rows(monkeypatch):
    table = Table(
        "mnist", np.zeros((70_000, 4), np.uint8), np.eye(10)[np.arange(70_000) % 10], "multiclass", tests=10_000
    )
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], read=lambda numbers: table))
    data.forget()
    plain = load("mnist")
    assert plain.rows["train"].tolist() == list(range(50_000))
    drawn = [load("mnist", split="80-20-0", split_seed=seed).rows for seed in (0, 0, 1)]
    assert {split: len(rows) for split, rows in drawn[0].items()} == {
        "train": 48_000,
        "validation": 12_000,
        "test": 10_000,
    }
    assert drawn[0]["train"].tolist() == drawn[1]["train"].tolist() != drawn[2]["train"].tolist()
    for rows in drawn:
        assert rows["test"].tolist() == list(range(60_000, 70_000))
        assert max(rows["train"].max(), rows["validation"].max()) < 60_000
    assert "beside data.train_rows" in refused("mnist", split="80-20-0", train_rows="0:100")
    monkeypatch.setitem(SOURCES, "idx", replace(SOURCES["idx"], read=lambda numbers: table))
    ranges = {"train_rows": "0:50000", "validation_rows": "50000:60000", "test_rows": "60000:70000"}
    assert load("idx", **ranges).rows["train"].tolist() == list(range(50_000))  # as given, not as MNIST's default
    data.forget()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-images-idx3-ubyte.gz", b"not gzip", "no IDX file of training images"),
        ("train-images-idx3-ubyte.gz", zipped(b"1234" * 10), "no IDX file of training images"),
        ("train-labels-idx1-ubyte", b"", "no IDX file of training labels"),
        ("train-labels-idx1-ubyte", idx(np.zeros((2, 2))), "no IDX file of training labels"),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((0, 28, 28)))), "holds no images"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30))[:-1], "holds 29 values, and its header promises 30"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30))[:6], "is cut short"),
        ("train-labels-idx1-ubyte", idx(np.zeros(29)), "holds 29 labels for 30 images"),
        ("t10k-labels-idx1-ubyte", idx(np.full(10, 10)), "training has no row of class '10'"),
        ("t10k-images-idx3-ubyte.gz", zipped(idx(np.zeros((10, 28, 27)))), "of one size"),
        ("train-images-idx3-ubyte.gz", zipped(idx(np.zeros((30, 28, 28))))[:-20], "cannot be read"),
    ],
)
def test_a_broken_idx_file_is_refused_by_name(folder, name, content, says):
    (folder / name).write_bytes(content)
    message = refused("idx", path=str(folder), **FEW)
    assert says in message
    assert str(folder) in message or folder.name in message


def test_a_broken_file_of_mnist_is_refused_by_name(folder):
    path = folder / "train-labels-idx1-ubyte"
    for content, says in ((b"", "starts with nothing"), (idx(np.zeros((2, 2))), "not as an IDX file of labels")):
        path.write_bytes(content)
        message = refused("mnist", path=str(folder), **FEW)
        assert says in message
        assert str(path) in message


def test_a_missing_idx_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert "holds no IDX file of test labels" in refused("idx", path=str(folder), **FEW)


@pytest.mark.parametrize("key", ["train_rows", "validation_rows", "test_rows"])
def test_rows_beyond_the_files_are_refused(folder, key):
    assert refused("idx", path=str(folder), **{**FEW, key: "39:41"}).startswith(
        f"data.{key}=39:41: {folder.name} has 40 rows"
    )


@pytest.fixture
def openml(monkeypatch, tmp_path):
    # a fetcher of a made-up MNIST of 40 rows, and a home to keep it in; -> how often it was asked
    import sklearn.datasets

    generator = np.random.default_rng(1)
    pixels, digits = generator.integers(0, 256, (40, 784)), np.arange(40) % 10
    asked = []

    class Found:
        data, target = pixels.astype(float), digits.astype(str)

    def fetch(name, version, **settings):
        asked.append((name, version, settings["n_retries"]))
        warnings.warn("a network error, retrying", stacklevel=2)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    answer = [Found]
    monkeypatch.delenv("DESCENTLAB_MNIST", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.setattr(mnist_data, "MNIST_SHA256", mnist_data.mnist_sha256(pixels.reshape(-1, 28, 28), digits))
    data.forget()
    yield asked, answer
    data.forget()


def test_mnist_comes_from_openml_once_and_from_the_kept_file_after_that(openml):
    asked, answer = openml
    first = load("mnist", **FEW).digest
    data.forget()
    answer[0] = OSError("no network")
    assert load("mnist", **FEW).digest == first
    assert asked == [("mnist_784", 1, 3)]


def test_a_kept_file_that_is_damaged_is_fetched_anew(openml, tmp_path):
    asked, _ = openml
    first = load("mnist", **FEW).digest
    (kept,) = (tmp_path / "home").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    data.forget()
    assert load("mnist", **FEW).digest == first
    assert len(asked) == 2


def test_a_failing_fetch_is_one_line_that_names_data_path(openml, recwarn):
    openml[1][0] = ConnectionError("name resolution\nfailed")
    message = refused("mnist", **FEW)
    assert list(recwarn) == []
    assert message.startswith("data.path=auto: OpenML does not send MNIST (name resolution failed); set data.path")


def test_what_is_not_mnist_is_refused(openml, monkeypatch):
    monkeypatch.setattr(mnist_data, "MNIST_SHA256", hashlib.sha256().hexdigest())
    assert "is not MNIST as known" in refused("mnist", **FEW)


@pytest.mark.mnist
def test_the_checksum_is_that_of_mnist(mnist):
    assert mnist_data.mnist_sha256(*mnist_data.idx_files(mnist)) == mnist_data.MNIST_SHA256


@pytest.fixture
def idx_only(mnist, monkeypatch, tmp_path):
    """A folder of MNIST's IDX files alone, named by DESCENTLAB_MNIST, and the working folder elsewhere."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for file in mnist.glob("*ubyte*"):
        (folder / file.name).symlink_to(file)
    monkeypatch.setenv("DESCENTLAB_MNIST", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.mnist
def test_the_notebooks_data_are_mnists_first_250_images_and_the_first_50_of_t10k(mnist, idx_only, monkeypatch):
    cut = load("notebook")
    whole = load("mnist", train_rows="0:250", validation_rows="auto", test_rows="60000:60050").splits
    monkeypatch.setenv("DESCENTLAB_MNIST", str(mnist))
    file = load("notebook")
    assert file.notes == cut.notes == ()
    assert {name: x.shape for name, (x, _) in file.splits.items()} == {"train": (250, 784), "test": (50, 784)}
    for split in file.splits:
        np.testing.assert_array_equal(cut.splits[split][0], whole[split][0])
        np.testing.assert_allclose(cut.splits[split][0], file.splits[split][0], atol=1e-9)
        np.testing.assert_array_equal(cut.splits[split][1], file.splits[split][1])


@pytest.mark.mnist
def test_the_notebooks_file_is_found_in_data_beside_the_working_folder(mnist, idx_only, tmp_path):
    cut = load("notebook").digest
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST_preprocessed.csv").symlink_to(mnist / "MNIST_preprocessed.csv")
    assert load("notebook").digest == load("notebook", path=str(mnist)).digest != cut
    assert load("notebook", path=str(idx_only)).digest == cut


@pytest.mark.mnist
def test_a_file_whose_rows_are_not_the_notebooks_is_told_with_the_rows_that_it_holds(mnist, tmp_path):
    images, labels = mnist_data.idx_files(mnist)
    path = tmp_path / "MNIST_preprocessed.csv"

    def notes(rows):
        table = np.hstack([images[rows].reshape(len(rows), -1) / 255, np.eye(10)[labels[rows]]])
        np.savetxt(path, table, delimiter=",", fmt="%.10g")
        return load("notebook", path=str(path)).notes

    (note,) = notes(np.arange(300))
    assert note.startswith(f"{path}: rows 250-299 are training rows 250-299, not MNIST's t10k rows 0-49: ")
    (note,) = notes(np.r_[1:251, 60_000:60_050])
    assert "rows 0-249 are other images, not MNIST's training rows 0-249" in note
    assert notes(np.r_[0:250, 60_000:60_050]) == ()


@pytest.mark.mnist
def test_mnist_shrinks_to_10_by_10(mnist):
    dataset = load("mnist", path=str(mnist), train_rows="50000:50100", validation_rows="auto", image_size=10, limit=100)
    assert {name: x.shape for name, (x, _) in dataset.splits.items()} == {"train": (100, 100), "test": (100, 100)}
    assert 0.9 < dataset.splits["train"][0].max() < 1 + 1e-12
