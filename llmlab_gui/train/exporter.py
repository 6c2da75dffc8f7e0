"""Exporting a checkpoint as a Hugging Face folder: the command line's `export`, in a process beside the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.gpt2_settings import refusal
from llmlab_gui.host.command import LLMLAB, Command, Ended


def export_refusal(settings: RunSettings) -> str:
    """Why no checkpoint of a run can be exported, where its settings tell, as a sentence; "" otherwise."""
    return (refusal(settings.model) if type(settings) is PretrainSettings else None) or ""


class Exporter(QObject):
    """Runs one export at a time. `progress(text)`: what it says; then `done(folder)` or `failed(LabError)`."""

    progress = Signal(str)
    done = Signal(str)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None, command: Sequence[str] = LLMLAB) -> None:
        super().__init__(parent)
        self._folder = ""
        self._command = Command(self, command)
        self._command.said.connect(self.progress)
        self._command.ended.connect(self._ended)

    @property
    def busy(self) -> bool:
        """Whether an export is under way."""
        return self._command.running

    def start(self, run: Path, step: int, folder: Path) -> None:
        """Exports the checkpoint of that step into `folder`. LabError when another export is under way."""
        if self.busy:
            raise LabError("An export is still running.", "Only one runs at a time.", "Wait for it.")
        self._folder = str(folder)
        self._command.start("export", f"{run}@{step}", "--to", "hf", "--out", self._folder)

    def shutdown(self) -> None:
        """Ends the process and returns when it is gone; no signal follows."""
        self._command.end()

    def _ended(self, ended: Ended) -> None:
        if ended.problem:
            self.failed.emit(LabError("The export failed.", ended.problem))
        else:
            self.done.emit(self._folder)
