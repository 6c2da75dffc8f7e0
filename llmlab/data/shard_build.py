"""Building a corpus in shards: its text is tokenized once, on all cores.

A build that was killed goes on behind its last finished shard. What is in a shard follows from the source alone: text
is cut into blocks in its order, any process may tokenize a block, and a shard ends with the block that fills it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import is_disk_full, locked, replaced, sha256_of, write_json
from llmlab.core.processes import available_cores, follow_parent
from llmlab.core.progress import Progress
from llmlab.data.example_files import hub_revision
from llmlab.data.shard_sources import Block, Item, Place, ShardSource
from llmlab.data.shards import (
    FORMAT,
    NAME,
    BuiltCorpus,
    Manifest,
    Shard,
    SourceFile,
    built_corpus,
    read_manifest,
    shard_name,
    shards_dir,
)
from llmlab.data.tokenizers import Tokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

# 512 MB of two-byte ids: 100 billion tokens are 373 files. Each takes a file descriptor of a run, which has 1,024.
SHARD_TOKENS = 1 << 28
# Blocks on their way for each process: one that is tokenized, and one that waits.
_BLOCKS_A_PROCESS = 2
_LOOK_SECONDS = 0.2
_NAMED = 5  # files of a source that has changed


def build_shards(
    source: ShardSource,
    name: str,
    tokenizer: Tokenizer,
    progress: Progress,
    *,
    processes: int = 0,
    shard_tokens: int = SHARD_TOKENS,
) -> BuiltCorpus:
    """Tokenizes `source` into the corpus `name`, or goes on with that; finished shards are checked by their hashes.

    processes: 0 for one a core. Memory does not grow with the source. Raises Cancelled, and LabError with finished
    shards kept: when the source cannot be read, the disk is full, or a process is killed.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a corpus.", "It takes letters, digits, and . _ -", "Try --name."
        )
    if processes < 0:
        raise UsageError(f"{processes} processes cannot work.", "", "Choose 1 or more, or 0 for one a core.")
    folder = shards_dir() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            locked(folder / "lock", f"the corpus {name}", seconds=0.0, do="Wait for it, or choose another --name."),
            _pool(source, tokenizer, processes or available_cores()) as pool,
        ):
            for litter in folder.glob(".tmp-*"):  # of a process that was killed; the lock is ours
                litter.unlink()
            _Build(folder, source, tokenizer, shard_tokens, pool, progress).run()
    except OSError as error:
        what = "The disk is full" if is_disk_full(error) else f"{name} could not be written"
        raise LabError(
            f"{what}: {error.strerror or error} ({folder}).",
            f"{len(saved.shards) if (saved := read_manifest(folder)) else 0} finished shards are kept.",
            "Make room; the same command then resumes. Or set LLMLAB_CACHE to a folder on another disk.",
        ) from error
    found = built_corpus(name)
    if found is None:
        raise LabError(f"{name} could not be read back.", f"{folder} changed while it was written.")
    return found


class _Encoded(NamedTuple):
    """A block in tokens. Each of its documents begins with the end of text."""

    ids: np.ndarray
    documents: int
    bytes: int


