"""Names of any length in boxes of choices and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

import llmlab_gui
from llmlab_gui.widgets.labels import EmptyState, ProblemLabel, breakable
from llmlab_gui.widgets.layouts import choice_box
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme


def test_a_long_path_does_not_widen_what_says_why_a_panel_is_empty(qtbot: QtBot) -> None:
    empty = EmptyState()
    qtbot.addWidget(empty)
    path = f"/{'folder' * 20}"
    empty.say(f"There is no model {path}", path)
    assert empty.minimumSizeHint().width() < 200
    assert empty.text == f"There is no model {path} {path}"
    thai = "\u0e17\u0e35\u0e48" * 12  # a letter with two marks, which are above it
    assert breakable(thai) == "\u200b".join(["\u0e17\u0e35\u0e48"] * 12)


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)  # windows of lists
def test_a_long_choice_widens_neither_its_box_nor_the_list_and_is_in_the_tool_tip(qtbot: QtBot) -> None:
    for box in (choice_box("Run"), choice_box("Run", least=12)):
        qtbot.addWidget(box)
        box.addItem("n" * 170)
        box.addItem("short")
        box.resize(box.sizeHint())
        box.show()
        assert box.width() < 300
        box.showPopup()
        assert box.view().window().width() < 500
        assert box.itemData(0, Qt.ItemDataRole.ToolTipRole) == "n" * 170
        assert box.itemData(1, Qt.ItemDataRole.ToolTipRole) is None
        box.hidePopup()


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)  # windows of lists
def test_the_list_of_a_box_has_the_ground_of_lists_in_both_themes(qtbot: QtBot, qapp: QApplication) -> None:
    try:
        for theme in (LIGHT, DARK):
            apply_theme(qapp, theme.name)
            box = choice_box("View", [("a", "first"), ("b", "second")])
            qtbot.addWidget(box)
            box.show()
            box.showPopup()
            second = box.view().visualRect(box.model().index(1, 0)).center()
            ground = box.view().viewport().grab().toImage().pixelColor(2, second.y())
            box.hidePopup()
            assert ground.name() == theme.surface
    finally:
        apply_theme(qapp, "light")
    sources = Path(llmlab_gui.__file__).parent.rglob("*.py")
    assert not [path for path in sources if "QComboBox()" in path.read_text("utf-8")]  # all are made as these are


def test_a_choice_that_fits_is_whole(qtbot: QtBot) -> None:
    for words in ("Logit attribution", "every checkpoint", "Residual stream, layer by token"):
        box = choice_box("View", [("only", words)])
        qtbot.addWidget(box)
        box.resize(box.sizeHint())
        assert box._cut() == words


def test_a_problem_that_begins_with_an_arabic_word_is_read_from_the_left(qtbot: QtBot) -> None:
    label = ProblemLabel()
    qtbot.addWidget(label)
    said = "'\u0645\u0631\u062d\u0628\u0627' cannot be a run's name"
    label.say(said)
    assert label.text() == said
    label.resize(4 * label.fontMetrics().horizontalAdvance(said), 40)
    image = label.grab().toImage()
    ground = image.pixelColor(image.width() - 1, 0)
    drawn = [x for x in range(image.width()) if any(image.pixelColor(x, y) != ground for y in range(image.height()))]
    assert max(drawn) < image.width() / 2
