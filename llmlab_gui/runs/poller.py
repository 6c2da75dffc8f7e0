"""Looks once a second for runs and for what changed about them, away from the window's thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from llmlab.errors import LabError
from llmlab.runs.folder import RunFolder, RunInfo, RunStatus
from llmlab.runs.registry import list_runs
from llmlab.training.events import Started, from_line

_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class RunRow:
    """A run: where it is, what was asked of it, and where it stands."""

    run: RunFolder
    info: RunInfo
    status: RunStatus
    parameters: int | None = None  # as its first worker counted them


@dataclass
class _Seen:
    """What was read of a run, and the stamps of the files it was read from."""

    info_stamp: tuple[int, int]
    info: RunInfo | None  # None: it could not be read, and that was said
    status_stamp: tuple[int, int]
    status: RunStatus
    parameters: int | None


class RunsPoller(QThread):
    """`found` has every readable run, newest first, at the first look and whenever something is different."""

    found = Signal(list)  # list[RunRow]
    failed = Signal(object)  # LabError: a run that cannot be read, said once
    looked = Signal()  # after each look

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs = outputs
        self._seen: dict[Path, _Seen] = {}
        self._extra: tuple[RunFolder, ...] = ()
        self._wake = threading.Event()
        self._stopping = False

    def add(self, run: RunFolder) -> None:
        """Also looks at a run that lies elsewhere. From any thread."""
        self._extra = (*self._extra, run)
        self.poke()

    def poke(self) -> None:
        """Looks at once. From any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Asks `run` to return; the owner then waits."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        last: list[RunRow] | None = None
        while not self._stopping:
            rows = self.look()
            if rows != last:
                last = rows
                self.found.emit(rows)
            self.looked.emit()
            self._wake.wait(_INTERVAL_SECONDS)
            self._wake.clear()

    def look(self) -> list[RunRow]:
        """All runs, reading only files that changed since the last look."""
        seen: dict[Path, _Seen] = {}
        for run in (*list_runs(self._outputs), *self._extra):
            entry = self._read(run, self._seen.get(run.path))
            if entry is not None:
                seen[run.path] = entry
        self._seen = seen
        rows = [
            RunRow(RunFolder(path), entry.info, entry.status, entry.parameters)
            for path, entry in seen.items()
            if entry.info
        ]
        return sorted(rows, key=lambda row: (row.info.created, row.run.id), reverse=True)

    def _read(self, run: RunFolder, before: _Seen | None) -> _Seen | None:
        info_stamp = _stamp(run.run_json)
        if info_stamp == (0, 0):  # deleted since it was listed
            return None
        if before is None or before.info_stamp != info_stamp:
            try:
                info: RunInfo | None = run.info()
            except LabError as error:
                self.failed.emit(error)
                info = None
        else:
            info = before.info
        status_stamp = _stamp(run.status_json)
        # Only a run that says it lives can change without its file: its process may be gone.
        if before is None or before.status_stamp != status_stamp or before.status.live:
            status = run.status()
        else:
            status = before.status
        parameters = before.parameters if before is not None else None
        if parameters is None and status.attempt:
            parameters = _parameters(run)
        return _Seen(info_stamp, info, status_stamp, status, parameters)


def _parameters(run: RunFolder) -> int | None:
    """From the first line of events.jsonl, which is `started`."""
    try:
        with run.events.open("rb") as file:
            first = from_line(file.readline(1 << 16))
    except OSError:
        return None
    return first.parameters if isinstance(first, Started) else None


def _stamp(path: Path) -> tuple[int, int]:
    """Changes whenever the file is replaced; (0, 0) when there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
