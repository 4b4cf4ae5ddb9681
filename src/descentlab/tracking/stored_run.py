"""A stored run as plain values, and its artifacts as files and tables."""

import contextlib
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy import ndarray

from descentlab.nn.checkpoints import read_arrays
from descentlab.tracking import checksums
from descentlab.tracking.locations import one_line
from descentlab.tracking.store import Store
from descentlab.values import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredRun:
    """A run as plain values.

    Attributes:
        run_id, name, status: as in the store; status is RUNNING, FINISHED, FAILED or KILLED.
        started: seconds since 1970.
        params, tags: texts.
        metrics: values at the last epoch, of a run that has not finished at the latest one that was written; NaN where
            that epoch has none.
        digest: of the data it was trained on; "" where it is not known.
        deleted: it is hidden from every search until it is restored.
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

    @property
    def key(self) -> str:
        """What a cell was trained for, as `Planned.key`."""
        return f"{self.tags.get('config_hash', '')}-{self.tags.get('data_digest', self.digest)}"

    @property
    def lost(self) -> int:
        """How many restarts of a cell diverged or exploded."""
        return int(self.tags.get("diverged", 0)) + int(self.tags.get("exploded", 0))

    def artifacts(self) -> dict[str, int]:
        """Names of the run's artifacts with their bytes, those in folders too."""
        folder = self._folder()
        if folder is not None:
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        listed = self._store.client.list_artifacts(self.run_id)
        return {found.path: found.file_size or 0 for found in listed if not found.is_dir}

    def artifact(self, name: str) -> Path:
        """A file of the run's artifacts on disk; fetched first where the store is not on this machine.

        Raises:
            InputError: if the run has no such artifact, or if it is no longer what was written.
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
        except Exception as error:  # whatever Arrow and pandas say about bytes that are no table
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
        return f"take it from a backup, or train it again after `descentlab delete {self.run_id}`"

    def _folder(self) -> Path | None:
        """Where the artifacts lie, if that is on this machine."""
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
