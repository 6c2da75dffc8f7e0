"""The table of runs: one row per run, updated in place so that selection and scrolling stay."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QRect, Qt, Signal
from PySide6.QtGui import QColor, QFont, QPainter
from PySide6.QtWidgets import QStyle, QStyleOptionViewItem, QTableView

from llmlab.core.signs import count_text
from llmlab.store.run_folder import SILENT, SILENT_ELSEWHERE, RunStatus
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.numbers import created_text, stamp_text
from llmlab_gui.widgets.row_tables import Column, DatedNames, Index, RowsModel, numbers
from llmlab_gui.widgets.theme import current_theme

SHOW, NAME, STATE = 0, 1, 2


def _state(status: RunStatus) -> str:
    """What matters first: a narrow column cuts the rest. Who is silent is live."""
    return status.words if status.silent_since is None else status.words.removeprefix(f"{status.state}, ")


COLUMNS: tuple[Column[RunRow], ...] = (
    Column(
        "",
        lambda row: "",
        "Overlay in the charts (Ctrl+Down goes to a row without opening it, Space ticks it)",
        order=lambda row: row.info.created,
    ),
    Column("Name", lambda row: row.name, "The run's folder", order=lambda row: row.name.lower(), in_file="Run"),
    Column(
        "State",
        lambda row: _state(row.status),
        "State",
        state=lambda row: row.status.state,
        order=lambda row: row.status.words,
        value=lambda row: row.status.state,
    ),
    numbers(
        "Val loss",
        lambda row: row.status.val_loss,
        "{:.3f}".format,
        "Validation loss at the last evaluation, nats per token",
        "nats per token",
    ),
    Column(
        "Step",
        lambda row: f"{row.status.step:,} / {row.status.steps:,}",
        "Optimizer steps done, and planned",
        right=True,
        value=lambda row: row.status.step,
    ),
    numbers(
        "Loss",
        lambda row: row.status.loss,
        "{:.3f}".format,
        "Training loss of the last step, nats per token",
        "nats per token",
    ),
    numbers(
        "Tokens/s",
        lambda row: row.status.tokens_per_second or None,
        count_text,
        "Training speed, last seen",
        order=lambda row: row.status.tokens_per_second or 0.0,
    ),
    numbers(
        "Size",
        lambda row: row.parameters,
        count_text,
        "Parameters of the model",
        "parameters",
        order=lambda row: row.parameters or 0,
    ),
    Column("Kind", lambda row: row.info.settings.words.does, "What it does"),
    Column(
        "Learns from",
        lambda row: _last_part(row.info.settings.reads),
        "Its corpus, or its examples",
        order=lambda row: _last_part(row.info.settings.reads).lower(),
        value=lambda row: row.info.settings.reads,
    ),
    Column(
        "Base",
        lambda row: _last_part(row.info.settings.base) or "–",
        "The model that it fine-tunes",
        order=lambda row: row.info.settings.base.lower(),
        value=lambda row: row.info.settings.base,
    ),
    Column(
        "Created",
        lambda row: created_text(row.info.created),
        "When it was made",
        order=lambda row: row.info.created,
        value=lambda row: stamp_text(row.info.created),
    ),
)


class RunsModel(RowsModel[RunRow]):
    """All runs of the lab. Ticking the first column overlays a run in the charts."""

    overlay_toggled = Signal(str, bool)  # run id, whether it should be shown

    columns = COLUMNS
    in_file = (("Steps planned", lambda row: row.status.steps),)

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._lab = lab

    def refresh(self) -> None:
        """Takes the lab's runs."""
        self.show(self._lab.runs())

    def key(self, row: RunRow) -> str:
        return row.id

    def tip(self, row: RunRow) -> str:
        return _tip(row)

    def mark(self, row: RunRow) -> QColor:
        return self._lab.color(row.id) if row.id in self._lab.shown_runs() else QColor(0, 0, 0, 0)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.FontRole and index.column() == NAME and row.id == self._current:
            font = QFont()
            font.setBold(True)
            return font
        if index.column() == SHOW and role in (Qt.ItemDataRole.CheckStateRole, Qt.ItemDataRole.AccessibleTextRole):
            shown = row.id in self._lab.shown_runs()
            if role == Qt.ItemDataRole.AccessibleTextRole:
                return f"{row.name}: {'shown' if shown else 'not shown'} in the charts"
            return Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked
        return super().data(index, role)

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


class RunDelegate(DatedNames):
    """Frames the row that the keyboard is at where that one is not selected: Ctrl+Down goes there, Space ticks it."""

    def __init__(self, table: QTableView) -> None:
        super().__init__(table)
        self._table = table

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        if index.column() == STATE:
            option.textElideMode = Qt.TextElideMode.ElideRight

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        super().paint(painter, option, index)
        table, selected = self._table, bool(option.state & QStyle.StateFlag.State_Selected)
        if table.hasFocus() and not selected and index.row() == table.currentIndex().row():
            painter.setPen(QColor(current_theme().accent))
            rect: QRect = option.rect
            painter.drawLine(rect.topLeft(), rect.topRight())
            painter.drawLine(rect.bottomLeft(), rect.bottomRight())


def _last_part(name: str) -> str:
    """A file's or folder's own name, and what follows it."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _tip(row: RunRow) -> str:
    status = row.status
    lines = [row.name, *row.info.settings.words.details]
    if row.info.parent:
        lines.append(f"Branch of {row.info.parent.get('run')} at step {row.info.parent.get('step')}")
    if status.doing:
        lines.append(status.doing)
    if status.silent_since is not None:
        lines.append(SILENT_ELSEWHERE if status.elsewhere else SILENT)
    if status.error:
        lines.append(status.error.get("what", ""))
    return "\n".join(lines)
