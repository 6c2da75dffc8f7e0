"""What runs the learner's code for the window: commands of `llmlab-run exercise`, in processes beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, QProcess, Qt, Signal

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.exercises.checker import answer_from_json

COMMAND = tuple(module_command("llmlab"))


class ExerciseCommand(QObject):
    """Runs one command at a time; then `answered` with what it prints as JSON, or `failed`."""

    answered = Signal(dict)
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, parent: QObject | None = None, command: Sequence[str] = COMMAND) -> None:
        super().__init__(parent)
        self._outputs, self._command = outputs, list(command)
        self._process: QProcess | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def begin(self, action: str, *words: str) -> None:
        """Starts `exercise ACTION WORDS`; none may be running."""
        process = QProcess(self)
        process.finished.connect(self._ended)
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._process = process
        everything = ["exercise", action, *words, "--json", "--outputs", str(self._outputs)]
        process.start(self._command[0], [*self._command[1:], *everything])

    def end(self) -> None:
        """Ends it, and what it has started, and returns when it is gone; no signal follows."""
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
        if error == QProcess.ProcessError.FailedToStart and self._take() is not None:
            self.failed.emit(LabError("Your code could not be run.", f"{self._command[0]} cannot be started."))

    def _ended(self) -> None:
        if (process := self._take()) is None:
            return
        said = bytes(process.readAllStandardOutput().data()).decode("utf-8", errors="replace")
        try:
            found = json.loads(said)
        except ValueError:
            words = bytes(process.readAllStandardError().data()).decode("utf-8", errors="replace").strip().splitlines()
            self.failed.emit(LabError((words or ["It ended without a message."])[-1].removeprefix("error: ")))
            return
        self.answered.emit(found)

    def _take(self) -> QProcess | None:
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        return process


class Checks(QObject):
    """Checks one file at a time; what is asked for meanwhile comes after it, and a piece that is asked for again while
    it is checked is checked anew at once: what is under way has no use. Then `answered(Answer)` or `failed`."""

    began = Signal(str)  # a piece's name
    answered = Signal(object)  # Answer
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, parent: QObject | None = None, command: Sequence[str] = COMMAND) -> None:
        super().__init__(parent)
        self._command = ExerciseCommand(outputs, self, command)
        self._command.answered.connect(self._take)
        self._command.failed.connect(self._finish)
        self._asked: list[str] = []  # the first is being checked

    def awaited(self, name: str) -> bool:
        """Whether the answer on a piece is still to come."""
        return name in self._asked

    def ask(self, name: str) -> None:
        """Checks the file of a piece as it is when its turn comes."""
        if self._command.running and name == self._asked[0]:
            self._command.end()
        elif name not in self._asked:
            self._asked.append(name)
        self._begin()
        self.began.emit(name)

    def shutdown(self) -> None:
        """Ends what is under way; no signal follows."""
        self._asked = []
        self._command.end()

    def _begin(self) -> None:
        if self._asked and not self._command.running:
            self._command.begin("check", self._asked[0])

    def _take(self, values: dict[str, object]) -> None:
        try:
            self._finish(answer_from_json(values))
        except (TypeError, KeyError) as error:
            self._finish(LabError("The check failed.", f"Its answer cannot be read: {error}."))

    def _finish(self, found: object) -> None:
        del self._asked[0]
        self._begin()
        (self.failed if isinstance(found, LabError) else self.answered).emit(found)
