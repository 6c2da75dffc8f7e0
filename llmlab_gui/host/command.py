"""Commands of `llmlab-run` that the window has carried out, in a process beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QObject, QProcess, Qt, Signal

from llmlab.core.paths import module_command

# The script `llmlab-run` by its module: found whether or not the environment's scripts are on the PATH.
LLMLAB = tuple(module_command("llmlab"))
_LONGEST_SAID = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended. out: what it printed. problem: why it failed, in its own last line; "" where it did not."""

    out: str
    problem: str


class Command(QObject):
    """Runs one command at a time. `said`: its newest line; `ended` comes last, also where it could not be started."""

    said = Signal(str)
    ended = Signal(object)  # Ended

    def __init__(self, parent: QObject | None = None, command: Sequence[str] = LLMLAB) -> None:
        super().__init__(parent)
        self._command = list(command)
        self._process: QProcess | None = None
        self._out = self._err = b""

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, *words: str) -> None:
        """Starts the command with these words; none may be running."""
        process = self._process = QProcess(self)
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._read)
        process.finished.connect(self._finished)
        # Queued: whoever starts it is done with that before it can fail.
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._out = self._err = b""
        process.start(self._command[0], [*self._command[1:], *words])

    def end(self) -> None:
        """Ends it, and what it has started, and returns when it is gone; no signal follows."""
        process, self._process = self._process, None
        if process is not None:
            process.finished.disconnect(self._finished)
            end_process(process)

    def _read(self) -> None:
        process = self._process
        if process is None:
            return
        out, err = bytes(process.readAllStandardOutput().data()), bytes(process.readAllStandardError().data())
        self._out += out
        self._err += err
        said = self._err if err else self._out
        whole = _lines(said[: max(said.rfind(b"\n"), said.rfind(b"\r")) + 1])  # the last may be half of one
        if whole and (out or err):
            self.said.emit(whole[-1][:_LONGEST_SAID])

    def _error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:  # the one error after which `finished` does not come
            self._end(f"{self._command[0]} cannot be started.")

    def _finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        if status == QProcess.ExitStatus.CrashExit:
            self._end("It was ended before it was done.")
        else:
            lines = _lines(self._err) or _lines(self._out) or [f"It ended with code {code}."]
            self._end(lines[-1].removeprefix("error: ") if code else "")

    def _end(self, problem: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
            self.ended.emit(Ended(self._out.decode("utf-8", errors="replace"), problem))


def end_process(process: QProcess) -> None:
    """Terminates it, kills it where that does not help, and returns when it is gone."""
    process.terminate()
    if not process.waitForFinished(1500):
        process.kill()
        process.waitForFinished(3000)
    process.deleteLater()


def _lines(said: bytes) -> list[str]:
    text = said.decode("utf-8", errors="replace").replace("\r", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()]
