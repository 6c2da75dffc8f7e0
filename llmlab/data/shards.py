"""Corpora that do not fit into memory: in shards, which training maps. `llmlab.data.shard_build` makes them.

A built corpus is a folder cache_dir()/shards/<name>/ with shard-00000.bin, shard-00001.bin, ... (ids, little-endian),
tokenizer.json and manifest.json, which grows by an entry with each finished shard.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json
from llmlab.core.paths import cache_dir
from llmlab.core.records import read_record
from llmlab.data.corpus import Corpus, Piece
from llmlab.data.sharded_tokens import ShardedTokens
from llmlab.data.tokenizers import Tokenizer, tokenizer_from_json

# Raised when the files' format or the way of cutting changes.
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# Tokens that are decoded at once, where the text of a built corpus is read again.
_DECODED = 1 << 16


@dataclass(frozen=True)
class Shard:
    """A finished file. bytes: of its text in UTF-8. begin, end: places in the source (file, item)."""

    file: str
    tokens: int
    documents: int
    bytes: int
    sha256: str
    begin: list[int]
    end: list[int]


@dataclass(frozen=True)
class SourceFile:
    """A file that a corpus is built from. name: below the source's folder. key: changes with its content."""

    name: str
    bytes: int
    key: str


@dataclass(frozen=True)
class Manifest:
    """manifest.json. source_key: changes with the source. dtype: <u2 or <u4. complete: all of the source was read.

    files: of the source, in the order in which they are read. revision: the commit of a data set of the hub. Both are
    empty where an earlier version of the lab began the build.
    """

    format: int
    source: str
    source_key: str
    text_field: str
    tokenizer: str
    tokenizer_key: str
    vocab_size: int
    dtype: str
    shard_tokens: int
    complete: bool = False
    shards: list[Shard] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    revision: str = ""

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)


@dataclass(frozen=True)
class BuiltCorpus(Corpus):
    """A corpus in shards, in the tokens of its own tokenizer. For any other, its text is decoded again."""

    folder: Path
    manifest: Manifest

    def here(self) -> bool:
        return True

    def content_key(self) -> str:
        """Of every shard's hash."""
        parts = [self.manifest.tokenizer_key, *(shard.sha256 for shard in self.manifest.shards)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def tokenizer(self) -> Tokenizer:
        """LabError when its file is damaged."""
        found = tokenizer_from_json(read_json(self.folder / "tokenizer.json") or {})
        if found.key() != self.manifest.tokenizer_key:
            raise _damaged(self.name, "tokenizer.json")
        return found

    def tokens(self, limit: int = 0) -> ShardedTokens:
        """All ids, or the first `limit`, mapped. The shards' sizes are checked, not every byte of them: LabError."""
        parts, dtype = [], np.dtype(self.manifest.dtype)
        for shard in self.manifest.shards:
            path = self.folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.tokens * dtype.itemsize:
                raise _damaged(self.name, shard.file)
            if shard.tokens:
                parts.append(np.asarray(np.memmap(path, dtype=dtype, mode="r")))
        every = ShardedTokens(parts)
        return every[:limit] if limit else every

    def pieces(self) -> Iterator[Piece]:
        tokenizer, tokens = self.tokenizer(), self.tokens()
        rest, starts = np.empty(0, dtype=np.int64), True
        for first in range(0, len(tokens), _DECODED):
            ids = np.concatenate([rest, np.asarray(tokens[first : first + _DECODED])])
            ends = np.flatnonzero(ids == tokenizer.end_of_text)
            for document in np.split(ids, ends)[:-1]:
                yield Piece(_text(tokenizer, document), starts)
                starts = True
            rest = ids[ends[-1] :] if len(ends) else ids
            if len(rest) >= _DECODED:
                cut = _safe_cut(tokenizer, rest)
                yield Piece(_text(tokenizer, rest[:cut]), starts)
                rest, starts = rest[cut:], False
        if len(rest):
            yield Piece(_text(tokenizer, rest), starts)


def _text(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Without the end of text in front."""
    return tokenizer.decode(ids[ids != tokenizer.end_of_text].tolist())


def _safe_cut(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """The last place where a word begins, so that no character is cut in two."""
    for place in range(len(ids) - 1, 0, -1):
        if tokenizer.token_text(int(ids[place])).startswith((" ", "\n")):
            return place
    return len(ids)


def built_corpora() -> list[BuiltCorpus]:
    """The corpora that are built to their end, by name."""
    try:
        manifests = sorted(shards_dir().glob("*/manifest.json"))
    except OSError:  # a cache folder that this user may not read
        manifests = []
    found = (built_corpus(path.parent.name) for path in manifests)
    return [corpus for corpus in found if corpus is not None]


def built_corpus(name: str) -> BuiltCorpus | None:
    """The built corpus of that name; None when there is none, or it is not finished."""
    folder = shards_dir() / name
    manifest = read_manifest(folder)
    if manifest is None or not manifest.complete:
        return None
    count = f"{len(manifest.shards)} shard{'' if len(manifest.shards) == 1 else 's'}"
    return BuiltCorpus(
        name=name,
        title=name,
        description=f"Your own: {manifest.tokens:,} {manifest.tokenizer} tokens in {count}.",
        kind="built",
        licence="yours",
        origin=manifest.source,
        bytes=sum(shard.bytes for shard in manifest.shards),
        folder=folder,
        manifest=manifest,
    )


def require_finished(name: str) -> None:
    """UsageError where a corpus of that name was begun and is not finished."""
    if NAME.fullmatch(name) and (manifest := read_manifest(shards_dir() / name)) is not None and not manifest.complete:
        asked = [manifest.source, "--name", name]
        if manifest.text_field != "text":
            asked += ["--field", manifest.text_field]
        if manifest.tokenizer != "gpt2":
            asked += ["--tokenizer", manifest.tokenizer, "--vocab-size", str(manifest.vocab_size)]
        raise UsageError(
            f"The corpus {name} is not finished.",
            f"{len(manifest.shards)} of its shards are.",
            f"Resume it: llmlab-run corpora build {shlex.join(asked)}",
        )


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none, it is of another format, or names what no build wrote."""
    found = read_record(Manifest, folder / "manifest.json")
    if found is None or found.format != FORMAT or found.dtype not in ("<u2", "<u4"):
        return None
    if any(shard.file != shard_name(number) or shard.tokens < 0 for number, shard in enumerate(found.shards)):
        return None
    return found if found.tokens or not found.complete else None


def shard_name(number: int) -> str:
    return f"shard-{number:05}.bin"


def shards_dir() -> Path:
    return cache_dir() / "shards"


def _damaged(name: str, file: str) -> LabError:
    return LabError(
        f"The corpus {name} is damaged.",
        f"{file} is not as it was written.",
        "Build it again with the same command: intact parts are kept.",
    )
