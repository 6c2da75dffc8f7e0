"""The prompt as the model reads it: one chip per token, to point at and to choose."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QToolTip

from llmlab.data.token_bytes import character_parts
from llmlab_gui.charts.token_area import TokenArea
from llmlab_gui.host.selection import PromptToken
from llmlab_gui.widgets.alternatives import plain_tip, visible
from llmlab_gui.widgets.theme import current_theme, mix

_INNER, _GAP, _LINE_GAP = 5.0, 3.0, 3.0
_EDGE = 2.0  # so that two rows fit into Prompt at 1280 x 640


class TokenChips(TokenArea):
    """A chip's tool tip says which token it is."""

    def __init__(self) -> None:
        super().__init__("Tokens of the prompt")
        self.tokens: Sequence[PromptToken] = ()
        self._parts: list[str] = []  # which bytes of a character they are
        self._places: list[QRectF] = []
        self._tops: list[float] = []

    def show_tokens(self, tokens: Sequence[PromptToken]) -> None:
        """Replaces all of them."""
        self.tokens = list(tokens)
        self._parts = character_parts([token.text for token in self.tokens])
        self.under = -1
        self._lay_out()

    def choose(self, token: int) -> None:
        """Marks a token and brings it into sight."""
        if token != self.chosen:
            self.chosen = token
            self._show(token)
            self.viewport().update()

    def count(self) -> int:
        return len(self.tokens)

    def steps(self) -> Mapping[Qt.Key, int]:
        ends = {Qt.Key.Key_Home: -len(self.tokens), Qt.Key.Key_End: len(self.tokens)}
        return {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1, **ends}

    def place_of(self, token: int) -> QRectF:
        """Where a chip is, in the viewport."""
        return self._places[token].translated(0, -self.verticalScrollBar().value())

    def token_at(self, point: QPoint | QPointF) -> int:
        """The token there, -1 for none."""
        where = QPointF(point) + QPointF(0, self.verticalScrollBar().value())
        begin = bisect.bisect_left(self._tops, where.y() - self._line())
        for token in range(begin, len(self._places)):
            if self._places[token].top() > where.y():
                break
            if self._places[token].contains(where):
                return -1 if self._is_cut(self.place_of(token)) else token
        return -1

    def sizeHint(self) -> QSize:
        return QSize(300, int(3 * (self._line() + _LINE_GAP) + 2 * _EDGE))

    def minimumSizeHint(self) -> QSize:
        return QSize(80, int(self._line() + 2 * _EDGE + 4))

    def resizeEvent(self, event: QEvent) -> None:
        self._lay_out()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._lay_out()

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self.viewport()) as painter:
            painter.fillRect(self.viewport().rect(), QColor(theme.surface))
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            metrics = QFontMetricsF(self.font())
            begin = bisect.bisect_left(self._tops, self.verticalScrollBar().value() - self._line())
            for token in range(begin, len(self.tokens)):
                place = self.place_of(token)
                if self._is_cut(place):
                    break
                self._paint_chip(painter, token, place, metrics)

    def viewportEvent(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            token = self.token_at(event.pos())
            if token >= 0:
                QToolTip.showText(event.globalPos(), plain_tip(self.words(token)), self.viewport())
            else:
                QToolTip.hideText()
            return True
        return super().viewportEvent(event)

    def colors_of(self, token: int) -> tuple[QColor, QColor]:
        """Ground and text of a chip that is not chosen."""
        theme = current_theme()
        return mix(theme.surface, theme.quiet, (0.10, 0.18)[token % 2]), QColor(theme.text)

    def font_of(self, token: int) -> QFont:
        """In what a chip's text is written; as wide as the widget's own."""
        return self.font()

    def words(self, token: int) -> str:
        """What the tool tip says."""
        pointed, part = self.tokens[token], self._parts[token]
        said = f", {part}" if part else ""
        return f"Position {token}: id {pointed.id:,}, text “{visible(pointed.text)}”{said}"

    def _line(self) -> float:
        return QFontMetricsF(self.font()).height() + _INNER

    @property
    def _pitch(self) -> int:
        """Pixels from a row to the next."""
        return math.ceil(self._line() + _LINE_GAP)

    def _is_cut(self, place: QRectF) -> bool:
        """Whether the lower edge cuts a chip there: its row is not shown then, unless it is the only one."""
        return place.bottom() > self.viewport().height() and place.top() > _EDGE

    def _rows_in(self, pixels: float) -> int:
        """So many pixels, filled up to whole rows."""
        return math.ceil(pixels / self._pitch) * self._pitch

    def _lay_out(self) -> None:
        """Left to right, a new line where one is full or a token ends a line of the text."""
        metrics, line = QFontMetricsF(self.font()), self._line()
        width = max(1.0, self.viewport().width() - 2 * _EDGE)
        left, top, widths = _EDGE, _EDGE, {}
        self._places = []
        for token in self.tokens:
            text = visible(token.text)
            if text not in widths:
                widths[text] = min(metrics.horizontalAdvance(text) + 2 * _INNER, width)
            if left + widths[text] > width + _EDGE and left > _EDGE:
                left, top = _EDGE, top + self._pitch
            self._places.append(QRectF(left, top, widths[text], line))
            left += widths[text] + _GAP
            if token.text.endswith("\n"):
                left, top = _EDGE, top + self._pitch
        self._tops = [place.top() for place in self._places]
        height, room = (self._places[-1].bottom() if self._places else 0) + _EDGE, self.viewport().height()
        self.scroll_over(room + self._rows_in(height - room), self._pitch)

    def _show(self, token: int) -> None:
        if not 0 <= token < len(self._places):
            return
        place, bar = self._places[token], self.verticalScrollBar()
        if place.top() < bar.value():
            bar.setValue(int(place.top() - _EDGE))
        elif place.bottom() > bar.value() + self.viewport().height():
            bar.setValue(self._rows_in(place.bottom() + _EDGE - self.viewport().height()))

    def _paint_chip(self, painter: QPainter, token: int, place: QRectF, metrics: QFontMetricsF) -> None:
        theme = current_theme()
        (ground, text), edge = self.colors_of(token), None
        if token == self.chosen:
            ground, text = QColor(theme.accent), QColor(theme.on_accent)
        if token == self.under:
            edge = QColor(theme.text if token == self.chosen else theme.accent)
        painter.setPen(QPen(edge, 2) if edge is not None else Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawRoundedRect(place.adjusted(1, 1, -1, -1) if edge is not None else place, 4, 4)
        painter.setPen(text)
        painter.setFont(self.font_of(token))
        shown = metrics.elidedText(
            visible(self.tokens[token].text), Qt.TextElideMode.ElideRight, place.width() - _INNER
        )
        painter.drawText(place, Qt.AlignmentFlag.AlignCenter, shown)
