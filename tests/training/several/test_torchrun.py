"""What torchrun's agent starts for a run ends with it, and the run says why."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import fork_server
import psutil
import pytest
from forks import Fork, forked, wait_until
from kills import events_of
from ranks import SETTINGS
from small_runs import names_of_events, new_run
from waits import SECONDS

from llmlab.jobs import ranks as jobs_ranks
from llmlab.jobs.launcher import request, start_worker
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder


@contextlib.contextmanager
def _at_fault(run: RunFolder, fault: str) -> Iterator[Fork]:
    """The run's worker, which has torchrun start those of faulty_worker.py."""
    command = [sys.executable, str(fork_server.FAULTY)]
    with (
        mock.patch.dict(os.environ, FAULT=fault),
        mock.patch.object(jobs_ranks, "module_command", return_value=command),
        # As long as theirs hear a SIGTERM: torchrun tells whole seconds, and so up to one less than it was.
        mock.patch.object(jobs_ranks, "_STOPPED_SECONDS", 1.0),
        forked(run, starts_others=True) as fork,
    ):
        yield fork


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("no device", "Process 1 of the run's 2 failed. There is no GPU for process 1."),
        ("hangs", "Process 0 of the run's 2 no longer answered, and was ended."),
        ("hangs between steps", "Process 0 of the run's 2 no longer answered, and was ended."),
    ],
)
def test_a_run_that_torchrun_ends_has_failed_for_the_reason_and_was_not_stopped(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, what: str
) -> None:
    (files := tmp_path / "files").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    run = new_run(outputs, 20, **SETTINGS, distributed__timeout=2, distributed__processes=2)
    with _at_fault(run, fault) as fork:
        assert fork.wait() == 1, run.log.read_text()
    assert run.status().state == "failed", run.log.read_text()
    aborted = "Process 0 of the run's 2 was killed (SIGABRT)."  # by gloo, when process 1 leaves it: a race of its own
    (failure,) = events_of(run, "failed")
    assert failure["what"] == what or ("hangs" in fault and failure["what"] == aborted)
    assert list(files.glob("*elastic*")) == []


@pytest.mark.slow
def test_rank_0_that_saves_or_answers_for_longer_than_anything_took_is_waited_for(outputs: Path) -> None:
    # A step may take as long as that where other processes want the machine, too: faulty_worker.py works for longer.
    settings = SETTINGS | {"checkpoints__interval": 3, "distributed__timeout": 2, "distributed__processes": 2}
    run = new_run(outputs, 5, **settings)
    request(run, "inspect", question="parameters", values={}, out="parameters-0123456789ab")
    with _at_fault(run, "works for long") as fork:
        assert fork.wait() == 0, run.log.read_text()
    assert (run.status().state, run.status().doing) == ("finished", "")
    assert "inspected" in names_of_events(run)


@pytest.mark.slow
def test_a_run_whose_rank_0_is_asked_to_stop_in_a_step_that_does_not_end_was_stopped(outputs: Path) -> None:
    run = new_run(outputs, 20, **SETTINGS, distributed__processes=2)
    with _at_fault(run, "hangs") as fork:
        wait_until(lambda: run.events.exists() and len(events_of(run, "step")) == 7)
        os.kill(run.status().pid or 0, signal.SIGTERM)
        assert fork.wait() == 0
    assert (run.status().state, names_of_events(run)[-1]) == ("stopped", "stopped")


@pytest.mark.slow
def test_the_launcher_starts_all_processes_and_none_outlives_torchrun(outputs: Path) -> None:
    run = new_run(outputs, 5000, **SETTINGS, distributed__processes=2)
    launched = start_worker(run)
    wait_until(lambda: run.recorded_status().step > 2)
    launched.terminate()
    assert launched.wait() == 0
    assert run.status().state == "stopped"
    at = events_of(run, "stopped")[0]["step"]
    assert list_checkpoints(run.checkpoints)[-1].step == at
    launched = start_worker(run)
    wait_until(lambda: run.recorded_status().step > at + 2)
    os.kill(run.status().pid or 0, signal.SIGKILL)  # rank 0
    assert launched.wait() == 1
    assert run.status().state == "failed"
    assert events_of(run, "failed")[0]["what"] == "Process 0 of the run's 2 was killed (SIGKILL)."
    assert f"run is stopped: step {at} of 5000, loss " in run.log.read_text()  # for whoever starts torchrun by hand
    launched = start_worker(run)
    wait_until(lambda: run.recorded_status().attempt == 3 and run.recorded_status().step > 2)
    processes = psutil.Process(launched.pid).children()
    assert len(processes) >= 2  # and perhaps one that makes copies of itself for this test (tests/fork_server.py)
    launched.kill()
    psutil.wait_procs(processes, timeout=SECONDS)
    assert not any(process.is_running() for process in processes)
    assert run.status().state == "interrupted"
    steps = [event["step"] for event in events_of(run, "step")]
    assert steps == sorted(set(steps))
