"""What the scripts in experiments/ share: parts, quick and full form, tuned rates, one summary run.

A study is a few *parts*. Each is the sweep that conf/experiment/<part>.yaml lists: `descentlab -m experiment=<part>`
trains the same cells. `--tune` chooses the learning rate of every arm anew and writes it into that file. The quick form
runs some of the cells, with fewer restarts and epochs.

What a study claims is declared in experiments/claims/<study>.yaml (analysis.verdicts says how) before it runs, and a
family of claims that its seeds could not decide is refused then. `report` makes tables, figures and verdicts of the
tracked runs; what is measured without a cell goes through `Study.measured`, which keeps it. So the very same `report`
draws everything anew from the store, next year too (studies.report).
"""

import dataclasses
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

import numpy as np

from descentlab import interrupts
from descentlab.analysis import verdicts
from descentlab.analysis.verdicts import Claim, Values, Verdict
from descentlab.config import composing
from descentlab.config.cells import Cell
from descentlab.config.cells import cells as made
from descentlab.config.configuration import Config
from descentlab.data.table import MissingData
from descentlab.nn.trainer import train_recipe
from descentlab.values import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from descentlab.config.cells import Judge
    from descentlab.figures import Figure
    from descentlab.tracking import StoredRun, SummaryRun, Tracker, results
    from descentlab.values import Option

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"  # of the clone; no part of an installed wheel
RATES = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-8, 7))  # .01 to 31.6, four a decade
RATE_LIMITS = (1e-6, 1e6)
TUNING_SEED, TUNING_RESTARTS = 100_000, 5  # apart from every reported seed


@dataclass(frozen=True)
class Part:
    """One sweep of a study.

    Attributes:
        quick: overrides of the quick form.
        few: which of the cells the quick form runs; None for all.
        tuned: whether `--tune` chooses the learning rate of each arm.
        needs: environment variable without which the part is skipped, with a line that says so.
        skip_without_data: whether the part is skipped, with a line that names what is missing, where its data cannot be
            had; else that is an error.
        full_only: whether the quick form leaves the part out.
        in_place_of: a part before this one, which is run only where that one is not.
        judge: says what the restarts ended in (`judges`); what it says is in `Study.restarts`.
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
    """A script's run: the cells of its parts as tables, and what is made of them.

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

        With `kept`, the summary of an earlier run, nothing is measured anew; with one that was cut short nothing that
        it had measured already.
        """
        self.summary, self.claims, self.quick, self.name = summary, list(claims), quick, name
        self._source, self._sweeps, self._kept, self._cut_short = source, sweeps, kept, cut_short

    def has(self, part: str) -> bool:
        """Whether a part was run: not where what it needs is missing, nor all of them in the quick form."""
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
        """The weights of a cell's restarts, as `results.weights`; beyond some size only the best one's are kept."""
        from descentlab.tracking import results

        return results.weights(self._source, run_id)

    def cell(self, part: str) -> Cell:
        """The first cell of a part as it was trained, with its data; no file of conf/ is read."""
        from descentlab.tracking import find, stored_cell

        return stored_cell(find(self._source, "cell", self._sweeps[part])[0])

    def measured(self, name: str, measure: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
        """A table that no cell holds: measured now and kept as <name>.csv, or read back where it was kept before."""
        import pandas as pd

        file = f"{name}.csv"
        earlier = [run for run in (self._cut_short, self._kept) if run and file in run.artifacts()]
        frame = pd.read_csv(earlier[0].artifact(file)) if earlier else measure()
        self.summary.text(file, frame.to_csv(index=False), at_once=True)
        return frame

    def table(self, name: str, frame: "pd.DataFrame") -> None:
        """Print a table and keep it with the summary, as CSV and HTML."""
        self.summary.table(name, frame)
        print(f"\n{name}\n{frame.to_string(index=False, float_format=lambda value: f'{value:.4g}')}", flush=True)

    def figure(self, name: str, figure: "Figure", data: "pd.DataFrame | None" = None) -> None:
        """Keep a figure with the summary, as PNG, SVG and PDF, and the numbers behind it as <name>.csv."""
        self.summary.figure(name, figure)
        if data is not None:
            self.summary.table(name, data)

    def judge(self, values: Mapping[str, Values | Mapping[str, Values] | None]) -> list[Verdict]:
        """Judge the declared claims on their values (`verdicts.judge`) and keep the verdicts; none in the quick form.

        Kept are verdict.json, verdicts.csv and a metric verdict/<claim> (as `verdicts.scores`)
        with estimate/<claim> beside it where the claim is a single case.

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
        return f"The quick form shows figures and decides nothing; {command} decides."


