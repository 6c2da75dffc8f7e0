"""One prediction of the notebook: drawn over its result, with its scores, and a place for what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QWidget

from llmlab.notebook.entries import OPEN, Line
from llmlab.notebook.quantities import CHECK, CURVE, NUMBER, TEXT
from llmlab.notebook.words import altered_sentence, outcome_sentence, remarks, surprise_text
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.notebook.charts import ResultChart, StatedChart, belongs_to_loss
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import EmptyState, QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, column, stack
from llmlab_gui.widgets.theme import current_theme, theme_notifier


class NotebookDetail(QWidget):
    """Shows a line of an entry. Signals carry what the learner says."""

    learned = Signal(object, str)  # Entry, sentence
    judged = Signal(object, int, str)  # Entry, place, outcome
    score_wanted = Signal(object)  # Entry: of a run that was stopped

    def __init__(self) -> None:
        super().__init__()
        self.line: Line | None = None  # what is shown
        self.title, self.result = QLabel(wordWrap=True), QuietLabel()
        self.result_chart, self.stated_chart, self.no_chart = ResultChart(), StatedChart(), EmptyState()
        self._charts = stack(self.result_chart, self.stated_chart, self.no_chart)
        self.sentence, self.scores = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText), QuietLabel()
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.came_right, self.came_wrong = QPushButton("It was right"), QPushButton("It was wrong")
        self.came, self.came_save = labelled(QLineEdit(), "Outcome"), QPushButton("Save")
        self.came.setPlaceholderText("What was the outcome?")
        self.score_now = push_button(
            "Score it now",
            self._score,
            tip="The run was stopped: score it with what it recorded; this cannot be undone",
        )
        self.learn = labelled(QLineEdit(placeholderText="One sentence: what did you learn?"), "What you learned")
        self.learn.setMaxLength(1000)
        self.save = push_button("Save", self._learn, tip="Keep the sentence (Enter)")
        judging = beside(self.came_right, self.came_wrong, self.came, self.came_save, self.score_now)
        judging.addStretch(1)
        learning = beside(self.learn, self.save, grows=self.learn)
        under = (self.sentence, self.scores, self.result, judging, learning)
        column(self.title, (self._charts, 1), *under, into=self)
        self.came_right.clicked.connect(lambda: self._judge("right"))
        self.came_wrong.clicked.connect(lambda: self._judge("wrong"))
        self.came_save.clicked.connect(lambda: self._judge(self.came.text().strip()))
        self.came.returnPressed.connect(lambda: self._judge(self.came.text().strip()))
        self.learn.returnPressed.connect(self._learn)
        self.learn.textChanged.connect(self._typed)
        theme_notifier.changed.connect(self._restyle)

    def chart(self) -> LineChart | None:
        """What an export writes; None where there is nothing to draw."""
        shown = self._charts.currentWidget()
        return shown if isinstance(shown, LineChart) else None

    def show_line(self, line: Line, actual: Sequence[Sequence[float]], *, stopped: bool) -> None:
        """A prediction. actual: [step, validation loss] so far; stopped: its run ended before its last step."""
        before, self.line = self.line, line
        entry, prediction = line.entry, line.locked.prediction
        self.title.setText(f"<b>{escape(entry.about)}</b> · {escape(entry.title)}")
        self._say(line)
        self.scores.setText(_scores(line))
        self.scores.setVisible(bool(self.scores.text()))
        self.result.setText(f"{entry.result} {_remarks(line)}".strip())
        self.result.setVisible(bool(self.result.text()))
        if belongs_to_loss(line) and (actual or prediction.kind in (NUMBER, CURVE)):
            self._charts.setCurrentWidget(self.result_chart)
            self.result_chart.show_line(line, actual)
        elif prediction.kind == NUMBER and prediction.is_range:
            self._charts.setCurrentWidget(self.stated_chart)
            self.stated_chart.show_line(line)
        else:
            self._charts.setCurrentWidget(self.no_chart)
            self.no_chart.say(*_in_words(line))
        by_hand = prediction.about.by_hand and (line.score is not None or entry.scored_at is not None)
        sentence = prediction.kind == TEXT
        for widget, fits in (
            (self.came_right, sentence),
            (self.came_wrong, sentence),
            (self.came, not sentence),
            (self.came_save, not sentence),
        ):
            widget.setVisible(by_hand and fits)
        self.score_now.setVisible(stopped and entry.state == OPEN)
        other = before is None or before.entry.id != entry.id
        if other or before is None or before.entry.learned != entry.learned:  # keep what is being typed
            self.learn.setText(entry.learned)
        self.learn.setEnabled(entry.state != OPEN)
        self._typed()

    def _say(self, line: Line) -> None:
        """The sentence, with what was altered in the colour of what is wrong."""
        sentence, altered = outcome_sentence(line), altered_sentence(line)
        before = escape(sentence.removesuffix(altered), quote=False)
        colour = current_theme().bad
        self.sentence.setText(
            f'{before}<b style="color:{colour}">{escape(altered, quote=False)}</b>' if altered else before
        )

    def _restyle(self) -> None:
        if self.line is not None:
            self._say(self.line)

    def _typed(self) -> None:
        known = self.line.entry.learned if self.line is not None else ""
        self.save.setEnabled(self.learn.isEnabled() and self.learn.text().strip() != known)

    def _learn(self) -> None:
        if self.line is not None and self.save.isEnabled():
            self.learned.emit(self.line.entry, self.learn.text())

    def _judge(self, outcome: str) -> None:
        if self.line is not None and outcome:
            self.judged.emit(self.line.entry, self.line.place, outcome)

    def _score(self) -> None:
        if self.line is not None:
            self.score_wanted.emit(self.line.entry)


def _in_words(line: Line) -> tuple[str, str]:
    """What stands in a chart's place: of a claim, the claim and its verdict."""
    prediction, score = line.locked.prediction, line.score
    if prediction.about.subject != CHECK:
        return prediction.text or prediction.choice, prediction.about.title
    came = "no verdict yet" if score is None else str(score.outcome)
    return prediction.about.title, f"You expected: {prediction.choice}. The check says: {came}."


def _scores(line: Line) -> str:
    score = line.score
    if score is None or line.altered:
        return ""
    parts = (
        ("distance", score.distance, " half widths"),
        ("Brier score", score.brier, ""),
        ("interval score", score.interval, f" {line.locked.prediction.about.unit}".rstrip()),
    )
    words = [f"{name} {value:.3g}{unit}" for name, value, unit in parts if value is not None]
    words += [f"surprise {surprise_text(score.surprise)}"] if score.surprise is not None else []
    return " · ".join(words)


def _remarks(line: Line) -> str:
    return " ".join(f"{remark[:1].upper()}{remark[1:]}." for remark in remarks(line))
