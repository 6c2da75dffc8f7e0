"""The end of a long run is told outside the window, to someone who looks elsewhere, and only if they want it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_checks import FakeCheck
from fakes import FakeRun
from preset_settings import resolve_settings
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QAccessibleEvent, QAction
from PySide6.QtWidgets import QSystemTrayIcon
from pytestqt.qtbot import QtBot
from windows import MakeWindow

from llmlab.core.errors import LabError
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.background import as_lab_error
from llmlab_gui.window.main_window import MainWindow
from llmlab_gui.window.notices import sentence


def live_run(outputs: Path, seconds: float) -> FakeRun:
    """A run that began so many seconds ago."""
    return FakeRun(outputs, "run", settings=resolve_settings("nano"), created=time.time() - seconds).start().advance(20)


def watched(
    make: MakeWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, *, active: bool = False
) -> tuple[MainWindow, list[str]]:
    """A window that sees the run, and what it tells outside."""
    window = make(docks=False)
    qtbot.waitUntil(lambda: window.lab.current() is not None)
    told: list[str] = []
    monkeypatch.setattr(window.notices, "tell", lambda title, words: told.append(title))
    monkeypatch.setattr(window, "isActiveWindow", lambda: active)
    return window, told


def ended(qtbot: QtBot, window: MainWindow, fake: FakeRun) -> None:
    with qtbot.waitSignal(window.lab.run_ended):
        fake.finish()


@pytest.mark.parametrize(("seconds", "told"), [(300.0, ["run has finished"]), (5.0, [])])
def test_only_a_long_run_is_told(
    make_main_window: MakeWindow,
    qtbot: QtBot,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    told: list[str],
) -> None:
    fake = live_run(outputs, seconds)
    window, titles = watched(make_main_window, qtbot, monkeypatch)
    ended(qtbot, window, fake)
    assert titles == told


def test_a_screen_reader_says_errors_at_once_and_how_runs_end(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = live_run(outputs, 5.0)
    window, _ = watched(make_main_window, qtbot, monkeypatch, active=True)
    said: list[tuple[str, QAccessible.AnnouncementPoliteness]] = []

    def hear(event: QAccessibleEvent) -> None:
        if isinstance(event, QAccessibleAnnouncementEvent):
            said.append((event.message(), event.politeness()))

    monkeypatch.setattr(QAccessible, "updateAccessibility", staticmethod(hear))
    at_once, politely = QAccessible.AnnouncementPoliteness.Assertive, QAccessible.AnnouncementPoliteness.Polite
    window.lab.error_raised.emit(LabError("The disk is full.", "", "Free some space."))
    assert said == [("The disk is full. Free some space.", at_once)]
    for mistake in (ValueError("odd"), ValueError("odd")):
        window.lab.error_raised.emit(as_lab_error(mistake))  # logged where it was caught
        window.lab.error_raised.emit(as_lab_error(mistake))  # and the answer to whoever waited
    assert [words.partition(".")[0] for words, _ in said[1:]] == 2 * ["The window hit an unexpected error"]
    del said[1:]
    window.lab.said.emit("Saved it.")
    assert said[1:] == [("Saved it.", politely)]
    ended(qtbot, window, fake)
    assert said[2:] == [("run has finished. Validation loss 3.288.", politely)]


def test_a_screen_reader_says_that_a_run_was_stopped(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = live_run(outputs, 5.0)
    window, _ = watched(make_main_window, qtbot, monkeypatch, active=True)
    said: list[str] = []
    monkeypatch.setattr(window.notices, "announce", said.append)
    with qtbot.waitSignal(window.lab.run_ended):
        fake.stop()
    (words,) = said
    assert words.startswith("run has stopped. After ")


def test_nothing_is_told_to_someone_who_sees_it(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = live_run(outputs, 300.0)
    window, titles = watched(make_main_window, qtbot, monkeypatch, active=True)
    ended(qtbot, window, fake)
    assert titles == []


def test_it_can_be_turned_off_and_that_is_remembered(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = live_run(outputs, 300.0)
    window, titles = watched(make_main_window, qtbot, monkeypatch)
    window.findChild(QAction, "action.notify").trigger()
    ended(qtbot, window, fake)
    assert titles == []
    window.close_quietly()
    assert not make_main_window(show=False, docks=False).settings.notify


def test_the_words_say_how_it_ended_and_how_well(outputs: Path) -> None:
    fake = live_run(outputs, 300.0)
    row = RunRow(fake.run, fake.run.info(), replace(fake.run.status(), state="finished", val_loss=1.5))
    title, words = sentence(row, 300.0)
    assert title == "run has finished"
    assert words == "After 5 min, at step 20 of 1,000. Validation loss 1.500."
    failed = replace(row, status=replace(row.status, state="failed", error={"what": "The disk is full."}))
    assert sentence(failed, 300.0)[1].endswith("The disk is full.")


def test_without_a_tray_it_does_without(make_main_window: MakeWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    window = make_main_window(docks=False)
    monkeypatch.setattr(QSystemTrayIcon, "isSystemTrayAvailable", staticmethod(lambda: False))
    window.notices.tell("title", "words")
    assert not window.findChildren(QSystemTrayIcon)


def test_a_check_without_runs_counts_none(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = make_main_window(docks=False)
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(window.notices, "tell", lambda title, words: told.append((title, words)))
    monkeypatch.setattr(window, "isActiveWindow", lambda: False)
    check = FakeCheck(outputs, "sinks", paper="attention-sinks", claims=["sink"], models=["some-model"])
    assert check.record.trials == []
    check.status(state="running", active_seconds=300.0)
    desk = window.papers.checks
    qtbot.waitUntil(lambda: bool(desk.live()))
    with qtbot.waitSignal(desk.ended):
        check.status(state="finished", active_seconds=300.0)
    assert told == [("sinks has finished", "After 5 min.")]
