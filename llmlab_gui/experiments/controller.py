"""Makes experiments, starts their workers and asks things of them, for all parts of the window."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.studies.launcher import create_experiment, start_experiment, stop_experiment
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord
from llmlab_gui.experiments.poller import Source
from llmlab_gui.lab.worker_keeper import WorkerKeeper, write_failure


class ExperimentController(WorkerKeeper):
    """Of experiments, or of checks."""

    started = Signal(str)  # id of an experiment whose worker was just started, or started again
    not_started = Signal(str)  # id of a new one that could not be; `failed` says why

    def __init__(self, outputs: Path, source: Source[Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs, self._source = outputs, source
        self._attempts: dict[Path, int] = {}  # that there had been when each was started

    def start(self, record: ExperimentRecord, jobs: int = 1) -> None:
        """A new experiment, run by a worker of its own, `jobs` of its runs at once."""
        outputs, kind = self._outputs, self._source.kind

        def failed(error: LabError) -> None:
            self.not_started.emit(record.id)
            self.failed.emit(error)

        self._launch(lambda: create_experiment(outputs, record, kind), "was started", jobs, failed)

    def go_on(self, folder: ExperimentFolder, *, take_over: bool = False) -> None:
        """Runs what is left of the plan; what has ended stays as it is. take_over: also what another machine has."""

        def make() -> ExperimentFolder:
            if take_over:
                folder.take_over_all()
            return folder

        self._launch(make, "resumes where it was", None, self.failed.emit)

    def stop(self, folder: ExperimentFolder) -> None:
        """What trains saves and ends; the rest of the plan waits."""

        def done(_: object) -> None:
            self.said.emit(f"{folder.id} stops as soon as its running trials have saved.")

        self._background.run(lambda: stop_experiment(folder), done, self.failed.emit)

    def _launch(
        self, make: Callable[[], ExperimentFolder], words: str, jobs: int | None, failed: Callable[[LabError], None]
    ) -> None:
        def work() -> tuple[ExperimentFolder, subprocess.Popen[bytes], int]:
            folder = make()
            attempt = folder.recorded_status().attempt
            return folder, start_experiment(folder, jobs=jobs), attempt

        def done(result: tuple[ExperimentFolder, subprocess.Popen[bytes], int]) -> None:
            folder, worker, attempt = result
            self._workers[folder.path], self._attempts[folder.path] = worker, attempt
            self._timer.start()
            self.started.emit(folder.id)
            self.said.emit(f"{folder.id} {words}.")

        self._background.run(work, done, failed)

    def _ended(self, path: Path, code: int) -> None:
        """A worker that died before it could say anything left the status of its launch; say it in its place."""
        folder = self._source.kind(path)
        status = folder.recorded_status()
        if status.live and status.attempt <= self._attempts.pop(path, 0) and path.is_dir():
            where = f"Its output is in {folder.log}."
            self.failed.emit(write_failure(folder, status, f"Its exit code is {code}.", where))
