"""The bar beside a map or a plot that says which number a colour is."""

from __future__ import annotations

import math

import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QLinearGradient, QPainter, QPen
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget

from llmlab_gui.charts.axes import round_step
from llmlab_gui.charts.color_scale import ColorScale
from llmlab_gui.widgets.numbers import read_out, ticks
from llmlab_gui.widgets.theme import current_theme

WIDTH = 74.0  # with its numbers
_BAR = 11.0
_TALLEST = 260.0
_BESIDE = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_MARGIN = 8.0  # around a bar that is part of a plot


def paint_scale(painter: QPainter, room: QRectF, scale: ColorScale, unit: str, kind: str, *, log: bool) -> None:
    """A bar with ticks at round numbers and the unit under it."""
    theme, metrics = current_theme(), QFontMetricsF(painter.font())
    line = metrics.height()
    height = min(room.height() - (line + 4 if unit else 0), _TALLEST)
    if height < 2 * line:
        return
    bar = QRectF(room.left(), room.top(), _BAR, height)
    shade = QLinearGradient(bar.bottomLeft(), bar.topLeft())
    for step in range(0, 256, 5):
        shade.setColorAt(step / 255, QColor(*scale.table[step].tolist()))
    painter.fillRect(bar, shade)
    painter.setPen(QPen(QColor(theme.grid), 1))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRect(bar)
    painter.setPen(QColor(theme.quiet))
    left = bar.right() + 5
    for share, text in _ticks(scale, kind, height / (2.2 * line), log=log):
        middle = bar.bottom() - share * height
        top = min(max(middle - line / 2, bar.top() - 2), bar.bottom() - line + 2)
        painter.drawLine(int(bar.right()), int(middle), int(bar.right()) + 2, int(middle))
        painter.drawText(QRectF(left, top, room.right() - left, line), _BESIDE, text)
    if unit:
        place = QRectF(room.left(), bar.bottom() + 4, room.width(), line)
        painter.drawText(place, _BESIDE, metrics.elidedText(unit, Qt.TextElideMode.ElideRight, place.width()))


def _ticks(scale: ColorScale, kind: str, most: float, *, log: bool) -> list[tuple[float, str]]:
    """Places from 0 to 1 and what stands there."""
    span = scale.high - scale.low
    if span <= 0 or not math.isfinite(span):
        return []
    if log:
        powers = range(math.ceil(scale.low - 1e-9), math.floor(scale.high + 1e-9) + 1)
        found = [((power - scale.low) / span, f"{10.0**power:.6g}") for power in powers]
        if scale.high - powers[-1] > 0.15 if powers else True:
            found.append((1.0, read_out(10**scale.high, kind)))
        return found
    step = round_step(span / max(2.0, min(most, 5.0)))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    if last - first < 2:  # no room for round numbers: the ends, and zero between them
        ends = [(0.0, read_out(scale.low, kind)), (1.0, read_out(scale.high, kind))]
        return [ends[0], (0.5, "0"), ends[1]] if scale.low < 0 else [(0.0, ticks([scale.low], step, kind)[0]), ends[1]]
    shown = [place * step for place in range(first, last + 1)]
    return [((value - scale.low) / span, text) for value, text in zip(shown, ticks(shown, step, kind), strict=True)]


class ScaleItem(pg.GraphicsWidget):
    """Takes room at the right of a plot while there is a scale to show."""

    def __init__(self, plot: pg.PlotItem) -> None:
        super().__init__()
        self._scale: ColorScale | None = None
        self._words = ""
        plot.layout.addItem(self, 2, 5)
        self.show_scale(None)

    def show_scale(self, scale: ColorScale | None, words: str = "") -> None:
        """words: what the colour says, under the bar."""
        self._scale, self._words = scale, words
        self.setFixedWidth(WIDTH + _MARGIN if scale is not None else 0)
        self.setVisible(scale is not None)
        self.update()

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        if self._scale is not None:
            room = QRectF(self.rect()).adjusted(_MARGIN, _MARGIN, 0, -_MARGIN)
            paint_scale(painter, room, self._scale, self._words, "value", log=False)
