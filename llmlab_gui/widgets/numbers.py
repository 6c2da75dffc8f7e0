"""Numbers, sizes and times as people read them: few digits, and units.

Kinds: `count` (whole numbers, shortened to k and M beside an axis), `large` (the same for numbers with a fraction),
`seconds`, `percent`, and `value` for anything else.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence

from llmlab.core.signs import minus

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|(?:[kMGT]?B|s|min|h|d)\b))")
_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def read_out(value: float, kind: str) -> str:
    """A value under the cross-hair: four significant digits, or all of a whole number."""
    if not math.isfinite(value):
        return "–"
    if kind == "count":
        return minus(f"{value:,.0f}")
    if kind == "seconds":
        return duration(value)
    if kind == "percent":
        return f"{minus(f'{value:.1f}')} %"
    if abs(value) >= 10_000:
        return minus(f"{value:,.0f}")
    return minus(f"{value:#.4g}".rstrip("."))


def exact(value: float) -> str:
    """A value in a tool tip: six significant digits, about all that a float32 has."""
    return minus(f"{value:.6g}")


def unbroken(text: str) -> str:
    """With no line break between a number and its unit."""
    return _BEFORE_UNIT.sub("\u00a0", text)


def ticks(values: Sequence[float], spacing: float | None, kind: str) -> list[str]:
    """Values beside an axis, all in one notation.

    spacing: between them, for as many decimals as tell them apart; None on a logarithmic scale, where the first digit
    of each is all there is to say.
    """
    apart = [spacing if spacing is not None else 10.0 ** math.floor(math.log10(value) + 1e-9) for value in values]
    largest = max(map(abs, values), default=0.0)
    powers = largest >= 1e6 or (min(apart, default=1.0) < 1e-3 and (spacing is None or largest < 1e-2))
    return [_tick(value, step, kind, powers=powers) for value, step in zip(values, apart, strict=True)]


def _tick(value: float, spacing: float, kind: str, *, powers: bool) -> str:
    if kind == "seconds":
        return duration(value, spacing)
    if kind in ("count", "large"):
        for size, sign in _COUNT_UNITS:
            if abs(value) >= size:
                text = f"{value / size:.{_decimals(spacing / size)}f}"
                # Without zeros at the end: 1k is 1k also beside 1.5k, and in the next chart.
                return f"{minus(text.rstrip('0').rstrip('.') if '.' in text else text)}{sign}"
    if abs(value) < spacing * 1e-6:  # what is left of zero after adding up steps
        return "0"
    if powers:
        digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(spacing) + 1e-9))
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        return f"{minus(mantissa)}e{int(exponent)}"
    return minus(f"{value:.{_decimals(spacing)}f}")


def duration(seconds: float, apart: float = math.inf) -> str:
    """`45 s`, `12 min`, `1 h 30 min`, `2 d 4 h`: the largest unit and the next, and those that tell it from others that
    are so many seconds apart."""
    sign = "−" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 60:
        fine = 0 < apart < 0.1 and seconds > apart
        digits = math.floor(math.log10(seconds)) - math.floor(math.log10(apart)) + 1 if fine else 0
        return f"{sign}{seconds:.{max(3, digits)}g} s"
    whole = round(seconds)
    if whole >= 2 * 365 * 86_400:
        return f"{sign}{whole // (365 * 86_400)} years"
    parts, first = list[str](), 0
    for size, larger, name in ((86_400, math.inf, "d"), (3600, 86_400, "h"), (60, 3600, "min"), (1, 60, "s")):
        count, whole = divmod(whole, size)
        if count and (not parts or larger == first or larger > apart):
            first = size if not parts else first
            parts.append(f"{count} {name}")
    return sign + " ".join(parts)


def bytes_text(count: float) -> str:
    """`4.8 MB`: three digits at most."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            digits = 0 if unit == "bytes" or count >= 99.95 else 1
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def minutes_text(minutes: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`: rounded as an estimate should be."""
    seconds = minutes * 60
    if seconds < 55:
        return duration(max(5, round(seconds / 5) * 5))
    if seconds < 3600:
        return duration(round(minutes) * 60)
    return duration(round(minutes / 5) * 300)


def time_left_text(seconds: float) -> str:
    """A live estimate that does not flicker: whole seconds, then half minutes, then minutes."""
    grid = 1 if seconds < 60 else 5 if seconds < 600 else 60
    return duration(max(0, round(seconds / grid) * grid))


def stamp_text(seconds: float) -> str:
    """`2026-11-30 05:12`: in files, which are read on other days."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def created_text(seconds: float) -> str:
    """`14:05` today, `23 Nov 14:05` this year, `2025-11-23` before."""
    when, now = time.localtime(seconds), time.localtime()
    if (when.tm_year, when.tm_yday) == (now.tm_year, now.tm_yday):
        return time.strftime("%H:%M", when)
    if when.tm_year == now.tm_year:
        return time.strftime("%d %b %H:%M", when)
    return time.strftime("%Y-%m-%d", when)


def _decimals(spacing: float) -> int:
    """Decimals that tell ticks so far apart from each other; at most 8."""
    if spacing <= 0:
        return 3
    return min(8, max(0, math.ceil(-math.log10(spacing) - 1e-9)))
