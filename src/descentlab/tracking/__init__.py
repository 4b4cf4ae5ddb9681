"""Stored results: the only package that knows MLflow.

One configuration is one run (a *cell*); its restarts are nested runs. The artifacts of a cell hold everything that is
needed to read, draw or repeat it; the database rows serve MLflow's own table and charts:

    config.json        the resolved configuration
    curves.parquet     one row per restart and logged epoch, one column per metric
    restarts.parquet   one row per restart: seed, outcome, final metrics
    initial.npz, final.npz   weights W1.., b1.. stacked over restarts (R, ...), with their seeds
    learning_curves.png
    checksums.json     SHA-256 of each of these files; every read is compared with it, and its own SHA-256 is a tag

Reading (stored_run, reading, results) does not import writing (tracker, cell_run, write_queue, writer, trained_cell).
"""

from descentlab.interrupts import Terminated
from descentlab.tracking import upkeep
from descentlab.tracking.cell_run import CellRun, Claim, FinishedRun, SummaryRun
from descentlab.tracking.locations import store_uri
from descentlab.tracking.plans import part_id
from descentlab.tracking.reading import find, get
from descentlab.tracking.replaying import Replay, replay, stored_cell
from descentlab.tracking.retrying import StoreLost
from descentlab.tracking.serving import addresses, serve_shared, serve_ui, ui
from descentlab.tracking.store import NoStore
from descentlab.tracking.stored_run import StoredRun
from descentlab.tracking.tables import long_form
from descentlab.tracking.tracker import Tracker, open_tracker

__all__ = [
    "CellRun",
    "Claim",
    "FinishedRun",
    "NoStore",
    "Replay",
    "StoreLost",
    "StoredRun",
    "SummaryRun",
    "Terminated",
    "Tracker",
    "addresses",
    "find",
    "get",
    "long_form",
    "open_tracker",
    "part_id",
    "replay",
    "serve_shared",
    "serve_ui",
    "store_uri",
    "stored_cell",
    "ui",
    "upkeep",
]
