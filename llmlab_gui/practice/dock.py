"""The Practice dock: a handful of questions a day about the active model, and how it stands with them."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHeaderView,
    QStackedWidget,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QWidget,
)

from llmlab.core.errors import LabError
from llmlab.notebook.calibration import calibration
from llmlab.notebook.entries import statements
from llmlab.practice.deck import HANDFUL, Record, when_words
from llmlab.practice.question import TRAINING, Marked, Question
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.notebook.charts import CalibrationChart, ScoreChart
from llmlab_gui.pages.library import load_first_hour, load_pages
from llmlab_gui.practice.asker import Asker
from llmlab_gui.practice.card import QuestionCard
from llmlab_gui.widgets.labels import EmptyState, QuietLabel, labelled, scrolled
from llmlab_gui.widgets.layouts import column, split
from llmlab_gui.widgets.tab_order import give_keyboard, main_part

_COLUMNS = ("", "Answered", "Right", "Kinds of question", "Of these, right last time")
_WAYS = {"know": "Know", "read": "Read", "predict": "Predict"}
_CAPTION = "What you missed comes back after a while, as FSRS plans it; Enter answers, a digit chooses."


class PracticeDock(LabDock):
    """Question, progress and calibration in three tabs."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "practice", "Practice", parent)
        self.asker, self.card = Asker(lab, self), QuestionCard(lab)
        self.record = Record()
        self._done: list[bool] = []  # of this handful
        self._begun = False
        self.table = labelled(QTableWidget(0, len(_COLUMNS)), "Progress by kind of question and by page")
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.due, self.verdict = QuietLabel(), QuietLabel()
        self.calibration = CalibrationChart()
        self.scores = ScoreChart("Interval score", ReferenceLine(1.0, "1: a range of useful width"))
        self.tabs = labelled(QTabWidget(documentMode=True), "Practice")
        self._words, self._place = EmptyState(), QStackedWidget()
        self._asked = scrolled(self.card)
        self._place.addWidget(self._words)
        self._place.addWidget(self._asked)
        self.tabs.addTab(self._place, "Question")
        charts = split((self.calibration, 1), (self.scores, 1), across=True)
        progress, calibrated = column(self.due, (self.table, 1)), column(self.verdict, (charts, 1))
        for page, name in ((progress, "Progress"), (calibrated, "Calibration")):
            page.setContentsMargins(8, 8, 8, 8)  # as the card has
            self.tabs.addTab(page, name)
        self.set_body(self.tabs)
        self.caption(_CAPTION, "predicting")
        self.card.answered.connect(self._take_answer)
        self.card.next_wanted.connect(self.go_on)
        self.asker.came.connect(self._take)
        self.asker.working.connect(self._tell)
        self.asker.failed.connect(self._fail)
        self.asker.kept.connect(self.show_record)
        lab.inspection.about_changed.connect(self._other_model)
        self._offer()

    def main_part(self) -> QWidget | None:
        """Where the answer goes."""
        card = self.card
        if self.tabs.currentIndex() == 0 and card.question is not None and card.isVisible():
            return card.next_button if card.marked is not None else card.line if card.line.isVisible() else card.choices
        return super().main_part()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if not self._begun:
            self.asker.look()

    def begin(self) -> None:
        """A new handful."""
        self._begun, self._done = True, []
        self.asker.begin()
        self._want()

    def go_on(self) -> None:
        """The next question, or what came of the handful."""
        if self._done and len(self._done) % HANDFUL == 0 and self.card.marked is not None:
            self._close()
        else:
            self._want()

    def show_record(self, record: Record) -> None:
        """What was answered so far."""
        self.record = record
        now = time.time()
        due = sum(when <= now for when in record.due.values())
        waiting = [when for when in record.due.values() if when > now]
        again = f" The next one comes back {when_words(min(waiting), now)}." if waiting else ""
        self.due.setText(
            f"{due} due now.{again}" if record.answers else "Nothing was answered yet. Answer a question first."
        )
        ways = [(_WAYS[way], tally) for way, tally in record.by_way().items()]
        titles = {page.name: page.title for page in (*load_first_hour(), *load_pages())}
        pages = ((titles.get(page, page), tally) for page, tally in record.by_concept().items())
        rows = [("By way of asking", None), *ways, ("By page", None), *pages] if ways else []
        self.table.clearSpans()
        self.table.setRowCount(len(rows))
        for row, (name, tally) in enumerate(rows):
            if tally is None:
                self._head(row, name)
                continue
            values = (name, tally.answered, tally.right, tally.kinds, tally.now_right)
            for place, value in enumerate(values):
                item = QTableWidgetItem(str(value))
                if place:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(row, place, item)
        found = record.calibration()
        predicted = calibration(statements(self.lab.notebook.entries))
        widths = record.widths()
        self.verdict.setText(
            f"Intervals here, at 80 %: {found.verdict}\n{widths.verdict}\n"
            f"Predictions in the Notebook: {predicted.verdict}"
        )
        self.calibration.show_calibration(found)
        self.scores.show_means(widths.over_time)

    def _head(self, row: int, name: str) -> None:
        """What the rows below are."""
        item = QTableWidgetItem(name)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        self.table.setItem(row, 0, item)
        self.table.setSpan(row, 0, 1, len(_COLUMNS))

    def shutdown(self) -> None:
        self.asker.shutdown()
        super().shutdown()

    def _take(self, question: Question | None) -> None:
        if question is None:
            self._close("There is nothing more to ask today.")
            return
        keyboard = QApplication.focusWidget()
        self.card.show_question(question, f"question {len(self._done) % HANDFUL + 1} of {HANDFUL}")
        self._place.setCurrentWidget(self._asked)
        if keyboard is not None and self.isAncestorOf(keyboard):  # on the button that is gone, or where Qt moved on
            self.card.take_keyboard()

    def _take_answer(self, question: Question, marked: Marked) -> None:
        self._done.append(marked.right)
        self.asker.keep(question, marked)
        if len(self._done) % HANDFUL:
            self.asker.prepare()
        else:
            self.card.next_button.setText("Finish")

    def _close(self, why: str = "") -> None:
        """The end of a handful: what came of it, and the way to more."""
        self.card.next_button.setText("Next question")
        right, waiting = sum(self._done), [when for when in self.record.due.values() if when > time.time()]
        again = f"The next one comes back {when_words(min(waiting), time.time())}." if waiting else ""
        self._end_with(why or f"{right} of {len(self._done)} right", again, "Five more", self._more)

    def _more(self) -> None:
        if self.asker.changed():
            self.begin()
        else:
            self._done = []
            self._want()

    def _skip(self) -> None:
        self._put_keyboard_aside()
        self.asker.skip()

    def _want(self) -> None:
        self._put_keyboard_aside()
        self.asker.next()

    def _put_keyboard_aside(self) -> None:
        """Until the question is there: Enter is not to press Cancel, to which Qt would give the keyboard."""
        if self._place.isAncestorOf(self.window().focusWidget()):
            self._place.setFocus()

    def _say(self, title: str, hint: str, action: str = "", slot: Callable[[], object] | None = None) -> None:
        """Instead of a question: why there is none, and what to do."""
        self._words.say(title, hint, action, slot)
        self._place.setCurrentWidget(self._words)

    def _end_with(self, title: str, hint: str, action: str, slot: Callable[[], object]) -> None:
        """The same where no question is waited for any more: the keyboard that was put aside gets the button."""
        self._say(title, hint, action, slot)
        if self.window().focusWidget() is self._place and (button := main_part(self._words)) is not None:
            give_keyboard(button, Qt.FocusReason.OtherFocusReason)

    def _offer(self) -> None:
        hint = (
            "Five questions: counts, readings, predictions that are then run, code and papers. Every second one is "
            "about the active model or the current run; before there is one, about a preset. What you miss comes back."
        )
        self._say("Practise on your own model", hint, "Ask me", self.begin)

    def _tell(self, news: Working) -> None:
        share = f" ({100 * news.share:.0f} %)" if news.share is not None else ""
        what = f"{news.what or 'Computing a question'}{share}"
        if news.what.startswith(TRAINING):
            hint = "The effect of a change is measured by training with and without it, on the text of your run."
            self._say(what, hint, "Skip this question", self._skip)
        else:
            self._say(what, "The answer is computed before you are asked.", "Cancel", self._cancel)

    def _cancel(self) -> None:
        self.asker.end()
        self._offer()

    def _fail(self, error: LabError) -> None:
        self._end_with(error.what, f"{error.why} {error.do}".strip(), "Try again", self.begin)

    def _other_model(self) -> None:
        """Another model is asked about from the next handful on; before the first, nothing has to change."""
        if self._begun and self.card.question is None:
            self._offer()
