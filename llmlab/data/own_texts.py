"""A learner's own text, by its path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import kind_of_no_file, sha256_of
from llmlab.data.corpus import Corpus, Piece
from llmlab.data.text_files import SUFFIXES, file_pieces, text_bytes

# Files up to this size together are recognised by their content, larger ones by name, size and time of change.
_HASH_BYTES = 64 << 20


@dataclass(frozen=True)
class OwnCorpus(Corpus):
    """A file, or a folder of .txt files: each .txt, each line of a .jsonl and each row of a .parquet is a document."""

    path: Path

    def here(self) -> bool:
        return self.path.exists()

    def pieces(self) -> Iterator[Piece]:
        for path in text_files(self.path):
            yield from file_pieces(path)

    def content_key(self) -> str:
        return files_key(text_files(self.path))


def own_corpus(path: Path) -> OwnCorpus:
    """The text at `path`, a file or folder that exists. UsageError when it is of a kind that the lab cannot read."""
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is not a text that the lab can read.",
            f"It reads {', '.join(SUFFIXES)} and folders of .txt.",
            "Convert it, or rename it if it is plain text.",
        )
    path = path.resolve()
    return OwnCorpus(
        name=str(path),
        title=path.name,
        description="Your own text.",
        kind="yours",
        licence="yours",
        origin=str(path),
        bytes=sum(text_bytes(file) for file in text_files(path)),
        path=path,
    )


def text_files(path: Path, suffixes: tuple[str, ...] = (".txt",)) -> list[Path]:
    """The file itself, or the files of a folder and its folders with one of the suffixes, in the order of their names.

    Hidden files and folders are left out. LabError when nothing is there.
    """
    if path.is_file():
        return [path]
    if path.exists() and (kind := kind_of_no_file(path)) is not None:
        raise LabError(f"{path} could not be read.", f"It is {kind}, not a file.", "Name a file or a folder.")
    if not path.is_dir():
        raise LabError(f"{path} is not there.", "It was moved or deleted.", "Choose another data.corpus.")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise LabError(f"{path} holds no {' or '.join(suffixes)} file.", "", "Put one there, or name a file.")
    return found


def files_key(files: list[Path]) -> str:
    """Hex sha256 that changes when the files do."""
    digest = hashlib.sha256()
    small = sum(file.stat().st_size for file in files) <= _HASH_BYTES
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size}\n".encode("utf-8", "surrogateescape"))
        content = sha256_of(file) if small else f"{file} {stat.st_mtime_ns}"
        digest.update(content.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
