"""The window: its docks and their places, the first start, runs that appear, and closing with a live run."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fake_experiments import FakeExperiment
from fakes import FakeRun
from PySide6.QtCore import QMimeData, QObject, QPoint, QRect, Qt, QUrl
from PySide6.QtGui import QAction, QDragEnterEvent, QDragLeaveEvent, QDropEvent, QGuiApplication, QPalette
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QGraphicsView,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QScrollArea,
    QTabBar,
    QTableView,
    QTableWidget,
    QTextEdit,
    QWidget,
)
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import MakeWindow, make_active

from llmlab.core.errors import LabError
from llmlab.core.presets import load_preset
from llmlab.core.run_settings import RunSettings
from llmlab.jobs.queue import QueuedRun
from llmlab.notebook.predictions import Prediction
from llmlab.store import requests
from llmlab_gui.finetune.setup import FinetuneSetupDock
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.lab.dock import is_seen
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.pages.places import DOCK_IDS, EXPERIMENTS, LEARN, LOOK_INSIDE, PAPER, PRACTICE, TRAIN, WORKSPACES
from llmlab_gui.train import run_actions
from llmlab_gui.train.run_setup import PlannedRun
from llmlab_gui.widgets.focus_ring import FocusRing
from llmlab_gui.widgets.labels import QuietLabel, Scrolled
from llmlab_gui.widgets.tab_order import stops
from llmlab_gui.widgets.theme import DARK, LIGHT, current_theme, style_sheet
from llmlab_gui.window import closing
from llmlab_gui.window.about import ShortcutsDialog
from llmlab_gui.window.closing import CloseChoice, StoppingDialog
from llmlab_gui.window.main_window import MainWindow
from llmlab_gui.window.tour import Tour
from llmlab_gui.write.dock import WriteDock

pytestmark = pytest.mark.long
_INTERACTIVE = (
    *(QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QGraphicsView, QLineEdit),
    *(QPlainTextEdit, QTabBar, QTextEdit),
)


def watched_run(outputs: Path, name: str = "mine", steps: int = 1000) -> FakeRun:
    """A live run that a window started."""
    fake = FakeRun(outputs, name, steps=steps, created=time.time())
    fake.run.write_info(replace(fake.run.info(), watched=True))
    return fake.start().advance(100)


def settled(qtbot: QtBot, window: MainWindow) -> MainWindow:
    """Waits for the first look at the outputs folder."""
    qtbot.waitUntil(lambda: window.lab.looked)
    return window


# Docks ---------------------------------------------------------------------------------------------------------


def test_every_dock_is_there_under_its_name_and_in_the_view_menu(same_window: MainWindow) -> None:
    window = same_window
    assert set(window.docks) == set(DOCK_IDS)
    names = [dock.objectName() for dock in window.docks.values()]
    assert names == [f"dock.{dock_id}" for dock_id in window.docks]
    view = next(action.menu() for action in window.menuBar().actions() if action.text() == "&View")
    panels = next(action.menu() for action in view.actions() if action.text() == "Panels")
    groups = [action.menu().actions() for action in panels.actions()]
    assert all(any(dock.toggleViewAction() in group for group in groups) for dock in window.docks.values())
    assert all(len(group) <= 12 for group in groups)
    at_a_title = window.createPopupMenu()  # of a right click there
    assert at_a_title.actions() == panels.actions()
    assert at_a_title.sizeHint().height() < 400


def test_a_panel_is_scrolled_to_where_it_was_left_when_its_workspace_is_in_sight_again(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    window = same_window
    window.resize(1366, 768)
    window.use_workspace(TRAIN)
    form = window.docks["setup"]
    window.show_dock("setup")
    bar = form.findChild(Scrolled).verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 100)
    QTest.qWait(50)  # what has the keyboard was scrolled into sight
    bar.setValue(bar.maximum() - 20)
    left = bar.value()
    window.use_workspace(LEARN)
    window.use_workspace(TRAIN)
    qtbot.waitUntil(lambda: bar.value() == left)


def tabs_outside(window: MainWindow, bottom: int) -> list[str]:
    """Tabs of docks that are not whole in sight above `bottom`."""
    found = []
    room = QRect(0, 0, window.width(), bottom)
    for bar in window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly):
        parked = bar.geometry().right() < 0  # Qt keeps bars that are not needed out of sight
        for tab in range(0 if parked or not bar.isVisible() else bar.count()):
            across = bar.tabRect(tab).translated(bar.geometry().topLeft())
            there = QRect(across.left(), bar.y(), across.width(), bar.height())  # a chosen tab is drawn larger
            if not room.contains(there):
                found.append(bar.tabText(tab))
    return found


@pytest.mark.slow
def test_every_workspace_fits_a_laptop_with_long_names_and_a_message_under_it(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    """1280 x 640 is what the smallest laptops leave a window: all docks, all tabs and the status bar lie inside."""
    window = same_window
    FakeRun(window.lab.outputs, "a-run-with-a-long-name" * 7, steps=2000).start().advance(600)
    qtbot.waitUntil(lambda: window.lab.current() is not None)
    window.resize(1280, 640)
    places: dict[str, list[QRect]] = {}
    for number, workspace in enumerate((*WORKSPACES, TRAIN, EXPERIMENTS, LOOK_INSIDE)):
        if number == len(WORKSPACES):
            window.lab.error_raised.emit(LabError("The disk is full. " * 20))
        window.use_workspace(workspace)
        QApplication.processEvents()
        assert (window.width(), window.height()) == (1280, 640), workspace
        shown = [dock for dock in window.docks.values() if is_seen(dock)]
        assert len(shown) >= 3
        inside = QRect(0, 0, 1280, window.status.geometry().top())
        assert window.status.geometry().bottom() < 640
        for place, dock in enumerate(shown):
            assert inside.contains(dock.geometry()), (workspace, dock.objectName())
            for other in shown[place + 1 :]:
                assert not dock.geometry().intersects(other.geometry()), (dock.objectName(), other.objectName())
        # Bars are placed after the docks, and some are made anew.
        qtbot.waitUntil(lambda: not tabs_outside(window, window.status.geometry().top()))
        places.setdefault(workspace, [dock.geometry() for dock in shown])
    bar = window.covers.messages
    assert bar.isVisible()
    assert bar.height() >= bar.heightForWidth(bar.width())
    assert bar.geometry().top() > window.status.geometry().bottom()  # nothing is hidden by it
    assert bar.geometry().bottom() < 640
    bar.dismiss()
    for workspace in (LOOK_INSIDE, TRAIN):  # the docks have their shares again
        window.use_workspace(workspace)
        for _ in range(3):
            QApplication.processEvents()
        there = [dock.geometry() for dock in window.docks.values() if is_seen(dock)]
        for before, now in zip(places[workspace], there, strict=True):
            assert before.adjusted(-2, -2, 2, 2).contains(now)  # shares of a height are rounded
            assert now.adjusted(-2, -2, 2, 2).contains(before)


@pytest.mark.slow
def test_no_panel_of_a_small_window_scrolls_sideways(same_window: MainWindow, qtbot: QtBot) -> None:
    """Only what is in one may: wide tables and grids."""
    window = same_window
    window.resize(960, 540)
    for workspace in WORKSPACES:
        window.use_workspace(workspace)
        for dock in [dock for dock in window.docks.values() if not dock.isHidden()]:
            dock.raise_()
            room = dock.widget().findChild(QScrollArea, options=Qt.FindChildOption.FindDirectChildrenOnly)

            def fits(room: QScrollArea = room, where: tuple[str, str] = (workspace, dock.objectName())) -> None:
                assert room.horizontalScrollBar().maximum() == 0, where
                bar = room.verticalScrollBar().sizeHint().width()  # where it also scrolls up and down
                assert room.widget().minimumSizeHint().width() <= room.width() - bar, where

            qtbot.waitUntil(fits)  # a page of Learn comes a little later
        assert (window.width(), window.height()) == (960, 540), workspace


@pytest.mark.slow
def test_tables_show_five_rows_and_their_chief_columns_on_a_laptop(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    outputs = window.lab.outputs
    for number in range(6):
        FakeRun(outputs, f"run-{number}", steps=20, created=1.7e9 + number).predict("val_loss=1.9..2.2@80%").start()
        FakeExperiment(outputs, f"rates-{number}")
    window.lab.refresh()
    window.docks["experiments"].desk.refresh()
    window.lab.notebook.refresh()
    window.resize(1366, 720)  # what title bar and panel leave of 768
    experiments, notebook = window.docks["experiments"], window.docks["notebook"]
    runs = window.docks["runs"].table
    for workspace, dock, table, columns in (
        ("Train", "runs", runs, ("Name", "State", "Val loss")),
        ("Compare runs", "runs", runs, ("Name", "State", "Val loss", "Step", "Loss")),
        ("Train", "notebook", notebook.table, ("About", "Predicted", "Outcome")),
        ("Experiments", "notebook", notebook.table, ("About", "Predicted", "Outcome")),
        ("Experiments", "experiments", experiments.table, ("Experiment", "State", "Runs")),
        ("Experiments", "experiments", experiments.study.trials_table, ("Value", "State", "Step", "Val loss")),
        ("Experiments", "experiment", window.docks["experiment"].plan_table, ("Value", "Seed", "Time")),
        ("Paper", "claims", window.docks["claims"].table, ("Claim", "Verdict", "You expected")),
    ):
        if window.workspaces.current != workspace:
            window.use_workspace(workspace)
        window.show_dock(dock)

        def has_room(table: QTableView = table, where: tuple[str, str] = (workspace, dock)) -> None:
            assert table.isVisible(), where
            assert table.model().rowCount() > 0, where
            rows = table.viewport().height() / table.verticalHeader().defaultSectionSize()
            assert rows >= 5, (*where, table.accessibleName(), rows)

        qtbot.waitUntil(has_room)
        titles = [table.model().headerData(at, Qt.Orientation.Horizontal) for at in range(table.model().columnCount())]
        for title in columns:
            at = titles.index(title)
            assert table.columnViewportPosition(at) + table.columnWidth(at) <= table.viewport().width(), (dock, title)
    window.resize(1280, 640)
    window.use_workspace(PRACTICE)

    def spare() -> int:
        """Pixels above what Notebook needs."""
        return notebook._room.viewport().height() - notebook._room.widget().minimumSizeHint().height()

    row = notebook.table.verticalHeader().defaultSectionSize()  # another font may need more than this one
    # The docks have their places a little later.
    qtbot.waitUntil(lambda: notebook.table.isVisible() and spare() >= row)


@pytest.mark.slow
def test_a_name_of_170_characters_makes_nothing_wider_than_its_dock(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    name = ("a-name-as-long-as-a-folder-may-have-" * 5)[:170]
    run = FakeRun(window.lab.outputs, name, steps=20).predict("val_loss=1.9..2.2@80%").start().advance(9)
    FakeExperiment(window.lab.outputs, name[:59])
    window.lab.refresh()
    window.docks["experiments"].desk.refresh()
    window.lab.notebook.refresh()
    qtbot.waitUntil(lambda: window.lab.row(run.run.full_name) is not None)
    window.lab.set_current(run.run.full_name)
    window.resize(1366, 720)
    wide = []
    for dock_id, dock in window.docks.items():
        window.show_dock(dock_id)
        QApplication.processEvents()
        for widget in dock.findChildren(QWidget):
            right = widget.mapTo(dock, QPoint(widget.width(), 0)).x()
            if widget.isVisible() and not widget.isWindow() and right > dock.width() + 1:
                wide.append((dock_id, type(widget).__name__, widget.accessibleName(), right, dock.width()))
    assert wide == [], wide
    for menu in (window.menus.recent, window.model_bar.menu):
        menu.aboutToShow.emit()
        assert menu.sizeHint().width() < 683, menu.title()  # half of the screen
        assert any(name in action.toolTip() for action in menu.actions())
    box = window.docks["evolution"].run_box
    qtbot.waitUntil(lambda: box.findText(name) >= 0)
    box.setCurrentIndex(box.findText(name))  # another test's run may have been chosen before
    assert box.sizeHint().width() < 300


def test_the_workspaces_are_in_the_toolbar_and_under_keys(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    actions = window.workspace_bar.actions()
    assert [action.text() for action in actions] == list(WORKSPACES)
    window.use_workspace(WORKSPACES[0])
    assert [action.isChecked() for action in actions] == [True] + [False] * (len(WORKSPACES) - 1)
    keys = [f"Ctrl+{digit}" for digit in "1234567890"] + [""] * len(WORKSPACES)
    assert [action.shortcut().toString() for action in actions] == keys[: len(WORKSPACES)]
    actions[1].trigger()
    assert actions[1].isChecked()
    assert window.docks["attention"].isVisible()
    window.use_workspace(WORKSPACES[6])
    assert actions[6].isChecked()
    told = ShortcutsDialog(window.menus.shortcuts(), window).findChild(QTableWidget)
    names = [told.item(row, 0).text() for row in range(told.rowCount())]
    assert len(set(names)) == len(names)  # Train is a command and a workspace, Compare a panel, too
    assert "Panel: Learning rate & gradient norm" in names
    told.parent().deleteLater()


def test_every_dock_can_be_shown_in_every_workspace_and_then_has_the_keyboard(same_window: MainWindow) -> None:
    window = same_window
    for number, workspace in enumerate(WORKSPACES):
        window.use_workspace(workspace)
        for dock_id, dock in list(window.docks.items())[number % 6 :: 6]:  # each of them in every sixth workspace
            window.show_dock(dock_id)
            assert dock.isVisible(), (workspace, dock_id)
            assert dock.widget().isAncestorOf(window.focusWidget()), (workspace, dock_id)
            assert window.dockWidgetArea(dock) != Qt.DockWidgetArea.NoDockWidgetArea


@pytest.mark.slow
def test_a_theme_is_given_to_what_is_in_sight_at_once_and_to_the_rest_before_it_is_seen(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    window = same_window
    chosen = window.settings.theme
    parts = [*window.docks.values(), window.menuBar(), window.status, window.train_bar]
    late = [dock for dock in window.docks.values() if dock.isHidden()]
    seen = [part for part in parts if part.isVisible()]
    assert seen
    assert late

    def quiet(dock: QWidget) -> set[str]:
        return {label.palette().color(QPalette.ColorRole.WindowText).name() for label in dock.findChildren(QuietLabel)}

    field = cast("FinetuneSetupDock", window.docks["finetune_setup"]).form.fields["train.learning_rate"]
    assert window.docks["finetune_setup"] in late
    cast("QLineEdit", field.editor.focusProxy()).setText("fast")
    try:
        window.use_theme("dark")
        waits = QApplication.overrideCursor()
        assert waits is not None
        assert waits.shape() == Qt.CursorShape.WaitCursor
        dark = style_sheet(DARK)
        assert {part.styleSheet() for part in seen} == {dark}
        assert {dock.styleSheet() for dock in late} == {style_sheet(LIGHT)}
        assert window.styleSheet() == ""  # or else Qt would style all parts at once
        late[-1].show()
        assert late[-1].styleSheet() == dark
        qtbot.waitUntil(lambda: {part.styleSheet() for part in parts} == {dark})
        assert QApplication.overrideCursor() is None
        assert set().union(*map(quiet, window.docks.values())) == {DARK.quiet}
        assert field.row.problem.palette().color(QPalette.ColorRole.WindowText).name() == DARK.bad
        assert field.editor.focusProxy().palette().color(QPalette.ColorRole.Text).name() == DARK.bad
        dialog = QDialog(window)
        dialog.show()
        assert dialog.styleSheet() == dark
        dialog.close()
        dialog.deleteLater()
    finally:
        field.reset()
        window.use_theme(chosen)
        window.reset_layout()


def test_a_panel_that_a_page_opens_beside_it_can_be_read(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    for width, height in ((1280, 640), (960, 540)):
        window.resize(width, height)
        window.use_workspace(LEARN)
        window.reset_layout()
        qtbot.wait(20)
        window.lab.dock_requested.emit("walk")
        walk, loss = window.docks["walk"], window.docks["loss"]

        def is_large(walk: QWidget = walk, loss: QWidget = loss) -> None:
            assert is_seen(walk)
            assert walk.height() > 1.3 * loss.height(), (walk.height(), loss.height())
            assert walk.width() > 380

        qtbot.waitUntil(is_large)


def test_an_arrangement_outlasts_minimising_and_hiding(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    window.docks["samples"].hide()
    window.showMinimized()
    QApplication.processEvents()
    window.showNormal()
    qtbot.wait(50)  # what a show brings about comes with the next events
    assert window.docks["samples"].isHidden()
    window.hide()
    window.show()
    qtbot.wait(50)
    assert window.docks["samples"].isHidden()


def test_what_is_asked_for_is_shown_also_where_its_panel_was_closed(
    same_window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = same_window
    monkeypatch.setattr(window.lab.inspection, "open", lambda reference: None)
    window.use_workspace("Look inside")
    window.reset_layout()
    for name in ("prompt", "attention"):
        window.docks[name].hide()
    window.look_inside("nothing@final")
    assert not window.docks["prompt"].isHidden()
    assert window.docks["attention"].isHidden()
    window.reset_layout()
    window.use_workspace("Paper")
    for name in ("paper", "claims", "evidence"):
        window.docks[name].hide()
    window.lab.paper_requested.emit("grokking", "")
    assert not window.docks["paper"].isHidden()
    assert window.docks["claims"].isHidden()
    window.lab.paper_requested.emit("grokking", "any")
    assert not window.docks["claims"].isHidden()
    window.docks["check"].hide()
    window.check_paper()
    assert not window.docks["check"].isHidden()
    window.reset_layout()
    QApplication.processEvents()
    window.look_inside("nothing@final")  # Attention is in Paper, too, but behind Evidence
    assert window.workspace_bar.actions()[1].isChecked()


def test_every_input_has_an_accessible_name(same_window: MainWindow) -> None:
    window = same_window
    kinds = ("QLineEdit", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QSlider", "QTableView", "QPlainTextEdit")
    nameless = [
        f"{widget.metaObject().className()} in {_dock_of(widget)}"
        for widget in window.findChildren(QWidget)
        if widget.metaObject().className() in kinds
        and not widget.accessibleName()
        and not widget.objectName().startswith("qt_")
        and "ViewBox" not in type(widget.parent()).__name__
    ]
    assert not nameless


def keyboard_in(window: MainWindow, dock_id: str) -> bool:
    """Whether the keyboard is at something in a dock that is in sight."""
    dock, now = window.docks[dock_id], QApplication.focusWidget()
    return now is not None and dock.isAncestorOf(now) and is_seen(dock) and now in stops(dock.widget())


def whole(*widgets: QWidget) -> bool:
    """Whether nothing covers them or cuts them off."""
    return all(widget.visibleRegion().boundingRect() == widget.rect() for widget in widgets)


def only_bars_of_docks(window: MainWindow) -> bool:
    """Whether every bar of tabs in sight is whole, and has the titles of docks that are shown."""
    titles = {dock.windowTitle() for dock in window.docks.values() if dock.isVisible()}
    bars = [bar for bar in window.children() if isinstance(bar, QTabBar) and bar.isVisible()]
    return all(whole(bar) and {bar.tabText(place) for place in range(bar.count())} <= titles for bar in bars)


@pytest.mark.slow
def test_tab_goes_through_what_is_in_sight_from_the_top_down_with_its_ring_whole(
    ring: FocusRing, same_window: MainWindow, qtbot: QtBot
) -> None:
    window = same_window
    for workspace in (TRAIN, LOOK_INSIDE, EXPERIMENTS, PAPER):
        window.use_workspace(workspace)
        QApplication.processEvents()
        qtbot.waitUntil(lambda: only_bars_of_docks(window))  # those of before go a little later
        make_active(window, qtbot)  # a window of an earlier test may have taken the keyboard as it went
        # By a key, or there is no ring yet: where an earlier test left the panel at a link, Tab only goes to its next.
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_F6)
        qtbot.waitUntil(lambda: QApplication.focusWidget() is window.focusWidget())
        found = [window.focusWidget()]
        while len(found) == 1 or found[-1] not in found[:-1]:
            QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
            QApplication.processEvents()
            now = QApplication.focusWidget()
            where = (workspace, _dock_of(now), now)
            assert ring._ring is not None, where
            assert ring._ring.isVisible(), where
            qtbot.waitUntil(partial(whole, ring._ring))
            if isinstance(now, QLabel):
                assert now.hasSelectedText(), where  # a link of it
            else:
                assert isinstance(now, _INTERACTIVE), where
            if now is not found[-1]:  # else it is at its next link
                found.append(now)
            assert len(found) < 150, where
        assert set(found) == set(stops(window)), workspace
        docks = [_dock_of(widget) for widget in found[:-1] if _dock_of(widget) != "the window"]
        seen = {f"dock.{name}" for name, dock in window.docks.items() if is_seen(dock)}
        assert set(docks) == seen
        assert len([1 for before, after in pairwise(docks) if before != after]) <= len(seen)  # one after the other
        for widget in found[-2::-1]:
            for _ in range(20):  # through its links
                QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab, Qt.KeyboardModifier.ShiftModifier)
                if QApplication.focusWidget() is widget:
                    break
            assert QApplication.focusWidget() is widget, workspace


def test_the_keyboard_goes_to_another_workspace_by_way_of_no_other_control(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    window = same_window
    window.keyboard._had.clear()  # in Look inside, an earlier test may have left it elsewhere
    window.use_workspace(TRAIN)
    window.show_dock("runs")
    qtbot.waitUntil(lambda: keyboard_in(window, "runs"))
    went: list[QWidget | None] = []
    told = QApplication.instance().focusChanged.connect(lambda _, now: went.append(now))
    window.use_workspace(LOOK_INSIDE)
    qtbot.waitUntil(lambda: keyboard_in(window, "prompt"))
    QObject.disconnect(told)
    assert {now for now in went if now is not window} == {QApplication.focusWidget()}  # no button on its way


@pytest.mark.slow
def test_the_keyboard_goes_with_the_workspace_and_from_panel_to_panel(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    for workspace in (LOOK_INSIDE, EXPERIMENTS, PAPER, TRAIN):
        window.use_workspace(workspace)
        window.reset_layout()  # an earlier test brought every panel there to the front
    QApplication.processEvents()
    window.keyboard._had.clear()
    window.show_dock("samples")
    for number, panel in ((2, "prompt"), (5, "paper"), (1, "samples"), (4, "experiment")):
        QTest.keyClick(window.windowHandle(), str(number), Qt.KeyboardModifier.ControlModifier)
        qtbot.waitUntil(lambda panel=panel: keyboard_in(window, panel))
    window.use_workspace(TRAIN)
    qtbot.waitUntil(lambda: keyboard_in(window, "samples"))
    for panel in ("runs", "setup", "loss", "learning_rate"):
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_F6)
        assert keyboard_in(window, panel)
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_F6, Qt.KeyboardModifier.ShiftModifier)
    assert keyboard_in(window, "loss")
    QTest.keyClick(window.windowHandle(), Qt.Key.Key_F6)
    for panel in ("throughput", "log", "learning_rate"):
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_PageDown, Qt.KeyboardModifier.ControlModifier)
        qtbot.waitUntil(lambda panel=panel: keyboard_in(window, panel))
    window.docks["log"].raise_()  # as a click on its tab does
    qtbot.waitUntil(lambda: keyboard_in(window, "log"))
    window.docks["log"].hide()
    qtbot.waitUntil(lambda: any(keyboard_in(window, name) for name in ("learning_rate", "throughput")))
    window.docks["setup"].setFloating(True)  # a window of its own
    window.show_dock("setup")
    for panel in ("setup", "runs", "loss"):
        qtbot.waitUntil(lambda panel=panel: keyboard_in(window, panel))
        window.keyboard.go(1)
    window.docks["setup"].setFloating(False)


# The first start -----------------------------------------------------------------------------------------------


def test_without_runs_one_button_trains_the_default_preset_and_stays_where_it_is_when_the_docks_are_made(
    ring: FocusRing, make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docks that need more than the screen has made the window grow under the mouse."""
    window = settled(qtbot, make_main_window(docks=False))
    window.resize(1280, 640)
    keys, welcome = window.windowHandle(), window.covers.welcome
    qtbot.waitUntil(welcome.isVisible)
    QApplication.processEvents()
    buttons = [welcome.train_button, welcome.setup_button, welcome.tour_button, welcome.hour_button]
    before = [button.mapToGlobal(button.rect().topLeft()) for button in buttons]
    window.furnish()
    for _ in range(3):
        QApplication.processEvents()
    assert [button.mapToGlobal(button.rect().topLeft()) for button in buttons] == before
    assert (window.width(), window.height()) == (1280, 640)
    window.reset_layout()
    QApplication.processEvents()
    found = window.childAt(welcome.mapTo(window, welcome.rect().center()))
    assert found is welcome or welcome.isAncestorOf(found)

    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    asked: list[str] = []
    then: list[Callable[[], object]] = []

    def start(settings: RunSettings, name: str | None, preset: str, *, begun: Callable[[], object]) -> None:
        asked.append(preset)
        then.append(begun)

    monkeypatch.setattr(window.lab.controller, "start", start)
    QTest.keyClick(keys, Qt.Key.Key_Return)
    assert asked == ["baby"]
    warned: list[str] = []

    def cancel(window: QWidget, title: str, text: str, *more: object, **how: object) -> str:
        warned.append(text)
        return ""

    monkeypatch.setattr(run_actions, "ask", cancel)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
        QTest.keyClick(keys, Qt.Key.Key_Return)
    assert len(asked) == len(warned) == 1  # nothing is begun that cannot be saved, unless someone wants it
    assert warned[0].startswith("Only 1.0 MB of disk are free for up to ")
    stopped = [welcome.train_button]
    while len(stopped) < 20 and (len(stopped) == 1 or stopped[-1] is not stopped[0]):
        QTest.keyClick(keys, Qt.Key.Key_Tab)
        stopped.append(QApplication.focusWidget())
    assert stopped == [*buttons, window.model_bar.button, welcome.train_button]  # nothing that lies under the welcome
    window.workspaces.use(LOOK_INSIDE)  # where the window was closed
    then[0]()
    assert window.workspaces.current == TRAIN  # where the run that was started shows
    FakeRun(outputs).start().advance(10).finish()
    window.lab.refresh()
    qtbot.waitUntil(lambda: not window.covers.welcome.isVisible())
    assert window.docks["loss"].isEnabled()


