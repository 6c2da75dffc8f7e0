"""What all docks have in common: room for their content, and a caption of one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_lab import FakeLab
from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QLabel,
    QLineEdit,
    QMainWindow,
    QMenu,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QWidget,
)
from pytestqt.qtbot import QtBot

from llmlab_gui.lab import dock as dock_module
from llmlab_gui.lab.dock import LabDock, place_beside
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.tab_order import stops


@pytest.fixture
def dock(qtbot: QtBot, tmp_path: Path) -> LabDock:
    made = LabDock(FakeLab(tmp_path), "some", "Some")
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


def test_a_dock_is_never_narrower_than_a_page_says_that_it_has_to_be(qtbot: QtBot, dock: LabDock) -> None:
    wide, body = LabDock(dock.lab, "wide", "Wide"), QWidget()
    qtbot.addWidget(wide)
    body.setMinimumWidth(350)
    wide.set_body(body)
    assert wide.minimumSizeHint().width() >= 350 > dock.minimumSizeHint().width()


def test_what_begins_to_float_comes_beside_its_old_place_inside_the_screen(qtbot: QtBot, dock: LabDock) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
    screen = window.screen().availableGeometry()
    window.resize(300, 200)
    window.show()
    button = dock.findChild(QAbstractButton, "qt_dockwidget_floatbutton")
    title = QPoint(20, 8)
    for float_it in (button.click, lambda: qtbot.mouseDClick(dock, Qt.MouseButton.LeftButton, pos=title)):
        for corner in (screen.topLeft(), screen.bottomRight() - QPoint(320, 220)):
            window.move(corner)
            QApplication.processEvents()
            was = QRect(dock.mapToGlobal(QPoint(0, 0)), dock.size())
            float_it()
            assert dock.isFloating()
            assert screen.contains(dock.geometry())
            assert not dock.geometry().intersects(was)
            dock.setFloating(False)
    dock.setParent(None)  # the window takes its docks along


def test_a_place_beside_is_the_first_that_has_room_and_else_covers_least() -> None:
    screen, size = QRect(0, 0, 1366, 768), QSize(400, 300)
    assert place_beside(QRect(0, 60, 400, 300), size, screen) == QRect(400, 60, 400, 300)
    assert place_beside(QRect(900, 60, 400, 300), size, screen) == QRect(500, 60, 400, 300)
    assert place_beside(QRect(0, 60, 1366, 300), size, screen) == QRect(0, 360, 400, 300)
    assert place_beside(QRect(0, 400, 1366, 300), size, screen) == QRect(0, 100, 400, 300)
    assert place_beside(screen, QSize(2000, 300), screen).width() == 1366
    covered = place_beside(QRect(100, 60, 1200, 700), size, screen).intersected(QRect(100, 60, 1200, 700))
    assert covered.width() * covered.height() == 300 * 300  # to the left: 100 of 400 pixels are free


def test_tab_goes_down_a_dock_to_its_caption_whatever_was_made_when(dock: LabDock, qtbot: QtBot) -> None:
    dock.caption("Some words.", "loss-curves")
    button, table, late = QPushButton("first"), QTableWidget(1, 1), QLineEdit()
    body = column(button, QLabel("no stop"), table)
    dock.set_body(body)
    dock.show()
    body.layout().insertWidget(1, late)
    QApplication.processEvents()
    assert stops(dock.widget()) == [button, late, table, dock._caption.links]
    loose = QPushButton("in no layout", body)
    loose.move(0, table.y() - 1)
    loose.show()
    assert stops(dock.widget()) == [button, late, loose, table, dock._caption.links]
    loose.hide()
    dock.activateWindow()
    qtbot.waitUntil(dock.isActiveWindow)
    button.setFocus()
    for after in (late, table):
        qtbot.keyClick(dock.focusWidget(), Qt.Key.Key_Tab)
        assert dock.focusWidget() is after
    dock.take_keyboard()
    assert dock.focusWidget() is table
    late.setFocus()
    dock.take_keyboard(again=True)
    assert dock.focusWidget() is late
    dock._caption.links.setFocus()  # where Tab leaves a panel
    dock.take_keyboard(again=True)
    assert dock.focusWidget() is table
    dock.show_empty("Nothing", "There is nothing yet.", "Set one up", lambda: None)
    dock.take_keyboard(again=True)
    assert isinstance(dock.focusWidget(), QPushButton)
    assert dock.focusWidget().text() == "Set one up"


def test_the_keyboard_goes_to_the_content_that_comes_without_a_search_through_the_window(
    dock: LabDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, searched = QLineEdit(), list[QWidget]()
    dock.set_body(column(field))
    dock.show_empty("Nothing", "There is nothing yet.", "Set one up", lambda: None)
    dock.show()
    dock.activateWindow()
    qtbot.waitUntil(dock.isActiveWindow)
    dock.take_keyboard()
    assert isinstance(dock.focusWidget(), QPushButton)
    monkeypatch.setattr(dock_module, "move_on", lambda window, **_: searched.append(window))
    dock.show_body()
    assert dock.focusWidget() is field
    assert searched == []


def test_the_keyboard_is_at_nothing_hidden_where_the_content_had_it_at_what_is_disabled_now(
    dock: LabDock, qtbot: QtBot
) -> None:
    button = QPushButton("Train")
    dock.set_body(column(button))
    dock.show()
    dock.activateWindow()
    qtbot.waitUntil(dock.isActiveWindow)
    dock.take_keyboard()
    assert dock.focusWidget() is button
    dock.show_empty("Nothing", "There is nothing yet.", "Set one up", lambda: None)
    button.setEnabled(False)
    dock.show_body()
    assert dock.focusWidget().isVisible()


def test_other_pages_are_offered_at_their_link(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dock = LabDock(FakeLab(tmp_path), "loss", "Loss")
    qtbot.addWidget(dock)
    dock.caption("Some words.", "loss-curves")
    dock.show()
    dock.move(200, 100)
    QApplication.processEvents()
    places: list[QPoint] = []
    monkeypatch.setattr(QMenu, "popup", lambda _menu, place: places.append(place))
    links = dock._caption.links
    links.linkActivated.emit("more:loss-curves")
    assert links.rect().contains(links.mapFromGlobal(places[0]))


def test_a_screen_reader_has_all_words_of_a_caption_that_is_cut_short(dock: LabDock) -> None:
    words = "Every single word of this caption, of which there are more than a narrow dock has room for in one line."
    dock.caption(words, "loss-curves")
    dock.show()
    label = next(label for label in dock.findChildren(QLabel) if label.toolTip() == words)
    assert words not in label.text()
    assert QAccessible.queryAccessibleInterface(label).text(QAccessible.Text.Name) == words


def test_the_keyboard_waits_in_the_panel_from_the_button_that_was_pressed_to_what_it_brings(
    dock: LabDock, qtbot: QtBot
) -> None:
    dock.caption("Some words.", "loss-curves")
    text, elsewhere = QLineEdit(), QLineEdit()
    dock.set_body(column(text))
    dock.set_foot(elsewhere)
    with qtbot.waitActive(dock):
        dock.show()
        dock.activateWindow()
    button = dock._empty._button
    for moved in (False, True):
        dock.show_empty("None is open", "", "Open", lambda: dock.show_empty("Opening…", ""))
        button.setFocus()
        qtbot.keyClick(button, Qt.Key.Key_Space)
        assert dock.focusWidget() is dock._stack
        dock.show_empty("Failed", "", "Open", lambda: dock.show_empty("Opening…", ""))
        assert dock.focusWidget() is button
        qtbot.keyClick(button, Qt.Key.Key_Space)
        if moved:
            elsewhere.setFocus()
        dock.show_body()
        assert dock.focusWidget() is (elsewhere if moved else text)


def test_a_panel_whose_button_had_the_keyboard_once_takes_it_from_no_other_place(dock: LabDock, qtbot: QtBot) -> None:
    text, elsewhere = QLineEdit(), QLineEdit()
    dock.set_body(column(text))
    dock.set_foot(elsewhere)
    dock.show_empty("None is open", "", "Open", lambda: None)
    with qtbot.waitActive(dock):
        dock.show()
        dock.activateWindow()
    dock._empty._button.setFocus()
    elsewhere.setFocus()
    dock.show_empty("Opening…", "")  # for what another panel has opened
    assert QApplication.focusWidget() is elsewhere
    dock.show_body()
    assert QApplication.focusWidget() is elsewhere


def test_what_comes_while_another_window_is_active_has_the_keyboard_when_the_panels_is_again(
    dock: LabDock, qtbot: QtBot
) -> None:
    text, other = QLineEdit(), QLineEdit()
    dock.set_body(column(text))
    dock.show_empty("None is open", "", "Open", lambda: None)
    qtbot.addWidget(other)
    for window in (dock, other):
        with qtbot.waitActive(window):
            window.show()
            window.activateWindow()
        if window is dock:
            dock._empty._button.setFocus()
            dock.show_empty("Opening…", "")
    dock.show_body()
    assert QApplication.activeWindow() is other
    with qtbot.waitActive(dock):
        dock.activateWindow()
    assert QApplication.focusWidget() is text
