"""The table of runs: one row per run, updated in place so that selection and scrolling stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QColor, QFont

from llmlab.store.run_folder import SILENT, RunStatus
from llmlab_gui.lab.runs_poller import RunRow
from llmlab_gui.widgets.icons import state_color, state_icon, swatch
from llmlab_gui.widgets.numbers import count_text, created_text
from llmlab_gui.widgets.row_tables import header_data
from llmlab_gui.widgets.theme import current_theme

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab

Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
SORT_ROLE = Qt.ItemDataRole.UserRole
ID_ROLE = Qt.ItemDataRole.UserRole + 1
SHOW, NAME, STATE = 0, 1, 2


@dataclass(frozen=True)
class Column:
    """title; how a run's cell reads; by what it sorts; and the tool tip of the header."""

    title: str
    text: Callable[[RunRow], str]
    key: Callable[[RunRow], Any]
    tip: str
    right: bool = False


def _state(status: RunStatus) -> str:
    """What matters first: a narrow column cuts the rest. Who is silent is live."""
    return status.words if status.silent_since is None else status.words.removeprefix(f"{status.state}, ")


def _number(value: float | None) -> float:
    return float("inf") if value is None else value


COLUMNS = (
    Column("", lambda row: "", lambda row: row.info.created, "Overlay in the charts"),
    Column("Name", lambda row: row.name, lambda row: row.name.lower(), "The run's folder"),
    Column("State", lambda row: _state(row.status), lambda row: row.status.words, "State"),
    Column(
        "Step",
        lambda row: f"{row.status.step:,} / {row.status.steps:,}",
        lambda row: row.status.step,
        "Optimizer steps done, and planned",
        True,
    ),
    Column(
        "Loss",
        lambda row: "–" if row.status.loss is None else f"{row.status.loss:.3f}",
        lambda row: _number(row.status.loss),
        "Training loss of the last step, nats a token",
        True,
    ),
    Column(
        "Val loss",
        lambda row: "–" if row.status.val_loss is None else f"{row.status.val_loss:.3f}",
        lambda row: _number(row.status.val_loss),
        "Validation loss at the last evaluation, nats a token",
        True,
    ),
    Column(
        "Tokens/s",
        lambda row: "–" if not row.status.tokens_per_second else count_text(row.status.tokens_per_second),
        lambda row: row.status.tokens_per_second or 0.0,
        "Training speed, last seen",
        True,
    ),
    Column(
        "Size",
        lambda row: "–" if row.parameters is None else count_text(row.parameters),
        lambda row: row.parameters or 0,
        "Parameters of the model",
        True,
    ),
    Column("Kind", lambda row: row.info.settings.does, lambda row: row.info.settings.does, "What it does"),
    Column(
        "Learns from",
        lambda row: _last_part(row.info.reads),
        lambda row: _last_part(row.info.reads).lower(),
        "Its corpus, or its examples",
    ),
    Column(
        "Base",
        lambda row: _last_part(row.info.settings.base) or "–",
        lambda row: row.info.settings.base.lower(),
        "The model that it fine-tunes",
    ),
    Column(
        "Created",
        lambda row: created_text(row.info.created),
        lambda row: row.info.created,
        "When it was made",
    ),
)


class RunsModel(QAbstractTableModel):
    """All runs of the lab. Ticking the first column overlays a run in the charts."""

    overlay_toggled = Signal(str, bool)  # run id, whether it should be shown

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._lab = lab
        self.rows: list[RunRow] = []

    def refresh(self) -> None:
        """Takes the lab's runs; rows that stay are changed in place."""
        fresh = self._lab.runs()
        wanted = {row.id for row in fresh}
        for place in reversed(range(len(self.rows))):
            if self.rows[place].id not in wanted:
                self.beginRemoveRows(_ROOT, place, place)
                del self.rows[place]
                self.endRemoveRows()
        for place, row in enumerate(fresh):
            if place >= len(self.rows) or self.rows[place].id != row.id:
                known = next((at for at, old in enumerate(self.rows) if old.id == row.id), None)
                if known is not None:  # its place changed: rare enough to begin again
                    self.beginResetModel()
                    self.rows = fresh
                    self.endResetModel()
                    return
                self.beginInsertRows(_ROOT, place, place)
                self.rows.insert(place, row)
                self.endInsertRows()
            elif self.rows[place] != row:
                self.rows[place] = row
                self.dataChanged.emit(self.index(place, 0), self.index(place, len(COLUMNS) - 1))

    def repaint_all(self) -> None:
        """Colours and ticks are different."""
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(COLUMNS) - 1))

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], COLUMNS[index.column()]
        if role == ID_ROLE:
            return row.id
        if role == SORT_ROLE:
            return column.key(row)
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.FontRole and index.column() == NAME and row.id == self._current:
            font = QFont()
            font.setBold(True)
            return font
        if role == Qt.ItemDataRole.ToolTipRole:
            return _tip(row)
        if index.column() == SHOW:
            return self._show_data(row, role)
        if index.column() == STATE:
            return _state_data(row, role)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        return header_data(COLUMNS, section, orientation, role)

    def flags(self, index: Index) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == SHOW:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != SHOW:
            return False
        on = Qt.CheckState(value) == Qt.CheckState.Checked
        self.overlay_toggled.emit(self.rows[index.row()].id, on)
        return True

    @property
    def _current(self) -> str:
        current = self._lab.current()
        return current.id if current else ""

    def _show_data(self, row: RunRow, role: int) -> Any:
        shown = row.id in self._lab.shown()
        if role == Qt.ItemDataRole.CheckStateRole:
            return Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.DecorationRole:
            return swatch(self._lab.color(row.id) if shown else QColor(0, 0, 0, 0))
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{row.name}: {'shown' if shown else 'not shown'} in the charts"
        return None


def _last_part(name: str) -> str:
    """A file's or folder's own name, and what follows it."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _state_data(row: RunRow, role: int) -> Any:
    if role == Qt.ItemDataRole.DecorationRole:
        return state_icon(row.status.state)
    if role == Qt.ItemDataRole.ForegroundRole:
        return QColor(state_color(row.status.state, current_theme()))
    return None


def _tip(row: RunRow) -> str:
    status = row.status
    lines = [row.name, *row.info.settings.details]
    if row.info.parent:
        lines.append(f"Branch of {row.info.parent.get('run')} at step {row.info.parent.get('step')}")
    if status.doing:
        lines.append(status.doing)
    if status.silent_since is not None:
        lines.append(SILENT)
    if status.error:
        lines.append(status.error.get("what", ""))
    return "\n".join(lines)
