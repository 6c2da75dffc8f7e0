"""Looks once a second for runs and for what changed about them, away from the window's thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject

from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus
from llmlab.store.run_log import first_started
from llmlab_gui.lab.folder_poller import FolderPoller, Seen, read_changed
from llmlab_gui.lab.run_rows import RunRow, newest_first


@dataclass
class _SeenRun:
    files: Seen[RunInfo, RunStatus]
    parameters: int | None


class RunsPoller(FolderPoller):
    """`found` has every readable run, newest first, at the first look and whenever something is different."""

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs = outputs
        self._seen: dict[Path, _SeenRun] = {}
        self._extra: tuple[RunFolder, ...] = ()

    def add(self, run: RunFolder) -> None:
        """From the next look on also at a run that lies elsewhere, while none here has its track and id. From any
        thread."""
        self._extra = (*self._extra, run)
        self.outdate()

    def look(self) -> list[RunRow]:
        here = list_runs(self._outputs)
        taken = {run.full_name for run in here}
        elsewhere = (run for run in self._extra if run.full_name not in taken)
        looked_at = ((run.path, self._read(run)) for run in (*here, *elsewhere))
        self._seen = {path: seen for path, seen in looked_at if seen is not None}
        rows = [
            RunRow(RunFolder(path), seen.files.asked, seen.files.status, seen.parameters)
            for path, seen in self._seen.items()
            if seen.files.asked is not None
        ]
        return newest_first(rows)

    def _read(self, run: RunFolder) -> _SeenRun | None:
        if self.stopping:
            return None
        before = self._seen.get(run.path)
        asked, status = (run.run_json, run.info), (run.status_json, run.status)
        files = read_changed(before.files if before is not None else None, asked, status, self.failed.emit)
        if files is None:
            return None
        parameters = before.parameters if before is not None else None
        if parameters is None and files.status.attempt:
            began = first_started(run)
            parameters = began.parameters if began is not None else None
        return _SeenRun(files, parameters)
