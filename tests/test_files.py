"""data=file: what must be read, what must be refused and with which words, and what is said."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from descentlab import cli
from descentlab.config.cells import cells
from descentlab.config.composing import compose
from descentlab.config.options import schemas
from descentlab.config.resolving import resolve
from descentlab.data import describing, loading, text
from descentlab.data.content import content
from descentlab.sweeps import running as sweeps
from descentlab.tracking import find, open_tracker
from descentlab.values import InputError, Option

CASES = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of tests/data and digits_train.csv, made from scikit-learn's digits."""
    from sklearn.datasets import load_digits

    place = tmp_path_factory.mktemp("cases")
    for path in CASES.iterdir():
        shutil.copy(path, place)
    digits = load_digits()
    table = np.column_stack([digits.target, digits.data])[:600]
    head = ",".join(["label", *(f"pixel{k}" for k in range(64))])
    np.savetxt(place / "digits_train.csv", table, fmt="%d", delimiter=",", header=head, comments="")
    return place


def load(path, **own):
    numbers = {key: own.get(key, default) for key, (_, default) in schemas("data")["file"].items()}
    numbers = {key: test(f"data.{key}", numbers[key]) for key, (test, _) in schemas("data")["file"].items()}
    option, _ = loading.with_task(Option("file", {**numbers, "path": str(path)}))
    dataset = loading.load(option)
    assert loading.load(loading.with_task(option)[0]) is dataset  # what was found finds it again
    return dataset


def check(config):
    return cells([config])[0].dataset


def train(*configs):
    return sweeps.run(cells(configs), open_tracker(configs[0].tracking), progress=False)


def refused(path, **own):
    with pytest.raises(InputError) as caught:
        load(path, **own)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def about(path, **own):
    return describing.inspected(load(path, **own))


