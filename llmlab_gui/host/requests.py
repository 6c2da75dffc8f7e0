"""What the inspection panels asked of the model's process and has no answer yet, and the folder for the answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError, explained
from llmlab.inspection.archive import Archive, read_archive
from llmlab_gui.host.process import Request
from llmlab_gui.host.selection import Working

Then = Callable[[Archive], None]
Failed = Callable[[LabError], None]
# What is being done, by the name of what is asked for.
_DOING = {
    "inspect": "Reading the prompt",
    "evolve": "Reading the prompt at each checkpoint",
    "compare": "Comparing the models",
    "change": "Measuring what fine-tuning changed",
    "intervene": "Running the intervention",
    "sweep": "Running the sweep",
    "stages": "Reading the head",
    "pattern": "Reading the head",
    "neurons": "Reading the neurons",
    "geometry": "Measuring the embeddings",
    "parameters": "Measuring the parameters",
    "walk": "Walking forwards",
    "walk_back": "Walking backwards",
}


@dataclass(frozen=True)
class Pending:
    """What is known of a request without its answer.

    bound: pointless with another model or prompt. key: one at a time of a kind. path: where its archive will be.
    quiet: too short to speak of.
    """

    what: str
    bound: bool = True
    key: str = ""
    path: Path | None = None
    quiet: bool = False


class Requests(QObject):
    """The books of an InspectionSession. A dropped request stays in them until the host has heard."""

    working_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.working: Working | None = None
        self._folder = ArchiveFolder()
        self._pending: dict[Request, Pending] = {}

    def wait(self, request: Request, pending: Pending, then: Callable[[Any], None], failed: Failed) -> Request:
        """Notes what the host was asked, and drops what has the same key. `then(answer)` or `failed(error)` follows."""
        self.supersede(pending.key)
        self._pending[request] = pending
        request.ended.connect(lambda: self._close(request))
        request.answered.connect(then)
        request.failed.connect(failed)
        if not pending.quiet:
            request.progressed.connect(lambda news: self._set_working(replace(news, what=news.what or pending.what)))
        self._update_working()
        return request

    def ask(
        self,
        name: str,
        send: Callable[[Path], Request],
        then: Then,
        failed: Failed,
        key: str = "",
        *,
        quiet: bool = False,
        bound: bool = True,
        part: Then | None = None,
    ) -> Request | None:
        """`send(path)` asks the host for an archive there; `then(archive)` or `failed(error)` follows.

        Requests with the same key are dropped. bound: pointless with another prompt or model. part: is shown what is
        found before that.
        None when there is no room for an archive.
        """
        try:
            path = self._folder.new_path(name)
        except LabError as error:
            failed(error)
            return None

        def done(written: Path) -> None:
            try:
                archive = self._folder.open(written)
            except LabError as error:
                failed(error)
                return
            then(archive)

        def refused(error: LabError) -> None:
            self._folder.discard(path)
            failed(error)

        def found(written: Path) -> None:
            if not request.wanted:  # it was on its way
                self._folder.discard(written)
                return
            with contextlib.suppress(LabError):  # all of it follows
                part(self._folder.open(written))  # type: ignore[misc]

        request = send(path)
        if part is not None:
            request.part.connect(found)
        return self.wait(request, Pending(_DOING.get(name, name.capitalize()), bound, key, path, quiet), done, refused)

    @property
    def busy(self) -> bool:
        """Whether someone waits for an answer that takes time."""
        return bool(self._wanted())

    def running(self, key: str) -> bool:
        """Whether someone waits for a request of that kind."""
        return any(pending.key == key and request.wanted for request, pending in self._pending.items())

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

    def drop(self, request: Request) -> None:
        """Nobody waits for it any more."""
        if request.wanted:
            request.drop()
            self._update_working()

    def shutdown(self) -> None:
        """Forgets everything and deletes the archives."""
        self._pending.clear()
        self._set_working(None)
        self._folder.remove()

    def _close(self, request: Request) -> None:
        pending = self._pending.pop(request)
        self._update_working()
        if pending.path is not None and not request.wanted:
            self._folder.discard(pending.path)

    def _wanted(self) -> list[Pending]:
        """What takes time and someone waits for, the oldest first."""
        return [pending for request, pending in self._pending.items() if request.wanted and not pending.quiet]

    def _update_working(self) -> None:
        """What is shown until the host reports: the oldest request that someone wants."""
        wanted = self._wanted()
        if not wanted:
            self._set_working(None)
        elif self.working is None:
            self._set_working(Working(wanted[0].what))

    def _set_working(self, working: Working | None) -> None:
        if working != self.working:
            self.working = working
            self.working_changed.emit()


_PREFIX = "llmlab-inspection-"


class ArchiveFolder:
    """Gives out paths to write to, and opens what was written. `remove()` deletes all of it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._numbers = itertools.count(1)

    def new_path(self, name: str) -> Path:
        """A path that nothing is at yet. LabError when there is no place for temporary files."""
        if self._path is None:
            _remove_forgotten()
            with explained("A folder for inspections could not be made.", "Make room there, or set TMPDIR."):
                self._path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        return self._path / f"{next(self._numbers):05d}-{name}.safetensors"

    def open(self, path: Path) -> Archive:
        """Reads an archive's header; its file is deleted with the object. LabError when it is damaged."""
        archive = read_archive(path)
        weakref.finalize(archive, _unlink, path)
        return archive

    def discard(self, path: Path) -> None:
        """Deletes what was written for a question that nobody asks any more."""
        _unlink(path)

    def remove(self) -> None:
        """Deletes the folder."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None


def _unlink(path: Path) -> None:
    """Windows keeps a file that is still mapped: `remove` comes back to it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _remove_forgotten() -> None:
    """Folders of windows that were killed before they could tidy up."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        if owner is not None and not psutil.pid_exists(int(owner.group(1))):
            shutil.rmtree(folder, ignore_errors=True)
