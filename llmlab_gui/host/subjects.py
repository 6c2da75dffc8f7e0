"""What the numbers in the panels are about, and how that is named when it is no longer what is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from llmlab.inspection.archive import Archive


@dataclass(frozen=True)
class Subject:
    """A model, by its reference, and the prompt that it read."""

    model: str
    text: str
    beginning: bool


class Subjects:
    """Remembers the subject of every archive that somebody looks at, and the names of the models."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Archive, Subject] = WeakKeyDictionary()
        self._names: dict[str, str] = {}

    def note(self, archive: Archive, about: Subject) -> None:
        """What an archive is about."""
        self._of[archive] = about

    def name(self, reference: str, name: str) -> None:
        """What people call a model."""
        self._names[reference] = name

    def of(self, archive: Archive) -> Subject | None:
        """What an archive is about; None if nobody said so."""
        return self._of.get(archive)

    def words(self, about: Subject, now: Subject, *, prompt: bool) -> str:
        """`of alpha, step 300`, `of another prompt`; "" for what is chosen now. prompt: whether that matters."""
        if about.model != now.model:
            return f"of {self._names.get(about.model, about.model)}"
        if prompt and (about.text, about.beginning) != (now.text, now.beginning):
            return "of another prompt"
        return ""
