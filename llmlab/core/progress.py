"""Progress reporting and cancellation for long work: how often something is said, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

# The time left is a guess; sooner than this it is none worth saying.
_GUESS_AFTER_SECONDS = 0.5
_PACED = 0.1  # the share of all the work after which its own pace is believed: opening a file is no pace


class Progress(Protocol):
    """Called by long work between its steps. what: a few words; done of total: in any unit, total 0 if unknown.

    Raises llmlab.core.errors.Cancelled when the person who started the work no longer wants it.
    """

    def __call__(self, what: str, done: float, total: float) -> None: ...


def quiet(what: str, done: float, total: float) -> None:
    """Nobody watches and nobody cancels."""


def parts(counts: Sequence[float], progress: Progress) -> list[Progress]:
    """The progress of each part of the work. counts: how long each takes, in any unit, as prompts read."""

    def of_part(before: float, count: float) -> Progress:
        return lambda what, done, total: progress(what, before + count * (done / total if total else 0), sum(counts))

    return [of_part(sum(counts[:number]), count) for number, count in enumerate(counts)]


class Every:
    """Tells when something is due that is done every so many seconds."""

    def __init__(self, seconds: float, *, at_once: bool = True) -> None:
        """at_once: the first time is due at the first look; otherwise it is so many seconds away as well."""
        self._seconds = seconds
        self._last = None if at_once else time.monotonic()

    def due(self) -> bool:
        """Whether it is to be done now; then the seconds begin anew."""
        now = time.monotonic()
        if self._last is not None and now - self._last < self._seconds:
            return False
        self._last = now
        return True


class TimeLeft:
    """How long a part of some work still takes, by the pace that it has had; asked at each call of a `Progress`."""

    def __init__(self) -> None:
        self._part: tuple[str, float] | None = None
        self._began = self._first = 0.0

    def seconds(self, what: str, done: float, total: float) -> float | None:
        """None where that cannot be guessed yet, or never."""
        now = time.monotonic()
        if (what, total) != self._part:
            self._part, self._began, self._first = (what, total), now, done
        spent, gone = now - self._began, done - self._first
        if gone <= 0 or done > total or spent <= _GUESS_AFTER_SECONDS:
            return None
        return spent * (total - done) / gone


class Work:
    """How long the rest of some work takes: as was expected, or longer where its own news say so."""

    def __init__(self, expected: float) -> None:
        """expected: seconds."""
        self._began = time.monotonic()
        self._end, self._end_by_all = self._began + expected, 0.0
        self._step, self._all = TimeLeft(), TimeLeft()

    def tell(self, what: str, done: float, total: float) -> None:
        """News of a step, as a `Progress`: one that takes longer than was expected of all moves the end."""
        left = self._step.seconds(what, done, total)
        if left is not None:
            self._end = max(self._end, time.monotonic() + left)

    def tell_all(self, what: str, done: float, total: float) -> None:
        """News of all of it. A pace that was slow at first, and no longer is, moves the end back as well."""
        left = self._all.seconds("", done, total)
        if left is not None and done >= _PACED * total:
            self._end_by_all = time.monotonic() + left

    @property
    def spent(self) -> float:
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        return max(0.0, max(self._end, self._end_by_all) - time.monotonic())
