"""Malformed input in bulk: one line and status 2, nothing executed, nothing unpickled, nothing made.

The ordinary forms take seconds. `make fault` tries the same with many more examples, and throws words at the command
itself, each line in a process of its own.
"""

import contextlib
import functools
import gzip
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import drained, recipe, splits, with_snapshots

from descentlab import cli
from descentlab.cli import entry
from descentlab.config import composing
from descentlab.config.cells import cells as made
from descentlab.config.options import GROUPS, schemas
from descentlab.config.resolving import keys
from descentlab.data import loading as data
from descentlab.data import mnist
from descentlab.nn import checkpoints
from descentlab.nn.trainer import iterate
from descentlab.studies import study
from descentlab.tracking.store import Store
from descentlab.tracking.stored_run import StoredRun
from descentlab.values import InputError, Option

CANARY = Path("canary")  # made where tests stand by anything that runs what it should only read


class Song:
    """Makes the canary when it is unpickled."""

    def __reduce__(self):
        return (os.system, (f"touch {CANARY}",))


def in_bulk(few, many):
    """Give a test its number of examples: few in the ordinary suite, many under `make fault`."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.fault)])


def sized(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )


def outcome(work, refusal):
    """What comes of it, or the line that it is refused with."""
    try:
        return work(), None
    except refusal as error:
        line = str(error)
    assert len(line.splitlines()) == 1, line
    return None, line


@pytest.fixture(autouse=True)
def _nothing_is_made(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def test_the_canary_is_made_where_something_is_run():
    pickle.loads(pickle.dumps(Song()))
    assert CANARY.exists()
    CANARY.unlink()


# --- words -------------------------------------------------------------------------------------------------------

GRAMMAR = "[]{}()'\"\\$,=:.0123456789ae-~+@#*/ \t\n"
SONGS = [
    "!!python/object/apply:os.system [touch canary]",
    "'!!python/object/apply:os.system [touch canary]'",
    "{_target_: os.system, command: touch canary}",
    "${oc.env:HOME}",
    "${oc.decode:__import__}",
    "${hydra:runtime.cwd}",
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    "__import__('os').system('touch canary')",
]
ODD_KEYS = """experiment activation.alpha update.momentum data.path data.split hydra.run.dir _target_ defaults arms
    activation._target_ ~seed +seed ++seed seed@x activation@seed"""
ODD_NUMBERS = """1e999 -1 0 nan inf -inf 1e-400 1_000 0x10 1,2,3 range(1,1e9) 1:2 [1,[2,[3]]] [] {} null true ''
    choice() glob(*) interval(0,1) shuffle(range(3)) sort(3,2) extend_list(1) int('x') 64--32 - \u0661 \u00bd 1e5000"""
FLAGS = "-m --multirun --cfg --cfg=job -c --config-dir --config-dir=/dev/null -sc --foo - -- --config-dir=\0 -cd"
COMMANDS = "list show compare export delete restore plan status replay check inspect"
WRONG = """zz=1 learning_rate=x activation=rleu seed=-1 network.hidden=0 activation._target_=os.system data.split=1-2-3
    epochs=1.5 name= ~seed descent.batch_size=0 +zz.y=3 seed=${oc.env:HOME}"""

texts = st.text(max_size=12) | st.text(GRAMMAR, max_size=16)
numbers = st.sampled_from([*ODD_NUMBERS.split(), "9" * 400, "0" * 300 + "1"])
values = texts | numbers | st.sampled_from(SONGS) | st.text(min_size=500, max_size=600)
words = st.builds("{}={}".format, st.sampled_from([*keys(), *GROUPS, *ODD_KEYS.split()]) | texts, values) | texts
commands = st.builds(lambda name, rest: [name, *rest], st.sampled_from(COMMANDS.split()), st.lists(words, max_size=3))
lines = st.lists(words | st.sampled_from(FLAGS.split(" ")), min_size=1, max_size=4) | commands


def answer(given):
    """Exit status and standard error of a command line."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        status = cli.main(given)
    return status, error.getvalue()


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """Cells are checked and not trained, conf/ is read once, and MNIST is not to be had."""
    composer = functools.cache(composing._Composer)
    monkeypatch.setattr(composing, "_Composer", lambda folders: composer(tuple(folders)))
    monkeypatch.setattr(entry, "_run", lambda configs, *rest: made(configs[:3]) and 0)
    monkeypatch.setattr(mnist, "_fetched", not_fetched)
    monkeypatch.setenv("DESCENTLAB_MNIST", "")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))


