"""This machine and its processes: whether one lives, since when, and a child that dies with its parent. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

import psutil

_WATCH_SECONDS = 0.5


def processor() -> str:
    """The processor's name; empty where the system does not tell."""
    return _told("model name", platform.processor)


@cache
def multiplies_in_bf16() -> bool:
    """Whether the processor has units for products of bf16 matrices (AMX), which Linux alone tells."""
    return "amx_bf16" in _told("flags", str).split()


def _told(name: str, otherwise: Callable[[], str]) -> str:
    """What Linux tells of the first processor; `otherwise` on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(name)), "")
    except OSError:
        return otherwise()


@cache
def host_name() -> str:
    """This machine's name in its network, or a container's own: process ids mean nothing under another."""
    return platform.node()


def available_cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def process_start(pid: int) -> float:
    """Start time of a living process, Unix seconds."""
    return float(psutil.Process(pid).create_time())


def process_alive(pid: int | None, started: float | None) -> bool:
    """Whether that very process lives: same id and same start time (within a second, as clocks round)."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError, OverflowError):
        return False


def process_stopped(pid: int | None) -> bool:
    """Whether a process stands still until it is continued: SIGSTOP, Ctrl-Z, a debugger."""
    with contextlib.suppress(ValueError, OverflowError, psutil.Error):
        return pid is not None and psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False


def follow_parent(parent: int) -> None:
    """Ends this process when its parent ends; to be called first, in the main thread.

    parent: its process id, told by itself: a parent that died at once would be taken for whoever came after it.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)
        return

    def watch() -> None:
        started = process_start(parent) if psutil.pid_exists(parent) else None
        while process_alive(parent, started):
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