@pytest.fixture
def write(tmp_path):
    def write(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- files as people have them ---------------------------------------------------------------------------------------

TITANIC = {"target": "Survived", "drop": ["PassengerId", "Name"]}
READ = [  # file, words, rows, inputs, targets, task, classes
    ("iris.data", {}, 150, 4, ["5"], "classes", {"Iris-setosa": 50, "Iris-versicolor": 50, "Iris-virginica": 50}),
    ("iris_123.csv", {"task": "classes"}, 150, 4, ["class"], "classes", {"1": 50, "2": 50, "3": 50}),
    ("iris_onehot.csv", {"target": ["a", "b", "c"]}, 150, 4, ["a", "b", "c"], "classes", {"a": 50, "b": 50, "c": 50}),
    ("Iris_kaggle.csv", {"drop": "Id"}, 150, 4, ["Species"], "classes", dict.fromkeys(
        ("Iris-setosa", "Iris-versicolor", "Iris-virginica"), 50)),
    ("wine.data", {"target": 1, "task": "classes"}, 178, 13, ["1"], "classes", {"1": 59, "2": 71, "3": 48}),
    ("moons_12.csv", {}, 200, 2, ["label"], "binary", {"1": 100, "2": 100}),
    ("moons_pm1.csv", {}, 200, 2, ["label"], "binary", {"-1": 100, "1": 100}),
    ("moons_labelfirst.csv", {}, 200, 2, ["label"], "binary", {"0": 100, "1": 100}),
    ("bcw.data", {"drop": 1}, 200, 9, ["11"], "binary", {"2": 133, "4": 67}),
    ("ionosphere.data", {}, 150, 6, ["7"], "binary", {"b": 50, "g": 100}),
    ("titanic.csv", {**TITANIC, "missing": "mean", "categories": "one_hot"}, 100, 4, ["Survived"], "binary",
     {"0": 50, "1": 50}),
    ("winequality.csv", {"task": "regression"}, 200, 4, ["quality"], "regression", {}),
    ("german.csv", {"decimal": "comma"}, 200, 2, ["Preis"], "regression", {}),
    ("miss_q.csv", {"missing": "drop"}, 199, 2, ["y"], "binary", {"0": 98, "1": 101}),
    ("tabs.tsv", {}, 200, 2, ["y"], "binary", {"0": 99, "1": 101}),
    ("utf16.csv", {"encoding": "utf-16"}, 200, 2, ["y"], "binary", {"0": 99, "1": 101}),
    ("multilabel.csv", {"target": ["l1", "l2", "l3"]}, 200, 2, ["l1", "l2", "l3"], "multilabel",
     {"l1": 95, "l2": 105, "l3": 101}),
    ("xor.csv", {"train_rows": "0:4"}, 4, 2, ["y"], "binary", {"0": 2, "1": 2}),
    ("xor.csv", {"split": "100-0-0"}, 4, 2, ["y"], "binary", {"0": 2, "1": 2}),
    ("imbal.csv", {}, 500, 2, ["y"], "binary", {"0": 490, "1": 10}),
    ("unscaled.csv", {}, 200, 2, ["price"], "regression", {}),
    ("sine.csv", {}, 100, 1, ["y"], "regression", {}),
    ("moons.parquet", {}, 200, 2, ["y"], "binary", {"0": 100, "1": 100}),
    ("moons.npz", {}, 200, 2, ["3"], "binary", {"0": 100, "1": 100}),
    ("pima.csv", {}, 300, 5, ["6"], "binary", {"0": 185, "1": 115}),
    ("digits_unlabelled.csv", {}, 100, 63, ["pixel63"], "regression", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "own", "rows", "inputs", "targets", "task", "classes"), READ)
def test_a_file_is_read_as_it_is_meant(name, own, rows, inputs, targets, task, classes):
    found = about(CASES / name, **own)
    assert sum(found["rows"].values()) == rows
    assert (len(found["inputs"]), found["targets"], found["task"]) == (inputs, targets, task)
    assert found["classes"] == classes
    dataset = load(CASES / name, **own)
    for x, y in dataset.splits.values():
        assert x.shape[1] == inputs
        assert np.isfinite(x).all()
        assert np.isfinite(y).all()


REFUSED = [
    ("iris_123.csv", {}, ["column class", "look like labels", "data.task=classes"]),
    ("iris_onehot.csv", {}, ["a, b, c are one-hot", "data.target=[a,b,c]"]),
    ("iris_index.csv", {"target": ["a", "b", "c"]}, ["counts or identifies the rows", "data.drop=1"]),
    ("Iris_kaggle.csv", {}, ["column Id", "data.drop=Id"]),
    ("wine.data", {}, ["labels (1, 2, 3)", "data.target=1 data.task=classes", "data.target=14"]),
    ("bcw.data", {}, ["column 1 counts or identifies the rows", "data.drop=1"]),
    ("titanic.csv", TITANIC, ["line 2, column Age", "missing", "data.missing=drop"]),
    ("titanic.csv", {**TITANIC, "missing": "mean"}, ["column Sex is text", "data.categories=one_hot"]),
    ("winequality.csv", {}, ["column quality", "look like labels", "data.task=regression"]),
    ("german.csv", {}, ["'8,35' is a number with a decimal comma", "data.decimal=comma"]),
    ("german_broken.csv", {}, ["the header has 3 names, line 2 has 6 cells"]),
    ("headwide.csv", {}, ["the header has 4 names, line 2 has 3 cells"]),
    ("r_writecsv.csv", {}, ["column 1 counts or identifies the rows", "data.drop=1"]),
    ("pandas_nocols.csv", {}, ["0,1,2", "data.header=true or data.header=false"]),
    ("miss_q.csv", {}, ["line 19, column b: '?'", "data.missing=drop"]),
    ("comment.csv", {}, ["line 1 starts with #; delete the line"]),
    ("utf16.csv", {}, ["data.encoding=utf-16"]),
    ("xor.csv", {}, ["4 rows are too few to split", "data.train_rows=0:4", "data=xor"]),
]


@pytest.mark.parametrize(("name", "own", "says"), REFUSED)
def test_what_is_in_doubt_is_refused_with_the_words_that_settle_it(name, own, says):
    message = refused(CASES / name, **own)
    for part in (name, *says):
        assert part in message


def test_a_label_in_the_first_column_is_found_by_its_name(folder):
    assert "column label" in refused(folder / "digits_train.csv")
    found = about(folder / "digits_train.csv", task="classes")
    assert (sum(found["rows"].values()), len(found["inputs"]), found["targets"]) == (600, 64, ["label"])
    assert list(found["classes"]) == list("0123456789")


def test_values_stay_as_they_are_in_the_file_and_rows_in_its_order():
    rows = np.loadtxt(CASES / "moons_12.csv", delimiter=",", skiprows=1)
    dataset = load(CASES / "moons_12.csv", scaling="none", train_rows="0:200")
    np.testing.assert_array_equal(dataset.splits["train"][0], rows[:, :2])
    np.testing.assert_array_equal(dataset.splits["train"][1][:, 0], rows[:, 2] == 2)  # the larger number is 1
    for name in ("moons.parquet", "moons.npz"):
        other = load(CASES / name, scaling="none", train_rows="0:200")
        assert other.splits["train"][0].shape == (200, 2)


def test_names_order_and_values_of_text_columns_are_those_of_the_training_rows():
    own = {**TITANIC, "missing": "mean", "categories": "one_hot"}
    found = about(CASES / "titanic.csv", **own)
    assert found["inputs"] == ["Pclass", "Sex=female", "Sex=male", "Age"]
    assert found["categories"] == {"Sex": ["female", "male"]}
    assert found["dropped"] == ["PassengerId", "Name"]
    dataset = load(CASES / "titanic.csv", **own, scaling="none")
    frame = pd.read_csv(CASES / "titanic.csv")
    rows = dataset.rows["train"]
    mean = frame["Age"].iloc[rows].mean()
    for split, chosen in dataset.rows.items():
        part = frame.iloc[chosen]
        expected = np.column_stack([
            part["Pclass"], part["Sex"] == "female", part["Sex"] == "male", part["Age"].fillna(mean)
        ])  # fmt: skip
        np.testing.assert_allclose(dataset.splits[split][0], expected)


def test_a_text_that_training_rows_do_not_hold_is_all_zeros(write):
    rows = [f"{'ab'[k % 2]},{k / 7},{k % 2}" for k in range(20)] + [f"c,{k / 7},{k % 2}" for k in range(4)]
    path = write("colour,size,y\n" + "\n".join(rows))
    dataset = load(path, categories="one_hot", scaling="none", train_rows="0:20", test_rows="20:24")
    assert dataset.input_names == ["colour=a", "colour=b", "size"]
    assert dataset.splits["test"][0][:, :2].tolist() == [[0, 0]] * 4
    assert "colour=c" in describing.said(dataset)


def test_the_line_before_training_says_what_was_read():
    assert describing.said(load(CASES / "moons_12.csv")) == (
        "moons_12.csv: 200 rows (120 train, 40 validation, 40 test), 2 inputs (x, y), "
        "target label: 2 classes (1: 100, 2: 100), scaling standard; label 2 counts as 1, 1 as 0"
    )
    assert "label g counts as 1, b as 0" in describing.said(load(CASES / "ionosphere.data"))
    assert "cells separated by tab" in describing.said(load(CASES / "tabs.tsv"))
    assert "1 row with missing cells left out" in describing.said(load(CASES / "miss_q.csv", missing="drop"))
    assert "target pixel63: regression" in describing.said(load(CASES / "digits_unlabelled.csv"))
    assert "target scaling standard" in describing.said(load(CASES / "sine.csv"))


@pytest.mark.parametrize("name", ["unscaled.csv", "sine.csv"])
def test_a_regression_learns_with_the_defaults(name):
    (cell,) = compose(["data=file", f"data.path={CASES / name}", "restarts=10", "tracking=none"], sweep=False)
    (training,) = train(cell)
    scores = training.curves["test/r2"][-1]
    assert np.isfinite(scores).all()
    assert np.median(scores) > 0.5


def test_imbalanced_classes_are_judged_by_balanced_accuracy_too():
    (cell,) = compose(["data=file", f"data.path={CASES / 'imbal.csv'}", "epochs=2", "tracking=none"], sweep=False)
    (training,) = train(cell)
    if "test/balanced_accuracy" not in training.curves:
        pytest.skip("the trainer does not measure balanced accuracy")
    assert {"test/balanced_accuracy", "test/auc"} <= set(training.curves)


# --- tricky files ----------------------------------------------------------------------------------------------------

DATES = "".join(f"{k * 1.5},2024-01-{k + 1:02d}\n" for k in range(20))
PRICES = "".join(f"{k * 1.5},${k}.99\n" for k in range(20))
MIXED = "".join(f"{k * 1.5},{k % 7}.5,{k % 2}\n" for k in range(20))


@pytest.mark.parametrize(
    ("held", "own", "says"),
    [
        ("", {}, "holds no rows"),
        ("a,b\n", {}, "holds no rows"),
        ("\n1,2\n3,4\n", {}, "line 1 is empty"),
        ("a,b\n1.5,2\n\n3,4\n", {}, "line 3 is empty"),
        ("a,b\n1.5,2\n3\n", {}, "line 3 has 1 cells"),
        ("a,b\n1.5,2\n3,4,5\n4\n", {}, "line 3 has 3 cells"),
        ('a,b\n1.5,"2\n3,4\n', {}, "data.separator"),
        ("sep=;\na;b\n1;2\n", {}, "line 1 names a separator"),
        ("a\n" + "1.5\n" * 20, {}, "a target and at least one input"),
        ("x,date\n" + DATES, {}, "stand only once, such as '2024-01-"),
        ("x,price\n" + PRICES, {}, "stand only once, such as '$"),
        ("x,y\n" + "1.5,inf\n2,3\n" * 10, {}, "line 2, column y: not a finite number"),
        ("x,y\n" + "1e200,1.5\n2,3\n" * 10, {}, "column x has values above 1e+100"),
        ("x,y\n" + "1.5,2\n" * 20, {"task": "classes"}, "every row is 2"),
        ("x,y,y\n" + MIXED, {"target": "y"}, "data.target=2 or data.target=3"),
        ("u,v,w\n" + MIXED, {"target": "z"}, "no such column; mine.csv has the columns u, v, w"),
        ("u,v,w\n" + MIXED, {"target": 4}, "has columns 1 to 3"),
        ("u,v,w\n" + MIXED, {"target": "w", "drop": "w"}, "is in data.drop too"),
        ("u,v,w\n" + MIXED, {"task": "multilabel"}, "has one target"),
        ("u,v,w\n" + MIXED, {"target": ["v", "w"], "task": "classes"}, "hold other numbers than 0 and 1"),
        ("u,v,w\n" + MIXED, {"target": "u", "task": "binary"}, "20 different values"),
        ("u,v,w\n" + MIXED, {"decimal": "comma"}, "needs another data.separator"),
        ("u,v,w\n" + MIXED, {"encoding": "klingon"}, "not an encoding"),
        ("u,v,w\n" + MIXED, {"train_rows": "0:10", "test_rows": "5:15"}, "overlaps data.train_rows=0:10"),
        ("u,v,w\n" + MIXED, {"train_rows": "0:10", "split": "80-10-10"}, "beside data.train_rows"),
        ("u,v,w\n" + MIXED, {"train_rows": "0:30"}, "has 20 rows"),
        ("u,v,w\n" + "1.5,2,a\n" * 15 + "1.5,2,b\n" * 5, {"train_rows": "0:15"}, "training has no row of class 'b'"),
        ("x,y\n" + "".join(f'{k}.5,"{k},{k}00"\n' for k in range(1, 10)), {}, "commas may mark thousands"),
        ("id,2019,2020\n" + "1,2.5,3.5\n4,5.5,6.5\n" * 5, {}, "names or numbers"),
        ("name,1.5,2.5\n" + "1,2.5,3.5\n" * 10, {}, "line 1, column 1: 'name' stands over numbers"),
        ("customer_id,x,y\n" + "".join(f"{k},{k % 3}.5,{k % 2}\n" for k in range(20)), {}, "data.drop=customer_id"),
        ("a;b|c;d|e\n" + "1;2|3;4|5\n" * 9, {}, "say data.separator=semicolon or data.separator=bar"),
        ("x,g,y\n" + "1.5,,0\n2.5,b,1\n" * 9, {"categories": "one_hot", "missing": "mean"}, "has missing cells"),
        ("x,g,y\n" + "1.5,,0\n2.5,,1\n" * 9, {}, "the whole column is empty; say data.drop=g"),
        ("x,y\n" + "1.5,0\n2.5,\n" * 9, {"missing": "drop"}, "line 3, column y: a missing target is never filled"),
        ("x,w,y\n" + "1.5,2.5,0\n" * 9 + "1.5,o.7,1\n", {}, "column w is text (line 11: 'o.7'); repair the cell"),
        ("u,v,w\n" + "".join(f"n{k},{k}.5,{k % 2}\n" for k in range(200)), {"categories": "one_hot"}, "data.drop=u"),
        ("1,5;2;3\n2,5;3;4\n" * 9, {}, "column 1: '1,5' is a number with a decimal comma"),
        ("u;v\n" + "1,5;2,5\n?;3,5\n" * 9, {}, "line 3, column u: '?' is missing"),
        ("u,v\x0bw,y\n" + "1.5,,0\n" * 20, {}, "column v\\x0bw"),
        (b"PK\x03\x04....", {}, "save a workbook as CSV"),
        (gzip.compress(b"1,2\n", mtime=0), {}, "name a compressed file .gz"),
        (b"x,y\n1.5,\xe9\n", {}, "data.encoding=cp1252"),
        (b"x,y\n1.5,\x00\n", {}, "data.encoding=utf-16"),
    ],
)  # fmt: skip
def test_a_file_that_could_be_misread_is_refused_in_one_line(write, held, own, says):
    assert says in refused(write(held), **own)


@pytest.mark.parametrize(
    ("held", "own", "inputs", "task"),
    [
        ("\ufeffu,v,w\r\n" + MIXED.replace("\n", "\r\n"), {}, ["u", "v"], "binary"),
        ('"u","v","w"\n' + MIXED + "\n\n", {}, ["u", "v"], "binary"),
        (" u , v , w\n" + MIXED.replace(",", " , "), {}, ["u", "v"], "binary"),
        ("x,y,label\n" + MIXED.replace(",0\n", ",no\n").replace(",1\n", ",yes\n"), {}, ["x", "y"], "binary"),
        ("x,y,label\n" + MIXED.replace(",0\n", ",False\n").replace(",1\n", ",True\n"), {}, ["x", "y"], "binary"),
        ("u v w\n" + MIXED.replace(",", "   "), {}, ["u", "v"], "binary"),
        ("  1.5   2.5  0\n  2.5   3.5  1\n" * 10, {}, ["1", "2"], "binary"),
        ("u;v;w\n" + MIXED.replace(",", ";").replace(".", ","), {"decimal": "comma"}, ["u", "v"], "binary"),
        ('x,"a ""b"", c",z\n' + MIXED, {}, ["x", 'a "b", c'], "binary"),
        ("x,y,Class,z\n" + "1.5,2,a,3\n2.5,3,b,4\n" * 9, {}, ["x", "y", "z"], "binary"),
        ("u,v,w\n" + MIXED, {"target": -2}, ["u", "w"], "regression"),
        ("x,3,z\n" + MIXED, {"target": "3", "header": True}, ["x", "z"], "regression"),
        ("Größe,라벨,z\n" + MIXED, {"target": "라벨"}, ["Größe", "z"], "regression"),
        ("a,b,c,d\n" + "1.5,0,1,1\n2.5,1,0,1\n" * 9, {"target": "2-4", "task": "regression"}, ["a"], "regression"),
        ("male,a\nfemale,b\n" * 9, {"categories": "one_hot"}, ["1=female", "1=male"], "binary"),
        ("x,y\n" + "1.5,-\n?,3.5\n" * 9, {"missing": "mean", "target": "x", "drop": "none"}, None, None),
    ],
)  # fmt: skip
def test_a_file_that_looks_odd_is_read_as_it_is_meant(write, held, own, inputs, task):
    path = write(held)
    if inputs is None:
        assert "a missing target is never filled" in refused(path, **own)
        return
    found = about(path, **own)
    assert (found["inputs"], found["task"]) == (inputs, task)


def test_missing_cells_are_named_by_line_even_after_cells_of_several_lines(write):
    path = write('x,t,y\n1.5,"two\nlines",0\n2.5,b,1\n,c,0\n' + "3.5,d,1\n" * 9)
    assert "line 5, column x" in refused(path, drop="t")


def test_row_ranges_count_the_rows_of_the_file_though_some_are_left_out(write):
    path = write("x,y\n" + "".join(f"{k if k != 3 else '?'},{k / 2}\n" for k in range(12)))
    dataset = load(path, missing="drop", train_rows="2:6", test_rows="6:12", scaling="none", target_scaling="none")
    assert dataset.splits["train"][0][:, 0].tolist() == [2, 4, 5]
    assert dataset.splits["test"][0][:, 0].tolist() == [6, 7, 8, 9, 10, 11]


def test_files_of_their_own_are_the_validation_and_test_splits(write):
    head, row = "x,y\n", "{0}.5,{1}\n"
    main, test = (write(head + "".join(row.format(k, k % 2) for k in rows), name) for rows, name in (
        (range(40), "a.csv"), (range(40, 50), "b.csv")))  # fmt: skip
    dataset = load(main, test_path=str(test), scaling="none")
    assert {split: len(rows) for split, rows in dataset.rows.items()} == {"train": 30, "validation": 10, "test": 10}
    assert dataset.splits["test"][0][:, 0].tolist() == [k + 0.5 for k in range(40, 50)]
    other = write("x,z\n1.5,0\n", "c.csv")
    assert "c.csv: has the columns x, z; those of a.csv are x, y" in refused(main, test_path=str(other))
    broken = write("x,y\n1.5,0\n,1\n", "d.csv")
    assert "line 3 of d.csv, column x" in refused(main, test_path=str(broken))


# --- compressed and large --------------------------------------------------------------------------------------------


def zipped(data, *names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_compressed_text_is_read_up_to_a_limit(tmp_path, ending):
    data = (CASES / "moons_12.csv").read_bytes()
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": lambda data: zipped(data, "a.csv")}
    path = tmp_path / f"moons.csv.{ending}"
    path.write_bytes(packed[ending](data))
    assert load(path).digest == load(CASES / "moons_12.csv").digest
    path.write_bytes(packed[ending](data)[:-20])
    assert "cannot be read" in refused(path)
    path.write_bytes(packed[ending](b"0" * 3_000_000))
    assert "holds more than 2 MB; a larger data.max_megabytes reads it" in refused(path, max_megabytes=2)


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"0" * 200_000_000, 1))
    tracemalloc.start()
    with pytest.raises(InputError, match="more than 1 MB"):
        content(path, 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 80_000_000


def test_archives_that_hold_several_files_or_too_much_are_refused(tmp_path):
    path = tmp_path / "two.zip"
    path.write_bytes(zipped(b"1,2\n", "a.csv", "b.csv"))
    assert "holds 2 files and must hold one" in refused(path)
    np.savez_compressed(tmp_path / "large.npz", X=np.zeros((1_000_000, 2)), y=np.zeros(1_000_000))
    assert "holds more than 3 MB; data.max_megabytes=25 reads it" in refused(tmp_path / "large.npz", max_megabytes=3)
    np.savez(tmp_path / "odd.npz", a=np.zeros(3))
    assert "must hold X or inputs" in refused(tmp_path / "odd.npz")
    pd.DataFrame({"x": np.zeros(1_000_000), "y": np.zeros(1_000_000)}).to_parquet(tmp_path / "large.parquet")
    assert "holds more than 3 MB" in refused(tmp_path / "large.parquet", max_megabytes=3)


def test_a_file_that_is_not_there_or_none_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "none.csv")
    assert "No such file" in refused(tmp_path / "none.parquet")
    assert "s a directory" in refused(tmp_path)
    assert refused("auto").startswith("data.path=auto: data=file needs the path of a file")


