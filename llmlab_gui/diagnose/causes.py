"""The causes of a mystery with a probability each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QLabel, QSpinBox, QWidget

from llmlab.mysteries.faults import faults
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel
from llmlab_gui.widgets.layouts import beside, column

_WHOLE = 100


class CausesForm(QWidget):
    """Fields in whole per cent; they can be given as an answer when they make up 100."""

    answered = Signal(dict)  # probability by cause

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, QSpinBox] = {}
        self._labels: dict[str, QLabel] = {}
        self._grid = QGridLayout()
        self._grid.setColumnStretch(0, 1)
        self.total = QuietLabel()
        self.spread_button = tool_button(
            "Spread the rest", "Gives what is missing to the causes at 0 %", slot=self.spread
        )
        self.answer_button = PrimaryButton(
            "Answer", lambda: self.answered.emit(self.probabilities()), tip="Scores the answer and opens the seal"
        )
        buttons = beside(self.total, self.spread_button, self.answer_button, grows=self.total)
        column(self._grid, buttons, (QWidget(), 1), into=self)

    def show_causes(self, among: Sequence[str], answer: Mapping[str, float] | None, cause: str) -> None:
        """answer: one that was given, which can no longer be changed; `cause` is then the right one."""
        if list(self.fields) != list(among):
            self._build(among)
        for name, field in self.fields.items():
            if answer is not None:
                field.setValue(round(_WHOLE * answer[name]))
            field.setEnabled(answer is None)
            font = self._labels[name].font()
            font.setBold(name == cause)
            self._labels[name].setFont(font)
        for part in (self.total, self.spread_button, self.answer_button):  # an answer's parts are rounded here
            part.setVisible(answer is None)
        self._count()

    def clear(self) -> None:
        """Forgets the causes and what was given to them."""
        self._build([])

    def probabilities(self) -> dict[str, float]:
        """As they are now; they sum to one where the button can be pressed."""
        return {name: field.value() / _WHOLE for name, field in self.fields.items()}

    def spread(self) -> None:
        """Gives what is missing to the causes that have nothing, or to all where each has something."""
        missing = _WHOLE - self._sum()
        to = [field for field in self.fields.values() if not field.value()] or list(self.fields.values())
        for place, field in enumerate(to):
            field.setValue(field.value() + missing // len(to) + (place < missing % len(to)))

    def _build(self, among: Sequence[str]) -> None:
        for widget in (*self._labels.values(), *self.fields.values()):
            self._grid.removeWidget(widget)
            widget.deleteLater()
        self.fields.clear()
        self._labels.clear()
        for row, name in enumerate(among):
            label, field = QLabel(faults()[name].title), QSpinBox()
            label.setWordWrap(True)
            label.setBuddy(field)
            field.setRange(0, _WHOLE)
            field.setSuffix(" %")
            field.setAlignment(Qt.AlignmentFlag.AlignRight)
            field.setAccessibleName(f"Probability: {faults()[name].title}")
            field.valueChanged.connect(self._count)
            self._grid.addWidget(label, row, 0)
            self._grid.addWidget(field, row, 1)
            self.fields[name], self._labels[name] = field, label
        for before, after in zip(self.fields.values(), list(self.fields.values())[1:], strict=False):
            self.setTabOrder(before, after)

    def _sum(self) -> int:
        return sum(field.value() for field in self.fields.values())

    def _count(self) -> None:
        total = self._sum()
        self.total.setText(f"Together {total} %" + ("" if total == _WHOLE else ", of 100 %"))
        self.answer_button.setEnabled(total == _WHOLE)
        self.spread_button.setEnabled(total < _WHOLE)
