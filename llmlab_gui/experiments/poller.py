"""Looks once a second for experiments and for what changed about them, away from the window's thread."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from llmlab.errors import LabError
from llmlab.experiments.outcomes import ExperimentResults, read_results
from llmlab.experiments.records import ExperimentFolder, ExperimentRecord, ExperimentStatus, list_experiments
from llmlab_gui.experiments.arm_curves import ArmCurves

_INTERVAL_SECONDS = 1.0
# Of a report's figures: a picture for print at most, so that no file of someone else's fills the memory.
_MOST_IMAGE_BYTES = 20 << 20
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
Stamp = tuple[int, int]


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment: where it is, what was asked of it, and where it stands."""

    folder: ExperimentFolder
    record: ExperimentRecord
    status: ExperimentStatus

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.id


@dataclass(frozen=True)
class Report:
    """report.md, and the pictures that it shows, by the names that it calls them."""

    text: str = ""
    images: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What is known of the experiment that is looked at closely. None: not there yet."""

    id: str
    results: ExperimentResults | None = None
    report: Report | None = None


@dataclass
class _Seen:
    """What was read of an experiment, and the stamps of the files it was read from."""

    record_stamp: Stamp
    record: ExperimentRecord | None  # None: it could not be read, and that was said
    status_stamp: Stamp
    status: ExperimentStatus


class ExperimentsPoller(QThread):
    """`found` has every readable experiment, newest first; the others tell of the one that was chosen."""

    found = Signal(list)  # list[ExperimentRow]
    outcome_found = Signal(object)  # Outcome
    curves_found = Signal(str, dict)  # id, {arm: ArmCurve}
    failed = Signal(object)  # LabError: an experiment that cannot be read, said once

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs = outputs
        self._seen: dict[Path, _Seen] = {}
        self._chosen = ("", 0)  # id, and how often something was chosen
        self._closely: _Closely | None = None
        self._wake = threading.Event()
        self._stopping = False

    def choose(self, experiment_id: str) -> None:
        """Looks closely at this one from now on, and tells all of it anew. From any thread."""
        self._chosen = (experiment_id, self._chosen[1] + 1)
        self.poke()

    def poke(self) -> None:
        """Looks at once. From any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Asks `run` to return; the owner then waits."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        last: list[ExperimentRow] | None = None
        while not self._stopping:
            rows = self.look()
            if rows != last:
                last = rows
                self.found.emit(rows)
            more = self._look_closely(rows)
            if not more:
                self._wake.wait(_INTERVAL_SECONDS)
            self._wake.clear()

    def look(self) -> list[ExperimentRow]:
        """All experiments, reading only files that changed since the last look."""
        seen: dict[Path, _Seen] = {}
        for folder in list_experiments(self._outputs):
            entry = self._read(folder, self._seen.get(folder.path))
            if entry is not None:
                seen[folder.path] = entry
        self._seen = seen
        rows = [
            ExperimentRow(ExperimentFolder(path), entry.record, entry.status)
            for path, entry in seen.items()
            if entry.record is not None
        ]
        return sorted(rows, key=lambda row: (row.record.created, row.id), reverse=True)

    def _read(self, folder: ExperimentFolder, before: _Seen | None) -> _Seen | None:
        record_stamp = _stamp(folder.experiment_json)
        if record_stamp == (0, 0):  # deleted since it was listed
            return None
        if before is None or before.record_stamp != record_stamp:
            try:
                record: ExperimentRecord | None = folder.record()
            except LabError as error:
                self.failed.emit(error)
                record = None
        else:
            record = before.record
        status_stamp = _stamp(folder.status_json)
        # Only one that says it lives can change without its file: its process may be gone.
        if before is None or before.status_stamp != status_stamp or before.status.live:
            status = folder.status()
        else:
            status = before.status
        return _Seen(record_stamp, record, status_stamp, status)

    def _look_closely(self, rows: list[ExperimentRow]) -> bool:
        """True when there may be more to read at once."""
        chosen = self._chosen
        row = next((row for row in rows if row.id == chosen[0]), None)
        if row is None:
            self._closely = None
            return False
        key = (*chosen, row.record.created)
        if self._closely is None or self._closely.key != key:
            self._closely = _Closely(row, key)
        closely = self._closely
        if closely.look():
            self.outcome_found.emit(closely.outcome)
        changed = closely.curves.look()
        if changed:
            self.curves_found.emit(row.id, closely.curves.curves())
        return changed


class _Closely:
    """Results, report and curves of one experiment."""

    def __init__(self, row: ExperimentRow, key: tuple[str, int, float]) -> None:
        self.key = key
        self.curves = ArmCurves(row.folder, row.record)
        self.outcome = Outcome(row.id)
        self._folder = row.folder
        self._stamps: tuple[Stamp, Stamp] | None = None

    def look(self) -> bool:
        """Reads what changed; True when something did, and at the first look."""
        folder = self._folder
        stamps = (_stamp(folder.results_json), _stamp(folder.report))
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        self.outcome = Outcome(folder.id, read_results(folder), _read_report(folder))
        return True


def _read_report(folder: ExperimentFolder) -> Report | None:
    try:
        text = folder.report.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    images = {}
    for name in set(_IMAGE.findall(text)):
        path = (folder.path / name).resolve()
        with contextlib.suppress(OSError, ValueError):
            # Only what lies in the experiment's own folder.
            if path.is_relative_to(folder.path.resolve()) and path.stat().st_size <= _MOST_IMAGE_BYTES:
                images[name] = path.read_bytes()
    return Report(text, images)


def _stamp(path: Path) -> Stamp:
    """Changes whenever the file is replaced; (0, 0) when there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
