"""A paper of one's own: beginning it, and the dialog that asks its open questions one by one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QDialog, QLabel, QPlainTextEdit, QPushButton, QWidget

from llmlab.core.errors import LabError
from llmlab.studies.papers.own import CLAIM_QUESTIONS, PAPER_QUESTIONS, OwnPaper
from llmlab.studies.papers.own_answers import add_claim, answer_of, write_answer
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.question import LineQuestion, ask

_WIDTH, _LINES = 64, 5  # characters, and lines of an answer in sight


class _Answer(QPlainTextEdit):
    """Enter begins a line, Ctrl+Enter gives the answer, Tab goes on to the buttons."""

    given = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setTabChangesFocus(True)
        self.setMinimumHeight(self.fontMetrics().lineSpacing() * _LINES)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.given.emit()
        else:
            super().keyPressEvent(event)


class PaperQuestions(QDialog):
    """Asks question after question, and keeps each answer in claims.toml as soon as the next is asked.

    It begins with the first that is open, can be left at any time, and goes on there when it is opened again.
    """

    def __init__(self, own: OwnPaper, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._folder = own.folder
        # The claim's place, its id or the paper's name, the field, and the answer so far.
        self._asked: list[tuple[int | None, str, str, str]] = [
            (None, own.paper.name, field, answer_of(own.paper, field)) for field in PAPER_QUESTIONS
        ]
        for place, claim in enumerate(own.paper.claims):
            self._asked += [(place, claim.id, field, answer_of(claim, field)) for field in CLAIM_QUESTIONS]
        open_ones = {(one.claim, one.field) for one in own.missing}
        keys = [("" if place is None else id, field) for place, id, field, _ in self._asked]
        self._at = next((n for n, key in enumerate(keys) if key in open_ones), 0)
        self.setWindowTitle(own.paper.title)
        self.where, self.question, self.problem = QuietLabel(), QLabel(), ProblemLabel()
        self.question.setWordWrap(True)
        self.answer = _Answer()
        self.answer.setPlaceholderText(
            "Your answer. Ctrl+Enter leads to the next question; an empty answer stays open."
        )
        self.back_button, self.next_button = QPushButton("Back"), PrimaryButton("Next")
        self.claim_button, self.leave_button = QPushButton("Another claim…"), QPushButton("Save and close")
        self.next_button.setToolTip("Keeps the answer (Ctrl+Enter); an empty one stays open")
        self.next_button.setDefault(True)
        buttons = beside(self.claim_button, QWidget(), self.leave_button, self.back_button, self.next_button)
        column(self.where, self.question, self.answer, self.problem, buttons, into=self, margins=None)
        self.setMinimumWidth(self.fontMetrics().averageCharWidth() * _WIDTH)
        self.next_button.clicked.connect(lambda: self._go(1))
        self.back_button.clicked.connect(lambda: self._go(-1))
        self.leave_button.clicked.connect(self._leave)
        self.claim_button.clicked.connect(self._ask_claim)
        self.answer.given.connect(lambda: self._go(1))
        self._show()

    def _show(self) -> None:
        place, id, field, words = self._asked[self._at]
        about = "The paper" if place is None else f"Claim {id[:_WIDTH]}"
        question = (PAPER_QUESTIONS if place is None else CLAIM_QUESTIONS)[field]
        self.where.setText(f"{about}: question {self._at + 1} of {len(self._asked)}")
        self.question.setText(question)
        self.answer.setAccessibleName(question)
        self.answer.setPlainText(words)
        self.answer.selectAll()
        self.answer.setFocus(Qt.FocusReason.OtherFocusReason)
        self.back_button.setEnabled(self._at > 0)
        self.next_button.setText("Next" if self._at + 1 < len(self._asked) else "Done")
        self.problem.say("")

    def _keep(self) -> bool:
        """Writes the answer where it changed; False where it cannot be, which is said."""
        place, id, field, before = self._asked[self._at]
        words = self.answer.toPlainText().strip()
        if words == before:
            return True
        try:
            words = write_answer(self._folder, place, field, words, (id, before))
        except LabError as error:
            self.problem.say(str(error))
            self.answer.setFocus(Qt.FocusReason.OtherFocusReason)
            return False
        self._asked[self._at] = (place, id, field, words)
        return True

    def _go(self, distance: int) -> None:
        if not self._keep():
            return
        if self._at + distance >= len(self._asked):
            self.accept()
            return
        self._at = max(0, self._at + distance)
        self._show()

    def _leave(self) -> None:
        if self._keep():
            self.accept()

    def reject(self) -> None:
        """Escape loses nothing that can be kept, and asks about what cannot."""
        left = {"close": "Close without it"}
        if self._keep() or ask(self, "Close", "This answer is not kept.", self.problem.text(), left, harmful="close"):
            super().reject()

    def _ask_claim(self) -> None:
        if not self._keep():
            return
        question = LineQuestion(self, "Add", "A short name of the claim, one word:", "", self._add)
        question.exec()
        question.deleteLater()

    def _add(self, id: str) -> None:
        place = add_claim(self._folder, id)
        self._at = len(self._asked)
        self._asked += [(place, id, field, "") for field in CLAIM_QUESTIONS]
        self._show()
