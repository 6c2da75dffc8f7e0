"""Runs are followed by signals, from start to deletion, in one thread that ends when asked."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRun
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.errors import LabError
from llmlab.store import overview
from llmlab.store.events import Event, StepEvent
from llmlab.store.history import RunHistory
from llmlab.store.overview import Overview
from llmlab.store.run_folder import RunStatus
from llmlab.store.run_log import EventFollower
from llmlab_gui.lab.run_watcher import RunWatcher


class Watcher:
    """Starts a RunWatcher and keeps what it tells of one run."""

    def __init__(self, fake: FakeRun) -> None:
        self.thread = RunWatcher()
        self.id = fake.run.full_name
        self.events: list[Event] = []
        self.batches = 0
        self.statuses: list[RunStatus] = []
        self.overviews: list[Overview] = []
        self.errors: list[LabError] = []
        self.thread.batch.connect(self._take)
        for signal, told in (
            (self.thread.status_changed, self.statuses),
            (self.thread.opened, self.overviews),
            (self.thread.failed, self.errors),
        ):
            signal.connect(partial(self._keep, told))
        self.thread.follow(fake.run)
        self.thread.start()

    def _take(self, run_id: str, events: list[Event]) -> None:
        if run_id == self.id:
            self.events += events
            self.batches += 1

    def _keep(self, told: list[Any], run_id: str, news: object) -> None:
        if run_id == self.id:
            told.append(news)

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
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    fake.advance(150)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    assert watcher.events == fake.written
    assert watcher.statuses[-1].state == "running"
    fake.finish()
    qtbot.waitUntil(lambda: watcher.statuses[-1].state == "finished")
    qtbot.waitUntil(lambda: watcher.events == fake.written)


def test_a_run_that_begins_later_appears_by_itself(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: bool(watcher.statuses))
    assert watcher.statuses[0].state == "queued"
    fake.start().advance(5)
    qtbot.waitUntil(lambda: watcher.events == fake.written)


def test_batches_are_coalesced_to_twenty_a_second(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, poll = list[float](), EventFollower.poll

    def timed(follower: EventFollower, max_bytes: int) -> list[Event]:
        looks.append(time.monotonic())
        return poll(follower, max_bytes)

    monkeypatch.setattr(EventFollower, "poll", timed)
    fake = FakeRun(tmp_path, steps=5000).start()
    watchers.append(watcher := Watcher(fake))

    def one_more() -> bool:
        fake.advance(1, evaluate=False)
        return len(looks) > 10

    qtbot.waitUntil(one_more)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    watcher.thread.stop()
    watcher.thread.wait()
    assert watcher.batches <= len(looks)
    assert min(after - before for before, after in pairwise(looks)) >= 1 / 20


def test_a_resumed_worker_cuts_the_history(tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]) -> None:
    fake = FakeRun(tmp_path).start().advance(300)
    watchers.append(watcher := Watcher(fake))
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    fake.resume_from(200).advance(400)
    qtbot.waitUntil(lambda: watcher.events[-1] == fake.written[-1])
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
    qtbot.waitUntil(lambda: bool(watcher.overviews))
    assert watcher.events == []
    before = len(fake.written)
    fake.advance(5, evaluate=False)
    qtbot.waitUntil(lambda: watcher.events == fake.written[before:])


def test_several_runs_are_followed_each_by_itself_and_one_that_is_let_go_is_silent(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]
) -> None:
    first, second = (FakeRun(tmp_path, name).start().advance(20) for name in ("first", "second"))
    watchers.append(watcher := Watcher(first))
    others: list[Event] = []
    watcher.thread.batch.connect(lambda run_id, events: others.extend(events) if run_id != watcher.id else None)
    watcher.thread.follow(second.run)
    qtbot.waitUntil(lambda: (watcher.events, others) == (first.written, second.written))
    first.advance(40)
    watcher.thread.let_go(watcher.id)
    before = len(watcher.events)
    second.advance(60)
    qtbot.waitUntil(lambda: others == second.written)
    assert len(watcher.events) == before
    watcher.events.clear()
    watcher.thread.follow(first.run)
    qtbot.waitUntil(lambda: watcher.events == first.written)


def test_a_deleted_folder_ends_in_a_sentence_and_other_runs_are_followed_on(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher]
) -> None:
    fake, other = FakeRun(tmp_path).start().advance(10), FakeRun(tmp_path, "other").start().advance(10)
    watchers.append(watcher := Watcher(fake))
    others: list[Event] = []
    watcher.thread.batch.connect(lambda run_id, events: others.extend(events) if run_id != watcher.id else None)
    watcher.thread.follow(other.run)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    shutil.rmtree(fake.run.path)
    qtbot.waitUntil(lambda: bool(watcher.errors))
    assert "is gone" in watcher.errors[0].what
    other.advance(20)
    qtbot.waitUntil(lambda: others == other.written)
    assert len(watcher.errors) == 1


def test_a_mistake_in_one_run_stops_no_other(
    tmp_path: Path, qtbot: QtBot, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, broken = FakeRun(tmp_path).start().advance(10), FakeRun(tmp_path, "broken").start().advance(10)
    poll, told = EventFollower.poll, []

    def fail(follower: EventFollower, max_bytes: int) -> list[Event]:
        if follower._run.id == "broken":
            raise ZeroDivisionError
        return poll(follower, max_bytes)

    monkeypatch.setattr(EventFollower, "poll", fail)
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))
    watchers.append(watcher := Watcher(broken))
    others: list[Event] = []
    watcher.thread.batch.connect(lambda _, events: others.extend(events))
    qtbot.waitUntil(lambda: told == [ZeroDivisionError])
    watcher.thread.follow(fake.run)
    qtbot.waitUntil(lambda: others == fake.written)
    assert told == [ZeroDivisionError]


@pytest.mark.parametrize("state", ["running", "finished"])
def test_it_stops_within_a_second(tmp_path: Path, qtbot: QtBot, state: str) -> None:
    fake = FakeRun(tmp_path).start().advance(10)
    if state == "finished":
        fake.finish()
    watcher = Watcher(fake)
    qtbot.waitUntil(lambda: len(watcher.events) == len(fake.written))
    watcher.thread.stop()
    assert watcher.thread.wait(WAIT)


@pytest.mark.slow
def test_it_stops_within_a_second_while_a_long_run_is_opened(
    tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LONG_FILE_BYTES", 100_000)
    fake = FakeRun(tmp_path, steps=100_000).start().write_lines(100_000)
    watcher = Watcher(fake)
    qtbot.waitUntil(watcher.thread.isRunning)
    watcher.thread.stop()
    assert watcher.thread.wait(WAIT)
    assert watcher.overviews == watcher.errors == []
