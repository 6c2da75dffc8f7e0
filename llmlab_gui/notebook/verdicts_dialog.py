"""The question before a check of a paper: which verdict do you expect on each claim?"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QLabel, QWidget

from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.quantities import Quantity
from llmlab_gui.lab.book import Anchors, Book
from llmlab_gui.notebook.prediction_form import AnswerRow, ConfidenceSlider
from llmlab_gui.notebook.start_question import StartQuestion
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.one_line import ChoiceBox

_WIDTH = 640
_FIRST_CONFIDENCE = 70
_NO_IDEA = "no idea"


class VerdictRow(AnswerRow):
    """One claim: the verdict that is expected, and how sure one is."""

    def __init__(self, about: Quantity) -> None:
        super().__init__()
        self.about = about
        title = QLabel(about.title, wordWrap=True)
        self.verdict = labelled(ChoiceBox(), f"Verdict on: {about.title}")
        self.verdict.fill([("", _NO_IDEA), *((choice, choice) for choice in about.choices)])
        self.sure = ConfidenceSlider(_FIRST_CONFIDENCE)
        self.sure.keep_place()
        self.sure.hide()
        column(title, beside(self.verdict, self.sure, grows=self.sure), spacing=3, into=self)
        self.verdict.currentIndexChanged.connect(self._chosen)
        self.sure.changed.connect(self.changed)

    def prediction(self) -> Prediction | None:
        verdict = self.verdict.currentData()
        return parse_prediction(f"{self.about.name}={verdict}@{self.sure.value}%") if verdict else None

    def _chosen(self) -> None:
        self.sure.setVisible(bool(self.verdict.currentData()))
        self.changed.emit()


class VerdictsDialog(StartQuestion):
    """A row a claim."""

    def __init__(
        self,
        book: Book,
        paper: str,
        claims: Sequence[Quantity],
        parent: QWidget | None = None,
        *,
        anchors: Anchors | None = None,
    ) -> None:
        """anchors: looks up what to go by."""
        about = f"Which verdict do you expect on each claim of <b>{paper}</b>?"
        super().__init__(book, about, "Leave out claims you have no idea about.", parent, anchors=anchors)
        self.rows = [VerdictRow(claim) for claim in claims]
        self._rows += self.rows
        free = QWidget()
        content = column(*self.rows, (free, 1), spacing=12)
        self.lay_out(content, _WIDTH)
        for row in self.rows:
            row.changed.connect(self.check)
        if self.rows:
            self.rows[0].verdict.setFocus()
        self.check()

    def answers(self) -> list[Prediction | None]:
        """Of each claim."""
        return [row.prediction() for row in self.rows]
