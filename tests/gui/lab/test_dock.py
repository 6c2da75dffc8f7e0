"""What all docks have in common: room for their content, and a caption of one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_lab import FakeLab
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QApplication, QLabel, QScrollArea, QWidget
from pytestqt.qtbot import QtBot

from llmlab_gui.lab.dock import LabDock
from llmlab_gui.widgets.layouts import column


@pytest.fixture
def dock(qtbot: QtBot, tmp_path: Path) -> LabDock:
    made = LabDock(FakeLab(tmp_path), "some", "Some")  # type: ignore[arg-type]
    qtbot.addWidget(made)
    made.resize(300, 200)
    return made


def test_what_comes_into_a_small_dock_is_scrolled_and_not_squeezed(dock: LabDock) -> None:
    more = QWidget()
    more.setMinimumHeight(400)
    more.hide()
    body = column(QLabel("always there"), more)
    dock.set_body(body)
    dock.show_body()
    dock.show()
    QApplication.processEvents()
    bar = dock.findChild(QScrollArea).verticalScrollBar()
    assert bar.maximum() == 0
    more.show()
    QApplication.processEvents()
    assert body.height() >= more.height() == 400
    assert bar.maximum() > 0
    more.hide()
    QApplication.processEvents()
    assert bar.maximum() == 0


def test_a_screen_reader_has_all_words_of_a_caption_that_is_cut_short(dock: LabDock) -> None:
    words = "Every single word of this caption, of which there are more than a narrow dock has room for in one line."
    dock.caption(words, "loss-curves")
    dock.show()
    label = next(label for label in dock.findChildren(QLabel) if label.toolTip() == words)
    assert words not in label.text()
    assert QAccessible.queryAccessibleInterface(label).text(QAccessible.Text.Name) == words