def not_fetched():
    raise InputError("fetched anew")


@in_bulk(1000, 20_000)
def test_words_are_understood_or_refused_in_one_line(examples, untrained):
    counts = {0: 0, 2: 0}

    @sized(examples)
    @given(lines)
    def claim(given):
        status, error = answer(given)
        counts[status] += 1
        assert len(error.splitlines()) == (status == 2), error

    claim()
    assert counts[2] > examples / 2
    assert not CANARY.exists()


def refused_by_the_command(given, home):
    """Run `descentlab` as a user would, with a store that must not come into being."""
    given = [word if isinstance(word, bytes) else word.encode("utf-8", "surrogateescape") for word in given]
    given = [word.replace(b"\0", b"") for word in given]  # no argument of a process can hold it
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "DESCENTLAB_MNIST": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "descentlab", *given, f"tracking.uri={home / 'runs.db'}"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (2, b""), done
    assert re.fullmatch(rb"descentlab: error: [^\n\r\x1b]+\n", done.stderr), done
    assert list(home.iterdir()) == []


@pytest.mark.fault
def test_words_are_refused_by_the_command_itself_in_one_line(tmp_path):
    @sized(300)
    @given(st.lists(words, max_size=2), st.sampled_from([*WRONG.split(), "a b"]), st.integers(0, 2))
    def claim(given, wrong, place):
        refused_by_the_command([*given[:place], wrong, *given[place:]], tmp_path / "home")

    claim()


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ["learning_rate=x", "data=xor"],
        [b"activation=\xff\xfe"],
        ["delete", "--yes"],
        [f"activation={SONGS[0]}"],
        ["data=file", "data.path=missing.csv"],
        ["list", "\x1b[31mred"],
    ],
    ids=range(6),
)
def test_some_words_are_refused_by_the_command_itself_in_one_line(given, tmp_path):
    refused_by_the_command(given, tmp_path / "home")


# --- files that say what to run ----------------------------------------------------------------------------------

YAML = [
    "name: relu\nx: !!python/object/apply:os.system [touch canary]\n",
    "!!python/object/apply:os.system [touch canary]\n",
    "_target_: os.system\ncommand: touch canary\n",
    "name: ${oc.env:HOME}\n",
    "name: [relu\n",
    "&a [*a]\n",
    "a: &a [1, *a]\n",
    "- relu\n",
    "\0",
    "name: relu\ndefaults: [override]\n",
    "defaults:\n  - /data: nowhere\n",
    "# @package hydra\nrun: {dir: .}\nname: relu\n",
    "%TAG ! tag:x\n---\nname: relu\n",
    "hydra:\n  searchpath: [file:///etc]\nname: relu\n",
    "? [a]\n: b\n",
    "2001-01-01\n",
    "{[a]: b}\n",
]


@in_bulk(40, 300)
def test_option_files_are_data_and_never_run(examples, tmp_path, monkeypatch):
    folder = tmp_path / "own" / "activation"
    folder.mkdir(parents=True)
    monkeypatch.setattr(entry, "_run", lambda configs, *rest: made(configs) and 0)

    @sized(examples)
    @given(
        st.sampled_from(YAML) | st.text(GRAMMAR + "namerlu!&|>%", max_size=30), st.sampled_from(["", "\nname: relu"])
    )
    def claim(text, end):
        (folder / "mine.yaml").write_text(text + end, encoding="utf-8")
        status, error = answer([f"--config-dir={folder.parent}", "activation=mine", "tracking=none"])
        assert status in (0, 2)
        assert len(error.splitlines()) == (status == 2), error

    claim()
    assert not CANARY.exists()


def test_declared_claims_are_data_and_never_run(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "EXPERIMENTS", tmp_path)
    (tmp_path / "claims").mkdir()
    for text in YAML:
        (tmp_path / "claims" / "x.yaml").write_text(text)
        _, line = outcome(functools.partial(study.declared_claims, "x"), InputError)
        assert line or "!!" not in text
    assert not CANARY.exists()


# --- data --------------------------------------------------------------------------------------------------------


def load(name, **own):
    data.forget()
    return data.load(Option(name, {**{key: default for key, (_, default) in schemas("data")[name].items()}, **own}))


