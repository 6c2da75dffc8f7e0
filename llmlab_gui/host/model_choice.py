"""Which model is chosen, which is not the active one while it is opened or could not be, and what is stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive


@dataclass(frozen=True)
class Subject:
    """A model, by its reference, and the prompt that it read."""

    model: str
    text: str
    beginning: bool


class ModelChoice(QObject):
    """The model that was chosen last. Whatever was found in another one, or with another prompt, is stale."""

    changed = Signal()  # another model was chosen, which is not open yet; or it could not be opened

    def __init__(self, active: Callable[[], Subject], parent: QObject | None = None) -> None:
        """active: the model that is open, "" for none, and the prompt of now."""
        super().__init__(parent)
        self.model = ""  # the reference of the one that was chosen last
        self.refused = False  # whether it could not be opened
        self.tokens: Subject | None = None  # what the tokens of the prompt are about
        self._refusal: LabError | None = None  # why
        self._active = active
        self._about: WeakKeyDictionary[Archive, Subject] = WeakKeyDictionary()
        self._names: dict[str, str] = {}

    @property
    def undecided(self) -> bool:
        """Whether another model was chosen than the active one, and is being opened or could not be."""
        return self.model != self._active().model

    def choose(self, reference: str) -> None:
        """A model is to be the active one, or is; "" for none."""
        self._set(reference, refused=False)

    def refuse(self, error: LabError) -> None:
        """It could not be opened. As long as nobody turns to the active one, what is known of that is stale."""
        self._refusal = error
        self._set(self.model, refused=True)

    def stay(self) -> None:
        """The active model after all, since the one that was chosen could not be opened."""
        if self.refused:
            self.choose(self._active().model)

    def read(self, error: LabError) -> None:
        """Somebody has waved a message away: where it said why a model was not opened, the active one is meant now."""
        if error is self._refusal:
            self.stay()

    def name(self, reference: str, name: str) -> None:
        """What people call a model."""
        self._names[reference] = name

    def note(self, archive: Archive, about: Subject) -> None:
        """What an archive is about."""
        self._about[archive] = about

    def stale(self, archive: Archive | None = None, *, prompt: bool = True) -> str:
        """What an archive is about, `of alpha, step 300`, when that is not what is chosen; "" when it is.

        archive: None for the tokens of the prompt. prompt: whether it is about the prompt, too.
        """
        about = self.tokens if archive is None else self._about.get(archive)
        if about is None:
            return ""
        if about.model != self.model:
            return f"of {self._names.get(about.model, about.model)}"
        now = self._active()
        return "of another prompt" if prompt and (about.text, about.beginning) != (now.text, now.beginning) else ""

    def _set(self, reference: str, *, refused: bool) -> None:
        if (reference, refused) != (self.model, self.refused):
            self.model, self.refused = reference, refused
            self.changed.emit()
