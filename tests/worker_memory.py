"""The most memory that a worker held."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil


def peak_bytes(worker: subprocess.Popen[bytes]) -> int:
    """Waits for its end: the most that it held, with its children's."""
    return sum(watched(worker)[0].values())


def watched(worker: subprocess.Popen[bytes]) -> tuple[dict[int, int], list[tuple[float, float]]]:
    """The most bytes that a worker held until it ended (VmHWM), and each of its children, by process id; and the
    processor time of all of them as time went on, seconds."""
    peaks: dict[int, int] = {}
    clock, process = [(time.time(), 0.0)], psutil.Process(worker.pid)
    while worker.poll() is None:
        with contextlib.suppress(psutil.Error, OSError):  # it ends between two looks
            spent = 0.0
            for each in (process, *process.children(recursive=True)):
                for line in Path(f"/proc/{each.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM"):
                        # The latest: a child that is not yet what it will run has its parent's memory.
                        peaks[each.pid] = int(line.split()[1]) * 1024
                used = each.cpu_times()
                spent += used.user + used.system
            clock.append((time.time(), spent))
        time.sleep(0.05)
    return peaks, clock
