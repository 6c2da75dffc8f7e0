"""Signs in texts that people read: the minus of a number, the line break of a prompt."""

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
