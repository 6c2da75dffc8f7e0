"""Which part of a matrix is in sight, and where its cells are on the screen."""

from __future__ import annotations

import math

from PySide6.QtCore import QPointF, QRectF

# Zoomed in further, cells would be larger than anyone needs.
_LARGEST_CELL = 64.0


class HeatView:
    """Maps cells to pixels. What is in sight is a rectangle of whole and broken cells inside `area`."""

    def __init__(self, *, square: bool) -> None:
        self._square = square
        self._shape = (0, 0)
        self._area = QRectF()
        self._part = QRectF()  # in cells: x over columns, y over rows
        self.shown = QRectF()  # in pixels: what `rows()` and `columns()` cover

    def set_shape(self, shape: tuple[int, ...], *, keep: bool) -> None:
        """Rows and columns. keep: the part in sight stays."""
        self._shape = (shape[0], shape[1])
        if not keep:
            self._part = QRectF(0, 0, shape[1], shape[0])
        self._fit()

    def set_area(self, area: QRectF) -> None:
        """Where the cells may be, in pixels."""
        self._area = area
        self._fit()

    def reset(self) -> None:
        """Everything in sight."""
        self._part = QRectF(0, 0, self._shape[1], self._shape[0])
        self._fit()

    @property
    def cell_width(self) -> float:
        """Pixels."""
        return self.shown.width() / max(1, len(self.columns()))

    @property
    def cell_height(self) -> float:
        """Pixels."""
        return self.shown.height() / max(1, len(self.rows()))

    def rows(self) -> range:
        """Those in sight."""
        return range(round(self._part.top()), round(self._part.bottom()))

    def columns(self) -> range:
        """Those in sight."""
        return range(round(self._part.left()), round(self._part.right()))

    def rect(self, row: int, column: int) -> QRectF:
        """A cell's place in pixels."""
        return QRectF(
            self.shown.left() + (column - self.columns().start) * self.cell_width,
            self.shown.top() + (row - self.rows().start) * self.cell_height,
            self.cell_width,
            self.cell_height,
        )

    def row_rect(self, row: int) -> QRectF:
        """A whole row in sight; at least a pixel high."""
        cell = self.rect(row, self.columns().start)
        return QRectF(self.shown.left(), cell.top(), self.shown.width(), max(cell.height(), 1.0))

    def column_rect(self, column: int) -> QRectF:
        """A whole column in sight; at least a pixel wide."""
        cell = self.rect(self.rows().start, column)
        return QRectF(cell.left(), self.shown.top(), max(cell.width(), 1.0), self.shown.height())

    def cell_at(self, point: QPointF) -> tuple[int, int]:
        """(row, column) there, (-1, -1) for none."""
        if not self.shown.contains(point) or not self.rows() or not self.columns():
            return -1, -1
        row = self.rows().start + int((point.y() - self.shown.top()) / self.cell_height)
        column = self.columns().start + int((point.x() - self.shown.left()) / self.cell_width)
        return min(row, self.rows().stop - 1), min(column, self.columns().stop - 1)

    def zoom(self, factor: float, about: QPointF) -> None:
        """Larger cells for a factor above 1; what is under `about` stays there."""
        if not self.rows() or not self.columns():
            return
        across = min(max((about.x() - self.shown.left()) / max(self.shown.width(), 1), 0.0), 1.0)
        down = min(max((about.y() - self.shown.top()) / max(self.shown.height(), 1), 0.0), 1.0)
        least = max(1.0, min(self._area.width(), self._area.height()) / _LARGEST_CELL)
        width = self._stepped(self._part.width(), factor, min(least, self._shape[1]), self._shape[1])
        height = self._stepped(self._part.height(), factor, min(least, self._shape[0]), self._shape[0])
        left = self._part.left() + (self._part.width() - width) * across
        top = self._part.top() + (self._part.height() - height) * down
        self._part = QRectF(left, top, width, height)
        self._fit()

    def pan(self, pixels: QPointF) -> None:
        """Moves with the pointer."""
        self._part.translate(-pixels.x() / max(self.cell_width, 1e-9), -pixels.y() / max(self.cell_height, 1e-9))
        self._fit()

    def bring(self, row: int, column: int) -> None:
        """Moves as little as brings a cell into sight."""
        part = self._part
        part.moveLeft(min(max(part.left(), column + 1 - part.width()), column))
        part.moveTop(min(max(part.top(), row + 1 - part.height()), row))
        self._fit()

    @staticmethod
    def _stepped(size: float, factor: float, least: float, most: float) -> float:
        wanted = size / factor
        # At least one cell more or less, or small matrices would never move.
        wanted = math.ceil(wanted) if factor > 1 else max(math.floor(wanted), size + 1)
        return min(max(wanted, least), most)

    def _fit(self) -> None:
        rows, columns = self._shape
        part = self._part
        width, height = min(part.width(), columns), min(part.height(), rows)
        left = min(max(part.left(), 0.0), columns - width)
        top = min(max(part.top(), 0.0), rows - height)
        self._part = QRectF(left, top, width, height)
        area = self._area
        if not rows or not columns or area.width() <= 0 or area.height() <= 0:
            self.shown = QRectF()
            return
        shown_rows, shown_columns = max(1, len(self.rows())), max(1, len(self.columns()))
        cell_width, cell_height = area.width() / shown_columns, area.height() / shown_rows
        if self._square:
            cell_width = cell_height = min(cell_width, cell_height)
        self.shown = QRectF(area.left(), area.top(), cell_width * shown_columns, cell_height * shown_rows)
