"""A learner's own text, by its path: .txt, .jsonl and .parquet files, streamed in constant memory.

Nothing is replaced silently: bytes that are no UTF-8, and rows without a text, are refused with their place. Only
a byte order mark is dropped, and line ends of Windows become plain ones.
"""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import is_unicode, kind_of_no_file, open_file, require_file, sha256_of
from llmlab.core.progress import Progress, quiet
from llmlab.data.corpus import Corpus, Piece, document_pieces
from llmlab.data.example_files import Row, jsonl_rows

SUFFIXES = (".txt", ".jsonl", ".parquet")
# Where a row's text is looked for, in this order.
FIELDS = ("text", "content")
_BLOCK_BYTES = 1 << 18
_PARQUET_ROWS = 256
_TRIED = 20  # files of a folder whose beginning is read when it is chosen: 0.04 s of processor time
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


def own_corpus(path: Path, progress: Progress = quiet) -> OwnCorpus:
    """The text at `path`, a file or folder that exists. UsageError when it is of a kind that the lab cannot read,
    LabError when nothing is in it, or when one of the first files is no text from its beginning on."""
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is not a text that the lab can read.",
            f"It reads {', '.join(SUFFIXES)} and folders of .txt.",
            "Convert it, or rename it if it is plain text.",
        )
    path = path.resolve()
    files = text_files(path, progress=progress)
    if all(_is_empty(file) for file in files):
        raise LabError(f"{path.name} is empty.", "It holds no text.", "Choose another corpus.")
    for file in files[:_TRIED]:
        progress(f"Looking into {path.name}", 0, 0)
        next(file_pieces(file), None)
    return OwnCorpus(
        name=str(path),
        title=path.name,
        description="Your own text.",
        kind="yours",
        licence="yours",
        origin=str(path),
        bytes=sum(text_bytes(file) for file in files),
        path=path,
    )


