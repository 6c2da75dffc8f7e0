"""Looks once a second for experiments, or checks, and for what changed about them, away from the window's thread."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.studies.experiments.outcomes import ExperimentResults, read_results
from llmlab.studies.papers.records import CheckResult, read_verdicts
from llmlab.studies.plans.records import (
    CheckFolder,
    ExperimentFolder,
    ExperimentRecord,
    ExperimentStatus,
    TrialStatus,
    list_plans,
)
from llmlab_gui.experiments.trial_curves import TrialCurves
from llmlab_gui.lab.folder_poller import FolderPoller, Seen, Stamp, file_stamp, read_changed

# No file of someone else's fills the memory: of a report more than anyone reads, of its figures a picture for print,
# and of both together what a window can spare.
_MOST_REPORT_BYTES, _MOST_IMAGE_BYTES, _MOST_BYTES = 2 << 20, 20 << 20, 200 << 20
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_Seen = Seen[ExperimentRecord, ExperimentStatus]

R = TypeVar("R")


@dataclass(frozen=True)
class Source(Generic[R]):
    """Plans of one kind on disk.

    kind: of their folders. results: what came out, None where there is nothing yet; touches no Qt, and may raise
    LabError. follows_losses: whether the losses of its runs are read while they train. ended: what is said when one
    has finished.
    """

    kind: type[ExperimentFolder]
    results: Callable[[ExperimentFolder], R | None]
    follows_losses: bool
    ended: str


EXPERIMENTS: Source[ExperimentResults] = Source(ExperimentFolder, read_results, True, "Its report is written.")
CHECKS: Source[CheckResult] = Source(CheckFolder, read_verdicts, False, "Its verdicts are in Claims.")


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

    def standing(self, trial: str) -> TrialStatus:
        """Where one of its runs stands."""
        return self.status.trials.get(trial, TrialStatus())


@dataclass(frozen=True)
class Report:
    """report.md, and the pictures that it shows, by the names that it calls them."""

    text: str = ""
    images: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What is known of the experiment that is looked at closely. None: not there yet.

    problem: why its results cannot be read, although there are some.
    """

    id: str
    results: R | None = None
    report: Report | None = None
    problem: LabError | None = None


class ExperimentsPoller(FolderPoller):
    """`found` has every readable experiment, newest first; the others tell of the one that was chosen."""

    outcome_found = Signal(object)  # Outcome
    curves_found = Signal(str, dict)  # id, {trial: RunHistory}

    def __init__(self, outputs: Path, source: Source[Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs, self._source = outputs, source
        self._seen: dict[Path, _Seen] = {}
        self._chosen = ("", 0)  # id, and how often something was chosen
        self._closely: _Closely | None = None

    def choose(self, experiment_id: str) -> None:
        """Looks closely at this one from now on, and tells all of it anew. From any thread."""
        self._chosen = (experiment_id, self._chosen[1] + 1)
        self.poke()

    def look(self) -> list[ExperimentRow]:
        looked_at = ((folder.path, self._read(folder)) for folder in list_plans(self._outputs, self._source.kind))
        self._seen = {path: seen for path, seen in looked_at if seen is not None}
        rows = [
            ExperimentRow(self._source.kind(path), seen.asked, seen.status)
            for path, seen in self._seen.items()
            if seen.asked is not None
        ]
        return sorted(rows, key=lambda row: (row.record.created, row.id), reverse=True)

    def _read(self, folder: ExperimentFolder) -> _Seen | None:
        if self.stopping:
            return None
        asked, status = (folder.experiment_json, folder.record), (folder.status_json, folder.status)
        return read_changed(self._seen.get(folder.path), asked, status, self.failed.emit)

    def _look_closely(self, rows: list[ExperimentRow]) -> bool:
        chosen = self._chosen
        row = next((row for row in rows if row.id == chosen[0]), None)
        if row is None:
            self._closely = None
            return False
        key = (*chosen, row.record.created)
        if self._closely is None or self._closely.key != key:
            self._closely = _Closely(row, key, self._source)
            self.curves_found.emit(row.id, {})  # none of an earlier one of this name
        closely = self._closely
        if closely.look():
            self.outcome_found.emit(closely.outcome)
        if closely.curves is None or not closely.curves.look():
            return False
        self.curves_found.emit(row.id, closely.curves.curves())
        return True


class _Closely:
    """Results, report and curves of one experiment."""

    def __init__(self, row: ExperimentRow, key: tuple[str, int, float], source: Source[Any]) -> None:
        self.key = key
        self.curves = TrialCurves(row.folder, row.record) if source.follows_losses else None
        self.outcome: Outcome[Any] = Outcome(row.id)
        self._folder, self._results = row.folder, source.results
        self._stamps: tuple[Stamp, Stamp] | None = None

    def look(self) -> bool:
        """Reads what changed; True when something did, and at the first look."""
        folder = self._folder
        stamps = (file_stamp(folder.results_json), file_stamp(folder.report))
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        results, problem = None, None
        try:
            results = self._results(folder)
        except LabError as error:
            problem = error
        self.outcome = Outcome(folder.id, results, _read_report(folder), problem)
        return True


def _read_report(folder: ExperimentFolder) -> Report | None:
    try:
        if folder.report.stat().st_size > _MOST_REPORT_BYTES:
            return None
        text = folder.report.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    images: dict[str, bytes] = {}
    room = _MOST_BYTES
    for name in dict.fromkeys(_IMAGE.findall(text)):
        with contextlib.suppress(OSError, ValueError):
            path = (folder.path / name).resolve()
            # Only what lies in the experiment's own folder.
            if path.is_relative_to(folder.path.resolve()) and path.stat().st_size <= min(_MOST_IMAGE_BYTES, room):
                images[name] = path.read_bytes()
                room -= len(images[name])
    return Report(text, images)
