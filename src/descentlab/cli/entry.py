"""The command `descentlab`: it calls the command that the first word names, and trains if there is none."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from descentlab.cli.commands import COMMANDS, command_words
from descentlab.cli.parsing import Parser, parsed, parser
from descentlab.config.composing import choices, compose, every_option, folders_of
from descentlab.config.configuration import Config
from descentlab.config.hydra_api import shell_completion
from descentlab.config.resolving import keys
from descentlab.config.spellings import meant
from descentlab.interrupts import guarded
from descentlab.values import InputError, nearest, refusal, shown, unknown, without_password

if TYPE_CHECKING:
    from descentlab.config.cells import Cell
    from descentlab.nn.recipe import Trainer, Training
    from descentlab.tracking import CellRun

ABOUT = "How small neural networks learn, measured over many random restarts at once."
EXAMPLES = """examples:
  descentlab activation=tanh restarts=20
  descentlab network.hidden=64-32 descent=stochastic learning_rate=0.05
  descentlab 'learning_rate=[0.05,0.1,0.2]' restarts=30
  descentlab activation=leaky_relu activation.negative_slope=0.2 update=adam learning_rate=0.001
  descentlab data=xor network.hidden=2 descent=batch learning_rate=4 epochs=2000 restarts=100
  descentlab -m activation=sigmoid,relu loss=mean_squared_error,categorical_cross_entropy restarts=30
  descentlab -m activation=sigmoid,relu restarts=30 hydra/launcher=local hydra.launcher.workers=2
"""
TRAIN_FLAGS = ("sweep", "cfg", "config_dir", "completion", "version")


def main(arguments: Sequence[str] | None = None, trainer: "Trainer | None" = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `descentlab`; None reads those of the process.
        trainer: trains in place of the package's own.

    Returns:
        The exit status: 0, 1 where cells failed or results differ, 2 for bad input, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words, trainer))


def _dispatch(words: list[str], trainer: "Trainer | None") -> int:
    first = words[0] if words else ""
    if first == "help":
        if words[1:2] and words[1] not in (*COMMANDS, "train"):
            raise unknown("help", words[1], COMMANDS)
        words = [*words[1:2], "--help"]
        first = words[0]
    if first in COMMANDS:
        command = COMMANDS[first]
        made = command.parser(first)
        given = parsed(made, words[1:])
        given.trainer = trainer
        run: Callable[[Namespace], int] = command.run
    else:
        made = train_parser()
        given = parsed(made, words[1:] if first == "train" else words)
        run = lambda given: _train(given, trainer)  # noqa: E731
    if given.help:
        more = f"\n{choices(folders_of(given.config_dir))}\n" if first not in COMMANDS else ""
        print(made.format_help() + more, end="")
        return 0
    return run(given)


def train_parser() -> Parser:
    """The parser of the command without a name, which trains."""
    commands = [f"  {name:<8} {command.about}" for name, command in COMMANDS.items()]
    more = ["commands (descentlab COMMAND --help shows the words of one):", *commands, "", EXAMPLES]
    return parser("descentlab", "[-m] [KEY=VALUE ...] | COMMAND ...", ABOUT, "\n".join(more), TRAIN_FLAGS)


def _train(given: Namespace, trainer: "Trainer | None") -> int:
    """Train the configurations that the words name, or answer --version, --cfg and --shell-completion."""
    if given.version:
        from importlib.metadata import version

        print(f"descentlab {version('descentlab')}")
        return 0
    if given.completion:
        _complete(given.words, given.config_dir)
        return 0
    for word in given.words:
        if re.fullmatch(r"[\w./-]+", word):
            hint = meant(word, every_option(folders_of(given.config_dir)))
            asked = f" (did you mean {hint}?)" if hint else nearest(word, [*COMMANDS, *keys()])
            raise InputError(f"{shown(word)}: must be KEY=VALUE, or one of {', '.join(COMMANDS)}{asked}")
    configs = compose(given.words, sweep=given.sweep, config_dir=given.config_dir)
    if given.cfg is None:
        labels = [word.partition("=")[2] for word in given.words if word.startswith("experiment=")]
        return _run(configs, labels[-1] if labels else "", trainer)
    import yaml

    documents = [f"# hash {config.hash}\n{yaml.safe_dump(config.as_dict(), sort_keys=False)}" for config in configs]
    print(without_password("---\n".join(documents)), end="")
    return 0


def _run(configs: Sequence[Config], label: str, trainer: "Trainer | None") -> int:
    """Train configurations as a sweep, and print its final values and where they are stored."""
    from descentlab.cli import final_values
    from descentlab.cli.words import store_words
    from descentlab.config.cells import cells as made
    from descentlab.sweeps import running as sweeps
    from descentlab.tracking import open_tracker

    store = configs[0].tracking
    for config in configs:
        if config.tracking != store:
            raise refusal("tracking", config.tracking.name, "must be the same in all cells of a sweep")
    cells = made(configs, trainer=trainer)
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
        location = tracker.location
    for line in final_values.lines(cells, trainings):
        print(line)
    which = f"run {run_ids[0]} of " if len(run_ids) == 1 else f"{len(run_ids)} runs of " if run_ids else ""
    place = store_words(store)
    look = f"; to see it: descentlab list{place}, descentlab ui{place}" if run_ids else ""
    print(f"stored: {which}{location}{look}" if store.name != "none" else "not stored: tracking=none")
    if failed:
        print(f"descentlab: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _complete(words: list[str], config_dir: str | None) -> None:
    """Hydra's shell completion: install=SHELL, uninstall=SHELL, or query=SHELL as the installed script calls it."""
    if len(words) != 1 or not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", words[0]):
        raise InputError(f"-sc {shown(' '.join(words))}: must be -sc install=SHELL, SHELL one of bash, fish, zsh")
    if words[0].startswith("query="):
        line = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        print("\n".join(command_words(line)))
        if line[0] in ("plan", "train", "inspect") and len(line) > 1:  # their words are those of a run
            os.environ["COMP_LINE"] = " ".join(["descentlab", *line[1:]])
        elif line[0] in COMMANDS:
            return
    shell_completion(words, folders_of(config_dir))
