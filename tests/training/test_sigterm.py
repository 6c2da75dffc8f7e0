"""SIGTERM or Ctrl-C ends a worker within a bounded time, however long its step takes, and what it says then is true."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from forks import Fork, forked, wait_until
from kills import differences, events_of
from small_runs import all_events, in_step, train_here

from llmlab.jobs import worker, worker_process
from llmlab.store import recorder as module
from llmlab.store.checkpoints import select
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder
from llmlab.training.loop import Trainer

STEPS = 12  # checkpoints at 5, 10, 12
SETTINGS = {"train__sample_interval": 6}
LONG = 8  # the step that takes long


def _hang_in_python() -> None:
    threading.Event().wait()


def _hang_in_c() -> None:
    """As in a call into a library: Python's own signal handlers do not run until it returns, which it never does."""
    mutex = ctypes.create_string_buffer(64)  # zeros are an unlocked mutex of glibc
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


@contextlib.contextmanager
def _in_a_long_step(run: RunFolder, hang: Callable[[], object], patience: float) -> Iterator[Fork]:
    """A worker in its step LONG, which takes as long as `hang` does. patience: seconds that SIGTERM gives it."""

    def hangs() -> None:
        (run.path / "hangs").touch()
        hang()

    with (
        in_step(LONG, hangs),
        mock.patch.object(worker, "SIGTERM_SECONDS", patience),
        forked(run) as fork,
    ):
        wait_until((run.path / "hangs").exists)
        yield fork


@pytest.mark.parametrize("hang", [_hang_in_python, _hang_in_c])
def test_a_step_that_does_not_end_is_not_waited_for_and_what_is_lost_is_said(
    run: RunFolder, alone: RunFolder, hang: Callable[[], object]
) -> None:
    with _in_a_long_step(run, hang, patience=0.2) as fork:
        fork.terminate()
        assert fork.wait() == 0
    assert (run.status().state, run.status().step) == ("stopped", LONG - 1)
    (stopped,) = events_of(run, "stopped")
    assert (stopped["step"], stopped["checkpoint"]) == (LONG - 1, "step-00000005")
    (warning,) = events_of(run, "warned")
    assert "what it learned after step 5 is not saved" in warning["message"]
    train_here(run)
    assert differences(alone, run) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_ends_in_time_is_saved_though_torchrun_tells_the_signal_again(
    run: RunFolder, alone: RunFolder, number: int
) -> None:
    go = run.path / "go"
    with (
        mock.patch.object(worker_process, "_SAME_SECONDS", 600.0),
        _in_a_long_step(run, lambda: wait_until(go.exists), patience=600) as fork,
    ):
        os.kill(fork.pid, number)
        wait_until(lambda: run.status().state == "stopping")
        os.kill(fork.pid, number)
        time.sleep(3 * worker_process._LISTEN_SECONDS)
        go.touch()
        assert fork.wait() == 0
    assert (run.status().state, select(run.checkpoints).step) == ("stopped", LONG)
    assert events_of(run, "warned") == []
    train_here(run)
    assert differences(alone, run) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(run: RunFolder, number: int) -> None:
    with (
        mock.patch.object(worker_process, "_SAME_SECONDS", 0.0),
        _in_a_long_step(run, _hang_in_c, patience=600) as fork,
    ):
        os.kill(fork.pid, number)
        wait_until(lambda: run.status().state == "stopping")
        os.kill(fork.pid, number)
        assert fork.wait() == 0
    assert run.status().state == "stopped"
    assert all_events(run)[-1]["event"] == "stopped"


def test_a_save_that_takes_long_is_waited_for(run: RunFolder) -> None:
    plain = Trainer.save_weights

    def save_weights(self: Trainer, folder: Path) -> None:
        (run.path / "hangs").touch()
        wait_until((run.path / "go").exists)
        plain(self, folder)

    with (
        mock.patch.object(Trainer, "save_weights", save_weights),
        mock.patch.object(worker, "SIGTERM_SECONDS", 0.0),
        forked(run) as fork,
    ):
        wait_until((run.path / "hangs").exists)
        fork.terminate()
        wait_until(lambda: run.status().state == "stopping")
        time.sleep(3 * worker_process._LISTEN_SECONDS)  # it takes longer than the worker looks away
        (run.path / "go").touch()
        assert fork.wait() == 0
    assert run.status().state == "stopped"
    assert select(run.checkpoints).step == 4  # the best so far, which is what it was saving


def test_a_write_that_does_not_end_is_not_written_over(run: RunFolder) -> None:
    recorder, begun, go = Recorder(run), threading.Event(), threading.Event()
    recorder.update()
    plain = RunFolder.write_status

    def write(self: RunFolder, status: Any) -> None:
        begun.set()
        assert go.wait(60)
        plain(self, status)

    with (
        mock.patch.object(RunFolder, "write_status", write),
        mock.patch.object(module, "_SEIZE_SECONDS", 0.05),
        ThreadPoolExecutor(1) as pool,
    ):
        writing = pool.submit(recorder.update, step=3)
        assert begun.wait(60)
        assert not recorder.seize()
        go.set()
        writing.result()
        assert recorder.seize()
    recorder.close()


def test_before_the_first_step_nothing_is_lost(run: RunFolder) -> None:
    def load(*_: Any) -> None:
        (run.path / "hangs").touch()
        _hang_in_c()

    with (
        mock.patch("llmlab.data.dataset.load_dataset", load),
        mock.patch.object(worker, "SIGTERM_SECONDS", 0.0),
        forked(run) as fork,
    ):
        wait_until((run.path / "hangs").exists)
        fork.terminate()
        assert fork.wait() == 0
    assert run.status().state == "stopped"
    train_here(run)
    assert run.status().state == "finished"
