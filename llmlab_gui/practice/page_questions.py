"""Two questions at the end of a page of Learn, about the reader's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSplitter, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.practice.question import Marked, Question
from llmlab_gui.host.selection import Working
from llmlab_gui.pages.page import CONCEPTS, Page
from llmlab_gui.practice.asker import Asker
from llmlab_gui.practice.card import QuestionCard
from llmlab_gui.widgets.labels import QuietLabel, scrolled

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab

COUNT = 2
# Pages of the first hour ask about the page of concepts that they lead to.
_FIRST_HOUR = {
    "first-hour/1-train": "loss-curves",
    "first-hour/2-look-inside": "logit-lens",
    "first-hour/3-predict": "loss-curves",
    "first-hour/4-fine-tune": "fine-tuning",
    "first-hour/5-check-a-claim": "statistics-of-claims",
}


class PageQuestions(QWidget):
    """One line until it is opened; then a question, marked in place, and a second one."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.asker, self.card = Asker(lab, self), QuestionCard(lab)
        self._page = ""
        self._asked = 0
        self.words, self.button = QuietLabel(), QPushButton("Ask me")
        self.button.clicked.connect(self.begin)
        line = QHBoxLayout()
        line.addWidget(self.words, 1)
        line.addWidget(self.button)
        self.room = scrolled(self.card)
        self.room.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.room, 1)
        self.card.answered.connect(self._take_answer)
        self.card.next_wanted.connect(self._go_on)
        self.asker.came.connect(self._take)
        self.asker.working.connect(self._tell)
        self.asker.failed.connect(self._fail)

    def show_page(self, page: Page) -> None:
        """Offers the questions of a page, where it has some."""
        concept = page.name if page.group == CONCEPTS else _FIRST_HOUR.get(page.name, "")
        self.setVisible(bool(concept))
        if concept != self._page:
            self.asker.end()
            self._page = concept
            self._offer()

    def begin(self) -> None:
        """The first question."""
        self._asked = 0
        self.asker.begin(self._page)
        self.asker.next()

    def shutdown(self) -> None:
        self.asker.shutdown()

    def _share(self, own: int) -> None:
        """Takes so many per cent of the height that it shares with the page."""
        halves = self.parentWidget()
        if isinstance(halves, QSplitter):
            halves.setSizes([(100 - own) * halves.height() // 100, own * halves.height() // 100])

    def _offer(self, words: str = "") -> None:
        self.room.hide()
        self._share(0)  # one line
        self.button.show()
        self.words.setText(words or "Two questions about this page, computed from your own model.")

    def _take(self, question: Question | None) -> None:
        if question is None:
            hint = " Open a model, or train a run, for more." if not self.asker.about() else ""
            self._offer(f"There is nothing more to ask here.{hint}")
            return
        self._asked += 1
        self.words.setText(f"Question {self._asked} of {COUNT}")
        self.button.hide()
        if self.room.isHidden():
            self.room.show()
            self._share(60)
        self.card.show_question(question)
        self.card.next_button.setText("Next question" if self._asked < COUNT else "Back to the page")
        self.card.take_keyboard()

    def _take_answer(self, question: Question, marked: Marked) -> None:
        self.asker.keep(question, marked)
        if self._asked < COUNT:
            self.asker.prepare()

    def _go_on(self) -> None:
        if self._asked < COUNT:
            self.asker.next()
        else:
            self._offer("Answered. What you missed comes back in Practice.")
            self.button.setFocus()

    def _tell(self, news: Working) -> None:
        self.words.setText(f"{news.what or 'Computing a question'} ...")

    def _fail(self, error: LabError) -> None:
        self._offer(str(error))
