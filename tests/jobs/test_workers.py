"""One run has one worker; who it is, and whether it lives, is known whatever happened to it."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from forks import Fork, forked, wait_until, work_on
from kills import differences, events_of
from small_runs import all_events, in_step, new_run, same_weights, train_here

from llmlab.core import processes
from llmlab.core.errors import LabError
from llmlab.core.processes import process_alive, process_start
from llmlab.data.dataset import load_dataset
from llmlab.jobs import worker, worker_process
from llmlab.jobs.launcher import request, start_worker
from llmlab.notebook.predictions import parse_prediction
from llmlab.store import requests
from llmlab.store import run_folder as folder
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.training.loop import Trainer


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed."""
    return train_here(new_run(tmp_path_factory.mktemp("alone"), train__sample_interval=6))


@pytest.fixture
def run(outputs: Path) -> RunFolder:
    """The same run, not begun."""
    return new_run(outputs, train__sample_interval=6)


@contextlib.contextmanager
def _paused(run: RunFolder) -> Iterator[Fork]:
    """A worker on `run` that waits before its first step."""
    requests.send(run.requests, "pause")
    with forked(run) as worker:
        wait_until(lambda: run.status().state == "paused" and run.events.read_bytes().count(b'{"event": "paused"') == 1)
        yield worker


def test_a_second_worker_is_refused_and_the_first_is_undisturbed(run: RunFolder, alone: RunFolder) -> None:
    with _paused(run) as first:
        before = run.events.read_bytes(), run.status_json.read_bytes()
        assert Fork(lambda: work_on(run, lock_seconds=0.1)).wait() == 3
        assert "Another worker holds this run." in run.log.read_text()
        assert (run.events.read_bytes(), run.status_json.read_bytes()) == before
        with pytest.raises(LabError, match=f"already being trained.*Process {first.pid}"):
            start_worker(run)
        request(run, "resume")
        assert first.wait() == 0
    assert differences(alone, run) == []
    assert len(events_of(run, "started")) == 1


def test_two_workers_that_start_at_once_train_the_run_once(run: RunFolder, alone: RunFolder) -> None:
    with forked(run, lock_seconds=0.05) as first, forked(run, lock_seconds=0.05) as second:
        assert sorted([first.wait(), second.wait()]) in ([0, 3], [0, 0])  # the second may come when all is done
    assert same_weights(alone, run)
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 13))


def test_files_that_killed_writers_left_are_cleared_when_a_worker_begins(run: RunFolder) -> None:
    litter = [run.path / ".tmp-status.json-0a1b2c3d", run.requests / ".tmp-1.json-0a1b2c3d"]
    run.inspections.mkdir(exist_ok=True)
    litter.append(run.inspections / ".tmp-inspect-0a1b2c3d4e5f.safetensors-0a1b2c3d")
    for path in litter:
        path.write_text('{"state": "runn')
        os.utime(path, (time.time() - 100, time.time() - 100))
    young = run.path / ".tmp-run.json-4e5f6a7b"  # someone may be writing it
    young.write_text("{")
    train_here(run)
    assert [path for path in (*litter, young) if path.exists()] == [young]


def test_a_lock_left_by_a_killed_worker_holds_nobody_up(run: RunFolder, alone: RunFolder) -> None:
    with _paused(run) as first:
        first.kill()
    assert run.lock.exists()
    assert Fork(lambda: work_on(run, lock_seconds=0.1)).wait() == 0
    assert differences(alone, run) == []


def test_a_worker_that_is_gone_leaves_an_interrupted_run(run: RunFolder) -> None:
    with _paused(run) as first:
        assert run.status().live
        first.kill()
    assert run.recorded_status().state == "paused"
    assert run.status().state == "interrupted"
    with pytest.raises(LabError, match=r"is not running \(it is interrupted"):
        request(run, "resume")


