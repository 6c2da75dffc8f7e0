"""Windows of the tests: fresh settings each, closed and waited for, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forks_for_qt
import pytest
import shiboken6
from PySide6.QtCore import QCoreApplication, QEvent, Qt, QThread, QTimer
from PySide6.QtGui import QWindow
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from waits import SECONDS
from whole_lab import WholeLab
from windows import MakeWindow, PatientBot, background_threads, make_active

from llmlab_gui.lab import folder_poller, run_queue
from llmlab_gui.lab.book import Asking
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.pages.places import TRAIN, WORKSPACES
from llmlab_gui.train import checkpoints, run_setup
from llmlab_gui.widgets import theme
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.focus_ring import FocusRing
from llmlab_gui.widgets.theme import LIGHT, apply_theme, current_theme, style_sheet
from llmlab_gui.window.main_window import MainWindow

_CLOCKS = (QThread, QTimer)


@pytest.fixture
def qtbot(qapp: QApplication, request: pytest.FixtureRequest) -> QtBot:
    return PatientBot(request)


@pytest.fixture(autouse=True, scope="session")
def quick_looks() -> None:
    """What the window looks at about once a second it looks at ten times a second."""
    folder_poller.INTERVAL_SECONDS = 0.1
    run_queue._LOOK_MS = checkpoints._LOOK_MS = run_setup._AGAIN_MS = 100


@pytest.fixture(autouse=True, scope="session")
def forked_for_qt() -> None:
    forks_for_qt.install()


@pytest.fixture(autouse=True, scope="module")
def light(qapp: QApplication) -> None:
    """The theme in which a file begins, whichever one the file before it left."""
    _light(qapp)


@pytest.fixture(autouse=True, scope="module")
def not_collected_elsewhere() -> None:
    """As in the application: a collection in another thread would free Qt objects there, which can end the process.
    The next file's begin collects on this thread, and then lets all threads collect again."""
    gc.disable()


@pytest.fixture(autouse=True, scope="module")
def no_background_left(not_collected_elsewhere: None) -> Iterator[None]:
    """A file whose background work goes on fails, and not a file after it that looks at all threads.

    What tests do not shut down ends when it is collected: nothing may hold it once it has told what it did last.
    """
    before = background_threads()
    yield
    until = time.monotonic() + SECONDS
    while (left := background_threads() - before) and time.monotonic() < until:
        QCoreApplication.sendPostedEvents()
        gc.collect()
        for thread in left:
            thread.join(0.05)
    assert not left


