"""The table of the queue: one row per run, which can be dragged to reorder it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PySide6.QtCore import QMimeData, QModelIndex, Qt, Signal
from PySide6.QtGui import QColor

from llmlab.jobs.queue import QueuedRun
from llmlab_gui.widgets.icons import state_icon
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel
from llmlab_gui.widgets.theme import current_theme

_MIME = "application/x-llmlab-queued-run"


@dataclass(frozen=True)
class Waiting:
    """A run that waits. place: its turn, from 1. begins: seconds until then, None where that is not known."""

    place: int
    item: QueuedRun
    begins: float | None


def waits(items: Sequence[QueuedRun], left: float | None) -> list[Waiting]:
    """When each begins. left: seconds until the runs that live now have ended, None where that is not known."""
    rows, begins = [], left
    for place, item in enumerate(items, start=1):
        rows.append(Waiting(place, item, None if item.problem else begins))
        if not item.problem:
            begins = None if begins is None or item.seconds is None else begins + item.seconds
    return rows


COLUMNS: tuple[Column[Waiting], ...] = (
    Column("", lambda row: str(row.place), "Its turn", right=True, width=3),
    Column(
        "Run",
        lambda row: row.item.name or f"{row.item.preset or 'custom'} (named when it starts)",
        "Its name, or the preset that it is made from",
        width=20,
    ),
    Column(
        "Takes",
        lambda row: "–" if row.item.seconds is None else minutes_text(row.item.seconds / 60),
        "As estimated before it was queued",
        right=True,
        width=8,
    ),
    Column("Begins in", lambda row: _begins(row), "When those before it have ended, as far as that is known", width=11),
    Column("Kind", lambda row: row.item.settings.words.does, "What it does", width=14),
    Column("Learns from", lambda row: PurePath(row.item.settings.reads).name, "Corpus or examples", width=14),
)
NAME, BEGINS = 1, 3


class QueueModel(RowsModel[Waiting]):
    """First comes first."""

    moved = Signal(str, int)  # item's id, its new place among the others

    columns = COLUMNS

    def key(self, row: Waiting) -> str:
        return row.item.id

    def tip(self, row: Waiting) -> str:
        return _tip(row.item)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DecorationRole and column == NAME:
            return state_icon("failed" if row.item.problem else "queued")
        if role == Qt.ItemDataRole.ForegroundRole and row.item.problem and column == BEGINS:
            return QColor(current_theme().bad)
        return super().data(index, role)

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


def _begins(row: Waiting) -> str:
    if row.item.problem:
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
