"""What all inspection panels point at together: a head, a token, the parts that an intervention changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab_gui.host.selection import ChosenIntervention, Selection


class PointedAt(QObject):
    """Any panel may change it; all of them hear of it once."""

    selection_changed = Signal()
    hover_changed = Signal(int)  # token under the pointer in any panel, -1 for none
    interventions_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.selection = Selection()
        self.hovered = -1
        self.edits: list[ChosenIntervention] = []

    def select(self, **changes: Any) -> None:
        """Changes the selection: layer, head, token or point."""
        selection = dataclasses.replace(self.selection, **changes)
        if selection != self.selection:
            self.selection = selection
            self.selection_changed.emit()

    def hover(self, token: int) -> None:
        """The pointer is on a token, in any panel; -1: it has left."""
        if token != self.hovered:
            self.hovered = token
            self.hover_changed.emit(token)

    def set_interventions(self, edits: Iterable[ChosenIntervention]) -> None:
        """What an intervention would change, chosen in any panel."""
        chosen = list(dict.fromkeys(edits))
        if chosen != self.edits:
            self.edits = chosen
            self.interventions_changed.emit()

    def add_intervention(self, edit: ChosenIntervention) -> None:
        """One more."""
        self.set_interventions([*self.edits, edit])
