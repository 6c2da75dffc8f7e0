"""Rows of controls that go on in a second line."""

from __future__ import annotations

from PySide6.QtWidgets import QLabel, QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.layouts import flow


def test_a_label_stays_beside_its_field_and_fields_share_the_room_of_their_line(qtbot: QtBot) -> None:
    first, second = QLineEdit(), QLineEdit()
    label, button = QLabel("against"), tool_button("Export")
    row = flow(QLabel("watch"), first, label, second, right=(button,))
    qtbot.addWidget(row)
    row.show()
    for width in range(first.sizeHint().width() + label.sizeHint().width() + 6, row.sizeHint().width() + 20):
        row.resize(width, row.heightForWidth(width))
        assert _middle(label) == _middle(second)
        assert label.geometry().right() < second.x()
        assert all(part.geometry().right() < width for part in (first, second, button))
        if _middle(button) != _middle(second):  # a line of fields alone
            assert second.geometry().right() >= width - 2
    assert _middle(label) == _middle(first) == _middle(button)  # there was room for all at last


def test_a_row_is_laid_out_anew_when_what_it_holds_has_changed(qtbot: QtBot) -> None:
    label, button = QLabel("short"), tool_button("Export")
    row = flow(label, button)
    qtbot.addWidget(row)
    row.show()
    row.resize(200, row.heightForWidth(200))
    one_line = row.heightForWidth(200)
    label.setText("a text as wide as the row " * 2)
    assert row.heightForWidth(200) > one_line
    row.resize(200, row.heightForWidth(200))
    qtbot.waitUntil(lambda: button.y() > label.geometry().bottom())
    button.hide()
    qtbot.waitUntil(lambda: row.heightForWidth(200) < 2 * one_line)
    button.show()
    label.setText("short")
    qtbot.waitUntil(lambda: _middle(label) == _middle(button))


def _middle(part: QWidget) -> int:
    """Its height in the row, but for a pixel."""
    return part.geometry().center().y() // 4