def loaded_or_refused(name, **own):
    dataset, line = outcome(lambda: load(name, **own), InputError)
    if line:
        assert line.isprintable()
    else:
        for x, y in dataset.splits.values():
            assert np.isfinite(x).all()
            assert np.isfinite(y).all()


def damaged(draw, whole):
    """A file's bytes with some of them changed, put in or taken out, or its end cut off."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at, kind = draw(st.integers(0, max(0, len(found) - 1))), draw(st.integers(0, 3))
        if kind == 0 and found:
            found[at] = draw(st.integers(0, 255))
        elif kind == 1:
            found[at:at] = draw(st.binary(max_size=4))
        else:
            del found[at : at + draw(st.integers(1, 8)) if kind == 2 else None]
    return bytes(found)


ROWS = "".join(f"{i},{i % 3 / 7},{i % 2}\n" for i in range(30))
FIELDS = """1 0 -2.5 1e308 1e309 nan inf '4' "5" " x 1_0 0x1 \ufeff1 \u0661 1e-320 \0 True 1;2 1+2j # 1" "2"""


@st.composite
def csv_files(draw):
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return damaged(draw, ROWS.encode())
    if kind == 2:
        return damaged(draw, ("a,b,c\r\n" + ROWS).encode(draw(st.sampled_from(["utf-16", "latin-1"]))))
    field = st.sampled_from([*FIELDS.split(" "), "", " 3 "])
    rows = draw(st.lists(st.lists(field, min_size=1, max_size=4).map(",".join), max_size=8))
    return draw(st.sampled_from(["\n", "\r\n", "\r", "\x0b", "\u2028"])).join(rows).encode()


@in_bulk(500, 10_000)
def test_csv_files_are_read_or_refused_in_one_line(examples, tmp_path):
    shares = [("60-20-20", "none"), ("100-0-0", "standard"), ("50-0-50", "unit")]

    @sized(examples)
    @given(
        csv_files(), st.sampled_from(["auto", "classes", "binary", "regression"]), st.sampled_from(shares), st.data()
    )
    def claim(content, task, share, more):
        zipped = more.draw(st.integers(0, 3)) == 0
        if zipped:
            content = gzip.compress(content)
            content = damaged(more.draw, content) if more.draw(st.booleans()) else content
        path = tmp_path / ("a.csv.gz" if zipped else "a.csv")
        path.write_bytes(content)
        loaded_or_refused("file", path=str(path), task=task, split=share[0], scaling=share[1])

    claim()


def idx_head(kind, shape):
    return bytes((0, 0, kind, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


@in_bulk(250, 10_000)
def test_idx_files_are_read_or_refused_in_one_line(examples, tmp_path):
    whole = {}
    for part, count in (("train", 6), ("t10k", 4)):
        whole[f"{part}-images-idx3-ubyte"] = idx_head(8, (count, 3, 3)) + bytes(range(count * 9))
        whole[f"{part}-labels-idx1-ubyte"] = idx_head(8, (count,)) + bytes(range(count))
    sizes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6, 2**16, 2**31, 2**32 - 1]), max_size=4)
    made_up = st.builds(lambda *head_and_rest: idx_head(*head_and_rest[:2]) + head_and_rest[2],
                        st.integers(7, 14), sizes, st.binary(max_size=54))  # fmt: skip

    @sized(examples)
    @given(st.sampled_from(sorted(whole)), st.data())
    def claim(name, more):
        content = more.draw(made_up) if more.draw(st.booleans()) else damaged(more.draw, whole[name])
        files = {**whole, name: content}
        if more.draw(st.booleans()):
            zipped = gzip.compress(files.pop(name))
            files[f"{name}.gz"] = damaged(more.draw, zipped) if more.draw(st.booleans()) else zipped
        for file, inside in files.items():
            (tmp_path / file).write_bytes(inside)
        loaded_or_refused("mnist", path=str(tmp_path), train_rows="0:5", validation_rows="5:6", test_rows="6:8")
        for file in files:
            (tmp_path / file).unlink()

    claim()


def test_a_kept_mnist_that_is_no_plain_archive_is_not_believed(tmp_path, untrained):
    odd = [npz({"images": member}) for member in (objects(), announced((10**15,), "<f8", b""), b"")]
    for content in (b"", pickle.dumps(Song()), *odd):
        (tmp_path / "descentlab-mnist_784.npz").write_bytes(content)
        with pytest.raises(InputError, match="fetched anew"):
            load("mnist")
    assert not CANARY.exists()


# --- checkpoints and artifacts -----------------------------------------------------------------------------------


