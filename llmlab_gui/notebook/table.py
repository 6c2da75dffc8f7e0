"""The table of the notebook: one row per prediction, with its outcome."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QObject, QSortFilterProxyModel, Qt
from PySide6.QtGui import QColor, QFont

from llmlab.notebook.entries import OPEN, TO_JUDGE, TO_LEARN, Line
from llmlab.notebook.words import outcome_sentence, outcome_text, remarks, state_words, stated, surprise_text, verdict
from llmlab_gui.widgets.numbers import created_text, stamp_text
from llmlab_gui.widgets.row_tables import SORT_ROLE, Column, Index, RowsModel, numbers
from llmlab_gui.widgets.theme import current_theme

ALL = ""
# What the choice above the table shows: a state of entries, or all; and its words.
SHOWN = ((ALL, "All"), (OPEN, "Waiting for the result"), (TO_JUDGE, "To be judged"), (TO_LEARN, "To learn from"))

COLUMNS: tuple[Column[Line], ...] = (
    Column(
        "About",
        lambda line: line.entry.about,
        "Run, experiment or check",
        width=17,
        order=lambda line: line.entry.about.lower(),
    ),
    Column(
        "Predicted",
        lambda line: stated(line.locked.prediction, surely=False),
        width=22,
        value=lambda line: stated(line.locked.prediction),
    ),
    Column("Outcome", lambda line: _became(line), "The result", width=14),
    Column(
        "Sure",
        lambda line: "" if (sure := _sure(line)) is None else f"{100 * sure:.3g} %",
        "How sure you were that it comes true",
        right=True,
        width=5,
        order=lambda line: _sure(line) or 0.0,
        value=lambda line: _sure(line),
        in_file="Confidence",
    ),
    Column("Verdict", verdict, "Inside the range, or the right choice; or altered after it was locked", width=8),
    numbers(
        "Brier",
        lambda line: _brier(line),
        "{:.2f}".format,
        "Brier score: 0 is best, 1 is worst, 0.25 is what always saying 50 % scores",
        width=7,
        missing="",
        order=lambda line: -1.0 if (score := _brier(line)) is None else score,
    ),
    numbers(
        "Surprise",
        lambda line: line.surprise,
        "{:.1f} bits".format,
        "How improbable your prediction made the outcome: as this many coin tosses that all land the same way",
        "bits",
        missing="",
        order=lambda line: -1.0 if line.surprise is None else line.surprise,
    ),
    Column("State", lambda line: state_words(line.entry), width=18),
    Column("Learned", lambda line: line.entry.learned, "One sentence, yours", width=25),
    Column(
        "Made",
        lambda line: created_text(line.entry.created),
        "When it was made",
        width=14,
        order=lambda line: line.entry.created,
        value=lambda line: stamp_text(line.entry.created),
    ),
)
VERDICT, MADE = 4, 9


class NotebookModel(RowsModel[Line]):
    """Lines of all entries."""

    columns = COLUMNS
    in_file = (
        ("Predicted low", lambda line: line.locked.prediction.low),
        ("Predicted high", lambda line: line.locked.prediction.high),
        ("Outcome as number", lambda line: _number(line)),
        ("Unit", lambda line: line.locked.prediction.about.unit),
        ("Sentence", outcome_sentence),
    )

    def key(self, row: Line) -> tuple[str, int]:
        return row.entry.id, row.place

    def tip(self, row: Line) -> str:
        return "\n".join([row.entry.about, outcome_sentence(row), surprise_text(row.surprise), *remarks(row)]).replace(
            "\n\n", "\n"
        )

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line = self.rows[index.row()]
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == VERDICT:
            right = False if line.altered else None if line.score is None else line.score.right
            return None if right is None else QColor(current_theme().good if right else current_theme().bad)
        if role == Qt.ItemDataRole.FontRole and index.column() == VERDICT and line.altered:
            font = QFont()
            font.setBold(True)
            return font
        return super().data(index, role)


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
        if isinstance(model, NotebookModel) and self._state and model.rows[row].entry.state != self._state:
            return False
        return super().filterAcceptsRow(row, parent)


def _became(line: Line) -> str:
    return "" if line.score is None else outcome_text(line.locked.prediction, line.score)


def _sure(line: Line) -> float | None:
    return line.locked.prediction.confidence


def _number(line: Line) -> float | None:
    return line.score.outcome if line.score is not None and not isinstance(line.score.outcome, str) else None


def _brier(line: Line) -> float | None:
    return None if line.score is None or line.altered else line.score.brier
