"""The form of the sampling settings."""

from __future__ import annotations

import random

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QSpinBox, QToolButton, QVBoxLayout, QWidget

from llmlab_gui.host.messages import Generation


class GenerationForm(QWidget):
    """Tokens, temperature, top-k and seed, in one row."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        usual = Generation()
        self.tokens, self.top_k, self.seed = QSpinBox(), QSpinBox(), QSpinBox()
        self.temperature = QDoubleSpinBox()
        self.tokens.setRange(1, 4096)
        self.tokens.setValue(usual.tokens)
        self.tokens.setToolTip("Length of the text, in tokens")
        self.temperature.setRange(0.0, 10.0)
        self.temperature.setSingleStep(0.1)
        self.temperature.setValue(usual.temperature)
        self.temperature.setToolTip(
            "0 always takes the most likely token; 1 samples from the model's distribution; higher is wilder"
        )
        self.top_k.setRange(0, 100_000)
        self.top_k.setValue(usual.top_k)
        self.top_k.setSpecialValueText("all")
        self.top_k.setToolTip("Sample from this many of the most likely tokens")
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setValue(usual.seed)
        self.seed.setToolTip("With the same seed, model, prompt and settings generate the same text")
        self.new_seed = QToolButton()
        self.new_seed.setText("New")
        self.new_seed.setToolTip("Another seed, another text")
        self.new_seed.clicked.connect(lambda: self.seed.setValue(random.randrange(100_000)))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for label, widget in (
            ("Tokens", self.tokens),
            ("Temperature", self.temperature),
            ("Top-k", self.top_k),
            ("Seed", self.seed),
        ):
            column = QVBoxLayout()
            column.setSpacing(1)
            name = QLabel(label)
            name.setBuddy(widget)
            widget.setAccessibleName(label)
            widget.setMinimumWidth(62)  # less than its longest number asks for: the dock may be narrow
            column.addWidget(name)
            column.addWidget(widget)
            row.addLayout(column)
        row.addWidget(self.new_seed, 0, Qt.AlignmentFlag.AlignBottom)
        row.addStretch(1)

    def how(self) -> Generation:
        """What is set."""
        return Generation(self.tokens.value(), self.temperature.value(), self.top_k.value(), self.seed.value())
