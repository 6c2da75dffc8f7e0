"""Two questions in a page of Learn, about the reader's own model: at the end of a page of concepts.

Where they stand is a line of the page, `![Two questions](ask:)`, put there by `with_questions`; the file has none, so
it reads the same in a terminal. A page of the first hour asks in the same way about the concept page that it leads to,
or about its own run or check; the second one does so under its own question.
"""

from __future__ import annotations

import re
from dataclasses import replace

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.learning.stations import questions_of
from llmlab.practice.question import CHECK, FINE_TUNE, LOOK_INSIDE, OF_FIRST_HOUR, TRAINING, Marked, Question
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.lab import Lab
from llmlab_gui.pages.browser import GUEST
from llmlab_gui.pages.page import CONCEPTS, Page
from llmlab_gui.practice.asker import Asker
from llmlab_gui.practice.card import QuestionCard
from llmlab_gui.widgets.labels import QuietLabel

COUNT = 2
_PLACE = f"![Two questions]({GUEST})"
# Pages of the first hour ask about the page of concepts that they lead to, if they have no questions of their own.
_FIRST_HOUR = {
    "first-hour/1-train": "loss-curves",
    "first-hour/3-predict": "loss-curves",
    **{page: page for page in OF_FIRST_HOUR},
}
# The run that a page of the first hour asks about, and which page that is.
_RUNS = {LOOK_INSIDE: ("first-gpt", "the model of the first page"), FINE_TUNE: ("answers", "the model of this page")}


def concept_of(page: Page) -> str:
    """The page that the questions of a page belong to; "" where it asks none."""
    return page.name if page.group == CONCEPTS else _FIRST_HOUR.get(page.name) or questions_of(page.name)


def with_questions(page: Page) -> Page:
    """The page with a place for its questions at its end, or under its own; as it is where it asks none."""
    if not concept_of(page):
        return page
    if page.name == LOOK_INSIDE:
        text = re.sub(r"^\? .*\n\n", rf"\g<0>{_PLACE}\n\n", page.text, count=1, flags=re.MULTILINE)
    else:
        text = f"{page.text.rstrip()}\n\n## Two questions\n\n{_PLACE}\n"
    return replace(page, text=text)


