"""Charts and tables as plain data, which reports (`llmlab.core.figures`) and the window draw. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

LINE, DASHED, POINTS, BARS = "line", "dashed", "points", "bars"
MEASURED, FAINT, FIT = "measured", "faint", "fit"
KINDS = (LINE, DASHED, POINTS, BARS, MEASURED, FAINT, FIT)

_NUMBER_OR_PLURAL = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?[kMB%]?|(?<=[a-z])s\b")


def have_order(names: Sequence[str]) -> bool:
    """Whether curves are of values of one quantity, and differ in a number alone: `1 head`, `2 heads`."""
    return len({_NUMBER_OR_PLURAL.sub("", name) for name in names}) <= 1


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    label: str
    unit: str = ""
    log: bool = False


@dataclass
class Series:
    """One set of numbers in a chart.

    kind: of KINDS. `dashed` is what the others are held against (a baseline, chance), `faint` a background, `fit` a
    function that was fitted. low, high: an interval around each y, or empty: a band of a line or a fit, a bar at each
    of all others. color: of points, a number each on the chart's colour scale, or empty. x of bars: the number of a
    category.
    """

    name: str
    x: list[float]
    y: list[float]
    kind: str = LINE
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    color: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a series has no kind {self.kind!r:.100}")
        lengths = {len(self.x), len(self.y)} | {len(part) for part in (self.low, self.high, self.color) if part}
        if len(lengths) > 1 or bool(self.low) != bool(self.high):
            raise ValueError(f"the numbers of {self.name!r:.100} do not belong together")


@dataclass
class Chart:
    """name: a file's stem, unique in the paper. categories: names of x = 0, 1, 2, ...; empty where x is a number.

    color_label: what the colour of points says. caption: how it is to be read, a sentence or two.
    """

    name: str
    title: str
    x_axis: Axis
    y_axis: Axis
    series: list[Series]
    categories: list[str] = field(default_factory=list)
    color_label: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Note:
    """Words in a chart: beside the point (x, y), or where y is None along an upright line at x."""

    x: float
    label: str
    y: float | None = None


@dataclass
class NotedChart(Chart):
    """A chart with words in it. top: what is above it on the y axis is out of sight; None for no limit."""

    notes: list[Note] = field(default_factory=list)
    top: float | None = None


@dataclass
class Table:
    """Cells as people read them."""

    title: str
    columns: list[str]
    rows: list[list[str]]
