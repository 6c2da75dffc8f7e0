"""What lies quietly behind the curves: lines that say what a value means, and stretches in which something was so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF

from llmlab_gui.charts.curve import drawn
from llmlab_gui.widgets.theme import faded

# Of the width: where a loss curve has fallen away from the lines above it; and where else, if one goes through there.
_LABEL_PLACES = (0.25, 1.0, 0.5, 0.0)
# And in which row of words: on the line, below it or, if need be, further up.
_SIDES = tuple((place, row) for row in (0, -1, 1, 2) for place in _LABEL_PLACES)


@dataclass(frozen=True)
class ReferenceLine:
    """A quiet horizontal line: what a value means; without words, and dotted, where the legend has both."""

    value: float
    label: str = ""


@dataclass(frozen=True)
class Span:
    """A stretch of x in which something was so (a pause); low equals high for a single place."""

    low: float
    high: float


class _Words(pg.InfLineLabel):
    """What a line means, above or below it: further left where there is no room to its right, elided to the width.

    Where all of it would be struck through, only what stands before its colon.
    """

    def __init__(self, line: pg.InfiniteLine, words: str) -> None:
        self._whole = self._words = words
        self._side = _SIDES[0]
        super().__init__(line, text=words, position=_LABEL_PLACES[0], anchors=[(0, 1), (0, 1)])
        self.setText(words)

    def valueChanged(self) -> None:
        if self.isVisible():
            self.updatePosition()

    def updatePosition(self) -> None:
        view = self.line.getViewBox()
        room = view.width() if isinstance(view, pg.ViewBox) else 0.0
        if room > 0:
            margin = 2 * self.textItem.document().documentMargin()
            metrics = QFontMetricsF(self.textItem.font())
            words = metrics.elidedText(self._words, Qt.TextElideMode.ElideRight, room - margin)
            if words != self.textItem.toPlainText():
                self.setText(words)
            free = 1 - (metrics.horizontalAdvance(words) + margin) / room
            self.orthoPos = min(self._side[0], max(0.0, free))
        super().updatePosition()

    def avoid(
        self, lines: Sequence[float], curves: Callable[[float, float], Iterable[np.ndarray]], written: list[QRectF]
    ) -> None:
        """Stays where nothing goes through, or moves there; where curves do everywhere, still clear of other lines.
        Never nearer another line, whose name it would seem to be.

        lines: where the other lines stand, in the plot's coordinates. curves: where each stands from one x to another.
        written: where the words of other lines are in them; these are added.
        """
        view = self.line.getViewBox()
        if not self._whole or not isinstance(view, pg.ViewBox) or min(view.width(), view.height()) <= 0:
            return
        (left, right), (low, high) = view.viewRange()
        metrics, margin = QFontMetricsF(self.textItem.font()), self.textItem.document().documentMargin()
        pixel = (high - low) / view.height()
        tall = metrics.height() * pixel

        def box(words: str, side: tuple[float, int]) -> QRectF:
            wide = min(1.0, (metrics.horizontalAdvance(words) + 2 * margin) / view.width())
            place, row = side
            begin = left + min(place, 1 - wide) * (right - left)
            bottom = self.line.value() + (margin + row * (metrics.height() + 2 * margin)) * pixel
            return QRectF(begin, bottom, wide * (right - left), tall)

        def is_apart(words: str, side: tuple[float, int]) -> bool:
            letters = box(words, side)
            fits = side[1] == 0 or (letters.top() >= low and letters.bottom() <= high and is_its_own(letters))
            return fits and not any(letters.intersects(other) for other in written)

        def is_its_own(letters: QRectF) -> bool:
            away = [max(letters.top() - line, line - letters.bottom(), 0.0) for line in (self.line.value(), *lines)]
            return away[0] < min(away[1:], default=math.inf) + 2 * pixel  # two lines that are one to the eye

        def is_clear(words: str, side: tuple[float, int]) -> bool:
            letters = box(words, side)
            return not any(letters.top() < line < letters.bottom() for line in lines)

        def is_free(words: str, side: tuple[float, int]) -> bool:
            letters = box(words, side)
            heights = (y[np.isfinite(y)] for y in curves(letters.left(), letters.right()))
            return not any(len(y) and y.min() < letters.bottom() and y.max() > letters.top() for y in heights)

        ways = [(words, side) for words in (self._whole, self._whole.partition(":")[0]) for side in _SIDES]
        apart = [way for way in ways if is_apart(*way)]
        clear = [way for way in apart if is_clear(*way)]
        stays_first = sorted(clear, key=lambda way: (way[0] != self._whole, way[1] != self._side))
        free = (way for way in stays_first if is_free(*way))
        words, side = next(chain(free, clear, apart), (self._whole, _SIDES[0]))
        written.append(box(words, side))
        if (words, side) != (self._words, self._side):
            self._words, self._side = words, side
            self.anchors = [(0, 1 + side[1])] * 2
            self.updatePosition()


class Marks:
    """The reference lines and spans of one plot, on linear or logarithmic axes."""

    def __init__(self, plot: pg.PlotItem) -> None:
        self._plot = plot
        self._log_x = self._log_y = False
        self._color = QColor()
        self.lines: list[tuple[ReferenceLine, pg.InfiniteLine]] = []
        self.spans: list[tuple[Span, pg.LinearRegionItem]] = []

    def set_lines(self, lines: Sequence[ReferenceLine]) -> None:
        """Replaces the lines."""
        if [line for line, _ in self.lines] == list(lines):
            return
        for _, item in self.lines:
            self._plot.removeItem(item)
        self.lines = [(line, pg.InfiniteLine(angle=0, movable=False)) for line in lines]
        for line, item in self.lines:
            item.label = _Words(item, line.label)
            item.setZValue(-5)
            self._plot.addItem(item, ignoreBounds=True)
        self._restyle()

    def set_spans(self, spans: Sequence[Span]) -> None:
        """Replaces the spans."""
        if [span for span, _ in self.spans] == list(spans):
            return
        for _, item in self.spans:
            self._plot.removeItem(item)
        self.spans = [(span, pg.LinearRegionItem(movable=False)) for span in spans]
        for _, item in self.spans:
            item.setZValue(-20)
            self._plot.addItem(item, ignoreBounds=True)
        self._restyle()

    def make_way(self, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Words of lines move out of the way of other lines, and of these curves, each its x and y."""
        shown = [item for _, item in self.lines if item.isVisible()]

        def heights(left: float, right: float) -> Iterator[np.ndarray]:
            ends = np.array([left, right])
            if self._log_x:
                ends = 10.0 ** np.clip(ends, -300, 300)
            for x, y in curves:
                first, last = np.searchsorted(x, ends)
                near = slice(max(first - 1, 0), last + 1)
                at_ends = np.interp(ends, x[near], y[near], left=np.nan, right=np.nan)
                yield drawn(np.concatenate((at_ends, y[first:last])), self._log_y)

        written: list[QRectF] = []
        for item in shown:
            item.label.avoid([other.value() for other in shown if other is not item], heights, written)

    @property
    def words_height(self) -> float:
        """Pixels that the words of a line take above it; 0 where no line has any."""
        words = (item.label.textItem.boundingRect() for line, item in self.lines if line.label)
        return max((box.height() for box in words), default=0.0)

    def heights(self) -> list[float]:
        """Where the lines stand in the plot; NaN for those that a logarithmic axis cannot show."""
        return drawn(np.array([line.value for line, _ in self.lines]), self._log_y).tolist()

    def set_log(self, *, x: bool, y: bool) -> None:
        """Moves all to where they stand on these axes; what is not above zero is hidden on a logarithmic one."""
        self._log_x, self._log_y = x, y
        for (_, item), height in zip(self.lines, self.heights(), strict=True):
            item.setVisible(bool(np.isfinite(height)))
            if np.isfinite(height):
                item.setPos(height)
        for span, item in self.spans:
            low, high = drawn(np.array([span.low, span.high]), x)
            item.setVisible(bool(np.isfinite(low)))
            if np.isfinite(low):
                item.setRegion((low, high))

    def set_color(self, color: QColor) -> None:
        """The quiet colour of the theme."""
        self._color = color
        self._restyle()

    def _restyle(self) -> None:
        for reference, line in self.lines:
            pattern = Qt.PenStyle.DashLine if reference.label else Qt.PenStyle.DotLine
            line.setPen(pg.mkPen(self._color, style=pattern))
            line.label.setColor(self._color)
        shade = faded(self._color, 0.18)
        for _, region in self.spans:
            region.setBrush(pg.mkBrush(shade))
            for edge in region.lines:
                edge.setPen(pg.mkPen(self._color, style=Qt.PenStyle.DotLine))
        self.set_log(x=self._log_x, y=self._log_y)
