"""Hydra: its grammar of overrides, and its composing of files. Only public names of Hydra are used."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from descentlab.values import InputError, refusal, shown


@dataclass(frozen=True)
class Composed:
    """A choice of options as plain values, and the sweep that an experiment lists: its arms, and axes over all."""

    raw: dict[str, Any]
    arms: list[list[str]]
    axes: list[str]


@cache
def _user_folders() -> list[Path]:
    """The folders that Hydra searches beside the project's own; a list to be filled."""
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    folders: list[Path] = []

    class UserFolders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in folders:
                search_path.append("user", f"file://{folder}", anchor=SearchPathQuery(provider="main"))

    Plugins.instance().register(UserFolders)
    return folders


@contextlib.contextmanager
def _initialized(folders: Sequence[Path]) -> Iterator[Any]:
    """Hydra over some folders, the project's own first."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    user = _user_folders()
    user[:] = folders[1:]
    try:
        with initialize_config_dir(str(folders[0]), job_name="descentlab", version_base="1.3"):
            yield GlobalHydra.instance()
    finally:
        user.clear()


def loader_of(folders: Sequence[Path]) -> Any:
    """Hydra's loader of the files of some folders."""
    with _initialized(folders) as hydra:
        return hydra.config_loader()


def parser_of(loader: Any) -> Any:
    """Hydra's parser of overrides; it knows a loader's options."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create(config_loader=loader)


def composed(loader: Any, words: Sequence[str]) -> Composed:
    """What a choice of options is.

    Raises:
        InputError: whatever Hydra, OmegaConf or the YAML reader say about a file of the user's own.
    """
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    try:
        config = loader.load_configuration("config", list(words), RunMode.RUN, from_shell=False)
        params = dict(config.hydra.sweeper.get("params") or {})
        raw: Any = OmegaConf.to_container(config, resolve=False)
        launcher = raw.pop("hydra")["launcher"]
    except Exception as error:
        raise InputError(f"configuration: {first_line(error)}") from error
    raw["launcher"] = {"name": "none"} if "_target_" in launcher else launcher  # Hydra's own, where none is chosen
    arms = raw.pop("arms", None) or []
    if not isinstance(arms, list) or not all(isinstance(arm, list) for arm in arms):
        raise refusal("arms", arms, "must be a list of override lists")
    return Composed(raw, [[str(word) for word in arm] for arm in arms], [f"{key}={params[key]}" for key in params])


def swept(override: Any, word: str, most: int) -> list[Any]:
    """The values of an override that is a sweep, up to one more than `most`.

    Raises:
        InputError: it sweeps over more than single values.
    """
    from hydra.core.override_parser.types import RangeSweep

    sweep = override.value()
    try:
        if isinstance(sweep, RangeSweep) and (sweep.stop - sweep.start) / sweep.step > most:
            return [sweep.start] * (most + 1)  # a shuffled range would be written out first
        return [_plain(value) for value in islice(override.sweep_iterator(), most + 1)]
    except Exception as error:  # of Hydra, or of the numbers in a range
        raise InputError(f"{shown(word)}: is not a sweep over single values ({first_line(error)})") from error


def _plain(value: Any) -> Any:
    """An element of a sweep without Hydra's marks of quotes."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def first_line(error: Exception) -> str:
    """What an exception says, on one line, without search paths and links."""
    text = str(error).split("\nSearch path:")[0].split("\nSee https:")[0]
    return shown(" ".join(text.split()) or type(error).__name__, 300)


def shell_completion(words: Sequence[str], folders: Sequence[Path]) -> None:
    """Hydra's answer to install=SHELL, uninstall=SHELL or query=SHELL."""
    with _initialized(folders) as hydra:
        hydra.hydra.shell_completion("config", words)
