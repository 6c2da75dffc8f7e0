"""A matrix as a map of colours, with its rows and columns named: attention patterns and everything like them.

However large the matrix, what is painted has the size of the view, and the strongest cell of each pixel is kept;
the number under the pointer is always the cell's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)

from llmlab.core.signs import minus
from llmlab_gui.charts.cell_map import NONE, PAD, PICTURED, CellMap, indexed, picture_of, shrink
from llmlab_gui.charts.color_scale import ColorScale, Values, from_ground, ink, two_sided
from llmlab_gui.charts.heat_view import HeatView
from llmlab_gui.charts.scale_bar import WIDTH as BAR_ROOM
from llmlab_gui.charts.scale_bar import paint_scale
from llmlab_gui.charts.side_labels import paint_columns, paint_names, paint_rows, room_for
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Cell, LazyRows, Table
from llmlab_gui.widgets.theme import current_theme

# Decades that a logarithmic scale shows below its top.
LOG_DECADES = 4.0
# Cells of at least so many pixels have their number written in them.
_ROOM_FOR_NUMBERS = 34.0
# Narrower ones have no scale: the numbers are told in words.
_ROOM_FOR_BAR = 230


@dataclass(frozen=True)
class Heat:
    """What a heatmap shows.

    values [R, C]: numbers; what is none (a masked score) has a colour of its own. rows, columns: a name each.
    signed: centred at zero. high: the end of the scale; fitted if None. unit: of the numbers. kind: of `numbers.py`.
    """

    values: Values
    rows: Sequence[str]
    columns: Sequence[str]
    row_name: str = "row"
    column_name: str = "column"
    signed: bool = False
    high: float | None = None
    unit: str = ""
    kind: str = "value"


class Heatmap(CellMap):
    """Wheel zooms, dragging pans, a double click shows everything again; arrow keys move the chosen cell."""

    def __init__(self, name: str, *, square: bool = True) -> None:
        """square: cells as high as they are wide."""
        super().__init__(name)
        self.heat: Heat | None = None
        self.describe: Callable[[int, int], str] | None = None  # the line under the map, for a cell
        self.line = True  # whether there is such a line
        self._lines = NONE  # the row and the column pointed at elsewhere
        self._view = HeatView(square=square)
        self._image: QImage | None = None
        self._image_of: tuple[object, ...] = ()
        self._pressed: QPointF | None = None
        self._dragged = False

    # What is shown -----------------------------------------------------------------------------------------------

    def show_heat(self, heat: Heat) -> None:
        """Another matrix. One of the same size keeps the zoom."""
        same = self.heat is not None and self.heat.values.shape == heat.values.shape
        self.heat = heat
        self._view.set_shape(heat.values.shape, keep=same)
        self.under = NONE
        self._place()
        self.forget_picture()

    def forget_picture(self) -> None:
        self._image_of = ()
        self.update()

    def point_at(self, row: int, column: int) -> None:
        """Marks a row and a column that are pointed at in another panel; -1 for none."""
        if (row, column) != self._lines:
            self._lines = (row, column)
            self.update()

    def reset_view(self) -> None:
        """Everything in sight."""
        self._view.reset()
        self.update()

    def scale(self) -> ColorScale:
        """The colours in use; on a logarithmic scale its ends are powers of ten."""
        heat = self.heat
        if heat is None or not heat.values.size:
            return from_ground(1.0)
        if heat.high is not None:
            high = heat.high
        else:
            finite = np.asarray(heat.values)[np.isfinite(heat.values)]
            high = float(np.abs(finite).max()) if finite.size else 1.0
        if heat.signed:
            return two_sided(high)
        if self.log:
            top = float(np.log10(high)) if high > 0 else 0.0
            return ColorScale(top - LOG_DECADES, top, from_ground(1.0).table)
        return from_ground(high)

    def value(self, row: int, column: int) -> float:
        """The exact number in a cell."""
        assert self.heat is not None
        return float(self.heat.values[row, column])

    def words(self, row: int, column: int) -> str:
        """What the line under the map says of a cell."""
        heat = self.heat
        if heat is None or row < 0 or column < 0:
            return ""
        if self.describe is not None:
            return self.describe(row, column)
        unit = f" {heat.unit}" if heat.unit else ""
        cell = ", ".join(name for name in (heat.rows[row], heat.columns[column]) if name)  # a single row may have none
        return f"{cell}: {read_out(self.value(row, column), heat.kind)}{unit}"

    def table(self) -> Table:
        """Row, column and value of every cell, as CSV has it."""
        heat = self.heat
        if heat is None:
            return [], []
        header = [heat.row_name, f"{heat.row_name} text", heat.column_name, f"{heat.column_name} text", "value"]

        def cell(place: int) -> list[Cell]:
            row, column = divmod(place, heat.values.shape[1])
            return [row, heat.rows[row], column, heat.columns[column], heat.values[row, column]]

        return header, LazyRows(heat.values.size, cell)

    # Places ------------------------------------------------------------------------------------------------------

    def cell_at(self, point: QPointF) -> tuple[int, int]:
        return self._view.cell_at(point)

    def center_of(self, row: int, column: int) -> QPointF:
        """The middle of a cell, in the widget."""
        return self._view.rect(row, column).center()

    def sizeHint(self) -> QSize:
        return QSize(420, 380)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 96)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._place()

    def _place(self) -> None:
        """Room for the labels, the scale and the line below."""
        heat = self.heat
        if heat is None:
            return
        metrics = QFontMetricsF(self.font())
        left = room_for(metrics, [*heat.rows, heat.row_name], self.width() * 0.25)
        top = room_for(metrics, heat.columns, self.height() * 0.25)
        line = metrics.height() + PAD if self.line else 0
        self._view.set_area(
            QRectF(left, top, self.width() - left - self._bar_room() - PAD, self.height() - top - line - PAD)
        )

    def _bar_room(self) -> float:
        """None where the map itself would be too small."""
        return BAR_ROOM if self.width() >= _ROOM_FOR_BAR else 0.0

    # Painting ----------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), QColor(current_theme().surface))
            if self.heat is not None and self.heat.values.size:
                self._paint(painter)

    def _paint(self, painter: QPainter) -> None:
        theme, heat, view = current_theme(), self.heat, self._view
        assert heat is not None
        image = self._picture()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, False)
        painter.drawImage(view.shown, image)
        painter.setPen(QPen(QColor(theme.grid), 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(view.shown)
        if view.cell_width >= _ROOM_FOR_NUMBERS and view.cell_height >= 16:
            self._paint_numbers(painter)
        rows, columns = zip(self.under if self.under[0] >= 0 else self._lines, self.chosen, strict=True)
        if self.property(PICTURED) and not self.words(*self.chosen):
            rows = columns = NONE  # nothing in a file says what a frame is around
        else:
            self._paint_marks(painter)
        paint_rows(painter, view, heat.rows, {*rows} - {-1})
        paint_columns(painter, view, heat.columns, {*columns} - {-1})
        paint_names(painter, view, heat.row_name, heat.column_name, self._bar_room())
        if self._bar_room():
            bar = QRectF(view.shown.right() + 2 * PAD, view.shown.top(), BAR_ROOM - 2 * PAD, view.shown.height())
            paint_scale(painter, bar, self.scale(), heat.unit, heat.kind, log=self.log and not heat.signed)
        if self.line:
            self._paint_line(painter)

    def _picture(self) -> QImage:
        """The part in sight; kept until it, the colours or the numbers change."""
        assert self.heat is not None
        heat, view = self.heat, self._view
        rows, columns = view.rows(), view.columns()
        ratio = self.devicePixelRatioF()
        size = (round(view.shown.height() * ratio), round(view.shown.width() * ratio))
        now = (rows, columns, size, self.log, current_theme().name)
        if self._image is None or now != self._image_of:
            part = heat.values[rows.start : rows.stop, columns.start : columns.stop]
            small = shrink(part, *size, signed=heat.signed)
            scale = self.scale()
            places = np.ascontiguousarray(indexed(small, scale, log=self.log and not heat.signed))
            self._image, self._image_of = picture_of(places, scale, current_theme().background), now
        return self._image

    def _paint_numbers(self, painter: QPainter) -> None:
        heat, view, scale = self.heat, self._view, self.scale()
        assert heat is not None
        top = 1.0 if self.log and not heat.signed else scale.high
        for row in view.rows():
            for column in view.columns():
                value = self.value(row, column)
                if not np.isfinite(value) or value == 0:
                    continue
                place = np.log10(value) if self.log and not heat.signed and value > 0 else value
                painter.setPen(ink(scale.color(float(place))))
                words = short(value, heat.kind, top)
                painter.drawText(view.rect(row, column), Qt.AlignmentFlag.AlignCenter, words)

    def _paint_marks(self, painter: QPainter) -> None:
        theme, view = current_theme(), self._view
        painter.save()
        painter.setClipRect(view.shown.adjusted(-2, -2, 2, 2))
        pointed = self.under if self.under[0] >= 0 else self._lines
        for (row, column), color, width in ((pointed, theme.quiet, 1.0), (self.chosen, theme.accent, 2.0)):
            painter.setPen(QPen(QColor(color), width))
            half = width / 2  # around what it marks: a row of a long prompt is hardly higher than the line
            if row >= 0 and column >= 0 and width > 1:
                painter.drawRect(view.rect(row, column).adjusted(-half, -half, half, half))
                continue
            if row >= 0:
                painter.drawRect(view.row_rect(row).adjusted(-half, -half, half, half))
            if column >= 0:
                painter.drawRect(view.column_rect(column).adjusted(-half, -half, half, half))
        painter.restore()

    def _paint_line(self, painter: QPainter) -> None:
        """The cell under the pointer in words, else the chosen one."""
        theme, text = current_theme(), self.words(*(self.under if self.under[0] >= 0 else self.chosen))
        hint = "Point at a cell to read it. Wheel zooms, dragging moves, a double click shows everything."
        if self.property(PICTURED):
            hint = ""
        height = QFontMetricsF(self.font()).height() + PAD
        self.paint_line(painter, text or hint, theme.text if text else theme.quiet, height)

    # Mouse and keys ----------------------------------------------------------------------------------------------

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._pressed is not None and event.buttons() & Qt.MouseButton.LeftButton:
            moved = event.position() - self._pressed
            if self._dragged or moved.manhattanLength() > 5:
                self._dragged = True
                self._pressed = event.position()
                self._view.pan(moved)
                self.update()
                return
        self.point(self.cell_at(event.position()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._pressed, self._dragged = event.position(), False

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._pressed is not None:
            cell = self.cell_at(event.position())
            if not self._dragged and cell[0] >= 0:
                self.clicked.emit(*cell)
            self._pressed = None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.reset_view()

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.heat is not None and event.angleDelta().y():
            self._view.zoom(1.2 ** (event.angleDelta().y() / 120), event.position())
            self.point(self.cell_at(event.position()))
            self.update()
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        cell = self.reached(event.key(), self.heat.values.shape) if self.heat is not None else None
        if cell is not None:
            self._view.bring(*cell)
            self.clicked.emit(*cell)
        elif event.key() in (Qt.Key.Key_Plus, Qt.Key.Key_Minus):
            self._view.zoom(1.25 if event.key() == Qt.Key.Key_Plus else 0.8, self._view.shown.center())
        elif event.key() == Qt.Key.Key_0:
            self._view.reset()
        else:
            super().keyPressEvent(event)
            return
        self.update()


def short(value: float, kind: str, top: float = 1.0) -> str:
    """A number for a small cell: two digits, or all of a whole number. top: the largest, if that is small; it has two
    digits, too."""
    if kind == "count" or abs(value) >= 100:
        return minus(f"{value:.0f}")
    digits = 2 if top >= 0.1 or top <= 0 else min(4, 1 - math.floor(math.log10(top)))
    return minus(f"{value:.1f}" if abs(value) >= 10 else f"{value:.{digits}f}")