def _json_value(value: Any) -> Any:
    """A value as JSON has it: NaN as null, an infinite number (too many restarts diverged) as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _by_claim(rows: "pd.DataFrame") -> "pd.DataFrame":
    """A line per claim: how many of its cases ended how, and between which values their estimates lie."""
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
        print(
            about.strip() + "\n\nusage: --quick (small form), --tune (choose rates anew), overrides such as restarts=10"
        )
        return 0

    def work() -> int:
        if flags - {"--quick", "--tune"}:
            raise InputError(f"{sorted(flags)[0]}: not one of --help, --quick, --tune")
        if "--tune" in flags:
            _tune(name, {key: part for key, part in parts.items() if part.tuned}, overrides)
        else:
            if "--quick" not in flags and (cost := _cost(about)):
                print(f"{name}: takes {cost}; stored cells are not trained again", flush=True)
            _run(name, parts, report, overrides, quick="--quick" in flags)
        return 0

    return interrupts.guarded(work)


def _cost(about: str) -> str:
    """What a script's docstring says of its cost, up to the end of the sentence; "" where it says nothing."""
    sentence = re.search(r"^Cost: (.*?)[.;:](?=\s|$)", about, re.MULTILINE | re.DOTALL)
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
        print(f"\n{name}: {time.perf_counter() - began:.0f} s; kept in {tracker.location}", flush=True)


def _cut_short(tracker: "Tracker", settings: Mapping[str, str]) -> "StoredRun | None":
    """The last run of a study with these settings and by this code, if it did not end."""
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
    """The file <kind>/<name>.yaml beside the scripts; where there is none, the place for it in experiments/."""
    files = [place / kind / f"{name}.yaml" for place in _places()]
    return next((file for file in files if file.is_file()), files[0])


def told(path: Path) -> str:
    """A file beside the scripts as it is written in messages and pages."""
    return f"experiments/{path.relative_to(EXPERIMENTS).as_posix()}"


def declared_claims(name: str) -> list[Claim]:
    """What a study claims, from claims/<name>.yaml beside the scripts; none where there is no such file.

    Raises:
        InputError: a file that cannot be read, or claims that mean nothing.
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


# --- learning rates ------------------------------------------------------------------------------------------------


def _tune(name: str, parts: Mapping[str, Part], overrides: Sequence[str]) -> None:
    for key in parts:
        chosen = []
        arms = [[word for word in arm if not word.startswith("learning_rate=")] for arm in composing.listed_arms(key)]
        for arm, cell in zip(arms, composing.compose(overrides, key, arms), strict=True):
            table = choose_rate(cell)
            best = table[table["chosen"]].iloc[0]
            chosen.append([*arm, f"learning_rate={best['learning_rate']:g}"])
            print(f"{key}: {' '.join(chosen[-1])}, validation loss {best['validation_loss']:.4g}", flush=True)
        composing.write_arms(key, chosen)


def choose_rate(config: Config, rates: Sequence[float] = RATES) -> "pd.DataFrame":
    """Compare learning rates on validation with the tuning seeds, all rates and seeds in one stack.

    The grid is widened by half its length on the side where its edge wins. A rate with which any restart diverges is
    no candidate.

    Args:
        config: the cell; its learning rate, seed and restarts are replaced.
        rates: the grid to start from, rising.

    Returns:
        One row per rate tried: learning_rate, validation_loss (mean over tuning seeds, infinite where one diverged),
        chosen.

    Raises:
        InputError: the data has no validation split, or no rate is fit.
    """
    import pandas as pd

    (cell,) = made([config])
    if "validation" not in cell.dataset.rows:
        raise InputError(f"data={config.data.name}: has no validation split to choose a learning rate on")
    tried: dict[float, float] = {}
    wanted = sorted(rates)
    while wanted:
        recipe = dataclasses.replace(
            cell.recipe,
            learning_rate=tuple(wanted),
            seed=TUNING_SEED,
            restarts=TUNING_RESTARTS,
            log_every=max(1, config.epochs),
            diagnostics="none",
        )
        splits = {name: cell.dataset.splits[name] for name in ("train", "validation")}
        final = train_recipe(recipe, splits, workers="auto").curves["validation/loss"][-1]
        means = np.nan_to_num(final, nan=np.inf).reshape(len(wanted), TUNING_RESTARTS).mean(axis=1)
        tried |= dict(zip(wanted, means.tolist(), strict=True))
        wanted = _beyond(tried, len(rates) // 2)
    best = min(tried, key=lambda rate: (tried[rate], rate))
    if not np.isfinite(tried[best]):
        raise InputError(f"{config.name}: diverges at every learning rate from {min(tried)} to {max(tried)}")
    rows = [(rate, loss, rate == best) for rate, loss in sorted(tried.items())]
    return pd.DataFrame(rows, columns=["learning_rate", "validation_loss", "chosen"])


def _beyond(tried: dict[float, float], steps: int) -> list[float]:
    """More rates beyond the edge that wins, none where the best one lies inside."""
    rates = sorted(tried)
    best = min(rates, key=lambda rate: (tried[rate], rate))
    factor = 10**0.25
    if best == rates[0]:
        more = [best / factor**k for k in range(1, steps + 1)]
    elif best == rates[-1]:
        more = [best * factor**k for k in range(1, steps + 1)]
    else:
        return []
    low, high = RATE_LIMITS
    return sorted(float(f"{rate:.3g}") for rate in more if low <= rate <= high)
