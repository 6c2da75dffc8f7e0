"""Names of any length in boxes of choices."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from llmlab_gui.widgets.layouts import choice_box


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


def test_a_choice_that_fits_is_whole(qtbot: QtBot) -> None:
    for words in ("Logit attribution", "every checkpoint", "Residual stream, layer by token"):
        box = choice_box("View", [("only", words)])
        qtbot.addWidget(box)
        box.resize(box.sizeHint())
        assert box._cut() == words
