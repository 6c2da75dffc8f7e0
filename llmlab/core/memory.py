"""Checks that a model fits into memory before it is loaded, and frees memory after one is closed."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from llmlab.core.errors import LabError

# What loading itself and the first forward pass take besides the weights.
_SLACK_BYTES = 256 << 20
# A container's own limit, what it uses, and the list that says how much of that are files which it can drop
# (Linux kernel, admin-guide/cgroup-v2, then cgroup-v1/memory).
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def available_bytes() -> int:
    """Memory that this process can still take without pushing others out, within its container's limit."""
    available = int(psutil.virtual_memory().available)
    for limit, used, about in _GROUPS:
        with suppress(OSError, ValueError):  # no container, or one without a limit
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
            available = min(available, left + _droppable(Path(about)))
    return max(0, available)


def _droppable(about: Path) -> int:
    """Files that were read often (active) are dropped as well when memory is needed: MemAvailable counts both."""
    found = {name: value for name, _, value in (line.partition(" ") for line in about.read_text().splitlines())}
    kinds = ("active_file", "inactive_file")
    return sum(int(found.get(f"total_{kind}", found.get(kind, 0))) for kind in kinds)  # total_: with groups below it


class NoMemory(LabError):
    """A model does not fit into memory."""


def require_memory(weights: int, name: str) -> None:
    """NoMemory when `weights` bytes of weights do not fit."""
    available = available_bytes()
    if weights + _SLACK_BYTES > available:
        raise NoMemory(
            f"{name} does not fit into memory.",
            f"Its weights take {gigabytes(weights)}; {gigabytes(available)} are free.",
            "Close other programs, or open a smaller model.",
        )


def ran_out(name: str) -> NoMemory:
    """What to say when memory ran out in spite of the estimate."""
    return NoMemory(
        f"Memory ran out while {name} was opened.",
        f"{gigabytes(available_bytes())} are free now.",
        "Close other programs, or open a smaller model.",
    )


def gigabytes(count: float) -> str:
    """`0.54 GB`."""
    return f"{count / 1e9:,.2f} GB"


def give_back() -> None:
    """After a model was dropped: collects cycles, and returns what the allocator keeps to the system (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
