"""Whatever a test starts ends with it: every process bears a mark in its environment, by which it is found again.

A child whose parent is gone is nobody's child, so that parents do not lead to it; its environment stays with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable

import psutil

MARK = "LLMLAB_TEST_PROCESS"
# What a process that was already told to end may take; a worker saves before it does.
_SECONDS = 30.0
_GUARD_SECONDS = 0.5


class TestProcesses:
    """The processes that this one starts, and those that they start. Made once, before the first of them."""

    __test__ = False  # no class of tests, in spite of its name

    def __init__(self) -> None:
        self._mark = os.environ[MARK] = uuid.uuid4().hex
        # Ends them when this process is killed before it can.
        command = [sys.executable, __file__, str(os.getpid()), self._mark]
        unmarked = {name: value for name, value in os.environ.items() if name != MARK}
        nothing = subprocess.DEVNULL
        self._guard = subprocess.Popen(command, env=unmarked, stdin=nothing, stdout=nothing, start_new_session=True)

    def known(self) -> set[int]:
        """Ids of all processes of the machine, among which a test's own are not yet."""
        return set(psutil.pids())

    def end_all_but(self, known: set[int]) -> list[str]:
        """Ends what has begun since, with a moment for what is ending anyway; returns what had to be killed."""
        begun = marked(self._mark, set(psutil.pids()) - known)
        _, alive = psutil.wait_procs(begun, timeout=_SECONDS)
        return kill(alive)

    def close(self) -> list[str]:
        """Ends all that are left, with the same moment; returns what had to be killed."""
        left = self.end_all_but({self._guard.pid})
        self._guard.kill()
        self._guard.wait()
        return left


def marked(mark: str, among: set[int]) -> list[psutil.Process]:
    """Processes that live and bear a mark, or are children of this one (a fork's environment is its parent's)."""
    found = []
    for pid in among:
        with contextlib.suppress(psutil.Error, OSError):  # it is gone, or another user's
            process = psutil.Process(pid)
            ours = process.ppid() == os.getpid() or process.environ().get(MARK) == mark
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> list[str]:
    """Kills processes, and only then waits for them: a child stays as long as its parent lives and does not ask for it.
    Returns how each was called, and its command."""
    processes, killed = list(processes), []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            killed.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
            process.kill()
    psutil.wait_procs(processes)
    return killed


def _guard(parent: int, mark: str) -> None:
    """Waits for the end of the process that tests, then ends what it left."""
    while os.getppid() == parent and psutil.pid_exists(parent):  # Sequences never says that a parent is another
        time.sleep(_GUARD_SECONDS)
    kill(marked(mark, set(psutil.pids())))


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2])
