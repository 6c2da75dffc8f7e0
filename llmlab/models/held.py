"""The one model that a process keeps in memory, by all the names that led to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmlab.core.errors import LabError
from llmlab.core.memory import NoMemory, give_back
from llmlab.core.progress import Progress
from llmlab.models.model import OpenModel
from llmlab.models.reference import Reference
from llmlab.models.source import open_model, source_of

T = TypeVar("T")


class HeldModel:
    """It stays until another is asked for, also when its files were deleted meanwhile."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs
        self.opened: OpenModel | None = None
        self._opened_from: object = None  # its source's fingerprint
        self._names: list[Reference] = []  # that led to it

    def model(self, reference: Reference, progress: Progress, loading: Callable[[], None] | None) -> OpenModel:
        """The model of a reference, in place of the one that is held, unless it is that. loading: told before."""
        if (held := self._as(reference)) is not None:
            return held
        wanted = source_of(reference).fingerprint()
        if loading is not None:
            loading()
        self.close()
        self.opened = open_model(reference, self._outputs, progress)
        self._opened_from, self._names = wanted, [reference]
        return self.opened

    def beside(self, reference: Reference, progress: Progress) -> OpenModel:
        """A model beside the one that is held, or that one."""
        return self._as(reference) or self.with_room(lambda: open_model(reference, self._outputs, progress))

    def with_room(self, work: Callable[[], T]) -> T:
        """What opens models beside the one that is held: it is let go where memory has no room for all."""
        try:
            return work()
        except NoMemory:
            if not any(map(self.is_of, self._names)):  # none is held, or it could not be opened again
                raise
        self.close()
        return work()

    def is_of(self, reference: Reference) -> bool:
        """Whether a model is held, and a reference leads to it."""
        try:
            return self.opened is not None and source_of(reference).fingerprint() == self._opened_from
        except LabError:
            return False

    def close(self) -> None:
        """Holds none any more."""
        if self.opened is not None:
            self.opened, self._opened_from, self._names = None, None, []
            give_back()

    def _as(self, reference: Reference) -> OpenModel | None:
        """The model that is held, where a reference leads to it, or did before its files were deleted."""
        try:
            same = source_of(reference).fingerprint() == self._opened_from
        except LabError:  # its files are gone
            if reference not in self._names:
                raise
            return self.opened
        if not same:
            return None
        if reference not in self._names:
            self._names.append(reference)
        return self.opened
