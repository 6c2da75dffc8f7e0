"""The question before a run or an experiment: what do you expect?"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QVBoxLayout, QWidget

from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, TEXT, Quantity
from llmlab_gui.lab.book import Anchors, Book, Expected, Unread
from llmlab_gui.notebook.prediction_form import CurveRow, ValueRow
from llmlab_gui.notebook.start_question import StartQuestion
from llmlab_gui.widgets.buttons import toggle_button, tool_button
from llmlab_gui.widgets.layouts import beside, column

_WIDTH = 660  # with room for the curve
# As many things as anyone thinks about before one run.
_MOST_ROWS = 6


class PredictionDialog(StartQuestion):
    """A row a quantity, and the curve drawn by hand."""

    def __init__(
        self,
        book: Book,
        about: str,
        quantities: Sequence[Quantity],
        expected: Expected | None = None,
        parent: QWidget | None = None,
        *,
        anchors: Anchors | None = None,
        before: Sequence[Prediction | Unread] = (),
    ) -> None:
        """anchors: looks up what to go by. before: what was stated or typed already, and may be changed."""
        draws = expected is not None and any(quantity.answer == CURVE for quantity in quantities)
        shown = _shown(before, draws=draws)
        self._kept = [one for one in before if isinstance(one, Prediction) and one not in shown]
        also = f" Also stated: {'; '.join(map(str, self._kept))}." if self._kept else ""
        super().__init__(book, about, f"Leave it empty if you have no idea.{also}", parent, anchors=anchors)
        self._values = [quantity for quantity in quantities if quantity.answer in (NUMBER, CHOICE)]
        known = {quantity.name for quantity in self._values}
        others = [prediction.about for prediction in shown if prediction.kind in (NUMBER, CHOICE)]
        self._values += [quantity for quantity in others if quantity.name not in known]  # steps_to_2.5, say
        self.rows: list[ValueRow] = []
        self.curve: CurveRow | None = None
        self._expected = expected if draws else None
        self.more = tool_button("Another quantity", "Add a prediction", slot=self.add_row)
        self.draw_button = toggle_button("Draw the curve", "Draw the validation loss over the steps with the mouse")
        self.draw_button.setVisible(self._expected is not None)
        self._values_place = QVBoxLayout()
        self._values_place.setSpacing(10)
        tools = beside(self.more, self.draw_button, 1)
        self._curve_place = QVBoxLayout()
        self._free = QWidget()
        content = column(self._values_place, tools, self._curve_place, (self._free, 1), spacing=10)
        self.lay_out(content, _WIDTH)
        self.draw_button.toggled.connect(self._show_curve)
        if self._values:
            self.add_row()
        self.more.setVisible(len(self._values) > 1)
        self._fill(shown)
        if self.rows:
            self.rows[0].low.setFocus()
        self.check()

    def add_row(self) -> None:
        """One thing more to predict: the next that is not asked for yet."""
        row = ValueRow(self._values)
        asked = {other.about.name for other in self.rows}
        fresh = next((quantity.name for quantity in self._values if quantity.name not in asked), "")
        row.ask_for(fresh or self._values[0].name)
        row.changed.connect(self.check)
        self.rows.append(row)
        self._rows.append(row)
        self._values_place.addWidget(row)
        row.show()  # at once, so that it counts
        self.fit()
        self.more.setEnabled(len(self.rows) < min(_MOST_ROWS, len(self._values)))
        (row.choice if row.about.answer == CHOICE else row.low).setFocus()
        self.check()

    def answers(self) -> list[Prediction | None]:
        """Of each quantity, and the curve where one was drawn; and what was stated before that no row can show."""
        found = [*self._kept, *(row.prediction() for row in self.rows)]
        if self.curve is not None and self.draw_button.isChecked():
            found.append(self.curve.prediction())
        return found

    def left(self) -> list[Prediction | Unread]:
        return [*self._kept, *super().left()]

    def _fill(self, before: Sequence[Prediction | Unread]) -> None:
        values = [prediction for prediction in before if prediction.kind in (NUMBER, CHOICE)]
        for place, prediction in enumerate(values):
            if place >= len(self.rows):
                self.add_row()
            self.rows[place].fill(prediction)
        for prediction in before:
            if isinstance(prediction, Prediction) and prediction.kind == TEXT:
                self.sentence.fill(prediction)
            elif prediction.kind == CURVE:
                self.draw_button.setChecked(True)
                assert self.curve is not None
                self.curve.fill(prediction)

    def _show_curve(self, on: bool) -> None:
        if on and self.curve is None and self._expected is not None:
            self.curve = CurveRow(self._expected.steps, self._expected.start_loss)
            self.curve.changed.connect(self.check)
            self._curve_place.addWidget(self.curve, 1)
            self._rows.append(self.curve)
        if self.curve is not None:
            self.curve.setVisible(on)
        self._free.setVisible(not on)
        self.fit()
        if not on:
            self.adjustSize()
        self.check()


def _shown(before: Sequence[Prediction | Unread], *, draws: bool) -> list[Prediction | Unread]:
    """What the form can show: ranges, choices, one curve and one sentence, each with how sure one is."""
    found: list[Prediction | Unread] = []
    for prediction in before:
        again = prediction.kind in (CURVE, TEXT) and any(other.kind == prediction.kind for other in found)
        if prediction.kind == CURVE:
            fits = draws
        elif isinstance(prediction, Unread):
            fits = True
        else:
            fits = prediction.confidence is not None and (prediction.kind != NUMBER or prediction.is_range)
        if fits and not again:
            found.append(prediction)
    return found
