"""What every question before a start has: a sentence of one's own, and the buttons. Enter starts, Escape skips it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QCheckBox, QDialog, QHBoxLayout, QLabel, QLayout, QPushButton, QVBoxLayout, QWidget

from llmlab.core.errors import UsageError
from llmlab.notebook.predictions import Prediction
from llmlab_gui.notebook.prediction_form import SentenceRow
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel

if TYPE_CHECKING:
    from llmlab_gui.lab.book import Book


class StartQuestion(QDialog):
    """`predictions` is what was stated: empty when the question was skipped, None when nothing is to start."""

    def __init__(self, book: Book, about: str, why: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("What do you expect?")
        self.predictions: list[Prediction] | None = None
        self.sentence = SentenceRow()
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("Errors")
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
        self._what = QLabel(about)
        self._what.setWordWrap(True)
        self._why = QuietLabel(f"Locked at the start, compared with the outcome. {why}")
        self.sentence.changed.connect(self.check)
        self.start_button.clicked.connect(self.start)
        self.skip_button.clicked.connect(self.skip)
        self.cancel_button.clicked.connect(self.reject)

    def answers(self) -> list[Prediction | None]:
        """What is stated beside the sentence. UsageError when it cannot be."""
        return []

    def stated(self) -> list[Prediction]:
        """What the form says now. UsageError when it cannot be."""
        found = [*self.answers(), self.sentence.prediction()]
        return [prediction for prediction in found if prediction is not None]

    def start(self) -> None:
        """Locks what was stated; stays open when it cannot be."""
        try:
            self.predictions = self.stated()
        except UsageError:
            self.check()
            return
        self.accept()

    def skip(self) -> None:
        """Starts without a prediction, whatever was filled in."""
        self.predictions = []
        self.accept()

    def check(self) -> None:
        """Says at once what is wrong, and what Start will do."""
        try:
            stated = self.stated()
            self.problem.say("")
        except UsageError as error:
            stated = []
            self.problem.say(str(error))
        self.start_button.setText("Lock and start" if stated or self.problem.text() else "Start")

    def ask(self) -> list[Prediction] | None:
        """Shows it, and waits for the answer; it cannot be shown again."""
        self.exec()
        self.deleteLater()
        return self.predictions

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.skip()
        else:
            super().keyPressEvent(event)

    def lay_out(self, parts: Sequence[QWidget | QLayout], tallest: QWidget | QLayout, width: int) -> None:
        """The question, its parts, of which `tallest` takes what room is left, the sentence, and the buttons."""
        buttons = QHBoxLayout()
        buttons.addWidget(self.ask_again)
        buttons.addStretch(1)
        for button in (self.cancel_button, self.skip_button, self.start_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setSpacing(10)
        for part in (self._what, *parts, self.sentence, self._why, self.problem, buttons):
            stretch = int(part is tallest)
            if isinstance(part, QLayout):
                layout.addLayout(part, stretch)
            else:
                layout.addWidget(part, stretch)
        self.setMinimumWidth(width)
