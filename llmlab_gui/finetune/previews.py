"""Asking the model's process how examples read: one question at a time, the newest counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.data.example_preview import Preview
from llmlab_gui.host.messages import HostProgress
from llmlab_gui.host.process import ModelHost
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
        self._request: int | None = None
        host.previewed.connect(self._take)
        host.progress.connect(self._take_progress)
        host.failed.connect(self._take_failure)
        host.cancelled.connect(self._take_cancelled)

    def ask(self, question: Question) -> None:
        """Asks; an unanswered question is no longer wanted."""
        self._drop()
        self._request = self._host.preview(question.model, question.settings, question.seed, question.place)
        self._set_working(Working("Reading examples"))

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._request is not None:
            self._drop()
            self._set_working(None)
            self.cancelled.emit()

    def _drop(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._host.cancel(request)

    def _take(self, request: int, preview: Preview) -> None:
        if self._is_ours(request):
            self.found.emit(preview)

    def _take_failure(self, request: int, error: LabError) -> None:
        if self._is_ours(request):
            self.failed.emit(error)

    def _take_cancelled(self, request: int) -> None:
        if self._is_ours(request):
            self.cancelled.emit()

    def _is_ours(self, request: int) -> bool:
        """Whether the one that is waited for has ended."""
        if request != self._request:
            return False
        self._request = None
        self._set_working(None)
        return True

    def _take_progress(self, request: int, progress: HostProgress) -> None:
        if request == self._request:
            self._set_working(Working(progress.what, progress.share, progress.eta_seconds))

    def _set_working(self, working: Working | None) -> None:
        if working != self.working:
            self.working = working
            self.working_changed.emit()
