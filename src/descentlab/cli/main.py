"""The command line: words in, calls out. Nobody imports it."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from descentlab.cli.words import store_words
from descentlab.config.composing import choices, compose, every_option, folders_of, shell_completion
from descentlab.config.configuration import Config
from descentlab.config.options import GROUPS
from descentlab.config.resolving import keys
from descentlab.config.spellings import meant
from descentlab.interrupts import guarded
from descentlab.values import InputError, nearest, refusal, shown, unknown, without_password

if TYPE_CHECKING:
    from descentlab.config.cells import Cell
    from descentlab.nn.recipe import Training
    from descentlab.tracking import CellRun
    from descentlab.values import Option

FLAGS = ("-m", "--multirun", "--cfg", "--config-dir", "--shell-completion", "-sc", "--version", "--help", "-h")
USAGE = """descentlab: how small neural networks learn, measured over stacked restarts.

usage: descentlab [KEY=VALUE ...]             train one configuration
       descentlab -m KEY=A,B [KEY=VALUE ...]  train every combination
       descentlab plan [-m] [KEY=VALUE ...]   what that would train, what is there already, time and disk
       descentlab status [sweep=last]         how far sweeps are: planned, done, running, failed, diverged
       descentlab ui [port=N]                 serve the tracked runs in MLflow, on this machine only
       descentlab server [port=N]             serve a shared store on PostgreSQL (docs/scale.md)
       descentlab replay RUN_ID               repeat a tracked run and say whether the bits agree
       descentlab check [activation=A]        compare hand-derived slopes and gradients with differences

       descentlab list [sweeps] [KEY=VALUE ...]   what is kept, the newest first; sweep=last, status=FAILED, limit=all
       descentlab show RUN_ID                     settings, results with intervals, files and origin of one run
       descentlab compare RUN_ID RUN_ID           what differs in settings, and in results seed by seed
       descentlab export [FILE.csv|FILE.parquet]  one table of everything, a row per restart
       descentlab delete RUN_ID|sweep=ID [--yes]  hide runs, or say what would go; descentlab restore takes it back

flags: -m, --multirun     comma-separated values make a sweep
       --cfg job          show the resolved configuration and stop
       --config-dir DIR   read option files of your own from DIR too (or from $DESCENTLAB_CONF)
       -sc install=bash   print shell completion; eval "$(descentlab -sc install=bash)" switches it on (zsh, fish too)
       --version, --help

examples: descentlab activation=tanh restarts=20
          descentlab network.hidden=64-32 descent=stochastic learning_rate=0.05
          descentlab 'learning_rate=[0.05,0.1,0.2]' restarts=30
          descentlab activation=leaky_relu activation.negative_slope=0.2 update=adam learning_rate=0.001
          descentlab data=xor network.hidden=2 descent=batch learning_rate=4 epochs=2000 restarts=100
          descentlab -m activation=sigmoid,relu loss=mean_squared_error,categorical_cross_entropy restarts=30
          descentlab -m activation=sigmoid,relu restarts=30 hydra/launcher=local hydra.launcher.workers=2
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `descentlab`; returns its exit status: 0, 1 where cells failed, 2 for bad input, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    flags, overrides = _flags(words)
    config_dir = flags.get("config_dir")
    if "help" in flags:
        print(USAGE + "\n" + choices(folders_of(config_dir)))
    elif "version" in flags:
        from importlib.metadata import version

        print(f"descentlab {version('descentlab')}")
    elif "completion" in flags:
        _complete(overrides, config_dir)
    else:
        for word in overrides:
            if re.fullmatch(r"[\w./-]+", word):
                hint = meant(word, every_option(folders_of(config_dir)))
                asked = f" (did you mean {hint}?)" if hint else nearest(word, [*COMMANDS, *keys()])
                raise InputError(f"{shown(word)}: must be KEY=VALUE, or one of {', '.join(COMMANDS)}{asked}")
        cells = compose(overrides, sweep="sweep" in flags, config_dir=config_dir)
        if "cfg" not in flags:
            labels = [word.partition("=")[2] for word in overrides if word.startswith("experiment=")]
            return _train(cells, labels[-1] if labels else "")
        import yaml

        documents = [f"# hash {cell.hash}\n{yaml.safe_dump(cell.as_dict(), sort_keys=False)}" for cell in cells]
        print(without_password("---\n".join(documents)), end="")
    return 0


