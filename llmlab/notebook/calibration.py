"""Calibration: of what was stated with 80 % confidence, four in five should come true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

# The normal distribution's quantile of 97.5 %: intervals of 95 %.
_Z = 1.959964
# Stated confidences are mostly tens of per cent; each has a bin of its own from 50 % on.
_EDGES = (0.0, 0.25, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0)
# Before so many, one miss at 80 % would already read as a verdict: Wilson's interval of 0 of 1 ends at 79 %.
LEAST = 10
# Brier score and frequency over time are means of so many statements: few enough to change within weeks.
WINDOW = 20


@dataclass(frozen=True)
class Statement:
    """One scored prediction that named its confidence. time: when it was scored, Unix seconds. altered: a miss for
    that reason alone."""

    time: float
    confidence: float
    right: bool
    brier: float
    label: str = ""
    altered: bool = False


@dataclass(frozen=True)
class Bin:
    """Statements of about the same confidence. low and high: Wilson's 95 % interval of the frequency."""

    count: int
    right: int
    confidence: float  # mean of what was stated
    low: float
    high: float

    @property
    def frequency(self) -> float:
        return self.right / self.count


@dataclass(frozen=True)
class Moment:
    """The last `WINDOW` statements, as they stood after one of them."""

    time: float
    count: int
    confidence: float
    frequency: float
    brier: float


@dataclass(frozen=True)
class Calibration:
    """All statements together, by confidence, and over time."""

    count: int
    right: int
    confidence: float
    brier: float
    low: float
    high: float
    bins: tuple[Bin, ...]
    over_time: tuple[Moment, ...]
    altered: int

    @property
    def verdict(self) -> str:
        """What it means, in a sentence or two."""
        if not self.count:
            return "No prediction with a confidence has been scored yet."
        said = (
            f"{self.right} of {self.count} came true ({100 * self.right / self.count:.0f} %), "
            f"and {100 * self.confidence:.0f} % was stated on average."
        )
        if self.altered:
            words = "was altered and counts as a miss" if self.altered == 1 else "were altered and count as misses"
            said += f" {self.altered} {words}."
        if self.count < LEAST:
            return f"{said} A verdict needs at least {LEAST}."
        if self.low <= self.confidence <= self.high:
            return f"{said} That fits the {self.count} statements so far."
        word = "Too sure" if self.confidence > self.high else "Not sure enough"
        return f"{said} {word}: with 95 % confidence the real share is {100 * self.low:.0f} to {100 * self.high:.0f} %."


def calibration(statements: Sequence[Statement]) -> Calibration:
    """Stated confidence against observed frequency."""
    ordered = sorted(statements, key=lambda statement: statement.time)
    bins = []
    for low, high in pairwise(_EDGES):
        inside = [s for s in ordered if low <= s.confidence < high]
        if inside:
            right = sum(s.right for s in inside)
            bins.append(Bin(len(inside), right, fmean(s.confidence for s in inside), *wilson(right, len(inside))))
    right = sum(s.right for s in ordered)
    return Calibration(
        len(ordered),
        right,
        fmean(s.confidence for s in ordered) if ordered else 0.0,
        fmean(s.brier for s in ordered) if ordered else 0.0,
        *wilson(right, len(ordered)),
        bins=tuple(bins),
        over_time=tuple(_moment(ordered[max(0, end - WINDOW) : end]) for end in range(1, len(ordered) + 1)),
        altered=sum(s.altered for s in ordered),
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927): it never leaves 0 to 1, and holds for few trials too."""
    if not count:
        return 0.0, 1.0
    share, z2 = right / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _moment(last: Sequence[Statement]) -> Moment:
    frequency = fmean(s.right for s in last)
    return Moment(last[-1].time, len(last), fmean(s.confidence for s in last), frequency, fmean(s.brier for s in last))
