"""Slow work beside the window: delivered on its thread, and gone at shutdown."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import shiboken6
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot
from waits import SECONDS

from llmlab.core.errors import LabError
from llmlab_gui.host.long_work import LongWork
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.folder_poller import FolderPoller
from llmlab_gui.widgets.background import Background, as_lab_error


@pytest.fixture
def background(qtbot: QtBot) -> Iterator[Background]:
    background = Background()
    yield background
    background.shutdown()


def test_work_runs_elsewhere_and_arrives_here(qtbot: QtBot, background: Background) -> None:
    threads: list[threading.Thread] = []
    background.run(threading.current_thread, lambda worker: threads.extend((worker, threading.current_thread())), print)
    qtbot.waitUntil(lambda: len(threads) == 2)
    assert threads[0] is not threads[1]
    assert threads[1] is threading.main_thread()


def test_long_work_is_named_by_what_is_under_way(qtbot: QtBot) -> None:
    work, done = LongWork(), []
    gates = {name: threading.Event() for name in ("alpha", "beta")}
    for name, gate in gates.items():
        work.run(f"Deleting {name}", lambda _, gate=gate: gate.wait(SECONDS), done.append, print)
    assert work.working == Working("Deleting alpha")
    gates["alpha"].set()
    qtbot.waitUntil(lambda: len(done) == 1)
    assert work.working == Working("Deleting beta")
    gates["beta"].set()
    qtbot.waitUntil(lambda: work.working is None)
    work.shutdown()


def test_an_error_on_screen_keeps_nothing_of_the_function_that_met_it(
    qtbot: QtBot, background: Background, tmp_path: Path
) -> None:
    errors: list[LabError] = []
    held: list[weakref.ref[threading.Event]] = []

    def fail() -> None:
        large = threading.Event()  # what can be referred to weakly
        held.append(weakref.ref(large))
        (tmp_path / "gone").read_bytes()

    background.run(fail, print, errors.append)
    qtbot.waitUntil(lambda: len(errors) == 1)
    gc.collect()
    assert held[0]() is None
    assert "No such file" in errors[0].why


def test_errors_arrive_as_lab_errors(qtbot: QtBot, background: Background) -> None:
    errors: list[LabError] = []

    def fails(error: Exception) -> None:
        raise error

    background.run(lambda: fails(OSError("full")), print, errors.append)
    background.run(lambda: fails(LabError("What.", "Why.")), print, errors.append)
    qtbot.waitUntil(lambda: len(errors) == 2)
    assert "full" in errors[0].why
    assert errors[1].what == "What."


def test_shutdown_leaves_no_thread_and_delivers_nothing(qtbot: QtBot) -> None:
    before = set(threading.enumerate())
    background = Background()
    begun, go_on = threading.Event(), threading.Event()
    delivered: list[object] = []
    background.run(lambda: (begun.set(), go_on.wait(SECONDS)), delivered.append, delivered.append)
    background.run(lambda: "never begun", delivered.append, delivered.append)
    assert begun.wait(SECONDS)
    go_on.set()
    background.shutdown()
    background.run(lambda: "too late", delivered.append, delivered.append)
    assert set(threading.enumerate()) <= before
    qtbot.wait(20)
    assert delivered == []


def test_a_mistake_is_told_as_uncaught_ones_are_and_what_follows_is_done(
    qtbot: QtBot, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _trace: uncaught.append(error))
    errors: list[LabError] = []
    done: list[str] = []
    background.run(lambda: int("no number"), print, errors.append)
    background.run(lambda: "next", done.append, errors.append)
    qtbot.waitUntil(lambda: bool(done))
    assert list(map(type, uncaught)) == [ValueError]
    assert [as_lab_error(error) for error in uncaught] == errors  # one mistake, which is told once
    assert [error.what for error in errors] == ["The window hit an unexpected error."]  # whoever asked has an answer


@pytest.mark.parametrize("deleted", [False, True])
def test_shutdown_or_the_end_of_its_owner_ends_work_that_looks_whether_anyone_waits(
    qtbot: QtBot, deleted: bool
) -> None:
    background = Background(owner := QObject())
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            while not ended.wait(0.005):
                background.check()
        finally:
            ended.set()

    background.run(work, print, print)
    assert begun.wait(SECONDS)
    if deleted:
        shiboken6.delete(owner)
        ended.wait(SECONDS)
    all_ended = ended.is_set()
    background.shutdown()
    assert all_ended or not deleted
    assert ended.is_set()


def test_what_is_found_for_an_owner_that_qt_has_deleted_is_dropped(qtbot: QtBot) -> None:
    background, delivered = Background(owner := QObject()), list[object]()
    go_on = threading.Event()
    background.run(lambda: go_on.wait(SECONDS), delivered.append, delivered.append)
    assert background._pool is not None
    told = background._pool.submit(background.tell, delivered.append, "told")
    shiboken6.delete(owner)
    go_on.set()
    told.result(SECONDS)  # no error in the thread either: nothing touches what is gone
    qtbot.wait(20)
    assert delivered == []
    background.shutdown()


def test_a_poller_that_met_a_mistake_looks_again_and_tells_it_once(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, _error, _trace: uncaught.append(kind))
    looks = iter((["one"], ValueError("odd"), ValueError("odd"), ["two"]))

    class Poller(FolderPoller):
        def look(self) -> list[str]:
            found = next(looks, ["two"])
            if isinstance(found, ValueError):
                raise found
            return found

    poller = Poller()
    found: list[list[str]] = []
    poller.found.connect(found.append)
    poller.start()
    qtbot.waitUntil(lambda: found == [["one"], ["two"]])
    poller.stop()
    poller.wait()
    assert uncaught == [ValueError]
