"""What is chosen and pointed at in the inspection panels, and how far their work is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from PySide6.QtCore import QObject, Signal

Part: TypeAlias = Literal["head", "attention", "feed_forward", "layer", "token"]
How: TypeAlias = Literal["zero", "mean", "scale", "patch"]


@dataclass(frozen=True)
class PromptToken:
    """One token of the prompt: its id, and its text as people read it."""

    id: int
    text: str


@dataclass(frozen=True)
class Selection:
    """The one selection that all panels share. token: of the prompt, -1 for the last. point: of the residual stream."""

    layer: int = 0
    head: int = 0
    token: int = -1
    point: str = "post_ffn"

    def token_at(self, count: int) -> int:
        """The chosen token in a prompt of `count`: always a position in it, 0 when it is empty."""
        place = self.token if self.token >= 0 else count + self.token
        return min(max(place, 0), max(count - 1, 0))


@dataclass(frozen=True)
class Working:
    """What the model's process is doing for the panels. share: 0 to 1, None if unknown. eta: seconds left, if known."""

    what: str
    share: float | None = None
    eta: float | None = None


@dataclass(frozen=True)
class ChosenIntervention:
    """A part of the model that an intervention changes, chosen in any panel. head, token: -1 where all are meant."""

    part: Part
    layer: int
    head: int = -1
    token: int = -1
    how: How = "zero"
    factor: float = 0.0  # of `scale`


class PointedAt(QObject):
    """What all inspection panels point at together: any may change it; all of them hear of it once."""

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
