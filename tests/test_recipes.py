"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "activations network losses initializers updates registries gradient_check diagnostics overflow bits"
SETTINGS = "config spellings train house"
SHORT = ["epochs=2", "tracking=none"]
# The tests of the packages that each recipe touches, and a command that uses what was added.
RECIPES = {
    "An activation": (f"{NETWORK} {SETTINGS} theory curvature", ["check", "activation=arctan"]),
    "A loss": (f"{NETWORK} {SETTINGS}", [*SHORT, "data=diabetes", "loss=log_cosh"]),
    "An initializer": (
        f"{NETWORK} {SETTINGS} theory",
        [*SHORT, "data=iris", "initializer=heuristic_uniform"],
    ),
    "An update rule": (
        f"{NETWORK} {SETTINGS} checkpoints",
        [*SHORT, "data=iris", "update=clipped_descent"],
    ),
    "A data set": (f"data {SETTINGS}", [*SHORT, "data=wine"]),
    "A metric": (f"diagnostics results {SETTINGS}", [*SHORT, "data=digits", "restarts=2"]),
    "An experiment": (f"experiments {SETTINGS}", None),
    "A trainer": (
        f"own_trainer {SETTINGS}",
        ["examples/sign_descent.py", *SHORT, "data=iris", "learning_rate=0.01", "restarts=2"],
    ),
}
STEP = re.compile(
    r"^(?P<verb>Append to|Create|In) `(?P<file>[^`]+)`(?:, (?P<side>above|below) the line `(?P<line>[^`]+)`)?:\n\n"
    r"```\w+\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def recipe(title):
    """The steps of a recipe, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    body = re.search(rf"^### {title}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert body, title
    return [step.groupdict() for step in STEP.finditer(body[1])]


def follow(step, folder):
    path = folder / step["file"]
    if step["verb"] == "Create":
        assert not path.exists(), path
        path.write_text(step["text"], encoding="utf-8")
        return
    before = path.read_text(encoding="utf-8")
    if step["verb"] == "Append to":
        after = before + "\n\n" + step["text"]
    else:
        line = step["line"] + "\n"
        assert before.count(line) == 1, step["line"]
        place = before.index(line) + (len(line) if step["side"] == "below" else 0)
        after = before[:place] + step["text"] + ("" if step["side"] == "below" else "\n\n") + before[place:]
    path.write_text(after, encoding="utf-8")


def copy_of_the_project(folder):
    for name in ("conf", "src", "experiments", "examples", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, folder / path.name)


def in_copy(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_every_recipe_is_followed_by_a_test():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Recipes\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (.+)$", section, re.MULTILINE)) == set(RECIPES)


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_touches_two_files_at_most(title):
    assert 1 <= len({step["file"] for step in recipe(title)}) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works_to_the_letter(title, tmp_path):
    tests, command = RECIPES[title]
    copy_of_the_project(tmp_path)
    for step in recipe(title):
        follow(step, tmp_path)
    for words in (["-m", "ruff", "check"], ["-m", "ruff", "format", "--check"]):
        done = in_copy(tmp_path, *words)
        assert done.returncode == 0, done.stdout[-2000:]
    if command:
        start = [] if command[0].endswith(".py") else ["-m", "descentlab"]
        done = in_copy(tmp_path, *start, *command)
        assert done.returncode == 0, done.stderr[-2000:]
    files = [f"tests/test_{name}.py" for name in tests.split()]
    done = in_copy(tmp_path, "-m", "pytest", "-q", "-x", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-3000:]
