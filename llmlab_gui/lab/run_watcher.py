"""Follows the folders of all runs that are shown, away from the window's thread, and tells it by signals only."""

from __future__ import annotations

import math
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass

from PySide6.QtCore import QObject, QThread, Signal, SignalInstance

from llmlab.core.errors import LabError, explained
from llmlab.store.overview import OverviewReader, is_long
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab.store.run_log import EventFollower

# At most 20 batches a second of each run: the eye sees no more, and each batch costs the window a redraw.
_LIVE_SECONDS = 0.05
# A run that ended is looked at now and then: someone may resume it.
_IDLE_SECONDS = 0.5
# status() asks the system whether the worker's process lives, so not at every look.
_STATUS_SECONDS = 0.25
# A block of events parses in about 10 ms; the interpreter is shared with the window.
_BLOCK_BYTES = 512 << 10


@dataclass(eq=False)
class _Watched:
    """A run and how far it was followed. due: when it is looked at again, by time.monotonic()."""

    run: RunFolder
    let_go: bool = False
    reader: OverviewReader | None = None  # of a long file, until it is read
    follower: EventFollower | None = None
    status: RunStatus | None = None
    status_at: float = -math.inf
    due: float = 0.0


class RunWatcher(QThread):
    """Has one owner, which connects the signals, calls `start()`, `stop()`, then `wait()`s.

    Each signal begins with the id of a run (`RunFolder.full_name`); one that was let go is silent at once.
    """

    batch = Signal(str, list)  # new events in order, at most 20 times a second
    opened = Signal(str, object)  # the Overview of a long file, before what comes after it
    status_changed = Signal(str, object)  # RunStatus
    failed = Signal(str, object)  # LabError; the run is not looked at any more
    _news = Signal(object, object, object)  # _Watched, one of the signals above, and what it tells

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._watched: list[_Watched] = []
        self._wake = threading.Event()
        self._stopping = False
        self._news.connect(self._tell)  # on the owner's thread

    def follow(self, run: RunFolder) -> None:
        """Tells everything about a run from its beginning. From the owner's thread."""
        self._watched.append(_Watched(run))
        self._wake.set()

    def let_go(self, run_id: str) -> None:
        """Tells nothing more about it. From the owner's thread."""
        for watched in list(self._watched):
            if watched.run.full_name == run_id:
                watched.let_go = True
        self._wake.set()

    def stop(self) -> None:
        """Asks `run` to return; it does within a few tenths of a second."""
        for watched in list(self._watched):
            watched.let_go = True
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        while not self._stopping:
            for watched in list(self._watched):
                if watched.let_go:
                    self._close(watched)
                elif watched.due <= time.monotonic():
                    self._look_safely(watched)
            due = min((watched.due for watched in self._watched), default=math.inf)
            self._wake.wait(max(0.0, due - time.monotonic()) if due < math.inf else None)
            self._wake.clear()
        for watched in list(self._watched):
            self._close(watched)

    def _tell(self, watched: _Watched, signal: SignalInstance, news: object) -> None:
        if not watched.let_go:
            signal.emit(watched.run.full_name, news)

    def _look_safely(self, watched: _Watched) -> None:
        """A mistake in what follows one run is told as all are, and the other runs are followed on."""
        try:
            self._look(watched)
        except Exception:
            watched.due = math.inf
            sys.excepthook(*sys.exc_info())

    def _look(self, watched: _Watched) -> None:
        try:
            with explained(f"{watched.run.path} cannot be read."):
                if watched.follower is None:
                    self._open(watched)
                events = watched.follower.poll(_BLOCK_BYTES) if watched.follower is not None else []
                if events:
                    self._news.emit(watched, self.batch, events)
                if time.monotonic() - watched.status_at >= _STATUS_SECONDS:
                    self._look_at_status(watched)
        except LabError as error:
            watched.due = math.inf
            self._news.emit(watched, self.failed, error)
            return
        idle = not events and watched.reader is None and watched.status is not None and not watched.status.live
        watched.due = time.monotonic() + (_IDLE_SECONDS if idle else _LIVE_SECONDS)

    def _open(self, watched: _Watched) -> None:
        """Follows from the start, or from the end of a long file's overview, once that is there."""
        run, reader = watched.run, watched.reader
        if reader is None and is_long(run):
            watched.reader = OverviewReader(run)
        elif reader is None:
            watched.follower = EventFollower(run)
        elif reader.done:
            watched.reader = None
            with closing(reader):
                overview = reader.result()
            follower = EventFollower(run, overview.offset)
            if run.recorded_status().attempt == overview.attempt:
                self._news.emit(watched, self.opened, overview)
                watched.follower = follower
            # Or else a new worker began meanwhile and may have cut what was read: it is read anew.

    def _look_at_status(self, watched: _Watched) -> None:
        if not watched.run.path.is_dir():
            raise watched.run.gone()
        watched.status_at, before = time.monotonic(), watched.status
        watched.status = watched.run.status()
        if watched.status != before:
            self._news.emit(watched, self.status_changed, watched.status)

    def _close(self, watched: _Watched) -> None:
        self._watched.remove(watched)
        if watched.reader is not None:
            watched.reader.close()
