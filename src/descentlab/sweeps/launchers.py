"""Runs jobs in other processes: of this machine (joblib), of a Ray cluster, of a Slurm queue (submitit).

A job is a function without arguments. Hydra's own launcher plugins are not used: they take lists of overrides, so that
every worker would compose its cell a second time, and Hydra finds launchers only in its plugin package.

A worker that dies loses its own job and no other: each has a process to itself, and none shares a pool with it.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descentlab.config.options import LAUNCHER
from descentlab.interrupts import terminable
from descentlab.nn.workers import BLAS
from descentlab.nn.workers import cores as available
from descentlab.values import Option, refusal, shown

Job = Callable[[], Any]

POLL_SECONDS = 0.1  # between looks at what runs
IDLE_SECONDS = 60  # after which a worker without a job ends; one whose parent was killed would wait for ever
GRACE_SECONDS = 20.0  # in which jobs that are stopped mark their runs
EXTRAS = {"local": ("joblib", ""), "cluster": ("ray", "ray"), "slurm": ("submitit", "slurm")}  # module, extra


class WorkerLost(Exception):
    """A worker ended without a result: killed, crashed, out of memory or out of time."""


@dataclass(frozen=True)
class _Running:
    """A running job: whether it has ended, its result, and a call that interrupts it as Ctrl-C does."""

    done: Callable[[], bool]
    result: Callable[[], Any]
    stop: Callable[[], None]


@dataclass(frozen=True)
class _Pool:
    """Processes for jobs: how to start one, and how many run at once."""

    start: Callable[[Job], _Running]
    room: int


@dataclass(frozen=True)
class Workers:
    """An open launcher.

    Attributes:
        room: how many jobs run at once.
        results: given jobs, yields as they end the place of each and its result, or the Exception that it raised:
            `WorkerLost` where its worker died.
    """

    room: int
    results: Callable[[Sequence[Job]], Iterator[tuple[int, Any]]]


def check(preset: Option) -> None:
    """Refuse a launcher whose package is not installed, or whose queue is not there.

    Raises:
        InputError: in a line that says what to install.
    """
    if preset.name == "none":
        return
    module, extra = EXTRAS[preset.name]
    if importlib.util.find_spec(module) is None:
        package = f"'descentlab[{extra}]'" if extra else module
        where = f"; in a clone: python -m pip install -c constraints.txt -e '.[{extra}]'" if extra else ""
        raise refusal(LAUNCHER, preset.name, f"needs {module}, which is not installed: pip install {package}{where}")
    if preset.name == "slurm" and preset.numbers["cluster"] == "slurm" and not shutil.which("srun"):
        raise refusal("hydra.launcher.cluster", "slurm", "there is no srun on this machine; local runs its jobs here")


@contextlib.contextmanager
def opened(preset: Option) -> Iterator[Workers]:
    """Open a launcher; jobs that still run when its context is left are ended.

    Args:
        preset: name local, cluster or slurm, and its numbers (`config.LAUNCHERS`).

    Raises:
        InputError: for a cluster that cannot be reached, or has no room.
    """
    running: dict[int, _Running] = {}
    with terminable(), _POOLS[preset.name](preset.numbers) as pool:
        given = {key: value for key, value in os.environ.items() if key.startswith("DESCENTLAB_")}
        held = functools.partial(_held, preset.numbers["cores"], str(Path.cwd()), given)

        def results(jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
            waiting = deque(enumerate(jobs))
            while waiting or running:
                while waiting and len(running) < pool.room:
                    place, job = waiting.popleft()
                    running[place] = pool.start(functools.partial(held, job))
                for place in [place for place, one in running.items() if one.done()]:
                    yield place, _outcome(running.pop(place))
                time.sleep(POLL_SECONDS)

        try:
            yield Workers(pool.room, results)
        finally:
            _end(list(running.values()))


def _end(running: Sequence[_Running]) -> None:
    """Interrupt jobs, and wait for a while until they have marked their runs."""
    for one in running:
        with contextlib.suppress(Exception):
            one.stop()
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and not all(one.done() for one in running):
        time.sleep(POLL_SECONDS)


def _outcome(ended: _Running) -> Any:
    """A job's result, or the exception that it raised."""
    try:
        result, error = ended.result()
    except Exception as lost:  # every package has its own for this
        why = shown(" ".join(str(lost).split()) or type(lost).__name__, 300)
        return WorkerLost(f"its worker ended without a result: killed, or out of memory or time ({why})")
    return result if error is None else error


def _held(cores: int, folder: str, given: Mapping[str, str], job: Job) -> tuple[Any, Exception | None]:
    """In a worker: run a job in the parent's working folder, with its settings, BLAS held to some cores."""
    from threadpoolctl import threadpool_limits

    for key, value in given.items():
        os.environ.setdefault(key, value)
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(folder)
    try:
        with threadpool_limits(cores):
            return job(), None
    except Exception as error:
        return None, portable(error)
    except (KeyboardInterrupt, SystemExit) as error:
        return None, WorkerLost(f"its worker was asked to end ({error or type(error).__name__})")


