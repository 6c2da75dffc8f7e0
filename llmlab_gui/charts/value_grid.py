"""A table of words on the colours of their numbers: what a model says at every layer and token.

Only what can be seen is painted, so a prompt of thousands of tokens draws as fast as one of ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, QSizeF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFontDatabase,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QFrame, QToolTip, QWidget

from llmlab_gui.charts.color_scale import Colors, ColorScale, Values, ink, one_sided
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_PAD = 4
_CELL_WIDTH, _CELL_PAD = 76, 7  # of cells with words: pixels across, and above and below the line together
_MOST_LABEL = 120  # pixels: width of row labels
_BAR_WIDTH, _BAR_HEIGHT = 140, 8  # of the scale's legend


@dataclass(frozen=True)
class Grid:
    """values [row, column], and how to show them.

    text: the words of a cell.
    tip: what hovering a cell says, with exact numbers. unit: what the colours are, beside their legend.
    ends: what the legend says at the ends of the scale, its numbers if None.
    """

    values: Values
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    scale: ColorScale
    tip: Callable[[int, int], str]
    text: Callable[[int, int], str]
    unit: str = ""
    ends: tuple[str, str] | None = None


_NOTHING = Grid(np.zeros((0, 0)), (), (), one_sided(0, 1), lambda row, column: "", lambda row, column: "")


class ValueGrid(QAbstractScrollArea):
    """Draws a `Grid`. clicked(row, column): by mouse, or arrow keys. pointed(row, column): -1, -1 for none."""

    clicked = Signal(int, int)
    pointed = Signal(int, int)
    asked = Signal(int, int, QPoint)  # a right click, or the menu key: row, column, place on the screen

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.grid = _NOTHING
        self._marked = (-1, -1)
        self._hovered_column = -1
        self._under = (-1, -1)
        self._left = 0  # width of the row labels
        self.setAccessibleName(name)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport().setMouseTracking(True)
        self.horizontalScrollBar().setSingleStep(_CELL_WIDTH // 2)
        theme_notifier.changed.connect(self.viewport().update)

    def show_grid(self, grid: Grid) -> None:
        """Replaces everything; scrolling stays where it was if the shape is the same."""
        self.grid = grid
        metrics = self.fontMetrics()
        self._left = min(_MOST_LABEL, max((metrics.horizontalAdvance(row) for row in grid.rows), default=0)) + 12
        self._lay_out()
        self.setAccessibleDescription(f"{len(grid.rows)} by {len(grid.columns)}: {grid.unit}")
        self.viewport().update()

    def mark(self, row: int, column: int) -> None:
        """Outlines the selected cell; -1 for a whole column or row."""
        if (row, column) != self._marked:
            self._marked = (row, column)
            self.viewport().update()

    def hover_column(self, column: int) -> None:
        """Shows where another panel points; -1 for nowhere."""
        if column != self._hovered_column:
            self._hovered_column = column
            self.viewport().update()

    def cell_at(self, point: QPoint | QPointF) -> tuple[int, int]:
        """Row and column under a point of the viewport; (-1, -1) for none."""
        width, height = self._cell()
        x, y = point.x() - self._left, point.y() - self._top
        if x < 0 or y < 0 or not self.grid.values.size or y >= self._room().height():
            return -1, -1
        column = int((x + self.horizontalScrollBar().value()) / width)
        row = int((y + self.verticalScrollBar().value()) / height)
        inside = row < len(self.grid.rows) and column < len(self.grid.columns)
        return (row, column) if inside else (-1, -1)

    def center_of(self, row: int, column: int) -> QPoint:
        """The middle of a cell in the viewport."""
        return self._rect(row, column).center().toPoint()

    def show_cell(self, row: int, column: int) -> None:
        """Scrolls until a cell is in sight."""
        width, height = self._cell()
        room = self._room()
        for bar, start, size, length in (
            (self.horizontalScrollBar(), column * width, width, room.width()),
            (self.verticalScrollBar(), row * height, height, room.height()),
        ):
            if start < bar.value():
                bar.setValue(math.floor(start))
            elif start + size > bar.value() + length:
                bar.setValue(math.ceil(start + size - length))

    def sizeHint(self) -> QSize:
        return QSize(420, 240)

    def minimumSizeHint(self) -> QSize:
        return QSize(160, 100)

    # Places ----------------------------------------------------------------------------------------------------

    def _cell(self) -> tuple[float, float]:
        """Width and height of a cell in pixels."""
        room = self._room()
        width, height = room.width() // max(1, len(self.grid.columns)), room.height() // max(1, len(self.grid.rows))
        line = self.fontMetrics().height() + _CELL_PAD
        return float(max(_CELL_WIDTH, min(width, 2 * _CELL_WIDTH))), float(max(line, min(height, 1.5 * line)))

    @property
    def _top(self) -> int:
        """Height of the column labels."""
        return self.fontMetrics().height() + 2 * _PAD

    def _room(self) -> QRectF:
        """Where cells are drawn."""
        view = self.viewport().rect()
        foot = self.fontMetrics().height() + 2 * _PAD
        return QRectF(
            self._left, self._top, max(1, view.width() - self._left - 2), max(1, view.height() - self._top - foot)
        )

    def _rect(self, row: int, column: int) -> QRectF:
        width, height = self._cell()
        left = self._left + column * width - self.horizontalScrollBar().value()
        return QRectF(left, self._top + row * height - self.verticalScrollBar().value(), width, height)

    def _lay_out(self) -> None:
        width, height = self._cell()
        room = self._room()
        for bar, whole, page in (
            (self.horizontalScrollBar(), width * len(self.grid.columns), room.width()),
            (self.verticalScrollBar(), height * len(self.grid.rows), room.height()),
        ):
            bar.setRange(0, max(0, math.ceil(whole - page - 0.5)))
            bar.setPageStep(int(page))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._lay_out()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()

    # Mouse and keys --------------------------------------------------------------------------------------------

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point(self.cell_at(event.position()), event.globalPosition().toPoint())

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self._point((-1, -1), QPoint())
        if isinstance(event, QHelpEvent):
            cell = self.cell_at(event.pos())
            if cell[0] >= 0:
                QToolTip.showText(event.globalPos(), self.grid.tip(*cell), self.viewport())
            return True
        return super().viewportEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        by_key = event.reason() == QContextMenuEvent.Reason.Keyboard
        cell = self._marked if by_key else self.cell_at(event.pos())
        if min(cell) >= 0:
            place = self.viewport().mapToGlobal(self.center_of(*cell)) if by_key else event.globalPos()
            self.asked.emit(*cell, place)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        cell = self.cell_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and cell[0] >= 0:
            self._choose(cell)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        moves = {
            Qt.Key.Key_Left: (0, -1),
            Qt.Key.Key_Right: (0, 1),
            Qt.Key.Key_Up: (-1, 0),
            Qt.Key.Key_Down: (1, 0),
        }
        if event.key() not in moves or not self.grid.values.size:
            super().keyPressEvent(event)
            return
        row, column = (
            max(0, place) + step for place, step in zip(self._marked, moves[Qt.Key(event.key())], strict=True)
        )
        cell = (min(max(row, 0), len(self.grid.rows) - 1), min(max(column, 0), len(self.grid.columns) - 1))
        self.show_cell(*cell)
        self._choose(cell)
        QToolTip.showText(self.viewport().mapToGlobal(self.center_of(*cell)), self.grid.tip(*cell), self.viewport())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def _choose(self, cell: tuple[int, int]) -> None:
        self.mark(*cell)
        self.clicked.emit(*cell)

    def _point(self, cell: tuple[int, int], where: QPoint) -> None:
        if cell == self._under:
            return
        self._under = cell
        self.pointed.emit(*cell)
        if cell[0] >= 0:
            QToolTip.showText(where, self.grid.tip(*cell), self.viewport())
        else:
            QToolTip.hideText()
        self.viewport().update()

    # Drawing ---------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        self.paint(painter)
        painter.end()

    def paint(self, painter: QPainter) -> None:
        """All that is in sight, on any device."""
        theme = current_theme()
        painter.fillRect(self.viewport().rect(), QColor(theme.surface))
        if not self.grid.values.size:
            return
        room = self._room()
        first_row, first_column = self.cell_at(room.topLeft() + QPointF(0.5, 0.5))
        width, height = self._cell()
        last_row = min(len(self.grid.rows), math.ceil((self.verticalScrollBar().value() + room.height()) / height))
        last_column = min(
            len(self.grid.columns), math.ceil((self.horizontalScrollBar().value() + room.width()) / width)
        )
        rows, columns = range(max(0, first_row), last_row), range(max(0, first_column), last_column)
        painter.save()
        painter.setClipRect(room)
        values = self.grid.values[rows.start : rows.stop, columns.start : columns.stop]
        colors = np.ascontiguousarray(self.grid.scale.colors(values))
        self._paint_colors(painter, colors, self._rect(rows.start, columns.start))
        self._paint_texts(painter, colors, rows, columns)
        self._paint_marks(painter)
        painter.restore()
        self._paint_row_labels(painter, rows, room)
        self._paint_column_labels(painter, columns, room)
        self._paint_legend(painter)

    def _paint_colors(self, painter: QPainter, colors: Colors, first: QRectF) -> None:
        """colors [rows, columns, 3] of the cells in sight; first: the place of the upper left one."""
        high, wide, _ = colors.shape
        image = QImage(colors.data, wide, high, 3 * wide, QImage.Format.Format_RGB888)
        painter.drawImage(QRectF(first.topLeft(), QSizeF(wide * first.width(), high * first.height())), image)

    def _paint_texts(self, painter: QPainter, colors: Colors, rows: range, columns: range) -> None:
        painter.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        metrics = painter.fontMetrics()
        room = int(self._cell()[0]) - 6
        shown: dict[str, str] = {}
        for row, grounds in zip(rows, colors.tolist(), strict=True):
            rect = self._rect(row, columns.start)
            for column, ground in zip(columns, grounds, strict=True):
                text = self.grid.text(row, column)
                if text not in shown:
                    shown[text] = metrics.elidedText(text, _ELIDE, room)
                painter.setPen(_ink(*ground))
                painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, shown[text])
                rect.translate(rect.width(), 0)
        painter.setFont(self.font())
        painter.setPen(QPen(QColor(current_theme().surface), 1))
        for row in rows:
            edge = self._rect(row, columns.start).top()
            painter.drawLine(QPointF(self._left, edge), QPointF(self.viewport().width(), edge))
        for column in columns:
            edge = self._rect(rows.start, column).left()
            painter.drawLine(QPointF(edge, self._top), QPointF(edge, self._rect(rows.stop - 1, column).bottom()))

    def _paint_marks(self, painter: QPainter) -> None:
        theme, (row, column) = current_theme(), self._marked
        last_row, last_column = len(self.grid.rows) - 1, len(self.grid.columns) - 1
        if 0 <= self._hovered_column <= last_column:
            whole = self._rect(0, self._hovered_column).united(self._rect(last_row, self._hovered_column))
            painter.fillRect(whole, QColor(128, 128, 128, 70))
        if not (row <= last_row and column <= last_column) or (row, column) == (-1, -1):
            return
        start = self._rect(max(row, 0), max(column, 0))
        end = self._rect(row if row >= 0 else last_row, column if column >= 0 else last_column)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for color, width in ((QColor(theme.surface), 4.0), (QColor(theme.accent), 2.0)):  # seen on every colour
            painter.setPen(QPen(color, width))
            painter.drawRect(start.united(end).adjusted(1, 1, -1, -1))

    def _paint_row_labels(self, painter: QPainter, rows: range, room: QRectF) -> None:
        painter.save()
        painter.setClipRect(QRectF(0, self._top, self._left, room.height()))
        for row in rows:
            rect = self._rect(row, 0)
            place = QRectF(2, rect.top(), self._left - 8, rect.height())
            self._label(painter, place, self.grid.rows[row], _RIGHT, chosen=row == self._marked[0])
        painter.restore()

    def _paint_column_labels(self, painter: QPainter, columns: range, room: QRectF) -> None:
        painter.save()
        painter.setClipRect(QRectF(self._left, 0, room.width(), self._top))
        marked = (self._marked[1], self._hovered_column)
        for column in columns:
            rect = self._rect(0, column)
            place = QRectF(rect.left() + 2, _PAD, rect.width() - 4, self._top - 2 * _PAD)
            self._label(
                painter, place, self.grid.columns[column], Qt.AlignmentFlag.AlignCenter, chosen=column in marked
            )
        painter.restore()

    def _label(self, painter: QPainter, place: QRectF, text: str, how: Qt.AlignmentFlag, *, chosen: bool) -> None:
        theme = current_theme()
        painter.setPen(QColor(theme.accent if chosen else theme.text))
        shown = self.fontMetrics().elidedText(text, _ELIDE, int(place.width()))
        painter.drawText(place, how, shown)

    def _paint_legend(self, painter: QPainter) -> None:
        """The scale of the colours, under the cells."""
        theme, metrics, scale = current_theme(), self.fontMetrics(), self.grid.scale
        top = self.viewport().height() - metrics.height() - _PAD
        painter.setPen(QColor(theme.quiet))
        left = float(self._left)
        low, high = self.grid.ends or (read_out(scale.low, "value"), read_out(scale.high, "value"))
        for text, after in ((low, "bar"), (high, "")):
            width = metrics.horizontalAdvance(text)
            painter.drawText(QRectF(left, top, width + 1, metrics.height()), _LEFT, text)
            left += width + 6
            if after:
                bar = QRectF(left, top + (metrics.height() - _BAR_HEIGHT) / 2, _BAR_WIDTH, _BAR_HEIGHT)
                shade = QLinearGradient(bar.topLeft(), bar.topRight())
                for place in range(0, 256, 15):
                    red, green, blue = scale.table[place].tolist()
                    shade.setColorAt(place / 255, QColor(red, green, blue))
                painter.fillRect(bar, shade)
                left += _BAR_WIDTH + 6
        room = self.viewport().width() - left - 8
        if room > 20:
            shown = metrics.elidedText(self.grid.unit, _ELIDE, int(room))
            painter.drawText(QRectF(left + 4, top, room, metrics.height()), _LEFT, shown)


@lru_cache(maxsize=512)
def _ink(red: int, green: int, blue: int) -> QColor:
    return ink(QColor(red, green, blue))


_ELIDE = Qt.TextElideMode.ElideRight
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
