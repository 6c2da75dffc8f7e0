"""A worker that is stopped or hangs is shown as silent, with since when; one that takes its time is not."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from fakes import FakeRun
from forks import forked, wait_until
from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.store import recorder as module
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder


def test_a_stopped_worker_is_silent_until_it_is_continued(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run(outputs, 10**6, train__eval_interval=0, checkpoints__interval=10**6)
    with forked(run) as worker:
        wait_until(lambda: run.status().step > 0)
        assert run.status().silent_since is None
        os.kill(worker.pid, signal.SIGSTOP)
        wait_until(lambda: run.status().silent_since is not None)
        status = run.status()
        assert status.state == "running"
        assert status.silent_since == run.recorded_status().heartbeat
        assert run.recorded_status().silent_since is None
        at = time.strftime("%H:%M:%S", time.localtime(status.silent_since))
        for words in (["runs"], ["show", "run"]):
            assert main([*words, "--outputs", str(outputs)]) == 0
            assert f"running, silent since {at}" in capsys.readouterr().out
        os.kill(worker.pid, signal.SIGCONT)
        wait_until(lambda: run.status().silent_since is None)


@pytest.mark.parametrize(
    ("state", "quiet", "patience", "silent"),
    [
        ("running", 500, 120, True),
        ("stopping", 500, 120, True),
        ("running", 500, 600, False),  # its steps take minutes
        ("running", 500, 0, False),  # of an earlier version, which does not say
        ("paused", 500, 120, False),
        ("finished", 500, 120, False),
    ],
)
def test_a_worker_that_is_quiet_beyond_its_patience_is_silent(
    tmp_path: Path, state: str, quiet: float, patience: float, silent: bool
) -> None:
    run = FakeRun(tmp_path).start().advance(3).run
    heartbeat = time.time() - quiet
    run.write_status(replace(run.recorded_status(), state=state, heartbeat=heartbeat, patience=patience))
    assert run.status().silent_since == (heartbeat if silent else None)
    assert run.status().state == state


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_patience_is_ten_times_what_took_longest_since_the_first_step(tmp_path: Path, clock: _Clock) -> None:
    recorder = Recorder(RunFolder(tmp_path))

    def after(seconds: float, expected: float = 0.0) -> float:
        clock.now += seconds
        recorder.beat(expected)
        return recorder.status.patience

    recorder.begin(-1, 0)
    assert recorder.status.patience == 600
    clock.now += 300
    recorder.prepare("Reading a long text")
    assert recorder.status.patience == 600
    assert after(1) == 120  # the least; what was read is read
    assert after(30) == 300
    assert after(1) == 300
    assert after(1, expected=90) == 900  # an evaluation of the worker before this one
    recorder.update(state="paused")
    clock.now += 86_400
    recorder.update(state="running")
    assert after(1) == 300


def test_every_step_is_a_sign_of_life_though_few_are_logged(outputs: Path) -> None:
    beats: list[float] = []
    with mock.patch.object(Recorder, "beat", lambda self, expected: beats.append(expected)):
        train_here(new_run(outputs, 7, train__log_interval=100))
    assert len(beats) == 7
