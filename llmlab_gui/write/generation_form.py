"""The form of the sampling settings."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from PySide6.QtCore import Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QDoubleSpinBox, QSpinBox, QWidget

from llmlab_gui.host.messages import Generation
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import label_of
from llmlab_gui.widgets.layouts import beside, column


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
        self.tokens, self.top_k, self.seed = QSpinBox(minimum=1, maximum=4096), QSpinBox(), QSpinBox()
        self.temperature, self.top_p, self.min_p, self.penalty = (QDoubleSpinBox() for _ in range(4))
        self.tokens.setToolTip("Length of the text, in tokens")
        self.temperature.setRange(0.0, 10.0)
        self.temperature.setSingleStep(0.1)
        self.temperature.setToolTip(
            "0 always takes the most likely token; 1 samples from the model's distribution; higher is wilder"
        )
        self.top_k.setRange(0, 100_000)
        self.top_k.setSpecialValueText("all")
        self.top_k.setToolTip("Sample from this many of the most likely tokens")
        for box, step in ((self.top_p, 0.05), (self.min_p, 0.01), (self.penalty, 0.1)):
            box.setRange(0.0, 1.0)
            box.setSingleStep(step)
        self.top_p.setToolTip("Sample from the most likely tokens that have this probability together; 1 means all")
        self.min_p.setToolTip("Sample from the tokens that are at least this share as likely as the most likely")
        self.min_p.setSpecialValueText("all")
        self.penalty.setRange(0.1, 10.0)
        self.penalty.setToolTip("Above 1, tokens that the text holds already become less likely; 1 changes nothing")
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("With the same seed, model, prompt and settings generate the same text")
        self.new_seed = tool_button(
            "New", "Another seed, another text", slot=lambda: self.seed.setValue(random.randrange(100_000))
        )
        row = self._row = FlowRow(self)
        for label, widget in (
            ("Tokens", self.tokens),
            ("Repetition penalty", self.penalty),
            ("Temperature", self.temperature),
            ("Top-k", self.top_k),
            ("Top-p", self.top_p),
            ("Min-p", self.min_p),
            ("Seed", self.seed),
        ):
            name = label_of(label, widget)
            widget.setAccessibleName(label)
            widget.valueChanged.connect(lambda _: self.edited.emit())
            widget.setMinimumWidth(62)  # less than its longest number asks for: the dock may be narrow
            line = beside(widget)
            row.addWidget(column(name, line, spacing=1))
        line.addWidget(self.new_seed)
        self.show_how(Generation())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A splitter asks for the smallest height alone, which depends on how many lines this width takes."""
        super().resizeEvent(event)
        self.setMinimumHeight(self._row.heightForWidth(event.size().width()))

    def show_how(self, how: Generation) -> None:
        """Sets all of it."""
        self.tokens.setValue(how.tokens)
        self.temperature.setValue(how.temperature)
        self.top_k.setValue(how.top_k)
        self.seed.setValue(how.seed)
        self.top_p.setValue(how.top_p)
        self.min_p.setValue(how.min_p)
        self.penalty.setValue(how.repetition_penalty)

    def how(self) -> Generation:
        """What is set."""
        return Generation(
            tokens=self.tokens.value(),
            temperature=self.temperature.value(),
            top_k=self.top_k.value(),
            seed=self.seed.value(),
            top_p=self.top_p.value(),
            min_p=self.min_p.value(),
            repetition_penalty=self.penalty.value(),
        )
