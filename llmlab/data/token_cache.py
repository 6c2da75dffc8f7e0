"""The tokens of a corpus on disk: written once in constant memory, then memory-mapped by every run.

A cache is a folder cache_dir()/tokens/<key>/ with tokens.bin (ids), documents.bin (where each document starts,
int64) and meta.json. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.files import fsync_file, locked, new_folder, sha256_of, write_json
from llmlab.core.paths import cache_dir
from llmlab.core.progress import Progress
from llmlab.core.records import read_record
from llmlab.data.corpus import Corpus
from llmlab.data.sharded_tokens import Tokens
from llmlab.data.shards import BuiltCorpus
from llmlab.data.tokenizers import TEXT_SEPARATOR, Tokenizer

# Raised when the files' format or the way of cutting changes: older caches are then built again.
_FORMAT = 1
_LOOKED_AT = 1 << 20  # tokens in which the start of a document is looked for at once


@dataclass(frozen=True)
class TokenCache:
    """A finished cache. tokens: read-only ids [tokens]; documents: start of each document, int64 [documents].

    Of shards, documents is None: a document starts behind each end of text, the last id of their vocabulary.
    """

    folder: Path
    tokens: Tokens
    documents: np.ndarray | None
    sha256: str  # of tokens.bin, or of all shards
    end_of_text: int | None = None  # of shards

    def last_start(self, position: int) -> int | None:
        """Where the last document starts that does so at `position` or before it; None for the very first one."""
        if self.documents is not None:
            starts = self.documents[1:]
            starts = starts[starts <= position]
            return int(starts[-1]) if len(starts) else None
        for end in range(position, 0, -_LOOKED_AT):
            first = max(0, end - _LOOKED_AT)
            found = np.flatnonzero(np.asarray(self.tokens[first:end]) == self.end_of_text)
            if len(found):
                return first + int(found[-1]) + 1
        return None


@dataclass(frozen=True)
class _Meta:
    """meta.json. The corpus's name is for people who look into the folder."""

    format: int
    corpus: str
    tokenizer: str
    count: int
    dtype: str
    documents: int
    sha256: str
    documents_sha256: str


def token_cache(corpus: Corpus, tokenizer: Tokenizer, max_tokens: int, progress: Progress) -> TokenCache:
    """The tokens of `corpus`, from the cache or built now.

    Documents are joined by the end of text, or by a blank line where the tokenizer has none. max_tokens: read
    no more than this many; 0 means all. Two processes that want the same cache build it
    once: the second waits. A damaged cache is built again. Raises Cancelled (nothing is left behind), and
    LabError when the disk is full or the corpus is empty.
    """
    if (built := _of_shards(corpus, tokenizer.key(), max_tokens)) is not None:
        return built
    folder = _folder(corpus, tokenizer.key(), max_tokens)
    with cache_lock(folder, progress):
        if (cache := _open(folder)) is not None:
            return cache
        for litter in folder.parent.glob(f".tmp-{folder.name}-*"):  # of a process that was killed; the lock is ours
            shutil.rmtree(litter, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        with new_folder(folder) as staging:
            _write(staging, corpus, tokenizer, max_tokens, progress)
        cache = _open(folder)
        if cache is None:
            raise LabError("The token cache could not be read back.", f"{folder} changed while it was written.")
        return cache


def saved_tokens(corpus: Corpus, tokenizer_key: str, max_tokens: int) -> TokenCache | None:
    """What `token_cache` gives, as far as it is there: nothing is built, and not every byte is looked at."""
    built = _of_shards(corpus, tokenizer_key, max_tokens)
    return built or _open(_folder(corpus, tokenizer_key, max_tokens), checked=False)


def _of_shards(corpus: Corpus, tokenizer_key: str, max_tokens: int) -> TokenCache | None:
    """The shards of a corpus that was built with this tokenizer; None of any other."""
    if not isinstance(corpus, BuiltCorpus) or corpus.manifest.tokenizer_key != tokenizer_key:
        return None
    tokens = corpus.tokens(max_tokens)
    key = f"{corpus.content_key()} {len(tokens)}"
    return TokenCache(corpus.folder, tokens, None, key, corpus.manifest.vocab_size - 1)


def token_stream(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, bool, int]]:
    """The corpus as (ids, these ids start a document, characters read); separators come as parts of their own."""
    first = True
    for piece in corpus.pieces():
        if piece.starts_document and not first:
            yield separator(tokenizer), False, 0
        yield tokenizer.encode_array(piece.text), piece.starts_document, len(piece.text)
        first = False


