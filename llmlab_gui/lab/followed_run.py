"""A followed run: its thread, with the run's id in every signal."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.store.events import Event
from llmlab.store.overview import Overview
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab_gui.lab.run_thread import RunThread


class FollowedRun(QObject):
    """Silent once it is let go."""

    batch = Signal(str, list)
    opened = Signal(str, object)
    status_changed = Signal(str, object)
    failed = Signal(str, object)

    def __init__(self, run: RunFolder, parent: QObject) -> None:
        super().__init__(parent)
        self._id = run.full_name
        self._active = True
        self.status: RunStatus | None = None
        self.follower = RunThread(run)
        self.follower.batch.connect(self._pass_batch)
        self.follower.opened.connect(self._pass_overview)
        self.follower.status_changed.connect(self._pass_status)
        self.follower.failed.connect(self._pass_failure)

    def end(self) -> None:
        """Stops the thread; what it still sends is not passed on."""
        self._active = False
        self.follower.stop()

    def _pass_batch(self, events: list[Event]) -> None:
        if self._active:
            self.batch.emit(self._id, events)

    def _pass_overview(self, overview: Overview) -> None:
        if self._active:
            self.opened.emit(self._id, overview)

    def _pass_status(self, status: RunStatus) -> None:
        if self._active:
            self.status = status
            self.status_changed.emit(self._id, status)

    def _pass_failure(self, error: LabError) -> None:
        if self._active:
            self.failed.emit(self._id, error)