def test_the_tour_goes_through_the_window_and_is_remembered(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    window.settings.tour_seen = False
    window.covers.start_tour()
    tour = window.findChild(Tour)
    assert tour is not None
    for _ in range(2):  # round the card, whose Back is not to be had yet
        assert tour.next_button.hasFocus()
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
        assert tour.skip_button.hasFocus()
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Tab)
    titles = []
    edge = tour.card.grab().toImage().pixelColor(0, tour.card.height() // 2)
    assert edge.name() == current_theme().edge  # it stands out from the panels that it lies over
    while tour.isVisible():
        titles.append(tour.title.text())
        assert window.rect().contains(tour.card.geometry())
        tour.next_button.click()
    assert len(titles) == len(set(titles)) >= 4
    assert window.settings.tour_seen


@pytest.mark.slow
def test_escape_a_workspace_and_a_hidden_panel_end_the_tour_and_a_new_size_moves_it(
    same_window: MainWindow, qtbot: QtBot
) -> None:
    window = same_window

    def start() -> Tour:
        window.covers.start_tour()
        tour = window.covers.tour
        assert tour is not None
        QApplication.processEvents()
        return tour

    def escape() -> None:
        window.docks["write"].show()
        window.docks["write"].raise_()
        QApplication.processEvents()
        prompt = cast("WriteDock", window.docks["write"]).prompt
        prompt.setFocus()
        qtbot.keyClick(prompt, Qt.Key.Key_Escape)

    def key_of_the_system() -> None:
        window.docks["runs"].setFocus()
        QTest.keyClick(window.windowHandle(), Qt.Key.Key_Escape)

    tour = start()
    window.resize(1100, 720)
    qtbot.waitUntil(lambda: tour.geometry() == window.rect())
    target = window.docks["setup"]
    corner = target.mapTo(window, QPoint(0, 0))
    assert tour._outline().contains(QRect(corner, target.size()).adjusted(4, 4, -4, -4))
    assert window.rect().contains(tour.card.geometry())
    ways: list[Callable[[], object]] = [
        escape,
        key_of_the_system,
        lambda: window.use_workspace("Write"),
        lambda: window.show_dock("log"),
        window.docks["setup"].hide,
        window.reset_layout,
    ]
    for way in ways:
        start()  # goes on with one that has begun
        way()
        qtbot.waitUntil(lambda: window.covers.tour is None)
        assert not any(shown.isVisible() for shown in window.findChildren(Tour))


# Runs that appear ----------------------------------------------------------------------------------------------


def test_a_run_started_elsewhere_appears_and_moves(make_main_window: MakeWindow, qtbot: QtBot, outputs: Path) -> None:
    window = settled(qtbot, make_main_window(docks=False))
    fake = FakeRun(outputs, "headless", steps=1000).start().advance(50)
    qtbot.waitUntil(lambda: window.status.steps.text() == "step 50 of 1,000")
    assert "headless" in window.windowTitle()
    fake.advance(150)
    qtbot.waitUntil(lambda: window.status.steps.text() == "step 200 of 1,000")
    assert len(window.lab.history("pretraining/headless").step_columns) == 200
    assert "tokens/s" in window.status.speed.text()
    assert "left" in window.status.left.text()


def test_the_status_bar_cuts_a_name_and_a_message_only_where_they_have_no_room(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path
) -> None:
    window = settled(qtbot, make_main_window(docks=False))
    window.resize(1280, 640)
    name, bar = "20261201-191530-baby-shakespeare-of-eight-layers-without-dropout", window.status
    FakeRun(outputs, name).start().advance(50)
    qtbot.waitUntil(lambda: bar.steps.text() == "step 50 of 1,000")
    assert bar.state.text().startswith(f"{name} · ")
    window.lab.said.emit("It waits.")
    assert bar.seen() == "It waits."
    said = "What is said at length is seen as far as it has room. " * 9
    window.lab.said.emit(said)
    QApplication.processEvents()
    assert bar.seen() != said
    assert said.startswith(bar.seen().removesuffix("…"))
    assert bar.fontMetrics().horizontalAdvance(bar.seen()) < bar.state.x()
    assert bar.toolTip() == said


def test_a_run_that_begins_elsewhere_leaves_the_chosen_one_alone(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path
) -> None:
    FakeRun(outputs, "old").start().advance(100).finish()
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(lambda: window.lab.row("pretraining/old") is not None)
    window.lab.set_current("pretraining/old")
    with qtbot.waitSignal(window.lab.run_appeared):
        FakeRun(outputs, "new", created=time.time()).start().advance(10)
    current = window.lab.current()
    assert current is not None
    assert current.run.id == "old"


def test_actions_are_enabled_as_the_state_allows(make_main_window: MakeWindow, qtbot: QtBot, outputs: Path) -> None:
    window = settled(qtbot, make_main_window(docks=False))
    actions = window.run_actions
    assert not any(a.isEnabled() for a in (actions.pause, actions.resume, actions.stop, actions.save))
    fake = FakeRun(outputs).start().advance(10)

    def enabled() -> list[str]:
        return [a.text() for a in (actions.pause, actions.resume, actions.stop, actions.save) if a.isEnabled()]

    qtbot.waitUntil(lambda: enabled() == ["Pause", "Stop", "Save now"])
    fake.pause()
    qtbot.waitUntil(lambda: enabled() == ["Resume", "Stop", "Save now"])
    fake.unpause().stop()
    qtbot.waitUntil(lambda: enabled() == ["Resume"])


def test_pause_and_resume_of_the_toolbar_reach_the_run(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRun(outputs).start().advance(10)
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(window.run_actions.pause.isEnabled)
    window.run_actions.pause.trigger()
    assert [request.name for request in requests.take(fake.run.requests)] == ["pause"]
    fake.pause()
    qtbot.waitUntil(window.run_actions.resume.isEnabled)
    window.run_actions.resume.trigger()
    assert [request.name for request in requests.take(fake.run.requests)] == ["resume"]
    monkeypatch.setattr(TrainingNow, "ask", lambda *_: "cancel")  # of a run that trains now
    window.run_actions.resume.trigger()
    assert requests.take(fake.run.requests) == []


@pytest.mark.slow
def test_a_second_run_at_once_is_asked_about_and_a_text_and_a_run_are_opened_by_a_drop(
    make_main_window: MakeWindow, qtbot: QtBot, tmp_path: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a window of its own: a run that is done is a base for fine-tuning, whose data a panel then reads."""
    fake = FakeRun(outputs, steps=10).start().advance(5)
    window = settled(qtbot, make_main_window())
    qtbot.waitUntil(lambda: window.lab.current() is not None)
    qtbot.waitUntil(window.setups.scratch.train_button.isEnabled)
    starts: list[str] = []
    monkeypatch.setattr(
        window.lab.controller, "start", lambda settings, name, preset, predictions, begun: starts.append(preset)
    )
    for answer, paused, started in (("pause", 1, 1), ("beside", 0, 1), ("cancel", 0, 0)):
        monkeypatch.setattr(TrainingNow, "ask", lambda *_, may_wait, answer=answer: answer)
        window.run_actions.train.trigger()
        assert [request.name for request in requests.take(fake.run.requests)] == ["pause"] * paused, answer
        assert starts == ["baby"] * started, answer
        starts.clear()

    # One that ends while a prediction is written is not asked to pause.
    errors: list[LabError] = []
    window.lab.error_raised.connect(errors.append)

    def predict(_: PlannedRun) -> list[Prediction]:
        fake.advance(10).finish()
        qtbot.waitUntil(lambda: not window.lab.row(fake.run.full_name).status.live)
        return []

    monkeypatch.setattr(TrainingNow, "ask", lambda *_, may_wait: "pause")
    monkeypatch.setattr(window.run_actions, "ask_prediction", predict)
    window.run_actions.train.trigger()
    assert starts == ["baby"]
    assert requests.take(fake.run.requests) == []
    assert errors == []

    text = tmp_path / "mine.txt"
    text.write_text("It was a dark and stormy night. " * 500)
    _drop(window, text)
    setup = window.setups.scratch
    qtbot.waitUntil(lambda: setup.corpus.value() == str(text))
    qtbot.waitUntil(lambda: setup.corpus.corpus is not None)
    assert setup.plan().settings.data.corpus == str(text)
    guest = FakeRun(tmp_path / "elsewhere", "guest").start().advance(40).save_checkpoint().finish()
    _drop(window, guest.run.path)
    qtbot.waitUntil(lambda: len(window.lab.history("pretraining/guest").step_columns) == 40)
    with qtbot.waitSignal(window.lab.write_requested) as asked:
        _drop(window, guest.run.checkpoints / "step-00000040")
    assert asked.args == ["pretraining/guest", "step-00000040"]


@pytest.mark.parametrize(("steps", "resumed"), [(1500, [{"train.steps": 1500}]), (None, [])])
def test_resuming_a_finished_run_asks_for_more_steps(
    make_main_window: MakeWindow,
    qtbot: QtBot,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int | None,
    resumed: list[dict[str, int]],
) -> None:
    FakeRun(outputs, steps=100).start().advance(100).finish()
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(window.run_actions.resume.isEnabled)
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(window.lab.controller, "resume", lambda run, overrides, **_: asked.append(overrides))
    monkeypatch.setattr(window.run_actions, "ask_steps", lambda row: steps)
    window.run_actions.resume.trigger()
    assert asked == resumed


# Errors and drops ----------------------------------------------------------------------------------------------


def test_escape_dismisses_a_message_before_it_ends_work(same_window: MainWindow, qtbot: QtBot) -> None:
    window, ended = same_window, list[bool]()
    window.show_dock("interventions")
    dock = window.docks["interventions"]
    strip = ProgressStrip(window.covers.looking, dock.widget())
    strip.cancel_button.clicked.connect(lambda: ended.append(True))
    strip.show()
    for floats in (False, True):
        dock.setFloating(floats)
        window.show_dock("interventions")
        qtbot.waitUntil(lambda: window.keyboard.holder() is dock)
        window.lab.error_raised.emit(LabError("Something else."))
        for pressed in (0, 1):
            holder = QApplication.focusWidget()
            assert holder is not None
            qtbot.keyClick(holder, Qt.Key.Key_Escape)
            assert window.covers.messages.isHidden()
            assert len(ended) == pressed + floats
    strip.setParent(None)
    dock.setFloating(False)


def test_errors_are_shown_one_at_a_time_and_can_be_waved_away(make_main_window: MakeWindow, qtbot: QtBot) -> None:
    window = settled(qtbot, make_main_window(docks=False))
    assert window.covers.messages.isHidden()
    window.lab.error_raised.emit(LabError("The disk is <full>.", "0 bytes are free.", "Free some space."))
    window.lab.error_raised.emit(LabError("Something else."))
    assert window.covers.messages.isVisible()
    assert "Something else" in window.covers.messages.text.text()
    window.covers.messages.close_button.click()
    assert "The disk is &lt;full&gt;." in window.covers.messages.text.text()
    assert "Free some space." in window.covers.messages.text.text()
    qtbot.keyClick(window.model_bar.button, Qt.Key.Key_Escape)
    assert window.covers.messages.isHidden()
    bar = window.covers.messages
    for where in (bar, bar.text, bar._sign, bar._count):
        window.lab.error_raised.emit(LabError("It goes away wherever it is clicked."))
        qtbot.mouseClick(where, Qt.MouseButton.LeftButton)
        assert bar.isHidden(), where
    window.lab.error_raised.emit(LabError("It can be copied."))
    bar.text.setSelection(0, 5)
    qtbot.mouseRelease(bar.text, Qt.MouseButton.LeftButton)  # the end of a selection
    assert bar.isVisible()
    bar.dismiss()
    gone, stays = LabError("The run failed."), LabError("The disk is full.")
    for error in (gone, stays):
        window.lab.error_raised.emit(error)
    window.lab.error_over.emit(gone)
    assert bar.messages == [stays]
    window.lab.error_over.emit(stays)
    assert bar.isHidden()


def _drop(window: MainWindow, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    actions = Qt.DropAction.CopyAction | Qt.DropAction.MoveAction
    event = QDropEvent(QPoint(50, 50), actions, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    event.setDropAction(Qt.DropAction.MoveAction)  # as programs propose that move what they drag
    window.dropEvent(event)
    assert event.isAccepted()
    assert event.dropAction() == Qt.DropAction.CopyAction


def test_the_window_refuses_a_picture_while_it_is_dragged_and_frames_itself_for_a_text(
    same_window: MainWindow, tmp_path: Path
) -> None:
    window = same_window
    for name, lands in (("picture.png", False), ("text.txt", True)):
        (tmp_path / name).write_text("x")
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(tmp_path / name))])
        buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        entered = QDragEnterEvent(QPoint(5, 5), Qt.DropAction.CopyAction, data, buttons, keys)
        QApplication.sendEvent(window, entered)
        frame = window.findChild(QWidget, "drop frame", Qt.FindChildOption.FindDirectChildrenOnly)
        assert (entered.isAccepted(), frame is not None) == (lands, lands)
    QApplication.sendEvent(window, QDragLeaveEvent())
    assert frame is not None
    assert not frame.isVisible()


def test_closing_says_which_runs_are_paused_and_what_would_start_more(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for name, paused in (("one", True), ("two", False)):
        fake = FakeRun(outputs, name).start().advance(10)
        run = fake.pause().run if paused else fake.run
        rows.append(RunRow(run, run.info(), run.status()))
    said: list[str] = []

    def ask(_parent: object, _title: str, text: str, *_more: object, **_answers: object) -> str:
        said.append(text)
        return "keep"

    monkeypatch.setattr(closing.question, "ask", ask)
    for chosen in (rows[:1], rows[1:], rows):
        assert closing.ask(QWidget(), chosen) is CloseChoice.KEEP
    closing.ask(QWidget(), rows[1:], 0, [SimpleNamespace(id="rates")])
    assert said.pop() == "two is still training. rates has not ended either, and may start more runs."
    assert said == ["one is paused.", "two is still training.", "2 runs have not ended: one, two."]


def test_a_dropped_picture_is_refused_in_a_sentence(same_window: MainWindow, qtbot: QtBot, tmp_path: Path) -> None:
    window = same_window
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"\x89PNG")
    _drop(window, picture)
    qtbot.waitUntil(window.covers.messages.isVisible)
    assert "cat.png" in window.covers.messages.text.text()
    window.covers.messages.dismiss()


def test_debug_information_names_versions_and_folders(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path
) -> None:
    window = settled(qtbot, make_main_window(docks=False))
    window.findChild(QAction, "action.debug").trigger()
    text = QGuiApplication.clipboard().text()
    for wanted in ("LLM Learning Lab", "Python 3", "Qt 6", "torch", "Theme light", str(outputs)):
        assert wanted in text


# Closing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(make_main_window: MakeWindow, qtbot: QtBot, outputs: Path) -> tuple[MainWindow, FakeRun]:
    fake = watched_run(outputs)
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(lambda: window.lab.row("pretraining/mine") is not None)
    return window, fake


def _answer(monkeypatch: pytest.MonkeyPatch, choice: CloseChoice) -> list[list[str]]:
    asked: list[list[str]] = []

    def ask(_parent: QWidget, rows: list, *_: object) -> CloseChoice:
        asked.append([row.run.id for row in rows])
        return choice

    monkeypatch.setattr(closing, "ask", ask)
    return asked


def test_closing_can_be_cancelled(live: tuple[MainWindow, FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    window, fake = live
    asked = _answer(monkeypatch, CloseChoice.CANCEL)
    assert not window.close()
    assert asked == [["mine"]]
    assert window.isVisible()
    assert requests.take(fake.run.requests) == []


def test_closing_can_leave_the_run_training(live: tuple[MainWindow, FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    window, fake = live
    _answer(monkeypatch, CloseChoice.KEEP)
    assert window.close()
    assert not window.isVisible()
    assert requests.take(fake.run.requests) == []


def test_closing_can_stop_the_run_and_waits_for_it(
    live: tuple[MainWindow, FakeRun], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, fake = live
    _answer(monkeypatch, CloseChoice.STOP)
    assert not window.close()
    dialog = window.findChild(StoppingDialog)
    assert dialog is not None
    assert "mine" in dialog.text.text()
    assert window.isVisible()
    assert [request.name for request in requests.take(fake.run.requests)] == ["stop"]
    fake.stop()
    qtbot.waitUntil(lambda: not window.isVisible())


def test_the_window_is_not_left_before_the_queue_is_paused(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched_run(outputs)
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(lambda: window.lab.row("pretraining/mine") is not None)
    window.lab.queue.add(QueuedRun(load_preset("nano").settings, "next", "nano"))
    qtbot.waitUntil(lambda: len(window.lab.queue.waiting()) == 1)
    _answer(monkeypatch, CloseChoice.STOP)
    queue, written = window.lab.queue.queue, threading.Event()
    pause = queue.set_paused

    def slowly(paused: bool) -> None:
        written.wait(WAIT / 1000)
        pause(paused)

    monkeypatch.setattr(queue, "set_paused", slowly)
    assert not window.close()
    dialog = window.findChild(StoppingDialog)
    try:
        assert not dialog.leave.isEnabled()
        assert "The queue: being paused" in dialog.text.text()
    finally:
        written.set()
    qtbot.waitUntil(dialog.leave.isEnabled)
    assert queue.read().paused
    dialog.leave.click()
    qtbot.waitUntil(lambda: not window.isVisible())


def test_closing_does_not_ask_about_runs_of_a_terminal(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRun(outputs, "headless").start().advance(10)
    window = settled(qtbot, make_main_window(docks=False))
    qtbot.waitUntil(lambda: window.lab.row("pretraining/headless") is not None)
    asked = _answer(monkeypatch, CloseChoice.CANCEL)
    assert window.close()
    assert asked == []


def _dock_of(widget: QWidget | None) -> str:
    while widget is not None and not widget.objectName().startswith("dock."):
        widget = widget.parentWidget()
    return widget.objectName() if widget else "the window"
