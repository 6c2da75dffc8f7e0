"""A chart's legend: in rows between its edge and its curves, which it never covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter

from llmlab_gui.charts.axes import chart_font
from llmlab_gui.widgets.theme import current_theme

_SAMPLE, _GAP, _BETWEEN = 20.0, 5.0, 14.0  # pixels: a piece of line (pyqtgraph's), to its name, to the next entry
_LINE_AT = 11.0  # where pyqtgraph's piece of line is, from its top
_SHARE, _LEFT = 0.35, 130.0  # of the chart's height, at most; pixels of it that more than one row leaves


@dataclass(frozen=True)
class _Placed:
    at: QPointF
    sample: pg.ItemSample | None  # none for what says how many more there are
    words: str


class Legend(pg.GraphicsWidget):
    """Entries flow from left to right. Those that have no room are counted, and listed under the mouse."""

    def __init__(self, plot: pg.PlotItem) -> None:
        super().__init__()
        self._layout = plot.layout
        self._layout.removeItem(plot.titleLabel)  # whose place it takes
        plot.titleLabel.hide()
        self._layout.addItem(self, 0, 1)
        self._samples: list[pg.ItemSample] = []
        self._names: list[str] = []
        self._placed: list[_Placed] = []
        self._room: tuple[float, float] = (0.0, 0.0)

    @property
    def names(self) -> list[str]:
        """Of all entries."""
        return list(self._names)

    @property
    def shown(self) -> list[str]:
        """What is written, in its order; names that are too long for a row are elided."""
        return [placed.words for placed in self._placed]

    def add(self, item: pg.GraphicsObject, name: str) -> None:
        """Names an item by a piece of its line, or its symbol; shown by the next `arrange`."""
        self._samples.append(pg.ItemSample(item))
        self._names.append(name)
        self._room = (0.0, 0.0)

    def clear(self) -> None:
        """Takes all entries away at once; their room stays until the next `arrange`."""
        self._samples, self._names, self._placed, self._room = [], [], [], (0.0, 0.0)
        self.update()

    def arrange(self, width: float, height: float) -> bool:
        """Lays the entries out for a chart of that size, and takes the room that they need; whether it changed."""
        if (width, height) == self._room:
            return False
        self._room = (width, height)
        metrics = QFontMetricsF(chart_font())
        row = max(metrics.height(), _SAMPLE * 0.75)
        most = max(1, int(min(height * _SHARE, height - _LEFT) / row))
        words = [metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, width - _SAMPLE - _GAP) for name in self._names]
        sizes = [_SAMPLE + _GAP + metrics.horizontalAdvance(text) + _BETWEEN for text in words]
        count = len(words)
        while count > 1 and _rows([*sizes[:count], *self._rest(count, metrics)], width) > most:
            count -= 1
        more = self._more(count)
        if count == 1 and _rows([*sizes[:1], *self._rest(1, metrics)], width) > most:  # the first is always named
            more = more.removesuffix(" more")
            room = width - metrics.horizontalAdvance(more) - _BETWEEN - _SAMPLE - _GAP
            words[0] = metrics.elidedText(self._names[0], Qt.TextElideMode.ElideMiddle, room)
            sizes[0] = _SAMPLE + _GAP + metrics.horizontalAdvance(words[0]) + _BETWEEN
        if count < len(words):
            sizes = [*sizes[:count], metrics.horizontalAdvance(more) + _BETWEEN]
            words = [*words[:count], more]
        x = y = 0.0
        self._placed = []
        for number, (text, size) in enumerate(zip(words, sizes, strict=True)):
            if x and x + size - _BETWEEN > width:
                x, y = 0.0, y + row
            self._placed.append(_Placed(QPointF(x, y), self._samples[number] if number < count else None, text))
            x += size
        complete = words == self._names
        self.setToolTip("" if complete else "\n".join(self._names))
        taken = y + row if words else 0.0
        before = self.minimumHeight()
        self._layout.setRowFixedHeight(0, taken)
        self.setMinimumHeight(taken)
        self.setMaximumHeight(taken)
        self.setVisible(bool(words))
        self.update()
        return taken != before

    def paint(self, painter: QPainter, *_: Any) -> None:
        font = chart_font()
        metrics = QFontMetricsF(font)
        row = max(metrics.height(), _SAMPLE * 0.75)
        painter.setFont(font)
        for placed in self._placed:
            left = placed.at.x()
            if placed.sample is not None:
                painter.save()
                painter.translate(left, placed.at.y() + row / 2 - _LINE_AT)
                placed.sample.paint(painter)
                painter.restore()
                left += _SAMPLE + _GAP
            painter.setPen(QColor(current_theme().text))
            painter.drawText(
                QPointF(left, placed.at.y() + (row + metrics.ascent() - metrics.descent()) / 2), placed.words
            )

    def _more(self, count: int) -> str:
        return f"+ {len(self._names) - count} more"

    def _rest(self, count: int, metrics: QFontMetricsF) -> list[float]:
        """What the words about those without room take."""
        return [metrics.horizontalAdvance(self._more(count)) + _BETWEEN] if count < len(self._names) else []


def _rows(sizes: list[float], width: float) -> int:
    """How many rows entries of these sizes take."""
    rows, x = 1, 0.0
    for size in sizes:
        if x and x + size - _BETWEEN > width:
            rows, x = rows + 1, 0.0
        x += size
    return rows
