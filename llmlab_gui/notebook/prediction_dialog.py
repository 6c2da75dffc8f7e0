"""The question before a run or an experiment: what do you expect? Enter starts, Escape skips it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, Quantity
from llmlab_gui.notebook.prediction_form import CurveRow, ValueRow
from llmlab_gui.notebook.start_question import StartQuestion

if TYPE_CHECKING:
    from llmlab_gui.lab.book import Book
    from llmlab_gui.notebook.asking import Expected

_WIDTH = 560
# As many things as anyone thinks about before one run.
_MOST_ROWS = 6


class PredictionDialog(StartQuestion):
    """A row a quantity, and the curve drawn by hand."""

    def __init__(
        self,
        book: Book,
        about: str,
        quantities: Sequence[Quantity],
        expected: Expected | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(book, about, "Leave it empty if you have no idea.", parent)
        self._values = [quantity for quantity in quantities if quantity.answer in (NUMBER, CHOICE)]
        self.rows: list[ValueRow] = []
        self.curve: CurveRow | None = None
        self._expected = expected if any(quantity.answer == CURVE for quantity in quantities) else None
        self.more = QToolButton()
        self.more.setText("Another quantity")
        self.more.setToolTip("Add a prediction")
        self.draw_button = QToolButton()
        self.draw_button.setText("Draw the curve")
        self.draw_button.setToolTip("Draw the validation loss over the steps with the mouse")
        self.draw_button.setCheckable(True)
        self.draw_button.setVisible(self._expected is not None)
        self._rows = QVBoxLayout()
        self._rows.setSpacing(10)
        tools = QHBoxLayout()
        tools.addWidget(self.more)
        tools.addWidget(self.draw_button)
        tools.addStretch(1)
        self._curve_place = QVBoxLayout()
        self.lay_out([self._rows, tools, self._curve_place], self._curve_place, _WIDTH)
        self.more.clicked.connect(self.add_row)
        self.draw_button.toggled.connect(self._show_curve)
        if self._values:
            self.add_row()
            self.rows[0].low.setFocus()
        self.more.setVisible(len(self._values) > 1)
        self.check()

    def add_row(self) -> None:
        """One thing more to predict: the next that is not asked for yet."""
        row = ValueRow(self._values)
        asked = {other.about.name for other in self.rows}
        fresh = next((quantity.name for quantity in self._values if quantity.name not in asked), "")
        row.ask_for(fresh or self._values[0].name)
        row.changed.connect(self.check)
        self.rows.append(row)
        self._rows.addWidget(row)
        self.more.setEnabled(len(self.rows) < min(_MOST_ROWS, len(self._values)))
        (row.choice if row.about.answer == CHOICE else row.low).setFocus()
        self.check()

    def answers(self) -> list[Prediction | None]:
        """Of each quantity, and the curve where one was drawn."""
        found = [row.prediction() for row in self.rows]
        if self.curve is not None and self.draw_button.isChecked():
            found.append(self.curve.prediction())
        return found

    def _show_curve(self, on: bool) -> None:
        if on and self.curve is None and self._expected is not None:
            self.curve = CurveRow(self._expected.steps, self._expected.start_loss)
            self.curve.changed.connect(self.check)
            self._curve_place.addWidget(self.curve, 1)
        if self.curve is not None:
            self.curve.setVisible(on)
        if not on:
            self.adjustSize()
        self.check()
