"""Numbers as charts write them: few digits, and units that people read.

Kinds: `count` (whole numbers, shortened to k and M beside an axis), `large` (the same for numbers with a fraction),
`seconds`, `percent`, and `value` for anything else.
"""

from __future__ import annotations

import math

_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def read_out(value: float, kind: str) -> str:
    """A value under the cross-hair: four significant digits, or all of a whole number."""
    if not math.isfinite(value):
        return "–"
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "seconds":
        return duration(value)
    if kind == "percent":
        return f"{value:.1f} %"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".")


def tick(value: float, spacing: float, kind: str) -> str:
    """A value beside an axis, with as many decimals as the distance between ticks asks for."""
    if kind == "seconds":
        return duration(value)
    if kind in ("count", "large"):
        for size, sign in _COUNT_UNITS:
            if abs(value) >= size:
                return f"{value / size:.{_decimals(spacing / size)}f}{sign}"
    if abs(value) < spacing * 1e-6:  # what is left of zero after adding up steps
        return "0"
    if spacing < 1e-3 or abs(value) >= 1e6:
        digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(spacing) + 1e-9))
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{_decimals(spacing)}f}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `1 h 30 min`, `2 d 4 h`: the two largest units that are not zero."""
    sign = "−" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.3g} s"
    whole = round(seconds)
    for size, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{sign}{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{sign}{whole} s"


def _decimals(spacing: float) -> int:
    """Decimals that tell ticks so far apart from each other; at most 8."""
    if spacing <= 0:
        return 3
    return min(8, max(0, math.ceil(-math.log10(spacing) - 1e-9)))
