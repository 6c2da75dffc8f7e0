"""Panels that ask a question of their own about the model and its prompt, besides what all panels are told."""

from __future__ import annotations

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.inspection.archive import Archive
from llmlab_gui.docks.inspection_dock import InspectionDock
from llmlab_gui.lab import Lab


class AskingDock(InspectionDock):
    """Subclasses write `_ask`, which remembers in `_asked` what it asks for, and `_forget`. `archive` is the answer."""

    needs_inspection = False
    needs_prompt = True

    def __init__(self, lab: Lab, dock_id: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(lab, dock_id, title, parent)
        self.archive: Archive | None = None
        self._asked: tuple[object, ...] = ()
        self.session.tokens_changed.connect(self._ask)
        self.session.about_changed.connect(self._forget)
        self.session.inspection_changed.connect(self._look_again)

    def ready(self) -> bool:
        """Whether there is an answer."""
        return self.archive is not None

    def tensors(self) -> tuple[Archive, list[str]] | None:
        """All of it."""
        return (self.archive, list(self.archive)) if self.archive is not None else None

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self.archive is None and self.session.working is None:  # it was cancelled, perhaps
            self._asked = ()
        self._ask()

    def _ask(self) -> None:
        """Unless that is what is shown or asked for."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Another model is open."""
        raise NotImplementedError

    def _look_again(self) -> None:
        """A live model has learned since."""
        about = self.session.about
        if about is not None and about.live and self.session.inspection is not None:
            self._asked = ()
            self._ask()
