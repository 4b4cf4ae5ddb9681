"""Serving until Ctrl-C: MLflow's UI, with the addresses in it that are worth opening, or a shared store."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from descentlab.data import leading
from descentlab.tracking.plans import member_tag
from descentlab.tracking.reading import SWEEP_LENGTH, find, last_sweep, quoted, reading
from descentlab.tracking.servers import mlflow_server, shared_store
from descentlab.tracking.store import Store
from descentlab.tracking.stored_run import StoredRun
from descentlab.values import Option
from descentlab.values import without_password as shown


def addresses(option: Option, base: str) -> dict[str, str]:
    """What to open in MLflow's UI: description -> address.

    The plain address opens a view that is not for training runs; nested runs are collapsed and leave the charts empty
    unless the table is ordered by a metric; such an order would put the luckiest restart above every cell's mean unless
    it is filtered by level; and the table shows no result until one picks columns. The last sweep's addresses therefore
    name a view that is saved with the experiment, which filters, orders and shows the sweep's axes and results.

    Args:
        option: names the store.
        base: the server's address.
    """
    base = base.rstrip("/")
    parts = _last_parts(option)
    if not parts:
        return {"nothing tracked yet": f"{base}/#/experiments"}
    store = reading(option)
    experiment = f"{base}/#/experiments/{store.experiment_id}"

    def runs(query: Mapping[str, Any], **more: str) -> str:
        return f"{experiment}/runs?{_query(query, workflowType='machine_learning', **more)}"

    found = {}
    for place, (sweep, cells) in enumerate(parts.items(), start=1):
        label = "last sweep" if len(parts) == 1 else f"last sweep, {sweep[SWEEP_LENGTH:].strip('-')}"
        joined = member_tag(sweep) in cells[0].tags  # not so in stores of before cells had such tags
        theirs = f"tags.`{member_tag(sweep)}` LIKE '%'" if joined else f"tags.sweep = {quoted(sweep)}"
        search = _search(f"tags.level = 'cell' and {theirs}", cells)
        view = f"last-sweep-{place}"
        saved = {"viewStateShareKey": view} if _save_view(store, view, search, cells) else search
        found[f"{label}: table of {len(cells)}"] = runs(saved)
        found[f"{label}: charts"] = runs(saved, compareRunsMode="CHART")
        if len(cells) > 1:
            ids = {"runs": json.dumps([run.run_id for run in cells]), "experiments": json.dumps([store.experiment_id])}
            found[f"{label}: compared"] = f"{base}/#/compare-runs?{_query(ids, workflowType='machine_learning')}"
    every = _search("tags.level = 'cell'", cells)
    found["all cells: table"] = runs(every)
    found["all cells: charts"] = runs(every, compareRunsMode="CHART")
    shown = [(run, "learning_curves.png", "learning curves") for run in cells if run.status == "FINISHED"][-1:]
    for run in find(option, "summary", limit=1):
        figures = sorted(name for name in run.artifacts() if name.endswith(".png"))
        shown += [(run, name, Path(name).stem) for name in figures or [""]]
    for run, name, title in shown:
        page = f"{experiment}/runs/{run.run_id}/artifacts/{quote(name)}?workflowType=machine_learning"
        found[f"{run.name}: {title or 'summary'}"] = page
    return found


def _last_parts(option: Option) -> dict[str, list[StoredRun]]:
    """The cells of the last sweep; of a study in several parts, those of each: sweep -> cells."""
    stem = last_sweep(reading(option))[:SWEEP_LENGTH]
    if not stem:
        return {}
    parts: dict[str, list[StoredRun]] = {}
    for run in find(option, "cell", sweep=f"{stem}%", status=None):
        parts.setdefault(run.tags["sweep"], []).append(run)
    return parts


def _query(parts: Mapping[str, Any], **more: str) -> str:
    texts = {key: str(value).lower() if isinstance(value, bool) else value for key, value in {**parts, **more}.items()}
    return urlencode(texts, quote_via=quote)


def _search(query: str, cells: Sequence[StoredRun]) -> dict[str, Any]:
    """The UI's search, ordered by the best score that the cells have."""
    search: dict[str, Any] = {"searchFilter": query, "startTime": "ALL", "lifecycleFilter": "Active"}
    metric = leading({name for run in cells for name in run.metrics})
    return search | ({"orderByKey": f"metrics.`{metric}`", "orderByAsc": metric.endswith("loss")} if metric else {})


def _save_view(store: Store, name: str, search: Mapping[str, Any], cells: Sequence[StoredRun]) -> bool:
    """Save what the UI calls a shared view of these cells: their axes and results as columns, charts of their means."""
    axes = [key for key in cells[-1].params if len({run.params.get(key) for run in cells}) > 1]
    score = leading({name for run in cells for name in run.metrics})
    measured = [score, f"{score}_ci_low", f"{score}_ci_high", "test/loss", "train/loss", f"{score}_diverged"]
    results = [name for name in dict.fromkeys(measured) if any(name in run.metrics for run in cells)]
    columns = [f"params.`{key}`" for key in axes or ("activation", "loss", "descent")]
    columns += [f"metrics.`{name}`" for name in results]
    view = {
        **search,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {column: 24 + 7 * len(column.partition(".")[2]) for column in columns},
        "runsHiddenMode": "SHOW_ALL",
        "chartsSearchFilter": "/(loss|accuracy|r2)$",
    }
    from mlflow.exceptions import MlflowException

    try:
        store.client.set_experiment_tag(store.experiment_id, f"mlflow.sharedViewState.{name}", json.dumps(view))
    except MlflowException:  # a store that is only read
        return False
    return True


@contextlib.contextmanager
def ui(option: Option, port: int | None = None) -> Iterator[str]:
    """Serve MLflow's UI on this machine only while the context is open; yields its address once it answers.

    Raises:
        InputError: if there is no store yet, if the port is taken, or if the server does not start.
    """
    uri = reading(option).address
    if uri.startswith("http"):
        yield uri
        return
    with mlflow_server(uri, port) as served:
        yield served.address


def serve_ui(option: Option, port: int | None = None) -> None:
    """Serve MLflow's UI on 127.0.0.1 until Ctrl-C, and print the addresses that are worth opening.

    Args:
        option: names the store.
        port: a free one is chosen where None.
    """
    with contextlib.suppress(KeyboardInterrupt), ui(option, port) as base:
        for description, address in addresses(option, base).items():
            print(f"{description}:\n  {address}", flush=True)
        print("Ctrl-C ends it.", flush=True)
        wait()


def wait() -> None:
    """Wait for Ctrl-C or SIGTERM; without end otherwise."""
    while True:
        time.sleep(0.2)  # a wait without limit would miss a signal that arrives just before it


def serve_shared(folder: Path, database: str | None, port: int, **how: Any) -> None:
    """Serve a shared store on 127.0.0.1 until Ctrl-C, and print how to use it.

    Args:
        folder: of artifacts, and of the database unless one is named.
        database: address of a PostgreSQL database.
        port: to listen on.
        how: further arguments of `shared_store`.
    """
    print("starting ...", flush=True)
    with contextlib.suppress(KeyboardInterrupt), shared_store(folder, port, database, **how) as served:
        base = served.address
        print(f"database:  {shown(database) if database else folder / 'mlflow.db'}")
        print(f"artifacts: {folder / 'artifacts'}")
        print(f"sweep into it with: descentlab tracking=server tracking.uri={base} KEY=VALUE ...")
        print(f"look at it with:    descentlab ui tracking=server tracking.uri={base}")
        print("Ctrl-C ends it; its runs stay.", flush=True)
        served.wait()
