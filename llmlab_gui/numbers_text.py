"""Sizes, counts and times in words, as panels and the status bar write them."""

from __future__ import annotations

from llmlab_gui.charts.numbers import duration


def bytes_text(count: float) -> str:
    """`4.8 MB`: three digits at most."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            digits = 0 if unit == "bytes" or count >= 99.95 else 1
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count_text(count: float) -> str:
    """`64`, `12.3k`, `0.81M`, `124M`: as the field writes numbers of parameters and tokens."""
    if count < 10_000:
        return f"{count:,.0f}"
    if count < 100_000:
        return f"{count / 1e3:.1f}k"
    for size, sign in ((1e9, "B"), (1e6, "M")):
        if count >= size or (sign == "M" and count >= 1e5):
            share = count / size
            return f"{share:.{0 if share >= 100 else 1 if share >= 10 else 2}f}{sign}"
    return f"{count:,.0f}"


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
