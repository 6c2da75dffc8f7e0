"""Makes experiments, starts their workers and asks things of them, for all parts of the window."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from llmlab.core.errors import LabError
from llmlab.studies.launcher import start_experiment, stop_experiment
from llmlab.studies.records import ExperimentFolder, ExperimentRecord
from llmlab_gui.experiments.source import Source
from llmlab_gui.widgets.background import Background

_TICK_MS = 500


class ExperimentController(QObject):
    """Nothing here blocks the window: what takes long runs in the background, errors come as signals.

    Workers outlive the window. Those that it started are waited for when they end, so that none stays a zombie.
    """

    started = Signal(str)  # id of an experiment whose worker was just started, or started again
    said = Signal(str)  # what was done, one sentence
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, source: Source[Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs, self._source = outputs, source
        self._background = Background(self)
        self._workers: dict[Path, subprocess.Popen[bytes]] = {}
        self._attempts: dict[Path, int] = {}  # that there had been when each was started
        self._timer = QTimer(self, interval=_TICK_MS)
        self._timer.timeout.connect(self._tick)

    def start(self, record: ExperimentRecord, jobs: int = 1) -> None:
        """A new experiment, run by a worker of its own, `jobs` of its runs at once."""
        self._launch(lambda: self._source.create(self._outputs, record), "was started", jobs)

    def go_on(self, folder: ExperimentFolder, *, take_over: bool = False) -> None:
        """Runs what is left of the plan; what has ended stays as it is. take_over: also what another machine has."""

        def make() -> ExperimentFolder:
            if take_over:
                folder.take_over_all()
            return folder

        self._launch(make, "resumes where it was", None)

    def stop(self, folder: ExperimentFolder) -> None:
        """What trains saves and ends; the rest of the plan waits."""

        def done(_: object) -> None:
            self.said.emit(f"{folder.id} stops as soon as its running trials have saved.")

        self._background.run(lambda: stop_experiment(folder), done, self.failed.emit)

    def shutdown(self) -> None:
        """Lets go of every worker; they go on."""
        self._timer.stop()
        self._background.shutdown()
        for worker in self._workers.values():
            worker.poll()
        self._workers.clear()

    def _launch(self, make: Callable[[], ExperimentFolder], words: str, jobs: int | None) -> None:
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

        self._background.run(work, done, self.failed.emit)

    def _tick(self) -> None:
        for path, worker in list(self._workers.items()):
            code = worker.poll()
            if code is not None:
                del self._workers[path]
                self._ended(self._source.folder(path), code)
        if not self._workers:
            self._timer.stop()

    def _ended(self, folder: ExperimentFolder, code: int) -> None:
        """A worker that died before it could say anything left the status of its launch; say it in its place."""
        status = folder.recorded_status()
        if not status.live or status.attempt > self._attempts.pop(folder.path, 0) or not folder.path.is_dir():
            return
        error = LabError(
            f"The worker of {folder.id} ended before it started work.",
            f"Its exit code is {code}.",
            f"Its output is in {folder.log}.",
        )
        with contextlib.suppress(OSError):  # the error is shown all the same
            folder.write_status(replace(status, state="failed", error=error.as_dict()))
        self.failed.emit(error)
