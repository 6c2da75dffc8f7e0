"""The table of the queue: one row per run, which can be dragged to reorder it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QMimeData, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor

from llmlab.jobs.queue import QueuedRun
from llmlab_gui.widgets.icons import state_icon
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.theme import current_theme

Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
_MIME = "application/x-llmlab-queued-run"
PLACE, NAME, TAKES, BEGINS, KIND, READS = range(6)
TITLES = ("", "Run", "Takes", "Begins in", "Kind", "Learns from")
_TIPS = (
    "Its turn",
    "Its name, or the preset that it is made from",
    "As estimated before it was queued",
    "When those before it have ended, as far as that is known",
    "What it does",
    "Corpus or examples",
)


@dataclass(frozen=True)
class Waiting:
    """A run that waits. begins: seconds until its turn, None where that is not known."""

    item: QueuedRun
    begins: float | None


def waits(items: Sequence[QueuedRun], left: float | None) -> list[Waiting]:
    """When each begins. left: seconds until the runs that live now have ended, None where that is not known."""
    rows, begins = [], left
    for item in items:
        rows.append(Waiting(item, None if item.problem else begins))
        if not item.problem:
            begins = None if begins is None or item.seconds is None else begins + item.seconds
    return rows


class QueueModel(QAbstractTableModel):
    """First comes first."""

    moved = Signal(str, int)  # item's id, its new place among the others

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.rows: list[Waiting] = []

    def show(self, rows: list[Waiting]) -> None:
        """Replaces what is shown; where only times differ, the selection stays."""
        same = [row.item.id for row in rows] == [row.item.id for row in self.rows]
        if same:
            self.rows = rows
            if rows:
                self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(TITLES) - 1))
            return
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(TITLES)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return _text(row, index.row(), column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return _tip(row.item)
        if role == Qt.ItemDataRole.DecorationRole and column == NAME:
            return state_icon("failed" if row.item.problem else "queued")
        if role == Qt.ItemDataRole.ForegroundRole and row.item.problem and column == BEGINS:
            return QColor(current_theme().bad)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in (PLACE, TAKES):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return TITLES[section]
        return _TIPS[section] if role == Qt.ItemDataRole.ToolTipRole else None

    # Dragging ----------------------------------------------------------------------------------------------------

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.ItemIsDropEnabled  # between rows, not onto them
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsDragEnabled

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction

    def mimeTypes(self) -> list[str]:
        return [_MIME]

    def mimeData(self, indexes: Sequence[QModelIndex]) -> QMimeData:
        data = QMimeData()
        if indexes:
            data.setData(_MIME, self.rows[indexes[0].row()].item.id.encode())
        return data

    def dropMimeData(self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: Index) -> bool:
        item_id = bytes(data.data(_MIME).data()).decode("ascii", "replace")
        place = next((at for at, other in enumerate(self.rows) if other.item.id == item_id), None)
        if place is not None:
            before = len(self.rows) if row < 0 else row
            self.moved.emit(item_id, before - (place < before))
        return False  # the view takes nothing out: the queue itself is asked to change


def _text(row: Waiting, place: int, column: int) -> str:
    item = row.item
    if column == PLACE:
        return str(place + 1)
    if column == NAME:
        return item.name or f"{item.preset or 'custom'} (named when it starts)"
    if column == KIND:
        return item.settings.does
    if column == READS:
        return PurePath(item.settings.reads).name
    if column == TAKES:
        return "–" if item.seconds is None else minutes_text(item.seconds / 60)
    if item.problem:
        return "cannot start"
    if row.begins is None:
        return "not known"
    return "at once" if row.begins < 1 else minutes_text(row.begins / 60)


def _tip(item: QueuedRun) -> str:
    lines = [item.name or item.preset, f"{item.settings.train.steps:,} steps"]
    if base := item.settings.base:
        lines.append(f"Base {base}")
    if item.problem:
        lines.append(item.problem)
    return "\n".join(lines)
