"""The table of checked answers: an item a row, what was right and what the model said, before training and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

from PySide6.QtCore import QModelIndex, QObject, Qt
from PySide6.QtGui import QColor, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QTableView

from llmlab_gui.train.samples_data import CheckedItem
from llmlab_gui.widgets.row_tables import Column, CopyingTable, Index, RowsModel, show_whole_rows
from llmlab_gui.widgets.theme import current_theme

RIGHT, WRONG = "✓", "✗"
_SHARES = (38, 18, 44)  # per cent of the width: the request, what is right, and all answers together


class AnswersModel(RowsModel[CheckedItem]):
    """A column for each step at which the model was asked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.steps: list[int] = []

    def key(self, row: CheckedItem) -> str:
        return row.prompt

    def show_items(self, items: Sequence[CheckedItem], score: Callable[[int], str]) -> None:
        """Replaces all of them; what is the same stays as it is. score: of a step, in words."""
        if list(items) == self.rows:
            return
        self.beginResetModel()
        self.steps = sorted({step for item in items for step in item.answers})
        self.columns = [
            _column("Request", lambda item: item.prompt, "What the model was asked"),
            _column("Expected", lambda item: item.expected, "What counts as right"),
            *(
                _column(_title(step), partial(_signed, step=step), f"Step {step:,}: {score(step)}")
                for step in self.steps
            ),
        ]
        self.rows = list(items)
        self.endResetModel()

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        item, at = self.rows[index.row()], index.column() - 2
        if role == Qt.ItemDataRole.ToolTipRole:
            return f'<p style="white-space: pre-wrap">{escape(whole(item))}</p>'
        if role == Qt.ItemDataRole.ForegroundRole and at >= 0 and self.steps[at] in item.answers:
            theme = current_theme()
            return QColor(theme.good if item.answers[self.steps[at]].right else theme.bad)
        return super().data(index, role)


class AnswersView(CopyingTable):
    """A line an item; the chosen one is as high as its longest text."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = AnswersModel(self)
        self.setModel(self.answers)
        self.setAccessibleName("Checked answers: one row per request, one column per step")
        self.setSelectionMode(QTableView.SelectionMode.SingleSelection)
        self.setAlternatingRowColors(True)
        self.setWordWrap(True)
        self.setVerticalScrollMode(QTableView.ScrollMode.ScrollPerPixel)  # a chosen row may be higher than the view
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        show_whole_rows(self, ())
        self.selectionModel().currentRowChanged.connect(self._unfold)
        self.answers.modelReset.connect(self._share)

    def selected_text(self) -> str:
        """The chosen item, with all its answers."""
        rows = self.selectionModel().selectedRows()
        return whole(self.answers.rows[rows[0].row()]) if rows else ""

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """A drag chooses nothing: rows move away under the mouse when one is pressed."""
        if not event.buttons():
            super().mouseMoveEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._share()

    def _share(self) -> None:
        """Columns share the width."""
        count, width = len(self.answers.steps), self.viewport().width()
        if count:
            request, expected, answers = (width * share // 100 for share in _SHARES)
            for column, room in enumerate([request, expected, *[answers // count] * count]):
                self.setColumnWidth(column, room)
        self._unfold(self.currentIndex(), QModelIndex())

    def _unfold(self, current: QModelIndex, before: QModelIndex) -> None:
        line = self.verticalHeader().defaultSectionSize()
        if before.isValid():
            self.setRowHeight(before.row(), line)
        if current.isValid():
            self.setRowHeight(current.row(), max(line, self.sizeHintForRow(current.row())))
            self.updateGeometries()  # the scroll bar hears of it later
            self.scrollTo(current)


def whole(item: CheckedItem) -> str:
    """All that is known of an item, a line each."""
    answers = [f"{_title(step)}: {_signed(item, step)}" for step in sorted(item.answers)]
    return "\n".join([item.prompt, f"Expected: {item.expected}", *answers])


def _column(title: str, text: Callable[[CheckedItem], str], tip: str) -> Column[CheckedItem]:
    """In the table, a text is in one line."""
    return Column(title, lambda item: text(item).replace("\n", " ⏎ "), tip, value=text)


def _title(step: int) -> str:
    return f"Step {step:,}" if step else "Before training"


def _signed(item: CheckedItem, step: int) -> str:
    given = item.answers.get(step)
    return f"{RIGHT if given.right else WRONG} {given.text}" if given is not None else ""
