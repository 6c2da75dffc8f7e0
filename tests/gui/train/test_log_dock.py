"""The Log: sentences for what happened, the tail of what was printed, in bounded memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab.store.events import Started
from llmlab_gui.train.event_sentences import sentence
from llmlab_gui.train.log import OUTPUT, TAIL_BYTES, LogDock, LogTail


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> LogDock:
    return shown(LogDock(lab), qtbot, 700, 300)


def test_events_are_told_in_sentences(lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=1000).start().advance(500))
    fake.warn("The corpus is short.").fail("The loss is not finite.", "It was inf at step 500.", "Lower the rate.")
    lab.pump(fake)
    text = dock.events_view.toPlainText()
    assert "Training began: 1,000 steps of 768 tokens" in text
    began = fake.written[0]
    assert isinstance(began, Started)
    assert "compiled" not in text
    warm = sentence(dataclasses.replace(began, settings={"data": {"batch_warmup_steps": 9}}, compile_seconds=11.4))
    assert warm is not None
    assert "1,000 steps of up to 768 tokens" in warm.text
    assert warm.text.endswith("1 thread, compiled in 11 s.")
    shared = sentence(dataclasses.replace(began, processes=2, settings={"distributed": {"strategy": "ddp"}}))
    assert shared is not None
    assert shared.text.endswith("in fp32, 2 processes (ddp) of 1 thread each.")
    assert "Measured: validation loss" in text
    assert "The corpus is short." in text
    assert "The loss is not finite. It was inf at step 500. Lower the rate." in text
    assert (
        "Saved step-00000500 (best so far): 3.3 MB in 0.1 s." in text
    )  # copied as it is read; no line breaks before MB
    assert "3.3\u00a0MB in 0.1\u00a0s." in dock.events_view.document().toRawText()


def test_of_a_run_that_is_not_read_yet_it_does_not_say_that_nothing_happened(lab: FakeLab, dock: LogDock) -> None:
    lab.add(FakeRun(lab.outputs, "new").start())
    assert dock.events_view.placeholderText() == "Nothing has happened yet."
    lab.add(FakeRun(lab.outputs, "old").start().advance(500))
    assert dock.events_view.placeholderText() == "The events appear here as soon as they are read."


def test_a_resumed_run_tells_only_what_still_holds(lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=1000).start().advance(750))
    assert "step 750" in dock.events_view.toPlainText()
    fake.resume_from(500, ["train.steps: 1000 instead of 2000."])
    lab.reload(fake)
    text = dock.events_view.toPlainText()
    assert "step 750" not in text
    assert "Training resumed from step 500 (attempt 2). Changed: train.steps: 1000 instead of 2000." in text


def test_markup_in_a_message_is_text(lab: FakeLab, dock: LogDock) -> None:
    lab.pump(lab.add(FakeRun(lab.outputs).start()).warn("<b>x</b> & <img src=y>"))
    assert "<b>x</b> & <img src=y>" in dock.events_view.toPlainText()


def test_worker_output_is_followed_while_it_grows(qtbot: QtBot, lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    fake.run.log.write_text("first\n")
    dock.which.setCurrentIndex(OUTPUT)
    qtbot.waitUntil(lambda: dock.output_view.toPlainText() == "first")
    with fake.run.log.open("a") as file:
        file.write("second half ")
        file.flush()
        dock.read_output()
        assert dock.output_view.toPlainText() == "first"
        file.write("done\n")
    qtbot.waitUntil(lambda: dock.output_view.toPlainText() == "first\nsecond half done")


def test_another_run_has_another_output(qtbot: QtBot, lab: FakeLab, dock: LogDock) -> None:
    first = lab.add(FakeRun(lab.outputs, "first").start())
    first.run.log.write_text("of the first\n")
    second = lab.add(FakeRun(lab.outputs, "second").start())
    second.run.log.write_text("of the second\n")
    dock.show_output()
    qtbot.waitUntil(lambda: dock.output_view.toPlainText() == "of the second")
    lab.set_current("pretraining/first")
    qtbot.waitUntil(lambda: dock.output_view.toPlainText() == "of the first")


def test_ctrl_f_finds_and_esc_closes(qtbot: QtBot, lab: FakeLab, dock: LogDock) -> None:
    lab.pump(lab.add(FakeRun(lab.outputs).start()).warn("needle one").warn("needle two"))
    with qtbot.waitActive(dock):
        dock.activateWindow()
    dock.events_view.setFocus()
    qtbot.keyClick(dock.events_view, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    assert dock.find_bar.isVisible()
    qtbot.keyClicks(dock.find_bar.field, "needle")
    first = dock.events_view.textCursor().selectionStart()
    assert dock.events_view.textCursor().selectedText() == "needle"
    qtbot.keyClick(dock.find_bar.field, Qt.Key.Key_Return)
    assert dock.events_view.textCursor().selectionStart() > first
    qtbot.keyClick(dock.find_bar.field, Qt.Key.Key_Return)  # wraps around
    assert dock.events_view.textCursor().selectionStart() == first
    qtbot.keyClick(dock.find_bar.field, Qt.Key.Key_Escape)
    assert not dock.find_bar.isVisible()


def test_copy_takes_all_or_the_selection(lab: FakeLab, dock: LogDock) -> None:
    lab.pump(lab.add(FakeRun(lab.outputs).start()).warn("once"))
    dock.copy()
    assert QGuiApplication.clipboard().text() == dock.events_view.toPlainText()
    dock.find_bar.field.setText("once")
    dock.find_bar.search()
    dock.copy()
    assert QGuiApplication.clipboard().text() == "once"


def test_a_scrolled_back_view_stays_where_it_is(lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    for number in range(60):
        fake.warn(f"warning {number}")
    lab.pump(fake)
    bar = dock.events_view.verticalScrollBar()
    assert bar.value() == bar.maximum() > 0
    dock.follow.setChecked(False)
    bar.setValue(3)
    lab.pump(fake.warn("one more"))
    assert bar.value() == 3
    dock.follow.setChecked(True)
    assert bar.value() == bar.maximum()


def test_who_scrolls_up_reads_on_undisturbed_and_at_the_end_it_follows_again(lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    for number in range(60):
        fake.warn(f"warning {number}")
    lab.pump(fake)
    bar = dock.events_view.verticalScrollBar()
    bar.triggerAction(bar.SliderAction.SliderPageStepSub)
    there = bar.value()
    assert there < bar.maximum()
    lab.pump(fake.warn("one more"))
    assert bar.value() == there
    assert not dock.follow.isChecked()
    bar.triggerAction(bar.SliderAction.SliderToMaximum)
    lab.pump(fake.warn("and one"))
    assert bar.value() == bar.maximum()
    assert dock.follow.isChecked()


def test_many_events_are_written_some_at_a_time_in_their_order_and_while_they_are_seen(
    qtbot: QtBot, lab: FakeLab, dock: LogDock
) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    lab.pump(fake)
    dock.hide()
    for number in range(350):
        fake.warn(f"warning {number}")
    lab.pump(fake)
    assert "warning" not in dock.events_view.toPlainText()
    dock.show()
    assert 0 < dock.events_view.toPlainText().count("warning") < 200
    lab.pump(fake.warn("the last one"))  # while the others are still written

    def written() -> list[str]:
        return [line.rpartition("  ")[2] for line in dock.events_view.toPlainText().splitlines() if "step" in line][
            -351:
        ]

    wanted = [*(f"warning {number}" for number in range(350)), "the last one"]
    qtbot.waitUntil(lambda: written() == wanted)
    assert dock.events_view.verticalScrollBar().value() == dock.events_view.verticalScrollBar().maximum()


def drained(tail: LogTail) -> list[str]:
    found: list[str] = []
    while lines := tail.read()[0]:
        found += lines
    return found


def test_only_the_end_of_a_huge_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("".join(f"line {number:09d}\n" for number in range(400_000)))
    tail = LogTail(path)
    lines = drained(tail)
    assert lines[-1] == "line 000399999"
    assert sum(len(line) + 1 for line in lines) <= TAIL_BYTES
    assert tail.skipped == path.stat().st_size - TAIL_BYTES


def test_a_replaced_log_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    tail = LogTail(path)
    assert tail.read() == ([], False)
    path.write_text("old and long\n")
    assert tail.read() == (["old and long"], False)
    path.write_text("new\n")
    assert tail.read() == (["new"], True)


def test_escapes_and_progress_bars_and_endless_lines_are_tamed(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"\x1b[31mred\x1b[0m\r\n10 %\r20 %\r30 %\n\xff\x00bad\n" + b"x" * 300_000)
    lines = drained(LogTail(path))
    assert lines[:3] == ["red", "30 %", "\ufffdbad"]
    assert len(lines[3]) < 2100


def test_the_log_follows_its_end_in_every_size(lab: FakeLab, dock: LogDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=1000).start())
    for number in range(60):
        fake.warn(f"Warning {number}: {'a word ' * 30}")  # lines that are wrapped anew in another width
    lab.pump(fake)
    bar = dock.events_view.verticalScrollBar()
    for width, height in ((400, 300), (400, 200), (900, 500), (300, 200)):
        dock.resize(width, height)
        QApplication.processEvents()
        assert dock.follow.isChecked()
        assert bar.value() == bar.maximum() > 0
