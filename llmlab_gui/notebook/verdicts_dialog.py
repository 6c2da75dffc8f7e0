"""The question before a check of a paper: which verdict do you expect on each claim? Escape skips it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from llmlab.errors import UsageError
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.quantities import Quantity
from llmlab_gui.docks.base import PrimaryButton, ProblemLabel, QuietLabel, scrolled
from llmlab_gui.notebook.prediction_form import ConfidenceSlider, SentenceRow

if TYPE_CHECKING:
    from llmlab_gui.notebook.book import Book

_WIDTH = 640
_TALLEST = 460  # of the claims; more are scrolled
_FIRST_CONFIDENCE = 70
_NO_IDEA = "no idea"


class VerdictRow(QWidget):
    """One claim: the verdict that is expected, and how sure one is."""

    changed = Signal()

    def __init__(self, about: Quantity, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.about = about
        title = QLabel(about.title)
        title.setWordWrap(True)
        self.verdict = QComboBox()
        self.verdict.setAccessibleName(f"Verdict on: {about.title}")
        self.verdict.addItem(_NO_IDEA, "")
        for choice in about.choices:
            self.verdict.addItem(choice, choice)
        self.sure = ConfidenceSlider(_FIRST_CONFIDENCE)
        policy = self.sure.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.sure.setSizePolicy(policy)
        self.sure.hide()
        answer = QHBoxLayout()
        answer.addWidget(self.verdict)
        answer.addWidget(self.sure, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(title)
        layout.addLayout(answer)
        self.verdict.currentIndexChanged.connect(self._chosen)
        self.sure.changed.connect(self.changed)

    def prediction(self) -> Prediction | None:
        """What it says; None while there is no idea."""
        verdict = self.verdict.currentData()
        return parse_prediction(f"{self.about.name}={verdict}@{self.sure.value}%") if verdict else None

    def _chosen(self) -> None:
        self.sure.setVisible(bool(self.verdict.currentData()))
        self.changed.emit()


class VerdictsDialog(QDialog):
    """`predictions` is what was stated: empty when the question was skipped, None when nothing is to start."""

    def __init__(self, book: Book, paper: str, claims: Sequence[Quantity], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("What do you expect?")
        self.predictions: list[Prediction] | None = None
        what = QLabel(f"Which verdict will there be on each claim of <b>{paper}</b>?")
        what.setWordWrap(True)
        self.rows = [VerdictRow(claim) for claim in claims]
        self.sentence = SentenceRow()
        why = QuietLabel("Locked when it starts, compared with what comes. Leave out what you have no idea of.")
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
        self._lay_out(what, why)
        self.sentence.changed.connect(self._check)
        for row in self.rows:
            row.changed.connect(self._check)
        self.start_button.clicked.connect(self.start)
        self.skip_button.clicked.connect(self.skip)
        self.cancel_button.clicked.connect(self.reject)
        if self.rows:
            self.rows[0].verdict.setFocus()
        self._check()

    def stated(self) -> list[Prediction]:
        """What the form says now. UsageError when it cannot be."""
        found = [row.prediction() for row in self.rows]
        return [prediction for prediction in (*found, self.sentence.prediction()) if prediction is not None]

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

    def _check(self) -> None:
        """Says at once what is wrong, and what Start will do."""
        try:
            stated = self.stated()
            self.problem.say("")
        except UsageError as error:
            stated = []
            self.problem.say(str(error))
        self.start_button.setText("Lock and start" if stated or self.problem.text() else "Start")

    def _lay_out(self, what: QLabel, why: QLabel) -> None:
        claims = QWidget()
        column = QVBoxLayout(claims)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(12)
        for row in self.rows:
            column.addWidget(row)
        column.addStretch(1)
        area = scrolled(claims)
        area.setMinimumHeight(min(_TALLEST, claims.sizeHint().height() + 8))
        buttons = QHBoxLayout()
        buttons.addWidget(self.ask_again)
        buttons.addStretch(1)
        for button in (self.cancel_button, self.skip_button, self.start_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setSpacing(10)
        layout.addWidget(what)
        layout.addWidget(area, 1)
        layout.addWidget(self.sentence)
        layout.addWidget(why)
        layout.addWidget(self.problem)
        layout.addLayout(buttons)
        self.setMinimumWidth(_WIDTH)


def ask_verdicts(parent: QWidget, book: Book, paper: str, claims: Sequence[Quantity]) -> list[Prediction] | None:
    """Asks, and waits for the answer: see `Book.ask_of_check`."""
    dialog = VerdictsDialog(book, paper, claims, parent)
    dialog.exec()
    predictions = dialog.predictions
    dialog.deleteLater()
    return predictions
