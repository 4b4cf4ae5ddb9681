"""Tables, figures and verdicts of all studies, drawn again from their stored runs, on one page.

Every script in experiments/ makes tables and figures of stored runs in a function `report(study)`. This module calls
the same function on the newest finished run of each study, of the full form if there is one. Nothing is measured again.
So figures can be redrawn in another style later, and a verdict that differs from the run before is marked.
"""

import contextlib
import html
import importlib.util
import io
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from descentlab import interrupts
from descentlab.analysis.verdicts import SCORES
from descentlab.config import composing
from descentlab.studies import study
from descentlab.tracking import StoredRun, SummaryRun, find
from descentlab.values import InputError, Option, refusal, shown, unknown

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path("reports")


@dataclass(frozen=True)
class Rebuilt:
    """A study drawn again from its stored run.

    Attributes:
        name: of the study, which is its script's.
        title: the script's first line.
        run: the summary run that it was drawn from.
        folder: of its files.
        verdicts: the verdict table with a column `before`, the verdict of the run before; empty without claims.
    """

    name: str
    title: str
    run: StoredRun
    folder: Path
    verdicts: "pd.DataFrame"


@dataclass(frozen=True)
class NotDrawn:
    """A study with a stored run that could not be drawn.

    Attributes:
        name: of the study.
        reason: in one line.
    """

    name: str
    reason: str


def rebuild(source: Option, name: str, folder: Path) -> Rebuilt | None:
    """Draw one study again.

    Args:
        source: the option that names the store.
        name: of the study.
        folder: gets a folder of the study's name, in place of an older one.

    Returns:
        The study, or None if the store has no finished run of it.

    Raises:
        InputError: for a study without a script.
    """
    import pandas as pd

    if name not in study.scripts():
        raise unknown("study", name, list(study.scripts()))
    runs: list[StoredRun] = []
    for form in ("full", "quick"):
        runs = runs or find(source, "summary", where={"study": name, "form": form}, limit=2)
    if not runs:
        return None
    run, script = runs[-1], _script(name)
    sweeps = {part: f"{run.sweep}-{part}" for part in script.PARTS}
    tracked = {part: sweep for part, sweep in sweeps.items() if find(source, "cell", sweep, limit=1)}
    place = folder / name
    _remove(place)
    place.mkdir(parents=True)
    quick = run.form == "quick"
    drawn = study.Study(source, SummaryRun(place), tracked, study.declared_claims(name), quick, kept=run, name=name)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        script.report(drawn)
    (place / "report.txt").write_text(said.getvalue(), encoding="utf-8")
    table = place / "verdicts.csv"
    verdicts = pd.read_csv(table, keep_default_na=True) if table.is_file() else pd.DataFrame()
    if len(verdicts):
        words = {score: word for word, score in SCORES.items()}
        earlier = runs[-2].metrics if len(runs) > 1 else {}
        before = {name: words.get(score, "") for name, score in earlier.items() if name.startswith("verdict/")}
        verdicts["before"] = [before.get(f"verdict/{claim}", "") for claim in verdicts["claim"]]
    title = (script.__doc__ or name).strip().splitlines()[0]
    return Rebuilt(name, title, run, place, verdicts)


