"""Flags of the command line, by argparse; words (KEY=VALUE, names, ids) are left to the commands."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from descentlab.values import InputError, nearest, refusal, shown

WIDTH = 100  # of help, whatever the terminal
FLAGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "sweep": (("-m", "--multirun"), {"action": "store_true", "help": "train every combination of A,B values"}),
    "cfg": (
        ("-c", "--cfg"),
        {"nargs": "?", "const": "", "metavar": "job", "help": "show the resolved configuration and stop"},
    ),
    "config_dir": (
        ("-cd", "--config-dir"),
        {"nargs": "?", "const": "", "metavar": "DIR", "help": "read option files from DIR too ($DESCENTLAB_CONF)"},
    ),
    "completion": (
        ("-sc", "--shell-completion"),
        {"action": "store_true", "help": 'print shell completion: eval "$(descentlab -sc install=bash)"'},
    ),
    "version": (("--version",), {"action": "store_true", "help": "show the version and stop"}),
    "yes": (("--yes",), {"action": "store_true", "help": "delete; without it, show what would be deleted"}),
    "json": (("--json",), {"action": "store_true", "help": "print for a program"}),
    "help": (("-h", "--help"), {"action": "store_true", "help": "show this help and stop"}),
}


class Parser(argparse.ArgumentParser):
    """Argparse whose errors are refusals in one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse what argparse cannot read."""
        raise InputError(message)


def parser(name: str, words: str, about: str, more: str, flags: Sequence[str]) -> Parser:
    """The parser of one command.

    Args:
        name: of the command, as it is called.
        words: that it takes, for the usage line.
        about: what it does, in a sentence.
        more: further help, below the flags.
        flags: keys of FLAGS; help is always one of them.
    """
    made = Parser(
        prog=name,
        usage=f"{name} {words}".rstrip(),
        description=about,
        epilog=more,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=WIDTH),
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    for flag in (*flags, "help"):
        options, given = FLAGS[flag]
        made.add_argument(*options, dest=flag, **given)
    return made


def parsed(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Flags by name, and under `words` all other words in their order.

    Raises:
        InputError: for a flag that the command does not have.
    """
    given, rest = parser.parse_known_intermixed_args(list(words))
    known = [option for action in parser._actions for option in action.option_strings]
    for word in rest:
        name = word.partition("=")[0]
        raise InputError(f"{shown(word)}: unknown flag; not one of {', '.join(known)}{nearest(name, known)}")
    if getattr(given, "cfg", None) not in (None, "job"):
        raise refusal("--cfg", given.cfg, "must be job")
    return given
