"""Windows of the tests, and what is done in them: a dock by itself, a run that really trains."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any, TypeVar

from PySide6.QtCore import QRect
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QStyleOptionViewItem, QTableView, QWidget
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.folder_poller import FolderPoller
from llmlab_gui.window.main_window import MainWindow

# A process that answers as a model's does, at once.
FAKE_HOST = (sys.executable, str(Path(__file__).with_name("fake_host.py")))
MakeWindow = Callable[..., MainWindow]
Dock = TypeVar("Dock", bound=LabDock)
W = TypeVar("W", bound=QWidget)
SMALL = {
    "preset": "baby",
    "model.n_layer": "2",
    "model.n_head": "2",
    "model.n_embd": "32",
    "model.block_size": "32",
    "data.corpus": "tiny",
    "data.batch_size": "4",
    "train.warmup_steps": "5",
    "train.eval_interval": "250",
    "train.eval_sequences": "4",
    "train.sample_interval": "250",
    "train.threads": "1",
    "samples.tokens": "8",
    "checkpoints.interval": "0",
}


class PatientBot(QtBot):
    """Waits as long as any test may, and not pytest-qt's five seconds."""

    waitUntil, waitSignal, waitSignals, waitActive, waitExposed = (
        partialmethod(wait, timeout=WAIT)
        for wait in (QtBot.waitUntil, QtBot.waitSignal, QtBot.waitSignals, QtBot.waitActive, QtBot.waitExposed)
    )


def background_threads() -> set[threading.Thread]:
    """Those of all background work."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("background")}


def shown(widget: W, qtbot: QtBot, width: int = 700, height: int = 500) -> W:
    """A window by itself, of that size."""
    qtbot.addWidget(widget)
    widget.resize(width, height)
    widget.show()
    return widget


@contextmanager
def dock_in_sight(qtbot: QtBot, dock: Dock, width: int, height: int) -> Iterator[Dock]:
    """Shows a dock by itself, and shuts it down at the end."""
    try:
        yield shown(dock, qtbot, width, height)
    finally:
        dock.shutdown()


def look_again(qtbot: QtBot, poller: FolderPoller) -> None:
    """Has it look, and waits until what it found is told. Not with qtbot.waitSignal: a process can crash that
    disconnects from a signal while another thread emits it (PySide 6.11)."""
    looks: list[object] = []
    poller._looked_at.connect(lambda asked, _: looks.append(asked))
    poller.poke()
    qtbot.waitUntil(lambda: poller._asked in looks)


def wait_until_freed(qtbot: QtBot, gone: weakref.ref[Any]) -> None:
    """Collects garbage until nothing holds an object: work in another thread may, until it ends."""

    def freed() -> bool:
        gc.collect()
        return gone() is None

    qtbot.waitUntil(freed)


def first_cell(table: QTableView, text: str) -> str:
    """What can be read of a text in the first column of a table."""
    model = QStandardItemModel(1, 1)
    model.setItem(0, 0, QStandardItem(text))
    option = QStyleOptionViewItem()
    option.initFrom(table)
    option.rect = QRect(0, 0, table.columnWidth(0), 20)
    (table.itemDelegateForColumn(0) or table.itemDelegate()).initStyleOption(option, model.index(0, 0))
    return option.fontMetrics.elidedText(option.text, table.textElideMode(), option.rect.width() - 8)


def make_active(window: QWidget, qtbot: QtBot) -> None:
    """Gives a window the keyboard. The offscreen platform takes one that was hidden and shown again for active still,
    and says nothing to Qt, which does not: another in between helps."""
    QApplication.processEvents()
    if not window.isActiveWindow():
        other = QWidget()
        qtbot.addWidget(other)
        other.show()
        other.activateWindow()
        QApplication.processEvents()
        other.close()
        window.activateWindow()
        qtbot.waitUntil(window.isActiveWindow)


def press_train(window: MainWindow, qtbot: QtBot, name: str, steps: int) -> RunFolder:
    window.lab.setup_requested.emit(SMALL | {"train.steps": str(steps)})
    setup = window.setups.scratch
    setup.name.setText(name)
    qtbot.waitUntil(setup.train_button.isEnabled)
    with qtbot.waitSignal(window.lab.controller.started) as started:
        window.run_actions.train.trigger()
    run: RunFolder = started.args[0]
    return run


def state_of(window: MainWindow, name: str) -> str:
    row = window.lab.row(f"pretraining/{name}")
    return row.status.state if row else ""
