"""Words of the command line that several commands share."""

import shlex

from descentlab.values import Option


def store_words(option: Option) -> str:
    """The overrides that name a store again on a command line, each after a space; without passwords."""
    uri, experiment = (str(option.numbers.get(key, "auto")) for key in ("uri", "experiment"))
    words = ["tracking=server"] if option.name == "server" else []
    if experiment not in ("auto", "descentlab"):
        words.append(f"tracking.experiment={experiment}")
    if uri != "auto" and "@" not in uri:  # an address with a password is not repeated
        words.append(f"tracking.uri={uri}")
    return "".join(f" {shlex.quote(word)}" for word in words)
