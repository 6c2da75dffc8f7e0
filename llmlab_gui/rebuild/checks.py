"""Checks of the learner's files: the command line's `exercise check`, in a process beside the window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, QProcess, Qt, Signal

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.exercises.checker import answer_from_json

CHECK_COMMAND = tuple(module_command("llmlab"))


class Checks(QObject):
    """Runs one check at a time; what is asked for meanwhile comes after it, and a piece that is asked for again while
    it is checked is checked anew at once: what is under way has no use. Then `answered(Answer)` or `failed`."""

    began = Signal(str)  # a piece's name
    answered = Signal(object)  # Answer
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, parent: QObject | None = None, command: Sequence[str] = CHECK_COMMAND) -> None:
        super().__init__(parent)
        self._outputs, self._command = outputs, list(command)
        self._process: QProcess | None = None
        self._asked: list[str] = []  # the first is being checked

    def awaited(self, name: str) -> bool:
        """Whether the answer on a piece is still to come."""
        return name in self._asked

    def ask(self, name: str) -> None:
        """Checks the file of a piece as it is when its turn comes."""
        if self._process is not None and name == self._asked[0]:
            self._end()
        elif name not in self._asked:
            self._asked.append(name)
        if self._process is None:
            self._begin()
        self.began.emit(name)

    def _begin(self) -> None:
        name, process = self._asked[0], QProcess(self)
        process.finished.connect(self._ended)
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._process = process
        words = ["exercise", "check", name, "--json", "--outputs", str(self._outputs)]
        process.start(self._command[0], [*self._command[1:], *words])

    def shutdown(self) -> None:
        """Ends the process and returns when it is gone; no signal follows. What it checks ends with it."""
        self._asked = []
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.finished.disconnect(self._ended)
        process.terminate()
        if not process.waitForFinished(1500):
            process.kill()
            process.waitForFinished(3000)
        process.deleteLater()

    def _error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._finish(LabError("The check could not be started.", f"{self._command[0]} cannot be run."))

    def _ended(self) -> None:
        if (process := self._process) is None:
            return
        said = bytes(process.readAllStandardOutput().data()).decode("utf-8", errors="replace")
        try:
            self._finish(answer_from_json(json.loads(said)))
        except (ValueError, TypeError, KeyError):
            words = bytes(process.readAllStandardError().data()).decode("utf-8", errors="replace").strip().splitlines()
            self._finish(LabError("The check failed.", (words or ["It said nothing."])[-1].removeprefix("error: ")))

    def _finish(self, found: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.deleteLater()
        del self._asked[0]
        if self._asked:
            self._begin()
        (self.failed if isinstance(found, LabError) else self.answered).emit(found)
