"""Follows one run's folder away from the window's thread, and tells it by signals only."""

from __future__ import annotations

import threading
import time

from PySide6.QtCore import QObject, QThread, Signal

from llmlab.core.errors import Cancelled, LabError
from llmlab.store import requests
from llmlab.store.overview import is_long, read_overview_apart
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab.store.run_log import EventFollower

# At most 20 batches a second: the eye sees no more, and each batch costs the window a redraw.
_LIVE_SECONDS = 0.05
# A run that ended is looked at now and then: someone may resume it.
_IDLE_SECONDS = 0.5
# status() asks the system whether the worker's process lives, so not at every poll.
_STATUS_SECONDS = 0.25
# A block of events parses in about 10 ms; the interpreter is shared with the window.
_BLOCK_BYTES = 512 << 10


class RunThread(QThread):
    """Follows a run until `stop()`. Has one owner, which connects the signals, calls `stop()`, then `wait()`s.

    batch: new events in order (list[Event]), at most 20 a second. opened: the Overview of a long file, before what
    comes after it. status_changed: RunStatus. failed: LabError, and the thread ends.
    """

    batch = Signal(list)
    opened = Signal(object)
    status_changed = Signal(object)
    failed = Signal(object)

    def __init__(self, run: RunFolder, *, in_process: bool = False, parent: QObject | None = None) -> None:
        """in_process: also trains, inside this thread, instead of in a worker (imports torch; tests and debugging)."""
        super().__init__(parent)
        self._run = run
        self._in_process = in_process
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Asks `run` to return, from any thread; it does within a few tenths of a second.

        Training in this thread is asked to stop at its next step, and saves.
        """
        if self._in_process and self.isRunning():
            requests.send(self._run.requests, "stop")  # what follows goes on until the training has ended
        else:
            self._stopping.set()

    def run(self) -> None:
        if not self._in_process:
            self._follow()
            return
        follower = threading.Thread(target=self._follow, name=f"follow {self._run.id}")
        follower.start()
        try:
            from filelock import Timeout

            from llmlab.jobs.worker import train_run

            try:
                train_run(self._run)
            except Timeout:
                self.failed.emit(LabError(f"{self._run.id} is already being trained.", "Another worker holds it."))
            except LabError as error:
                self.failed.emit(error)
        finally:
            self._stopping.set()
            follower.join()

    def _follow(self) -> None:
        try:
            follower = self._open()
            self._poll(follower)
            if self._in_process:  # the last events came after the last poll
                while events := follower.poll():
                    self.batch.emit(events)
                self.status_changed.emit(self._run.status())
        except Cancelled:
            return
        except LabError as error:
            self.failed.emit(error)

    def _open(self) -> EventFollower:
        """A follower from the start, or from the end of a long file's overview."""
        while is_long(self._run):
            overview = read_overview_apart(self._run, self._stopping.is_set)
            follower = EventFollower(self._run, overview.offset)
            if self._run.recorded_status().attempt == overview.attempt:
                self.opened.emit(overview)
                return follower
            # A new worker began meanwhile and may have cut what was read.
        return EventFollower(self._run)

    def _poll(self, follower: EventFollower) -> None:
        status: RunStatus | None = None
        status_at = 0.0
        while True:
            events = follower.poll(_BLOCK_BYTES)
            if events:
                self.batch.emit(events)
            now = time.monotonic()
            if now - status_at >= _STATUS_SECONDS or status is None:
                self._check_folder()
                status_at, before = now, status
                status = self._run.status()
                if status != before:
                    self.status_changed.emit(status)
            idle = not events and not status.live
            if self._stopping.wait(_IDLE_SECONDS if idle else _LIVE_SECONDS):
                return

    def _check_folder(self) -> None:
        if not self._run.path.is_dir():
            raise LabError(
                f"The folder of {self._run.id} is gone.",
                f"{self._run.path} was deleted or moved while it was open.",
                "Choose another run in Runs.",
            )