def test_a_process_id_that_someone_else_has_now_is_not_the_worker(run: RunFolder) -> None:
    mine = os.getpid()
    run.write_status(RunStatus(state="running", pid=mine, pid_start=process_start(mine)))
    assert run.status().state == "running"
    run.write_status(RunStatus(state="running", pid=mine, pid_start=process_start(mine) - 5))
    assert run.status().state == "interrupted"


def test_a_worker_lives_on_for_those_who_look_after_the_system_clock_was_set(run: RunFolder) -> None:
    with _paused(run) as first:
        plain = process_start(first.pid)
        with mock.patch.object(processes.psutil.Process, "create_time", return_value=plain - 3600):
            assert run.status().state == "paused"
            with pytest.raises(LabError, match="already being trained"):
                start_worker(run)
            request(run, "resume")
        assert first.wait() == 0
        with mock.patch.object(processes.psutil.Process, "create_time", return_value=plain - 3600):
            run.write_status(dataclasses.replace(run.recorded_status(), state="running", pid=os.getpid()))
            assert run.status().state == "interrupted"  # the id is someone else's now, and nobody holds the lock


@pytest.mark.parametrize(("pid", "start"), [(None, 1.0), (1, None), (-1, 0.0), (0, 0.0), (2**31, 0.0), (10**30, 0.0)])
def test_a_process_that_cannot_be_does_not_live(pid: int | None, start: float | None) -> None:
    assert not process_alive(pid, start)


def test_a_process_that_ended_and_was_not_waited_for_does_not_live() -> None:
    child = Fork(lambda: 0)
    started = process_start(child.pid)
    wait_until(lambda: not process_alive(child.pid, started))
    assert child.wait() == 0


def test_a_queued_run_waits_a_minute_for_its_worker_whatever_the_clock_does(run: RunFolder) -> None:
    assert run.status().state == "queued"
    written = run.recorded_status().heartbeat
    with mock.patch.object(folder.time, "time") as now:
        for later, state in ((30, "queued"), (61, "interrupted"), (-30, "queued"), (-3600, "interrupted")):
            now.return_value = written + later
            assert run.status().state == state, later


def test_a_clock_that_jumps_back_an_hour_disturbs_no_run(run: RunFolder, alone: RunFolder) -> None:
    real, calls = time.time, iter(range(10**9))

    def jumping() -> float:
        return real() - (3600 if next(calls) > 20 else 0)

    with mock.patch("time.time", jumping):
        train_here(run)
    assert differences(alone, run) == []
    steps = events_of(run, "step")
    assert all(0 < event["active_seconds"] < 60 and 0 <= event["eta_seconds"] < 60 for event in steps)
    assert 0 < events_of(run, "finished")[0]["active_seconds"] < 60
    assert max(event["time"] for event in steps) - min(event["time"] for event in steps) > 3000  # it did jump
    assert [saved.step for saved in list_checkpoints(run.checkpoints)][-1] == 12
    assert select(run.checkpoints, "latest").step == 12


def test_a_stop_while_the_corpus_is_read_ends_at_once_and_loses_nothing(run: RunFolder, alone: RunFolder) -> None:
    with mock.patch("llmlab.data.dataset.load_dataset", _load_and_ask(run, "stop")):
        train_here(run)
    assert run.status().state == "stopped"
    started, stopped = all_events(run)
    assert (started["event"], stopped["event"]) == ("started", "stopped")
    assert (started["attempt"], started["steps"], started["tokenizer"]) == (1, 12, "char")
    assert started["parameters"] is started["vocab_size"] is started["uniform_loss"] is None  # nobody knows yet
    assert list_checkpoints(run.checkpoints) == []
    train_here(run)
    assert differences(alone, run) == []


