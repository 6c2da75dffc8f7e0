"""What has the keyboard is outlined, whatever it is, unless the mouse brought it there; Enter presses buttons."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QColor, QKeySequence, QShortcut
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QPushButton,
    QSlider,
    QTableWidget,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.focus_ring import FocusRing
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, scrolled
from llmlab_gui.widgets.row_tables import tool_bar
from llmlab_gui.widgets.tab_order import stops
from llmlab_gui.widgets.theme import apply_theme, current_theme


def flat() -> QPushButton:
    button = QPushButton("flat")
    button.setFlat(True)
    return button


def ringed(window: QWidget, widget: QWidget) -> bool:
    """Whether the accent's line runs along the top or bottom of a widget, as the window is painted."""
    image = window.grab().toImage()
    area = widget.rect().translated(widget.mapTo(window, widget.rect().topLeft()))
    middle = area.center().x()
    accent = QColor(current_theme().accent)
    rows = [*range(area.top() - 3, area.top() + 2), *range(area.bottom() - 1, area.bottom() + 4)]
    return sum(image.pixelColor(middle, y) == accent for y in rows) >= 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_ring_shows_what_has_the_keyboard(ring: FocusRing, qapp: QApplication, qtbot: QtBot, theme: str) -> None:
    apply_theme(qapp, theme)
    window = QWidget()
    qtbot.addWidget(window)
    tabs = QTabWidget()
    tabs.addTab(QWidget(), "One tab")
    parts: list[QWidget] = [QPushButton("button"), flat(), PrimaryButton("primary"), QToolButton(), QLineEdit()]
    parts += [QComboBox(), QCheckBox("tick"), QSlider(Qt.Orientation.Horizontal), QListWidget(), QTableWidget(2, 2)]
    parts += [QPlainTextEdit(), QuietLabel('<a href="page">a link</a>')]
    layout = QVBoxLayout(window)
    for part in (*parts, tabs):
        layout.addWidget(part)
    chart = LineChart("loss", "nats")
    layout.addWidget(chart)
    window.resize(400, 1000)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.setFocus()
    try:
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Shift)
        for part in (*parts, tabs.tabBar()):
            part.setFocus()
            assert part.hasFocus(), part
            assert ringed(window, part), part
        for view in chart.findChildren(QWidget):
            if view.focusPolicy() & Qt.FocusPolicy.TabFocus and view.isVisible():
                view.setFocus()
                assert ringed(window, view), view
        window.setFocus()  # as while another workspace comes
        assert ring._ring is None
        QTest.mouseClick(window.windowHandle(), Qt.MouseButton.LeftButton, pos=parts[0].geometry().center())
        parts[4].setFocus()
        parts[0].setFocus()
        assert not ringed(window, parts[0])
        QShortcut(QKeySequence(Qt.Key.Key_F6), window, parts[1].setFocus)
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_F6)
        assert parts[1].hasFocus()
        assert ringed(window, parts[1])
    finally:
        apply_theme(qapp, "light")


def test_the_ring_goes_with_a_widget_that_is_deleted(ring: FocusRing, qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    first, second = QLineEdit(window), QLineEdit(window)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    second.setFocus()
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Shift)
    first.setFocus()
    assert first.findChild(QWidget, "focusRing") is not None
    first.deleteLater()
    qtbot.waitUntil(lambda: len(window.findChildren(QLineEdit)) == 1)
    second.clearFocus()
    second.setFocus()
    assert second.findChild(QWidget, "focusRing") is not None


def test_a_ring_around_a_deleted_widget_takes_no_new_place(ring: FocusRing, qtbot: QtBot) -> None:
    box = QCheckBox("tick")
    window = in_sight(qtbot, box, QLineEdit())
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Shift)
    box.setFocus()
    assert window.findChild(QWidget, "focusRing") is not None
    sizes = [window.size()]
    box.destroyed.connect(lambda: (window.resize(sizes[0] * 2), sizes.append(window.size())))  # the ring is there yet
    box.deleteLater()
    qtbot.waitUntil(lambda: len(sizes) == 2)
    qtbot.waitUntil(lambda: window.findChild(QWidget, "focusRing") is None)


