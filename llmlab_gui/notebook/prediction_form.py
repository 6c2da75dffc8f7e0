"""The parts of the question before a run: a value with a confidence, a curve by hand, a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QLabel, QLineEdit, QSizePolicy, QSlider, QWidget

from llmlab.core.errors import UsageError
from llmlab.notebook.predictions import Prediction, number_text, parse_prediction
from llmlab.notebook.quantities import CHOICE, NUMBER, Quantity
from llmlab_gui.lab.book import Unread
from llmlab_gui.notebook.drawn_curve import DrawnCurve
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, column, stack
from llmlab_gui.widgets.one_line import ChoiceBox

# In steps of five, as people state them; nobody is 100 % sure.
_CONFIDENCES = (*range(10, 100, 5), 99)
_FIRST_CONFIDENCE = 80
_NUMBER_WIDTH = 9  # digits


class ConfidenceSlider(QWidget):
    """How sure one is, and what that would mean."""

    changed = Signal()

    def __init__(self, first: int = _FIRST_CONFIDENCE) -> None:
        """first: in per cent."""
        super().__init__()
        self.slider = labelled(QSlider(Qt.Orientation.Horizontal), "How sure are you?")
        self.slider.setRange(0, len(_CONFIDENCES) - 1)
        self.slider.setPageStep(2)
        self.slider.setMinimumWidth(140)
        self.slider.setToolTip("How sure you are. Over many predictions, this share should come true.")
        self.text = QuietLabel()
        self.text.setWordWrap(False)
        self.text.setMinimumWidth(
            self.fontMetrics().horizontalAdvance("99 % sure: 10 of 100 such predictions should miss")
        )
        column(beside(self.slider, self.text, grows=self.text), into=self)
        self.slider.valueChanged.connect(self._say)
        self.set_value(first)
        self._say()

    @property
    def value(self) -> int:
        """In per cent."""
        return _CONFIDENCES[self.slider.value()]

    def set_value(self, percent: int) -> None:
        """The nearest that there is."""
        nearest = min(range(len(_CONFIDENCES)), key=lambda place: abs(_CONFIDENCES[place] - percent))
        self.slider.setValue(nearest)

    def keep_place(self) -> None:
        """It takes its room while it is hidden, too: nothing moves when it is shown."""
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.setSizePolicy(policy)

    def fill(self, confidence: float | None) -> None:
        """As it was stated."""
        if confidence is not None:
            self.set_value(round(100 * confidence))

    def _say(self) -> None:
        missing = 100 - self.value
        share = f"{missing} of 100" if missing % 10 else f"{missing // 10} of 10"
        self.text.setText(f"{self.value} % sure: {share} such predictions should miss")
        self.changed.emit()


class AnswerRow(QWidget):
    """One thing that is asked. What has the keyboard where it is wrong is its focus proxy."""

    changed = Signal()

    def prediction(self) -> Prediction | None:
        """What it says; None when it is empty. UsageError when it cannot be."""
        raise NotImplementedError

    def unread(self) -> Unread | None:
        """What was typed, where that cannot be stated."""
        return None


class ValueRow(AnswerRow):
    """One quantity: a range, or one of several answers, and how sure one is."""

    def __init__(self, quantities: Sequence[Quantity]) -> None:
        super().__init__()
        self._quantities = list(quantities)
        self.quantity = labelled(ChoiceBox(), "What will it be?")
        self.quantity.fill([(quantity.name, quantity.title) for quantity in self._quantities])
        self.low, self.high, self.choice = QLineEdit(), QLineEdit(), labelled(ChoiceBox(), "Which")
        for edit, name in ((self.low, "From"), (self.high, "To")):
            edit.setAccessibleName(name)
            edit.setPlaceholderText(name.lower())
            edit.setMaximumWidth(self.fontMetrics().averageCharWidth() * (_NUMBER_WIDTH + 4))
            edit.textChanged.connect(self.changed)
        self.unit = QLabel()
        self.sure = ConfidenceSlider()
        row = beside(self.low, QLabel("to"), self.high, self.unit)
        row.addStretch(1)
        ends = column(row)
        self._answers = stack(ends, self.choice)
        self._answers.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.quantity, 0, 0)
        layout.addWidget(self._answers, 0, 1)
        layout.addWidget(self.sure, 1, 0, 1, 2)
        layout.setColumnStretch(1, 1)
        self.quantity.currentIndexChanged.connect(self._asked)
        self.choice.editTextChanged.connect(self.changed)
        self.choice.currentIndexChanged.connect(self.changed)
        self.sure.changed.connect(self.changed)
        self._asked()

    @property
    def about(self) -> Quantity:
        """What is asked for."""
        return self._quantities[max(0, self.quantity.currentIndex())]

    def ask_for(self, name: str) -> None:
        """Chooses the quantity."""
        self.quantity.setCurrentIndex(max(0, self.quantity.findData(name)))

    def prediction(self) -> Prediction | None:
        about, sure = self.about, f"@{self.sure.value}%"
        if about.answer == CHOICE:
            chosen = self.choice.currentText().strip()
            return parse_prediction(f"{about.name}={chosen}{sure}") if chosen else None
        self.setFocusProxy(self.low)
        low, high = self.low.text().strip(), self.high.text().strip()
        if not low and not high:
            return None
        if not low or not high:
            empty = self.high if low else self.low
            raise self._refusal(empty, "the range has only one end.", "", "Fill in both, or neither.")
        start, end = self._number(self.low), self._number(self.high)
        if start > end:
            what = f"the range goes from {low} down to {high}."
            raise self._refusal(self.low, what, "", "Write its lower end first.")
        if start == end:
            why = "No measured number is ever exactly that."
            raise self._refusal(self.low, f"the range is one number, {low}.", why, "Move its ends apart.")
        return Prediction(about.name, NUMBER, self.sure.value / 100, low=start, high=end)

    def unread(self) -> Unread | None:
        typed = (self.choice.currentText(),) if self.about.answer == CHOICE else (self.low.text(), self.high.text())
        return Unread(self.about.name, typed, self.sure.value)

    def fill(self, before: Prediction | Unread) -> None:
        """Shows what was stated, or typed."""
        self.ask_for(before.quantity)
        if isinstance(before, Unread):
            for line, typed in zip((self.low, self.high), before.words, strict=False):
                line.setText(typed)
            self.choice.setCurrentText(before.words[0])
            self.sure.set_value(before.sure)
            return
        if before.kind == CHOICE:
            if self.choice.isEditable():
                self.choice.setEditText(before.choice)
            else:
                self.choice.setCurrentText(before.choice)
        elif before.low is not None and before.high is not None:
            self.low.setText(number_text(before.low))
            self.high.setText(number_text(before.high))
        self.sure.fill(before.confidence)

    def _number(self, line: QLineEdit) -> float:
        words = line.text().strip()
        try:
            value = float(words)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            why = "A comma is no decimal point here." if "," in words else ""
            raise self._refusal(line, f"{words!r} is not a number.", why, "Write one, such as 2.1.")
        return value

    def _refusal(self, wrong: QLineEdit, what: str, why: str, hint: str) -> UsageError:
        """As a sentence that says of which row."""
        self.setFocusProxy(wrong)
        title = self.about.title
        return UsageError(f"{title[:1].upper()}{title[1:]}: {what}", why, hint)

    def _asked(self) -> None:
        about = self.about
        self.unit.setText(about.unit)
        if about.answer == CHOICE:
            with QSignalBlocker(self.choice):
                self.choice.clear()
                self.choice.setEditable(not about.choices)
                self.choice.addItems(["", *about.choices])
        self._answers.setCurrentIndex(1 if about.answer == CHOICE else 0)
        self.setFocusProxy(self.choice if about.answer == CHOICE else self.low)
        self.changed.emit()


class SentenceRow(AnswerRow):
    """A prediction in words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = labelled(QLineEdit(), "In your own words")
        self.words.setPlaceholderText("In your own words (you judge it afterwards)")
        self.sure = ConfidenceSlider(70)
        self.sure.keep_place()
        self.sure.hide()
        column(self.words, self.sure, into=self)
        self.words.textChanged.connect(self._typed)
        self.sure.changed.connect(self.changed)

    def prediction(self) -> Prediction | None:
        words = self.words.text().strip()
        return parse_prediction(f"text={words}@{self.sure.value}%") if words else None

    def fill(self, before: Prediction) -> None:
        """Shows what was stated."""
        self.words.setText(before.text)
        self.sure.fill(before.confidence)

    def _typed(self) -> None:
        self.sure.setVisible(bool(self.words.text().strip()))
        self.changed.emit()


