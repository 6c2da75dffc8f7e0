"""A part of the question before a check: which verdict a claim will get, and how sure one is."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QLabel, QWidget

from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.quantities import Quantity
from llmlab_gui.notebook.prediction_form import ConfidenceSlider

# In per cent: above one in three, which is what knowing nothing gives each of the verdicts.
_FIRST_CONFIDENCE = 60


class VerdictRow(QWidget):
    """One claim of a paper. It states nothing until a verdict is chosen."""

    changed = Signal()

    def __init__(self, about: Quantity, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.about = about
        title = QLabel(f"<b>{about.label}</b>: {about.title}")
        title.setWordWrap(True)
        self.choice = QComboBox()
        self.choice.setAccessibleName(f"Verdict on {about.label}")
        self.choice.addItem("no idea", "")
        for verdict in about.choices:
            self.choice.addItem(verdict, verdict)
        self.sure = ConfidenceSlider(_FIRST_CONFIDENCE)
        self.sure.setEnabled(False)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(title, 0, 0, 1, 2)
        layout.addWidget(self.choice, 1, 0)
        layout.addWidget(self.sure, 1, 1)
        layout.setColumnStretch(1, 1)
        self.choice.currentIndexChanged.connect(self._chosen)
        self.sure.changed.connect(self.changed)

    def prediction(self) -> Prediction | None:
        """What it says; None when no verdict is chosen."""
        verdict = self.choice.currentData()
        return parse_prediction(f"{self.about.name}={verdict}@{self.sure.value}%") if verdict else None

    def _chosen(self) -> None:
        self.sure.setEnabled(bool(self.choice.currentData()))
        self.changed.emit()
