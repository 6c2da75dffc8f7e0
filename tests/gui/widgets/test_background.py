"""Slow work beside the window: delivered on its thread, and gone at shutdown."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.errors import LabError
from llmlab_gui.widgets.background import Background


@pytest.fixture
def background(qtbot: QtBot) -> Iterator[Background]:
    background = Background()
    yield background
    background.shutdown()


def test_work_runs_elsewhere_and_arrives_here(qtbot: QtBot, background: Background) -> None:
    threads: list[threading.Thread] = []
    background.run(threading.current_thread, lambda worker: threads.extend((worker, threading.current_thread())), print)
    qtbot.waitUntil(lambda: len(threads) == 2, timeout=WAIT)
    assert threads[0] is not threads[1]
    assert threads[1] is threading.main_thread()


def test_errors_arrive_as_lab_errors(qtbot: QtBot, background: Background) -> None:
    errors: list[LabError] = []

    def fails(error: Exception) -> None:
        raise error

    background.run(lambda: fails(OSError("full")), print, errors.append)
    background.run(lambda: fails(LabError("What.", "Why.")), print, errors.append)
    qtbot.waitUntil(lambda: len(errors) == 2, timeout=WAIT)
    assert "full" in errors[0].why
    assert errors[1].what == "What."


def test_shutdown_leaves_no_thread_and_delivers_nothing(qtbot: QtBot) -> None:
    before = set(threading.enumerate())
    background = Background()
    begun, go_on = threading.Event(), threading.Event()
    delivered: list[object] = []
    background.run(lambda: (begun.set(), go_on.wait(5)), delivered.append, delivered.append)
    background.run(lambda: "never begun", delivered.append, delivered.append)
    assert begun.wait(5)
    go_on.set()
    background.shutdown()
    background.run(lambda: "too late", delivered.append, delivered.append)
    assert set(threading.enumerate()) <= before
    qtbot.wait(20)
    assert delivered == []
