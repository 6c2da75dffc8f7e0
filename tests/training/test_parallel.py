"""Several processes train the run that one trains, and lose nothing when one of them is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fork_server
import psutil
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from forks import Fork, forked, wait_until
from kills import differences, events_of
from ranks import ranks, train_by
from small_runs import names_of_events, new_run, quick_settings, train_here
from torch import nn

from llmlab.core.errors import LabError, UsageError
from llmlab.core.processes import host_name, process_stopped
from llmlab.jobs import ranks as jobs_ranks
from llmlab.jobs import worker
from llmlab.jobs.launcher import prepare_resume, request, start_worker
from llmlab.store import checkpoints
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.run_folder import RunFolder
from llmlab.training import parallel
from llmlab.training.loop import Trainer
from llmlab.training.processes import LOST
from llmlab.training.state import load_state, restore

# Of a loss, after 30 steps: its sums are taken in another order, in fp32, and each step adds to what differs.
BOUND = 1e-5
# Six sequences: four processes have one or two; a warm-up begins with one, so that most have none.
SETTINGS = {
    "model__n_layer": 2,
    "model__dropout": 0.0,
    "data__batch_size": 6,
    "data__batch_warmup_steps": 6,
    "checkpoints__interval": 10,
    "train__eval_interval": 10,
    "distributed__strategy": "ddp",
}


def _losses(run: RunFolder) -> list[float]:
    steps = [event[name] for event in events_of(run, "step") for name in ("loss", "grad_norm")]
    return steps + [event[name] for event in events_of(run, "evaluated") for name in ("train_loss", "val_loss")]


@contextlib.contextmanager
def _in_step(number: int, rank: int, does: Callable[[], object], *, behind: bool = False) -> Iterator[None]:
    """A process of that rank does something as it begins that step, or behind it; holds for forks that begin inside."""
    plain = Trainer.optimizer_step

    def step(self: Trainer) -> Any:
        its = self.processes.rank == rank and self.progress.step + 1 == number
        if its and not behind:
            does()
        result = plain(self)
        if its and behind:
            does()
        return result

    with mock.patch.object(Trainer, "optimizer_step", step):
        yield


def _be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_and_four_processes_follow_the_curve_of_one(outputs: Path) -> None:
    alone = train_here(new_run(outputs, 30, "alone", **SETTINGS))
    for strategy, count in (("ddp", 2), ("fsdp2", 2), ("ddp", 4)):
        settings = SETTINGS | {"distributed__strategy": strategy}
        run = train_by(new_run(outputs, 30, f"{strategy}-{count}", **settings), count)
        assert _losses(run) == pytest.approx(_losses(alone), rel=BOUND)
        assert [event["tokens"] for event in events_of(run, "step")] == [
            event["tokens"] for event in events_of(alone, "step")
        ]
        assert events_of(run, "started")[0]["processes"] == count
        shares = events_of(run, "shared")[-1]["busy"]
        assert [event["step"] for event in events_of(run, "shared")] == [20, 30]
        assert len(shares) == count
        assert all(0 < share <= 1 for share in shares)


@pytest.mark.slow
def test_parts_of_a_model_are_gathered_in_bf16_as_the_whole_is_multiplied(outputs: Path) -> None:
    both = []
    for strategy in ("ddp", "fsdp2"):
        settings = SETTINGS | {"distributed__strategy": strategy, "train__precision": "bf16"}
        both.append(_losses(train_by(new_run(outputs, 10, strategy, **settings), 2)))
    assert both[0] == pytest.approx(both[1], rel=BOUND)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_run_killed_and_resumed_on_as_many_processes_is_bitwise_the_same(outputs: Path, strategy: str) -> None:
    """Three: of two numbers the sum has only one order. With dropout, whose masks each process draws for itself."""
    settings = SETTINGS | {"model__dropout": 0.1, "train__grad_accum": 2, "train__sample_interval": 16}
    settings["distributed__strategy"] = strategy
    alone = train_by(new_run(outputs, 16, "alone", **settings), 3)
    run = new_run(outputs, 16, "run", **settings)
    with _in_step(13, 0, _be_killed), ranks(run, 3) as forks:
        assert forks[0].wait() == -signal.SIGKILL
        assert [fork.wait() for fork in forks[1:]] == [1, 1]  # they hear of it at once
    assert run.status().state == "interrupted"
    train_by(run, 3)
    assert differences(alone, run) == []
    assert [event["step"] for event in events_of(run, "started")] == [0, 10]


def test_a_run_is_resumed_on_another_number_of_processes_and_strategy_within_the_bound(outputs: Path) -> None:
    alone = train_here(new_run(outputs, 30, "alone", **SETTINGS))
    run = new_run(outputs, 30, "run", **SETTINGS)
    for strategy, count, step in (("ddp", 2, 12), ("fsdp2", 4, 22)):
        prepare_resume(run, {"distributed.strategy": strategy})
        with _in_step(step, 0, _be_killed), ranks(run, count) as forks:
            assert forks[0].wait() == -signal.SIGKILL
    train_here(run)
    assert _losses(run) == pytest.approx(_losses(alone), rel=BOUND)
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 31))
    told = [sentence for event in events_of(run, "started") for sentence in event["changed"]]
    assert [sentence.partition(";")[0] for sentence in told] == [
        "distributed.strategy: ddp -> fsdp2",
        "The number of processes changed (2 -> 4)",
        "The number of processes changed (4 -> 1)",
    ]


def test_muon_and_averaged_weights_go_on_with_another_number_of_processes(outputs: Path) -> None:
    settings = SETTINGS | {"train__optimizer": "muon", "train__ema_decay": 0.9}
    alone = train_here(new_run(outputs, 30, "alone", **settings))
    run = new_run(outputs, 30, **settings)
    for count, step in ((2, 12), (3, 22)):
        with _in_step(step, 0, _be_killed), ranks(run, count) as forks:
            assert forks[0].wait() == -signal.SIGKILL
    train_here(run)
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 31))
    assert [event["step"] for event in events_of(run, "started")] == [0, 10, 20]
    assert _losses(run) == pytest.approx(_losses(alone), rel=BOUND)
    ended = [load_state(select(each.checkpoints, "final").path) for each in (alone, run)]
    for (name, mine), theirs in zip(ended[0].weights.items(), ended[1].weights.values(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5), name


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_pause_save_sample_inspect_and_stop_work_as_on_one_process(outputs: Path, strategy: str) -> None:
    run = new_run(outputs, 2000, **SETTINGS | {"distributed__strategy": strategy})
    with ranks(run, 2) as forks:
        wait_until(lambda: run.recorded_status().step > 2)
        request(run, "pause")
        wait_until(lambda: run.status().state == "paused")
        request(run, "save")
        request(run, "sample", prompts=["the"])
        request(run, "inspect", question="parameters", values={}, out="parameters-0123456789ab")
        wait_until(lambda: "inspected" in names_of_events(run))
        answer = safetensors.torch.load_file(run.inspections / "parameters-0123456789ab.safetensors")
        norms = answer["parameters/gradient"].square().sum().sqrt()
        assert float(norms) == pytest.approx(min(1.0, events_of(run, "step")[-1]["grad_norm"]), rel=1e-4)
        at = run.recorded_status().step
        assert names_of_events(run)[-4:] == ["paused", "checkpoint_saved", "sampled", "inspected"]
        request(run, "resume")
        wait_until(lambda: run.recorded_status().step > at)
        request(run, "stop")
        assert [fork.wait() for fork in forks] == [0, 0]
    assert (run.status().state, events_of(run, "stopped")[0]["step"]) == ("stopped", run.status().step)


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
        assert [fork.wait(30) for fork in forks] == [1, 1]
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


def test_what_does_not_work_in_parts_of_a_model_is_refused() -> None:
    for key, value in (("optimizer", "muon"), ("ema_decay", 0.9), ("compile", True), ("precision", "fp16")):
        with pytest.raises(UsageError, match=f"train.{key}.* does not work with distributed.strategy=fsdp2"):
            quick_settings(distributed__strategy="fsdp2", **{f"train__{key}": value})


def test_a_process_that_torchrun_ends_hears_why_the_others_gave_up() -> None:
    store, three = dist.HashStore(), [object.__new__(parallel.Several) for _ in range(3)]
    for rank, processes in enumerate(three):
        processes.rank, processes.size, processes._store = rank, 3, store  # type: ignore[assignment]
    assert three[0].given_up() is None
    three[1].say_failed(LOST)  # process 2 says nothing: it is the one that is gone
    assert "Process 2 of the run's 3 was ended from outside" in str(three[0].given_up())
    three[2].say_failed(LOST)
    assert str(three[0].given_up()).startswith("Process 0 of the run's 3 no longer answered, and was ended.")
    three[1].say_failed(LabError("There is no GPU."))
    assert str(three[0].given_up()) == "Process 1 of the run's 3 failed. There is no GPU."


def test_a_run_of_one_process_is_not_trained_by_several(outputs: Path) -> None:
    run = new_run(outputs, 4)
    with ranks(run, 2) as forks:
        assert forks[0].wait() == 1
    assert run.status().error["why"] == "Its distributed.strategy is none."  # type: ignore[index]


def _fail_in_step(run: RunFolder, does: Callable[[], object], codes: tuple[int, int], *, behind: bool = False) -> str:
    """What a run says that ended because rank 1 did that in its step 8, or behind it."""
    with _in_step(8, 1, does, behind=behind), ranks(run, 2) as forks:
        assert tuple(fork.wait(30) for fork in forks) == codes
    assert run.status().state == "failed"
    (failed,) = events_of(run, "failed")
    assert failed["do"] == "Resume the run: it starts from its newest checkpoint."
    return f"{failed['what']} {failed['why']}"


def _hang() -> None:
    threading.Event().wait(6)


def _run_out_of_memory() -> None:
    raise MemoryError


@pytest.mark.slow
def test_a_run_that_loses_a_process_fails_with_its_reason_and_goes_on_where_it_was_saved(outputs: Path) -> None:
    settings = SETTINGS | {"checkpoints__interval": 5, "train__sample_interval": 10, "distributed__timeout": 2}
    alone = train_by(new_run(outputs, 10, "alone", **settings), 2)
    run = new_run(outputs, 10, "run", **settings)
    lost = "A process of this run was lost, and the others cannot go on without it. Process 1 of the run's 2 "
    assert _fail_in_step(run, _be_killed, (1, -signal.SIGKILL)).startswith(f"{lost}was ended from outside")
    run = new_run(outputs, 10, "hangs", **settings)
    assert _fail_in_step(run, _hang, (1, 1)) == f"{lost}did not answer within 2 s (distributed.timeout)."
    run = new_run(outputs, 10, "hangs-behind", **settings)
    assert _fail_in_step(run, _hang, (1, 1), behind=True) == f"{lost}did not answer within 2 s (distributed.timeout)."
    train_by(run, 2)
    assert differences(alone, run) == []
    run = new_run(outputs, 10, "memory", **settings)
    with _in_step(8, 1, _run_out_of_memory), ranks(run, 2) as forks:
        assert [fork.wait(30) for fork in forks] == [1, 1]
    assert events_of(run, "failed")[0]["what"] == "Process 1 of the run's 2 failed. There was not enough memory."


def test_rank_0_is_killed_as_it_saves_or_finds_a_full_disk_and_nothing_saved_is_lost(outputs: Path) -> None:
    settings = SETTINGS | {"checkpoints__interval": 5, "train__sample_interval": 10}
    alone = train_by(new_run(outputs, 10, "alone", **settings), 2)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name, does, state in (("killed", _be_killed, "interrupted"), ("full", full, "failed")):
        run = new_run(outputs, 10, name, **settings)
        plain = checkpoints.write_json

        def write_json(path: Path, *given: Any, does: Any = does, plain: Any = plain, **named: Any) -> None:
            if path.parent.name.startswith(".tmp-step-00000010"):  # the manifest, which comes last
                if isinstance(does, OSError):
                    raise does
                does()
            plain(path, *given, **named)

        with mock.patch.object(checkpoints, "write_json", write_json), ranks(run, 2) as forks:
            assert [fork.wait(30) for fork in forks] == [1 if name == "full" else -signal.SIGKILL, 1]
        assert (run.status().state, [saved.step for saved in list_checkpoints(run.checkpoints)]) == (state, [5])
        train_by(run, 2)
        assert differences(alone, run) == []


def test_a_process_that_is_slow_to_read_a_checkpoint_keeps_no_step_waiting(outputs: Path) -> None:
    run = train_by(new_run(outputs, 5, **SETTINGS | {"distributed__strategy": "fsdp2", "distributed__timeout": 2}), 2)
    prepare_resume(run, {"train.steps": 7})
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
        assert forks[0].wait(30) == 0
    assert run.status().state == "stopped"
    assert list_checkpoints(run.checkpoints)[-1].step == run.status().step


@contextlib.contextmanager
def _at_fault(run: RunFolder, fault: str) -> Iterator[Fork]:
    """The run's worker, which has torchrun start those of faulty_worker.py."""
    command = [sys.executable, str(fork_server.FAULTY)]
    with (
        mock.patch.dict(os.environ, FAULT=fault),
        mock.patch.object(jobs_ranks, "module_command", return_value=command),
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
        assert held.wait(30) == -signal.SIGKILL
        assert ended == {held.pid}
    finally:
        for process in (held, other):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_rank_0_that_saves_or_answers_for_longer_than_anything_took_is_waited_for(outputs: Path) -> None:
    # A step may take as long as that where other processes want the machine, too: faulty_worker.py works for longer.
    settings = SETTINGS | {"checkpoints__interval": 3, "distributed__timeout": 5, "distributed__processes": 2}
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
    psutil.wait_procs(processes, timeout=20)
    assert not any(process.is_running() for process in processes)
    assert run.status().state == "interrupted"
    steps = [event["step"] for event in events_of(run, "step")]
    assert steps == sorted(set(steps))