def _flags(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Flags and overrides of a command line, in any order."""
    found: dict[str, str] = {}
    overrides = []
    rest = list(words)
    plain = {"-m": "sweep", "--multirun": "sweep", "-h": "help", "--help": "help", "--version": "version"}
    plain |= {"-sc": "completion", "--shell-completion": "completion", "--shell_completion": "completion"}
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif word in plain:
            found[plain[word]] = ""
        elif name in ("--cfg", "-c", "--config-dir", "-cd"):
            if not equals:
                value = rest.pop(0) if rest else ""
            if name in ("--cfg", "-c") and value != "job":
                raise refusal(name, value, "must be job")
            found["cfg" if name in ("--cfg", "-c") else "config_dir"] = value
        else:
            raise InputError(f"{shown(word)}: unknown flag; not one of {', '.join(FLAGS)}{nearest(name, FLAGS)}")
    return found, overrides


def _train(configs: Sequence[Config], label: str) -> int:
    from descentlab.cli import final_values
    from descentlab.config.cells import cells as made
    from descentlab.sweeps import running as sweeps
    from descentlab.tracking import open_tracker

    store = configs[0].tracking
    for config in configs:
        if config.tracking != store:
            raise refusal("tracking", config.tracking.name, "must be the same in all cells of a sweep")
    cells = made(configs)
    run_ids: list[str] = []

    def note(cell: "Cell", training: "Training", kept: "CellRun") -> None:
        run_ids.extend([kept.run_id] if kept.run_id else [])

    trainings: Sequence[Training | None]
    with open_tracker(store) as tracker:
        try:
            trainings, failed = sweeps.run(cells, tracker, on_finish=note, label=label), ""
        except sweeps.CellsFailed as error:
            trainings, failed = error.trainings, str(error)
        tracker.flush()
        final_values.write(cells, trainings, sys.stdout)
        which = f"run {run_ids[0]} of " if len(run_ids) == 1 else f"{len(run_ids)} runs of " if run_ids else ""
        place = store_words(store)
        look = f"; look at it with: descentlab list{place}, descentlab ui{place}" if run_ids else ""
        print(f"kept: {which}{tracker.location}{look}")
    if failed:
        print(f"descentlab: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _tracking(overrides: Sequence[str]) -> "Option":
    """The store that overrides such as tracking.uri=... name."""
    for word in overrides:
        if not word.startswith("tracking"):
            raise InputError(f"{shown(word)}: must be an override of tracking, such as tracking.uri=runs.db")
    return compose(overrides, sweep=False)[0].tracking


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise refusal("port", text, "must be a whole number from 1 to 65535")
    return int(text)


def _server(words: list[str]) -> int:
    from descentlab.tracking import serve_shared
    from descentlab.tracking.locations import home

    known = ("port", "folder", "hosts", "origins", "auth")
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known or not equals or not value:
            raise InputError(f"{shown(word)}: must be {', '.join(f'{name}=' for name in known)}{nearest(key, known)}")
        given[key] = value
    if given.get("auth", "none") not in ("none", "basic"):
        raise unknown("auth", given["auth"], ("none", "basic"))
    database = os.environ.get("DESCENTLAB_DATABASE") or None  # not a word: it may hold a password
    if database and not re.match(r"postgresql(\+\w+)?://.", database):
        raise InputError(f"DESCENTLAB_DATABASE={shown(database)}: must start with postgresql://")
    serve_shared(
        Path(given.get("folder", home() / "server")).absolute(),
        database,
        _port(given.get("port", "5000")),
        hosts=[name for name in given.get("hosts", "").split(",") if name],
        origins=[name for name in given.get("origins", "").split(",") if name],
        passwords=given.get("auth") == "basic",
    )
    return 0


def _ui(words: list[str]) -> int:
    from descentlab.tracking import serve_ui

    ports = [word for word in words if word.startswith("port=")]
    port = _port(ports[-1].removeprefix("port=")) if ports else None
    serve_ui(_tracking([word for word in words if word not in ports]), port)
    return 0


def _replay(words: list[str]) -> int:
    from descentlab.tracking import replay

    if not words or "=" in words[0] or words[0].startswith("-"):
        raise InputError("replay: needs the id of a run, as in: descentlab replay 0123abcd")
    outcome = replay(words[0], _tracking(words[1:]))
    print(outcome)
    return 0 if outcome.same_bits else 1


def _check(words: list[str]) -> int:
    """Compare slopes and gradients with differences, for the activation and loss that the words name or for all."""
    from descentlab.nn import gradient_check
    from descentlab.nn.activations import ACTIVATIONS
    from descentlab.nn.losses import LOSSES

    named = {word.partition("=")[0].partition(".")[0] for word in words}
    for word in words:
        if word.startswith("-") or word.partition("=")[0].partition(".")[0] not in ("activation", "loss", "output"):
            raise InputError(f"{shown(word)}: check takes activation=, its numbers, loss= and output=")
    (cell,) = compose([*words, "data=digits", "tracking=none"], sweep=False)
    one = ACTIVATIONS[cell.activation.name](**cell.activation.numbers)
    activations = [one] if "activation" in named else [factory() for factory in ACTIVATIONS.values()]
    losses = [LOSSES[cell.loss.name]] if named & {"loss", "output"} else list(LOSSES.values())
    outcomes = [comparison for activation in activations for comparison in gradient_check.check_slope(activation)]
    for activation, loss in product(activations, losses):
        for output in [cell.output] if "output" in named else loss.forms:
            for depth in gradient_check.DEPTHS:
                outcomes += gradient_check.check_gradient(activation, loss, output, depth)
    wrong = [outcome for outcome in outcomes if not outcome.agrees]
    for outcome in wrong:
        numbers = f"derived {outcome.derived:.9g}, difference {outcome.difference:.9g}"
        print(f"disagrees: {outcome.what}: {numbers}, relative error {outcome.error:.2g}")
    worst = max(outcome.error for outcome in outcomes)
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} derivatives agree; largest relative error {worst:.2g}")
    return 1 if wrong else 0


HOUSEKEEPING = {  # command -> the module that holds it
    "list": "listing",
    "show": "listing",
    "compare": "comparing",
    "export": "exporting",
    "delete": "deleting",
    "restore": "deleting",
}


def _housekeeping(name: str) -> Callable[[list[str]], int]:
    """A housekeeping command; overrides of tracking name the store."""

    def command(words: list[str]) -> int:
        from importlib import import_module

        store = [word for word in words if word.startswith("tracking")]
        module = import_module(f"descentlab.cli.{HOUSEKEEPING[name]}")
        work = getattr(module, "list_runs" if name == "list" else name)
        print(work([word for word in words if word not in store], _tracking(store)))
        return 0

    return command


def _plan(words: list[str]) -> int:
    """What the command with these words would train, and what that would take."""
    from descentlab.cli import planning

    flags, overrides = _flags(words)
    if set(flags) - {"sweep", "config_dir"}:
        raise InputError(f"{shown(' '.join(words))}: plan takes overrides, -m and --config-dir")
    cells = compose(overrides, sweep="sweep" in flags, config_dir=flags.get("config_dir"))
    print(planning.plan(cells, cells[0].tracking))
    return 0


def _status(words: list[str]) -> int:
    from descentlab.cli import planning

    store = [word for word in words if word.startswith("tracking")]
    print(planning.status([word for word in words if word not in store], _tracking(store)))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "check": _check,
    "ui": _ui,
    "replay": _replay,
    "server": _server,
    "plan": _plan,
    "status": _status,
    **{name: _housekeeping(name) for name in HOUSEKEEPING},
}


def _complete(words: list[str], config_dir: str | None) -> None:
    """Hydra's shell completion: install=SHELL, uninstall=SHELL, or query=SHELL as the installed script calls it."""
    if len(words) != 1 or not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", words[0]):
        raise InputError(f"-sc {shown(' '.join(words))}: must be -sc install=SHELL, SHELL one of bash, fish, zsh")
    if words[0].startswith("query="):
        line = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        print("\n".join(_command_words(line)))
        if line[0] == "plan" and len(line) > 1:  # its words are those of a run
            os.environ["COMP_LINE"] = " ".join(["descentlab", *line[1:]])
        elif line[0] in COMMANDS:
            return
    shell_completion(words, config_dir)


def _command_words(words: Sequence[str]) -> list[str]:
    """What may stand in the last place of a command line: a command, or what one takes."""
    if len(words) == 1:
        return [name for name in COMMANDS if name.startswith(words[0])]
    filters = ["sweep=last", *(f"status={status}" for status in ("FINISHED", "FAILED", "KILLED"))]
    filters += [f"{key}=" for key in ("name", *GROUPS[:-1], "output", "learning_rate", "epochs", "seed", "restarts")]
    known = {
        "status": ["sweep=last", "limit=all"],
        "list": ["sweeps", "summaries", "deleted", "limit=all", *filters],
        "export": filters,
        "delete": ["--yes", *filters],
        "restore": filters,
        "check": [f"{key}=" for key in ("activation", "loss", "output")],
        "ui": ["port="],
    }
    return [word for word in known.get(words[0], []) if word.startswith(words[-1])]