def text_files(path: Path, suffixes: tuple[str, ...] = (".txt",), progress: Progress = quiet) -> list[Path]:
    """The file itself, or the files of a folder and its folders with one of the suffixes, in the order of their names.

    Hidden files and folders are left out. LabError when nothing is there.
    """
    if path.is_file():
        return [path]
    if path.exists() and (kind := kind_of_no_file(path)) is not None:
        raise LabError(f"{path} could not be read.", f"It is {kind}, not a file.", "Name a file or a folder.")
    if not path.is_dir():
        raise LabError(f"{path} is not there.", "It was moved or deleted.", "Choose another corpus.")
    found = sorted(
        file
        for file in _walked(path, progress)
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise LabError(f"{path} holds no {' or '.join(suffixes)} file.", "", "Put one there, or name a file.")
    return found


def _walked(path: Path, progress: Progress) -> Iterator[Path]:
    for number, file in enumerate(path.rglob("*")):
        progress(f"Looking into {path.name}", number, 0)
        yield file


def files_key(files: list[Path]) -> str:
    """Hex sha256 that changes when the files do."""
    digest = hashlib.sha256()
    for file, key in zip(files, file_keys(files), strict=True):
        digest.update(f"{file.name} {file.stat().st_size}\n{key}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_keys(files: list[Path]) -> list[str]:
    """Of each, what changes with its content: its sha256, or its path and time of change where all are large."""
    small = sum(file.stat().st_size for file in files) <= _HASH_BYTES
    return [sha256_of(file) if small else f"{file} {file.stat().st_mtime_ns}" for file in files]


def file_pieces(path: Path) -> Iterator[Piece]:
    """The documents of one file. LabError when it cannot be read as text."""
    with explained(f"{path} could not be read.", "Name a file that can be read."):
        match path.suffix.lower():
            case ".jsonl":
                yield from _jsonl_pieces(path)
            case ".parquet":
                yield from _parquet_pieces(path)
            case _:
                yield from document_pieces(text_blocks(path))


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:  # reading it will say what is wrong
        return False


def text_bytes(path: Path) -> int:
    """About how many bytes of text a file holds; 0 when that cannot be told."""
    try:
        if path.suffix.lower() != ".parquet":
            return path.stat().st_size
        parquet, column = open_parquet(path)
        place = parquet.schema_arrow.names.index(column)
        groups = [parquet.metadata.row_group(group) for group in range(parquet.metadata.num_row_groups)]
        return sum(group.column(place).total_uncompressed_size for group in groups)
    except (OSError, LabError):  # reading it will say what is wrong
        return 0


def text_blocks(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    done = 0  # bytes given to the decoder
    with open_file(path) as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            if done == 0:
                _refuse_other_encodings(path, block)
            if b"\0" in block:
                place = done + block.index(b"\0")
                raise LabError(
                    f"{path} is not a text file.", f"Byte {place:,} is zero, which no text holds.", "Choose a text."
                )
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = done - waiting + error.start
                raise LabError(
                    f"{path} is not UTF-8 text.",
                    f"Byte {place:,} (0x{error.object[error.start]:02x}) begins no character.",
                    "Save it as UTF-8 in a text editor, or convert it with iconv.",
                ) from error
            if done == 0:
                text = text.removeprefix("\ufeff")
            done += len(block)
            text = newlines.decode(text, final=not block)
            if text:
                yield text
            if not block:
                return


def _refuse_other_encodings(path: Path, start: bytes) -> None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise LabError(f"{path} is UTF-16 text.", "The lab reads UTF-8.", "Save it as UTF-8 in a text editor.")


def _jsonl_pieces(path: Path) -> Iterator[Piece]:
    rows = jsonl_rows(path)
    for number, row in rows:
        text = _row_text(row)
        if text is None:
            bad = 1 + sum(_row_text(rest) is None for _, rest in rows)
            raise LabError(
                f"{path} has {bad:,} line(s) without a text; the first is line {number:,}.",
                f'A line is a JSON object with a string "{FIELDS[0]}" or "{FIELDS[1]}".',
                "Correct or remove them.",
            )
        yield from document_pieces([text])


def _row_text(row: Row) -> str | None:
    """None where a line is not JSON, or has no text."""
    text = None if isinstance(row, str) else next((row[name] for name in FIELDS if name in row), None)
    return text if isinstance(text, str) and is_unicode(text) else None


def _parquet_pieces(path: Path) -> Iterator[Piece]:
    parquet, column = open_parquet(path)
    for text in parquet_texts(path, parquet, column):
        yield from document_pieces([text])


def parquet_texts(
    path: Path, parquet: Any, column: str, groups: list[int] | None = None, first: int = 0
) -> Iterator[str]:
    """The texts of a column, of some row groups or all. first: the number of the first row, for what is said of one."""
    values = (value for batch in _batches(path, parquet, column, groups) for value in batch.column(0))
    for row, value in enumerate(values, start=first):
        try:
            text = value.as_py()
        except UnicodeDecodeError as error:
            raise LabError(
                f"{path} has a row that is not UTF-8.", f"It is row {row:,}.", "Correct or remove it."
            ) from error
        if text is None:
            raise LabError(f"{path} has a row without a text.", f"It is row {row:,}.", "Remove it.")
        yield text


def _batches(path: Path, parquet: Any, column: str, groups: list[int] | None) -> Iterator[Any]:
    import pyarrow

    try:
        yield from parquet.iter_batches(batch_size=_PARQUET_ROWS, columns=[column], row_groups=groups)
    except (pyarrow.ArrowException, OSError) as error:
        raise LabError(f"{path} is damaged.", f"{error}.", "Fetch or write it again.") from error


def open_parquet(path: Path, fields: tuple[str, ...] = FIELDS) -> tuple[Any, str]:
    """The pyarrow ParquetFile and the name of its column of texts: the first of `fields` that it has."""
    import pyarrow
    import pyarrow.parquet

    require_file(path)
    try:
        parquet = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise LabError(f"{path} is not a Parquet file.", f"{error}.", "Choose another file.") from error
    schema = parquet.schema_arrow
    for name in fields:
        if name in schema.names and schema.field(name).type in (pyarrow.string(), pyarrow.large_string()):
            return parquet, name
    wanted = " or ".join(f'"{name}"' for name in fields)
    raise LabError(
        f"{path} has no column of text.",
        f"It has {', '.join(schema.names)}; {wanted} is looked for, as strings.",
        "Rename the column that holds the text."
        if fields == FIELDS
        else "Name the column that holds the text: --field.",
    )
