"""Numbers, times and tables as people read them in a terminal. Plain text: no colours, no libraries."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any

# The last column stays readable even in a narrow window.
_NARROWEST = 24


def counted(number: int, what: str) -> str:
    """1 -> `1 token`, 2951 -> `2,951 tokens`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Bytes: 9765432 -> `9.77 MB`."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{number:.0f} B"


def duration(seconds: float | None) -> str:
    """65 -> `1:05`, 3700 -> `1:01:40`; `?` when unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ago(moment: float) -> str:
    """A Unix time as `5 min ago`."""
    seconds = max(0.0, time.time() - moment)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def clock(moment: float) -> str:
    """A Unix time in local time: `2025-11-24 18:16:09`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def loss(value: float | None) -> str:
    """A loss in nats per token, or `-` when it was not measured."""
    return "-" if value is None else f"{value:.3f}"


def value(value: Any) -> str:
    """A setting's value as it is written after --set."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "|".join(str(item).encode("unicode_escape").decode() for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def printable(words: str) -> str:
    """Without control characters but line breaks and tabs: a model writes those too, and a terminal obeys them."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in words
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Lines of a table with aligned columns; the last column wraps at the terminal's width.

    right: columns aligned to the right. Piped output has no width and never wraps.
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        aligned = [
            text.rjust(widths[column]) if column in right else text.ljust(widths[column])
            for column, text in enumerate(row[:-1])
        ]
        ending = row[-1].rjust(widths[-1]) if len(row) - 1 in right else row[-1]
        yield from hanging("  ".join([*aligned, ""]), ending)


def hanging(beginning: str, text: str) -> Iterator[str]:
    """Lines of `text` after `beginning`, wrapped at the terminal's width under its own start."""
    room = max(_NARROWEST, width() - len(beginning))
    wrapped = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    yield f"{beginning}{wrapped[0]}".rstrip()
    for line in wrapped[1:]:
        yield " " * len(beginning) + line


def width() -> int:
    """Columns of the terminal; practically endless when the output is piped."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000


def _three_digits(number: float) -> str:
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}"
