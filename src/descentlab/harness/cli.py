"""The command line, and the only room that knows Hydra: words in, checked configurations out.

Overrides are read with Hydra's grammar and composed over conf/ by its compose API. A sweep (-m, or the arms of a script)
is expanded here, so that all its cells are composed and checked before the first one trains, and no folder is left.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descentlab.harness.config import GROUPS, Config, InputError, keys, refusal, resolve, shown, unknown

if TYPE_CHECKING:
    from descentlab.harness.config import Option

USER_CONF = "DESCENTLAB_CONF"
MOST_CELLS = 100_000
USAGE = """descentlab: how small neural networks learn, measured over stacked restarts.

usage: descentlab [key=value ...]            train one configuration
       descentlab -m key=a,b [key=value ...] train every combination
       descentlab ui [key=value ...]         serve the tracked runs in MLflow, on this machine only
       descentlab replay RUN_ID              repeat a tracked run and say whether the bits agree

options: -m, --multirun   comma-separated values make a sweep
         --cfg job        show the composed configuration and stop
         --config-dir DIR read option files of your own from DIR too (or from $DESCENTLAB_CONF)
         --version, --help

examples: descentlab activation=tanh restarts=20
          descentlab network.hidden=64-32 descent=stochastic learning_rate=0.05
          descentlab -m activation=sigmoid,relu loss=mean_squared_error,categorical_cross_entropy restarts=30
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `descentlab`; returns its exit status: 0, 2 for bad input, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def guarded(work: Callable[[], int]) -> int:
    """Run what a command does; bad input becomes one line on standard error and exit status 2."""
    try:
        return work()
    except InputError as error:
        print(f"descentlab: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"descentlab: stopped{f' ({error})' if str(error) else ''}; what had finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    options, overrides = _options(words)
    if options.get("help"):
        print(USAGE + "\n" + _choices())
        return 0
    if options.get("version"):
        from importlib.metadata import version

        print(f"descentlab {version('descentlab')}")
        return 0
    with _user_folder(options.get("config_dir")):
        if options.get("cfg"):
            print(_shown_configuration(overrides), end="")
            return 0
        cells = compose(overrides, sweep=bool(options.get("multirun")))
    return _train(cells)


def _options(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options and overrides of a command line, in any order."""
    found: dict[str, Any] = {}
    overrides = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif word in ("-m", "--multirun"):
            found["multirun"] = True
        elif word in ("-h", "--help"):
            found["help"] = True
        elif word == "--version":
            found["version"] = True
        elif name in ("--cfg", "-c"):
            value = value or (rest.pop(0) if rest else "")
            if value != "job":
                raise refusal("--cfg", value, "not one of job")
            found["cfg"] = True
        elif name in ("--config-dir", "-cd"):
            found["config_dir"] = value or (rest.pop(0) if rest else "")
        else:
            raise InputError(f"{shown(word)}: not one of -m, --cfg, --config-dir, --help, --version")
    return found, overrides


def _train(cells: list[Config]) -> int:
    from descentlab.harness import sweeps
    from descentlab.harness.tracking import open_tracker

    with open_tracker(cells[0].tracking) as tracker:
        trainings = sweeps.run(cells, tracker)
        tracker.flush()
        sweeps.write_results(cells, trainings, sys.stdout)
        print(f"kept: {tracker.location}")
    return 0


# --- composing -----------------------------------------------------------------------------------------------------


def conf_folder() -> Path:
    """conf/ at the clone's top, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "conf", package / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"{package}: the installation has no conf folder; install descentlab again")


def compose(
    overrides: Sequence[str],
    experiment: str | None = None,
    arms: Sequence[Sequence[str]] | None = None,
    sweep: bool = True,
) -> list[Config]:
    """Compose and resolve the cells of a sweep, or of one run.

    Args:
        overrides: in Hydra's grammar, for every cell; comma-separated values make a grid.
        experiment: an option of conf/experiment/.
        arms: override lists, one per cell (or grid of cells); overrides come after an arm's own.
        sweep: whether comma-separated values are allowed.

    Returns:
        The cells, in order; with names that tell them apart.

    Raises:
        InputError: whatever is wrong with the words or the configuration, in one line.
    """
    chosen = [f"experiment={experiment}"] if experiment else []
    lists: list[list[str]] = []
    for arm in arms if arms is not None else [[]]:
        lists += _expanded([*chosen, *arm, *overrides], sweep)
    if len(lists) > MOST_CELLS:
        raise InputError(f"sweep: has {len(lists)} cells; must be at most {MOST_CELLS}")
    with _hydra():
        return [resolve(_composed(one)) for one in lists]


def _expanded(words: Sequence[str], sweep: bool) -> list[list[str]]:
    """Comma-separated values multiplied out: one list of checked overrides per cell."""
    axes: list[list[str]] = []
    cells = 1
    for word in words:
        override = _parsed(word)
        key = override.get_key_element()
        if override.is_sweep_override():
            if not sweep:
                raise InputError(f"{shown(word)}: several values make a sweep; add -m to run them all")
            values = list(override.sweep_string_iterator())
            cells *= len(values)
            if cells > MOST_CELLS:
                raise InputError(f"{shown(word)}: makes more than {MOST_CELLS} cells")
            axes.append([_checked(key, f"{key}={value}") for value in values])
        else:
            axes.append([_checked(key, word)])
    return [list(cell) for cell in product(*axes)]


def _parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "${" in word:
        raise InputError(f"{shown(word)}: interpolations are refused; write the value itself")
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError, ValueError, OverflowError) as error:
        hint = "; lists and texts with spaces are quoted, as in 'network.hidden=[64,32]'" if "=" in word else ""
        raise InputError(f"{shown(word)}: must be key=value{hint}") from error
    if override.is_delete() or override.is_add() or override.is_force_add() or "@" in override.get_key_element():
        raise InputError(f"{shown(word)}: must be key=value; keys are neither added nor taken out")
    return override


def _checked(key: str, word: str) -> str:
    """An override that Hydra will compose whatever its value, so that `resolve` can say what is wrong with it."""
    value = word.partition("=")[2]
    if key == "experiment" or key in GROUPS:
        names = _options_of(key)
        if value == "null" and key == "experiment":
            return word
        if value not in names:
            raise unknown(key, value, names)
        return word
    group, _, number = key.partition(".")
    if key not in keys() and not (group in GROUPS and number):
        valid = [*keys(), "experiment"]
        message = str(unknown(key, value, valid)).replace(": not one of", ": unknown key; not one of", 1)
        raise InputError(message)
    return f"++{word}"


def _options_of(group: str) -> list[str]:
    folders = [folder / group for folder in (conf_folder(), *_user_folders)]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


_user_folders: list[Path] = []


@contextlib.contextmanager
def _user_folder(given: str | None) -> Any:
    """Let option files of the user's own be found too."""
    named = given if given is not None else os.environ.get(USER_CONF)
    if named is not None:
        folder = Path(named).expanduser()
        if not named or not folder.is_dir():
            raise refusal("--config-dir" if given is not None else USER_CONF, named, "must be a folder")
        _user_folders.append(folder.resolve())
    try:
        yield
    finally:
        _user_folders.clear()


@contextlib.contextmanager
def _hydra() -> Any:
    from hydra import initialize_config_dir

    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3", job_name="descentlab"):
        yield


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in _user_folders)}]"] if _user_folders else []
    try:
        composed = hydra_compose("config", overrides=[*overrides, *search])
        return OmegaConf.to_container(composed, resolve=False)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"configuration: {shown(first)}") from error


