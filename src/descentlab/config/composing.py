"""From the words of a command line to checked configurations.

Overrides are read with Hydra's grammar, options are composed by Hydra over conf/ and folders of the user's own. A sweep
(-m, or the arms of a script) is expanded here, so that all its cells are composed and checked before the first one
trains, each choice of options is composed once, and no folder is left behind.
"""

import copy
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from descentlab.config import hydra_api, spellings
from descentlab.config.configuration import Config
from descentlab.config.hydra_api import Composed, first_line
from descentlab.config.names import tell_apart
from descentlab.config.options import GROUPS, LAUNCHER
from descentlab.config.resolving import by_rate, keys, resolve
from descentlab.data.files import PATHS
from descentlab.nn.outputs import OUTPUTS
from descentlab.values import InputError, refusal, shown

USER_CONF = "DESCENTLAB_CONF"
MOST_CELLS = 100_000
TEXT_KEYS = tuple(f"data.{key}" for key in (*PATHS, "target", "drop"))  # as they stand where Hydra cannot read them
CHOICES = (*GROUPS, "experiment", LAUNCHER)  # folders of conf/, one option of which is chosen
_KNOWN = [*keys(), "experiment", LAUNCHER]


def conf_folder() -> Path:
    """conf/ at the clone's top, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"{package}: the installation has no conf folder; install descentlab again")


@cache
def defaults() -> Mapping[str, Any]:
    """The run-level values of conf/config.yaml, read without Hydra."""
    import yaml

    return MappingProxyType(yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8")))


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
    composer = _Composer(folders_of(config_dir))
    chosen = [f"experiment={experiment}"] if experiment else []
    cells: list[Config] = []
    for arm in arms if arms is not None else [[]]:
        for words in composer.cells([*chosen, *arm, *overrides], sweep, arms is None):
            for raw in by_rate(composer.raw(words)):
                cells.append(resolve(raw))
                if len(cells) > MOST_CELLS:
                    raise InputError(f"sweep: has more than {MOST_CELLS} cells")
    return tell_apart(cells) if len(cells) > 1 else cells


def listed_arms(experiment: str) -> list[list[str]]:
    """The arms that an experiment of conf/ lists, one value a word."""
    listed = _Composer([conf_folder()]).composed({"experiment": experiment}).arms
    return [list(arm) for words in listed for arm in product(*map(_single_values, words))]


def _single_values(word: str) -> list[str]:
    key, _, value = word.partition("=")
    return [word] if set(value) & set("[(") else [f"{key}={one}" for one in value.split(",")]


def write_arms(experiment: str, arms: Sequence[Sequence[str]]) -> None:
    """Put arms in the place of those that an experiment of conf/ lists; they are the end of its file.

    Neighbours that differ in one value share a line.
    """
    path = conf_folder() / "experiment" / f"{experiment}.yaml"
    above = path.read_text(encoding="utf-8").partition("\narms:\n")[0].rstrip("\n")
    rows: list[list[str]] = []
    for arm in arms:
        last = rows[-1] if rows and len(rows[-1]) == len(arm) else []
        differing = [place for place, word in enumerate(last) if word != arm[place]]
        key, _, value = arm[differing[0]].partition("=") if len(differing) == 1 else ("", "", "")
        if key and last[differing[0]].startswith(f"{key}=") and not set(value) & set("[("):
            last[differing[0]] += f",{value}"
        else:
            rows.append(list(arm))
    quoted = [[f'"{word}"' if set(word) & set("[],") else word for word in row] for row in rows]
    lines = [above, "arms:", *(f"  - [{', '.join(row)}]" for row in quoted)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class _Composer:
    """Hydra over some folders; a choice of options is composed once, values are set on copies of it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.loader = hydra_api.loader_of(folders)
        self._parser = hydra_api.parser_of(self.loader)
        self._composed: dict[tuple[str, ...], Composed] = {}

    def cells(self, words: Sequence[str], sweep: bool, own_arms: bool) -> Iterator[dict[str, Any]]:
        """Values by key for every cell: the words' grid over those that an experiment lists."""
        for values in self._grid(words, sweep):
            composed = self.composed(values)
            if not sweep:
                self._refuse_sweep(composed, values, own_arms)
                yield values
                continue
            for arm in composed.arms if composed.arms and own_arms else [[]]:
                for beneath in self._grid([*composed.axes, *arm], True, without=values):
                    yield {**beneath, **values}

    def _refuse_sweep(self, composed: Composed, values: Mapping[str, Any], own_arms: bool) -> None:
        """Refuse a single run of an experiment that is a sweep; an empty first arm is such a run."""
        if own_arms and composed.arms and composed.arms[0]:
            cells = [cell for arm in composed.arms for cell in self._grid([*composed.axes, *arm], True, without=values)]
            valid = f"is a sweep of {len(cells)} cells; add -m to run them all"
            raise refusal("experiment", values["experiment"], valid)
        if left := [key for key, _, _ in (axis.partition("=") for axis in composed.axes) if key not in values]:
            valid = f"is a sweep over {', '.join(left)}; add -m to run it, or give {left[0]}=VALUE"
            raise refusal("experiment", values["experiment"], valid)

    def raw(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The plain nested values of one cell."""
        raw = copy.deepcopy(self.composed(values).raw)
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
        override = self._parsed(word, sweep)
        key = override.key_or_group
        if not override.is_sweep_override():
            return key, [self._checked(key, override.value())]
        if not sweep:
            raise InputError(f"{shown(word)}: several values make a sweep; add -m to run them all")
        values = hydra_api.swept(override, word, MOST_CELLS)
        if len(values) > MOST_CELLS:
            raise InputError(f"{shown(word)}: makes more than {MOST_CELLS} cells")
        if not values:
            raise InputError(f"{shown(word)}: is a sweep over nothing")
        return key, [self._checked(key, value) for value in values]

    def _parsed(self, word: str, sweep: bool = False) -> Any:
        prefix, key, rest = re.fullmatch(r"(\+*)([\w./-]*)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        try:
            spelled = f"{prefix}{spellings.key(key, _KNOWN)}{rest}"
            override = self._parser.parse_overrides([spelled])[0]  # the singular form cannot glob
        except Exception as error:  # of Hydra, of its grammar, or of numbers too large for Python to read
            if key not in TEXT_KEYS or not rest.startswith("=") or rest.startswith('="'):
                raise _unreadable(word) from error
            texts = rest[1:].split(",") if sweep else [rest[1:]]
            return self._parsed(f"{key}={','.join(map(_quoted, texts))}")
        if override.is_delete() or override.package is not None:
            raise InputError(f"{shown(word)}: must be KEY=VALUE; no key can be taken out or moved")
        return override

    def _checked(self, key: str, value: Any) -> Any:
        """A value as it is; a key or an option that is not there is refused."""
        if key in CHOICES:
            names = _options_of(key, self.folders)
            if key == "experiment" and value is None:
                return None
            value = spellings.option(key, value, names)
            if value not in names:
                raise spellings.unknown_option(key, value, names, every_option(self.folders))
            return str(value)
        if key == "output":
            return spellings.option(key, value, ("auto", *OUTPUTS))
        group, _, number = key.replace(LAUNCHER.replace("/", "."), LAUNCHER, 1).partition(".")
        if key not in keys() and not (group in (*GROUPS, "output_initializer", LAUNCHER) and number):
            raise spellings.unknown_key(key, value, _KNOWN)
        return value

    def composed(self, values: Mapping[str, Any]) -> Composed:
        """The files that values choose; the values themselves are not set."""
        choices = {key: value for key, value in values.items() if key in CHOICES}
        words = tuple(f"{key}={'null' if value is None else value}" for key, value in sorted(choices.items()))
        if words not in self._composed:
            self._composed[words] = hydra_api.composed(self.loader, words)
        return self._composed[words]


def _quoted(text: str) -> str:
    """A text between quotes, as Hydra's grammar reads it."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text) + '"'


def _unreadable(word: str) -> InputError:
    """The error for a word that Hydra's grammar does not know, with what may have been meant."""
    if "=" in word:
        key, _, value = word.partition("=")
        return refusal(key, value, "cannot be read; lists and texts with special characters need quotes,"
                       " as in 'network.hidden=[64,32]' or 'data.path=\"~/a.csv\"'")  # fmt: skip
    return InputError(f"{shown(word)}: must be KEY=VALUE")


def folders_of(config_dir: str | None) -> list[Path]:
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
        raise refusal(key, given, f"cannot be read ({first_line(error)})") from error
    if folder == own:
        return [own]
    for file in sorted(folder.rglob("*.yaml")):
        if (own / file.relative_to(folder)).is_file():
            raise refusal(key, given, f"{file.relative_to(folder)} would be hidden by the project's own; rename it")
    return [own, folder]


def _options_of(group: str, folders: Sequence[Path]) -> list[str]:
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def every_option(folders: Sequence[Path]) -> list[str]:
    """The options of all groups, as group=option."""
    named = [f"{group}={name}" for group in CHOICES for name in _options_of(group, folders)]
    return [*named, *(f"output={name}" for name in OUTPUTS)]


# --- help -------------------------------------------------------------------------------------------------------


def choices(folders: Sequence[Path]) -> str:
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
