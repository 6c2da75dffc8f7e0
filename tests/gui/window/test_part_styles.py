"""The colours of the window: of its parts, of lines between docks, of what lies over them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeRun
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QHoverEvent
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QTabBar, QWidget
from pytestqt.qtbot import QtBot
from windows import MakeWindow

from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme, current_theme
from llmlab_gui.window.menus import WorkspaceBar
from llmlab_gui.window.part_styles import PartStyles


@pytest.fixture
def light_after(qapp: QApplication) -> Iterator[None]:
    yield
    apply_theme(qapp, LIGHT.name)


@pytest.mark.usefixtures("light_after")
def test_a_separator_between_docks_has_the_accent_under_the_mouse(qapp: QApplication, qtbot: QtBot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    window.resize(400, 300)
    left, right = QDockWidget("left", window), QDockWidget("right", window)
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, left)
    window.splitDockWidget(left, right, Qt.Orientation.Horizontal)
    PartStyles(window).style_all()
    window.show()
    place = QPoint((left.geometry().right() + right.x()) // 2, left.geometry().center().y())
    assert window.childAt(place) is None
    anywhere = QPoint(-1, -1)
    for theme in (DARK, LIGHT):
        apply_theme(qapp, theme.name)
        QApplication.processEvents()  # the palette is sent
        for point, color in ((place, theme.accent), (anywhere, theme.background)):
            at = QPointF(point)
            moved = QHoverEvent(QEvent.Type.HoverMove, at, window.mapToGlobal(at), QPointF(anywhere))
            QApplication.sendEvent(window, moved)
            assert window.grab().toImage().pixelColor(place).name() == color


def test_the_name_of_a_tab_is_never_cut(qtbot: QtBot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    docks = [QDockWidget(name, window) for name in ("Learning rate and gradient norm", "Throughput", "Log")]
    for dock in docks:
        dock.setWidget(QWidget())
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
    for dock in docks[1:]:
        window.tabifyDockWidget(docks[0], dock)
    PartStyles(window).style_all()
    window.resize(200, 200)  # has room for less than the first of them
    window.show()
    QApplication.processEvents()
    (bar,) = window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly)
    for place, dock in enumerate(docks):
        assert bar.tabRect(place).width() > bar.fontMetrics().horizontalAdvance(dock.windowTitle())


def test_no_line_is_under_the_workspaces_where_they_are_beside_the_model(qtbot: QtBot) -> None:
    window = QMainWindow()  # as where the menus are at the top of the screen
    qtbot.addWidget(window)
    bar = WorkspaceBar(lambda _: None, window)
    window.addToolBar(bar)
    PartStyles(window).style_all()
    window.show()
    bottom = bar.grab().toImage().pixelColor(1, bar.height() - 1)
    assert bottom.name() == current_theme().background


def test_a_window_that_is_collected_with_what_styles_its_parts_says_nothing(
    qapp: QApplication, capfd: pytest.CaptureFixture[str]
) -> None:
    window = QMainWindow()
    window.styles = PartStyles(window)
    window.show()
    qapp.processEvents()
    del window
    gc.collect()
    assert "eventFilter" not in capfd.readouterr().err


@pytest.mark.usefixtures("light_after")
def test_what_the_welcome_and_the_status_say_has_the_colours_of_the_theme(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path
) -> None:
    window = make_main_window(docks=False)
    qtbot.waitUntil(window.covers.welcome.isVisible)
    window.use_theme(DARK.name)  # a later theme than that in which the welcome was made
    for label in window.covers.welcome.findChildren(QuietLabel):
        assert label.palette().windowText().color().name() == DARK.quiet
    FakeRun(outputs).start().advance(10).finish()
    state = window.status.state
    qtbot.waitUntil(lambda: state.palette().windowText().color().name() == DARK.good)
    window.use_theme(LIGHT.name)
    QApplication.processEvents()
    assert state.palette().windowText().color().name() == LIGHT.good
    window.hide()  # what is out of sight is styled later
    window.use_theme(DARK.name)
    window.show()
    assert state.palette().windowText().color().name() == DARK.good
