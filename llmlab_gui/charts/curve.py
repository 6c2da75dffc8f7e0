"""One curve of a chart: all of its points, and the item that draws those that the screen can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor

from llmlab_gui.widgets.theme import faded

# Above so many points, markers are a thick line and cost more than they tell.
_MOST_MARKERS = 300
# A thin line of more points than these is noise, on which smooth edges are not seen and cost most of the drawing.
_MOST_ANTIALIASED = 1000


@dataclass(frozen=True)
class CurveStyle:
    """How a curve looks, and what it is called.

    group: the run's name; label: what of the run. markers: pyqtgraph's symbol, or none. z: higher is in front.
    minor: left out of the cross-hair's read-out where there are several runs. edge: pixels added to line and markers.
    """

    color: QColor
    label: str
    group: str = ""
    width: float = 1.0
    alpha: int = 255
    dotted: bool = False
    markers: str | None = None
    marker_size: int = 7
    z: float = 0.0
    minor: bool = False
    edge: float = 0.0


StyledPoints: TypeAlias = tuple[np.ndarray, np.ndarray, CurveStyle]  # x, y, and how they look


class Curve:
    """All points of a curve, in values of the axes (not their logarithms), and its item in the plot."""

    def __init__(self, style: CurveStyle, background: QColor) -> None:
        self.style = style
        self.x = self.y = np.empty(0)
        # A PlotDataItem can also draw markers, and takes three times as long to be given its points.
        self.item = pg.PlotDataItem(connect="finite") if style.markers else pg.PlotCurveItem(connect="finite")
        # Wide lines as single segments: Qt's joined strokes take 40 times as long (pyqtgraph's own measurement too).
        self.line.setSegmentedLineMode("on")
        self.set_style(style, background)

    @property
    def line(self) -> pg.PlotCurveItem:
        """The item's line, without markers."""
        return self.item.curve if self.style.markers else self.item

    def set_style(self, style: CurveStyle, background: QColor) -> None:
        self.style = style
        color = faded(style.color, style.alpha / 255)
        pattern = Qt.PenStyle.DotLine if style.dotted else Qt.PenStyle.SolidLine
        self.item.setPen(pg.mkPen(color, width=style.width + style.edge, style=pattern))
        if style.markers:
            self.item.setSymbolPen(pg.mkPen(color, width=1.5))
            self.item.setSymbolBrush(pg.mkBrush(background))
        self.item.setZValue(style.z)

    def set_points(self, x: np.ndarray, y: np.ndarray) -> None:
        """x ascends; points whose x is not known yet (NaN: of a run without steps) are left out. Not copied."""
        known = np.isfinite(x)
        self.x, self.y = (x, y) if known.all() else (x[known], y[known])

    def draw(self, low: float, high: float, pixels: int, log_x: bool, log_y: bool) -> tuple[float, float]:
        """Hands what is visible to the item; returns the smallest and largest y drawn (NaN when none)."""
        x, y = envelope(self.x, self.y, low, high, pixels, log_x=log_x) if len(self.x) else (self.x, self.y)
        x, y = drawn(x, log_x), drawn(y, log_y)
        finite = y[np.isfinite(y)]
        antialias = self.style.width + self.style.edge > 1 or len(x) <= _MOST_ANTIALIASED
        if self.style.markers:
            symbol = self.style.markers if len(finite) <= _MOST_MARKERS else None
            size = self.style.marker_size + round(self.style.edge)
            self.item.setData(x, y, symbol=symbol, symbolSize=size, antialias=antialias)
        else:
            self.item.setData(x, y, antialias=antialias)
        return (float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan)

    def nearest(self, x: float, log_x: bool) -> tuple[float, float] | None:
        """The point whose x is nearest on the screen; None when there is none near the curve."""
        if not len(self.x):
            return None
        at = int(np.searchsorted(self.x, x))
        around = [i for i in (at - 1, at) if 0 <= i < len(self.x)]
        index = min(around, key=lambda i: abs(np.log(self.x[i] / x)) if log_x and self.x[i] > 0 else abs(self.x[i] - x))
        return float(self.x[index]), float(self.y[index])


def drawn(values: np.ndarray, log: bool) -> np.ndarray:
    """Where values stand in the plot: themselves, or log10 of what is above zero and gaps otherwise."""
    if not log:
        return values
    with np.errstate(invalid="ignore"):
        return np.log10(np.where(values > 0, values, np.nan))


def envelope(
    x: np.ndarray, y: np.ndarray, low: float, high: float, pixels: int, *, log_x: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The curve between `low` and `high`: as it is when it fits, else the smallest and largest y of each pixel.

    x ascends; a NaN in y breaks the line, also where a pixel has other values. One point beyond either side is kept,
    so that lines reach the edges. log_x: pixels are even in log10(x); low and high are values of x still.
    """
    pixels = max(1, pixels)
    begin = max(0, int(np.searchsorted(x, low)) - 1)
    end = min(len(x), int(np.searchsorted(x, high, side="right")) + 1)
    if end - begin <= 4 * pixels:
        return x[begin:end], y[begin:end]
    if log_x:
        low = max(low, float(x[np.searchsorted(x, 0.0, side="right")]) if x[-1] > 0 else 1.0)
        edges = np.geomspace(low, max(high, low * 1.0001), pixels + 1)
    else:
        edges = np.linspace(low, high, pixels + 1)
    starts = np.clip(np.searchsorted(x, edges), begin, end - 1)  # ascending
    starts = starts[np.append(True, starts[1:] != starts[:-1])]  # np.unique takes 40 ms at first: it imports numpy.ma
    if starts[0] != begin:
        starts = np.concatenate([[begin], starts])
    visible = y[:end]
    lowest, highest = np.fmin.reduceat(visible, starts), np.fmax.reduceat(visible, starts)
    # From the first point of a pixel to its last, up or down as they do: what is steep has no stairs.
    ends = np.append(starts[1:], end) - 1
    falls = visible[ends] < visible[starts]
    values = [np.where(falls, highest, lowest), np.where(falls, lowest, highest)]
    places = [x[starts], x[ends]]
    gaps = np.isnan(visible[begin:])
    if gaps.any():
        # A gap within a pixel's points breaks the line after them.
        values.append(np.where(np.logical_or.reduceat(np.isnan(visible), starts), np.nan, values[-1]))
        places.append(places[-1])
    # The last point closes the line.
    drawn_x, drawn_y = (np.stack(each, axis=1).reshape(-1) for each in (places, values))
    return np.append(drawn_x, x[end - 1]), np.append(drawn_y, y[end - 1])
