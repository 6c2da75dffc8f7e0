"""Asking the model's process how examples read: one question at a time, the newest counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.host.selection import Working


@dataclass(frozen=True)
class Question:
    """What a preview is asked for. settings: of the section `data`, source among them. place: which example, from 0."""

    model: str
    settings: Mapping[str, Any]
    seed: int
    place: int = 0


class Previews(QObject):
    """Each question ends with `found`, `failed` or `cancelled`, unless a newer one took its place."""

    found = Signal(object)  # Preview
    failed = Signal(object)  # LabError
    cancelled = Signal()
    working_changed = Signal()

    def __init__(self, host: ModelHost, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.working: Working | None = None
        self._host = host
        self._request: Request | None = None

    def ask(self, question: Question) -> None:
        """Asks; an unanswered question is no longer wanted."""
        self._drop()
        request = self._host.preview(question.model, question.settings, question.seed, question.place)
        request.progressed.connect(self._set_working)
        for result, told in (
            (request.answered, self.found),
            (request.failed, self.failed),
            (request.cancelled, self.cancelled),
        ):
            result.connect(self._rest)
            result.connect(told)
        self._request = request
        self._set_working(Working("Reading examples"))

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._request is not None:
            self._drop()
            self._rest()
            self.cancelled.emit()

    def _drop(self) -> None:
        if self._request is not None:
            self._request.drop()

    def _rest(self) -> None:
        self._request = None
        self._set_working(None)

    def _set_working(self, working: Working | None) -> None:
        if working != self.working:
            self.working = working
            self.working_changed.emit()
