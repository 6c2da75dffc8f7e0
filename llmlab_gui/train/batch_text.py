"""Beside the loss: what a step read, the sequences of its batch, those with the highest loss first."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QListWidget, QPushButton, QSpinBox, QWidget

from llmlab.core.errors import LabError
from llmlab.data.example_preview import BatchText
from llmlab.studies.experiments.curves import SPIKE_SIGMAS, find_spikes
from llmlab.studies.experiments.outcomes import Spike
from llmlab_gui.host.process import Request
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.chart_dock import ShownRun
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import QuietLabel, label_of
from llmlab_gui.widgets.layouts import beside, column

_TIP = "The text that one step read: the step of the highest spike, or one that you click in the chart"


class BatchView(QWidget):
    """Shown by `button`. It begins with the step whose loss stands out most."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self._run: ShownRun | None = None
        self._spikes: list[Spike] = []
        self._request: Request | None = None
        self.button = toggle_button("Batch text", _TIP)
        self.step, self.further = QSpinBox(), QPushButton("Next spike")
        self.words, self.rows = QuietLabel(), QListWidget()
        self.step.setAccessibleName("Step whose batch is shown")
        self.step.setKeyboardTracking(False)
        self.further.setToolTip("The step with the next largest jump of the loss")
        self.rows.setAccessibleName("Sequences of the batch")
        self.rows.setWordWrap(True)
        self.rows.setAlternatingRowColors(True)
        self.rows.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.rows.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.rows.setMinimumHeight(60)
        column(
            beside(label_of("Step", self.step), self.step, self.further, 1),
            self.words,
            (self.rows, 1),
            into=self,
            spacing=3,
        )
        self.hide()
        self.button.toggled.connect(self._open)
        self.step.valueChanged.connect(self._ask)
        self.further.clicked.connect(self._show_next)

    def show_run(self, run: ShownRun | None) -> None:
        """The run whose steps are meant, as far as it has come."""
        before, self._run, step = self._run, run, self.step.value()
        with QSignalBlocker(self.step):
            self.step.setRange(1, max(1, run.history.last_step if run is not None else 1))
        if not self.button.isChecked():
            return
        if (before and before.id) != (run and run.id):
            self._open(True)
        elif self.step.value() != step:  # a worker went on from before it
            self._ask()

    def begin(self) -> None:
        """Shows the step whose loss stands out most."""
        if self.button.isChecked():
            self._open(True)
        else:
            self.button.setChecked(True)

    def show_at(self, x: float, axis: str) -> None:
        """The step that is nearest to a place of the chart, if this is shown."""
        if self._run is None or not self.button.isChecked():
            return
        steps, places = self._run.history.step_columns["step"], self._run.history.x(axis)
        if len(places):
            self._show(int(steps[int(np.abs(places - x).argmin())]))

    def _open(self, shown: bool) -> None:
        self.setVisible(shown)
        self._drop()
        if not shown or self._run is None:
            return
        self._spikes = find_spikes(self._run.history, 0.0)
        self.further.setEnabled(len(self._spikes) > 1)
        self._show(self._spikes[0].step if self._spikes else self.step.maximum())

    def _show_next(self) -> None:
        steps = [spike.step for spike in self._spikes]
        now = self.step.value()
        self._show(steps[(steps.index(now) + 1) % len(steps) if now in steps else 0])

    def _show(self, step: int) -> None:
        with QSignalBlocker(self.step):
            self.step.setValue(step)
        self._ask()

    def _ask(self) -> None:
        self._drop()
        self.rows.clear()
        row = self._lab.row(self._run.id) if self._run is not None else None
        if row is None or not self.button.isChecked():
            return
        self.words.setText("Reading the batch ...")
        self._request = self._lab.inspection.host.batch(str(row.run.path), self.step.value())
        self._request.progressed.connect(self._tell)
        self._request.answered.connect(self._take)
        self._request.failed.connect(self._fail)

    def _drop(self) -> None:
        """Nobody waits any more."""
        if self._request is not None:
            self._request.drop()
            self._request = None

    def _tell(self, news: Working) -> None:
        self.words.setText(f"{news.what} ...")

    def _take(self, rows: tuple[BatchText, ...]) -> None:
        self._request = None
        known = rows and rows[0].loss is not None
        order = ", the highest loss under a checkpoint near this step first" if known else ""
        self.words.setText(f"{self._height()} {len(rows):,} sequences{order}.".strip())
        self.rows.addItems([_line(row) for row in rows])

    def _fail(self, error: LabError) -> None:
        self._request = None
        self.words.setText(str(error))

    def _height(self) -> str:
        """How the step's loss stands to those around it."""
        spike = next((spike for spike in self._spikes if spike.step == self.step.value()), None)
        if spike is None:
            return ""
        stands = "A spike" if spike.sigmas >= SPIKE_SIGMAS else "No spike, but it stands out"
        return f"{stands}: loss {spike.loss:.3f} where {spike.expected:.3f} was expected."


def _line(row: BatchText) -> str:
    text = row.text.replace("\n", "⏎ ")
    return text if row.loss is None else f"{row.loss:.3f}   {text}"
