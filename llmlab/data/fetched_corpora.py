"""Corpora that are too large, or not ours, to come with the lab: fetched when someone asks for them."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import re
import threading
import urllib.request
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import replaced
from llmlab.core.paths import cache_dir, resources_dir
from llmlab.core.progress import Progress
from llmlab.data.corpus import Corpus, Piece
from llmlab.data.example_files import hub_rows
from llmlab.data.own_texts import SUFFIXES, file_pieces, files_key, text_files

T = TypeVar("T")

_TIMEOUT_SECONDS = 20
_BLOCK_BYTES = 1 << 16
# How often it is looked whether anyone still waits while the network sends nothing; and what it may send ahead.
_LOOK_SECONDS = 0.1
_AHEAD = 16  # blocks of bytes, or texts
_ROWS_A_GROUP = 2000
# Texts between two looks at whether they are still wanted: a group of whole articles takes minutes on a slow line.
_BETWEEN_LOOKS = 20
# The heading of a WikiText article: " = Title = "; its sections have more equals signs.
_ARTICLE = re.compile(r"^ = [^=].* = \n?$")


@dataclass(frozen=True)
class FetchedCorpus(Corpus):
    """Text files in cache_dir()/corpora/<name>/, fetched by `fetch` or put there by hand.

    file: what `fetch` writes there. url and sha256: of a plain text; or dataset and config: on the Hugging Face
    hub, whose train split is read. articles: its rows are lines, to be joined to articles.
    """

    file: str
    url: str = ""
    sha256: str = ""
    dataset: str = ""
    config: str | None = None
    articles: bool = False

    @property
    def folder(self) -> Path:
        return cache_dir() / "corpora" / self.name

    def here(self) -> bool:
        return self.folder.is_dir() and any(
            path.suffix.lower() in SUFFIXES and not path.name.startswith(".") for path in self.folder.iterdir()
        )

    def pieces(self) -> Iterator[Piece]:
        for path in self._files():
            yield from file_pieces(path)

    def content_key(self) -> str:
        return files_key(self._files())

    def _files(self) -> list[Path]:
        if not self.here():
            raise LabError(f"{self.title} is not on this machine.", f"It comes from {self.origin}.", self.where())
        return text_files(self.folder, SUFFIXES)

    def where(self) -> str:
        """What to do to have it here."""
        return (
            f"Run `llmlab-run corpora fetch {self.name}` with a network, or put the text there yourself as "
            f"{self.folder / self.file} (any .txt, .jsonl or .parquet in that folder is read)."
        )


def fetched_corpora() -> list[FetchedCorpus]:
    """The corpora that can be fetched, smallest first (resources/corpora/fetched.toml)."""
    entries = read_toml(resources_dir() / "corpora" / "fetched.toml")["corpus"]
    return [FetchedCorpus(kind="fetched", **entry) for entry in entries]


def fetch(corpus: Corpus, progress: Progress) -> None:
    """Brings a corpus to this machine, into cache_dir()/corpora/<name>/.

    progress: in bytes. The file appears whole or not at all. Raises Cancelled; LabError without a
    network or room on the disk; UsageError for a corpus that needs no fetching.
    """
    if not isinstance(corpus, FetchedCorpus):
        raise UsageError(f"{corpus.title} needs no fetching.", "It is on this machine.")
    target = corpus.folder / corpus.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as file:
            if corpus.url:
                _download(corpus, file, progress)
            else:
                _from_hub(corpus, file, progress)
    except OSError as error:
        raise LabError(
            f"{corpus.title} could not be written.",
            f"{error.strerror or error} ({target.parent}).",
            "Make room there, or set LLMLAB_CACHE to a folder on another disk.",
        ) from error


def _download(corpus: FetchedCorpus, file: BinaryIO, progress: Progress) -> None:
    """Writes the text at the corpus's address, and checks that it is all there."""
    done, digest = 0, hashlib.sha256()
    blocks = _watched(_blocks(corpus), lambda: progress(f"Fetching {corpus.title}", done, corpus.bytes))
    with contextlib.closing(blocks):
        for block in blocks:
            file.write(block)
            digest.update(block)
            done += len(block)
            progress(f"Fetching {corpus.title}", done, corpus.bytes)
    if digest.hexdigest() != corpus.sha256:
        raise LabError(
            f"{corpus.title} is not complete, or was changed at its source.",
            f"{done:,} bytes came from {corpus.url}, and they are not the {corpus.bytes:,} that were expected.",
            "Try again later.",
        )


def _blocks(corpus: FetchedCorpus) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(corpus.url, timeout=_TIMEOUT_SECONDS) as answer:
            while block := answer.read(_BLOCK_BYTES):
                yield block
    except OSError as error:  # urllib's errors, time-outs and broken connections alike
        why = f"{getattr(error, 'reason', None) or error}."
        raise LabError(_not_fetched(corpus), why, corpus.where()) from error


def _from_hub(corpus: FetchedCorpus, file: BinaryIO, progress: Progress) -> None:
    """Streams the train split into one Parquet file with the column text."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("text", pyarrow.string())])
    done = 0
    group: list[str] = []
    rows = _watched(_rows(corpus), lambda: progress(f"Fetching {corpus.title}", done, max(done, corpus.bytes)))
    parquet = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
    with contextlib.closing(rows), parquet as writer:
        for number, text in enumerate(_articles(rows) if corpus.articles else rows):
            if number % _BETWEEN_LOOKS == 0:
                progress(f"Fetching {corpus.title}", done, max(done, corpus.bytes))
            group.append(text)
            done += len(text.encode())
            if len(group) == _ROWS_A_GROUP:
                writer.write_table(pyarrow.table([group], schema=schema))
                group = []
        writer.write_table(pyarrow.table([group], schema=schema))
    progress(f"Fetching {corpus.title}", done, done)


def _rows(corpus: FetchedCorpus) -> Iterator[str]:
    """The texts of the train split, as they come from the hub."""
    source = f"{corpus.dataset}:{corpus.config}" if corpus.config else corpus.dataset
    try:
        for _, row in hub_rows(source, streamed=True):
            assert not isinstance(row, str)
            yield row["text"]
    except LabError as error:
        raise LabError(_not_fetched(corpus), error.why, corpus.where()) from error


def _watched(items: Iterator[T], look: Callable[[], None]) -> Generator[T, None, None]:
    """What comes from the network, read in a thread: `look` is called while nothing comes, and may raise Cancelled.

    Whoever takes no more of it closes it. The thread is then left alone: it ends with the answer that it waits for, or
    with the process.
    """
    found: queue.Queue[list[T] | Exception] = queue.Queue(_AHEAD)  # a list of one; an empty one at the end
    alone = threading.Event()

    def tell(news: list[T] | Exception) -> None:
        while not alone.is_set():
            try:
                found.put(news, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                tell([item])
                if alone.is_set():
                    return
            tell([])
        except Exception as error:
            tell(error)

    threading.Thread(target=read, name="fetch", daemon=True).start()
    try:
        while True:
            try:
                news = found.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                look()
                continue
            if isinstance(news, Exception):
                raise news
            if not news:
                return
            yield news[0]
    finally:
        alone.set()


def _articles(lines: Iterator[str]) -> Iterator[str]:
    """WikiText's rows, which are lines, joined to articles."""
    article: list[str] = []
    for line in lines:
        if _ARTICLE.match(line) and "".join(article).strip():
            yield "".join(article)
            article = []
        article.append(line)
    if article:
        yield "".join(article)


def _not_fetched(corpus: FetchedCorpus) -> str:
    return f"{corpus.title} could not be fetched from {corpus.origin}."