def in_sight(qtbot: QtBot, *parts: QWidget) -> QWidget:
    """A window with one part below the other, each in a row no larger than itself."""
    window = QWidget()
    qtbot.addWidget(window)
    layout = QVBoxLayout(window)
    for part in parts:
        row = QHBoxLayout(holder := QWidget())
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(part)
        layout.addWidget(holder)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.setFocus()
    return window


def test_a_ring_around_what_has_no_room_of_its_own_is_whole_and_leaves_it_whole(ring: FocusRing, qtbot: QtBot) -> None:
    parts = [QSlider(Qt.Orientation.Horizontal), QCheckBox("tick"), QuietLabel('<a href="page">a link</a>')]
    window = in_sight(qtbot, *parts)
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Shift)
    for part in parts:
        part.setFocus()
        drawn = next(found for found in window.findChildren(QWidget, "focusRing") if found.isVisible())
        assert drawn.visibleRegion().boundingRect() == drawn.rect()
        corner = drawn.mapTo(window, drawn.rect().topLeft())
        whole = part.rect().translated(part.mapTo(window, part.rect().topLeft()))
        assert drawn.rect().translated(corner).adjusted(3, 3, -3, -3).contains(whole)


def test_enter_presses_every_kind_of_button_once_and_none_that_it_leads_to(ring: FocusRing, qtbot: QtBot) -> None:
    action, field = QAction("of a bar of tools"), QLineEdit()
    bar = tool_bar({"some": action})
    of_bar = bar.widgetForAction(action)
    buttons = [QPushButton("button"), flat(), PrimaryButton("primary"), QToolButton()]
    window = in_sight(qtbot, *buttons, bar, field)
    assert stops(window) == [*buttons, of_bar, field]
    buttons.append(of_bar)
    pressed: list[QWidget] = []
    for button in buttons:
        button.clicked.connect(lambda _=False, button=button: pressed.append(button))
        button.setFocus()
        for key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            QTest.keyClick(window.windowHandle(), key)
        assert pressed == [button] * 3
        pressed.clear()
    field.returnPressed.connect(buttons[0].setFocus)  # as an answer that was typed leads to Next question
    field.setFocus()
    with qtbot.waitSignal(field.returnPressed):
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Return)
    assert buttons[0].hasFocus()
    assert pressed == []


def test_a_field_that_has_the_keyboard_stays_in_sight_in_less_room_unless_it_was_scrolled_away(qtbot: QtBot) -> None:
    fields, form = [QLineEdit() for _ in range(40)], QWidget()
    layout = QVBoxLayout(form)
    for field in fields:
        layout.addWidget(field)
    area = scrolled(form)
    shown(area, qtbot, 300, 300)
    area.activateWindow()
    qtbot.waitUntil(area.isActiveWindow)

    def in_sight_at(*heights: int) -> list[bool]:
        found = []
        for height in heights:
            area.resize(300, height)
            QApplication.processEvents()
            found.append(not now.visibleRegion().isEmpty())
        return found

    now = [field for field in fields if not field.visibleRegion().isEmpty()][-1]
    now.setFocus()
    assert in_sight_at(300, 150, 300) == [True, True, True]
    area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())
    assert in_sight_at(300, 150, 300) == [False, False, False]


def test_tab_stops_at_the_links_of_a_text_and_passes_a_text_without(ring: FocusRing, qtbot: QtBot) -> None:
    first, last = QLineEdit(), QLineEdit()
    links = QuietLabel('<a href="one">one</a> and <a href="two">two</a>')
    window = in_sight(qtbot, first, QuietLabel("as in the preset"), links, last)
    followed: list[str] = []
    links.linkActivated.connect(followed.append)
    first.setFocus()
    for link in ("one", "two"):
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
        assert links.hasFocus()
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Return)
        assert followed.pop() == link
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
    assert last.hasFocus()
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Return)
    assert followed == ["two"]
    for _ in range(2):
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
    assert first.hasFocus()
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
    links.setText('Training is at step 20. <a href="save">Save now</a>')  # words change while a run trains
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Return)
    assert followed == ["two", "save"]
    links.setText("nothing to follow")
    assert links.focusPolicy() == Qt.FocusPolicy.NoFocus
