"""What the scripts in experiments/ share: parts, quick and full form, tuned rates, one summary run.

A study has one or more *parts*. Each part is the sweep that conf/experiment/<part>.yaml lists: `descentlab -m
experiment=<part>` trains the same cells. `--tune` chooses the learning rate of every arm and writes it into that file
(studies.tuning). The quick form trains some of the cells, with fewer restarts and epochs.

Claims are declared in claims/<study>.yaml beside the script before it runs (analysis.verdicts defines them). Claims
that the study's seeds could not decide are refused before anything trains. The script's function `report` makes tables,
figures and verdicts from stored runs. Measurements without a cell go through `Study.measured`, which stores them. So
studies.report can call the same function later and draw everything again from the store.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descentlab import interrupts
from descentlab.analysis import verdicts
from descentlab.analysis.verdicts import Claim, Values, Verdict
from descentlab.config import composing
from descentlab.config.cells import Cell
from descentlab.config.cells import cells as made
from descentlab.data.table import MissingData
from descentlab.studies.tuning import tune
from descentlab.values import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.config.cells import Judge
    from descentlab.figures import Figure
    from descentlab.tracking import StoredRun, SummaryRun, Tracker, results
    from descentlab.values import Option

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"  # of the clone; no part of an installed wheel


@dataclass(frozen=True)
class Part:
    """One sweep of a study.

    Attributes:
        quick: overrides of the quick form.
        few: cells that the quick form trains; None for all.
        tuned: whether `--tune` chooses the learning rate of each arm.
        needs: environment variable without which the part is skipped, with a line that says so.
        skip_without_data: whether the part is skipped if its data is missing, with a line that names it; otherwise
            missing data is an error.
        full_only: whether the quick form leaves the part out.
        in_place_of: an earlier part; this part runs only if that one is skipped.
        judge: names the outcome of each restart (`judges`); `Study.restarts` has them.
    """

    quick: Sequence[str] = ()
    few: slice | None = None
    tuned: bool = False
    needs: str | None = None
    skip_without_data: bool = False
    full_only: bool = False
    in_place_of: str | None = None
    judge: "Judge | None" = None


class Study:
    """A run of a script: the cells of its parts as tables, and the tables and figures made of them.

    Attributes:
        summary: the run that holds tables and figures.
        claims: as declared.
        quick: whether this is the quick form.
        name: of the study, which is its script's.
    """

    def __init__(
        self,
        source: "Tracker | Option",
        summary: "SummaryRun",
        sweeps: Mapping[str, str],
        claims: Sequence[Claim] = (),
        quick: bool = False,
        kept: "StoredRun | None" = None,
        cut_short: "StoredRun | None" = None,
        name: str = "",
    ) -> None:
        """Read runs from a source.

        Args:
            source: a tracker, or the option that names a store.
            summary: gets tables and figures.
            sweeps: part -> id of its sweep.
            claims: as declared.
            quick: whether this is the quick form.
            kept: the summary of a finished run: all measurements are read from it.
            cut_short: the summary of an interrupted run: the measurements it has are read from it.
            name: of the study.
        """
        self.summary, self.claims, self.quick, self.name = summary, list(claims), quick, name
        self._source, self._sweeps, self._kept, self._cut_short = source, sweeps, kept, cut_short

    def has(self, part: str) -> bool:
        """Whether a part was run, and not skipped."""
        return part in self._sweeps

    def restarts(self, part: str) -> "pd.DataFrame":
        """One row per restart of a part, as `results.restarts`."""
        from descentlab.tracking import results

        return results.restarts(self._source, self._sweeps[part])

    def curves(self, part: str, metrics: Sequence[str] | None = None) -> "pd.DataFrame":
        """One row per restart, epoch and metric of a part, as `results.curves`."""
        from descentlab.tracking import results

        return results.curves(self._source, self._sweeps[part], metrics=metrics)

    def weights(self, run_id: str) -> "results.Weights":
        """The weights of a cell's restarts, as `results.weights`; above some size only those of the best are stored."""
        from descentlab.tracking import results

        return results.weights(self._source, run_id)

    def cell(self, part: str) -> Cell:
        """The first cell of a part as it was trained, with its data; no file of conf/ is read."""
        from descentlab.tracking import find, stored_cell

        return stored_cell(find(self._source, "cell", self._sweeps[part])[0])

    def measured(self, name: str, measure: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
        """A table that no cell holds: measured now and stored as <name>.csv, or read if an earlier run stored it."""
        import pandas as pd

        file = f"{name}.csv"
        earlier = [run for run in (self._cut_short, self._kept) if run and file in run.artifacts()]
        frame = pd.read_csv(earlier[0].artifact(file)) if earlier else measure()
        self.summary.text(file, frame.to_csv(index=False), at_once=True)
        return frame

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        """Print a table and store it with the summary, as CSV and HTML."""
        self.summary.table(name, frame)
        print(f"\n{name}\n{frame.to_string(index=False, float_format=lambda value: f'{value:.4g}')}", flush=True)

    def figure(self, name: str, figure: "Figure", data: "pd.DataFrame | None" = None) -> None:
        """Store a figure with the summary, as PNG, SVG and PDF, and its numbers as <name>.csv."""
        self.summary.figure(name, figure)
        if data is not None:
            self.summary.table(name, data)

    def judge(self, values: Mapping[str, Values | Mapping[str, Values] | None]) -> list[Verdict]:
        """Judge the declared claims on their values (`verdicts.judge`) and store the verdicts; none in the quick form.

        Stored are verdict.json, verdicts.csv and a metric verdict/<claim> (as `verdicts.scores`). A claim with a single
        case has a metric estimate/<claim> too.

        Raises:
            ValueError: for values that do not match the declaration.
        """
        import pandas as pd

        if self.quick:
            return []
        rows = verdicts.judge(self.claims, values)
        self.summary.table("verdicts", pd.DataFrame([row.as_dict() for row in rows]))
        plain = [{key: _json_value(value) for key, value in row.as_dict().items()} for row in rows]
        self.summary.text("verdict.json", json.dumps(plain, indent=2, default=str) + "\n")
        numbers = {f"verdict/{claim}": float(score) for claim, score in verdicts.scores(rows).items()}
        cases = {claim.id: claim.cases for claim in self.claims}
        lone = [row for row in rows if cases[row.claim] == 1 and math.isfinite(row.estimate)]
        numbers |= {f"estimate/{row.claim}": row.estimate for row in lone}
        self.summary.metrics(numbers)
        return rows

    def verdicts(self, values: Mapping[str, Values | Mapping[str, Values] | None]) -> None:
        """Judge the declared claims as `judge`, and print a table of them; in the quick form, which command decides."""
        import pandas as pd

        rows = self.judge(values)
        if not rows:
            print(f"\n{self.no_verdict()}", flush=True)
            return
        frame = pd.DataFrame([row.as_dict() for row in rows])
        print(f"\nverdicts\n{_by_claim(frame).to_string(index=False, float_format=lambda value: f'{value:.4g}')}")
        print("\n".join(f"  {claim.id}: {claim.statement}" for claim in self.claims), flush=True)

    def no_verdict(self) -> str:
        """The line that stands in place of verdicts in the quick form."""
        script = scripts().get(self.name)
        command = f"python {told(script)}" if script else "the full form"
        return f"No verdict (quick form): run {command}"


def _json_value(value: Any) -> Any:
    """A value as JSON has it: NaN as null, an infinite number (too many restarts diverged) as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _by_claim(rows: "pd.DataFrame") -> "pd.DataFrame":
    """A row per claim: its cases by verdict, and the range of their estimates."""
    import pandas as pd

    lines = []
    for claim, cases in rows.groupby("claim", sort=False):
        counts = cases["verdict"].value_counts()
        lines.append(
            {
                "claim": claim,
                "n": cases["n"].min(),
                "margin": cases["margin"].iloc[0],
                "lowest": cases["estimate"].min(),
                "highest": cases["estimate"].max(),
                "worst_p_holm": cases["p_holm"].max(),
                **{verdict: counts.get(verdict, 0) for verdict in verdicts.SCORES},
            }
        )
    return pd.DataFrame(lines)


def main(
    name: str,
    about: str,
    parts: Mapping[str, Part],
    report: Callable[[Study], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a script of experiments/: all cells of all parts are checked, then trained, then reported.

    Args:
        name: of the study, and of its summary run.
        about: the script's docstring, shown by --help.
        parts: by the name of their file in conf/experiment/.
        report: makes tables and figures.
        arguments: --quick, --tune, --help and overrides that go to every cell; None reads the command line.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = {word for word in given if word.startswith("-")}
    overrides = [word for word in given if word not in flags]
    if flags & {"-h", "--help"}:
        usage = "--quick (small form), --tune (choose learning rates again), overrides such as restarts=10"
        print(f"{about.strip()}\n\nusage: {usage}")
        return 0

    def work() -> int:
        if flags - {"--quick", "--tune"}:
            raise InputError(f"{sorted(flags)[0]}: not one of --help, --quick, --tune")
        if "--tune" in flags:
            tune([key for key, part in parts.items() if part.tuned], overrides)
        else:
            if "--quick" not in flags and (cost := _cost(about)):
                print(f"{name}: {cost}; stored cells are reused", flush=True)
            _run(name, parts, report, overrides, quick="--quick" in flags)
        return 0

    return interrupts.guarded(work)


def _cost(about: str) -> str:
    """What a script's docstring says of its cost, up to the first comma or full stop; "" where it says nothing."""
    sentence = re.search(r"^Cost: (.*?)[.,;:](?=\s|$)", about, re.MULTILINE | re.DOTALL)
    return " ".join(sentence[1].split()) if sentence else ""


def _run(
    name: str, parts: Mapping[str, Part], report: Callable[[Study], None], overrides: Sequence[str], quick: bool
) -> None:
    from descentlab.sweeps import running as sweeps
    from descentlab.tracking import open_tracker, part_id

    began = time.perf_counter()
    claims = declared_claims(name)
    cells: dict[str, list[Cell]] = {}
    for key, part in parts.items():
        if quick and part.full_only:
            continue
        if part.needs and not os.environ.get(part.needs):
            print(f"{key}: skipped, because {part.needs} is not set", flush=True)
            continue
        if part.in_place_of in cells:
            continue
        few = part.few if quick and part.few else slice(None)
        given = [*(part.quick if quick else ()), *overrides]
        configs = composing.compose(given, key)[few]
        try:
            cells[key] = made(configs, part.judge)
        except MissingData as error:
            if not part.skip_without_data:
                raise
            print(f"{key}: skipped, {error}", flush=True)
    if not quick:
        _check_claims(claims, overrides)
    known = [cell.config for one in cells.values() for cell in one] or composing.compose(overrides, sweep=False)
    store = known[0].tracking
    with open_tracker(store) as tracker:
        sweeps.begin(cells, tracker, f"{name} --quick" if quick else name)
        for key, own in cells.items():
            sweeps.run(own, tracker, part=key)
        tracker.flush()
        words = " ".join(word for word in overrides if not word.startswith("tracking"))  # may hold a password
        settings = {"study": name, "form": "quick" if quick else "full", "overrides": words}
        before = _cut_short(tracker, settings) if store.name != "none" else None
        with tracker.summary(name, settings) as summary:
            sweeps_of = {key: part_id(tracker.sweep, key) for key in cells}
            report(Study(tracker, summary, sweeps_of, claims, quick, cut_short=before, name=name))
            summary.metrics({"seconds": time.perf_counter() - began})
        print(f"{name}: {time.perf_counter() - began:.0f} s; stored in {tracker.location}", flush=True)


def _cut_short(tracker: "Tracker", settings: Mapping[str, str]) -> "StoredRun | None":
    """The last run of a study with these settings and this code, if it was interrupted."""
    from descentlab.tracking import find
    from descentlab.tracking.environment import environment

    last = find(tracker, "summary", where={key: settings[key] for key in ("study", "form")}, status=None, limit=1)
    if not last or last[0].status == "FINISHED" or last[0].overrides != settings["overrides"]:
        return None
    same = last[0].commit == environment().get("git_commit", "")
    return last[0] if same else None


def scripts() -> dict[str, Path]:
    """The script of every study, by name: from experiments/ and experiments/literature/."""
    found = [path for place in _places() for path in place.glob("[a-z]*.py")]
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def _places() -> list[Path]:
    return [EXPERIMENTS, EXPERIMENTS / "literature"]


def _beside(kind: str, name: str) -> Path:
    """The file <kind>/<name>.yaml beside the scripts; if there is none, its place in experiments/."""
    files = [place / kind / f"{name}.yaml" for place in _places()]
    return next((file for file in files if file.is_file()), files[0])


def told(path: Path) -> str:
    """The name of a file beside the scripts, for messages and pages."""
    return f"experiments/{path.relative_to(EXPERIMENTS).as_posix()}"


def declared_claims(name: str) -> list[Claim]:
    """The claims of a study, from claims/<name>.yaml beside the scripts; none without such a file.

    Raises:
        InputError: a file that cannot be read, or claims that are not valid.
    """
    import yaml

    path = _beside("claims", name)
    if not path.is_file():
        return []
    try:
        return verdicts.declared(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{told(path)}: {shown(error, 300)}") from error


def _check_claims(claims: Sequence[Claim], overrides: Sequence[str]) -> None:
    """Refuse claims that the seeds of this run could not decide."""
    given = [int(word.partition("=")[2]) for word in overrides if word.startswith("restarts=")]
    try:
        verdicts.check(claims, min(given, default=math.inf))
    except ValueError as error:
        raise InputError(f"claim {error}") from error
