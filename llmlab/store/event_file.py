"""What of events.jsonl counts when a worker goes on: whatever can be read, up to a checkpoint's step.

A damaged line takes no other with it. An unfinished last line is no damage: a write that a kill cut short.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llmlab.core.files import replaced
from llmlab.store.events import EVENT_TYPES, from_line

# Of the lines before a checkpoint's place: enough to see whether it is still the end of its step.
_BEFORE_BYTES = 64 << 10
_BLOCK_BYTES = 1 << 20
# A step has one line of each of these kinds, in the order of steps. A warning, say, may come twice.
_ONCE = ("step", "evaluated")

Range = tuple[int, int]  # bytes: begin, end


@dataclass
class Counted:
    """end: bytes up to which lines count. damaged: of what cannot be told to be void; those before `end` are gaps."""

    end: int
    damaged: list[Range] = field(default_factory=list)

    @property
    def gaps(self) -> list[Range]:
        return [place for place in self.damaged if place[0] < self.end]


def counted(path: Path, step: int, scan_from: int) -> Counted:
    """What of a file of events counts for a worker that goes on after `step`; -1: nothing.

    scan_from: bytes known to be older, as the checkpoint has it. Where lines before it were damaged it is wrong,
    and the file is read from its start.
    """
    if step < 0 or not path.exists():
        return Counted(0)
    with path.open("rb") as file:
        order = _Order()
        start = scan_from if _ends_a_step(file, scan_from, step, order) else 0
        if start == 0:
            order = _Order()
        found = Counted(start)
        first_later: int | None = None  # since `end`: a line of a later step, after which everything should be void
        whole = start
        for begin, line in _whole_lines(file, start):
            whole = begin + len(line)
            kind, at = _head(line)
            if kind is None:
                continue
            if at > step:
                first_later = begin if first_later is None else first_later
                continue
            if kind == "failed" and first_later is not None:  # its step is that of the last `step` line
                continue
            wrong = order.place(kind, at, (begin, whole), start)
            if wrong == (begin, whole):
                continue
            if wrong is not None:
                found.damaged.append(wrong)
            if begin > found.end:
                found.damaged.append((found.end, begin))
            found.end, first_later = whole, None
        tail = whole if first_later is None else first_later
        if tail > found.end:
            found.damaged.append((found.end, tail))
    found.damaged.sort()
    return found


def set_aside(path: Path, places: list[Range], aside: Path) -> int:
    """Adds the damaged lines of a file to another, on disk before this returns; how many they are. OSError."""
    lines = 0
    with path.open("rb") as file, aside.open("ab") as kept:
        for begin, end in places:
            file.seek(begin)
            block = file.read(end - begin)
            lines += block.count(b"\n")
            kept.write(block)
        kept.flush()
        os.fsync(kept.fileno())
    return lines


def close_gaps(path: Path, found: Counted) -> None:
    """Replaces a file by what of it counts. Raises OSError with the old one intact."""
    with path.open("rb") as file, replaced(path) as new:
        at = 0
        for begin, end in [*found.gaps, (found.end, found.end)]:
            file.seek(at)
            while at < begin:
                block = file.read(min(_BLOCK_BYTES, begin - at))
                new.write(block)
                at += len(block)
            at = end


def whole_bytes(path: Path) -> int:
    """Bytes of a file up to its last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK_BYTES)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


class _Order:
    """The last two lines of each kind in _ONCE: one whose step lies between two others was damaged into another."""

    def __init__(self) -> None:
        self._last: dict[str, list[tuple[int, Range]]] = {kind: [] for kind in _ONCE}

    def place(self, kind: str, step: int, place: Range, movable_from: int) -> Range | None:
        """Takes the next line; returns the place of the line that is out of order, this or the one before, if any.

        movable_from: what lies before that byte stays.
        """
        if kind not in self._last:
            return None
        last = self._last[kind]
        wrong = None
        if last and step <= last[-1][0]:
            earlier = last[-2][0] if len(last) > 1 else -1
            if step == last[-1][0] or step <= earlier or last[-1][1][0] < movable_from:
                return place
            wrong = last.pop()[1]
        last.append((step, place))
        del last[:-2]
        return wrong


def _ends_a_step(file: BinaryIO, place: int, step: int, order: _Order) -> bool:
    """Whether the line before a place is whole and no later than `step`; the lines before it are put into `order`."""
    size = file.seek(0, os.SEEK_END)
    if not 0 < place <= size:
        return False
    begin = max(0, place - _BEFORE_BYTES)
    file.seek(begin)
    before = file.read(place - begin)
    if not before.endswith(b"\n"):
        return False
    newest = step + 1
    for line in io.BytesIO(before).readlines()[1 if begin else 0 :]:
        kind, newest = _head(line)
        if kind is not None:
            order.place(kind, newest, (begin, begin), 0)
        else:
            newest = step + 1
    return newest <= step


def _whole_lines(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and the line with its line break; half a line at the end is left out."""
    file.seek(start)
    for line in file:
        if line.endswith(b"\n"):
            yield start, line
        start += len(line)


def _head(line: bytes) -> tuple[str | None, int]:
    """Kind and step of a line; no kind when it is damaged. A kind of a later version of the lab is not."""
    try:
        values = json.loads(line)
        kind, step = values["event"], values["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, -1
    if not isinstance(kind, str) or type(step) is not int or step < 0:
        return None, -1
    return (None, -1) if kind in EVENT_TYPES and from_line(line) is None else (kind, step)