def npz(members, compression=zipfile.ZIP_STORED):
    """An archive of members: arrays, or bytes as they stand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, member in members.items():
            made.writestr(f"{name}.npy", member if isinstance(member, bytes) else npy(member))
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def objects():
    found = np.empty(1, dtype=object)
    found[0] = Song()
    return found


def announced(shape, dtype, rest):
    """An .npy whose header promises a shape and a dtype."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + rest


SHAPES = [(10**15,), (-1,), (2**63, 2**63), (0, 10**30), "x", (1.5,), (True,), ((1,),), (1,) * 100, None, (1,), ()]
DTYPES = ["<f8", "|O", "|V8", "<U2", ">f8", "<c16", "|b1", "<M8[s]", "f8,f8", [("a", "<f8")], "x" * 50, "S0"]


@in_bulk(600, 20_000)
def test_checkpoints_are_read_whole_or_refused_in_one_line(examples, tmp_path):
    kept = {"epoch": np.array(3), "parameters": np.arange(6.0).reshape(2, 3), "streams": np.zeros((2, 6), np.uint64)}
    whole = checkpoints.write(tmp_path / "whole", kept).read_bytes()
    path = tmp_path / "checkpoint-000000003.npz"
    deflated = npz({"a": np.zeros(99)}, zipfile.ZIP_DEFLATED)
    odd = st.sampled_from([npz({"parameters": objects()}), deflated, pickle.dumps(Song())]) | st.binary(max_size=80)
    member = st.builds(announced, st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.binary(max_size=16))

    @sized(examples)
    @given(st.integers(0, 4), st.data())
    def claim(kind, more):
        if kind == 0:
            path.write_bytes(more.draw(odd))
        elif kind == 1:
            path.write_bytes(npz({"epoch": more.draw(member | st.binary(max_size=40))}))
        else:
            path.write_bytes(damaged(more.draw, whole))
        _, line = outcome(lambda: checkpoints.read_arrays(path), ValueError)
        assert line is None or line.startswith(f"{path}: damaged")
        back, line = outcome(lambda: checkpoints.read(path), ValueError)
        assert line is None or line.startswith(f"{path}: damaged")
        for name, array in kept.items() if line is None else ():
            np.testing.assert_array_equal(back[name], array)

    claim()
    assert not CANARY.exists()


@in_bulk(100, 3000)
def test_a_snapshot_with_another_array_starts_a_training_or_is_refused_in_one_line(examples):
    own, table = recipe(epochs=2, restarts=2, update="momentum"), splits()
    whole, kept = with_snapshots(own, table)
    shapes = st.sampled_from([(), (0,), (1,), (2,), (2, 6), (1, 2), (3, 3), whole.final.flat.shape])
    others = st.builds(np.full, shapes, st.integers(0, 3), st.sampled_from("f8 f4 i8 u8 b1 u1 >f8 >i8".split()))

    @sized(examples)
    @given(st.sampled_from(sorted(kept[0])), st.none() | others)
    def claim(name, other):
        start = {**kept[0], name: other}
        if other is None:
            del start[name]
        ended, line = outcome(lambda: drained(iterate(own, table, start=start)), ValueError)
        assert line.startswith("start: ") if line else ended[0].final.flat.shape == whole.final.flat.shape

    claim()


@in_bulk(150, 4000)
def test_artifacts_without_checksums_are_read_or_refused_in_one_line(examples, tmp_path):
    run = StoredRun("0" * 32, "old", "FINISHED", 0.0, {}, {}, {}, "", False, str(tmp_path), Store(None, "", "", None))
    frame = pd.DataFrame({"seed": range(5), "outcome": ["finite"] * 5, "test/loss": np.linspace(0, 1, 5)})
    frame.to_parquet(tmp_path / "restarts.parquet", index=False)
    np.savez(tmp_path / "final.npz", W1=np.zeros((2, 3, 2)), seeds=np.arange(2))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    @sized(examples)
    @given(st.sampled_from(sorted(whole)), st.data())
    def claim(name, more):
        content = damaged(more.draw, whole[name]) if more.draw(st.booleans()) else more.draw(st.binary(max_size=40))
        (tmp_path / name).write_bytes(content)
        read = run.table if name.endswith("parquet") else run.arrays
        _, line = outcome(lambda: read(name), InputError)
        assert line is None or line.startswith(f"{run}: {name} cannot be read ")

    claim()
