"""Large texts as shards are made of them: files and hub data sets, read in constant memory from any place on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import is_unicode, open_file
from llmlab.core.paths import expanded
from llmlab.core.progress import Progress, quiet
from llmlab.data.corpus import Corpus, Piece, document_pieces
from llmlab.data.example_files import hub_rows, is_hub_name, json_row
from llmlab.data.own_texts import file_keys, files_key, open_parquet, parquet_texts, text_blocks, text_files
from llmlab.data.shards import SourceFile

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_PACKINGS = {".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
# Text that is tokenized as one piece of work: 0.2 s of a core, and little beside what is in memory anyway.
BLOCK_CHARS = 1 << 20
_STREAM_BYTES = 1 << 20
_SKIPPED_A_LOOK = 1000  # items between two looks at whether the work is still wanted
# A longer line is no row; it is a file without line ends.
_LONGEST_LINE = 256 << 20


class Place(NamedTuple):
    """Where reading goes on: a file of the source by its number, and how many of its items come before."""

    file: int
    item: int


class Item(NamedTuple):
    """A part of a text file, a text of a row, or the bytes of a JSON line, with where it stands."""

    place: Place
    content: str | bytes
    starts_document: bool


class Block(NamedTuple):
    """Items that are tokenized together. end: the place behind them. read: bytes of the source until there."""

    items: list[Item]
    end: Place
    read: int


@dataclass(frozen=True)
class ShardSource(Corpus):
    """Files, or a data set of the hub (then there are none). text_field: of a row, which holds its text.

    revision: the commit at which the data set is read; empty: as it is now.
    """

    files: list[Path] = field(default_factory=list)
    text_field: str = "text"
    revision: str = ""

    def here(self) -> bool:
        return True

    def content_key(self) -> str:
        if not self.files:
            return f"{self.name}@{self.revision}" if self.revision else self.name
        try:
            return files_key(self.files)
        except OSError as error:
            raise _unreadable(error.filename or self.title, error) from error

    def file_records(self) -> list[SourceFile]:
        """What tells of each file whether it has changed."""
        root = Path(self.name)
        try:
            keys = file_keys(self.files)
            names = (str(file.relative_to(root)) if file != root else file.name for file in self.files)
            sizes = (file.stat().st_size for file in self.files)
            return [SourceFile(_sayable(n), s, _sayable(k)) for n, s, k in zip(names, sizes, keys, strict=True)]
        except OSError as error:
            raise _unreadable(error.filename or self.title, error) from error

    def pieces(self) -> Iterator[Piece]:
        for block in self.blocks(Place(0, 0), quiet):
            for item in block.items:
                yield from self.pieces_of(item)

    def pieces_of(self, item: Item) -> Iterator[Piece]:
        """An item as text. LabError where a row has none."""
        if isinstance(item.content, bytes):
            yield from document_pieces([self._text_of(json_row(item.content), item.place)])
        elif self.files and kind_of(self.files[item.place.file]) == ".txt":
            yield Piece(item.content, item.starts_document)
        else:
            yield from document_pieces([item.content])

    def blocks(self, begin: Place, progress: Progress) -> Iterator[Block]:
        """All from `begin` on. Blocks are the same from wherever one of them ended.

        progress: of what is passed over before, in bytes.
        """
        items: list[Item] = []
        size = read = done = 0
        place = begin
        for number in range(max(1, len(self.files))):
            length = self._size(number)
            if number < begin.file:
                done += length
                continue
            skipped = begin.item if number == begin.file else 0
            for item, inside in self._items(number, skipped):
                read = done + inside
                if item.place.item < skipped:
                    if item.place.item % _SKIPPED_A_LOOK == 0:
                        progress("Finding the place where it goes on", read, self.bytes)
                    continue
                items.append(item)
                size += len(item.content)
                place = Place(number, item.place.item + 1)
                if size >= BLOCK_CHARS:
                    yield Block(items, place, read)
                    items, size = [], 0
            done += length
        if items:
            yield Block(items, place, done)

    def _size(self, number: int) -> int:
        """Bytes of a file."""
        try:
            return self.files[number].stat().st_size if self.files else 0
        except OSError as error:
            raise _unreadable(self.files[number], error) from error

    def _items(self, number: int, skipped: int) -> Iterator[tuple[Item, int]]:
        """The items of a file, and the bytes of the file that are read by then. skipped: those that may be left out."""
        if not self.files:
            for row_number, row in hub_rows(self.name, streamed=True, revision=self.revision):
                place = Place(0, row_number - 1)
                text = "" if place.item < skipped else self._text_of(row, place)
                yield Item(place, text, True), 0
            return
        path = self.files[number]
        try:
            match kind_of(path):
                case ".txt":
                    read = 0
                    for count, piece in enumerate(document_pieces(text_blocks(path))):
                        read += len(piece.text)  # characters: about as many bytes
                        yield Item(Place(number, count), piece.text, piece.starts_document), read
                case ".parquet":
                    yield from self._parquet_items(number, skipped)
                case _:
                    yield from self._lines(number)
        except OSError as error:
            raise _unreadable(path, error) from error

    def _lines(self, number: int) -> Iterator[tuple[Item, int]]:
        with open_file(self.files[number]) as file, _unpacked(file, kind_of(self.files[number])) as lines:
            count = 0
            while line := lines.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    raise LabError(
                        f"{self.files[number]} has a line of more than {_LONGEST_LINE >> 20} MB.",
                        f"It is line {count + 1:,}; each line is to be one document.",
                        "Write one JSON object a line.",
                    )
                if line.strip():
                    yield Item(Place(number, count), line, True), file.tell()
                count += 1

    def _parquet_items(self, number: int, skipped: int) -> Iterator[tuple[Item, int]]:
        path = self.files[number]
        parquet = open_parquet(path, (self.text_field,))[0]
        size, rows = path.stat().st_size, max(1, parquet.metadata.num_rows)
        count = 0
        for group in range(parquet.metadata.num_row_groups):
            length = parquet.metadata.row_group(group).num_rows
            if count + length <= skipped:
                count += length
                continue
            for text in parquet_texts(path, parquet, self.text_field, [group], count):
                yield Item(Place(number, count), text, True), size * count // rows
                count += 1

    def _text_of(self, row: Any, place: Place) -> str:
        """LabError where a row is not readable, or has no text."""
        if not isinstance(row, str):
            text = row.get(self.text_field)
            if isinstance(text, str) and is_unicode(text):
                return text
            row = f"Its {self.text_field!r} is not text." if self.text_field in row else f"It has {', '.join(row)}."
        source = self.files[place.file] if self.files else self.name
        raise LabError(
            f"Row {place.item + 1:,} of {source} has no {self.text_field!r}.",
            row,
            "Name the field that holds the text with --field, or correct or remove the row.",
        )


def shard_source(name: str, text_field: str, progress: Progress = quiet) -> ShardSource:
    """A file, a folder or a data set of the hub. UsageError where the lab cannot read it."""
    path = expanded(name)
    if not path.exists():
        if is_hub_name(name):
            return _source(name, name, [], 0, text_field)
        raise UsageError(
            f"There is no file or folder {name}.",
            "A source is one of these, or a data set of the hub as owner/name.",
            "Check the path.",
        )
    path = path.resolve()
    files = text_files(path, (".txt", ".jsonl", ".parquet", ".gz", ".zst"), progress=progress)
    readable = [file for file in files if kind_of(file)]
    if not readable:
        raise UsageError(
            f"Shards cannot be built from {path}.",
            f"The lab reads {', '.join(SUFFIXES)}, folders of these, and data sets of the hub as owner/name.",
            "Convert it: one JSON object with a text a line is the simplest.",
        )
    return _source(str(path), path.name, readable, sum(file.stat().st_size for file in readable), text_field)


def kind_of(path: Path) -> str:
    """Which of SUFFIXES a file has; nothing where it has none of them."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def _source(name: str, title: str, files: list[Path], size: int, text_field: str) -> ShardSource:
    about = {"description": "", "kind": "yours", "licence": "yours", "origin": name}
    return ShardSource(name=name, title=title, bytes=size, files=files, text_field=text_field, **about)


def _sayable(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode(errors="replace")


def _unreadable(path: Path | str, error: OSError) -> LabError:
    return LabError(f"{path} could not be read.", f"{error.strerror or error}.", "Fetch or write it again.")


@contextlib.contextmanager
def _unpacked(file: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    """The bytes that a file holds, unpacked. OSError where it is damaged, also where its end is missing."""
    packing = _PACKINGS.get(kind)
    if packing is None:
        yield file
        return
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), packing) as unpacked:
        yield io.BufferedReader(unpacked, _STREAM_BYTES)
