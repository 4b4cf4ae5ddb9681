"""Names for what can be chosen by name: a registry of factories, and pickles that hold a name instead of code.

    @ACTIVATIONS.enter
    def arctan() -> Activation:
        ...

enters the factory under its own name. What it makes can be pickled whatever functions it consists of: the pickle holds
the name and the numbers that it was made with, and is made anew where it is loaded.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")

Thing = TypeVar("Thing", bound="Named")

_TABLES: dict[str, dict[str, Any]] = {}


class Named:
    """What can be chosen by name."""

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """By the name that it was made under; `dataclasses.replace` makes something else, without that name."""
        made = vars(self).get("_made")
        return (_make, made) if made else super().__reduce_ex__(protocol)


class Registry(dict[str, Callable[..., Any]]):
    """Factories by name, in the order in which they were entered."""

    def __init__(self, kind: str) -> None:
        """An empty registry of things of one kind: activation, initializer, ..."""
        super().__init__()
        self.kind = kind
        _TABLES[kind] = self

    def enter(self, factory: Callable[P, Thing]) -> Callable[P, Thing]:
        """Enter a factory under its name; returns it, so that it can be used as a decorator."""
        name = factory.__name__

        @functools.wraps(factory)
        def make(*args: P.args, **numbers: P.kwargs) -> Thing:
            made = factory(*args, **numbers)
            vars(made)["_made"] = (self.kind, name, args, numbers)
            return made

        self[name] = make
        return make


def table(kind: str, *things: Thing) -> dict[str, Thing]:
    """Things of one kind that need no factory, by their own names."""
    _TABLES[kind] = {thing.name: thing for thing in things}  # type: ignore[attr-defined]
    for name, thing in _TABLES[kind].items():
        vars(thing)["_made"] = (kind, name)
    return _TABLES[kind]


def _make(kind: str, name: str, *given: Any) -> Any:
    if name not in _TABLES[kind]:
        raise ValueError(f"{kind}={name}: is not registered here; import the module that enters it")
    found = _TABLES[kind][name]
    return found(*given[0], **given[1]) if given else found
