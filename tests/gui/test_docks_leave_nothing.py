"""A dock that goes takes everything with it: objects, threads, processes, timers."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import psutil
import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import QCoreApplication, QEvent
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST, background_threads, wait_until_freed

from llmlab.store import checkpoints
from llmlab_gui.finetune import setup as finetune_setup
from llmlab_gui.finetune.data import DataDock
from llmlab_gui.finetune.setup import FinetuneSetupDock
from llmlab_gui.forms import corpus_editor
from llmlab_gui.host.process import ModelHost
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.practice.dock import PracticeDock
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.log import LogDock
from llmlab_gui.train.samples import SamplesDock
from llmlab_gui.train.setup import SetupDock
from llmlab_gui.widgets.theme import theme_notifier
from llmlab_gui.write.dock import WriteDock


def write_dock(lab: FakeLab) -> WriteDock:
    return WriteDock(lab, host=ModelHost(command=FAKE_HOST))


def data_dock(lab: FakeLab) -> DataDock:
    return DataDock(lab, host=ModelHost(command=FAKE_HOST))


def _processes() -> set[int]:
    """Those that this one started, but for the one that others are forked from, which serves later tests, too."""
    template = fork_server.running()
    return {child.pid for child in psutil.Process().children()} - {template.pid if template else 0}


def _use(qtbot: QtBot, dock: LabDock) -> None:
    """Starts what a dock only starts when it is used."""
    if isinstance(dock, WriteDock):
        qtbot.waitUntil(lambda: len(dock.ahead.list.pairs()) == 3)
    if isinstance(dock, DataDock):
        dock.choose("tasks", "mine@300")
        qtbot.waitUntil(lambda: dock.view.preview is not None)
    if isinstance(dock, CheckpointsDock):
        qtbot.waitUntil(lambda: len(dock.model.rows) == 1)


def test_closing_ends_what_hashes_tries_or_scans_however_long_it_would_take(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = background_threads()
    begun, ended = threading.Semaphore(0), threading.Semaphore(0)

    def endless(*arguments: Any) -> None:
        progress = arguments[-1]  # as all of these take it
        begun.release()
        try:
            while True:
                progress("Working", 0, 0)
                time.sleep(0.005)
        finally:
            ended.release()

    monkeypatch.setattr(checkpoints, "verify", endless)
    monkeypatch.setattr(finetune_setup, "probe_unsloth", endless)
    monkeypatch.setattr(corpus_editor, "find_corpus", endless)
    lab, whole_lab = FakeLab(tmp_path), Lab(tmp_path / "none")
    shown = CheckpointsDock(lab)
    setup, scratch = FinetuneSetupDock(whole_lab), SetupDock(whole_lab)
    for widget in (shown, setup, scratch):
        qtbot.addWidget(widget)
    scratch.set_corpus(str(tmp_path))  # what the lab has itself needs no look
    shown.show()
    lab.add(FakeRun(tmp_path).start().advance(9).save_checkpoint())
    qtbot.waitUntil(lambda: len(shown.model.rows) == 1)
    shown.verify()
    setup._probe()
    for _ in range(3):
        qtbot.waitUntil(lambda: begun.acquire(blocking=False))
    for owner in (shown, setup, scratch, whole_lab):
        owner.shutdown()
    assert all(ended.acquire(blocking=False) for _ in range(3))
    assert background_threads() <= threads


@pytest.mark.parametrize(
    "make", [SamplesDock, CheckpointsDock, data_dock, write_dock, LogDock, LearnDock, PracticeDock]
)
def test_a_dock_that_was_used_and_closed_leaves_nothing(
    qtbot: QtBot, tmp_path: Path, make: Callable[[FakeLab], LabDock]
) -> None:
    lab = FakeLab(tmp_path)
    processes, threads = _processes(), background_threads()
    dock = make(lab)
    dock.resize(700, 500)
    dock.show()
    fake = lab.add(FakeRun(tmp_path, steps=2000).start().advance(600).save_checkpoint())
    _use(qtbot, dock)
    theme_notifier.changed.emit()
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents()  # also what its work in the background had told
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    wait_until_freed(qtbot, gone)
    # What still arrives must meet nobody.
    lab.pump(fake.advance(100))
    lab.set_current("")
    theme_notifier.changed.emit()
    assert _processes() == processes
    assert background_threads() <= threads