def separator(tokenizer: Tokenizer) -> np.ndarray:
    """The ids that stand between two documents."""
    if tokenizer.end_of_text is not None:
        return np.array([tokenizer.end_of_text], dtype=np.int64)
    return tokenizer.encode_array(TEXT_SEPARATOR)


def _folder(corpus: Corpus, tokenizer_key: str, max_tokens: int) -> Path:
    parts = f"{_FORMAT} {corpus.name} {corpus.content_key()} {tokenizer_key} {max_tokens}"
    return cache_dir() / "tokens" / hashlib.sha256(parts.encode()).hexdigest()[:32]


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer, max_tokens: int, progress: Progress) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    digest, documents_digest = hashlib.sha256(), hashlib.sha256()
    count = documents = characters = 0
    what = f"Tokenizing {corpus.title}"
    with (folder / "tokens.bin").open("wb") as tokens_file, (folder / "documents.bin").open("wb") as documents_file:
        for ids, starts_document, read in token_stream(corpus, tokenizer):
            if starts_document:
                start = np.array([count], dtype="<i8").tobytes()
                documents_file.write(start)
                documents_digest.update(start)
                documents += 1
            if max_tokens:
                ids = ids[: max_tokens - count]
            data = ids.astype(dtype).tobytes()
            tokens_file.write(data)
            digest.update(data)
            count += len(ids)
            characters += read
            shares = [count / max_tokens if max_tokens else 0.0, characters / corpus.bytes if corpus.bytes else 0.0]
            progress(what, min(1.0, max(shares)), 1.0)
            if max_tokens and count >= max_tokens:
                break
    if not count:
        raise LabError(f"{corpus.title} is empty.", "It holds no text.", "Choose another corpus.")
    for name in ("tokens.bin", "documents.bin"):
        fsync_file(folder / name)
    digests = digest.hexdigest(), documents_digest.hexdigest()
    meta = _Meta(_FORMAT, corpus.name, tokenizer.kind, count, dtype.str, documents, *digests)
    write_json(folder / "meta.json", asdict(meta))


def _open(folder: Path, *, checked: bool = True) -> TokenCache | None:
    """The cache in `folder`; None when there is none. checked: also when a byte of it is not as it was written."""
    meta = read_record(_Meta, folder / "meta.json")
    if meta is None or meta.format != _FORMAT or meta.dtype not in ("<u2", "<u4"):
        return None
    try:
        if checked:
            digests = sha256_of(folder / "tokens.bin"), sha256_of(folder / "documents.bin")
            if digests != (meta.sha256, meta.documents_sha256):
                return None
        # A plain array over the mapped file: indexing a memmap object itself is slower.
        tokens = np.asarray(np.memmap(folder / "tokens.bin", dtype=meta.dtype, mode="r"))
        documents = np.fromfile(folder / "documents.bin", dtype="<i8")
    except (OSError, ValueError):
        return None
    return TokenCache(folder, tokens, documents, meta.sha256)


@contextmanager
def cache_lock(target: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock of a cache entry against other processes while it is made; says so while it waits.

    Raises Cancelled, and LabError when the cache cannot be written: for the lock, or by what is done meanwhile.
    """

    def wait(what: str, done: float, total: float) -> None:
        progress("Waiting for another run that prepares the same text", done, total)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock"), "the cache", wait, seconds=math.inf):
            yield
    except OSError as error:
        raise LabError(
            "The cache could not be written.",
            f"{error.strerror or error} ({target.parent}).",
            "Make room there, set LLMLAB_CACHE to a folder that can be written, or lower data.max_tokens.",
        ) from error