def test_a_stop_while_the_corpus_is_read_again_keeps_what_happened_before(run: RunFolder, alone: RunFolder) -> None:
    with in_step(7, partial(requests.send, run.requests, "stop")):
        train_here(run)
    before = run.events.read_bytes()
    # As after a kill: status.json is a little behind, and half a line is at the end.
    run.write_status(dataclasses.replace(run.recorded_status(), step=5))
    run.events.write_bytes(before + b'{"event": "st')
    with mock.patch("llmlab.data.dataset.load_dataset", _load_and_ask(run, "stop")):
        train_here(run)
    started, stopped = (json.loads(line) for line in run.events.read_bytes().removeprefix(before).splitlines())
    assert [event["event"] for event in (started, stopped)] == ["started", "stopped"]
    assert (started["attempt"], started["step"]) == (2, 7)  # nothing is void
    assert started["active_seconds"] == stopped["active_seconds"] == events_of(run, "step")[-1]["active_seconds"]
    assert (run.status().state, run.status().step) == ("stopped", 7)
    train_here(run)
    assert differences(alone, run) == []
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 13))


def _load_and_ask(run: RunFolder, name: Any) -> Any:
    """Reads the corpus as if it took long: a request comes in the middle of it."""

    def load(data: Any, block_size: int, progress: Any) -> Any:
        progress("Reading", 0.5, 1.0)
        requests.send(run.requests, name)
        progress("Reading", 0.6, 1.0)
        return load_dataset(data, block_size, progress)

    return load


def test_a_pause_that_comes_while_the_corpus_is_read_holds_before_the_first_step(run: RunFolder) -> None:
    with mock.patch("llmlab.data.dataset.load_dataset", _load_and_ask(run, "pause")), forked(run) as child:
        wait_until(lambda: run.status().state == "paused")
        assert events_of(run, "step") == []
        request(run, "stop")
        assert child.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompts",
    [5, "the", [1], [None], {"a": 1}, None, ["日本"], ["\ud800"], ["the", "\udcff"], [], [""], ["x" * 10_000]],
)
@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_no_prompt_that_someone_asks_for_ends_a_training(outputs: Path, tokenizer: str, prompts: Any) -> None:
    run = new_run(outputs, 3, data__tokenizer=tokenizer, data__bpe_vocab_size=300, samples__prompts=["th"])
    (run.requests / "1.json").write_text(json.dumps({"request": "sample", "options": {"prompts": prompts}}))
    train_here(run)
    assert run.status().state == "finished"
    said = [event["event"] for event in all_events(run) if event["event"] in ("sampled", "warned")]
    assert said
    if prompts in (5, "the", None):
        assert [sample["prompt"] for sample in events_of(run, "sampled")[0]["samples"]] == ["th"]


def test_an_unwatched_run_takes_all_cores_and_a_watched_one_leaves_one_to_the_window(run: RunFolder) -> None:
    from llmlab.core import device

    with mock.patch.object(device, "available_cores", return_value=8):
        free = dataclasses.replace(run.info().settings.train, threads=0)
        assert device.choose_threads(free, 0, watched=False) == 8
        assert device.choose_threads(free, 0, watched=True) == 7
        assert device.choose_threads(free, 3, watched=False) == 3  # as the run's first worker had
        assert device.choose_threads(dataclasses.replace(free, threads=5), 3, watched=True) == 5
    with mock.patch.object(device, "available_cores", return_value=1):
        assert device.choose_threads(free, 0, watched=True) == 1


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (MemoryError(), "data.batch_size=2, train.grad_accum=4"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "data.batch_size=2"),
        (torch.OutOfMemoryError("CUDA out of memory."), "data.batch_size=2"),
    ],
)
def test_running_out_of_memory_says_which_setting_to_lower_with_numbers(
    run: RunFolder, error: Exception, named: str
) -> None:
    with mock.patch.object(Trainer, "optimizer_step", side_effect=error), pytest.raises(LabError) as said:
        train_here(run)
    assert said.value.what == "There was not enough memory."
    assert "GB are needed: " in said.value.why
    assert named in said.value.do
    assert all_events(run)[-1]["event"] == "failed"
    with mock.patch.object(Trainer, "evaluate", side_effect=error), pytest.raises(LabError, match="not enough memory"):
        train_here(run)


