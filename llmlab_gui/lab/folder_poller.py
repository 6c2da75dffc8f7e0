"""Folders that others write, looked at once a second away from the window's thread; what did not change is not read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from PySide6.QtCore import QObject, QThread, Signal

from llmlab.core.errors import LabError

INTERVAL_SECONDS = 1.0
Stamp = tuple[int, int]


class _Standing(Protocol):
    @property
    def live(self) -> bool: ...


A = TypeVar("A")
S = TypeVar("S", bound=_Standing)


class FolderPoller(QThread):
    """`found` has what `look` gave, at the first look and whenever something is different."""

    found = Signal(list)
    failed = Signal(object)  # LabError: a folder that cannot be read, said once
    _looked_at = Signal(object, list)  # what `_asked` was when the look began, and what it found

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._wake = threading.Event()
        self.stopping = False  # whether nobody waits for what it finds
        self._told = ""  # the mistake that was met last
        self._asked = object()  # another one with each `poke`
        self._found: list[Any] | None = None  # told last
        self._looked_at.connect(self._tell)

    def poke(self) -> None:
        """Looks at once, and tells nothing of what a look found that began before. From any thread."""
        self.outdate()
        self._wake.set()

    def outdate(self) -> None:
        """What a look found that began before is no longer told: the caller knows better. From any thread."""
        self._asked = object()

    def stop(self) -> None:
        """Asks `run` to return; the owner then waits."""
        self.stopping = True
        self._wake.set()

    def run(self) -> None:
        last: tuple[object, list[Any]] | None = None
        while not self.stopping:
            more = False
            asked = self._asked
            try:
                rows = self.look()
                if self.stopping:  # it may have left out the rest
                    return
                if (asked, rows) != last:
                    last = asked, rows
                    self._looked_at.emit(asked, rows)
                more = self._look_closely(rows)
            except Exception as error:  # a mistake is told as all are, once, and the next look may be without it
                if (mistake := repr(error)) != self._told:
                    self._told = mistake
                    sys.excepthook(*sys.exc_info())
            if not more:
                self._wake.wait(INTERVAL_SECONDS)
            self._wake.clear()

    def look(self) -> list[Any]:
        """All that is there, newest first, reading only files that changed since the last look. Told to stop, it leaves
        out the rest."""
        raise NotImplementedError

    def _tell(self, asked: object, rows: list[Any]) -> None:
        """In the thread of whoever made it, and perhaps later than a `poke` or `stop`."""
        if asked is self._asked and rows != self._found and not self.stopping:
            self._found = rows
            self.found.emit(rows)

    def _look_closely(self, rows: list[Any]) -> bool:
        """After each look. True when there may be more to read at once."""
        return False


@dataclass
class Seen(Generic[A, S]):
    """What was read of a folder, and the stamps of the files it was read from."""

    asked_stamp: Stamp
    asked: A | None  # None: it could not be read, and that was said
    status_stamp: Stamp
    status: S


def read_changed(
    before: Seen[A, S] | None,
    asked: tuple[Path, Callable[[], A]],
    status: tuple[Path, Callable[[], S]],
    failed: Callable[[LabError], object],
) -> Seen[A, S] | None:
    """A folder's two files, each with what reads it; only those are read that are not as `before`.

    None: there is no such folder. failed: told why what was asked cannot be read.
    """
    asked_stamp = file_stamp(asked[0])
    if asked_stamp == (0, 0):  # deleted since it was listed
        return None
    if before is None or before.asked_stamp != asked_stamp:
        try:
            what: A | None = asked[1]()
        except LabError as error:
            failed(error)
            what = None
    else:
        what = before.asked
    status_stamp = file_stamp(status[0])
    # Only what says it lives can change without its file: its process may be gone.
    if before is None or before.status_stamp != status_stamp or before.status.live:
        standing = status[1]()
    else:
        standing = before.status
    return Seen(asked_stamp, what, status_stamp, standing)


def file_stamp(path: Path) -> Stamp:
    """Changes whenever the file is replaced; (0, 0) when there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
