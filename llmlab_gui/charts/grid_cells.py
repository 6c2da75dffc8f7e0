"""A grid of numbers with a word on each: what it holds, its cells for Qt, and how one is painted.

Qt asks only for the cells in sight, so a prompt of thousands of tokens draws as fast as one of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyledItemDelegate, QStyleOptionViewItem, QWidget

from llmlab_gui.charts.color_scale import ColorScale, Values, ink, one_sided
from llmlab_gui.widgets.alternatives import plain_tip
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.row_tables import Index

_ROOM_BESIDE = 6  # pixels of a cell's width that its word leaves free
_MOST_CUTS = 4096  # words that are remembered
_ROOT = QModelIndex()
_ROLE = Qt.ItemDataRole


@dataclass(frozen=True)
class Grid:
    """values [row, column], and how to show them.

    text: the words of a cell.
    tip: what hovering a cell says, with exact numbers. unit: what the colours are, beside their legend.
    kind: of the numbers, as in `numbers.py`. log: values are powers of ten.
    """

    values: Values
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    scale: ColorScale
    tip: Callable[[int, int], str]
    text: Callable[[int, int], str]
    unit: str = ""
    kind: str = "value"
    log: bool = False

    def read_out(self, value: float) -> str:
        """One of the values, or an end of the scale, for people."""
        return read_out(10**value if self.log else value, self.kind)


NOTHING = Grid(np.zeros((0, 0)), (), (), one_sided(0, 1), lambda row, column: "", lambda row, column: "")


class GridCells(QAbstractTableModel):
    """The grid for Qt, and for what reads the screen: each cell's token and number."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.grid = NOTHING
        self.colors: list[list[int]] = []  # of each row's cells: 0xRRGGBB
        self.hovered = -1  # the column that another panel points at

    def show(self, grid: Grid) -> None:
        """Another grid; one of the same shape keeps scrolling and selection."""
        self.colors = (grid.scale.colors(grid.values) @ np.array([1 << 16, 1 << 8, 1], np.uint32)).tolist()
        if grid.values.shape == self.grid.values.shape:
            self.grid = grid
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(grid.columns) - 1)
            self.headerDataChanged.emit(Qt.Orientation.Vertical, 0, len(grid.rows) - 1)
            self.dataChanged.emit(self.index(0, 0), self.index(len(grid.rows) - 1, len(grid.columns) - 1))
        else:
            self.beginResetModel()
            self.grid = grid
            self.endResetModel()

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.grid.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.grid.columns)

    def data(self, index: Index, role: int = _ROLE.DisplayRole) -> Any:
        cell = index.row(), index.column()
        if role == _ROLE.DisplayRole:
            return self.grid.text(*cell)
        if role == _ROLE.ToolTipRole:
            return plain_tip(self.grid.tip(*cell))
        if role == _ROLE.AccessibleTextRole:
            return f"{self.grid.text(*cell)}, {self.grid.read_out(float(self.grid.values[cell]))}"
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole) -> Any:
        if role != _ROLE.DisplayRole:
            return None
        return (self.grid.columns if orientation == Qt.Orientation.Horizontal else self.grid.rows)[section]


class CellPainter(QStyledItemDelegate):
    """Paints a cell's word on the colour of its number."""

    def __init__(self, cells: GridCells) -> None:
        super().__init__(cells)
        self._cells = cells
        self.cuts: dict[tuple[str, int], str] = {}  # by text and room: to measure one takes 15 microseconds

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        row, column = index.row(), index.column()
        rect = option.rect.adjusted(0, 0, -1, -1)
        ground, pen = _inks(self._cells.colors[row][column])
        painter.fillRect(rect, ground)
        painter.setPen(pen)
        text = self._cut(self._cells.grid.text(row, column), rect.width() - _ROOM_BESIDE, option)
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)
        if column == self._cells.hovered:
            painter.fillRect(rect, QColor(128, 128, 128, 70))

    def _cut(self, text: str, room: int, option: QStyleOptionViewItem) -> str:
        cut = self.cuts.get((text, room))
        if cut is None:
            if len(self.cuts) >= _MOST_CUTS:
                self.cuts.clear()
            cut = self.cuts[text, room] = option.fontMetrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
        return cut


@lru_cache(maxsize=512)
def _inks(color: int) -> tuple[QColor, QColor]:
    """A cell's ground, and what is read best on it."""
    return QColor(color), ink(QColor(color))
