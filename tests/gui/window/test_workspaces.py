"""Workspaces come back as they were left, docks keep their shares: on docks without content, which cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QByteArray, QPoint, QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QTabBar, QWidget
from pytestqt.qtbot import QtBot
from windows import MakeWindow

from llmlab_gui.lab.window_settings import LAYOUT_VERSION, WindowSettings
from llmlab_gui.pages.places import DOCK_IDS, LEARN, TRAIN, WRITE
from llmlab_gui.window.tour import Tour
from llmlab_gui.window.workspaces import Workspaces


class BareWindow(QMainWindow):
    """All docks by their names, with nothing in them, in the workspace that the settings name."""

    def __init__(self, settings: WindowSettings) -> None:
        super().__init__()
        self.setDockNestingEnabled(True)
        self.resize(1280, 800)
        self.docks = {name: QDockWidget(name, self) for name in DOCK_IDS}
        for name, dock in self.docks.items():
            dock.setObjectName(f"dock.{name}")
            dock.setWidget(QWidget())
        self.workspaces = Workspaces(self, self.docks, settings)
        self.show()

    def settled(self) -> None:
        """What a size or a place brings about comes with the next events."""
        for _ in range(3):
            QApplication.processEvents()
        assert not self.workspaces._resized.isActive()
        assert not self.workspaces._moved.isActive()


@pytest.fixture
def make_window(qtbot: QtBot, tmp_path: Path) -> Callable[[], BareWindow]:
    """Each is opened as after another start."""

    def make() -> BareWindow:
        made = BareWindow(WindowSettings(tmp_path / "window.ini"))
        qtbot.addWidget(made)
        return made

    return make


@pytest.mark.slow
def test_each_workspace_and_the_theme_come_back_as_they_were_left_until_a_reset(
    make_window: Callable[[], BareWindow], make_main_window: MakeWindow, tmp_path: Path
) -> None:
    """Whatever the tour showed of them meanwhile, also where the window is closed in its midst."""
    before = make_window()
    before.docks["log"].hide()
    before.workspaces.use(WRITE)
    assert WindowSettings(tmp_path / "window.ini").workspace == WRITE  # also where the window is killed now
    before.docks["samples"].hide()
    before.workspaces.use(TRAIN)
    before.workspaces.keep()
    window = make_main_window(docks=False)
    window.use_theme("dark")  # before there are docks to be styled anew
    window.furnish()
    assert window.docks["log"].isHidden()
    assert not window.docks["samples"].isHidden()
    window.use_workspace(WRITE)
    assert window.docks["samples"].isHidden()
    assert not window.docks["write"].isHidden()
    window.covers.start_tour()
    assert not window.docks["log"].isHidden()
    window.findChild(Tour).skip_button.click()
    assert window.docks["log"].isHidden()
    window.covers.start_tour()
    window.close_quietly()
    again = make_window()
    assert again.docks["log"].isHidden()
    again.workspaces.use(WRITE)
    assert again.docks["samples"].isHidden()
    again.workspaces.reset()
    assert not again.docks["samples"].isHidden()
    again.workspaces.use(TRAIN)
    assert again.docks["log"].isHidden()
    assert not again.docks["loss"].isHidden()
    assert WindowSettings(tmp_path / "window.ini").theme == "dark"


def test_the_one_arrangement_of_version_0_4_is_that_of_train_and_a_damaged_one_the_default(
    make_window: Callable[[], BareWindow], tmp_path: Path
) -> None:
    before = make_window()
    before.docks["log"].hide()
    stored = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    stored.setValue("window/state", before.saveState(LAYOUT_VERSION))
    damaged = {  # each with a panel that is not in the one before
        "Write": (b"\x00garbage", ("write", "samples")),
        "Look inside": (b"", ("prompt", "attention")),
        "Practice": (b"\x00\x00\x00\xff\x00\x00\x00\x01\xfd" * 7, ("practice", "learn")),
    }
    for workspace, (state, _) in damaged.items():
        stored.setValue(f"workspaces/{workspace}", QByteArray(state))
    stored.setValue("window/geometry", QByteArray(b"\xff" * 20))
    stored.setValue("window/theme", "pink")
    stored.sync()
    settings = WindowSettings(tmp_path / "window.ini")
    assert settings.theme == "system"
    again = make_window()
    size = again.size()
    settings.restore_geometry(again)
    assert again.size() == size
    assert again.docks["log"].isHidden()
    again.workspaces.reset()
    assert not again.docks["log"].isHidden()
    for workspace, (_, docks) in damaged.items():
        again.workspaces.use(workspace)
        assert not any(again.docks[name].isHidden() for name in docks), workspace
        assert again.docks["setup"].isHidden()
    again.workspaces.keep()
    last = make_window()
    assert last.workspaces.current == "Practice"
    last.workspaces.use(TRAIN)
    assert not last.docks["log"].isHidden()


def test_docks_keep_their_shares_whatever_the_size_of_the_window(
    make_window: Callable[[], BareWindow], qtbot: QtBot
) -> None:
    window = make_window()

    def shares() -> tuple[float, ...]:
        docks = (window.docks[name] for name in ("learn", "loss", "setup"))
        return tuple(
            part for dock in docks for part in (dock.width() / window.width(), dock.height() / window.height())
        )

    def near(before: tuple[float, ...]) -> bool:
        return all(abs(now - then) < 0.02 for now, then in zip(shares(), before, strict=True))

    def resize(width: int, height: int) -> None:
        window.resize(width, height)
        window.settled()

    resize(1500, 900)
    window.workspaces.use(LEARN)
    window.settled()
    window.resizeDocks([window.docks["learn"], window.docks["loss"]], [900, 600], Qt.Orientation.Horizontal)
    window.settled()
    qtbot.mouseRelease(window, Qt.MouseButton.LeftButton)  # as a line between docks is let go
    window.settled()
    before = shares()
    assert before[0] > 0.55
    for width, height in ((960, 540), (1500, 900)):  # while it is in sight
        resize(width, height)
    assert near(before), (before, shares())
    window.workspaces.use(TRAIN)
    resize(960, 540)
    window.workspaces.use(LEARN)  # while another one is
    window.docks["samples"].raise_()
    window.settled()
    window.workspaces.use(TRAIN)
    resize(1500, 900)
    window.workspaces.use(LEARN)
    window.docks["setup"].raise_()
    window.settled()
    assert near(before), (before, shares())


def test_what_guests_were_given_goes_back_when_the_last_is_closed(make_window: Callable[[], BareWindow]) -> None:
    """Whatever was clicked meanwhile, also after a visit to another workspace or a restart; not where the learner has
    moved a line."""
    window = make_window()
    window.workspaces.use(LEARN)
    window.settled()
    before = window.docks["loss"].height()

    def bring(name: str) -> None:
        guest = window.docks[name]
        guest.show()
        guest.raise_()
        window.workspaces.make_room(guest)
        window.settled()
        assert 0.35 * window.height() < window.docks["loss"].height() < before - 50

    def close(name: str) -> int:
        window.docks[name].close()
        window.settled()
        return abs(window.docks["loss"].height() - before)

    bring("checkpoints")
    bring("throughput")
    assert close("checkpoints") > 50  # the other one is still there
    widget = window.docks["throughput"].widget()
    assert widget is not None
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
    assert close("throughput") <= 2
    bring("checkpoints")
    window.workspaces.use(WRITE)
    window.settled()
    window.workspaces.use(LEARN)
    window.settled()
    assert close("checkpoints") <= 2
    bring("checkpoints")
    window.workspaces.keep()
    window = make_window()
    window.settled()
    assert not window.docks["checkpoints"].isHidden()
    assert close("checkpoints") <= 2
    bring("checkpoints")
    loss = window.docks["loss"]
    window.resizeDocks([loss], [loss.height() - 30], Qt.Orientation.Vertical)
    window.settled()
    QTest.mouseClick(window, Qt.MouseButton.LeftButton)  # as the line is let go
    window.settled()
    assert close("checkpoints") > 50


def test_sizes_of_docks_that_no_window_has_are_not_taken_from_a_file(tmp_path: Path) -> None:
    kept = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    settings = WindowSettings(tmp_path / "window.ini")
    for size, taken in (([300, 200], True), ([10**12, 200], False), ([0, 200], False), ([300], False), (["a"], False)):
        kept.setValue(f"sizes/{LEARN}", json.dumps({"window": [1280, 640], "docks": {"loss": size}}))
        kept.sync()
        settings._settings.sync()
        assert (settings.dock_sizes(LEARN) is not None) == taken, size


def test_tabs_of_the_workspace_before_are_gone_at_once(make_window: Callable[[], BareWindow], qtbot: QtBot) -> None:
    window = make_window()

    def bars() -> list[set[str]]:
        found = window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly)
        seen = (bar for bar in found if bar.isVisible() and bar.geometry().right() >= 0)
        return [{bar.tabText(place) for place in range(bar.count())} for bar in seen]

    for workspace in (LEARN, TRAIN, LEARN, TRAIN, WRITE):  # the last as at first, after others came back
        window.workspaces.use(workspace)
        titles = {dock.windowTitle() for dock in window.docks.values() if dock.isVisible()}
        assert all(bar <= titles for bar in bars()), (workspace, bars())
        qtbot.waitUntil(lambda: any(bars()))


def test_a_floating_panel_comes_down_when_the_layout_is_reset(make_window: Callable[[], BareWindow]) -> None:
    window = make_window()
    window.docks["samples"].setFloating(True)
    window.workspaces.use(WRITE)
    assert not window.docks["samples"].isFloating()
    window.workspaces.use(TRAIN)
    assert window.docks["samples"].isFloating()
    window.workspaces.reset()
    assert not window.docks["samples"].isFloating()
    assert window.docks["samples"] in window.tabifiedDockWidgets(window.docks["notebook"])


def test_a_window_at_the_edge_of_the_screen_opens_where_it_was(qtbot: QtBot, tmp_path: Path) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    room = QApplication.primaryScreen().availableGeometry()
    for place in (room.topLeft(), room.bottomRight() - QPoint(303, 203), room.center() - QPoint(200, 100)):
        left, again = QMainWindow(), QMainWindow()
        for window in (left, again):
            qtbot.addWidget(window)
        left.resize(300, 200)
        left.move(place)
        left.show()
        settings.save_geometry(left)
        settings.restore_geometry(again)
        again.show()
        assert again.frameGeometry() == left.frameGeometry()