class _Build:
    """A build under way: finished shards are passed over, the others are made."""

    def __init__(
        self, folder: Path, source: ShardSource, tokenizer: Tokenizer, size: int, pool: _Pool, progress: Progress
    ) -> None:
        self._folder, self._source, self._pool, self._progress = folder, source, pool, progress
        dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
        kind = tokenizer.kind, tokenizer.key(), tokenizer.vocab_size
        key, files = source.content_key(), source.file_records()
        asked = Manifest(FORMAT, source.name, key, source.text_field, *kind, dtype, size)
        asked = replace(asked, files=files, revision=source.revision)
        found = _begun(folder)
        if found is not None:
            found = replace(found, files=found.files or files)
            if replace(found, complete=False, shards=[]) != asked:
                raise _other_source(folder, found, asked)
        self._manifest = found or asked
        self._states = [_state(file) for file in source.files]  # as they were when their keys were taken
        if found is None:
            write_json(folder / "tokenizer.json", tokenizer.to_json())
            self._save()

    def run(self) -> None:
        """Makes what is missing. The manifest is complete when it returns."""
        place, number, stream = Place(0, 0), 0, None
        known, complete = self._manifest.shards, self._manifest.complete
        while True:
            if number < len(known) and known[number].begin == list(place) and self._is_whole(known[number]):
                stream = None  # what it has read ahead is in this shard
                shard: Shard | None = known[number]
            elif complete and number == len(known) and list(place) == known[-1].end:
                break
            else:
                stream = stream or self._encoded(place)
                shard = self._write(number, place, stream)
            if shard is None:
                break
            if number >= len(known) or known[number] != shard:
                known = [*known[:number], shard, *known[number + 1 :]]
                self._save(shards=known, complete=False)
            place, number = Place(*shard.end), number + 1
        if not any(shard.tokens for shard in known[:number]):
            raise LabError(f"{self._source.title} is empty.", "It holds no text.", "Name another source.")
        for left in known[number:]:  # of a source that was longer
            (self._folder / left.file).unlink(missing_ok=True)
        self._save(shards=known[:number], complete=True)

    def _is_whole(self, shard: Shard) -> bool:
        path = self._folder / shard.file

        def tell(what: str, done: float, total: float) -> None:
            self._progress(f"Checking {shard.file}", done, path.stat().st_size)

        return path.is_file() and sha256_of(path, tell) == shard.sha256

    def _write(self, number: int, begin: Place, stream: Iterator[tuple[_Encoded, Place]]) -> Shard | None:
        """The next shard; None when the source is at its end."""
        block = next(stream, None)
        if block is None:
            return None
        path = self._folder / shard_name(number)
        first = not any(shard.documents for shard in self._manifest.shards[:number])  # no document is before
        digest, count, documents, size = hashlib.sha256(), 0, 0, 0
        with replaced(path) as file:
            while block is not None:
                encoded, end = block
                ids = encoded.ids
                if first and encoded.documents:  # the end of text stands between documents only
                    ids, first = ids[1:], False
                data = ids.tobytes()
                file.write(data)
                digest.update(data)
                count, documents, size = count + len(ids), documents + encoded.documents, size + encoded.bytes
                block = next(stream, None) if count < self._manifest.shard_tokens else None
            self._require_unchanged(begin.file, end.file)
        return Shard(path.name, count, documents, size, digest.hexdigest(), list(begin), list(end))

    def _require_unchanged(self, first: int, last: int) -> None:
        """LabError where one of these files is another than when the build began."""
        for file, state in zip(self._source.files[first : last + 1], self._states[first : last + 1], strict=True):
            if _state(file) != state:
                raise LabError(
                    f"{file} was changed while it was read.",
                    "What was read is not what the corpus is said to be built from.",
                    f"Put it back as it was, or delete {self._folder} and build anew.",
                )

    def _encoded(self, begin: Place) -> Iterator[tuple[_Encoded, Place]]:
        """The source's blocks in their order, in tokens, with the places where they end."""
        done = 0

        def tell() -> None:
            self._progress(f"Tokenizing {self._source.title}", done, self._source.bytes)

        for encoded, end, read in self._pool.encoded(self._source.blocks(begin, self._progress), tell):
            done = read
            tell()
            yield encoded, end

    def _save(self, **changed: object) -> None:
        self._manifest = replace(self._manifest, **changed)  # type: ignore[arg-type]
        write_json(self._folder / "manifest.json", asdict(self._manifest))


def pinned(source: ShardSource, name: str) -> ShardSource:
    """A data set of the hub at one commit: that of the corpus `name` where it was begun, else today's. LabError."""
    if source.files:
        return source
    begun = _begun(shards_dir() / name)
    if begun is not None and begun.source == source.name:
        return replace(source, revision=begun.revision)
    return replace(source, revision=hub_revision(source.name))


def _begun(folder: Path) -> Manifest | None:
    """None where there is nothing to protect: a first try with another field, say, leaves no tokens."""
    found = read_manifest(folder)
    return found if found is not None and found.tokens else None


