"""Starting, resuming, branching, and the stop ladder; without a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes import FakeRun
from preset_settings import resolve_settings
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab.core.processes import process_start
from llmlab.jobs import launcher
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab import run_controller as module
from llmlab_gui.lab.run_controller import RunController

# A worker that waits to be killed, and one that ignores SIGTERM.
SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def controller(qtbot: QtBot, outputs: Path) -> Iterator[RunController]:
    made = RunController(outputs)
    yield made
    made.shutdown()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`start_worker` starts a process that only sleeps, and says that it runs."""
    made: list[subprocess.Popen[bytes]] = []

    def start(run: RunFolder, **_: Any) -> subprocess.Popen[bytes]:
        worker = _start(SLEEPER)
        made.append(worker)
        _claim(run, worker)
        return worker

    monkeypatch.setattr(launcher, "start_worker", start)
    yield made
    for worker in made:
        worker.kill()
        worker.wait()


def _start(code: str, *words: str) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    worker.stdout.close()
    return worker


def _claim(run: RunFolder, worker: subprocess.Popen[bytes], **changes: Any) -> None:
    status = run.recorded_status()
    begun = {"state": "running", "pid": worker.pid, "pid_start": process_start(worker.pid)} | changes
    run.write_status(replace(status, **begun))


def test_a_start_makes_the_run_and_its_worker(
    controller: RunController, qtbot: QtBot, outputs: Path, workers: list[subprocess.Popen[bytes]]
) -> None:
    settings = resolve_settings("baby", overrides={"train.steps": 77})
    with qtbot.waitSignal(controller.started) as started:
        controller.start(settings, "mine", "baby")
    run: RunFolder = started.args[0]
    info = run.info()
    assert run.path == outputs / "pretraining" / "mine"
    assert (info.settings.train.steps, info.preset, info.watched) == (77, "baby", True)
    assert len(workers) == 1


def test_a_taken_name_is_an_error_not_a_run(
    controller: RunController, qtbot: QtBot, outputs: Path, workers: list[subprocess.Popen[bytes]]
) -> None:
    FakeRun(outputs, "mine")
    with qtbot.waitSignal(controller.failed) as told:
        controller.start(resolve_settings("baby"), "mine")
    assert "already there" in told.args[0].what
    assert not workers


def test_a_branch_has_its_parent_and_a_copy_of_the_checkpoint(
    controller: RunController, qtbot: QtBot, outputs: Path, workers: list[subprocess.Popen[bytes]]
) -> None:
    parent = FakeRun(outputs, "parent", steps=1000).start().advance(200).save_checkpoint()
    checkpoint = list_checkpoints(parent.run.checkpoints)[-1]
    with qtbot.waitSignal(controller.started) as started:
        controller.branch(parent.run, checkpoint, {"train.learning_rate": "5e-4"}, name="child")
    info = started.args[0].info()
    assert info.parent is not None
    assert (info.parent["run"], info.parent["step"]) == ("parent", 200)
    assert info.settings.train.learning_rate == 5e-4
    assert [c.step for c in list_checkpoints(started.args[0].checkpoints)] == [200]


def test_a_finished_run_needs_more_steps_to_go_on(
    controller: RunController, qtbot: QtBot, outputs: Path, workers: list[subprocess.Popen[bytes]]
) -> None:
    fake = FakeRun(outputs, steps=100).start().advance(100).finish()
    with qtbot.waitSignal(controller.failed) as told:
        controller.resume(fake.run)
    assert "finished" in told.args[0].what
    with qtbot.waitSignal(controller.said) as said:
        controller.resume(fake.run, {"train.steps": 150})
    assert "train.steps: 100 -> 150" in said.args[0]
    assert fake.run.info().settings.train.steps == 150