def portable(error: Exception) -> Exception:
    """An exception as it may leave a worker; not every one survives the journey."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _blas(cores: int) -> dict[str, str]:
    """Environment variables of a new process that hold BLAS to some cores."""
    return dict.fromkeys(BLAS, str(cores))


# --- this machine ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _local(numbers: Mapping[str, Any]) -> Iterator[_Pool]:
    """Processes of this machine by joblib's loky, each a pool of its own: one that dies breaks its pool."""
    from joblib.externals.loky import ProcessPoolExecutor

    slots: list[tuple[Any, Any]] = []  # a pool of one process, and the future of what it was given last

    def start(job: Job) -> _Running:
        pool = None
        if free := next((slot for slot in slots if slot[1].done()), None):
            slots.remove(free)
            if free[1].exception() is None:
                pool = free[0]
            else:
                free[0].shutdown(kill_workers=True)
        if pool is None:
            pool = ProcessPoolExecutor(1, timeout=IDLE_SECONDS, initializer=_ignore_interrupts, env=_blas(cores))
        process = pool.submit(os.getpid)
        future = pool.submit(job)
        slots.append((pool, future))

        def stop() -> None:
            if process.done() and not future.done():
                os.kill(process.result(), signal.SIGTERM)

        return _Running(future.done, future.result, stop)

    cores = numbers["cores"]
    try:
        yield _Pool(start, numbers["workers"])
    finally:
        for pool, future in slots:
            pool.shutdown(kill_workers=not future.done())


def _ignore_interrupts() -> None:
    """In a worker: Ctrl-C is for the parent, who ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- a Ray cluster -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _cluster(numbers: Mapping[str, Any]) -> Iterator[_Pool]:
    """Tasks of a Ray cluster: of one that is there, or one of this machine that ends with us."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the new way, of which Ray warns otherwise
    address, cores, workers = numbers["address"], numbers["cores"], numbers["workers"]
    more: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else it listens on every interface
        more = {"include_dashboard": False, "num_cpus": available() if workers == "auto" else workers * cores}
    import ray

    with _own_signals():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **more)
        except Exception as error:
            why = shown(" ".join(str(error).split()), 200)
            raise refusal("hydra.launcher.address", address, f"no Ray cluster can be used there ({why})") from error
    try:
        room = int(ray.cluster_resources().get("CPU", 0) // cores)
        if not room:
            raise refusal("hydra.launcher.cores", cores, "is more than the cluster has")
        task = ray.remote(num_cpus=cores, max_retries=0, runtime_env={"env_vars": _blas(cores)})(_called)

        def start(job: Job) -> _Running:
            reference = task.remote(job)
            return _Running(
                lambda: bool(ray.wait([reference], timeout=0)[0]),
                lambda: ray.get(reference),
                lambda: ray.cancel(reference),
            )

        yield _Pool(start, room if workers == "auto" else workers)
    finally:
        ray.shutdown()


def _called(job: Job) -> Any:
    return job()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Undo what is done to SIGTERM meanwhile."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, before)


# --- a Slurm queue -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _slurm(numbers: Mapping[str, Any]) -> Iterator[_Pool]:
    """Jobs of a Slurm queue by submitit, one for each of ours; their logs stay only where one was lost."""
    import submitit

    cores, cluster = numbers["cores"], numbers["cluster"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    above = cache / "descentlab" / "jobs" if numbers["folder"] == "auto" else Path(numbers["folder"]).expanduser()
    try:
        above.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=above.resolve()))
    except OSError as error:
        raise refusal("hydra.launcher.folder", above, f"cannot be written ({error.strerror})") from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    settings = {"name": "descentlab", "timeout_min": numbers["minutes"], "cpus_per_task": cores}
    if cluster == "slurm":
        settings |= {"slurm_mem": f"{int(1024 * numbers['memory'])}M"}
        settings |= {f"slurm_{key}": numbers[key] for key in ("partition", "account") if numbers[key] != "auto"}
        settings |= {"slurm_setup": [f"export {key}={value}" for key, value in _blas(cores).items()]}
    executor.update_parameters(**settings)
    lost = False

    def start(job: Job) -> _Running:
        with _environment(_blas(cores)):
            submitted = executor.submit(_in_job, job)

        def result() -> Any:
            nonlocal lost
            try:
                return submitted.result()
            except Exception as error:
                lost = True
                raise WorkerLost(
                    f"logs in {folder}: {shown(str(error).strip().rpartition(chr(10))[2], 200)}"
                ) from error

        return _Running(submitted.done, result, submitted.cancel)

    try:
        yield _Pool(start, numbers["workers"])
    finally:
        if not lost:
            shutil.rmtree(folder, ignore_errors=True)


def _in_job(job: Job) -> Any:
    """In a job: SIGTERM ends it as anywhere else; submitit would pass over it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return job()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for what is started meanwhile."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


_POOLS: Mapping[str, Callable[[Mapping[str, Any]], contextlib.AbstractContextManager[_Pool]]] = {
    "local": _local,
    "cluster": _cluster,
    "slurm": _slurm,
}
