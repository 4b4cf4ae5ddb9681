"""A stored run: its settings, tags and metrics as plain values, its artifacts as files and tables."""

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy import ndarray

from descentlab.nn.checkpoints import read_arrays
from descentlab.tracking import checksums, ownership
from descentlab.tracking.locations import one_line
from descentlab.tracking.store import Store
from descentlab.values import InputError

if TYPE_CHECKING:
    import pandas as pd


T = TypeVar("T")


class _Named(Generic[T]):
    """A tag or param as an attribute of a run, converted to a type; the type's empty value where a run has none."""

    def __init__(self, where: Literal["tags", "params"], name: str, kind: Callable[..., T]) -> None:
        self._where, self._name, self._kind = where, name, kind

    def __get__(self, run: "StoredRun", owner: type) -> T:
        text = getattr(run, self._where).get(self._name)
        return self._kind() if text is None else self._kind(text)


@dataclass(frozen=True)
class StoredRun:
    """A run as plain values.

    Attributes:
        run_id, name, status: as in the store; status is RUNNING, FINISHED, FAILED or KILLED.
        started: seconds since 1970.
        params, tags: texts.
        metrics: values at the last epoch, or at the latest one written of a run that has not finished; NaN where
            that epoch has none.
        digest: of the data; "" where it is not known.
        deleted: hidden from every search until it is restored.
    """

    run_id: str
    name: str
    status: str
    started: float
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    digest: str
    deleted: bool
    _artifacts: str
    _store: Store

    level = _Named("tags", "level", str)  # cell, restart, summary or sweep
    sweep = _Named("tags", "sweep", str)  # that the run belongs to
    label = _Named("tags", "label", str)  # of a sweep: the name of its experiment or study
    parent = _Named("tags", "mlflow.parentRunId", str)  # of a restart: the run of its cell
    description = _Named("tags", "mlflow.note.content", str)  # of a cell on a user's file: what was read
    reason = _Named("tags", "reason", str)  # why it failed or was killed
    outcome = _Named("tags", "outcome", str)  # how a restart, or all restarts of a cell, ended; else mixed
    diverged = _Named("tags", "diverged", int)  # how many restarts of a cell
    exploded = _Named("tags", "exploded", int)
    judge = _Named("tags", "judge", str)  # of the restarts, as `Cell.judged_by`
    trainer = _Named("tags", "trainer", str)  # as `Cell.trained_by`
    script = _Named("tags", "mlflow.source.name", str)  # that trained it, where the package's own trainer did not
    config_hash = _Named("tags", "config_hash", str)
    cell_hash = _Named("tags", "cell_hash", str)  # of the configuration without seed and restarts
    commit = _Named("tags", "git_commit", str)  # of the code
    process = _Named("tags", "process", str)  # that created it
    data = _Named("params", "data", str)
    seed = _Named("params", "seed", int)  # of the first restart
    restarts = _Named("params", "restarts", int)
    epochs = _Named("params", "epochs", int)
    form = _Named("params", "form", str)  # of a summary: full or quick
    overrides = _Named("params", "overrides", str)  # of a summary: what the command line gave

    @property
    def state(self) -> str:
        """The status in small letters; killed also where the process of a running one is gone."""
        return "killed" if self.status == "RUNNING" and self.given_up else self.status.lower()

    @property
    def given_up(self) -> str:
        """Why a run that is marked as running has lost its process; "" where it may be alive."""
        return ownership.given_up(self.tags, self.started)

    @property
    def owner(self) -> str:
        """The process that trains it, for people."""
        return ownership.holder(self.tags, self.started)

    @property
    def key(self) -> str:
        """What a cell was trained for, as `Cell.key`."""
        return self._with_data(self.config_hash)

    @property
    def family(self) -> str:
        """The key without seed and restarts, as `Cell.family`."""
        return self._with_data(self.cell_hash)

    def _with_data(self, settings: str) -> str:
        parts = [settings, self.tags.get("data_digest", self.digest), self.trainer]
        return "-".join(parts if self.trainer else parts[:2])

    @property
    def lost(self) -> int:
        """How many restarts of a cell diverged or exploded."""
        return self.diverged + self.exploded

    @property
    def seconds(self) -> float:
        """Wall time of a cell's training or of a study; NaN where it is not known."""
        return float(self.tags.get("wall_seconds", self.metrics.get("seconds", np.nan)))

    @property
    def memberships(self) -> dict[str, tuple[int, str]]:
        """The sweeps that count a cell as theirs: sweep -> its place and name there."""
        found = {}
        for tag, value in self.tags.items():
            if tag.startswith("sweep/"):
                place, _, name = value.partition(" ")
                found[tag.removeprefix("sweep/")] = (int(place) if place.isdigit() else 0, name)
        return found

    @property
    def parts(self) -> list[str]:
        """Of a sweep: the ids of its parts, its own where it has one."""
        return self.tags.get("parts", self.sweep).split()

    @property
    def last_active(self) -> float:
        """Of a sweep: when a command last worked on it, seconds since 1970."""
        return float(self.tags.get("at_work", self.started))

    @property
    def provenance(self) -> dict[str, str]:
        """Commit, versions, BLAS, machine and data, as far as they are known."""
        named = ("git_commit", "git_dirty", "descentlab", "python", "numpy", "blas", "device")
        found = {key: self.tags[key] for key in named if key in self.tags}
        return found | ({"data digest": self.digest} if self.digest else {})

    @property
    def origin(self) -> dict[str, str]:
        """The configuration's hash, user and host, as far as they are known."""
        names = {"config_hash": "config_hash", "mlflow.user": "user", "host": "host"}
        return {name: self.tags[tag] for tag, name in names.items() if tag in self.tags}

    def planned(self) -> dict[str, list[str]]:
        """Of a sweep: the keys of its cells, part by part.

        Raises:
            InputError: where its record is not complete.
        """
        parts: dict[str, list[str]] = {}
        for cell in json.loads(self.artifact("plan.json").read_text(encoding="utf-8"))["cells"]:
            parts.setdefault(cell["part"], []).append(cell["key"])
        return parts

    def artifacts(self) -> dict[str, int]:
        """Names and sizes in bytes of the run's artifacts, with those in folders."""
        folder = self._folder()
        if folder is not None:
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        listed = self._store.client.list_artifacts(self.run_id)
        return {found.path: found.file_size or 0 for found in listed if not found.is_dir}

    def artifact(self, name: str) -> Path:
        """A file of the run's artifacts on disk; downloaded where the store is not on this machine.

        Raises:
            InputError: the run has no such artifact, or it was changed after it was written.
        """
        path = self._path(name)
        if path is None:
            raise InputError(f"{self}: has no artifact {name}")
        if tag := self.tags.get(checksums.TAG):
            listed = self._path(checksums.NAME)
            wrong = checksums.complaint(tag, listed.read_bytes() if listed else None, name, path)
            if wrong:
                raise InputError(f"{self}: {wrong}; {self._remedy}")
        return path

    def table(self, name: str) -> "pd.DataFrame":
        """A Parquet artifact.

        Raises:
            InputError: as for `artifact`, and for a file that is damaged.
        """
        import pandas as pd

        path = self.artifact(name)
        try:
            return pd.read_parquet(path)
        except Exception as error:  # Arrow and pandas raise many kinds for bytes that are no table
            raise InputError(f"{self}: {name} cannot be read ({one_line(error)[:200]}); {self._remedy}") from error

    def arrays(self, name: str) -> "dict[str, ndarray]":
        """The arrays of an .npz artifact; nothing is unpickled.

        Raises:
            InputError: as for `table`.
        """
        try:
            return read_arrays(self.artifact(name))
        except (OSError, ValueError) as error:
            raise InputError(f"{self}: {name} cannot be read ({one_line(error)[:200]}); {self._remedy}") from error

    def __str__(self) -> str:
        """The run in an error's line."""
        return f"run {self.run_id} ({self.name}, {self.status})"

    @property
    def _remedy(self) -> str:
        return f"restore it from a backup, or delete the run (`descentlab delete {self.run_id}`) and train it again"

    def _folder(self) -> Path | None:
        """The folder of the artifacts, if it is on this machine."""
        return local_folder(self._artifacts)

    def _path(self, name: str) -> Path | None:
        folder = self._folder()
        if folder is not None:
            return folder / name if (folder / name).is_file() else None
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException, OSError):
            return Path(self._store.client.download_artifacts(self.run_id, name, _fetched()))
        return None


def local_folder(artifacts: str) -> Path | None:
    """The folder behind an artifact address, if it is on this machine."""
    parts = urlsplit(artifacts)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else artifacts)
    return None


@functools.cache
def _fetched() -> str:
    import atexit
    import shutil

    folder = tempfile.mkdtemp(prefix="descentlab-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def stored(run: Any, store: Store) -> StoredRun:
    """MLflow's run as plain values."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        started=run.info.start_time / 1000,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=_final_metrics(run),
        digest=inputs[0].dataset.digest if inputs else "",
        deleted=run.info.lifecycle_stage == "deleted",
        _artifacts=run.info.artifact_uri,
        _store=store,
    )


def _final_metrics(run: Any) -> dict[str, float]:
    """MLflow's latest values, NaN in place of one that is older than the run's last epoch."""
    latest = run.data._metric_objs  # the public `metrics` leave out the step
    last = max((metric.step for metric in latest), default=0)
    epochs = run.data.params.get("epochs", "")
    if run.info.status == "FINISHED" and run.data.tags.get("level") in ("cell", "restart") and epochs.isdigit():
        last = int(epochs)
    return {metric.key: metric.value if metric.step == last else np.nan for metric in latest}
