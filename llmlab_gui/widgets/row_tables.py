"""How tables of whole rows look in all docks: no grid, rows with some air, titles with their tips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView


class TitledColumn(Protocol):
    """What a header says of a column; right: its cells are numbers, which stand at the right."""

    @property
    def title(self) -> str: ...
    @property
    def tip(self) -> str: ...
    @property
    def right(self) -> bool: ...


def header_data(columns: Sequence[TitledColumn], section: int, orientation: Qt.Orientation, role: int) -> Any:
    """A model's `headerData`: titles, tips, and numbers' titles above them."""
    if orientation != Qt.Orientation.Horizontal:
        return None
    column = columns[section]
    if role == Qt.ItemDataRole.DisplayRole:
        return column.title
    if role == Qt.ItemDataRole.ToolTipRole:
        return column.tip
    if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
        return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return None


def show_whole_rows(table: QTableView, widths: Sequence[int]) -> None:
    """Rows are chosen as a whole, and nothing is edited. widths: of the columns, in characters; the model is set."""
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    table.setTabKeyNavigation(False)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 10)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
    header.setHighlightSections(False)
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    unit = table.fontMetrics().averageCharWidth()
    for column, width in enumerate(widths):
        table.setColumnWidth(column, unit * width + 12)
