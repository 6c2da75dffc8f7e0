"""What was asked of the model's process and is not answered yet: who waits for it, and whether anyone still does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab_gui.host.archive_folder import ArchiveFolder
from llmlab_gui.host.messages import HostProgress
from llmlab_gui.host.process import ModelHost
from llmlab_gui.host.selection import Working

Then = Callable[[Archive], None]
Failed = Callable[[LabError], None]


@dataclass
class Pending:
    """A request without its answer.

    bound: pointless with another model or prompt. key: one at a time of a kind. path: where its archive will be.
    quiet: too short to speak of. wanted: False once nobody waits; it stays in the books until the host has heard.
    """

    what: str
    done: Callable[[Any], None]
    failed: Failed
    bound: bool = True
    key: str = ""
    path: Path | None = None
    quiet: bool = False
    wanted: bool = True


class Requests(QObject):
    """The books of an InspectionSession. Each request ends with `done`, with `failed`, or silently if dropped."""

    working_changed = Signal()

    def __init__(self, host: ModelHost, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.working: Working | None = None
        self._host = host
        self._folder = ArchiveFolder()
        self._pending: dict[int, Pending] = {}
        host.progress.connect(self._take_progress)
        host.loading.connect(lambda request: self._take_progress(request, HostProgress("Loading the model")))
        host.opened.connect(self._take)
        host.tokens.connect(self._take)
        host.answered.connect(lambda request, path, _seconds: self._take(request, path))
        host.cancelled.connect(self._close)
        host.failed.connect(self._take_failure)

    def wait(self, request: int, pending: Pending) -> int:
        """Notes a request that the host was given; returns its id."""
        self._pending[request] = pending
        self._update_working()
        return request

    def ask(
        self,
        name: str,
        send: Callable[[Path], int],
        then: Then,
        failed: Failed,
        key: str = "",
        *,
        quiet: bool = False,
        bound: bool = True,
    ) -> int:
        """`send(path)` asks the host for an archive there; `then(archive)` or `failed(error)` follows.

        Requests with the same key are dropped. bound: pointless with another prompt or model.
        Returns the id; 0 when there is no room for an archive.
        """
        try:
            path = self._folder.new_path(name)
        except OSError as error:
            failed(LabError("There is no room on disk for an inspection.", str(error)))
            return 0

        def done(written: Path) -> None:
            try:
                archive = self._folder.open(written)
            except LabError as error:
                failed(error)
                return
            then(archive)

        self.supersede(key)
        return self.wait(send(path), Pending(name.capitalize(), done, failed, bound, key, path, quiet))

    @property
    def busy(self) -> bool:
        """Whether someone waits for an answer that takes time."""
        return any(pending.wanted and not pending.quiet for pending in self._pending.values())

    def running(self, key: str) -> bool:
        """Whether someone waits for a request of that kind."""
        return any(pending.key == key and pending.wanted for pending in self._pending.values())

    def supersede(self, key: str) -> None:
        """Nobody waits any more for what has this key."""
        for request, pending in list(self._pending.items()):
            if key and pending.key == key:
                self.drop(request)

    def drop_bound(self) -> None:
        """Nobody waits any more for what is about another prompt or model."""
        for request, pending in list(self._pending.items()):
            if pending.bound:
                self.drop(request)

    def drop_all(self) -> None:
        """Nobody waits for anything."""
        for request in list(self._pending):
            self.drop(request)

    def drop(self, request: int) -> None:
        """Nobody waits for it any more."""
        pending = self._pending.get(request)
        if pending is not None and pending.wanted:
            pending.wanted = False
            self._host.cancel(request)
            self._update_working()

    def shutdown(self) -> None:
        """Forgets everything and deletes the archives."""
        self._pending.clear()
        self._set_working(None)
        self._folder.remove()

    def _close(self, request: int) -> Pending | None:
        """The request has ended; None when nobody wants its answer."""
        pending = self._pending.pop(request, None)
        if pending is None:
            return None
        self._update_working()
        if pending.wanted:
            return pending
        if pending.path is not None:
            self._folder.discard(pending.path)
        return None

    def _take(self, request: int, answer: Any) -> None:
        pending = self._close(request)
        if pending is not None:
            pending.done(answer)

    def _take_failure(self, request: int, error: LabError) -> None:
        pending = self._close(request)
        if pending is not None:
            if pending.path is not None:
                self._folder.discard(pending.path)
            pending.failed(error)

    def _take_progress(self, request: int, progress: HostProgress) -> None:
        pending = self._pending.get(request)
        if pending is not None and pending.wanted and not pending.quiet:
            self._set_working(Working(progress.what or pending.what, progress.share, progress.eta_seconds))

    def _update_working(self) -> None:
        """What is shown until the host reports: the oldest request that someone wants."""
        wanted = [pending for pending in self._pending.values() if pending.wanted and not pending.quiet]
        if not wanted:
            self._set_working(None)
        elif self.working is None:
            self._set_working(Working(wanted[0].what))

    def _set_working(self, working: Working | None) -> None:
        if working != self.working:
            self.working = working
            self.working_changed.emit()
