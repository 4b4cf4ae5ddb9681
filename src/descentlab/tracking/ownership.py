"""The process that trains a run: tags with host, process and heartbeat, by which others see whether it is alive.

One process at a time trains a key (the hash of a configuration and the digest of its data). It looks for a finished or
running run of the key and creates its own under the lock beside an SQLite store. A server has no such lock: two
processes that start at the same moment may train the same key, and the earlier run counts.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

BEAT_SECONDS = 30.0
MISSED_BEATS = 5  # after this many without a heartbeat a run is given up, on whichever host it was trained


def owner() -> dict[str, str]:
    """Tags that name this process and say that it is alive."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "process_start": _process_start(os.getpid()),
        "heartbeat": beat(),
    }


def beat() -> str:
    """Now, as the tag `heartbeat`."""
    return f"{time.time():.0f}"


def given_up(tags: Mapping[str, str], began: float) -> str:
    """Why a run that is marked as running has lost its process; "" where it may be alive.

    Args:
        tags: of the run.
        began: seconds since 1970; counts as the heartbeat of a run without one.
    """
    pid = tags.get("pid", "")
    if tags.get("host") == socket.gethostname() and pid.isdigit():
        place, _, ticks = tags.get("process_start", "").rpartition("/")
        here, _, now = _process_start(int(pid)).rpartition("/")
        if here and place == here and now != ticks:  # the same boot and the same table of processes
            return f"its process {pid} is gone"
    last = float(tags.get("heartbeat", began))
    if time.time() - last > MISSED_BEATS * BEAT_SECONDS:
        return f"no heartbeat since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(last))}"
    return ""


def holder(tags: Mapping[str, str], began: float) -> str:
    """The process that trains a run, for people."""
    since = time.strftime("%H:%M:%S", time.localtime(began))
    user, pid, host = (tags.get(key, "unknown") for key in ("mlflow.user", "pid", "host"))
    return f"{user} (process {pid} on {host}, since {since})"


def _process_start(pid: int) -> str:
    """Identifies a process among all with its number: boot/process table/start; "" where that is not known.

    The start is empty for a process that does not exist.
    """
    if sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        table = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return f"{boot}/{table}/"
    return f"{boot}/{table}/" + ("" if fields[0] in "ZX" else fields[19])