def _shown_configuration(overrides: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    with _hydra():
        cells = [_composed(one) for one in _expanded(overrides, sweep=False)]
    resolve(cells[0])
    return OmegaConf.to_yaml(OmegaConf.create(cells[0]))


def _choices() -> str:
    width = max(map(len, GROUPS))
    groups = [f"  {group:<{width}} {' '.join(_options_of(group))}" for group in (*GROUPS, "experiment")]
    plain = [key for key in keys() if key not in GROUPS]
    return "\n".join(["groups and their options:", *groups, "keys:", f"  {' '.join(plain)}"])


# --- other commands ------------------------------------------------------------------------------------------------


def _tracking(overrides: Sequence[str]) -> "Option":
    """The store that overrides such as tracking.uri=... name."""
    for word in overrides:
        if word.startswith("-") or not word.startswith("tracking"):
            raise InputError(f"{shown(word)}: must be an override of tracking, such as tracking.uri=runs.db")
    return compose(overrides, sweep=False)[0].tracking


def _ui(words: list[str]) -> int:
    from descentlab.harness.tracking import serve_ui

    ports = [word for word in words if word.startswith("port=")]
    port = None
    if ports:
        text = ports[-1].removeprefix("port=")
        if not text.isdigit() or not 1 <= int(text) <= 65535:
            raise refusal("port", text, "must be a whole number from 1 to 65535")
        port = int(text)
    serve_ui(_tracking([word for word in words if word not in ports]), port)
    return 0


def _replay(words: list[str]) -> int:
    from descentlab.harness.tracking import replay

    if not words or "=" in words[0]:
        raise InputError("replay: needs the id of a run, as in: descentlab replay 0123abcd")
    report = replay(words[0], _tracking(words[1:]))
    print(report)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"ui": _ui, "replay": _replay}
