"""A run of several processes loses nothing when one of them is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from forks import wait_until
from kills import differences, events_of
from ranks import SETTINGS, be_killed, ranks, train_by
from small_runs import in_step, new_run, train_here
from torch import nn

from llmlab.core.errors import LabError
from llmlab.core.processes import host_name, process_stopped
from llmlab.jobs import ranks as jobs_ranks
from llmlab.jobs import worker
from llmlab.jobs.launcher import prepare_resume, request
from llmlab.store import checkpoints
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.run_folder import RunFolder
from llmlab.training import parallel
from llmlab.training.processes import LOST
from llmlab.training.state import load_state, restore

STEPS = 10
SAVING = SETTINGS | {"checkpoints__interval": 5, "train__sample_interval": 10}


def test_a_process_that_torchrun_ends_hears_why_the_others_gave_up() -> None:
    store, three = dist.HashStore(), [object.__new__(parallel.Several) for _ in range(3)]
    for rank, processes in enumerate(three):
        processes.rank, processes.size, processes._store = rank, 3, store
    assert three[0].given_up() is None
    three[1].say_failed(LOST)  # process 2 says nothing: it is the one that is gone
    assert "Process 2 of the run's 3 was ended from outside" in str(three[0].given_up())
    three[2].say_failed(LOST)
    assert str(three[0].given_up()).startswith("Process 0 of the run's 3 no longer answered, and was ended.")
    three[1].say_failed(LabError("There is no GPU."))
    assert str(three[0].given_up()) == "Process 1 of the run's 3 failed. There is no GPU."


@pytest.mark.slow
def test_a_run_whose_rank_0_runs_out_of_memory_as_it_collects_the_model_ends_with_a_sentence(outputs: Path) -> None:
    run = new_run(outputs, 2000, **SETTINGS | {"distributed__strategy": "fsdp2", "checkpoints__interval": 0})
    plain = parallel.Sharded.whole

    def whole(self: parallel.Sharded, tensors: Any) -> Any:
        if self.rank == 0:
            raise MemoryError
        return plain(self, tensors)

    with mock.patch.object(parallel.Sharded, "whole", whole), ranks(run, 2) as forks:
        wait_until(lambda: run.recorded_status().step > 2)
        request(run, "inspect", question="parameters", values={}, out="parameters-0123456789ab")
        assert [fork.wait() for fork in forks] == [1, 1]
    assert run.status().state == "failed"
    assert events_of(run, "failed")[0]["what"] == "There was not enough memory."


def test_a_connection_that_is_lost_while_a_state_is_taken_is_no_state_that_does_not_fit(outputs: Path) -> None:
    run = train_here(new_run(outputs, 2))
    state = load_state(select(run.checkpoints, "final").path)
    model = nn.Linear(2, 2)
    for error in (RuntimeError("[gloo] Connection closed by peer"), MemoryError()):
        state.optimizer = {"weight": {"exp_avg": torch.zeros(2, 2)}}
        with mock.patch("llmlab.training.state._as_held", side_effect=error), pytest.raises(type(error)):
            restore(state, model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False))


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of two processes that nobody disturbed."""
    return train_by(new_run(tmp_path_factory.mktemp("by-two"), STEPS, "alone", **SAVING), 2)


def _fail_in_step(run: RunFolder, does: Callable[[], object], codes: tuple[int, int], *, behind: bool = False) -> str:
    """What a run says that ended because rank 1 did that in its step 8, or behind it."""
    with in_step(8, does, rank=1, behind=behind), ranks(run, 2) as forks:
        assert tuple(fork.wait() for fork in forks) == codes
    assert run.status().state == "failed"
    (failed,) = events_of(run, "failed")
    assert failed["do"] == "Resume the run: it starts from its newest checkpoint."
    return f"{failed['what']} {failed['why']}"


def _run_out_of_memory() -> None:
    raise MemoryError


@pytest.mark.slow
def test_a_run_that_loses_a_process_fails_with_its_reason_and_goes_on_where_it_was_saved(
    outputs: Path, by_two: RunFolder
) -> None:
    lost = "A process of this run was lost, and the others cannot go on without it. Process 1 of the run's 2 "
    run = new_run(outputs, STEPS, "killed", **SAVING)
    assert _fail_in_step(run, be_killed, (1, -signal.SIGKILL)).startswith(f"{lost}was ended from outside")
    for behind in (False, True):
        run = new_run(outputs, STEPS, f"hangs-{behind}", **SAVING, distributed__timeout=2)
        hangs = partial(wait_until, lambda run=run: run.recorded_status().state == "failed")
        said = _fail_in_step(run, hangs, (1, 1), behind=behind)
        assert said == f"{lost}did not answer within 2 s (distributed.timeout)."
    train_by(run, 2)
    assert differences(by_two, run) == []
    run = new_run(outputs, STEPS, "memory", **SAVING)
    with in_step(8, _run_out_of_memory, rank=1), ranks(run, 2) as forks:
        assert [fork.wait() for fork in forks] == [1, 1]
    assert events_of(run, "failed")[0]["what"] == "Process 1 of the run's 2 failed. There was not enough memory."