def test_asking_an_ended_run_is_an_error_that_says_what_to_do(
    controller: RunController, qtbot: QtBot, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(5).stop()
    for ask in (controller.pause, controller.unpause, controller.save, controller.stop):
        with qtbot.waitSignal(controller.failed) as told:
            ask(fake.run)
        assert isinstance(told.args[0], LabError)
        assert "resume" in told.args[0].do
    assert controller.stopping_text(fake.run) == ""


def test_a_worker_that_dies_at_once_is_told_with_its_last_words(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(run: RunFolder, **_: Any) -> subprocess.Popen[bytes]:
        with run.log.open("wb") as log:
            code = "import sys; sys.exit('ModuleNotFoundError: No module named torch')"
            return subprocess.Popen([sys.executable, "-c", code], stderr=log)

    monkeypatch.setattr(launcher, "start_worker", start)
    with qtbot.waitSignal(controller.complained) as told:
        controller.start(resolve_settings("baby"), "mine")
    assert "ended before it started work" in told.args[1].what
    assert "No module named torch" in told.args[1].why
    assert RunFolder(outputs / "pretraining" / "mine").status().state == "failed"


def test_workers_that_end_leave_no_zombies(
    controller: RunController, qtbot: QtBot, workers: list[subprocess.Popen[bytes]]
) -> None:
    with qtbot.waitSignal(controller.started):
        controller.start(resolve_settings("baby"), "mine")
    process = psutil.Process(workers[0].pid)
    process.kill()
    qtbot.waitUntil(lambda: not process.is_running())


def test_a_stop_is_asked_for_and_told_until_the_run_ends(
    controller: RunController, qtbot: QtBot, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(5)
    controller.stop(fake.run)
    controller.stop(fake.run)  # asking twice is one request
    assert [request.name for request in requests.take(fake.run.requests)] == ["stop"]
    assert controller.stopping_text(fake.run).startswith("Stopping")
    fake.stop()
    qtbot.waitUntil(lambda: controller.stopping_text(fake.run) == "")


def test_a_worker_that_does_not_read_requests_is_signalled(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    fake = FakeRun(outputs).start().advance(5)
    worker = _start(SLEEPER)
    _claim(fake.run, worker)
    controller.stop(fake.run)
    qtbot.waitUntil(lambda: worker.poll() is not None)
    assert worker.returncode == -15


def test_a_worker_whose_step_takes_long_is_not_signalled_within_its_patience(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    fake = FakeRun(outputs).start().advance(5)
    worker = _start(SLEEPER)
    _claim(fake.run, worker, patience=600.0)
    controller.stop(fake.run)
    for _ in range(4):
        with qtbot.waitSignal(controller.stopping_changed):
            pass
    assert controller.stopping_text(fake.run).startswith("Stopping: saves after this step")
    assert worker.poll() is None
    _claim(fake.run, worker, patience=1e-9)
    qtbot.waitUntil(lambda: worker.poll() is not None)
    assert worker.returncode == -15


def test_a_stuck_worker_is_killed_and_that_is_told(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.5)
    fake = FakeRun(outputs).start().advance(5)
    worker = _start(STUBBORN)
    _claim(fake.run, worker, heartbeat=0.0)
    with qtbot.waitSignal(controller.complained) as told:
        controller.stop(fake.run)
    assert "was killed" in told.args[1].what
    assert fake.run.path in controller.killed  # the end of the run is not told once more
    qtbot.waitUntil(lambda: worker.poll() is not None)
    assert worker.returncode == -9


def test_a_worker_that_is_slow_but_alive_is_never_killed(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    fake = FakeRun(outputs).start().advance(5)
    worker = _start(STUBBORN)
    controller.stop(fake.run)
    for beat in range(5):  # it keeps giving signs of life, while someone sets the clock
        _claim(fake.run, worker, heartbeat=4e9 - 3600 * beat)
        clock[0] += 0.9 * module.STUCK_SECONDS
        controller._tick()
    assert "asked again" in controller.stopping_text(fake.run)
    assert worker.poll() is None
    controller.kill(fake.run)  # someone decides
    qtbot.waitUntil(lambda: worker.poll() is not None)


# As a worker holds its run: the lock as long as it lives.
HOLDER = """
import sys, filelock, time
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_worker_is_reached_after_the_system_clock_was_set(
    controller: RunController, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    fake = FakeRun(outputs).start().advance(5)
    worker = _start(HOLDER, str(fake.run.lock))
    _claim(fake.run, worker)
    moved = fake.run.recorded_status()  # Linux counts start times from the clock of now
    fake.run.write_status(replace(moved, pid_start=(moved.pid_start or 0.0) - 3600))
    getattr(controller, how)(fake.run)
    qtbot.waitUntil(lambda: worker.poll() is not None)
    assert worker.returncode == {"stop": -15, "kill": -9}[how]


def test_a_process_that_has_the_id_of_a_worker_that_is_gone_is_left_alone(
    controller: RunController, qtbot: QtBot, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(5)
    stranger = _start(SLEEPER)
    _claim(fake.run, stranger)
    status = fake.run.recorded_status()
    fake.run.write_status(replace(status, pid_start=(status.pid_start or 0.0) - 3600))
    controller.kill(fake.run)
    qtbot.wait(600)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
