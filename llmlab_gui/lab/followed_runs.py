"""The runs that are shown, followed as they train: their histories, and their status sooner than the list has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.store.events import Event
from llmlab.store.history import RunHistory
from llmlab.store.overview import Overview
from llmlab.store.run_folder import RunStatus
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.run_watcher import RunWatcher


class FollowedRuns(QObject):
    """Owns the thread that reads them; `shutdown()` waits for it. Each signal begins with the id of a run."""

    events_arrived = Signal(str, list)  # list[Event] in order; the history has them
    history_reset = Signal(str)  # what was there was cut back or read anew
    status_changed = Signal(str, object)  # RunStatus
    failed = Signal(str, object)  # LabError; the run is not looked at any more

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._statuses: dict[str, RunStatus | None] = {}  # of those that are followed, as the watcher saw them
        self._subjects: dict[str, tuple[Path, float]] = {}  # their folders, and when they were made
        self._histories: dict[str, RunHistory] = {}
        self._watcher = RunWatcher(self)
        self._watcher.batch.connect(self._take_events)
        self._watcher.opened.connect(self._take_overview)
        self._watcher.status_changed.connect(self._take_status)
        self._watcher.failed.connect(self.failed)
        self._watcher.start()

    def follow(self, rows: Iterable[RunRow]) -> None:
        """These runs from now on, and no others."""
        shown = {row.id: row for row in rows}
        for run_id in list(self._statuses):
            if run_id in shown and _subject(shown[run_id]) == self._subjects[run_id]:
                continue
            del self._statuses[run_id], self._subjects[run_id]
            self._histories.pop(run_id, None)
            self._watcher.let_go(run_id)
        for run_id, row in shown.items():
            if run_id not in self._statuses:
                self._statuses[run_id] = None
                self._subjects[run_id] = _subject(row)
                self._histories[run_id] = RunHistory()
                self._watcher.follow(row.run)

    def history(self, run_id: str) -> RunHistory:
        """What happened in a run so far; filled while it is followed."""
        return self._histories.setdefault(run_id, RunHistory())

    def with_newer_status(self, row: RunRow) -> RunRow:
        """A row of the list, with the status that was seen here where the run is followed."""
        status = self._statuses.get(row.id) if self._subjects.get(row.id) == _subject(row) else None
        return row if status is None else replace(row, status=status)

    def started(self, run_id: str) -> None:
        """A worker was started for this run: what was seen is from before."""
        if run_id in self._statuses:
            self._statuses[run_id] = None

    def shutdown(self) -> None:
        """Tells nothing more, and waits until the thread has ended."""
        self._watcher.stop()
        self._statuses.clear()
        self._watcher.wait()

    def _take_events(self, run_id: str, events: list[Event]) -> None:
        if self.history(run_id).extend(events):
            self.history_reset.emit(run_id)
        self.events_arrived.emit(run_id, events)

    def _take_overview(self, run_id: str, overview: Overview) -> None:
        self.history(run_id).load(overview)
        self.history_reset.emit(run_id)

    def _take_status(self, run_id: str, status: RunStatus) -> None:
        self._statuses[run_id] = status
        self.status_changed.emit(run_id, status)


def _subject(row: RunRow) -> tuple[Path, float]:
    """Which run it is: one that came to nothing gives up its folder's name to another one."""
    return row.run.path, row.info.created
