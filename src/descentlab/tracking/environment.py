"""The environment of a run: versions, BLAS, processor and commit, on which the bits of results may depend."""

import contextlib
import functools
import os
import platform
import subprocess
from pathlib import Path

import numpy as np


def clone() -> Path | None:
    """The root of the clone that this code is run from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


@functools.cache
def environment() -> dict[str, str]:
    """What the bits of a result may depend on besides its configuration: versions, BLAS, CPU, commit."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("descentlab")
    except PackageNotFoundError:
        own = "unknown"
    found = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "descentlab": own,
        "blas": _blas(),
        "cpu_features": " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])),
        "device": f"cpu {_cpu_model()} x{os.cpu_count()}",
    }
    root = clone()
    if root and (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            commit, _, dirty = answer.stdout.strip().partition("-")
            found |= {
                "git_commit": commit,
                "git_dirty": "true" if dirty else "false",
                "mlflow.source.git.commit": commit,
            }
    return found


def _blas() -> str:
    """The library that NumPy multiplies with; SciPy may have loaded another of its own, or not yet."""
    from threadpoolctl import threadpool_info

    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    own = [library for library in loaded if "numpy" in library["filepath"]]
    names = (f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}".strip() for lib in own or loaded)
    return "; ".join(sorted(names))


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()
