"""`descentlab inspect`: what a data set holds and how a run would read it, without training."""

import json
from collections.abc import Sequence

from descentlab.cli.output import table
from descentlab.config.cells import cells
from descentlab.config.composing import compose
from descentlab.data import describing


def inspect(words: Sequence[str], as_json: bool = False, config_dir: str | None = None) -> str:
    """Columns, classes, task and splits of the data that some words name, as text or for a program.

    Raises:
        InputError: for whatever a run would refuse.
    """
    (cell,) = cells(compose([*words, "tracking=none"], sweep=False, config_dir=config_dir))
    dataset = cell.dataset
    if as_json:
        return json.dumps(describing.inspected(dataset), ensure_ascii=False)
    lines = table(describing.columns(dataset), left=("name", "kind", "role"))
    return "\n".join([*lines, "", describing.said(dataset)])
