"""Numbers and signs in texts that people read: counts, the minus, the line break of a prompt."""

from __future__ import annotations


def minus(number: str) -> str:
    """A formatted number with the minus sign of print where it is below zero, and no sign where it is written as zero.

    The exponent of `1e-05` keeps its hyphen: that is how it is typed.
    """
    if not number.strip("+-0.,"):
        return number.lstrip("+-")
    return f"\u2212{number[1:]}" if number.startswith("-") else number


def quoted(text: str) -> str:
    """A prompt or token in quotes, with the panels' sign for a line break."""
    return repr(text.replace("\n", "⏎"))


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
