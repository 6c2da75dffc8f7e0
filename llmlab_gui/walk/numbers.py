"""All numbers of a value as a table: a vector below one another, a matrix as it is; what changed in bold."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont

from llmlab.walk.stage import Value

_Index = QModelIndex | QPersistentModelIndex
_ROLE = Qt.ItemDataRole


class NumbersModel(QAbstractTableModel):
    """A vector has a column for what it was before a change."""

    def __init__(self) -> None:
        super().__init__()
        self._value: Value | None = None

    def show(self, value: Value | None) -> None:
        """Another value."""
        self.beginResetModel()
        self._value = value
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008  # Qt's signature
        return 0 if self._value is None or parent.isValid() else len(self._value.array)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        value = self._value
        if value is None or parent.isValid():
            return 0
        return value.array.shape[1] if value.array.ndim == 2 else 1 if value.was is None else 2

    def data(self, index: _Index, role: int = _ROLE.DisplayRole) -> Any:
        value = self._value
        if value is None or not index.isValid():
            return None
        at: tuple[int, ...] = (index.row(), index.column()) if value.array.ndim == 2 else (index.row(),)
        if role == _ROLE.DisplayRole:
            source = value.was if value.array.ndim == 1 and index.column() == 1 else value.array
            return f"{float(source[at]):.7g}" if source is not None and index.row() < len(source) else ""
        if role == _ROLE.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == _ROLE.FontRole and _changed(value, at):
            font = QFont()
            font.setBold(True)
            return font
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole) -> Any:
        value = self._value
        if value is None or role != _ROLE.DisplayRole:
            return None
        last = value.array.ndim - 1
        axis = last if (orientation == Qt.Orientation.Horizontal) == (value.array.ndim == 2) else 0
        if orientation == Qt.Orientation.Horizontal and value.array.ndim == 1:
            return ("now", "was")[section] if value.was is not None else value.name
        labels = value.labels if axis == last else ()
        return labels[section] if section < len(labels) else str(section)


def _changed(value: Value, at: tuple[int, ...]) -> bool:
    if value.was is None or value.was.shape != value.array.shape:
        return False
    return not np.array_equal(value.was[at], value.array[at])
