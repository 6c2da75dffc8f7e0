"""Progress reporting and cancellation for long work."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work between its steps. what: a few words; done of total: in any unit, total 0 if unknown.

    Raises llmlab.core.errors.Cancelled when the person who started the work no longer wants it.
    """

    def __call__(self, what: str, done: float, total: float) -> None: ...


def quiet(what: str, done: float, total: float) -> None:
    """Nobody watches and nobody cancels."""
