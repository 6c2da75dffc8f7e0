"""A run is followed by signals, from start to deletion, and the thread ends when asked."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeRun
from kills import small_settings
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.errors import LabError
from llmlab.jobs.launcher import create_run
from llmlab.store import overview
from llmlab.store.events import Event, Finished, StepEvent, Stopped
from llmlab.store.history import RunHistory
from llmlab.store.overview import Overview
from llmlab.store.run_folder import RunStatus
from llmlab_gui.lab.run_thread import RunThread


class Watcher:
    """Starts a RunThread and keeps what it tells."""

    def __init__(self, fake: FakeRun) -> None:
        self.thread = RunThread(fake.run)
        self.events: list[Event] = []
        self.batch_times: list[float] = []
        self.statuses: list[RunStatus] = []
        self.overviews: list[Overview] = []
        self.errors: list[LabError] = []
        self.thread.batch.connect(self._take)
        self.thread.status_changed.connect(self.statuses.append)
        self.thread.opened.connect(self.overviews.append)
        self.thread.failed.connect(self.errors.append)
        self.thread.start()

    def _take(self, events: list[Event]) -> None:
        self.events += events
        self.batch_times.append(time.monotonic())

    def close(self) -> None:
        self.thread.stop()
        assert self.thread.wait(WAIT)


@pytest.fixture
def watchers() -> Iterator[list[Watcher]]:
    opened: list[Watcher] = []
    before = threading.active_count()
    yield opened
    for watcher in opened:
        watcher.close()
    assert threading.active_count() <= before


def test_events_arrive_once_and_in_order_while_the_run_goes_on(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]
) -> None:
    fake = FakeRun(tmp_path).start().advance(100)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    fake.advance(150)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    assert watcher.events == fake.written
    assert watcher.statuses[-1].state == "running"
    fake.finish()
    qtbot.waitUntil(lambda: watcher.statuses[-1].state == "finished", timeout=WAIT)
    qtbot.waitUntil(lambda: watcher.events == fake.written, timeout=WAIT)


def test_a_run_that_begins_later_appears_by_itself(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: bool(watcher.statuses), timeout=WAIT)
    assert watcher.statuses[0].state == "queued"
    fake.start().advance(5)
    qtbot.waitUntil(lambda: watcher.events == fake.written, timeout=WAIT)


def test_batches_are_coalesced_to_twenty_a_second(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path, steps=5000).start()
    watchers.append(watcher := Watcher(fake))
    began = time.monotonic()

    def one_more() -> bool:
        fake.advance(1, evaluate=False)
        return time.monotonic() - began > 1.0

    qtbot.waitUntil(one_more, timeout=WAIT)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    seconds = watcher.batch_times[-1] - watcher.batch_times[0]
    assert len(watcher.batch_times) - 1 <= 20 * seconds + 1


def test_a_resumed_worker_cuts_the_history(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path).start().advance(300)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    fake.resume_from(200).advance(400)
    qtbot.waitUntil(lambda: watcher.events[-1] == fake.written[-1], timeout=WAIT)
    history = RunHistory()
    history.extend(watcher.events)
    steps = [event.step for event in fake.written if isinstance(event, StepEvent)]
    assert history.step_columns["step"].tolist() == steps


def test_a_long_run_opens_by_its_overview_then_is_followed(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LONG_FILE_BYTES", 100_000)
    fake = FakeRun(tmp_path, steps=5000).start().write_lines(3000, eval_every=1000)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: bool(watcher.overviews), timeout=WAIT)
    assert watcher.events == []
    before = len(fake.written)
    fake.advance(5, evaluate=False)
    qtbot.waitUntil(lambda: watcher.events == fake.written[before:], timeout=WAIT)


def test_a_deleted_folder_ends_in_a_sentence(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path).start().advance(10)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    shutil.rmtree(fake.run.path)
    qtbot.waitUntil(lambda: bool(watcher.errors), timeout=WAIT)
    assert "is gone" in watcher.errors[0].what
    qtbot.waitUntil(watcher.thread.isFinished, timeout=WAIT)


@pytest.mark.parametrize("state", ["running", "finished"])
def test_it_stops_within_a_second(tmp_path: Path, qtbot: QtBot, state: str) -> None:
    fake = FakeRun(tmp_path).start().advance(10)
    if state == "finished":
        fake.finish()
    watcher = Watcher(fake)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written), timeout=WAIT)
    watcher.thread.stop()
    assert watcher.thread.wait(WAIT)


def test_it_stops_within_a_second_while_a_long_run_is_opened(
    tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LONG_FILE_BYTES", 100_000)
    fake = FakeRun(tmp_path, steps=100_000).start().write_lines(100_000)
    watcher = Watcher(fake)
    qtbot.waitUntil(watcher.thread.isRunning, timeout=WAIT)
    watcher.thread.stop()
    assert watcher.thread.wait(WAIT)
    assert watcher.overviews == watcher.errors == []


def test_it_can_train_inside_itself(outputs: Path, qtbot: QtBot) -> None:
    run = create_run(outputs, small_settings(4), name="inside")
    thread = RunThread(run, in_process=True)
    events: list[Event] = []
    statuses: list[RunStatus] = []
    thread.batch.connect(events.extend)
    thread.status_changed.connect(statuses.append)
    with qtbot.waitSignal(thread.finished, timeout=WAIT):
        thread.start()
    qtbot.waitUntil(lambda: bool(events) and isinstance(events[-1], Finished), timeout=WAIT)
    assert [event.step for event in events if isinstance(event, StepEvent)] == [1, 2, 3, 4]
    assert statuses[-1].state == "finished"


def test_training_inside_itself_stops_when_asked(outputs: Path, qtbot: QtBot) -> None:
    thread = RunThread(create_run(outputs, small_settings(100_000), name="inside"), in_process=True)
    events: list[Event] = []
    thread.batch.connect(events.extend)
    thread.start()
    qtbot.waitUntil(lambda: any(isinstance(event, StepEvent) for event in events), timeout=WAIT)
    thread.stop()
    assert thread.wait(WAIT)
    qtbot.waitUntil(lambda: isinstance(events[-1], Stopped), timeout=WAIT)