def _other_source(folder: Path, found: Manifest, asked: Manifest) -> UsageError:
    """What to say where a build does not go on with what it began from."""
    do = f"Choose another --name, or delete {folder}."
    if replace(found, files=[], source_key="", complete=False, shards=[]) != replace(asked, files=[], source_key=""):
        what = f"{folder.name} was begun with another source, tokenizer or field."
        return UsageError(what, f"It was made from {found.source} with {found.tokenizer}.", do)
    before, now = ({file.name: file for file in manifest.files} for manifest in (found, asked))
    parts = {
        "changed": [name for name in now if name in before and _is_other(before[name], now[name])],
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    told = "; ".join(f"{what}: {_few(names)}" for what, names in parts.items() if names)
    why = f"{told[:1].upper()}{told[1:]}." if told else f"It was made from {found.source}."
    return UsageError(f"The source of {folder.name} has changed since it was begun.", why, do)


def _is_other(before: SourceFile, now: SourceFile) -> bool:
    """Whether a file changed. Of one that was recognised by its content and now is by its time, or the other way round
    (`file_keys`), the sizes tell."""
    alike = (" " in before.key) == (" " in now.key)
    return before.bytes != now.bytes or (alike and before.key != now.key)


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _state(file: Path) -> tuple[int, int] | None:
    """What changes with a file; None where it is gone."""
    with suppress(OSError):
        stat = file.stat()
        return stat.st_size, stat.st_mtime_ns
    return None


class _Pool:
    """Processes that tokenize."""

    def __init__(self, executor: Executor, processes: int) -> None:
        self._executor = executor
        self._ahead = _BLOCKS_A_PROCESS * processes + 1

    def encoded(self, blocks: Iterator[Block], look: Callable[[], None]) -> Iterator[tuple[_Encoded, Place, int]]:
        """Blocks in their order, and the bytes of the source until there; no more are read ahead than keep all
        processes busy. look: called while one takes long, and may raise Cancelled."""
        from concurrent.futures import wait
        from concurrent.futures.process import BrokenProcessPool

        pending: deque[tuple[Future[_Encoded], Place, int]] = deque()
        try:
            while True:
                for block in islice(blocks, self._ahead - len(pending)):
                    with _without_interrupts():  # submitting may start a process
                        pending.append((self._executor.submit(_encode, block.items), block.end, block.read))
                if not pending:
                    return
                future, end, read = pending.popleft()
                while not wait([future], _LOOK_SECONDS).done:
                    look()
                yield future.result(), end, read
        except BrokenProcessPool as error:
            raise LabError(
                "A process that tokenizes was killed.",
                "Most often memory ran out. Finished shards are kept.",
                "The same command resumes; with --processes 1 it takes the least memory.",
            ) from error
        finally:
            for future, _, _ in pending:
                future.cancel()


_tokenizes: tuple[ShardSource, Tokenizer] | None = None  # in a process that tokenizes


@contextmanager
def _pool(source: ShardSource, tokenizer: Tokenizer, processes: int) -> Iterator[_Pool]:
    """One process is this one."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    executor: Executor
    if processes == 1:
        executor = ThreadPoolExecutor(1, "tokenize", _begin, (source, tokenizer.to_json()))
    else:
        # Fresh processes: a fork would copy what this one holds, and its threads' locks.
        context = multiprocessing.get_context("spawn")
        known = source, tokenizer.to_json(), os.getpid()
        executor = ProcessPoolExecutor(processes, context, _begin, known)
    try:
        yield _Pool(executor, processes)
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start meanwhile never hear Ctrl+C, not even while they import; this one hears it afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(source: ShardSource, tokenizer: dict[str, Any], parent: int | None = None) -> None:
    """What a process does first. parent: None where it is no process of its own."""
    global _tokenizes
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all; the parent ends the others
        follow_parent(parent)
    _tokenizes = source, tokenizer_from_json(tokenizer)


def _encode(items: list[Item]) -> _Encoded:
    """Runs in a process that tokenizes."""
    assert _tokenizes is not None
    source, tokenizer = _tokenizes
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    parts: list[np.ndarray] = [np.empty(0, dtype)]
    documents = size = 0
    for item in items:
        for piece in source.pieces_of(item):
            if piece.starts_document:
                parts.append(np.array([tokenizer.end_of_text], dtype))
                documents += 1
            parts.append(tokenizer.encode_array(piece.text).astype(dtype))
            size += len(piece.text.encode())
    return _Encoded(np.concatenate(parts), documents, size)
