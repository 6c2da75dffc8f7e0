"""A film: what one prompt looked like in a model at one training step after another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from llmlab.inspection.archive import Archive, Array, Metadata

# A live run can be followed for days; older frames than these make room for newer ones.
MOST_FRAMES = 400


class Inspected(Protocol):
    """What drawing needs of an inspection: an Archive, or one frame of a film."""

    @property
    def metadata(self) -> Metadata:
        """What it says of itself."""
        ...

    def __getitem__(self, name: str, /) -> Array: ...

    def __contains__(self, name: object, /) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, without reading it."""
        ...


class Frame(Mapping[str, Array]):
    """An inspection at one step: a slice of an evolution, or an inspection of its own."""

    def __init__(self, archive: Archive, step: int, place: int | None = None, val_loss: float | None = None) -> None:
        """place: in the evolution's leading axis; None for an archive of one step."""
        self._archive, self._place = archive, place
        self.step, self.val_loss = step, val_loss
        self.metadata = archive.metadata

    def __getitem__(self, name: str) -> Array:
        values = self._archive[name]
        return values if self._place is None else values[self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive)

    def __len__(self) -> int:
        return len(self._archive)

    def __contains__(self, name: object) -> bool:
        return name in self._archive  # Mapping's own would read the tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, without reading it."""
        shape = self._archive.shape(name)
        return shape if self._place is None else shape[1:]


@dataclass(frozen=True)
class Film:
    """Frames by ascending step. run: whose they are."""

    run: str
    frames: tuple[Frame, ...] = ()

    @property
    def steps(self) -> list[int]:
        """Of the frames."""
        return [frame.step for frame in self.frames]

    def with_frame(self, frame: Frame) -> Film:
        """One more at its place; a frame of the same step is replaced."""
        others = [other for other in self.frames if other.step != frame.step]
        frames = sorted([*others, frame], key=lambda one: one.step)
        return Film(self.run, tuple(frames[-MOST_FRAMES:]))

    def text_model(self) -> str:
        """The reference whose tokenizer reads the ids."""
        if not self.frames:
            return self.run
        references = json.loads(self.frames[-1].metadata.more.get("references", "[]"))
        return str(references[-1]) if references else self.frames[-1].metadata.model


def film_of(archive: Archive) -> Film:
    """The frames of an archive of kind `evolution`. KeyError or ValueError when it is none."""
    more = archive.metadata.more
    steps, losses = json.loads(more["steps"]), json.loads(more.get("val_loss", "[]"))
    losses = losses if len(losses) == len(steps) else [None] * len(steps)
    pairs = enumerate(zip(steps, losses, strict=True))
    return Film(archive.metadata.model, tuple(Frame(archive, int(step), n, loss) for n, (step, loss) in pairs))
