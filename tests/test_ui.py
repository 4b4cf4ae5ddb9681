"""What the printed addresses show in a real browser."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shared import cell, of, trained

from descentlab import figures, tracking
from descentlab.tracking import results
from descentlab.values import InputError, Option

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
PATIENCE = 90_000  # milliseconds; a busy machine takes its time
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def option(empty_store, tmp_path_factory):
    """A store with a sweep of four cells of three restarts, an older single run, and a summary."""
    path = tmp_path_factory.mktemp("ui") / "mlflow.db"
    shutil.copy(empty_store, path)
    option = Option("local", {"uri": str(path)})
    for sweep in ([("gelu", 0.1)], [(a, rate) for a in ("tanh", "relu") for rate in (0.1, 1.0)]):
        with tracking.open_tracker(option) as tracker:
            for activation, rate in sweep:
                config = cell(activation=activation, learning_rate=rate, name=f"{activation}-lr{rate:g}", epochs=10)
                dataset, training = trained(config)
                with tracker.cell(of(config, dataset)) as run:
                    run.finish(training)
            with tracker.summary("small sweep") as summary:
                summary.figure("spread", figures.spread(results.restarts(tracker, sweep="last")))
                summary.table("cells", results.cells(tracker, sweep="last")[["cell", "test/loss"]])
    return option


@pytest.fixture(scope="module")
def served(option):
    """The server as `descentlab ui` starts it: what it prints, description -> address."""
    code = (
        "import sys; from descentlab.values import Option; from descentlab.tracking import serve_ui;"
        " serve_ui(Option('local', {'uri': sys.argv[1]}))"
    )
    command = [sys.executable, "-c", code, option.numbers["uri"]]
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if line.startswith("Ctrl-C"):
                    break
                found[line.strip().rstrip(":")] = process.stdout.readline().strip()
            yield found
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        with contextlib.closing(playwright.chromium.launch(executable_path=program, args=FLAGS)) as browser:
            yield browser


@pytest.fixture
def look(browser, served, request, tmp_path):
    """Open a printed address, by the beginning of its description; what it shows is kept as a picture."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(PATIENCE)

    def open_page(description, selector):
        (address,) = (address for known, address in served.items() if known.startswith(description))
        page.goto(address)
        page.wait_for_selector(selector)
        return page

    yield open_page
    folder = Path(os.environ.get("DESCENTLAB_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{request.node.name}.png")
    page.close()


def names(page):
    page.wait_for_function("document.querySelectorAll('.ag-row a').length > 1")
    return {text for text in page.locator(".ag-row a").all_inner_texts() if re.match(r"(tanh|relu|gelu|s\d)", text)}


def drawn_lines(page, expected):
    """How many different lines of more than a point the first chart has; two runs may be given the same colour."""
    page.wait_for_selector(".js-plotly-plot .js-line")
    lines = page.locator(".js-plotly-plot").first.locator(".js-line")
    patience = time.monotonic() + PATIENCE / 1000
    while True:
        looks = lines.evaluate_all("lines => lines.map(line => [line.getAttribute('d'), line.style.stroke])")
        drawn = len({(path, stroke) for path, stroke in looks if path and "L" in path})
        if drawn >= expected or time.monotonic() > patience:
            return drawn
        page.wait_for_timeout(200)


SWEEP = {"tanh-lr0.1", "tanh-lr1", "relu-lr0.1", "relu-lr1"}


def test_the_last_sweeps_table_has_its_cells_with_axes_and_results(look):
    page = look("last sweep: table of 4", ".ag-row a")
    page.wait_for_selector(".ag-header-cell:has-text('learning_rate')")
    assert names(page) == SWEEP
    headers = page.locator(".ag-header-cell").all_inner_texts()
    shown = {header.strip() for header in headers}
    assert {"activation", "learning_rate", "test/accuracy", "test/accuracy_ci_low"} <= shown
    assert "searchFilter=tags.level" in page.url
    assert "route is closed" not in page.inner_text("body")


def test_an_experiments_plain_address_shows_its_training_runs_and_no_panel_of_the_assistant(look):
    page = look("last sweep: table of 4", ".ag-row a")
    page.goto(re.sub("/runs.*", "", page.url))
    page.wait_for_selector(".ag-row a")
    assert "workflowType=machine_learning" in page.url
    assert page.evaluate("localStorage.getItem('mlflow.assistant.panelOpen_v1')") == "false"


def test_the_last_sweeps_charts_are_filled(look):
    page = look("last sweep: charts", ".js-plotly-plot .scatterlayer .trace")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length > 1")
    assert drawn_lines(page, 4) == 4
    titles = page.locator("[data-testid='experiment-view-compare-runs-card']").all_inner_texts()
    assert titles
    assert not [title for title in titles if re.search(r"_(sd|min|max|n|ci_low|diverged)\b", title.split("\n")[0])]
    assert names(page) == SWEEP


def test_the_last_sweeps_four_cells_are_compared(look):
    page = look("last sweep: compared", "text=Comparing 4 Runs")
    page.wait_for_selector(".js-plotly-plot")
    text = page.inner_text("body")
    assert all(name in text for name in SWEEP)


def test_all_cells_are_in_a_table_without_their_restarts(look):
    page = look("all cells: table", ".ag-row a")
    assert names(page) == SWEEP | {"gelu-lr0.1"}


def test_all_cells_charts_are_filled(look):
    page = look("all cells: charts", ".js-plotly-plot .scatterlayer .trace")
    assert drawn_lines(page, 5) == 5


@pytest.mark.parametrize("description", ["relu-lr1: learning curves", "small sweep: spread"])
def test_a_figure_shows_inline(look, description):
    page = look(description, "[data-testid='artifact-tree-node'], [role='tree']")
    page.wait_for_function("[...document.images].some(i => i.naturalWidth > 400 && i.clientWidth > 200)")


def test_every_printed_address_is_on_this_machine_and_of_one_level(served):
    assert len(served) == 7
    assert all(re.match(r"http://127\.0\.0\.1:\d+/#/", address) for address in served.values())
    tables = [address for description, address in served.items() if re.search("table|charts", description)]
    assert all("viewStateShareKey=last-sweep-1" in a or "tags.level%20%3D%20%27cell%27" in a for a in tables)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_the_server_listens_on_loopback_only(served):
    port = int(re.search(r":(\d+)/", next(iter(served.values()))).group(1))
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    listening = {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


def test_a_port_that_is_taken_is_refused_in_one_line(served, option):
    port = int(re.search(r":(\d+)/", next(iter(served.values()))).group(1))
    with pytest.raises(InputError, match=rf"^port={port}: cannot be listened on"), tracking.ui(option, port):
        pass


def test_there_is_no_ui_without_a_store(tmp_path):
    with (
        pytest.raises(InputError, match="there is no store yet"),
        tracking.ui(Option("local", {"uri": str(tmp_path / "x.db")})),
    ):
        pass