class CurveRow(AnswerRow):
    """A curve drawn by hand, or written as points for those who draw with the keyboard."""

    def __init__(self, steps: int, start_loss: float) -> None:
        super().__init__()
        self.chart = DrawnCurve(steps, start_loss)
        self.chart.setMinimumHeight(220)
        self.points = labelled(QLineEdit(), "Points of the curve")
        self.points.setPlaceholderText("or write it: step:loss, for example 1:4.4, 100:3, 500:2.1")
        self.clear_button = push_button("Clear", self.chart.clear_drawing, tip="Clear the drawing")
        self.within = labelled(QLineEdit(placeholderText="nats"), "Average tolerance, in nats per token")
        self.within.setMaximumWidth(self.fontMetrics().averageCharWidth() * 9)
        self.sure = ConfidenceSlider(70)
        self.sure.keep_place()
        self.setFocusProxy(self.points)
        top = beside(self.points, self.clear_button, grows=self.points)
        bottom = beside(QLabel("on average within ±"), self.within, self.sure, grows=self.sure)
        column((self.chart, 1), top, bottom, into=self)
        self.chart.drawn.connect(self._drawn)
        self.points.textEdited.connect(self._written)
        self.within.textChanged.connect(self._within_typed)
        self._within_typed()
        self.sure.changed.connect(self.changed)

    def prediction(self) -> Prediction | None:
        words = self.points.text().strip()
        if not words:
            return None
        within = self.within.text().strip()
        near = f"+-{within}@{self.sure.value}%" if within else ""
        return parse_prediction(f"loss_curve={words}{near}")

    def unread(self) -> Unread | None:
        return Unread("loss_curve", (self.points.text(), self.within.text()), self.sure.value)

    def fill(self, before: Prediction | Unread) -> None:
        """Shows what was stated, or typed."""
        if isinstance(before, Unread):
            for line, typed in zip((self.points, self.within), before.words, strict=True):
                line.setText(typed)
            self.sure.set_value(before.sure)
            self._written()
            return
        self.points.setText(", ".join(f"{number_text(step)}:{number_text(loss)}" for step, loss in before.points))
        self.within.setText("" if before.tolerance is None else number_text(before.tolerance))
        self.sure.fill(before.confidence)
        self._written()

    def _within_typed(self) -> None:
        self.sure.setVisible(bool(self.within.text().strip()))  # sure of what, else
        self.changed.emit()

    def _drawn(self) -> None:
        points = ", ".join(f"{number_text(step)}:{number_text(loss)}" for step, loss in self.chart.points())
        self.points.setText(points)
        self.points.setCursorPosition(0)
        self.changed.emit()

    def _written(self) -> None:
        try:
            written = parse_prediction(f"loss_curve={self.points.text()}")
            self.chart.set_points(written.points)
        except UsageError:  # half of it is written; `prediction` says what is wrong
            self.chart.set_points([])
        self.changed.emit()
