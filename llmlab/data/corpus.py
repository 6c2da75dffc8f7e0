"""The interface of every source of text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Characters of one piece: small enough that cancelling answers at once, large enough that calls cost nothing.
PIECE_CHARS = 1 << 18


@dataclass(frozen=True)
class Piece:
    """A stretch of a document; a short document is one piece. Joined, the pieces are the document."""

    text: str
    starts_document: bool


@dataclass(frozen=True)
class Corpus(ABC):
    """One source of text."""

    name: str
    title: str
    description: str
    kind: str  # "embedded", "generated", "fetched", "built", "yours" or "mixture"
    licence: str
    origin: str
    bytes: int  # size of the text; 0 when it is not known

    @abstractmethod
    def here(self) -> bool:
        """True when it can be read now, without a network."""

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """The text, streamed in constant memory. LabError when it is not here, saying which file to put where."""

    @abstractmethod
    def content_key(self) -> str:
        """Changes when the text does; cheap, so it reads no more of the text than it must."""

    def document_entropy(self) -> float | None:
        """Nats in an average document, where the text comes from a known probability model; else None."""
        return None

    def documents(self) -> Iterator[str]:
        """The documents, one after the other. Each is held in memory; `pieces` is for texts of any size."""
        parts: list[str] = []
        for piece in self.pieces():
            if piece.starts_document and parts:
                yield "".join(parts)
                parts.clear()
            parts.append(piece.text)
        if parts:
            yield "".join(parts)


def document_pieces(blocks: Iterable[str], size: int = PIECE_CHARS) -> Iterator[Piece]:
    """One document, which arrives in blocks of any length, as pieces of at most about `size` characters.

    It is cut before the last white space of a run that text follows. GPT-2's splitting never puts a token
    across such a place (a space belongs to the word behind it, and so does nothing else), so the tokens of the
    pieces are those of the whole text. Only a stretch of `size` characters without any white space is cut
    anywhere, which can split one token.
    """
    starts = True
    buffer = ""
    for block in blocks:
        buffer += block
        while len(buffer) > size:
            cut = _safe_cut(buffer, size)
            yield Piece(buffer[:cut], starts)
            starts = False
            buffer = buffer[cut:]
    if buffer:
        yield Piece(buffer, starts)


def _safe_cut(text: str, size: int) -> int:
    """The largest safe place to cut within the first `size` characters: a line's end if there is one."""
    for space in ("\n", " "):
        place = text.rfind(space, 1, size)
        while place > 0:
            if not text[place + 1].isspace():
                return place
            place = text.rfind(space, 1, place)
    return size
