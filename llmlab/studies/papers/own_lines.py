"""Where an answer stands in a reader's claims.toml: the lines of a block, of a field, and of its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llmlab.core.config import parse_toml
from llmlab.core.errors import UsageError

CLAIMS_FILE = "claims.toml"
_HEADER = re.compile(r"^\s*(?:\[\s*(paper)\s*\]|\[\[\s*(claims)\s*\]\])\s*(#.*)?$")


def block_of(lines: Sequence[str], place: int | None) -> tuple[int, int]:
    """The line of a header, and the one behind its block, from 0. UsageError where there is none."""
    heads = [(n, found[1] or found[2]) for n, line in enumerate(lines) if (found := _HEADER.match(line))]
    wanted = "paper" if place is None else "claims"
    starts = [n for n, name in heads if name == wanted]
    if (place or 0) >= len(starts):
        raise UsageError(f"{CLAIMS_FILE} has no [{wanted}] for this answer.", "", "Write it in an editor.")
    start = starts[place or 0]
    return start, next((n for n, _ in heads if n > start), len(lines))


def is_field(line: str, field: str) -> bool:
    """Whether the answer to that question begins in this line."""
    return re.match(rf"\s*{re.escape(field)}\s*=", line) is not None


def end_of(lines: Sequence[str], first: int, end: int) -> int:
    """The line behind a value: it ends as soon as what is read is TOML."""
    for last in range(first + 1, end + 1):
        try:
            parse_toml("\n".join(lines[first:last]), Path(CLAIMS_FILE))
        except UsageError:
            continue
        return last
    return first + 1


def line_of(lines: Sequence[str], place: int | None, field: str) -> int:
    """Where a field stands, from 1; of a missing one its header's line; 0 where neither is found."""
    try:
        start, end = block_of(lines, place)
    except UsageError:
        return 0
    return 1 + next((n for n in range(start + 1, end) if is_field(lines[n], field)), start)