def test_an_error_that_nobody_expected_is_a_sentence_and_its_traceback_is_in_the_log(run: RunFolder) -> None:
    with mock.patch.object(Trainer, "optimizer_step", side_effect=ZeroDivisionError("of what\nand more")):
        assert Fork(lambda: work_on(run)).wait() == 1
    error = run.status().error
    assert error is not None
    assert "ZeroDivisionError" in error["what"]
    assert error["why"] == "of what"
    assert "Traceback" in run.log.read_text()


def test_a_device_that_is_not_here_is_a_sentence(outputs: Path) -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    run = new_run(outputs, 3, train__device=missing)
    with pytest.raises(LabError, match=f"There is no {missing} device here"):
        train_here(run)
    assert run.status().state == "failed"


def test_a_corpus_too_short_for_the_context_is_a_sentence(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("to be or not to be")
    run = new_run(outputs, 3, data__corpus=str(tmp_path / "short.txt"))
    with pytest.raises(LabError, match=r"too short for model\.block_size=16"):
        train_here(run)
    assert run.status().state == "failed"
    assert [event["event"] for event in all_events(run)] == ["started", "failed"]


def test_what_is_predicted_while_a_worker_begins_stays(outputs: Path) -> None:
    run, plain = new_run(outputs, 2), worker.choose_device

    def meanwhile(*asked: Any) -> Any:
        lab_notebook(outputs).predict(run, [parse_prediction("val_loss=1..9@80%")])
        return plain(*asked)

    with mock.patch.object(worker, "choose_device", meanwhile):
        train_here(run)
    assert [one["quantity"] for one in run.info().predictions] == ["val_loss"]
    assert run.info().threads


@pytest.mark.real_start  # forked, its worker would have the lock before the second looks again
def test_of_two_that_start_a_run_at_once_one_is_told_that_it_is_being_trained(run: RunFolder) -> None:
    together = threading.Barrier(2)

    def start() -> object:
        together.wait()
        try:
            return start_worker(run)
        except LabError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        outcomes = [started.result() for started in [pool.submit(start), pool.submit(start)]]
    (worker,) = [one for one in outcomes if isinstance(one, subprocess.Popen)]
    try:
        (refused,) = [one for one in outcomes if isinstance(one, LabError)]
        assert refused.what == "run is already being trained."
        assert refused.why == f"Process {worker.pid} holds it."
        assert "llmlab-run request run stop" in refused.do
    finally:
        worker.kill()
        worker.wait()


def test_a_run_whose_worker_died_is_started_though_another_process_has_its_number_now(run: RunFolder) -> None:
    died = RunStatus(state="running", attempt=1, pid=os.getppid(), pid_start=process_start(os.getppid()) - 1000.0)
    run.write_status(died)
    run.lock.touch()
    assert run.status().state == "interrupted"
    with mock.patch.object(worker_process, "_launch") as launched:
        start_worker(run)
    assert launched.call_args.args[2].state == "queued"


def test_a_folder_that_is_deleted_while_it_trains_is_said_to_be_gone_and_not_made_again(run: RunFolder) -> None:
    is_gone = r"The folder of run is gone\. .* was deleted or moved\."
    with in_step(9, partial(shutil.rmtree, run.path)), pytest.raises(LabError, match=is_gone):
        train_here(run)
    assert not run.path.exists()
    with pytest.raises(LabError, match=is_gone):
        start_worker(run)
    assert not run.path.exists()


def test_a_worker_collects_garbage_again_once_all_is_imported_and_not_what_was(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []
    gc.disable()  # as its command does
    try:
        code = worker_process.work_as(
            "some.worker", "run", lambda _: seen.append((gc.isenabled(), gc.get_freeze_count() > 0)), [str(tmp_path)]
        )
    finally:
        gc.unfreeze()
        gc.enable()
    assert (code, seen) == (0, [(True, True)])
