"""A paper of one's own: beginning it, and the dialog that asks its open questions one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QDialog, QLabel, QPlainTextEdit, QPushButton, QWidget

from llmlab.core.errors import LabError
from llmlab.data.papers import Claim
from llmlab.studies.papers.own import CLAIM_QUESTIONS, NOTES_QUESTIONS, PAPER_QUESTIONS, OwnPaper, note_parts
from llmlab.studies.papers.own_answers import add_claim, answer_of, write_answer, write_note
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.question import LineQuestion, ask

PAPER, CLAIM, NOTE = "paper", "claim", "note"
_WIDTH, _LINES = 64, 5  # characters, and lines of an answer in sight


@dataclass(frozen=True)
class _Asked:
    """A question. place: of its claim, or of its heading among the notes. of: the claim's id, "" for none."""

    kind: str
    place: int
    of: str
    field: str
    question: str
    words: str  # the answer so far


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
    """Asks question after question: of the paper, of the notes on it, of each claim. Each answer is kept in the paper's
    files as soon as the next is asked.

    It begins with the first that is open, can be left at any time, and goes on there when it is opened again.
    """

    def __init__(self, own: OwnPaper, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._folder, paper = own.folder, own.paper
        self._name = paper.name
        parts = note_parts(paper.notes)
        notes = [(part.question, part.words) for part in parts] or [(NOTES_QUESTIONS[0], "")]
        self._asked = [
            _Asked(PAPER, 0, "", field, question, answer_of(paper, field))
            for field, question in PAPER_QUESTIONS.items()
        ]
        self._asked += [_Asked(NOTE, place, "", "", *note) for place, note in enumerate(notes)]
        for place, claim in enumerate(paper.claims):
            self._ask_of_claim(place, claim.id, claim)
        open_ones = {(one.claim, one.question) for one in own.missing}
        self._at = next((n for n, one in enumerate(self._asked) if (one.of, one.question) in open_ones), 0)
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
        asked = self._asked[self._at]
        about = {PAPER: "The paper", NOTE: "Your notes", CLAIM: f"Claim “{asked.of[:_WIDTH]}”"}[asked.kind]
        self.where.setText(f"{about} · question {self._at + 1} of {len(self._asked)}")
        self.question.setText(asked.question)
        self.answer.setAccessibleName(asked.question)
        self.answer.setPlainText(asked.words)
        self.answer.selectAll()
        self.answer.setFocus(Qt.FocusReason.OtherFocusReason)
        self.back_button.setEnabled(self._at > 0)
        self.next_button.setText("Next" if self._at + 1 < len(self._asked) else "Done")
        self.problem.say("")

    def _keep(self) -> bool:
        """Writes the answer where it changed; False where it cannot be, which is said."""
        asked = self._asked[self._at]
        words = self.answer.toPlainText().strip()
        if words == asked.words:
            return True
        try:
            if asked.kind == NOTE:
                words = write_note(self._folder, asked.place, words, (asked.question, asked.words))
            else:
                place = asked.place if asked.kind == CLAIM else None
                seen = (asked.of or self._name, asked.words)
                words = write_answer(self._folder, place, asked.field, words, seen)
        except LabError as error:
            self.problem.say(str(error))
            self.answer.setFocus(Qt.FocusReason.OtherFocusReason)
            return False
        self._asked[self._at] = replace(asked, words=words)
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
        self._ask_of_claim(place, id)
        self._show()

    def _ask_of_claim(self, place: int, id: str, claim: Claim | None = None) -> None:
        for field, question in CLAIM_QUESTIONS.items():
            words = answer_of(claim, field) if claim is not None else ""
            self._asked.append(_Asked(CLAIM, place, id, field, question, words))
