"""Rows of .jsonl, .csv and .parquet files and of data sets of the hub, one at a time.

A row that cannot be read comes as a sentence that says why, and the next one follows: one bad line does not lose
the file. Nothing of a data set is ever executed: rows are data.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import open_file, parse_json, require_file

SUFFIXES = (".jsonl", ".csv", ".parquet")
# A row by its columns, or the sentence why there is none.
Row: TypeAlias = Mapping[str, Any] | str
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")
_HUB_SECONDS = 20  # that the hub gets to answer
# A longer line is no example; it is a file without line ends.
_LONGEST_LINE = 64 << 20


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Numbered rows of a file. UsageError for another kind of file, LabError when it cannot be read at all."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "", f"Name a file in it: {', '.join(SUFFIXES)}.")
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            rows = jsonl_rows(path, _LONGEST_LINE)
        case ".csv":
            rows = _csv(path)
        case ".parquet":
            rows = _parquet(path)
        case _:
            raise UsageError(
                f"{path} is not a file of examples that the lab can read.",
                f"It reads {', '.join(SUFFIXES)}.",
                "Convert it: one JSON object a line is the simplest.",
            )
    return _readable(path, rows)


def is_hub_name(source: str) -> bool:
    """Whether a text can be the name of a data set of the hub: `owner/name` or `owner/name:configuration`."""
    return _HUB_NAME.fullmatch(source) is not None


def hub_rows(source: str, *, streamed: bool, revision: str = "") -> Iterator[tuple[int, Row]]:
    """Numbered rows of the train split. LabError without a network, and when there is no such data set.

    streamed: read them one by one, for the first few of many. Else all are brought into the cache of `datasets`,
    from where they come the next time, also without a network where HF_HUB_OFFLINE is set. revision: a commit of
    `hub_revision`; empty: the data set as it is now.
    """
    import datasets

    name, _, configuration = source.partition(":")
    with _asking_the_hub(source) as offline:
        if offline and revision and (here := hub_revision(source)) != revision:  # it would take what is in its cache
            raise _unreachable(source, f"Its commit {revision} is wanted, and the cache has {here}")
        datasets.disable_progress_bars()
        rows: Any = datasets.load_dataset(
            name,
            configuration or None,
            split="train",
            streaming=streamed and not offline,
            revision=revision or None,
            trust_remote_code=False,  # `datasets` before 4 would ask in the terminal whether to run a set's program
        )
        for number, row in enumerate(rows, start=1):
            yield number, dict(row)


def hub_revision(source: str) -> str:
    """The commit at which the hub has a data set now; without a network, the one in the cache. LabError as above."""
    import datasets
    from huggingface_hub import HfApi

    name, _, configuration = source.partition(":")
    with _asking_the_hub(source) as offline:
        if offline:
            return str(datasets.load_dataset_builder(name, configuration or None).hash)
        return HfApi().dataset_info(name).sha or ""


@contextlib.contextmanager
def _asking_the_hub(source: str) -> Iterator[bool]:
    """Gives whether only its cache is asked; whatever fails is a LabError."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    if not offline and (silence := hub_silence()) is not None:
        raise _unreachable(source, f"{getattr(silence, 'reason', None) or silence}") from silence
    try:
        yield offline
    except LabError:
        raise
    except Exception as error:  # whatever the hub's client and its transports raise
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if offline:
            why = "The hub is not asked, since HF_HUB_OFFLINE is set, and it is not in the cache"
        raise _unreachable(source, why) from error


def hub_silence() -> OSError | None:
    """Why the hub does not answer; None when it does. The hub's own client would try again for half a minute."""
    from huggingface_hub import constants

    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
            return None
    except urllib.error.HTTPError:  # it answers
        return None
    except OSError as error:
        return error


def _unreachable(source: str, why: str) -> LabError:
    return LabError(
        f"The data set {source} could not be loaded from the hub.",
        f"{why.rstrip('.')}.",
        "Check the name and the network, or name a file: a .jsonl, .csv or .parquet is read without one.",
    )


def _readable(path: Path, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    with explained(f"{path} could not be read.", "Name a file that can be read."):
        yield from rows


def jsonl_rows(path: Path, longest: int = -1) -> Iterator[tuple[int, Row]]:
    """Numbered rows of a file of JSON lines. longest: bytes after which a line is cut; -1 for none.

    OSError when it cannot be read.
    """
    with open_file(path) as file:
        number = 0
        while line := file.readline(longest):
            number += 1
            if line.strip():
                yield number, json_row(line)


def json_row(line: bytes) -> Row:
    """A line of JSON as a row."""
    try:
        row = parse_json(line.decode("utf-8-sig"))  # files put one after the other each bring their mark
    except UnicodeDecodeError as error:
        return f"It is not UTF-8: byte {error.start + 1} begins no character."
    except json.JSONDecodeError as error:
        return f"It is not JSON: {error.msg.removesuffix(' at')} at character {error.colno}."
    except ValueError as error:
        return f"It is not JSON: {error}."
    return row if isinstance(row, dict) else "It is JSON, but not an object with columns."


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    with io.TextIOWrapper(open_file(path), "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:
                    raise LabError(f"{path} is not a CSV file.", f"{error}.", "Save it again as CSV.") from error
                number += 1
                yield number, f"It is not CSV: {error}."
                continue
            if not cells:
                continue
            if header is None:
                header = cells
                continue
            number += 1
            yield number, _csv_row(header, cells)


def _csv_row(header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return f"It has {len(cells)} cell(s) where the header has {len(header)}."
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        return "It is not UTF-8."
    return dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    require_file(path)
    try:
        pyarrow.parquet.ParquetFile(path).close()  # its own words when it is none: those of `datasets` are a traceback
        rows: Any = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        for number, row in enumerate(rows, start=1):
            yield number, dict(row)
    except (pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        why = " ".join(str(error).split())[:300]
        raise LabError(f"{path} is not a readable Parquet file.", f"{why.rstrip('.')}.", "Write it again.") from error
