import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# A python3 that logs what it is asked for: `-m venv .venv` copies itself there, pip fails on demand.
STUB = """#!/bin/sh
case "$*" in
  *version_info*) [ -z "$STUB_OLD" ] ;;
  *ensurepip*) [ -z "$STUB_NO_VENV" ] ;;
  --version) echo "Python 3.9.1" ;;
  "-m venv .venv") echo venv >>log; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"pip install"*) echo pip >>log; [ -z "$STUB_NO_NETWORK" ] ;;
  *pytest*|*sweep.py*) echo work >>log ;;
  experiments/*) echo "$*" | tr " " ":" >>log; case "$1" in *"$STUB_FAILS") exit "${STUB_STATUS:-1}" ;; esac ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    stub = tmp_path / "python-stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    return folder


def make(clone, *targets, **environment):
    # -> exit status, standard error, what the stub was asked for
    log = clone / "log"
    log.write_text("")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    command = ["make", f"PYTHON={clone.parent / 'python-stub'}", *targets]
    done = subprocess.run(command, cwd=clone, env=kept | environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr, log.read_text().split()


@needs_make
def test_the_main_job_is_set_up_without_the_development_tools_and_only_once(clone):
    assert make(clone, "sweep") == (0, "", ["venv", "pip", "work"])
    assert make(clone, "sweep") == (0, "", ["work"])
    assert make(clone, "test") == (0, "", ["pip", "work"])
    assert make(clone, "test") == (0, "", ["work"])
    assert make(clone, "sweep") == (0, "", ["work"])


@needs_make
def test_each_form_of_the_studies_runs_all_scripts_but_the_main_job(clone):
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").rglob("[a-z]*.py")}
    make(clone, "sweep")
    for target, form in (("studies", ":--quick"), ("studies-full", "")):
        status, _, asked = make(clone, target, STUB_FAILS="nothing")
        assert status == 0
        assert set(asked) == {f"{script}{form}" for script in scripts - {"experiments/sweep.py"}}


@needs_make
def test_a_study_that_fails_does_not_stop_the_others_and_an_interrupt_does(clone):
    make(clone, "sweep")
    status, errors, asked = make(clone, "studies-full", STUB_FAILS="xor.py")
    assert status != 0
    assert "failed: xor" in errors
    assert asked[-1] == "experiments/literature/barriers.py"
    status, _, asked = make(clone, "studies-full", STUB_FAILS="xor.py", STUB_STATUS="130")
    assert status != 0
    assert asked[-1] == "experiments/xor.py"


@needs_make
@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_dependency_is_installed_into_the_environment_that_is_there(clone, name):
    make(clone, "sweep")
    now = (clone / name).stat().st_mtime
    for path, age in (
        (clone / "pyproject.toml", 3),
        (clone / "constraints.txt", 3),
        (clone / ".venv/.ready", 2),
        (clone / name, 1),
    ):
        os.utime(path, (now - age, now - age))
    assert make(clone, "sweep") == (0, "", ["pip", "work"])


@needs_make
@pytest.mark.parametrize("earlier", [(), ("sweep",)])
def test_a_set_up_that_was_cut_short_is_made_anew(clone, earlier):
    make(clone, *earlier)
    status, _, asked = make(clone, "test", STUB_NO_NETWORK="yes")
    assert status != 0
    assert "work" not in asked
    assert make(clone, "test") == (0, "", ["venv", "pip", "pip", "work"])


@needs_make
def test_a_moved_clone_does_not_run_the_code_of_its_old_place(clone):
    make(clone, "sweep")
    moved = clone.rename(clone.with_name("moved"))
    assert make(moved, "sweep") == (0, "", ["pip", "work"])
    assert make(moved, "sweep") == (0, "", ["work"])


@needs_make
@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"STUB_OLD": "yes"}, "is Python 3.9.1"), ({"STUB_NO_VENV": "yes"}, "has no venv")],
)
def test_an_unfit_python_is_refused_with_one_line_that_says_what_to_install(clone, environment, reason):
    status, errors, asked = make(clone, "sweep", **environment)
    lines = [line for line in errors.splitlines() if not line.startswith("make")]
    assert status == 2
    assert asked == []
    assert len(lines) == 1
    assert reason in lines[0]
    assert "install python3 and python3-venv" in lines[0]
    assert "PYTHON=python3.12 make" in lines[0]


@needs_make
def test_a_python_that_is_not_there_is_refused(clone):
    (clone.parent / "python-stub").unlink()
    status, errors, _ = make(clone, "sweep")
    assert status == 2
    assert "python-stub cannot be run" in errors


@needs_make
def test_make_alone_lists_every_target_that_has_a_description(clone):
    listed = subprocess.run(["make"], cwd=clone, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    assert re.findall(r"^  make ([\w-]+)\t\S", listed, re.MULTILINE) == targets
    assert not (clone / ".venv").exists()


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line)] == []


def test_every_declared_dependency_is_pinned():
    def plain(name):
        return re.sub(r"[-_.]+", "-", re.split(r"[<>=;\[ ]", name, maxsplit=1)[0]).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["build-system"]["requires"] + project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        declared = declared + extra
    pinned = {plain(line): line for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {plain(name) for name in declared} <= set(pinned)
    assert [name for name in declared if "==" in name and pinned[plain(name)] != name] == []


def test_make_and_the_metadata_ask_for_the_same_python():
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    major, minor = re.search(r"version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text()).groups()
    assert oldest == f">={major}.{minor}"


def test_a_warning_raised_in_this_package_is_an_error_and_one_from_elsewhere_is_not():
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn_explicit("elsewhere", UserWarning, "x.py", 1, module="elsewhere")
    assert len(caught) == 1
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn_explicit("ours", UserWarning, "x.py", 1, module="descentlab.nn.trainer")


@pytest.mark.slow
def test_the_wheel_brings_its_configuration_and_runs_from_an_empty_folder(tmp_path):
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run([*pip, *build], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = wheels.iterdir()
    install = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True, cwd=tmp_path)

    in_clone = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    conf = site / "descentlab/conf"
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} == in_clone != set()
    for arguments in (["--help"], ["data=xor", "epochs=2", "tracking=none"]):
        # -P and PYTHONPATH: the installed wheel and not the clone, which an editable install puts on the path later
        done = subprocess.run(
            [sys.executable, "-P", "-m", "descentlab", *arguments],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert list(empty.iterdir()) == []
