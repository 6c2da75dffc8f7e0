"""What was found about one prompt so far, in parts, the quick ones first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from llmlab.inspection.archive import Archive, Array, Shape


def sources(archive: Archive) -> dict[str, Archive]:
    """The archive on disk that each tensor is from."""
    return dict(archive._of) if isinstance(archive, JoinedArchive) else dict.fromkeys(archive, archive)


def step_of(archive: Archive) -> int | None:
    """The step of the checkpoint, or of the run that trained, that an archive is about; None where it has none."""
    step = archive.metadata.more.get("step")
    return int(step) if step else None


class JoinedArchive(Archive):
    """Two archives about the same prompt and model, as one; the later one's tensors win."""

    def __init__(self, first: Archive, second: Archive) -> None:
        notes = list(dict.fromkeys([*first.metadata.notes, *second.metadata.notes]))
        more = {**first.metadata.more, **second.metadata.more}
        super().__init__(first.path, dataclasses.replace(first.metadata, notes=notes, more=more), {})
        self._of = {**sources(first), **sources(second)}

    def __getitem__(self, name: str) -> Array:
        return self._of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def shape(self, name: str) -> Shape:
        """As of any archive."""
        return self._of[name].shape(name)


class Findings:
    """Which aspects were found, are being looked for, or are not wanted any more, since the prompt last changed."""

    def __init__(self) -> None:
        self.archive: Archive | None = None
        self.found: set[str] = set()
        self._asked: tuple[str, ...] = ()
        self._declined: set[str] = set()

    def clear(self) -> None:
        """Everything has to be looked for again; the archive stays until it is replaced."""
        self.found, self._asked, self._declined = set(), (), set()

    def next(self, wanted: Sequence[str], slow: Sequence[str], *, whole: bool) -> tuple[str, ...]:
        """What to ask for now: what is missing, without what is slow as long as something else is.

        whole: all that is wanted or nothing, as of a model that changes from one answer to the next.
        """
        missing = self.missing(wanted)
        if not missing:
            return ()
        if whole:
            return tuple(wanted)
        quick = tuple(aspect for aspect in missing if aspect not in slow)
        return quick or missing

    def missing(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those that were neither found nor given up."""
        return tuple(aspect for aspect in wanted if aspect not in self.found and aspect not in self._declined)

    def is_after(self, aspects: Iterable[str]) -> bool:
        """Whether some of these were asked for last, and are not found yet."""
        return not set(aspects).isdisjoint(self._asked)

    def ask(self, what: tuple[str, ...], *, whole: bool) -> None:
        """These are being looked for."""
        self._asked = what
        if whole:
            self.found = set()

    def waits_for(self, slow: Sequence[str]) -> bool:
        """Whether nothing is being looked for but what is slow."""
        return bool(self._asked) and set(self._asked) <= set(slow)

    def take(self, archive: Archive) -> Archive:
        """They were found; returns everything that is known."""
        self.archive = self.with_part(archive)
        self.found |= set(self._asked)
        self._asked = ()
        return self.archive

    def with_part(self, archive: Archive) -> Archive:
        """Everything that is known, with a part of what is being looked for."""
        return JoinedArchive(self.archive, archive) if self.found and self.archive is not None else archive

    def decline(self) -> bool:
        """They are not wanted after all, or could not be found; False when nothing else is known either."""
        self._declined |= set(self._asked)
        self._asked = ()
        return bool(self.found)

    def declined(self, aspects: Iterable[str]) -> bool:
        """Whether one of these was cancelled, or could not be found, and is not being looked for any more."""
        return not self._declined.isdisjoint(aspects)

    def want_again(self) -> None:
        """What was declined has to be looked for once more."""
        self._declined = set()

    def give_up(self, aspects: Iterable[str]) -> None:
        """These are not looked for again until the prompt changes."""
        self._declined |= set(aspects)
        self._asked = ()
