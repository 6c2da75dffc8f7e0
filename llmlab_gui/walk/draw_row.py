"""How the next token of a walk is drawn: temperature, top-k, top-p and seed, with their names beside them."""

from __future__ import annotations

from PySide6.QtWidgets import QDoubleSpinBox, QSpinBox, QWidget

from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import label_of


class DrawRow(QWidget):
    """fields: by the name that a question has for each."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.top_p = QDoubleSpinBox(), QDoubleSpinBox()
        self.top_k, self.seed = QSpinBox(), QSpinBox()
        for share, most, step in ((self.temperature, 10.0, 0.1), (self.top_p, 1.0, 0.05)):
            share.setRange(0.0, most)
            share.setSingleStep(step)
            share.setValue(1.0)
        self.top_k.setRange(0, 1_000_000)
        self.seed.setRange(0, 2**31 - 1)
        self.fields: dict[str, QSpinBox | QDoubleSpinBox] = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed,
        }
        row = FlowRow(self)
        for name, field in self.fields.items():
            words = name.capitalize().replace("_", "-")
            field.setAccessibleName(f"{words} of the draw")
            add_named(row, words, field)

    def values(self) -> dict[str, float]:
        """As a walk is asked with them."""
        return {name: field.value() for name, field in self.fields.items()}


def add_named(row: FlowRow, name: str, box: QWidget) -> None:
    """A field behind its name."""
    row.addWidget(label_of(name, box))
    row.addWidget(box)
