"""The form of the sampling settings."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QDoubleSpinBox, QSpinBox, QWidget

from llmlab_gui.host.messages import Generation
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import label_of, labelled
from llmlab_gui.widgets.layouts import beside, column

_WORDS = (
    ("Tokens", "Length of the text, in tokens"),
    ("Repetition penalty", "Above 1, tokens that the text holds already become less likely; 1 changes nothing"),
    (
        "Temperature",
        "0 always takes the most likely token; 1 samples from the model's distribution; higher is wilder",
    ),
    ("Top-k", "Sample from this many of the most likely tokens"),
    ("Top-p", "Sample from the most likely tokens that have this probability together; 1 means all"),
    ("Min-p", "Sample from the tokens that are at least this share as likely as the most likely"),
    ("Seed", "With the same seed, model, prompt and settings generate the same text"),
)


@dataclass(frozen=True)
class Draft:
    """What Write was left with, as the settings keep it. run, which: the model, where one was chosen."""

    prompt: str
    how: Generation = field(default_factory=Generation)
    spaces: bool = False
    run: str = ""
    which: str = ""


class GenerationForm(QWidget):
    """Tokens, what shapes the distribution in the order in which it does so, and the seed."""

    edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.tokens = QSpinBox(minimum=1, maximum=4096)
        self.penalty = QDoubleSpinBox(minimum=0.1, maximum=10.0, singleStep=0.1)
        self.temperature = QDoubleSpinBox(maximum=10.0, singleStep=0.1)
        self.top_k, self.seed = QSpinBox(maximum=100_000), QSpinBox(maximum=2**31 - 1)
        self.top_p, self.min_p = (QDoubleSpinBox(maximum=1.0, singleStep=step) for step in (0.05, 0.01))
        for open_ended in (self.top_k, self.min_p):
            open_ended.setSpecialValueText("all")
        self.new_seed = tool_button(
            "New", "Another seed, another text", slot=lambda: self.seed.setValue(random.randrange(100_000))
        )
        # By the name that `Generation` has for each.
        self._fields: dict[str, QSpinBox | QDoubleSpinBox] = {
            "tokens": self.tokens,
            "repetition_penalty": self.penalty,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": self.seed,
        }
        row = self._row = FlowRow(self)
        for box, (label, tip) in zip(self._fields.values(), _WORDS, strict=True):
            labelled(box, label, tip)
            box.valueChanged.connect(lambda _: self.edited.emit())
            box.setMinimumWidth(62)  # less than its longest number asks for: the dock may be narrow
            line = beside(box)
            row.addWidget(column(label_of(label, box), line, spacing=1))
        line.addWidget(self.new_seed)
        self.show_how(Generation())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A splitter asks for the smallest height alone, which depends on how many lines this width takes."""
        super().resizeEvent(event)
        self.setMinimumHeight(self._row.heightForWidth(event.size().width()))

    def show_how(self, how: Generation) -> None:
        """Sets all of it."""
        for name, box in self._fields.items():
            box.setValue(getattr(how, name))

    def how(self) -> Generation:
        """What is set."""
        values: dict[str, Any] = {name: box.value() for name, box in self._fields.items()}
        return Generation(**values)
