"""The command line, and the only room that knows Hydra: words in, checked configurations out.

Overrides are read with Hydra's grammar, options are composed by Hydra over conf/ and folders of the user's own. A sweep
(-m, or the arms of a script) is expanded here, so that all its cells are composed and checked before the first one
trains, each choice of options is composed once, and no folder is left behind.
"""

import copy
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from descentlab.harness.config import (
    GROUPS,
    LAUNCHER,
    Config,
    InputError,
    by_rate,
    check,
    keys,
    nearest,
    refusal,
    resolve,
    shown,
    tell_apart,
    unknown,
    without_password,
)
from descentlab.harness.interrupts import terminable

if TYPE_CHECKING:
    from descentlab.harness.config import Option
    from descentlab.harness.tracking import CellRun
    from descentlab.nn.trainer import Training

USER_CONF = "DESCENTLAB_CONF"
MOST_CELLS = 100_000
CHOICES = (*GROUPS, "experiment", LAUNCHER)  # folders of conf/, one option of which is chosen
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


def guarded(work: Callable[[], int]) -> int:
    """Run what a command does; bad input becomes one line on standard error and exit status 2."""
    try:
        with terminable():
            status = work()
        sys.stdout.flush()  # here, where a reader that has left can be borne
        return status
    except InputError as error:
        print(f"descentlab: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        name = str(error)  # of the signal, where it was not Ctrl-C
        print(f"descentlab: stopped{f' ({name})' if name else ''}; what had finished is kept", file=sys.stderr)
        return 128 + getattr(signal, name, signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    flags, overrides = _flags(words)
    config_dir = flags.get("config_dir")
    if "help" in flags:
        print(USAGE + "\n" + _choices(_folders(config_dir)))
    elif "version" in flags:
        from importlib.metadata import version

        print(f"descentlab {version('descentlab')}")
    elif "completion" in flags:
        _complete(overrides, config_dir)
    else:
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


def _train(cells: Sequence[Config], label: str) -> int:
    from descentlab.harness import sweeps
    from descentlab.harness.tracking import open_tracker

    for cell in cells:
        check(cell)
        if cell.tracking != cells[0].tracking:
            raise refusal("tracking", cell.tracking.name, "must be the same in all cells of a sweep")
    run_ids: list[str] = []

    def note(cell: Config, training: "Training", kept: "CellRun") -> None:
        run_ids.extend([kept.run_id] if kept.run_id else [])

    trainings: Sequence[Training | None]
    with open_tracker(cells[0].tracking) as tracker:
        try:
            trainings, failed = sweeps.run(cells, tracker, on_finish=note, label=label), ""
        except sweeps.CellsFailed as error:
            trainings, failed = error.trainings, str(error)
        tracker.flush()
        sweeps.write_results(cells, trainings, sys.stdout)
        which = f"run {run_ids[0]} of " if len(run_ids) == 1 else f"{len(run_ids)} runs of " if run_ids else ""
        print(
            f"kept: {which}{tracker.location}"
            + ("; look at it with: descentlab list, descentlab ui" if run_ids else "")
        )
    if failed:
        print(f"descentlab: {failed}", file=sys.stderr)
    return 1 if failed else 0


# --- composing ---------------------------------------------------------------------------------------------------


def conf_folder() -> Path:
    """conf/ at the clone's top, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"{package}: the installation has no conf folder; install descentlab again")


def compose(
    overrides: Sequence[str],
    experiment: str | None = None,
    arms: Sequence[Sequence[str]] | None = None,
    sweep: bool = True,
    config_dir: str | None = None,
) -> list[Config]:
    """Compose and resolve the cells of a sweep, or of one run.

    Args:
        overrides: in Hydra's grammar, for every cell; comma-separated values make a grid.
        experiment: an option of conf/experiment/.
        arms: override lists, one per cell (or grid of cells); None takes those that the experiment lists, if any.
        sweep: whether there may be more than one cell; a list of learning rates makes several either way.
        config_dir: folder with option files of the user's own; None looks at DESCENTLAB_CONF.

    Returns:
        The cells, in order; with names that tell them apart. `overrides` have the last word over an arm, and that over
        what the experiment says.

    Raises:
        InputError: whatever is wrong with the words or the configuration, in one line.
    """
    composer = _Composer(_folders(config_dir))
    chosen = [f"experiment={experiment}"] if experiment else []
    cells: list[Config] = []
    for arm in arms if arms is not None else [[]]:
        for words in composer.cells([*chosen, *arm, *overrides], sweep, arms is None):
            for raw in by_rate(composer.raw(words)):
                cells.append(resolve(raw))
                if len(cells) > MOST_CELLS:
                    raise InputError(f"sweep: has more than {MOST_CELLS} cells")
    return tell_apart(cells) if len(cells) > 1 else cells


class _Composer:
    """Hydra over some folders; a choice of options is composed once, values are set on copies of it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self.folders = folders
        self.loader = _loader(folders)
        self._parser = OverridesParser.create(config_loader=self.loader)
        self._composed: dict[tuple[str, ...], _Composed] = {}

    def cells(self, words: Sequence[str], sweep: bool, own_arms: bool) -> Iterator[dict[str, Any]]:
        """Values by key for every cell: the words' grid over those that an experiment lists."""
        for values in self._grid(words, sweep):
            composed = self._compose(values)
            if composed.arms and own_arms and not sweep:
                count = len(composed.arms)
                raise refusal("experiment", values["experiment"], f"is a sweep of {count} arms; add -m to run them all")
            if not sweep:
                yield values
                continue
            for arm in composed.arms if composed.arms and own_arms else [[]]:
                for beneath in self._grid([*composed.axes, *arm], True, without=values):
                    yield {**beneath, **values}

    def raw(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The plain nested values of one cell."""
        raw = copy.deepcopy(self._compose(values).raw)
        for key, value in values.items():
            if key not in CHOICES:
                *path, last = key.removeprefix("hydra.").split(".")
                place: Any = raw
                for part in path:
                    place = place.setdefault(part, {})
                    if not isinstance(place, dict):
                        raise refusal(part, place, f"must hold keys such as {last}")
                place[last] = value
        return raw

    def _grid(
        self, words: Sequence[str], sweep: bool, without: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[dict[str, Any]]:
        """Several values of a key multiplied out; of two words with one key the later counts."""
        axes: dict[str, list[Any]] = {}
        for word in words:
            key, values = self._axis(word, sweep)
            if key not in without:
                axes[key] = values
        if math.prod(len(values) for values in axes.values()) > MOST_CELLS:
            raise InputError(f"sweep: has more than {MOST_CELLS} cells")
        for cell in product(*axes.values()):
            yield dict(zip(axes, cell, strict=True))

    def _axis(self, word: str, sweep: bool) -> tuple[str, list[Any]]:
        """The key of an override and the values it gives it, one or several."""
        override = self._parsed(word)
        key = override.key_or_group
        if not override.is_sweep_override():
            return key, [self._checked(key, override.value())]
        if not sweep:
            raise InputError(f"{shown(word)}: several values make a sweep; add -m to run them all")
        values = _swept(override, word)
        if len(values) > MOST_CELLS:
            raise InputError(f"{shown(word)}: makes more than {MOST_CELLS} cells")
        if not values:
            raise InputError(f"{shown(word)}: is a sweep over nothing")
        return key, [self._checked(key, value) for value in values]

    def _parsed(self, word: str) -> Any:
        try:
            override = self._parser.parse_overrides([word])[0]  # the singular form cannot glob
        except Exception as error:  # of Hydra, of its grammar, or of numbers too large for Python to read
            raise _unreadable(word) from error
        if override.is_delete() or override.package is not None:
            raise InputError(f"{shown(word)}: must be KEY=VALUE; no key can be taken out or moved")
        return override

    def _checked(self, key: str, value: Any) -> Any:
        """A value as it is; a key or an option that is not there is refused."""
        if key in CHOICES:
            names = _options_of(key, self.folders)
            if key == "experiment" and value is None:
                return None
            if value not in names:
                raise unknown(key, value, names)
            return str(value)
        group, _, number = key.replace(LAUNCHER.replace("/", "."), LAUNCHER, 1).partition(".")
        if key not in keys() and not (group in (*GROUPS, "output_initializer", LAUNCHER) and number):
            valid = [*keys(), "experiment", LAUNCHER]
            raise refusal(key, value, f"unknown key; not one of {', '.join(valid)}{nearest(key, valid)}")
        return value

    def _compose(self, values: Mapping[str, Any]) -> "_Composed":
        choices = {key: value for key, value in values.items() if key in CHOICES}
        words = tuple(f"{key}={'null' if value is None else value}" for key, value in sorted(choices.items()))
        if words not in self._composed:
            self._composed[words] = _composed(self.loader, words)
        return self._composed[words]


def _swept(override: Any, word: str) -> list[Any]:
    """The values of a sweep, up to one more than there may be cells."""
    from hydra.core.override_parser.types import RangeSweep

    sweep = override.value()
    try:
        if isinstance(sweep, RangeSweep) and (sweep.stop - sweep.start) / sweep.step > MOST_CELLS:
            return [sweep.start] * (MOST_CELLS + 1)  # a shuffled range would be written out first
        return [override._convert_value(value) for value in islice(override.sweep_iterator(), MOST_CELLS + 1)]
    except Exception as error:  # of Hydra, or of the numbers in a range
        raise InputError(f"{shown(word)}: is not a sweep over single values ({_first_line(error)})") from error


@dataclass(frozen=True)
class _Composed:
    """A choice of options as plain values, and the sweep that an experiment lists: its arms, and axes over all."""

    raw: dict[str, Any]
    arms: list[list[str]]
    axes: list[str]


def _composed(loader: Any, words: Sequence[str]) -> _Composed:
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    try:
        config = loader.load_configuration("config", list(words), RunMode.RUN, from_shell=False)
        params = dict(config.hydra.sweeper.get("params") or {})
        raw: Any = OmegaConf.to_container(config, resolve=False)
        launcher = raw.pop("hydra")["launcher"]
    except Exception as error:  # whatever Hydra, OmegaConf or the YAML reader say about a file of the user's own
        raise InputError(f"configuration: {_first_line(error)}") from error
    raw["launcher"] = {"name": "none"} if "_target_" in launcher else launcher  # Hydra's own, where none is chosen
    arms = raw.pop("arms", None) or []
    if not isinstance(arms, list) or not all(isinstance(arm, list) for arm in arms):
        raise refusal("arms", arms, "must be a list of override lists")
    return _Composed(raw, [[str(word) for word in arm] for arm in arms], [f"{key}={params[key]}" for key in params])


def _loader(folders: Sequence[Path]) -> Any:
    from hydra import version
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    version.setbase("1.3")
    return ConfigLoaderImpl(config_search_path=_search_path(folders))


def _search_path(folders: Sequence[Path]) -> Any:
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    path = create_config_search_path(f"file://{folders[0]}")
    for folder in folders[1:]:
        path.prepend("user", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return path


def _unreadable(word: str) -> InputError:
    """The error for a word that Hydra's grammar does not know, with what may have been meant."""
    if "=" in word:
        key, _, value = word.partition("=")
        return refusal(key, value, "cannot be read; lists and texts with special characters need quotes,"
                       " as in 'network.hidden=[64,32]' or 'data.path=\"~/a.csv\"'")  # fmt: skip
    names = [*COMMANDS, *keys()]
    return InputError(f"{shown(word)}: must be KEY=VALUE, or one of {', '.join(COMMANDS)}{nearest(word, names)}")


def _first_line(error: Exception) -> str:
    """What an exception says, on one line, without search paths and links."""
    text = str(error).split("\nSearch path:")[0].split("\nSee https:")[0]
    return shown(" ".join(text.split()) or type(error).__name__, 300)


def _folders(config_dir: str | None) -> list[Path]:
    """Where options are looked for: the project's own folder, then the user's.

    Raises:
        InputError: a folder that is not there, or one with a file that the project's own would hide.
    """
    own = conf_folder()
    given = os.environ.get(USER_CONF) if config_dir is None else config_dir
    if given is None:
        return [own]
    key = USER_CONF if config_dir is None else "--config-dir"
    try:
        folder = Path(given).expanduser().resolve()
        if not given or not folder.is_dir():
            raise refusal(key, given, "must be a folder with option files, such as activation/mine.yaml")
    except (OSError, ValueError, RuntimeError) as error:
        raise refusal(key, given, f"cannot be read ({_first_line(error)})") from error
    if folder == own:
        return [own]
    for file in sorted(folder.rglob("*.yaml")):
        if (own / file.relative_to(folder)).is_file():
            raise refusal(key, given, f"{file.relative_to(folder)} would be hidden by the project's own; rename it")
    return [own, folder]


def _options_of(group: str, folders: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


# --- help --------------------------------------------------------------------------------------------------------


def _choices(folders: Sequence[Path]) -> str:
    """Groups with their options and these with their own numbers, then keys with their defaults."""
    lines = ["groups and their options (* default):"]
    text = (folders[0] / "config.yaml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^  - (\w+): (\w+)", text, re.MULTILINE))
    for group in CHOICES:
        names = _options_of(group, folders)
        marked = [name + "*" if defaults.get(group) == name else name for name in names]
        lines += _wrapped(f"  {group:<14} ", " ".join(marked))
        owners: dict[str, list[str]] = {}
        for name in names if group != "experiment" else []:
            files = [path for folder in folders for path in [folder / group / f"{name}.yaml"] if path.is_file()]
            for number in re.findall(r"^(\w+):", files[0].read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
                owners.setdefault(number, []).append(name)
        owners.pop("name", None)
        dotted = group.replace("/", ".")
        texts = [f"{dotted}.{number} ({', '.join(own)})" if len(own) <= 3 else f"{dotted}.{number}"
                 for number, own in owners.items()]  # fmt: skip
        lines += _wrapped(" " * 17, "; ".join(texts)) if texts else []
    body = text.split("\n\n", 1)[1].rstrip().splitlines()
    return "\n".join(
        [*lines, "", "keys and their defaults (docs/configuration.md has them all):", *(f"  {line}" for line in body)]
    )


def _wrapped(head: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 118, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


# --- other commands ----------------------------------------------------------------------------------------------


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
    from descentlab.harness.tracking import serve_shared
    from descentlab.harness.tracking.store import home

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
    from descentlab.harness.tracking import serve_ui

    ports = [word for word in words if word.startswith("port=")]
    port = _port(ports[-1].removeprefix("port=")) if ports else None
    serve_ui(_tracking([word for word in words if word not in ports]), port)
    return 0


def _replay(words: list[str]) -> int:
    from descentlab.harness.tracking import replay

    if not words or "=" in words[0] or words[0].startswith("-"):
        raise InputError("replay: needs the id of a run, as in: descentlab replay 0123abcd")
    print(replay(words[0], _tracking(words[1:])))
    return 0


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


def _housekeeping(name: str) -> Callable[[list[str]], int]:
    """A command of the harness's housekeeping; overrides of tracking name the store."""

    def command(words: list[str]) -> int:
        from descentlab.harness import housekeeping

        store = [word for word in words if word.startswith("tracking")]
        work = getattr(housekeeping, "list_runs" if name == "list" else name)
        print(work([word for word in words if word not in store], _tracking(store)))
        return 0

    return command


def _plan(words: list[str]) -> int:
    """What the command with these words would train, and what that would take."""
    from descentlab.harness import planning

    flags, overrides = _flags(words)
    if set(flags) - {"sweep", "config_dir"}:
        raise InputError(f"{shown(' '.join(words))}: plan takes overrides, -m and --config-dir")
    cells = compose(overrides, sweep="sweep" in flags, config_dir=flags.get("config_dir"))
    print(planning.plan(cells, cells[0].tracking))
    return 0


def _status(words: list[str]) -> int:
    from descentlab.harness import planning

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
    **{name: _housekeeping(name) for name in ("list", "show", "compare", "export", "delete", "restore")},
}


def _complete(words: list[str], config_dir: str | None) -> None:
    """Hydra's shell completion: install=SHELL, uninstall=SHELL, or query=SHELL as the installed script calls it."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    if len(words) != 1 or not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", words[0]):
        raise InputError(f"-sc {shown(' '.join(words))}: must be -sc install=SHELL, SHELL one of bash, fish, zsh")
    if words[0].startswith("query="):
        line = os.environ.get("COMP_LINE", "").split(" ")[1:] or [""]
        print("\n".join(_command_words(line)))
        if line[0] == "plan" and len(line) > 1:  # its words are those of a run
            os.environ["COMP_LINE"] = " ".join(["descentlab", *line[1:]])
        elif line[0] in COMMANDS:
            return
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("descentlab", _search_path(_folders(config_dir)))
    try:
        hydra.shell_completion("config", words)
    finally:
        GlobalHydra.instance().clear()


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
