"""The corpora that come with the lab, compressed, listed in resources/corpora/index.toml."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError
from llmlab.core.paths import resources_dir
from llmlab.data.corpus import Corpus, Piece, document_pieces


@dataclass(frozen=True)
class EmbeddedDocument:
    """One document: an .xz file below resources/corpora."""

    file: str
    title: str
    bytes: int
    sha256: str  # of the text
    packed_sha256: str  # of the .xz file


@dataclass(frozen=True)
class EmbeddedCorpus(Corpus):
    """A corpus that needs neither network nor cache."""

    sha256: str  # of all documents joined
    files: tuple[EmbeddedDocument, ...]

    def here(self) -> bool:
        return all((_folder() / document.file).is_file() for document in self.files)

    def pieces(self) -> Iterator[Piece]:
        for document in self.files:
            yield from document_pieces([_read(document)])

    def content_key(self) -> str:
        return self.sha256


@lru_cache(maxsize=1)
def embedded_corpora() -> tuple[EmbeddedCorpus, ...]:
    """The corpora of the index, in its order."""
    entries = read_toml(_folder() / "index.toml")["corpus"]
    return tuple(
        EmbeddedCorpus(
            kind="embedded", files=tuple(EmbeddedDocument(**document) for document in entry.pop("documents")), **entry
        )
        for entry in entries
    )


def _folder() -> Path:
    return resources_dir() / "corpora"


def _read(document: EmbeddedDocument) -> str:
    """The text of one document, checked: a damaged installation must not train silently on something else."""
    path = _folder() / document.file
    try:
        text = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise LabError(f"{document.title} could not be read.", f"{path}: {error}.", "Install the lab again.") from error
    if hashlib.sha256(text).hexdigest() != document.sha256:
        raise LabError(f"{document.title} is damaged.", f"{path} is not the text it should be.", "Install it again.")
    return text.decode()
