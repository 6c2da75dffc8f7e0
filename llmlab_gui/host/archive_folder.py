"""A private folder for the archives that the panels look at: each is deleted when nobody looks any more."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path

import psutil

from llmlab.inspection.archive import Archive, read_archive

_PREFIX = "llmlab-inspection-"


class ArchiveFolder:
    """Gives out paths to write to, and opens what was written. `remove()` deletes all of it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._numbers = itertools.count(1)

    def new_path(self, name: str) -> Path:
        """A path that nothing is at yet; OSError when there is no room for temporary files."""
        if self._path is None:
            _remove_forgotten()
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
