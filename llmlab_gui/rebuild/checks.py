"""What runs the learner's code for the window: commands of `llmlab-run exercise`, in processes beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.core.records import from_plain
from llmlab.exercises.checker import Answer
from llmlab_gui.host.command import LLMLAB, Command, Ended


class ExerciseCommand(Command):
    """Runs one at a time; then `answered` with what it prints as JSON, or `failed`."""

    answered = Signal(dict)
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, parent: QObject | None = None, command: Sequence[str] = LLMLAB) -> None:
        super().__init__(parent, command)
        self._outputs = outputs
        self.ended.connect(self._understand)

    def begin(self, action: str, *words: str) -> None:
        """Starts `exercise ACTION WORDS`; none may be running."""
        self.start("exercise", action, *words, "--json", "--outputs", str(self._outputs))

    def _understand(self, ended: Ended) -> None:
        try:
            found = json.loads(ended.out)
        except ValueError:
            self.failed.emit(LabError(ended.problem or "It ended without a message."))
            return
        self.answered.emit(found)


class Checks(QObject):
    """Checks one file at a time; what is asked for meanwhile comes after it, and a piece that is asked for again while
    it is checked is checked anew at once: what is under way has no use. Then `answered(Answer)` or `failed`."""

    began = Signal(str)  # a piece's name
    answered = Signal(object)  # Answer
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, parent: QObject | None = None, command: Sequence[str] = LLMLAB) -> None:
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
            self._finish(from_plain(Answer, values))
        except (TypeError, ValueError) as error:
            self._finish(LabError("The check failed.", f"Its answer cannot be read: {error}."))

    def _finish(self, found: object) -> None:
        del self._asked[0]
        self._begin()
        (self.failed if isinstance(found, LabError) else self.answered).emit(found)
