"""Workers made by fork: processes as separate as real ones, without the seconds in which torch is imported.

POSIX only. The test's process must have one torch thread when it forks.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from unittest import mock

import fork_server
from waits import SECONDS

from llmlab.jobs import worker
from llmlab.store import worker_folder
from llmlab.store.run_folder import RunFolder

_POLL_SECONDS = 0.005


class Fork:
    """A child process that runs `work` and ends with what it returns as exit code; answers like subprocess.Popen."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 70  # a traceback: no worker ends so
            try:
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None while it lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end and returns the exit code; subprocess.TimeoutExpired when that takes too long."""
        seconds = SECONDS if timeout is None else timeout
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", seconds)
            time.sleep(_POLL_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)


def start_fork(run: RunFolder) -> Fork:
    """A worker on `run`, as `start_worker` starts one."""
    return Fork(lambda: work_on(run))


def work_on(
    run: RunFolder, *, lock_seconds: float = 0.5, largest_file: int | None = None, starts_others: bool = False
) -> int:
    """What a worker process does, its output in worker.log. largest_file: RLIMIT_FSIZE, in bytes. starts_others: which
    are copies of this one, where tests/fork_server.py serves them."""
    if starts_others:
        fork_server.serve_copies()
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # instead of pytest's own
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    with (
        mock.patch.object(worker, "peak_flops", return_value=1e11),
        mock.patch.object(worker_folder, "_LOCK_SECONDS", lock_seconds),
    ):
        return worker.main([str(run.path)])


@contextlib.contextmanager
def forked(run: RunFolder, **how: float) -> Iterator[Fork]:
    """A worker on `run`; killed when the block is left."""
    fork = Fork(lambda: work_on(run, **how))
    try:
        yield fork
    finally:
        fork.kill()


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for something that another process or thread does; AssertionError when it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(_POLL_SECONDS)
