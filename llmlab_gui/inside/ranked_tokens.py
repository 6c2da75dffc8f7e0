"""Most likely tokens side by side: two predictions at one position, each token with a bar for its probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from llmlab_gui.widgets.alternatives import percent, plain_tip, visible
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_ROW_PAD, _GAP, _TOP = 6, 18, 6


@dataclass(frozen=True)
class Ranked:
    """One prediction: its title, and (text, probability) pairs, most likely first. color: among the theme's series."""

    title: str
    pairs: tuple[tuple[str, float], ...]
    color: int = 0


class RankedTokens(QWidget):
    """Columns of equal width. A token that several columns have stands out by its bold text in all of them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.columns: list[Ranked] = []
        self.setAccessibleName(name)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_notifier.changed.connect(self.update)

    def show_columns(self, columns: Sequence[Ranked]) -> None:
        """Replaces everything."""
        self.columns = list(columns)
        words = "; ".join(
            f"{column.title}: " + ", ".join(f"{visible(text)} {percent(chance)}" for text, chance in column.pairs)
            for column in self.columns
        )
        self.setAccessibleDescription(words)
        self.updateGeometry()
        self.update()

    def tip(self, column: int, row: int) -> str:
        """A token with its exact probability, and what the other columns hold it at."""
        text, chance = self.columns[column].pairs[row]
        lines = [f"{visible(text)}: {100 * chance:.6g} %"]
        for other in self.columns:
            found = dict(other.pairs).get(text)
            if other is not self.columns[column]:
                shown = f"{100 * found:.6g} %" if found is not None else "not among the first"
                lines.append(f"{other.title}: {shown}")
        return "\n".join(lines)

    def sizeHint(self) -> QSize:
        rows = max((len(column.pairs) for column in self.columns), default=0)
        return QSize(360, _TOP + (rows + 1) * self._row_height() + 4)

    def minimumSizeHint(self) -> QSize:
        return QSize(200, self.sizeHint().height())

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            column = int(event.pos().x() / max(1.0, self._width() + _GAP))
            row = int((event.pos().y() - _TOP) / self._row_height()) - 1
            if 0 <= column < len(self.columns) and 0 <= row < len(self.columns[column].pairs):
                QToolTip.showText(event.globalPos(), plain_tip(self.tip(column, row)), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            theme, height, width = current_theme(), self._row_height(), self._width()
            painter.fillRect(self.rect(), QColor(theme.surface))
            for number, column in enumerate(self.columns):
                left = number * (width + _GAP)
                painter.setFont(self.font())
                painter.setPen(QColor(theme.quiet))
                title = self.fontMetrics().elidedText(column.title, Qt.TextElideMode.ElideMiddle, int(width) - 8)
                painter.drawText(QRectF(left + 6, _TOP, width - 8, height), _LEFT, title)
                for row, (text, chance) in enumerate(column.pairs):
                    self._paint_row(
                        painter, QRectF(left, _TOP + (row + 1) * height, width, height), column, text, chance
                    )

    def _paint_row(self, painter: QPainter, area: QRectF, column: Ranked, text: str, chance: float) -> None:
        theme = current_theme()
        font = QFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        font.setPointSizeF(self.font().pointSizeF())
        shared = len(self.columns) > 1 and all(text in dict(other.pairs) for other in self.columns)
        font.setBold(shared)
        painter.setFont(font)
        metrics = painter.fontMetrics()
        words, number = area.width() * 0.36, float(self.fontMetrics().horizontalAdvance("< 0.1 %")) + 8
        painter.setPen(QColor(theme.text))
        shown = metrics.elidedText(visible(text), Qt.TextElideMode.ElideRight, int(words) - 8)
        painter.drawText(QRectF(area.left() + 6, area.top(), words - 8, area.height()), _LEFT, shown)
        track = QRectF(area.left() + words, area.top() + 4, area.width() - words - number, area.height() - 8)
        painter.fillRect(track, QColor(theme.grid))
        track.setWidth(max(1.0, track.width() * min(1.0, max(0.0, chance))))
        painter.fillRect(track, QColor(theme.series[column.color]))
        painter.setFont(self.font())
        place = QRectF(area.right() - number, area.top(), number - 2, area.height())
        painter.drawText(place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, percent(chance))

    def _row_height(self) -> int:
        return self.fontMetrics().height() + _ROW_PAD

    def _width(self) -> float:
        count = max(1, len(self.columns))
        return (self.width() - _GAP * (count - 1)) / count


_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
