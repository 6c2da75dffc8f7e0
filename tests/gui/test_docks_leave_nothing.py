"""A dock that goes takes everything with it: objects, threads, processes, timers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import QCoreApplication, QEvent
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import FAKE_HOST

from llmlab_gui.finetune.data import DataDock
from llmlab_gui.host.process import ModelHost
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.log import LogDock
from llmlab_gui.train.samples import SamplesDock
from llmlab_gui.widgets.theme import theme_notifier
from llmlab_gui.write.dock import WriteDock


def write_dock(lab: FakeLab) -> WriteDock:
    return WriteDock(lab, host=ModelHost(command=FAKE_HOST))  # type: ignore[arg-type]


def data_dock(lab: FakeLab) -> DataDock:
    return DataDock(lab, host=ModelHost(command=FAKE_HOST))  # type: ignore[arg-type]


def _use(qtbot: QtBot, dock: LabDock) -> None:
    """Starts what a dock only starts when it is used."""
    if isinstance(dock, WriteDock):
        qtbot.waitUntil(lambda: len(dock.next_list.pairs()) == 3, timeout=WAIT)
    if isinstance(dock, DataDock):
        dock.choose("tasks", "mine@300")
        qtbot.waitUntil(lambda: dock.view.preview is not None, timeout=WAIT)
    if isinstance(dock, CheckpointsDock):
        qtbot.waitUntil(lambda: len(dock.model.rows) == 1, timeout=WAIT)


@pytest.mark.parametrize("make", [SamplesDock, CheckpointsDock, data_dock, write_dock, LogDock, LearnDock])
def test_a_dock_that_was_used_and_closed_leaves_nothing(
    qtbot: QtBot, tmp_path: Path, make: Callable[[FakeLab], LabDock]
) -> None:
    lab = FakeLab(tmp_path)
    processes = set(psutil.Process().children())
    dock = make(lab)
    dock.resize(700, 500)
    dock.show()
    fake = lab.add(FakeRun(tmp_path, steps=2000).start().advance(600).save_checkpoint())
    _use(qtbot, dock)
    theme_notifier.changed.emit()
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    gc.collect()
    # What still arrives must meet nobody.
    lab.pump(fake.advance(100))
    lab.set_current("")
    theme_notifier.changed.emit()
    assert gone() is None
    assert set(psutil.Process().children()) == processes
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("background")]
