"""Where results live: the only room that knows MLflow.

A configuration is one run, a *cell*; its restarts are nested runs under it. Everything a cell needs to be read, redrawn
or repeated is in its artifacts, and the rows of the store serve MLflow's own table and charts:

    config.json        the resolved configuration
    curves.parquet     one row per restart and logged epoch, one column per metric
    restarts.parquet   one row per restart: seed, outcome, final metrics
    initial.npz, final.npz   weights W1.., b1.. stacked over restarts (R, ...), with their seeds
    learning_curves.png
    checksums.json     SHA-256 of each of these; its own is a tag, and what is read is compared with it
"""

from descentlab.interrupts import Terminated
from descentlab.tracking import upkeep
from descentlab.tracking.cell_run import CellRun, Claim, FinishedRun, SummaryRun
from descentlab.tracking.locations import store_uri
from descentlab.tracking.plans import part_id
from descentlab.tracking.reading import find, get
from descentlab.tracking.replaying import Replay, replay
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
    "ui",
    "upkeep",
]
