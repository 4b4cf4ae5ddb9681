"""The table of commands: what each does, its words and flags, and the function that runs it."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from descentlab.cli.parsing import Parser, parser
from descentlab.config.options import GROUPS

_RUN_KEYS = ("name", *GROUPS[:-1], "output", "learning_rate", "epochs", "seed", "restarts")
_FILTERS = (
    "sweep=last",
    *(f"status={status}" for status in ("FINISHED", "FAILED", "KILLED")),
    *(f"{key}=" for key in _RUN_KEYS),
)
_FILTER_HELP = "FILTER: sweep=ID, sweep=last, status=FAILED, name=..., or a setting such as activation=relu or seed=3\n"
_STORE_HELP = "STORE: tracking.uri=PATH or ADDRESS, tracking.experiment=NAME; by default the clone's mlflow.db\n"


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        words: of its usage line.
        about: what it does, in a sentence.
        run: takes the words and flags that were given, and returns the exit status.
        more: further help.
        flags: keys of parsing.FLAGS.
        completions: words that the shell offers after it.
    """

    words: str
    about: str
    run: Callable[[Namespace], int]
    more: str = ""
    flags: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()

    def parser(self, name: str) -> Parser:
        """Its parser, under the name it is called by."""
        return parser(
            f"descentlab {name}", self.words, f"{self.about[0].upper()}{self.about[1:]}.", self.more, self.flags
        )


def _check(given: Namespace) -> int:
    from descentlab.cli.checking import check

    return check(given.words)


def _ui(given: Namespace) -> int:
    from descentlab.cli.serving import ui

    return ui(given.words)


def _server(given: Namespace) -> int:
    from descentlab.cli.serving import server

    return server(given.words)


def _replay(given: Namespace) -> int:
    from descentlab.cli.words import apart, named_words
    from descentlab.tracking import replay

    words, store = apart(given.words)
    (run_id,) = named_words(words, 1, "replay")
    outcome = replay(run_id, store, trainer=given.trainer)
    print(outcome)
    return 0 if outcome.same_bits else 1


def _plan(given: Namespace) -> int:
    from descentlab.cli.planning import plan
    from descentlab.config.composing import compose

    cells = compose(given.words, sweep=given.sweep, config_dir=given.config_dir)
    print(plan(cells, cells[0].tracking, given.trainer))
    return 0


def _inspect(given: Namespace) -> int:
    from descentlab.cli.inspecting import inspect

    print(inspect(given.words, given.json, given.config_dir))
    return 0


def _printed(work: str) -> Callable[[Namespace], int]:
    """A command that prints the text that a function (module.name) returns for its words and their store."""

    def run(given: Namespace) -> int:
        from importlib import import_module

        from descentlab.cli.words import apart

        module, _, name = work.partition(".")
        words, store = apart(given.words)
        more = {"yes": True} if getattr(given, "yes", False) else {}
        print(getattr(import_module(f"descentlab.cli.{module}"), name)(words, store, **more))
        return 0

    return run


COMMANDS = {
    "check": Command(
        "[activation=A] [loss=L] [output=O]",
        "compare hand-derived slopes and gradients with differences of values",
        _check,
        completions=("activation=", "loss=", "output="),
    ),
    "ui": Command(
        "[port=N] [STORE]",
        "serve the stored runs in MLflow's pages, to this machine only, until Ctrl-C",
        _ui,
        _STORE_HELP,
        completions=("port=",),
    ),
    "replay": Command(
        "RUN_ID [STORE]",
        "train a stored run again and report whether the results are bit-identical; status 1 if not",
        _replay,
        _STORE_HELP,
    ),
    "server": Command(
        "[port=N] [folder=DIR] [hosts=A,B] [origins=A,B] [auth=basic]",
        "serve a store that several people share (docs/scale.md), until Ctrl-C",
        _server,
        "DESCENTLAB_DATABASE=postgresql://... in the environment names the database; SQLite in folder= otherwise.\n",
        completions=("port=", "folder=", "hosts=", "origins=", "auth=basic"),
    ),
    "plan": Command(
        "[-m] [KEY=VALUE ...]",
        "estimate what a command would take: cells to train, cells already stored, time, memory, disk space",
        _plan,
        "Words and flags are those of the command without plan.\n",
        flags=("sweep", "config_dir"),
    ),
    "inspect": Command(
        "data=... [KEY=VALUE ...]",
        "show how data would be read: columns, task, classes, splits; trains nothing",
        _inspect,
        "Words are those of a run, such as data=file data.path=FILE data.target=COLUMN.\n",
        flags=("json", "config_dir"),
        completions=("data=", "--json"),
    ),
    "status": Command(
        "[sweep=ID|last] [limit=N|all] [STORE]",
        "show the progress of sweeps: cells planned, done, running, failed, killed",
        _printed("status.status"),
        _STORE_HELP,
        completions=("sweep=last", "limit=all"),
    ),
    "list": Command(
        "[cells|sweeps|summaries|deleted] [FILTER ...] [limit=N|all] [STORE]",
        "list stored runs, the newest first",
        _printed("listing.list_runs"),
        _FILTER_HELP + _STORE_HELP,
        completions=("sweeps", "summaries", "deleted", "limit=all", *_FILTERS),
    ),
    "show": Command(
        "RUN_ID [STORE]",
        "show one run: settings, results with intervals, files and origin",
        _printed("listing.show"),
        "The first four characters of an id are enough.\n" + _STORE_HELP,
    ),
    "compare": Command(
        "RUN_ID RUN_ID [metric=NAME,...] [STORE]",
        "compare two runs: settings, and results seed by seed",
        _printed("comparing.compare"),
        _STORE_HELP,
    ),
    "export": Command(
        "[FILE.csv|FILE.parquet|-] [FILTER ...] [STORE]",
        "write one table of all stored results, a row per restart",
        _printed("exporting.export"),
        "Without a file, or with -, the table goes to standard output as CSV.\n" + _FILTER_HELP + _STORE_HELP,
        completions=_FILTERS,
    ),
    "delete": Command(
        "RUN_ID|FILTER ... [--yes] [STORE]",
        "hide runs from all commands; without --yes, show which",
        _printed("deleting.delete"),
        _FILTER_HELP + _STORE_HELP,
        flags=("yes",),
        completions=("--yes", *_FILTERS),
    ),
    "restore": Command(
        "RUN_ID|FILTER ... [STORE]",
        "bring deleted runs back",
        _printed("deleting.restore"),
        _FILTER_HELP + _STORE_HELP,
        completions=_FILTERS,
    ),
}


def command_words(words: Sequence[str]) -> list[str]:
    """Words that can complete the last one of a command line: commands, or the words of a command."""
    offered = COMMANDS[words[0]].completions if len(words) > 1 and words[0] in COMMANDS else ()
    return [word for word in (offered if len(words) > 1 else COMMANDS) if word.startswith(words[-1])]
