"""Further experiments, what they found, and the evidence that the learner keeps."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QLineEdit, QListWidget, QPushButton, QWidget

from llmlab.mysteries.case import HEALTHY, MEASURE, QUESTIONS, RATE, SEED, Case, Mark
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.labels import EmptyState, QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, choice_box, column, flow, stack

_QUESTIONS = {HEALTHY: "Healthy run", SEED: "Other seed", RATE: "Third of the rate", MEASURE: "Measure"}
# Where evidence is, its words, and what is written after them.
_WHERE = (
    ("loss", "Loss", "step"),
    ("gradient", "Gradient norm", "step"),
    ("sample", "Sample", "step"),
    ("head", "Head", "layer.head"),
    ("stream", "Contributions", ""),
    ("lens", "Logit lens", ""),
    ("weights", "Parameters", ""),
)


class EvidenceForm(QWidget):
    """Its signals say what is wanted; what became of it is shown by `show_case`."""

    asked = Signal(str)  # one of QUESTIONS
    marked = Signal(str, str)  # where, note
    unmarked = Signal(int)  # place in the list
    opened = Signal(str)  # dock id

    def __init__(self) -> None:
        super().__init__()
        self.budget = QuietLabel()
        self.questions = {what: QPushButton() for what in QUESTIONS}
        for what, button in self.questions.items():
            button.setToolTip(QUESTIONS[what][1][:1].upper() + QUESTIONS[what][1][1:])
            button.clicked.connect(partial(self.asked.emit, what))
        self.measures = labelled(QuietLabel(), "What was measured")
        self.measures.hide()
        self.marks = labelled(QListWidget(), "Evidence", "Enter shows the panel, Del removes the evidence")
        self.marks.setWordWrap(True)
        self.none = EmptyState()
        self.none.say("No evidence yet", "Choose below where you see something odd, say what it is, and press Add.")
        self._listed = stack(self.none, self.marks)
        self.place = choice_box("Where the evidence is", _WHERE_CHOICES, least=9)
        self.at, self.note = QLineEdit(), QLineEdit()
        self.at.setAccessibleName("Step or head of the evidence")
        self.at.setMaximumWidth(90)
        self.note.setPlaceholderText("What you see there")
        self.note.setAccessibleName("What you see there")
        self.add_button = tool_button("Add", "Keep it as evidence", slot=self._add)
        self.place.currentIndexChanged.connect(self._placed)
        self.note.returnPressed.connect(self._add)
        self.at.returnPressed.connect(self._add)
        self.marks.itemActivated.connect(lambda _: self._open())
        delete = QShortcut(QKeySequence(Qt.Key.Key_Delete), self.marks, context=Qt.ShortcutContext.WidgetShortcut)
        delete.activated.connect(self._remove)
        self._marks: list[Mark] = []
        column(
            self.budget,
            flow(*self.questions.values()),
            self.measures,
            (self._listed, 1),
            beside(self.place, self.at, self.add_button, grows=self.place),
            self.note,
            into=self,
        )
        self._placed()

    def show_case(self, case: Case) -> None:
        """What is left, and what is kept."""
        done = case.answer is not None
        self.budget.setText(
            "Answered: further experiments are free."
            if done
            else f"{case.left} of {case.budget} points left for experiments."
        )
        asked = {one.what for one in case.asked}
        for what, button in self.questions.items():
            cost = 0 if done or what in asked else QUESTIONS[what][0]
            button.setText(_QUESTIONS[what] + (f" ({cost})" if cost else ""))
            button.setEnabled(cost <= case.left or done)
        if case.marks != self._marks:
            self._marks = case.marks
            self.marks.clear()
            self.marks.addItems([f"{mark.where}  {mark.note}".rstrip() for mark in case.marks])
        self._listed.setCurrentWidget(self.marks if case.marks else self.none)

    def clear(self) -> None:
        """Nothing of a mystery, until the next is shown."""
        self.budget.clear()
        for button in self.questions.values():
            button.setEnabled(False)
        self._marks = []
        self.marks.clear()
        self._listed.setCurrentWidget(self.none)
        self.show_measures([])

    def show_measures(self, lines: list[str]) -> None:
        """What was measured; nothing for no lines."""
        self.measures.setText("\n".join(lines))
        self.measures.setVisible(bool(lines))

    def where(self) -> str:
        """The place as it is kept: loss@120."""
        at = self.at.text().strip()
        return f"{self.place.currentData()}@{at}" if at else str(self.place.currentData())

    def _placed(self) -> None:
        hint = _WHERE[max(0, self.place.currentIndex())][2]
        self.at.setPlaceholderText(hint)
        self.at.setEnabled(bool(hint))
        if not hint:
            self.at.clear()

    def _add(self) -> None:
        self.marked.emit(self.where(), self.note.text())

    def _remove(self) -> None:
        if self.marks.currentRow() >= 0:
            self.unmarked.emit(self.marks.currentRow())

    def _open(self) -> None:
        if 0 <= self.marks.currentRow() < len(self._marks):
            self.opened.emit(self._marks[self.marks.currentRow()].dock)


_WHERE_CHOICES = [(key, words) for key, words, _ in _WHERE]
