"""A paper of one's own: beginning it, and the dialog that asks its open questions one by one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QDialog, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.data.papers import Paper
from llmlab.studies.papers.own import CLAIM_QUESTIONS, PAPER_QUESTIONS, OwnPaper, add_claim, write_answer
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.question import LineQuestion

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
        self._asked: list[tuple[int | None, str, str, str]] = [  # place of the claim, its id, field, answer so far
            (None, "the paper", field, _before(own.paper, field)) for field in PAPER_QUESTIONS
        ]
        for place, claim in enumerate(own.paper.claims):
            self._asked += [(place, claim.id, field, getattr(claim, field)) for field in CLAIM_QUESTIONS]
        open_ones = {(one.claim or "the paper", one.field) for one in own.missing}
        self._at = next((n for n, (_, id, field, _) in enumerate(self._asked) if (id, field) in open_ones), 0)
        self.setWindowTitle(own.paper.title)
        self.where, self.question, self.problem = QuietLabel(), QLabel(), ProblemLabel()
        self.question.setWordWrap(True)
        self.answer = _Answer()
        self.back_button, self.next_button = QPushButton("Back"), PrimaryButton("Next")
        self.claim_button, self.leave_button = QPushButton("Another claim…"), QPushButton("Save and close")
        self.next_button.setToolTip("Keeps the answer (Ctrl+Enter); an empty one stays open")
        self.next_button.setDefault(True)
        layout = QVBoxLayout(self)
        for widget in (self.where, self.question, self.answer, self.problem):
            layout.addWidget(widget)
        layout.addLayout(beside(self.claim_button, QWidget(), self.leave_button, self.back_button, self.next_button))
        self.setMinimumWidth(self.fontMetrics().averageCharWidth() * _WIDTH)
        self.next_button.clicked.connect(lambda: self._go(1))
        self.back_button.clicked.connect(lambda: self._go(-1))
        self.leave_button.clicked.connect(self._leave)
        self.claim_button.clicked.connect(self._ask_claim)
        self.answer.given.connect(lambda: self._go(1))
        self._show()

    def _show(self) -> None:
        place, id, field, words = self._asked[self._at]
        about = "The paper" if place is None else f"Claim {id}"
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
        if words == before or (not words and field in ("year", "links")):
            return True
        try:
            write_answer(self._folder, place, field, words)
        except LabError as error:
            return self._refused(str(error))
        except OSError as error:
            return self._refused(f"The answer could not be written. {error.strerror or error}.")
        self._asked[self._at] = (place, id, field, words)
        return True

    def _refused(self, why: str) -> bool:
        self.problem.say(why)
        self.answer.setFocus(Qt.FocusReason.OtherFocusReason)
        return False

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
        """Escape loses nothing that can be kept."""
        if self._keep():
            super().reject()

    def _ask_claim(self) -> None:
        if not self._keep():
            return
        question = LineQuestion(self, "Add", "A short name of the claim, one word:", "", self._add)
        question.exec()

    def _add(self, id: str) -> None:
        place = add_claim(self._folder, id)
        self._at = len(self._asked)
        self._asked += [(place, id, field, "") for field in CLAIM_QUESTIONS]
        self._show()


def _before(paper: Paper, field: str) -> str:
    """An answer as it is typed."""
    if field == "year":
        return str(paper.year) if paper.year else ""
    if field == "links":
        return " ".join(paper.links)
    words = str(getattr(paper, field))
    return "" if words == paper.name else words
