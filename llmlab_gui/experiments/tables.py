"""The tables about experiments: all of them, and the runs of one; rows change in place so that selections stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QAbstractItemView, QTableView

from llmlab.studies.experiments.results import value_text
from llmlab.studies.records import ExperimentStatus, Trial, TrialStatus
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.widgets.icons import state_color, state_icon, swatch
from llmlab_gui.widgets.numbers import count_text, created_text, time_left_text
from llmlab_gui.widgets.row_tables import header_data, show_whole_rows
from llmlab_gui.widgets.theme import current_theme

R = TypeVar("R")
Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
# A run's states have icons; those that only a trial has look like the nearest of them.
_LIKE_RUN = {"planned": "queued", "skipped": "stopped", "diverged": "failed"}


@dataclass(frozen=True)
class Column(Generic[R]):
    """title; how a cell reads; the header's tool tip; numbers stand at the right; state: has a state's sign."""

    title: str
    text: Callable[[R], str]
    tip: str
    right: bool = False
    state: bool = False
    width: int = 10  # characters


@dataclass(frozen=True)
class TrialRow:
    """A run of a plan. color: as in the charts, "" before there are any."""

    arm: Trial
    status: TrialStatus
    color: str = ""


class RowsModel(QAbstractTableModel, Generic[R]):
    """Rows by a key. Subclasses say what a row's key and tool tip are."""

    def __init__(self, columns: Sequence[Column[R]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns = columns
        self.rows: list[R] = []

    def key(self, row: R) -> str:
        """Tells rows apart."""
        raise NotImplementedError

    def state(self, row: R) -> str:
        """What its sign shows."""
        raise NotImplementedError

    def tip(self, row: R) -> str:
        """What hovering it says."""
        return ""

    def mark(self, row: R) -> QColor | None:
        """A square of this colour before the first column."""
        return None

    def show(self, rows: list[R]) -> None:
        """Replaces the rows; where the keys are the same, only what changed is painted."""
        if [self.key(row) for row in rows] != [self.key(row) for row in self.rows]:
            self.beginResetModel()
            self.rows = rows
            self.endResetModel()
            return
        for place, (old, new) in enumerate(zip(self.rows, rows, strict=True)):
            if old != new:
                self.rows[place] = new
                self.dataChanged.emit(self.index(place, 0), self.index(place, len(self.columns) - 1))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows, as they are shown."""
        header = [column.title for column in self.columns]
        return header, [[column.text(row) for column in self.columns] for row in self.rows]

    def repaint_all(self) -> None:
        """Colours are different."""
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(self.columns) - 1))

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], self.columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == Qt.ItemDataRole.UserRole:
            return self.key(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.tip(row) or None
        if role == Qt.ItemDataRole.DecorationRole:
            if column.state:
                return state_icon(_LIKE_RUN.get(self.state(row), self.state(row)))
            color = self.mark(row) if index.column() == 0 else None
            return swatch(color) if color is not None else None
        if role == Qt.ItemDataRole.ForegroundRole and column.state:
            return QColor(state_color(_LIKE_RUN.get(self.state(row), self.state(row)), current_theme()))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        return header_data(self.columns, section, orientation, role)


class ExperimentsModel(RowsModel[ExperimentRow]):
    """All experiments."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(EXPERIMENT_COLUMNS, parent)

    def key(self, row: ExperimentRow) -> str:
        return row.id

    def state(self, row: ExperimentRow) -> str:
        return row.status.state

    def tip(self, row: ExperimentRow) -> str:
        lines = [row.record.question, row.record.varies, row.status.doing]
        if row.status.error:
            lines.append(row.status.error.get("what", ""))
        return "\n".join(line for line in lines if line)


class TrialsModel(RowsModel[TrialRow]):
    """The runs of one experiment."""

    def __init__(self, parent: QObject | None = None, columns: Sequence[Column[TrialRow]] | None = None) -> None:
        """columns: ARM_COLUMNS unless given."""
        super().__init__(columns or TRIAL_COLUMNS, parent)

    def key(self, row: TrialRow) -> str:
        return row.arm.run

    def state(self, row: TrialRow) -> str:
        return row.status.state

    def tip(self, row: TrialRow) -> str:
        changed = ", ".join(f"{key} = {value}" for key, value in row.arm.settings.items())
        return "\n".join(line for line in (row.arm.run, changed, row.status.note) if line)

    def mark(self, row: TrialRow) -> QColor | None:
        return QColor(row.color) if row.color else None


class PlanModel(RowsModel[Trial]):
    """The runs of an experiment that has not begun."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(PLAN_COLUMNS, parent)

    def key(self, row: Trial) -> str:
        return row.name

    def state(self, row: Trial) -> str:
        return "planned"

    def tip(self, row: Trial) -> str:
        changed = "\n".join(f"{key} = {value}" for key, value in row.settings.items())
        return f"{changed}\nPredicted from the others before it runs" if row.forecast else changed


def rows_table(model: QAbstractTableModel, name: str, columns: Sequence[Column[Any]]) -> QTableView:
    """A table of whole rows, as all of the window's are."""
    table = QTableView()
    table.setModel(model)
    table.setAccessibleName(name)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setAlternatingRowColors(True)
    table.setWordWrap(False)
    table.horizontalHeader().setStretchLastSection(True)
    show_whole_rows(table, [column.width for column in columns])
    return table


def select_row(table: QTableView, key: str) -> None:
    """Selects the row with this key, without telling anyone; none when there is none."""
    model = table.model()
    for place in range(model.rowCount()):
        if model.index(place, 0).data(Qt.ItemDataRole.UserRole) == key:
            if table.currentIndex().row() != place or not table.selectionModel().hasSelection():
                table.selectRow(place)
            return
    table.clearSelection()


def selected_key(table: QTableView) -> str:
    """The key of the selected row, "" for none."""
    rows = table.selectionModel().selectedRows()
    return str(rows[0].data(Qt.ItemDataRole.UserRole)) if rows else ""


def left_text(status: ExperimentStatus) -> str:
    """How long the rest takes; empty when nothing is left or known."""
    if status.state == "finished" or status.eta_seconds is None or status.eta_seconds <= 0:
        return ""
    return time_left_text(status.eta_seconds)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


EXPERIMENT_COLUMNS: tuple[Column[ExperimentRow], ...] = (
    Column("Experiment", lambda row: row.id, "Its folder", width=22),
    Column("State", lambda row: row.status.state, "State", state=True, width=12),
    Column(
        "Runs",
        lambda row: f"{row.status.ended_trials} / {len(row.record.arms)}" if row.record.arms else "–",
        "Runs that have ended, and planned",
        right=True,
        width=8,
    ),
    Column("Left", lambda row: left_text(row.status), "Time left", right=True, width=11),
    Column("Kind", lambda row: row.record.title, "Question that it answers", width=13),
    Column(
        "Base",
        lambda row: row.record.preset or row.record.subject or row.record.track,
        "Preset, run or model that all trials start from",
        width=14,
    ),
    Column("Created", lambda row: created_text(row.record.created), "When it was made", width=13),
)
TRIAL_COLUMNS: tuple[Column[TrialRow], ...] = (
    Column("Value", lambda row: value_text(row.arm), "What is varied", width=16),
    Column("State", lambda row: row.status.state, "State", state=True, width=12),
    Column(
        "Step",
        lambda row: f"{row.status.step:,} / {row.status.steps:,}" if row.status.steps else "–",
        "Steps done, and planned",
        right=True,
        width=14,
    ),
    Column("Val loss", lambda row: _loss(row.status.val_loss), "Validation loss, nats a token", right=True, width=9),
    Column("Loss", lambda row: _loss(row.status.loss), "Training loss, nats a token", right=True, width=8),
    Column("Seed", lambda row: str(row.arm.seed), "Seed of weights and batches", right=True, width=7),
    Column(
        "Time",
        lambda row: time_left_text(row.status.wall_seconds) if row.status.wall_seconds else "–",
        "Duration, including startup and measuring",
        width=10,
    ),
)
PLAN_COLUMNS: tuple[Column[Trial], ...] = (
    Column("Value", value_text, "What is varied", width=16),
    Column("Seed", lambda trial: str(trial.seed), "Seed of weights and batches", right=True, width=7),
    Column(
        "At",
        lambda trial: count_text(trial.x) if trial.x >= 10_000 else f"{trial.x:g}",
        "Its place on the chart's horizontal axis",
        right=True,
        width=9,
    ),
    Column(
        "Time",
        lambda trial: time_left_text(trial.estimated_seconds) if trial.estimated_seconds else "–",
        "Estimated duration on this machine",
        width=10,
    ),
)
