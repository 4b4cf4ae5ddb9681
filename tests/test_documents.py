"""Every command and every block of code in the README and in docs/ runs, or stands below with the reason why not."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from descentlab import cli
from descentlab.config.composing import compose

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {  # what begins so -> where it is tested, or why it is not
    "descentlab ui": "runs until Ctrl-C: tests/test_ui.py",
    "descentlab server": "runs until Ctrl-C: tests/test_server.py",
    "descentlab -sc": "prints Hydra's script for a shell: tests/test_command_line.py",
    "descentlab learning_rate=-1": "is refused: the time that a refusal takes",
    "reverse_proxy": "a line of another program's file",
    "descentlab check": "tests/test_gradient_check.py and tests/test_recipes.py",
    "python experiments/": "the studies run in tests/test_experiments.py",
    ".venv/bin/python experiments/": "the studies run in tests/test_experiments.py",
    "python benchmarks/": "a benchmark: tests/test_benchmarks.py runs its parts",
    "make": "targets: tests/test_packaging.py, and the test of their names below",
    "py -m venv": "Windows",
    ".venv\\Scripts": "Windows",
    "DESCENTLAB_DATABASE": "needs a database: tests/test_server.py",
    "sudo apt-get": "installs a program",
    "descentlab -m experiment=wider": "a recipe: tests/test_recipes.py",
    "pip install": "installs a program",
    "mlflow": "MLflow's own command",
    ".venv/bin/ruff": "ruff's own command",
    ".venv/bin/python -m pip": "installs packages",
}
COMPOSED = ("hydra/launcher", "tracking=server", "experiment=")  # need a queue, a server or MNIST: composed only
SMALL = ["epochs=1", "restarts=2"]


def fenced(path):
    """The fenced blocks of a document: language, text."""
    return re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands():
    """Every line of a block of commands, and every command in the text that has no placeholder."""
    found = {}
    for path in DOCUMENTS:
        for language, text in fenced(path):
            if language in ("", "bash"):
                lines = [line.split("  #")[0].strip() for line in text.splitlines()]
                found |= dict.fromkeys(line for line in lines if re.match(r"[.\w]", line) and "{" not in line)
        prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`(descentlab [^`]*)`", prose)
        found |= dict.fromkeys(span for span in spans if not re.search(r"\.\.\.|[A-Z]{2}|\.[a-z]+\.|=$", span))
    return [line for line in found if line not in ("}", "descentlab")]


RUN = [line for line in commands() if not line.startswith(tuple(ELSEWHERE))]


@pytest.fixture(scope="module")
def stored(empty_store, tmp_path_factory):
    """Overrides that name a store with two runs."""
    path = tmp_path_factory.mktemp("documents") / "mlflow.db"
    shutil.copy(empty_store, path)
    place = [f"tracking.uri={path}", "tracking.experiment=tests"]
    assert cli.main(["-m", "data=xor", "epochs=2", "restarts=2", "activation=tanh,relu", *place]) == 0
    return place


@pytest.fixture
def here(tmp_path, monkeypatch, stored):
    """A working directory with the files that the documents name; overrides that name the store."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{k % 7},{k % 5 + k / 50},{'ab'[k % 2]}" for k in range(40))
    Path("flowers.csv").write_text(f"width,length,label\n{rows}\n")
    Path("wine.data").write_text("\n".join(f"{k % 3 + 1},{k % 7},{k / 9}" for k in range(40)))
    options = tmp_path / "options" / "activation"
    options.mkdir(parents=True)
    (options / "mine.yaml").write_text("name: leaky_relu\nnegative_slope: 0.3\n")
    return stored


def answered(words, here, capsys):
    """Run a command of the documents with what they leave open filled in."""
    from descentlab.tracking import find
    from descentlab.values import Option

    numbers = dict(word.removeprefix("tracking.").split("=", 1) for word in here)
    cells = find(Option("local", numbers))
    filled = {"0123abcd": cells[0].run_id, "4567cdef": cells[1].run_id, "sweep=ID": f"sweep={cells[0].sweep}"}
    words = [filled.get(word, word.replace("~/options", "options")) for word in words]
    if words in (["show"], ["restore"], ["inspect"]):  # a command's name alone
        status = cli.main([*words, "--help"])
    elif words[0] in ("show", "compare", "replay", "list", "status", "export", "delete", "restore"):
        status = cli.main([*words, *here])
    elif any(word.startswith(COMPOSED) for word in words):
        status = cli.main(["--cfg", "job", *words])
    elif "--cfg" in words or words[0] in ("inspect", "help") or words[-1] == "--help":
        status = cli.main(words)
    else:
        known = {word.split("=")[0] for word in words}
        small = [word for word in SMALL if word != "restarts=2" or "restarts" in known]
        status = cli.main([*words, *small, "tracking=none"])
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_documents_runs(line, here, capsys):
    program, *words = shlex.split(line)
    assert program == "descentlab", f"{line}: neither run here nor among those that are tested elsewhere"
    assert answered(words, here, capsys) or words[0] == "export"


def test_every_make_target_and_word_in_the_documents_is_there(here, capsys):
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"(?:`|^|then |&& )make (\w+)", text, re.MULTILINE))
    assert {"sweep", "test", "report", "bench", "setup"} <= named <= targets
    for words in re.findall(r'make run ARGS="(.*?)"', text):
        assert answered(shlex.split(words), here, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "code"),
    [(path, code) for path in DOCUMENTS[:1] + DOCUMENTS[2:] for language, code in fenced(path) if language == "python"],
)
def test_the_code_of_the_readme_and_of_docs_runs(path, code):
    exec(compile(code, str(path), "exec"), {})


def test_the_option_files_of_the_documents_are_read(tmp_path):
    blocks = [text for language, text in fenced(ROOT / "docs" / "configuration.md") if language == "yaml"]
    experiment, option = blocks
    for place, text in (("experiment/mine.yaml", experiment), ("activation/mine.yaml", option)):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(text)
    assert len(compose(["experiment=mine"], config_dir=str(tmp_path))) == 4
    (config,) = compose(["activation=mine"], config_dir=str(tmp_path))
    assert config.activation.as_dict() == yaml.safe_load(option)


def test_every_experiment_stands_in_the_list_of_experiments_and_nothing_else_does():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(experiments/[\w/]+\.py)`", text, re.MULTILINE))
    assert listed == {str(path.relative_to(ROOT)) for path in (ROOT / "experiments").rglob("[a-z]*.py")}


def test_every_link_of_the_documents_leads_to_a_file_and_a_heading():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(((?!https?:)[^)#]*)(?:#([\w-]+))?\)", path.read_text(encoding="utf-8")):
            file = path.parent / target[0] if target[0] else path
            assert file.exists(), f"{path.name}: {target[0]}"
            if target[1]:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert target[1] in anchors, f"{path.name}: #{target[1]}"


def test_the_readme_is_short():
    assert len(DOCUMENTS[0].read_text(encoding="utf-8").splitlines()) < 150