@pytest.fixture(autouse=True)
def collected_on_this_thread(not_collected_elsewhere: None, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    request.node.funcargs.clear()  # or what the file's last test had would outlive the file
    gc.collect(1)


@pytest.fixture(autouse=True)
def no_window_left(collected_on_this_thread: None, qapp: QApplication) -> Iterator[None]:
    """A test that leaves a top-level widget fails."""
    widgets = {id(widget): widget for widget in QApplication.topLevelWidgets()}
    yield
    delete_now()
    left = [widget for widget in QApplication.topLevelWidgets() if id(widget) not in widgets and _counts(widget)]
    assert not left, f"top-level widgets left: {left}"


@pytest.fixture(autouse=True)
def keys_let_go(qapp: QApplication) -> Iterator[None]:
    """A key that a test pressed together with Shift, Ctrl or Alt leaves them down: the next would choose ranges."""
    yield
    if qapp.keyboardModifiers():
        QTest.keyRelease(QWindow(), Qt.Key.Key_Shift)  # an event of any key says which others are down: none


@pytest.fixture
def ring(qapp: QApplication) -> Iterator[FocusRing]:
    """What has the keyboard is outlined, and Enter presses it, as in the application."""
    made = FocusRing(qapp)
    yield made
    qapp.focusChanged.disconnect(made._move)
    qapp.focusWindowChanged.disconnect(made._listen)
    made.deleteLater()


@pytest.fixture
def lab(qtbot: QtBot, outputs: Path) -> Iterator[WholeLab]:
    """What the docks of a window share, on the test's outputs folder."""
    made = WholeLab(outputs)
    yield made
    made.shutdown()


@pytest.fixture
def make_main_window(qtbot: QtBot, tmp_path: Path, outputs: Path) -> Iterator[MakeWindow]:
    """`make_main_window()` opens a window of 1280 x 800 on the test's outputs folder, light, with fresh settings.

    asks: for a prediction before a run starts. docks: without them the window is as it is before it made them, which
    takes a second.
    """
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    _light(app)
    threads = set(threading.enumerate())
    before = _alive(*_CLOCKS, Background)  # also what rests: the file's window may start it any time
    others = [thing for thing in before if isinstance(thing, Background)]  # of the file's window, if it has one
    windows: list[MainWindow] = []

    def make(*, show: bool = True, asks: bool = False, docks: bool = True) -> MainWindow:
        windows.append(_main_window(outputs, tmp_path / "window.ini", asks=asks, docks=docks))
        if show:
            windows[-1].show()
        return windows[-1]

    yield make
    for window in windows:
        window.close_quietly()
        window.deleteLater()
    delete_now()
    windows.clear()
    gc.collect()
    delete_now()
    left = [thing for thing in _alive(*_CLOCKS) if _runs(thing) and id(thing) not in {id(other) for other in before}]
    assert not left, f"still running after the window closed: {left}"
    alive = set(threading.enumerate()) - threads
    for other in others:  # their threads begin with the first work there is for them
        alive -= other._pool._threads if other._pool is not None else set()
    assert not alive, f"threads left: {alive}"


@pytest.fixture(scope="module")
def window_of_the_file(qapp: QApplication, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainWindow]:
    """One window on an empty outputs folder, in sight, for all tests of a file; the welcome does not lie over it."""
    _light(qapp)
    folder = tmp_path_factory.mktemp("window")
    window = _main_window(folder, folder / "window.ini", asks=False, docks=True)
    window.covers.wave_welcome()
    window.show()
    yield window
    window.close_quietly()
    window.deleteLater()
    delete_now()


@pytest.fixture
def same_window(window_of_the_file: MainWindow, qapp: QApplication, qtbot: QtBot) -> MainWindow:
    """The file's window, in Train as at the first start: for tests that start nothing and leave no choice made."""
    window, kept = window_of_the_file, {"workspaces", "sizes", "guests"}
    qtbot.waitUntil(lambda: window.lab.looked)
    window.setWindowState(Qt.WindowState.WindowNoState)
    window.show()
    window.resize(1280, 800)
    if current_theme() != LIGHT:
        apply_theme(qapp, LIGHT.name)
    # Docks out of sight come to the theme later, also to the one that an earlier test went back to.
    qtbot.waitUntil(lambda: {dock.styleSheet() for dock in window.docks.values()} == {style_sheet(LIGHT)})
    window.covers.end_tour()
    while window.covers.messages.messages:
        window.covers.messages.dismiss()
    before = window.workspaces.current
    as_it_was = before == TRAIN and window.saveState() == window.property("as at first")
    if not as_it_was or kept & set(window.settings._settings.childGroups()):
        for workspace in WORKSPACES:
            window.settings.forget_docks(workspace)
        if before == TRAIN:
            window.reset_layout()
        else:  # with nothing kept of Train, it is arranged as at first
            window.use_workspace(TRAIN)
            window.settings.forget_docks(before)
    make_active(window, qtbot)
    window.setProperty("as at first", window.saveState())
    return window


def _light(app: QApplication) -> None:
    """The colours of tests. A theme that is chosen again styles all that lives once more."""
    if theme._choice is None or current_theme() != LIGHT:
        apply_theme(app, LIGHT.name)


def _main_window(outputs: Path, ini: Path, *, asks: bool, docks: bool) -> MainWindow:
    settings = WindowSettings(ini)
    settings.save_choices("notebook/asking", Asking(before_runs=asks))
    window = MainWindow(outputs, settings, later=not docks)
    window._furnish_when_seen = False
    window.setWindowState(Qt.WindowState.WindowNoState)  # the offscreen screen is small
    window.resize(1280, 800)
    return window


def delete_now() -> None:
    """Carries out every `deleteLater` that is due."""
    for _ in range(3):  # deleting one thing can ask for another to be deleted
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _alive(*kinds: type) -> list[Any]:
    """All objects of some classes. Classes first: isinstance of each would wake other packages' deprecated proxies."""
    objects = gc.get_objects()
    wanted = {kind for kind in set(map(type, objects)) if issubclass(kind, kinds)}
    return [one for one in objects if type(one) in wanted]


def _runs(one: QThread | QTimer) -> bool:
    if not shiboken6.isValid(one):
        return False
    return one.isActive() if isinstance(one, QTimer) else one.isRunning() and one is not QThread.currentThread()


def _counts(widget: QWidget) -> bool:
    """Qt keeps tool tips and drag images of its own for later, and the list of a box as long as the box; pyqtgraph's
    plots have menus without a parent."""
    kinds = ("QTipLabel", "QShapedPixmapWidget", "QComboBoxPrivateContainer", "QMenu")
    return shiboken6.isValid(widget) and widget.metaObject().className() not in kinds
