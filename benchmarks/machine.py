"""The machine under a benchmark: confined cores, its GEMM peak, what it is called.

Import this first: the number of threads is read by BLAS, XLA and PyTorch when they are loaded.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def confine(cores: int) -> None:
    """Keep this process, and all threads that it starts from here on, on so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    os.environ |= dict.fromkeys(BLAS_THREADS, str(cores))
    if cores == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def clock(cores: int) -> Callable[[], float]:
    """What tells the time: on one core the processor's, which other programs on the machine disturb less."""
    return time.process_time if cores == 1 else time.perf_counter


def gemm_peak(dtype: str, cores: int = 1, size: int = 1024) -> float:
    """Operations a second of NumPy's product of two square matrices, the best of three."""
    import numpy as np

    a = np.random.default_rng(0).random((size, size)).astype(dtype)
    out = np.empty_like(a)
    best, now = 0.0, clock(cores)
    for _ in range(3):
        began = now()
        np.matmul(a, a, out=out)
        best = max(best, 2.0 * size**3 / (now() - began))
    return best


def described(cores: int) -> dict[str, str]:
    """Processor and versions."""
    versions = {}
    for package in ("numpy", "jax", "torch", "scikit-learn"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {"processor": _processor(), "cores": str(cores), "python": platform.python_version(), **versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