class PageQuestions(QWidget):
    """One line until it is opened; then a question, marked in place, and a second one. The guest of a page."""

    answered = Signal(str)  # the name of the page, after each answer was given

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self.asker, self.card = Asker(lab, self), QuestionCard(lab)
        self._page = self._concept = ""
        self._asked = 0
        # By page: a question that is not answered yet, what is typed or chosen, which one it is.
        self._open: dict[str, tuple[Question, str, int]] = {}
        self._waits = self._trains = False  # for a question; for one that small models are trained for
        self.words, self.button = QuietLabel(), QPushButton("Ask me")
        self.button.clicked.connect(self._press)
        line = QHBoxLayout()
        line.addWidget(self.words, 1)
        line.addWidget(self.button)
        self.card.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.card)
        self.card.answered.connect(self._take_answer)
        self.card.next_wanted.connect(self._go_on)
        self.asker.came.connect(self._take)
        self.asker.working.connect(self._tell)
        self.asker.failed.connect(self._fail)
        lab.runs_changed.connect(self._look_again)
        lab.inspection.about_changed.connect(self._look_again)

    def show_page(self, page: Page) -> None:
        """Offers the questions of a page, unless they are being asked already. One that was left open is asked on."""
        if page.name == self._page:
            return
        self.asker.end()
        card = self.card
        if card.question is not None and card.marked is None and not card.isHidden():
            self._open[self._page] = card.question, card.given, self._asked
        self._page = card.page = page.name
        self._concept = concept_of(page)
        question, given, number = self._open.pop(page.name, (None, "", 0))
        if question is None:
            self._offer()
            return
        self.asker.begin(self._concept, self._about() or "", [question.kind])
        self._asked = number - 1
        self._ask(question, given)
        self.button.hide()

    def begin(self) -> None:
        """The first question."""
        about = self._about()
        if about is None:
            self._offer()
            return
        self._asked = 0
        self.asker.begin(self._concept, about)
        self._put_keyboard_aside()
        self.asker.next()

    def _press(self) -> None:
        if not self._waits:
            self.begin()
        elif self._trains:
            self._put_keyboard_aside()
            self.asker.skip()
        else:
            self.asker.end()
            self._offer()

    def _put_keyboard_aside(self) -> None:
        """Until the question is there: Enter is not to press Cancel, as in Practice."""
        if self._has_keyboard():
            self.setFocus()

    def _has_keyboard(self) -> bool:
        keyboard = self.window().focusWidget()
        return keyboard is self or (keyboard is not None and self.isAncestorOf(keyboard))

    def _about(self) -> str | None:
        """The run that a page of the first hour is about, or else the open model; None where neither is there yet.

        "": what is active, as on all other pages.
        """
        if self._concept not in _RUNS:
            return ""
        row = self._lab.row_called(_RUNS[self._concept][0])
        if self._concept == LOOK_INSIDE and row is None and self._lab.inspection.about is not None:
            return ""
        return f"{row.run.path}@final" if row is not None and row.status.state == "finished" else None

    def _offer(self, words: str = "") -> None:
        self.card.hide()
        self._button("Ask me", waits=False)
        waits = self._about() is None
        if not words and waits:
            name, which = _RUNS[self._concept]
            row = self._lab.row_called(name)
            if row is None:
                when = "train it first."
            elif row.status.live:
                when = "it is still training, and can be asked about when it has ended."
            else:
                when = "it was not trained to its end: resume it first."
            words = f"Two questions about {name}, {which}: {when}"
        self.button.setEnabled(not waits)
        other = self._page not in _FIRST_HOUR and self._page != self._concept
        which = "the page to read for them" if other else "this page"
        where = "" if self._concept in OF_FIRST_HOUR else " if its questions fit it, else from the preset"
        self.words.setText(words or f"About {which}, computed from your own model{where}.")
        if self.hasFocus():  # it was put aside for a question that does not come
            self.button.setFocus()

    def _look_again(self) -> None:
        """The model of the first hour is there, or trains now, or another is open."""
        if not self.button.isEnabled():
            self._offer()

    def _button(self, text: str, *, waits: bool) -> None:
        self.card.next_button.setEnabled(not waits)
        self._waits = waits
        self.button.setText(text)
        self.button.show()

    def _take(self, question: Question | None) -> None:
        keyboard = self._has_keyboard()
        if question is None:
            nobody = self._concept != CHECK and not (self._about() or self.asker.about())
            hint = " Open a model, or train a run, for more." if nobody else ""
            left = (
                "Two questions about your check of this claim on first-gpt: run it first."
                if self._concept == CHECK and not self._asked
                else "Skipped. The questions that are left need a training run."
                if self.asker.quick
                else "There is nothing more to ask here."
                if self._asked or nobody
                else "No question of this page fits this model. Open that of another run, trained from scratch."
            )
            self._offer(f"{left}{hint}")
            return
        self._ask(question)
        if keyboard:  # who has read on meanwhile goes on reading
            self.card.take_keyboard()
        self.button.hide()

    def _ask(self, question: Question, given: str = "") -> None:
        self._waits = False
        self._asked += 1
        self.card.next_button.setEnabled(True)
        self.words.setText(f"Question {self._asked} of {COUNT}")
        self.card.show()
        self.card.show_question(question, given=given)
        self.card.next_button.setText("Next question" if self._asked < COUNT else "Back to the page")

    def _take_answer(self, question: Question, marked: Marked) -> None:
        self.asker.keep(question, marked, self._page)
        if self._asked < COUNT:
            self.asker.prepare()
        self.answered.emit(self._page)

    def _go_on(self) -> None:
        if self._asked < COUNT:
            self._put_keyboard_aside()
            self.asker.next()
        else:
            again = "" if self._concept in OF_FIRST_HOUR else " What you missed comes back in Practice."
            self._offer(f"Answered.{again}")
            self.button.setFocus()

    def _tell(self, news: Working) -> None:
        self._trains = news.what.startswith(TRAINING)
        self.words.setText(f"{news.what or 'Computing a question'} ...")
        self._button("Skip this question" if self._trains else "Cancel", waits=True)

    def _fail(self, error: LabError) -> None:
        self._offer(str(error))
