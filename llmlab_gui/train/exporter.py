"""Exporting a checkpoint as a Hugging Face folder: the command line's `export`, in a process beside the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, QProcess, Qt, Signal

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command

# The script `llmlab-run` by its function: found whether or not the environment's scripts are on the PATH.
EXPORT_COMMAND = tuple(module_command("llmlab"))
_OUTPUT_KEPT = 8192


class Exporter(QObject):
    """Runs one export at a time. `progress(text)`: what it says; then `done(folder)` or `failed(LabError)`."""

    progress = Signal(str)
    done = Signal(str)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None, command: Sequence[str] = EXPORT_COMMAND) -> None:
        super().__init__(parent)
        self._command = list(command)
        self._process: QProcess | None = None
        self._folder = ""
        self._said = b""
        self._told = ""

    @property
    def busy(self) -> bool:
        """Whether an export is under way."""
        return self._process is not None

    def start(self, run: Path, step: int, folder: Path) -> None:
        """Exports the checkpoint of that step into `folder`. LabError when another export is under way."""
        if self._process is not None:
            raise LabError("An export is still running.", "Only one runs at a time.", "Wait for it, or cancel it.")
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyReadStandardOutput.connect(self._read)
        process.finished.connect(self._ended)
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._process, self._folder, self._said, self._told = process, str(folder), b"", ""
        words = ["export", f"{run}@{step}", "--to", "hf", "--out", str(folder)]
        process.start(self._command[0], [*self._command[1:], *words])

    def cancel(self) -> None:
        """Ends the export; `failed` says so."""
        if self._process is not None:
            self._process.terminate()

    def shutdown(self) -> None:
        """Ends the process and returns when it is gone; no signal follows."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        if not process.waitForFinished(1500):
            process.kill()
            process.waitForFinished(3000)
        process.deleteLater()

    def _read(self) -> None:
        if self._process is not None:
            self._said = (self._said + bytes(self._process.readAllStandardOutput().data()))[-_OUTPUT_KEPT:]
            lines = self._lines(whole=True)
            if lines and lines[-1] != self._told:
                self._told = lines[-1]
                self.progress.emit(lines[-1][:300])

    def _lines(self, *, whole: bool = False) -> list[str]:
        """What it said; whole: without a last line that may be half of one."""
        text = self._said.decode("utf-8", errors="replace").replace("\r", "\n")
        text = text[: text.rfind("\n") + 1] if whole else text
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._finish(LabError("The export could not be started.", f"{self._command[0]} cannot be run."))

    def _ended(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        if status == QProcess.ExitStatus.CrashExit:
            self._finish(LabError("The export was ended before it was done.", "", "Export again."))
        elif code:
            lines = self._lines() or [f"It ended with code {code}."]
            self._finish(LabError("The export failed.", lines[-1].removeprefix("error: ")))
        else:
            self._finish(None)

    def _finish(self, error: LabError | None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.deleteLater()
        if error is None:
            self.done.emit(self._folder)
        else:
            self.failed.emit(error)
