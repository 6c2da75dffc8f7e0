"""Looks once a second for runs and for what changed about them, away from the window's thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.core.kinds import PRETRAINING
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus
from llmlab.store.run_log import first_started
from llmlab_gui.lab.folder_poller import FolderPoller, Seen, read_changed


@dataclass(frozen=True)
class RunRow:
    """A run: where it is, what was asked of it, and where it stands."""

    run: RunFolder
    info: RunInfo
    status: RunStatus
    parameters: int | None = None  # as its first worker counted them
    shares_name: bool = False  # with a run of another track

    @property
    def id(self) -> str:
        """What tells it from all others: TRACK/ID."""
        return self.run.full_name

    @property
    def name(self) -> str:
        """How people read it, and references name it: with its track only where two tracks hold that id."""
        return self.id if self.shares_name else self.run.id

    @property
    def saved(self) -> bool:
        """Whether it has a checkpoint; none is read, since panels ask often. Most trials of experiments keep none."""
        return any(self.run.checkpoints.glob("step-*"))

    @property
    def pretrained(self) -> bool:
        """Whether it was trained from scratch to its end and saved: a model to start from where none was named."""
        return self.info.track == PRETRAINING and self.status.state == "finished" and self.saved

    @property
    def trains_here(self) -> bool:
        """Whether it trains now, or starts, on this machine."""
        return self.status.state in ("queued", "running") and not self.status.elsewhere

    @property
    def can_resume(self) -> bool:
        """Whether it waits after a pause, has ended, or is on a machine that may be gone."""
        return self.status.state == "paused" or not self.status.live or self.status.elsewhere


def newest_first(rows: Iterable[RunRow]) -> list[RunRow]:
    """By when they began."""
    return sorted(rows, key=lambda row: (row.info.created, row.id), reverse=True)


def told_apart(rows: Sequence[RunRow]) -> list[RunRow]:
    """The same rows, with those marked that share their name."""
    count = Counter(row.run.id for row in rows)
    return [replace(row, shares_name=count[row.run.id] > 1) for row in rows]


@dataclass
class _SeenRun:
    files: Seen[RunInfo, RunStatus]
    parameters: int | None


class RunsPoller(FolderPoller):
    """`found` has every readable run, newest first, at the first look and whenever something is different."""

    looked = Signal()  # after each look

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

    def _look_closely(self, rows: list[RunRow]) -> bool:
        self.looked.emit()
        return False

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
