"""The question before a run or an experiment: what do you expect? Enter starts, Escape skips it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QCheckBox, QDialog, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from llmlab.errors import UsageError
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, Quantity
from llmlab_gui.docks.base import PrimaryButton, ProblemLabel, QuietLabel
from llmlab_gui.notebook.prediction_form import CurveRow, SentenceRow, ValueRow

if TYPE_CHECKING:
    from llmlab_gui.notebook.book import Book, Expected

_WIDTH = 560
# As many things as anyone thinks about before one run.
_MOST_ROWS = 6


class PredictionDialog(QDialog):
    """`predictions` is what was stated: empty when the question was skipped, None when nothing is to start."""

    def __init__(
        self,
        book: Book,
        about: str,
        quantities: Sequence[Quantity],
        expected: Expected | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("What do you expect?")
        self.predictions: list[Prediction] | None = None
        self._values = [quantity for quantity in quantities if quantity.answer in (NUMBER, CHOICE)]
        self.rows: list[ValueRow] = []
        self.sentence = SentenceRow()
        self.curve: CurveRow | None = None
        self._expected = expected if any(quantity.answer == CURVE for quantity in quantities) else None
        what = QLabel(about)
        what.setWordWrap(True)
        why = QuietLabel("Locked when it starts, compared with what comes. Leave it empty if you have no idea.")
        self.more = QToolButton()
        self.more.setText("Another quantity")
        self.more.setToolTip("Predict one thing more")
        self.draw_button = QToolButton()
        self.draw_button.setText("Draw the curve")
        self.draw_button.setToolTip("Draw the validation loss over the steps with the mouse")
        self.draw_button.setCheckable(True)
        self.draw_button.setVisible(self._expected is not None)
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("What is wrong")
        self.ask_again = QCheckBox("Ask before every run")
        self.ask_again.setToolTip("It can be switched on again in the Notebook")
        self.ask_again.setChecked(book.asks)
        self.ask_again.toggled.connect(book.set_asks)
        self.start_button = PrimaryButton("Start")
        self.start_button.setDefault(True)
        self.skip_button = QPushButton("Skip")
        self.skip_button.setToolTip("Start without a prediction (Escape)")
        self.cancel_button = QPushButton("Do not start")
        for button in (self.skip_button, self.cancel_button):
            button.setAutoDefault(False)
        self._rows = QVBoxLayout()
        self._rows.setSpacing(10)
        tools = QHBoxLayout()
        tools.addWidget(self.more)
        tools.addWidget(self.draw_button)
        tools.addStretch(1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.ask_again)
        buttons.addStretch(1)
        for button in (self.cancel_button, self.skip_button, self.start_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setSpacing(10)
        layout.addWidget(what)
        layout.addLayout(self._rows)
        layout.addLayout(tools)
        self._curve_place = QVBoxLayout()
        layout.addLayout(self._curve_place, 1)
        layout.addWidget(self.sentence)
        layout.addWidget(why)
        layout.addWidget(self.problem)
        layout.addLayout(buttons)
        self.setMinimumWidth(_WIDTH)
        self.more.clicked.connect(self.add_row)
        self.draw_button.toggled.connect(self._show_curve)
        self.sentence.changed.connect(self._check)
        self.start_button.clicked.connect(self.start)
        self.skip_button.clicked.connect(self.skip)
        self.cancel_button.clicked.connect(self.reject)
        if self._values:
            self.add_row()
            self.rows[0].low.setFocus()
        self.more.setVisible(len(self._values) > 1)
        self._check()

    def add_row(self) -> None:
        """One thing more to predict: the next that is not asked for yet."""
        row = ValueRow(self._values)
        asked = {other.about.name for other in self.rows}
        fresh = next((quantity.name for quantity in self._values if quantity.name not in asked), "")
        row.ask_for(fresh or self._values[0].name)
        row.changed.connect(self._check)
        self.rows.append(row)
        self._rows.addWidget(row)
        self.more.setEnabled(len(self.rows) < min(_MOST_ROWS, len(self._values)))
        (row.choice if row.about.answer == CHOICE else row.low).setFocus()
        self._check()

    def stated(self) -> list[Prediction]:
        """What the form says now. UsageError when it cannot be."""
        found = [row.prediction() for row in self.rows]
        if self.curve is not None and self.draw_button.isChecked():
            found.append(self.curve.prediction())
        found.append(self.sentence.prediction())
        return [prediction for prediction in found if prediction is not None]

    def start(self) -> None:
        """Locks what was stated; stays open when it cannot be."""
        try:
            self.predictions = self.stated()
        except UsageError:
            self._check()
            return
        self.accept()

    def skip(self) -> None:
        """Starts without a prediction, whatever was filled in."""
        self.predictions = []
        self.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.skip()
        else:
            super().keyPressEvent(event)

    def _show_curve(self, on: bool) -> None:
        if on and self.curve is None and self._expected is not None:
            self.curve = CurveRow(self._expected.steps, self._expected.start_loss)
            self.curve.changed.connect(self._check)
            self._curve_place.addWidget(self.curve, 1)
        if self.curve is not None:
            self.curve.setVisible(on)
        if not on:
            self.adjustSize()
        self._check()

    def _check(self) -> None:
        """Says at once what is wrong, and what Start will do."""
        try:
            stated = self.stated()
            self.problem.say("")
        except UsageError as error:
            stated = []
            self.problem.say(str(error))
        self.start_button.setText("Lock and start" if stated or self.problem.text() else "Start")


def ask_prediction(
    parent: QWidget, book: Book, about: str, quantities: Sequence[Quantity], expected: Expected | None = None
) -> list[Prediction] | None:
    """Asks, and waits for the answer: see `Book.ask`."""
    dialog = PredictionDialog(book, about, quantities, expected, parent)
    dialog.exec()
    predictions = dialog.predictions
    dialog.deleteLater()
    return predictions
