"""How long the examples are: a histogram, with the length at which they are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from llmlab.data.example_preview import Preview
from llmlab_gui.charts.axes import round_step
from llmlab_gui.widgets.numbers import tick
from llmlab_gui.widgets.saving import Cell
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_LEFT, _RIGHT, _GAP = 52, 14, 6  # pixels beside the plot, and between lines of text
_X_LABEL, _Y_LABEL = 60, 30  # pixels that a number beside an axis takes, with room around it
_Y_UNIT = "examples"
_ALIGN = Qt.AlignmentFlag


class LengthHistogram(QWidget):
    """Bars of how many examples have so many tokens; those beyond the maximal length in another colour."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.preview: Preview | None = None
        self.setAccessibleName("Lengths of the examples")
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme_notifier.changed.connect(self.update)

    def show_preview(self, preview: Preview) -> None:
        """Replaces it."""
        self.preview = preview
        self.setAccessibleDescription(
            f"{preview.shortest} to {preview.longest} tokens, half of them up to {preview.median}; {self.cut_words}"
        )
        self.update()

    @property
    def cut_words(self) -> str:
        """How many are longer than what is read."""
        if self.preview is None:
            return ""
        longer = self.preview.longer
        return f"{longer:,} {'is' if longer == 1 else 'are'} longer" if longer else "none is longer"

    def table(self) -> tuple[Sequence[str], list[list[Cell]]]:
        """Header and rows, for export."""
        preview = self.preview
        rows: list[list[Cell]] = []
        if preview is not None:
            for place, count in enumerate(preview.lengths):
                begin = place * preview.bin_width
                rows.append([begin, begin + preview.bin_width - 1, count])
        return ("tokens_from", "tokens_to", "examples"), rows

    def bin_at(self, x: float) -> int:
        """The bar there, -1 for none."""
        preview, plot = self.preview, self._plot()
        if preview is None or not preview.lengths or not plot.left() <= x < plot.right():
            return -1
        tokens = self._first() + (x - plot.left()) / plot.width() * (self._end() - self._first())
        return min(int(tokens // preview.bin_width), len(preview.lengths) - 1)

    def sizeHint(self) -> QSize:
        return QSize(420, 190)

    def minimumSizeHint(self) -> QSize:
        return QSize(180, 110)

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            place = self.bin_at(event.pos().x())
            if place >= 0 and self.preview is not None:
                begin, width = place * self.preview.bin_width, self.preview.bin_width
                tokens = f"{begin:,}" if width == 1 else f"{begin:,} to {begin + width - 1:,}"
                QToolTip.showText(event.globalPos(), f"{tokens} tokens: {self.preview.lengths[place]:,} examples", self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme, preview = current_theme(), self.preview
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(theme.surface))
        if preview is not None and preview.lengths:
            self._paint_axes(painter, preview)
            self._paint_bars(painter, preview)
            self._paint_limit(painter, preview)
        painter.end()

    def _plot(self) -> QRectF:
        line = self.fontMetrics().height()
        top, bottom = line + 2 * _GAP, self.height() - 2 * line - 2 * _GAP
        return QRectF(_LEFT, top, max(1, self.width() - _LEFT - _RIGHT), max(1, bottom - top))

    def _first(self) -> int:
        """Where the axis begins: short of the shortest, or at 0 where that costs little room."""
        assert self.preview is not None
        begin = self.preview.shortest // self.preview.bin_width * self.preview.bin_width
        return 0 if begin < (self._end() - begin) else begin - self.preview.bin_width

    def _end(self) -> int:
        assert self.preview is not None
        return len(self.preview.lengths) * self.preview.bin_width

    def _x(self, tokens: float) -> float:
        plot = self._plot()
        return plot.left() + (tokens - self._first()) / (self._end() - self._first()) * plot.width()

    def _paint_axes(self, painter: QPainter, preview: Preview) -> None:
        theme, metrics, plot = current_theme(), self.fontMetrics(), self._plot()
        most = max(preview.lengths)
        step = max(1.0, round_step(most / max(1.0, plot.height() / _Y_LABEL)))
        for number in range(math.floor(most / step + 1e-9) + 1):
            y = plot.bottom() - number * step / most * plot.height()
            painter.setPen(QColor(theme.grid))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(QColor(theme.quiet))
            place = QRectF(0, y - metrics.height() / 2, _LEFT - _GAP, metrics.height())
            painter.drawText(place, _ALIGN.AlignRight | _ALIGN.AlignVCenter, tick(number * step, step, "count"))
        first, end = self._first(), self._end()
        step = max(1.0, round_step((end - first) / max(1.0, plot.width() / _X_LABEL)))
        for number in range(math.ceil(first / step), math.floor(end / step + 1e-9) + 1):
            x = self._x(number * step)
            painter.drawLine(QPointF(x, plot.bottom()), QPointF(x, plot.bottom() + 3))
            place = QRectF(x - _X_LABEL / 2, plot.bottom() + 4, _X_LABEL, metrics.height())
            painter.drawText(place, _ALIGN.AlignCenter, tick(number * step, step, "count"))
        under = QRectF(plot.left(), plot.bottom() + 4 + metrics.height(), plot.width(), metrics.height())
        painter.drawText(under, _ALIGN.AlignCenter, "tokens of an example")
        painter.drawText(QRectF(4, 2, plot.width(), metrics.height()), _ALIGN.AlignLeft, _Y_UNIT)

    def _paint_bars(self, painter: QPainter, preview: Preview) -> None:
        theme, plot, most = current_theme(), self._plot(), max(preview.lengths)
        for place, count in enumerate(preview.lengths):
            if not count:
                continue
            begin = place * preview.bin_width
            left, right = self._x(begin), self._x(begin + preview.bin_width)
            height = max(1.0, count / most * plot.height())
            color = QColor(theme.bad if begin >= preview.max_length + 1 else theme.series[0])
            gap = 1.0 if right - left > 5 else 0.0
            painter.fillRect(QRectF(left, plot.bottom() - height, right - left - gap, height), color)
        painter.setPen(QPen(QColor(theme.quiet), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())

    def _paint_limit(self, painter: QPainter, preview: Preview) -> None:
        """The length at which examples are cut; beyond the plot's end it is only named."""
        theme, metrics, plot = current_theme(), self.fontMetrics(), self._plot()
        words = f"truncated at {preview.max_length:,} tokens: {self.cut_words}"
        x = self._x(preview.max_length + 1)
        inside = plot.left() <= x <= plot.right()
        painter.setPen(QPen(QColor(theme.warning if preview.longer else theme.quiet), 1, Qt.PenStyle.DashLine))
        if inside:
            painter.drawLine(QPointF(x, plot.top() - 2), QPointF(x, plot.bottom()))
        else:
            words += " →"
            x = plot.right()
        width = metrics.horizontalAdvance(words)
        after_unit = 4 + metrics.horizontalAdvance(_Y_UNIT) + 2 * _GAP
        left = max(min(x - width / 2, plot.right() - width), after_unit)
        painter.drawText(QRectF(left, 2, width + 4, metrics.height()), _ALIGN.AlignLeft, words)
