"""Valid values, and the text of a refusal; for every package that reads what users write.

A check takes a key and a value and returns the value in its canonical form, or raises `InputError`: one line that names
the key, the value and what would be valid.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LARGEST = 10**9  # of any count; a larger one is a typing error


class InputError(Exception):
    """A value that a user gave is not valid; the message is one line that names it and what would be valid."""


Check = Callable[[str, Any], Any]  # (key, value) -> the canonical value; raises InputError


def shown(value: Any, length: int = 80) -> str:
    """A value for a message: on one line, printable, not too long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(shown(item) for item in value[:8]) + (", ...]" if len(value) > 8 else "]")
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(str(key) for key in list(value)[:8]) + "}"
    elif isinstance(value, int) and abs(value) > 10**60:  # str() refuses the very large ones
        text = "a number of more than 60 digits"
    else:
        text = str(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    text = without_password(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def without_password(text: str) -> str:
    """A text without the user and password of the addresses in it."""
    return re.sub(r"(?<=://)[^\s/]\S*@|(?<=[?&]password=)[^\s&]*", "", text)


def refusal(key: str, value: Any, valid: str) -> InputError:
    """The error for a value: `learning_rate=-1: must be a finite number above 0`."""
    return InputError(f"{shown(key)}={shown(value)}: {valid}")


def unknown(key: str, value: Any, valid: Iterable[str]) -> InputError:
    """The error for a choice: `activation=rleu: not one of elu, gelu, ... (did you mean relu?)`."""
    names = sorted(valid)
    return refusal(key, value, f"not one of {', '.join(names)}{nearest(value, names)}")


def nearest(value: Any, names: Sequence[str]) -> str:
    """A question for the most similar name; empty if none is similar."""
    from difflib import get_close_matches

    found = get_close_matches(str(value)[:100], names, n=1) if isinstance(value, str) else []
    return f" (did you mean {found[0]}?)" if found else ""


def number(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Check:
    """A finite number from low (above it, with `above`) to high, as a float."""
    valid = "must be a finite number"
    if low > -math.inf:
        valid += f" {'above' if above else 'at or above'} {low:g}"
    if high < math.inf:
        valid += f"{',' if low > -math.inf else ''} at most {high:g}"

    def check(key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refusal(key, value, valid)
        try:
            given = float(value) + 0.0  # -0 is 0
        except OverflowError:
            raise refusal(key, value, valid) from None
        if not math.isfinite(given) or given > high or (given <= low if above else given < low):
            raise refusal(key, value, valid)
        return given

    return check


def whole(low: int, high: int = LARGEST, *words: str) -> Check:
    """A whole number from low to high, or one of some words, such as auto."""
    valid = f"must be {' or '.join((*words, 'a whole number'))} from {low} to {high}"

    def check(key: str, value: Any) -> int | str:
        if isinstance(value, str) and value in words:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refusal(key, value, valid)
        if not low <= value <= high or value != int(value):  # NaN and infinities fail the first
            raise refusal(key, value, valid)
        return int(value)

    return check


def choice(*names: str) -> Check:
    """One of some names."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise unknown(key, value, names)
        return value

    return check


def switch(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refusal(key, value, "must be true or false")
    return value


def text(valid: str = "must be a text", pattern: str = r".+") -> Check:
    """A text on one line that matches a pattern."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
            raise refusal(key, value, valid)
        return value

    return check


def sizes(valid: str, low: int, high: int, most: int) -> Check:
    """Whole numbers as a list [64, 32] or as a text 64-32, as a tuple."""

    def check(key: str, value: Any) -> tuple[int, ...]:
        items: Any = value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})*", value):
            items = [int(part) for part in value.split("-")]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            items = [value]
        if not isinstance(items, (list, tuple)) or len(items) > most:
            raise refusal(key, value, valid)
        one = whole(low, high)
        try:
            return tuple(one(key, item) for item in items)
        except InputError:
            raise refusal(key, value, valid) from None

    return check


@dataclass(frozen=True)
class Option:
    """One chosen option of a group, with its own numbers by name."""

    name: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Name and numbers in one mapping, as in an option file."""
        return {"name": self.name, **self.numbers}


Schema = Mapping[str, tuple[Check, Any]]  # an option's own keys: key -> (check, default)
