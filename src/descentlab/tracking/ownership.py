"""Whose a run is. One that is being trained carries host, process and heartbeat, so that others see whether it lives.

A key, the hash of a configuration and the digest of its data, is trained by one process at a time: who wants it looks
for a finished or a living run of it and creates its own under the lock that lies beside an sqlite store. A server has
no such lock; there two may train the same key when they start within the same moment, and the earlier run counts.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

BEAT_SECONDS = 30.0
MISSED_BEATS = 5  # without a sign of life for so many, a run is given up wherever it was trained


def owner() -> dict[str, str]:
    """Tags that say which process trains a run, and that it lives."""
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
    """Why a run that is marked as running cannot be alive any more; "" where it may be.

    Args:
        tags: of the run.
        began: seconds since 1970, the last sign of life of a run without a heartbeat.
    """
    pid = tags.get("pid", "")
    if tags.get("host") == socket.gethostname() and pid.isdigit():
        place, _, ticks = tags.get("process_start", "").rpartition("/")
        here, _, now = _process_start(int(pid)).rpartition("/")
        if here and place == here and now != ticks:  # the same boot and the same table of processes
            return f"its process {pid} is gone"
    last = float(tags.get("heartbeat", began))
    if time.time() - last > MISSED_BEATS * BEAT_SECONDS:
        return f"no sign of life since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(last))}"
    return ""


def holder(tags: Mapping[str, str], began: float) -> str:
    """Who trains a run, for people."""
    since = time.strftime("%H:%M:%S", time.localtime(began))
    user, pid, host = (tags.get(key, "unknown") for key in ("mlflow.user", "pid", "host"))
    return f"{user} (process {pid} on {host}, since {since})"


def _process_start(pid: int) -> str:
    """A process told apart from later ones with its number: boot/table of processes/start; "" where not known.

    The start is empty for a process that is not there.
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