@pytest.mark.slow
def test_rank_0_is_killed_as_it_saves_or_finds_a_full_disk_and_nothing_saved_is_lost(
    outputs: Path, by_two: RunFolder
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name, does, state in (("killed", be_killed, "interrupted"), ("full", full, "failed")):
        run = new_run(outputs, STEPS, name, **SAVING)
        plain = checkpoints.write_json

        def write_json(path: Path, *given: Any, does: Any = does, plain: Any = plain, **named: Any) -> None:
            if path.parent.name.startswith(".tmp-step-00000010"):  # the manifest, which comes last
                if isinstance(does, OSError):
                    raise does
                does()
            plain(path, *given, **named)

        with mock.patch.object(checkpoints, "write_json", write_json), ranks(run, 2) as forks:
            assert [fork.wait() for fork in forks] == [1 if name == "full" else -signal.SIGKILL, 1]
        assert (run.status().state, [saved.step for saved in list_checkpoints(run.checkpoints)]) == (state, [5])
        train_by(run, 2)
        assert differences(by_two, run) == []


@pytest.mark.slow
def test_a_process_that_is_slow_to_read_a_checkpoint_keeps_no_step_waiting(outputs: Path) -> None:
    run = train_here(new_run(outputs, 5, **SETTINGS | {"distributed__strategy": "none"}))
    prepare_resume(run, {"train.steps": 7, "distributed.strategy": "fsdp2", "distributed.timeout": 3})
    plain = worker.load_state

    def load_state(folder: Path) -> Any:
        threading.Event().wait(4 * int(os.environ["RANK"]))
        return plain(folder)

    with mock.patch.object(worker, "load_state", load_state):
        train_by(run, 2)
    assert run.status().state == "finished"


def test_what_was_learned_is_saved_though_another_process_is_lost_in_a_pause(outputs: Path) -> None:
    run = new_run(outputs, 2000, **SETTINGS)
    with ranks(run, 2) as forks:
        wait_until(lambda: run.recorded_status().step > 2)
        request(run, "pause")
        wait_until(lambda: run.status().state == "paused")
        forks[1].kill()
        forks[0].terminate()  # as torchrun does then
        assert forks[0].wait() == 0
    assert run.status().state == "stopped"
    assert list_checkpoints(run.checkpoints)[-1].step == run.status().step


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGSTOP")
def test_a_rank_0_that_the_system_holds_is_not_waited_for(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, looks = new_run(outputs), [0]
    rank_0 = subprocess.Popen(["sleep", "600"])
    here = {"host": host_name(), "pid": rank_0.pid, "heartbeat": time.time(), "patience": 1e6}
    run.write_status(replace(run.recorded_status(), state="running", **here))

    def look(seconds: float) -> None:
        looks[0] += 1
        if looks[0] == 100:
            rank_0.send_signal(signal.SIGSTOP)
            wait_until(lambda: process_stopped(rank_0.pid))

    def here_and_now(target: Callable[[], None], daemon: bool) -> Any:
        return SimpleNamespace(start=target)

    monkeypatch.setattr(jobs_ranks, "time", SimpleNamespace(sleep=look))
    monkeypatch.setattr(jobs_ranks, "os", SimpleNamespace(_exit=sys.exit))
    monkeypatch.setattr(jobs_ranks, "threading", SimpleNamespace(Thread=here_and_now))
    try:
        with pytest.raises(SystemExit, match="1"):
            jobs_ranks.follow_rank_0(run, 5.0, lambda: None)
    finally:
        rank_0.kill()
        rank_0.wait()
    assert looks[0] == 100 + 5  # one a second; in a hundred before, nothing was amiss


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGSTOP")
def test_a_process_that_the_system_holds_is_killed_once_another_has_ended_and_not_before(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, looks, over = new_run(outputs), [0], threading.Event()
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(run.path)]
    held, other = [subprocess.Popen(command) for _ in range(2)]
    try:
        held.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_stopped(held.pid))

        def look(seconds: float) -> bool:
            looks[0] += 1
            if looks[0] == 20:
                assert process_stopped(held.pid)
                other.kill()
                other.wait()
            return looks[0] > 30

        monkeypatch.setattr(over, "wait", look)
        jobs_ranks._end_what_is_held(run, 2, over, ended := set())
        assert held.wait() == -signal.SIGKILL
        assert ended == {held.pid}
    finally:
        for process in (held, other):
            process.kill()
            process.wait()
