"""Keeps the processes that the window started until they end, so that none stays a zombie. They outlive the window."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from llmlab.core.errors import LabError
from llmlab.store.worker_folder import WorkerFolder
from llmlab_gui.widgets.background import Background

_TICK_MS = 500


class WorkerKeeper(QObject):
    """Nothing here blocks the window: what takes long runs in the background, errors come as signals."""

    said = Signal(str)  # what was done, one sentence
    failed = Signal(object)  # LabError

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._background = Background(self)
        self._workers: dict[Path, subprocess.Popen[bytes]] = {}  # by the folder that each is at
        self._timer = QTimer(self, interval=_TICK_MS)
        self._timer.timeout.connect(self._tick)

    def shutdown(self) -> None:
        """Lets go of every worker; they go on."""
        self._timer.stop()
        self._background.shutdown()
        for worker in self._workers.values():
            worker.poll()
        self._workers.clear()

    def _ended(self, path: Path, code: int) -> None:
        """The worker at a folder ended, with this exit code."""
        raise NotImplementedError

    def _tick(self) -> None:
        for path, worker in list(self._workers.items()):
            code = worker.poll()
            if code is not None:
                del self._workers[path]
                self._ended(path, code)
        if not self._look_on() and not self._workers:
            self._timer.stop()

    def _look_on(self) -> bool:
        """At what else is to be watched; whether there is any."""
        return False


def write_failure(folder: WorkerFolder, status: Any, why: str, where: str) -> LabError:
    """Says in a folder's status that its worker ended before it could say anything; returns what is said."""
    error = LabError(f"The worker of {folder.id} ended before it started work.", why, where)
    with contextlib.suppress(OSError):  # the error is shown all the same
        folder.write_status(dataclasses.replace(status, state="failed", error=error.as_dict()))
    return error