def test_numbers_keep_every_bit(write):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2000, 3)) * 10.0 ** rng.integers(-30, 30, (2000, 3))
    path = write("".join(",".join(map(repr, row)) + "\n" for row in values.tolist()))
    dataset = load(path, scaling="none", target_scaling="none", train_rows="0:2000")
    np.testing.assert_array_equal(np.hstack(dataset.splits["train"]), values)


def test_a_file_is_read_once_for_its_task_and_its_arrays(write, monkeypatch):
    path, read, own = write("u,v,w\n" + MIXED), [], text.read
    monkeypatch.setattr(text, "read", lambda *given: read.append(given) or own(*given))
    (cell,) = compose(["data=file", f"data.path={path}", "tracking=none"], sweep=False)
    assert check(cell).splits["train"][0].shape == (12, 2)
    assert len(read) == 1


def test_shipped_data_are_read_without_pandas():
    code = (
        "import sys\n"
        "from descentlab.config.cells import cells\n"
        "from descentlab.config.composing import compose\n"
        "cells(compose(['data=iris'], sweep=False))[0].dataset.splits\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- configuration and commands --------------------------------------------------------------------------------------


def test_what_was_found_stands_in_the_configuration_and_needs_no_file_again(tmp_path, monkeypatch):
    shutil.copy(CASES / "moons_12.csv", tmp_path / "own.csv")
    monkeypatch.chdir(tmp_path)
    (cell,) = compose(["data=file", "data.path=own.csv", "tracking=none"], sweep=False)
    found = {"target": "label", "drop": "none", "task": "binary", "header": True, "separator": "comma"}
    assert {key: cell.data.numbers[key] for key in found} == found
    assert cell.data.numbers["path"] == str(tmp_path / "own.csv")  # a relative path would lead elsewhere later
    digest = check(cell).digest
    again = resolve(cell.as_dict())
    assert (again, again.hash, check(again).digest) == (cell, cell.hash, digest)
    (tmp_path / "own.csv").unlink()
    assert resolve(cell.as_dict()) == cell


@pytest.mark.parametrize("name", ["Größe", "라벨", "sepal length (cm)", 'a "b" \\', "a=b, c", "[x"])
def test_names_that_hydras_grammar_does_not_know_are_taken_as_they_stand(tmp_path, name):
    path = tmp_path / "Maße (1).csv"
    frame = pd.DataFrame({"u": np.arange(30) / 7, name: np.arange(30) % 2, "w": np.arange(30) / 3})
    frame.to_csv(path, index=False)
    words = ["data=file", f"data.path={path}", f"data.target={name}", "tracking=none"]
    (cell,) = compose(words, sweep=False)
    assert describing.inspected(check(cell))["targets"] == [name]


def test_the_words_of_a_refusal_can_be_pasted(tmp_path):
    import shlex

    path = tmp_path / "a.csv"
    one_hot = np.eye(3, dtype=int)[np.arange(30) % 3]
    names = ["sepal length (cm)", "true", "a b"]
    pd.DataFrame(one_hot, columns=names).assign(x=np.arange(30) / 7)[["x", *names]].to_csv(path, index=False)
    words = ["data=file", f"data.path={path}", "tracking=none"]
    with pytest.raises(InputError) as caught:
        compose(words, sweep=False)
    pasted = shlex.split(str(caught.value).partition("say ")[2])
    (cell,) = compose([*words, *pasted], sweep=False)
    assert list(describing.inspected(check(cell))["classes"]) == names


def test_two_files_in_one_sweep_are_two_cells_with_the_results_that_each_has_alone():
    words = ["data=file", "epochs=3", "tracking=none"]
    paths = [str(CASES / name) for name in ("moons_01.csv", "pima.csv")]
    both = compose([*words, f"data.path={','.join(paths)}"])
    assert [cell.name.split("-")[-1] for cell in both] == ["moons_01.csv", "pima.csv"]
    together = train(*both)
    for path, training in zip(paths, together, strict=True):
        (alone,) = train(*compose([*words, f"data.path={path}"]))
        np.testing.assert_array_equal(training.curves["test/loss"], alone.curves["test/loss"])
    assert not np.array_equal(together[0].curves["test/loss"], together[1].curves["test/loss"])


def test_inspect_prints_what_a_run_would_read_and_refuses_what_it_would(capsys):
    assert cli.main(["inspect", "data=file", f"data.path={CASES / 'moons_12.csv'}"]) == 0
    printed = capsys.readouterr().out
    assert "moons_12.csv: 200 rows" in printed
    assert printed.split()[:7] == ["name", "kind", "smallest", "largest", "missing", "different", "role"]
    assert cli.main(["inspect", "data=file", f"data.path={CASES / 'moons_12.csv'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": {"train": 120, "validation": 40, "test": 40}, "inputs": ["x", "y"], "targets": ["label"],
        "task": "binary", "classes": {"1": 100, "2": 100}, "dropped": [], "categories": {},
    }  # fmt: skip
    assert cli.main(["inspect", "data=file", f"data.path={CASES / 'xor.csv'}", "--json"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("name", ["digits", "iris", "breast_cancer", "diabetes", "xor", "moons"])
def test_inspect_takes_shipped_data_too(name, capsys):
    assert cli.main(["inspect", f"data={name}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["targets"]) == 1
    assert sum(found["classes"].values()) in (0, *(sum(found["rows"].values()), 4))
    assert cli.main(["inspect", f"data={name}"]) == 0


def test_a_run_says_first_what_was_read(capsys):
    assert cli.main(["data=file", f"data.path={CASES / 'moons_12.csv'}", "epochs=1", "tracking=none"]) == 0
    assert "descentlab: moons_12.csv: 200 rows (120 train, 40 validation, 40 test)" in capsys.readouterr().err


def test_what_was_read_stands_in_the_runs_description_and_in_show(store, capsys):
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    assert cli.main(["data=file", f"data.path={CASES / 'moons_12.csv'}", "epochs=1", *place]) == 0
    (run,) = find(store, "cell")
    line = describing.said(load(CASES / "moons_12.csv"))
    assert run.description == run.tags["mlflow.note.content"] == line
    capsys.readouterr()
    assert cli.main(["show", run.run_id, *place]) == 0
    assert line in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [[], ["data.scaling=none"]])
def test_where_all_restarts_diverge_a_hint_says_what_to_try(words, capsys):
    command = ["data=file", f"data.path={CASES / 'unscaled.csv'}", "restarts=3", "tracking=none", "learning_rate=1e9"]
    assert cli.main([*command, *words]) == 0
    hint = capsys.readouterr().out.splitlines()[-2]
    assert hint == "all restarts diverged; lower learning_rate" + (", or say data.scaling=standard" if words else "")


def test_the_name_of_csv_files_before_is_answered_with_the_new_words(capsys):
    assert cli.main(["data=csv", "data.path=a.csv"]) == 2
    assert "data=file data.path=" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status"), [(["data.path=iris_123.csv"], 2), (["data.path=moons_12.csv"], 0)])
def test_the_real_command_reads_and_refuses(words, status):
    command = [sys.executable, "-m", "descentlab", "data=file", "epochs=1", "tracking=none", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CASES, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (status == 0)
