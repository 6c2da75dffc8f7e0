"""Reading a run's events: all of them as they stand, or those that are new while it trains. No Qt, no torch.

Damaged lines are passed over, and half a line at the end waits for its other half. A worker that resumes cuts
events.jsonl back to its checkpoint, then writes `started` with that step: whoever read further drops what that
`started` does not keep (`Started.keeps_step`), the one rule of what a resume makes void.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from llmlab.core.errors import explained
from llmlab.store.events import Event, Started, from_line
from llmlab.store.run_folder import RunFolder, RunStatus

STEP_PREFIX = b'{"event": "step"'
# Of many `step` lines in a row, the last that can be read is among so many.
_NEWEST = 1000
# What stands first or last in a file, some hundred events: the first worker's `started`, or how far training got.
_END_BYTES = 64 << 10


def read_events(run: RunFolder, *, every_step: bool = True) -> Iterator[Event]:
    """The events of a run in order, as its file stands; none where there is no file. LabError when it cannot be read.

    every_step: or else of the many `step` events between two others only the last, and the rest are not parsed.
    """
    newest: deque[bytes] = deque(maxlen=_NEWEST)
    with (
        explained(f"{run.events} cannot be read."),
        contextlib.suppress(FileNotFoundError),
        run.events.open("rb") as file,
    ):
        for line in file:
            if not every_step and line.startswith(STEP_PREFIX):
                newest.append(line)
            elif (event := from_line(line)) is not None:
                yield from _last(newest)
                newest.clear()
                yield event
        yield from _last(newest)


def first_started(run: RunFolder) -> Started | None:
    """The first worker's, or where that is damaged a later one's, if it stands near the beginning of the file."""
    return next((event for event in first_events(run) if isinstance(event, Started)), None)


def first_events(run: RunFolder) -> list[Event]:
    """The oldest some hundred; none where the file cannot be read."""
    with contextlib.suppress(OSError), run.events.open("rb") as file:
        return list(readable(file.read(_END_BYTES).splitlines()))
    return []


def last_events(path: Path) -> list[Event]:
    """The newest some hundred. OSError when the file cannot be read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return list(readable(file.read().splitlines()))


def whole_lines(file: BinaryIO, offset: int, most: int) -> bytes:
    """Lines from a byte on, about `most` bytes of them: a line longer than that is taken whole, half a line not."""
    file.seek(offset)
    block = file.read(most)
    end = block.rfind(b"\n") + 1
    if not end and len(block) == most:
        block += file.readline()
        end = len(block) if block.endswith(b"\n") else 0
    return block[:end]


def readable(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events of lines, without those that are damaged."""
    return (event for line in lines if (event := from_line(line)) is not None)


class EventFollower:
    """Reads a run's events once each, in order; `poll()` returns what is new, and goes back to where a worker cut."""

    def __init__(self, run: RunFolder, offset: int = 0) -> None:
        """offset: byte to begin at (the start of a line), for what was read by other means."""
        self._run = run
        self.offset = offset  # bytes read so far, whole lines only
        self._status, self._status_is = RunStatus(), (0, 0, 0)  # status.json as it was read, and which file that was
        self._attempt = self._recorded_status().attempt

    def poll(self, max_bytes: int = 1 << 20) -> list[Event]:
        """New whole lines, at most about `max_bytes` of them."""
        status, block = self._recorded_status(), b""
        while not block or status.attempt > self._attempt:  # a worker may begin while its lines are read
            if status.attempt > self._attempt:
                self._attempt = status.attempt
                self.offset = min(self.offset, status.events_start)
            try:
                with self._run.events.open("rb") as file:
                    block = whole_lines(file, self.offset, max_bytes)
            except OSError:
                return []
            if not block:
                return []
            status = self._recorded_status()
        self.offset += len(block)
        return list(readable(block.splitlines()))

    def _recorded_status(self) -> RunStatus:
        """status.json, read again where another file has replaced it: to read it costs as much as ten events."""
        try:
            found = self._run.status_json.stat()
        except OSError:
            return self._run.recorded_status()
        if (now := (found.st_ino, found.st_mtime_ns, found.st_size)) != self._status_is:
            self._status, self._status_is = self._run.recorded_status(), now
        return self._status


def _last(lines: Iterable[bytes]) -> Iterator[Event]:
    """The last of lines that can be read, if any."""
    return islice(readable(reversed(list(lines))), 1)
