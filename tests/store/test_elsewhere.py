"""A run that another machine trains, watched over a shared or copied folder: nothing here calls it dead."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import FakeRun
from small_runs import new_run

from llmlab.core.errors import LabError
from llmlab.core.processes import host_name, process_start
from llmlab.jobs.launcher import request, start_worker
from llmlab.jobs.queue import RunQueue
from llmlab.store import requests, run_folder
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab.store.run_log import EventFollower

HOURS = 3600.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """This machine's own: `clock["now"]` can be moved on."""
    now = {"now": 0.0}
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: now["now"])
    return now


def unused_pid() -> int:
    return next(pid for pid in range(4_000_000, 1, -1) if not psutil.pid_exists(pid))


def trained(run: RunFolder, heartbeat: float | None = None, **changes: Any) -> None:
    """What its worker on another machine wrote last."""
    now = time.time() if heartbeat is None else heartbeat
    values: dict[str, Any] = {"state": "running", "host": "gpu-node-7", "pid": unused_pid()}
    values["pid_start"] = process_start(os.getpid()) - 60.0  # which is not this process's, however long it has run
    values |= {"heartbeat": now, "patience": 120.0, "step": 40, "attempt": 1}
    run.write_status(RunStatus(**(values | changes)))


def test_whatever_its_clock_says_and_its_process_id_means_here_it_lives(outputs: Path) -> None:
    run, mine = new_run(outputs), os.getpid()
    for shift in (-26 * HOURS, -5 * HOURS, 0.0, 5 * HOURS, 26 * HOURS):
        for pid in (unused_pid(), mine):
            trained(run, time.time() + shift, pid=pid)
            status = run.status()
            assert (status.state, status.silent_since, status.elsewhere) == ("running", None, True)
            assert status.words == "running on gpu-node-7"
    trained(run, host=host_name())  # by its word of this machine, where no such process is
    assert run.status().state == "interrupted"
    trained(run, host=host_name(), pid=mine, pid_start=process_start(mine))
    assert not run.status().elsewhere


def test_where_another_machine_has_the_same_name_a_worker_that_holds_the_lock_lives(outputs: Path) -> None:
    run = new_run(outputs)
    for pid in (unused_pid(), os.getpid()):  # there, the ids mean other processes
        trained(run, host=host_name(), pid=pid)
        with run.held():
            assert run.status().state == "running"
            with pytest.raises(LabError, match="already being trained"):
                start_worker(run)
        assert run.status().state == "interrupted"


def test_who_only_looks_whether_the_lock_is_held_is_no_worker(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(outputs)
    trained(run, host=host_name())
    with run.held() as look:
        monkeypatch.setattr(time, "sleep", lambda seconds: look.release())
        assert run.status().state == "interrupted"


def test_it_is_silent_when_no_news_came_for_long_by_the_clock_of_whoever_watches(
    outputs: Path, clock: dict[str, float]
) -> None:
    run, behind = new_run(outputs), time.time() - 5 * HOURS
    trained(run, behind)
    assert run.status().silent_since is None
    clock["now"] += 800.0
    trained(run, behind + 800.0)  # copied here a quarter of an hour later
    assert run.status().silent_since is None
    clock["now"] += 901.0
    status = run.status()
    assert status.silent_since == pytest.approx(time.time() - 901.0, abs=5.0)  # not five hours ago
    assert status.state == "running"
    trained(run, behind + 1800.0)
    assert run.status().silent_since is None
    clock["now"] += 5000.0
    trained(run, behind + 1800.0, state="paused")
    assert run.status().silent_since is None


def test_requests_reach_it_and_no_worker_of_this_machine_takes_its_place(outputs: Path) -> None:
    run = new_run(outputs)
    trained(run)
    for name in ("pause", "save", "stop"):
        request(run, name)
    assert [one.name for one in requests.take(run.requests)] == ["pause", "save", "stop"]
    with pytest.raises(LabError, match=r"on gpu-node-7 holds it.*--take-over"):
        start_worker(run)
    assert not RunQueue(outputs).busy()  # its own machine is
    run.take_over()
    assert run.status().state == "interrupted"
    assert run.recorded_status().step == 40


def mirrored(there: Path, here: Path, leave_out: str) -> None:
    """Copies as rsync does: each file under another name, then renamed, in the order of their names."""
    for path in sorted(path for path in there.rglob("*") if path.is_file()):
        name = path.relative_to(there)
        if leave_out in name.parts or path.suffix == ".lock":
            continue
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        partial = (here / name).with_name(f".{name.name}.Ab12")
        shutil.copy2(path, partial)
        os.replace(partial, here / name)


def test_a_copied_run_is_followed_step_by_step_and_gets_each_request_once(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path / "there", "wide", steps=100)
    there, here = fake.run, RunFolder(tmp_path / "here" / "pretraining" / "wide")
    fake.start().advance(20)
    mirrored(there.path, here.path, "requests")
    follower, history = EventFollower(here), RunHistory()
    asked = []
    for number in range(6):
        if number == 2:
            requests.send(here.requests, "save")
        if number == 4:
            fake.resume_from(40)  # a worker began again there, and cut what came after its checkpoint
        fake.advance(10)
        for file in sorted(here.requests.glob("*.json")) if here.requests.is_dir() else []:
            there.requests.mkdir(exist_ok=True)
            shutil.move(file, there.requests / file.name)  # --remove-source-files
        asked += [one.name for one in requests.take(there.requests)]
        mirrored(there.path, here.path, "requests")
        while events := follower.poll():
            history.extend(events)
        assert history.step_columns["step"].tolist() == list(range(1, fake.step + 1))
        there.write_status(replace(there.recorded_status(), host="gpu-node-7", pid=unused_pid()))
        mirrored(there.path, here.path, "requests")
        assert here.status().words == "running on gpu-node-7"
    assert asked == ["save"]


def test_what_this_machine_trains_is_not_taken_over(outputs: Path) -> None:
    run, mine = new_run(outputs), os.getpid()
    trained(run, host=host_name(), pid=mine, pid_start=process_start(mine))
    before = run.recorded_status()
    run.take_over()
    assert run.recorded_status() == before
    trained(run)
    with run.held():  # by a worker that lives, and began under another name of this machine
        run.take_over()
    assert run.status().elsewhere
    run.write_status(replace(before, host=""))  # as earlier versions wrote
    run.take_over()
    assert run.status().state == "running"
