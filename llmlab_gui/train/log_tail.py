"""The end of a growing text file, read piece by piece in bounded memory. No widgets."""

from __future__ import annotations

import os
import re
from pathlib import Path

# What is kept of a log: far more than anyone reads, little enough to search at once.
TAIL_BYTES = 2_000_000
# A piece a look: about 2 ms to read, decode and show.
_PIECE_BYTES = 128_000
# Longer lines are cut: a text widget lays out a line as a whole.
_LINE_CHARACTERS = 2000
# Escape sequences that colour a terminal or move its cursor (ECMA-48), and other control signs.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LogTail:
    """New lines of a file at each `read`; begins TAIL_BYTES before its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset: int | None = None
        self._identity: tuple[int, int] | None = None
        self._partial = b""
        self.skipped = 0  # bytes before the part that is shown

    def read(self) -> tuple[list[str], bool]:
        """The lines that are new, and whether everything before them is void (another or a shorter file is there).

        At most about 128 kB at once: call again for more. A missing file has no lines.
        """
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                fresh = self._place(about)
                assert self._offset is not None
                file.seek(self._offset)
                block = file.read(_PIECE_BYTES)
        except OSError:
            return [], False
        self._offset += len(block)
        *lines, self._partial = (self._partial + block).split(b"\n")
        if len(self._partial) > _PIECE_BYTES:  # a line without end: shown as far as it goes
            lines.append(self._partial)
            self._partial = b""
        return [_clean(line) for line in lines], fresh

    def _place(self, about: os.stat_result) -> bool:
        """Where to read on; True when the file is not the one that was read before."""
        identity = (about.st_dev, about.st_ino)
        if self._offset is not None and identity == self._identity and about.st_size >= self._offset:
            return False
        first_time = self._offset is None
        self._identity = identity
        self._offset = self.skipped = max(0, about.st_size - TAIL_BYTES)
        self._partial = b""
        return not first_time


def _clean(line: bytes) -> str:
    """One line for a text widget: the last state of a progress bar, no escapes, not too long."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    text = _ESCAPES.sub("", text.rpartition("\r")[2])
    if len(text) > _LINE_CHARACTERS:
        return f"{text[:_LINE_CHARACTERS]} … ({len(text) - _LINE_CHARACTERS:,} more characters)"
    return text
