"""An attention pattern as arcs: the tokens below one another, and from each an arc to every token that it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent

from llmlab_gui.charts.color_scale import Values
from llmlab_gui.charts.token_area import TokenArea
from llmlab_gui.widgets.theme import current_theme

# Thinner arcs are noise, and a long prompt has millions of them.
_LEAST_WEIGHT = 0.03
# The strongest of the rows in sight: more than this nobody can tell apart.
_MOST_ARCS = 1500
_WIDEST = 5.0
_PAD = 8.0


class Arcs(TokenArea):
    """While one token is pointed at or chosen, only its own arcs are strong: right of it where it looks, in the accent
    colour; and who looks at it, in the second colour."""

    def __init__(self) -> None:
        super().__init__("Attention as arcs between tokens")
        self._pattern: Values | None = None
        self._names: Sequence[str] = ()
        self._widest = 0.0

    def show_pattern(self, pattern: Values, names: Sequence[str]) -> None:
        """[T, T] query by key, and the tokens."""
        self._pattern, self._names = pattern, list(names)
        metrics = QFontMetricsF(self.font())
        self._widest = max((metrics.horizontalAdvance(name) for name in set(self._names)), default=0.0) * 1.1  # bold
        self.under = -1
        self._fit()

    def choose(self, token: int) -> None:
        """The token whose arcs are strong while none is pointed at; brought into sight."""
        self.chosen = token
        bar, middle = self.verticalScrollBar(), int(self._y(token) + self.verticalScrollBar().value())
        if not bar.value() <= middle <= bar.value() + self.viewport().height():
            bar.setValue(middle - self.viewport().height() // 2)
        self.viewport().update()

    def count(self) -> int:
        return len(self._names)

    def token_at(self, point: QPointF) -> int:
        """The token at that height, -1 for none."""
        token = int((point.y() + self.verticalScrollBar().value() - _PAD) // self._line())
        return token if 0 <= token < len(self._names) else -1

    def steps(self) -> Mapping[Qt.Key, int]:
        return {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}

    def center_of(self, token: int) -> QPointF:
        """A place on the token, in the viewport."""
        return QPointF(self._column() / 2, self._y(token))

    def weights(self, token: int) -> list[tuple[int, float]]:
        """The tokens that one looks at, strongest first."""
        if self._pattern is None or not 0 <= token < len(self._pattern):
            return []
        row = np.asarray(self._pattern[token])
        order = np.argsort(row)[::-1]
        return [(int(key), float(row[key])) for key in order if row[key] >= _LEAST_WEIGHT]

    def sizeHint(self) -> QSize:
        return QSize(360, 360)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._fit()

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self.viewport()) as painter:
            painter.fillRect(self.viewport().rect(), QColor(theme.surface))
            if self._pattern is not None:
                painter.setRenderHint(QPainter.RenderHint.Antialiasing)
                self._paint_arcs(painter)
                self._paint_names(painter)

    def _paint_arcs(self, painter: QPainter) -> None:
        theme = current_theme()
        focus = self.under if self.under >= 0 else self.chosen
        for query, key, weight in self._arcs():
            color = QColor(theme.quiet)
            share = 0.15
            if focus in (query, key):
                color = QColor(theme.accent if query == focus else theme.series[1])
                share = 1.0
            elif focus < 0:
                color, share = QColor(theme.accent), 0.7
            color.setAlphaF(min(1.0, share * (0.15 + 0.85 * weight)))
            painter.setPen(QPen(color, 0.6 + _WIDEST * weight))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPath(self._path(query, key))
        if focus >= 0 and self.weights(focus):
            self._paint_weights(painter, focus)

    def _paint_weights(self, painter: QPainter, focus: int) -> None:
        """The numbers of the token in focus, left of the names that it looks at."""
        painter.setPen(QColor(current_theme().accent))
        line, sight = self._line(), self._in_sight()
        for key, weight in self.weights(focus):
            if key in sight:
                place = QRectF(_PAD, self._y(key) - line / 2, self._numbers() - _PAD, line)
                painter.drawText(place, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, f"{weight:.3f}")

    def _paint_names(self, painter: QPainter) -> None:
        theme, line = current_theme(), self._line()
        how = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        numbers = self._numbers()
        font = QFont(self.font())
        for token in self._in_sight():
            marked = token in (self.under, self.chosen)
            font.setBold(marked)
            painter.setFont(font)
            painter.setPen(QColor(theme.accent if marked else theme.text))
            place = QRectF(numbers, self._y(token) - line / 2, self._column() - numbers - 4, line)
            shown = QFontMetricsF(font).elidedText(self._names[token], Qt.TextElideMode.ElideRight, place.width())
            painter.drawText(place, how, shown)

    def _arcs(self) -> list[tuple[int, int, float]]:
        """Query, key, weight of the arcs to draw, weak ones first."""
        assert self._pattern is not None
        sight = self._in_sight()
        rows = np.asarray(self._pattern[sight.start : sight.stop])
        queries, keys = np.nonzero(rows >= _LEAST_WEIGHT)
        weights = rows[queries, keys]
        order = np.argsort(weights)[-_MOST_ARCS:]
        return [(int(queries[i]) + sight.start, int(keys[i]), min(float(weights[i]), 1.0)) for i in order]

    def _path(self, query: int, key: int) -> QPainterPath:
        """Half an ellipse to the right of the names; a token that looks at itself has a small loop."""
        left, room = self._column() + 2, max(20.0, self.viewport().width() - self._column() - 2 * _PAD)
        begin, end = self._y(query), self._y(key)
        reach = min(room, 14 + abs(begin - end) * 0.75)
        path = QPainterPath(QPointF(left, begin))
        if query == key:
            path.addEllipse(QPointF(left + 4, begin), 4, 4)
        else:
            path.cubicTo(QPointF(left + reach * 1.3, begin), QPointF(left + reach * 1.3, end), QPointF(left, end))
        return path

    def _line(self) -> float:
        return QFontMetricsF(self.font()).height() + 3

    def _column(self) -> float:
        """The right edge of the names."""
        return self._numbers() + min(self._widest + 10, max(self.viewport().width() * 0.4, 60.0))

    def _numbers(self) -> float:
        """The right edge of the numbers."""
        return QFontMetricsF(self.font()).horizontalAdvance("0.000") + 2 * _PAD

    def _y(self, token: int) -> float:
        return _PAD + (token + 0.5) * self._line() - self.verticalScrollBar().value()

    def _in_sight(self) -> range:
        top = self.verticalScrollBar().value()
        first = max(0, int((top - _PAD) // self._line()))
        last = int((top + self.viewport().height()) // self._line()) + 1
        return range(first, min(last, len(self._names)))

    def _fit(self) -> None:
        self.scroll_over(2 * _PAD + len(self._names) * self._line(), self._line())
