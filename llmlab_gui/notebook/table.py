"""The table of the notebook: one row per prediction, with its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QColor, QFont

from llmlab.notebook.entries import OPEN, TO_JUDGE, TO_LEARN, Entry, Line
from llmlab.notebook.words import outcome_sentence, outcome_text, remarks, state_words, stated, surprise_text, verdict
from llmlab_gui.widgets.numbers import created_text
from llmlab_gui.widgets.row_tables import header_data
from llmlab_gui.widgets.theme import current_theme

Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
SORT_ROLE = Qt.ItemDataRole.UserRole
ID_ROLE = Qt.ItemDataRole.UserRole + 1  # (entry id, place)
ALL = ""
# What the choice above the table shows: a state of entries, or all; and its words.
SHOWN = ((ALL, "All"), (OPEN, "Waiting for the result"), (TO_JUDGE, "To be judged"), (TO_LEARN, "To learn from"))


@dataclass(frozen=True)
class Column:
    """title; how a cell reads; by what it sorts; the tool tip of its header; whether it is a number."""

    title: str
    text: Callable[[Line], str]
    key: Callable[[Line], Any]
    tip: str
    right: bool = False


COLUMNS = (
    Column("About", lambda line: line.entry.about, lambda line: line.entry.about.lower(), "Run, experiment or check"),
    Column("Predicted", lambda line: stated(line.locked.prediction), lambda line: stated(line.locked.prediction), ""),
    Column("Outcome", lambda line: _became(line), lambda line: _became(line), "The result"),
    Column("", verdict, verdict, "Inside the range, or the right choice; or altered after it was locked"),
    Column(
        "Brier",
        lambda line: "" if _brier(line) is None else f"{_brier(line):.2f}",
        lambda line: -1.0 if _brier(line) is None else _brier(line),
        "Brier score: 0 is best, 1 is worst, 0.25 is what always saying 50 % scores",
        True,
    ),
    Column(
        "Surprise",
        lambda line: "" if line.surprise is None else f"{line.surprise:.1f} bits",
        lambda line: -1.0 if line.surprise is None else line.surprise,
        "How improbable your prediction made the outcome: as this many coin tosses that all land the same way",
        True,
    ),
    Column("State", lambda line: state_words(line.entry), lambda line: state_words(line.entry), ""),
    Column("Learned", lambda line: line.entry.learned, lambda line: line.entry.learned, "One sentence, yours"),
    Column("Made", lambda line: created_text(line.entry.created), lambda line: line.entry.created, "When it was made"),
)
VERDICT, SURPRISE, MADE = 3, 5, 8


class NotebookModel(QAbstractTableModel):
    """Lines of all entries."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.lines: list[Line] = []

    def show(self, entries: Sequence[Entry]) -> None:
        """Replaces all rows; rows that are there stay in their places, so that a selection does."""
        fresh = [line for entry in entries for line in entry.lines()]
        if [_key(line) for line in fresh] == [_key(line) for line in self.lines]:
            self.lines = fresh
            self.repaint_all()
            return
        self.beginResetModel()
        self.lines = fresh
        self.endResetModel()

    def repaint_all(self) -> None:
        """Values or colours are different."""
        if self.lines:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.lines) - 1, len(COLUMNS) - 1))

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.lines)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line, column = self.lines[index.row()], COLUMNS[index.column()]
        if role == ID_ROLE:
            return _key(line)
        if role == SORT_ROLE:
            return column.key(line)
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(line)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join([outcome_sentence(line), surprise_text(line.surprise), *remarks(line)]).replace(
                "\n\n", "\n"
            )
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == VERDICT:
            right = False if line.altered else None if line.score is None else line.score.right
            return None if right is None else QColor(current_theme().good if right else current_theme().bad)
        if role == Qt.ItemDataRole.FontRole and index.column() == VERDICT and line.altered:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        return header_data(COLUMNS, section, orientation, role)


class NotebookFilter(QSortFilterProxyModel):
    """Sorted by values; only rows whose words hold the filter, and whose entry is in the chosen state."""

    def __init__(self, model: NotebookModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._state = ALL
        self.setSourceModel(model)
        self.setSortRole(SORT_ROLE)
        self.setFilterKeyColumn(-1)
        self.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def set_state(self, state: str) -> None:
        """Shows entries of one state; "" for all."""
        self._state = state
        # Filters anew; what does only that is named differently from one version of Qt to the next.
        self.setFilterRegularExpression(self.filterRegularExpression())

    def filterAcceptsRow(self, row: int, parent: Index) -> bool:
        model = self.sourceModel()
        if isinstance(model, NotebookModel) and self._state and model.lines[row].entry.state != self._state:
            return False
        return super().filterAcceptsRow(row, parent)


def _key(line: Line) -> tuple[str, int]:
    return line.entry.id, line.place


def _became(line: Line) -> str:
    return "" if line.score is None else outcome_text(line.locked.prediction, line.score)


def _brier(line: Line) -> float | None:
    return None if line.score is None or line.altered else line.score.brier