def rebuild_all(source: Option, names: Sequence[str], folder: Path) -> list[Rebuilt | NotDrawn]:
    """Draw studies again, with a line of output each; a study that cannot be drawn does not stop the others.

    Folders of other studies in `folder` are removed, because their figures are of another store.
    """
    outcomes: list[Rebuilt | NotDrawn] = []
    for name in names:
        try:
            one = rebuild(source, name, folder)
        except Exception as error:  # of a study's own script, over runs of any age
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            missing = NotDrawn(name, shown(reason, 300))
            outcomes.append(missing)
            print(f"{name}: not drawn: {missing.reason}", flush=True)
            continue
        print(f"{name}: {f'drawn from run {one.run.run_id}' if one else 'no finished run is stored'}", flush=True)
        outcomes += [one] if one else []
    drawn = {one.name for one in outcomes if isinstance(one, Rebuilt)}
    for text in folder.glob("*/report.txt"):
        if text.parent.name not in drawn:
            _remove(text.parent)
    for outcome in outcomes:
        if isinstance(outcome, NotDrawn):
            _remove(folder / outcome.name)  # its first files may be there
    return outcomes


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def write_page(outcomes: Sequence[Rebuilt | NotDrawn], folder: Path) -> Path:
    """Write one page of all studies, verdicts first, then figures; returns its path."""
    body = ["<h1>descentlab: what the experiments say</h1>"]
    for missing in [one for one in outcomes if isinstance(one, NotDrawn)]:
        body.append(f"<p>{study.told(study.scripts()[missing.name])}: not drawn: {html.escape(missing.reason)}</p>")
    rebuilt = [one for one in outcomes if isinstance(one, Rebuilt)]
    for one in rebuilt:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.run.started))
        about = [one.run.form + " form", when, "commit " + (one.run.commit or "unknown")[:12]]
        overrides = one.run.overrides.split()
        if told := [word for word in overrides if not word.startswith("tracking")]:  # whose address may hold a password
            about.append("with " + " ".join(told))
        body.append(f"<h2 id='{one.name}'>{html.escape(one.title)}</h2>")
        body.append(f"<p>{study.told(study.scripts()[one.name])}, {html.escape(', '.join(about))}</p>")
        if len(one.verdicts):
            body.append(_verdict_table(one.verdicts))
        for figure in sorted(one.folder.glob("*.svg")):
            body.append(f"<figure><img src='{one.name}/{figure.name}' alt='{figure.stem}'></figure>")
        tables = sorted(one.folder.glob("*.csv"))
        links = ", ".join(f"<a href='{one.name}/{table.name}'>{table.stem}</a>" for table in tables)
        body.append(f"<p>Numbers: {links}</p>")
    path = folder / "index.html"
    path.write_text(_PAGE.format(body="\n".join(body)), encoding="utf-8")
    return path


def _verdict_table(verdicts: "pd.DataFrame") -> str:
    """A row per claim and case; the text of a claim stands once, above its cases."""
    columns = ["case", "n", "margin", "estimate", "low", "high", "p_holm", "verdict", "before"]
    rows = ["<tr>" + "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns) + "</tr>"]
    for _, cases in verdicts.groupby("claim", sort=False):
        first = cases.iloc[0]
        words = f"<b>{html.escape(first['statement'])}</b><br>{html.escape(first['metric'])}; {first['test']}; "
        words += f"family {html.escape(first['family'])}, alpha {first['alpha']:g}"
        words += f"; {html.escape(str(first['conditional_on']))}" if isinstance(first["conditional_on"], str) else ""
        rows.append(f"<tr><td class='claim' colspan='{len(columns)}'>{words}</td></tr>")
        for _, case in cases.iterrows():
            flipped = isinstance(case["before"], str) and case["before"] not in ("", case["verdict"])
            cells = [_cell(case[name]) for name in columns]
            kind = str(case["verdict"]).replace(" ", "-") + (" flipped" if flipped and len(cases) == 1 else "")
            rows.append(f"<tr class='{kind}'>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "<table>" + "\n".join(rows) + "</table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return html.escape(str(value))


def _script(name: str) -> ModuleType:
    """An experiment's script as a module."""
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", study.scripts()[name])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all studies, or those that are named, into reports/; overrides such as tracking.uri=... name the store."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def work() -> int:
        names = [word for word in given if "=" not in word] or list(study.scripts())
        for name in names:
            if name not in study.scripts():
                raise unknown("study", name, list(study.scripts()))
        source = composing.compose([word for word in given if "=" in word], sweep=False)[0].tracking
        try:
            FOLDER.mkdir(exist_ok=True)
            outcomes = rebuild_all(source, names, FOLDER)
            if not outcomes:
                raise InputError("report: the store has no finished study; run one first, such as: make sweep")
            page = write_page(outcomes, FOLDER)
        except OSError as error:
            raise refusal("report", FOLDER.absolute(), f"cannot be written ({error.strerror or error})") from error
        print(f"report: {page}")
        return 0

    return interrupts.guarded(work)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>descentlab: what the experiments say</title>
<style>body{{font:15px sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}img{{max-width:100%}}
figure{{margin:1.5em 0}}table{{border-collapse:collapse;width:100%}}
td,th{{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}}td.claim{{text-align:left;padding-top:.9em}}
td:first-child,th:first-child{{text-align:left}}tr.supported td:nth-last-child(2){{color:#00694f;font-weight:bold}}
tr.not-supported td:nth-last-child(2){{color:#b04a00;font-weight:bold}}tr.flipped{{background:#fff3c4}}</style>
{body}
</html>
"""

if __name__ == "__main__":
    sys.exit(main())
