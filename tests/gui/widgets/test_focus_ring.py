"""What has the keyboard is outlined, whatever it is, unless the mouse brought the keyboard there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
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
from waits import WAIT

from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.focus_ring import FocusRing
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel
from llmlab_gui.widgets.theme import apply_theme, current_theme


@pytest.fixture
def ring(qapp: QApplication) -> Iterator[FocusRing]:
    made = FocusRing(qapp)
    yield made
    qapp.focusChanged.disconnect(made._move)
    qapp.focusWindowChanged.disconnect(made._listen)
    made.deleteLater()


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
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT)
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
        QTest.mouseClick(window.windowHandle(), Qt.MouseButton.LeftButton, pos=parts[0].geometry().center())
        parts[4].setFocus()
        parts[0].setFocus()
        assert not ringed(window, parts[0])
    finally:
        apply_theme(qapp, "light")


def test_the_ring_goes_with_a_widget_that_is_deleted(ring: FocusRing, qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    first, second = QLineEdit(window), QLineEdit(window)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT)
    second.setFocus()
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_Shift)
    first.setFocus()
    assert first.findChild(QWidget, "focusRing") is not None
    first.deleteLater()
    qtbot.waitUntil(lambda: len(window.findChildren(QLineEdit)) == 1, timeout=WAIT)
    second.clearFocus()
    second.setFocus()
    assert second.findChild(QWidget, "focusRing") is not None
