"""The table of checkpoints: rows as the Checkpoints dock shows them, sortable by what they mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QColor

from llmlab_gui.train.checkpoint_rows import CheckpointRow
from llmlab_gui.widgets.numbers import bytes_text, duration
from llmlab_gui.widgets.theme import current_theme

Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
STEP, LOSS, WHY, STATE, PINNED, SIZE, AGE = range(7)
HEADERS = ("Step", "Val loss", "Saved", "State", "Pinned", "Size", "Age")
_TIPS = (
    "Optimizer steps done",
    "Validation loss at that step, nats a token",
    "Why it was saved",
    "Sizes are compared with the manifest at once; Verify also compares every byte's hash",
    "A pinned checkpoint is never deleted by the keep rule",
    "Bytes on disk",
    "How long ago it was saved",
)
_NUMBERS = (LOSS, SIZE, AGE)


class CheckpointsModel(QAbstractTableModel):
    """CheckpointRow objects. Sort values under UserRole."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: list[CheckpointRow] = []

    def show(self, rows: Sequence[CheckpointRow]) -> None:
        """Replaces the rows; those that are the same stay selected."""
        if [row.name for row in rows] == [row.name for row in self.rows]:
            self.rows = list(rows)
            self.refresh()
            return
        names = {row.name for row in rows}
        for place in range(len(self.rows) - 1, -1, -1):
            if self.rows[place].name not in names:
                self.beginRemoveRows(QModelIndex(), place, place)
                del self.rows[place]
                self.endRemoveRows()
        known = {row.name for row in self.rows}
        for place, row in enumerate(rows):
            if row.name not in known:
                self.beginInsertRows(QModelIndex(), place, place)
                self.rows.insert(place, row)
                self.endInsertRows()
        self.rows = list(rows)
        self.refresh()

    def refresh(self) -> None:
        """Ages grow; colours follow the theme."""
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(HEADERS) - 1))

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(HEADERS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return HEADERS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _TIPS[section]
            if role == Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(section)
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return _shown(row, column)
        if role == Qt.ItemDataRole.UserRole:
            return _sort_value(row, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.damage or (None if column != AGE or row.checkpoint is None else _when(row.checkpoint.time))
        if role == Qt.ItemDataRole.ForegroundRole:
            if row.damage is not None:
                return QColor(current_theme().bad)
            if column == STATE and row.verified:
                return QColor(current_theme().good)
        return None


def sorted_proxy(model: CheckpointsModel, parent: QObject) -> QSortFilterProxyModel:
    """The model, sorted by values instead of by their text."""
    proxy = QSortFilterProxyModel(parent)
    proxy.setSourceModel(model)
    proxy.setSortRole(Qt.ItemDataRole.UserRole)
    return proxy


def state_words(row: CheckpointRow) -> str:
    """How sound it is, in a word or two."""
    if row.damage is not None:
        return "damaged"
    return "verified" if row.verified else "whole"


def _shown(row: CheckpointRow, column: int) -> str:
    saved = row.checkpoint
    if column == STEP:
        return f"{row.step:,}"
    if column == STATE:
        return state_words(row)
    if saved is None:
        return ""
    if column == WHY:
        return row.why
    if column == LOSS:
        return f"{saved.val_loss:.4f}" if saved.val_loss is not None else "–"
    if column == SIZE:
        return bytes_text(saved.bytes)
    if column == AGE:
        return age(saved.time)
    return "pinned" if row.pinned else ""


def _sort_value(row: CheckpointRow, column: int) -> Any:
    saved = row.checkpoint
    if column == STEP:
        return row.step
    if column in (LOSS, SIZE, AGE):
        if saved is None:
            return float("inf")
        if column == LOSS:
            return saved.val_loss if saved.val_loss is not None else float("inf")
        return float(saved.bytes) if column == SIZE else -saved.time
    return _shown(row, column)


def age(saved: float) -> str:
    """`12 min`; a checkpoint from the future (a clock was set back) is `just now`."""
    seconds = time.time() - saved
    if seconds < 60:
        return "just now"
    return " ".join(duration(seconds).split(" ")[:2])


def _when(saved: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved))


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
