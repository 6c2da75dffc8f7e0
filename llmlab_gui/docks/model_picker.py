"""Choosing who answers: a run, and one of its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSizePolicy, QWidget

from llmlab.errors import LabError
from llmlab.runs.checkpoints import Checkpoint, best_of, final_of, list_checkpoints
from llmlab.training.events import CheckpointSaved, Event
from llmlab_gui.background import Background

if TYPE_CHECKING:
    from llmlab_gui.lab import Lab, RunRow

LATEST, BEST, FINAL = "latest", "best", "final"


class ModelPicker(QWidget):
    """Two combo boxes. It follows the current run. `changed`: another model would answer now."""

    changed = Signal()

    def __init__(self, lab: Lab, background: Background, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lab, self._background = lab, background
        self._checkpoints: list[Checkpoint] = []
        self._wanted = LATEST  # kept while the list of checkpoints is read
        self._answering: tuple[str, str | None] = ("", None)
        self.runs = QComboBox()
        self.runs.setAccessibleName("Run whose model answers")
        self.which = QComboBox()
        self.which.setAccessibleName("Checkpoint that answers")
        for combo in (self.runs, self.which):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(6)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Run"))
        layout.addWidget(self.runs, 3)
        layout.addWidget(QLabel("Checkpoint"))
        layout.addWidget(self.which, 2)
        self.runs.activated.connect(self._choose_run)
        self.which.activated.connect(self._choose_checkpoint)
        lab.runs_changed.connect(self._list_runs)
        lab.current_changed.connect(self._follow)
        lab.events_arrived.connect(self._take)
        self._list_runs()
        current = lab.current()
        if current is not None:
            self.select(current.run.id, LATEST)

    @property
    def run_id(self) -> str:
        """The chosen run, "" for none."""
        return self.runs.currentData() or ""

    @property
    def row(self) -> RunRow | None:
        """The chosen run, as the lab sees it."""
        return self._lab.row(self.run_id) if self.run_id else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that would answer, as far as is known."""
        wanted = self._wanted
        if wanted == LATEST:
            return self._checkpoints[-1] if self._checkpoints else None
        if wanted == BEST:
            return best_of(self._checkpoints)
        if wanted == FINAL:
            return final_of(self._checkpoints)
        return next((checkpoint for checkpoint in self._checkpoints if checkpoint.name == wanted), None)

    def select(self, run_id: str, which: str) -> None:
        """Chooses a run and `latest`, `best`, `final` or a checkpoint's folder name."""
        place = self.runs.findData(run_id)
        if place < 0:
            self._list_runs()
            place = self.runs.findData(run_id)
        self.runs.setCurrentIndex(place)
        self._wanted = which
        self._checkpoints = []
        self._fill()
        self.reload()

    def reference(self) -> str:
        """What to ask the model host for. LabError when there is nothing to ask."""
        row, checkpoint = self.row, self.checkpoint
        if row is None:
            raise LabError("No run is chosen.", "A text needs a model.", "Train one first: Set-up.")
        if checkpoint is None:
            raise LabError(
                f"{row.run.id} has no such checkpoint.",
                "Only what is saved can answer.",
                "Press Save, or wait for the next checkpoint." if row.status.live else "Choose another run.",
            )
        return f"{row.run.path}@{checkpoint.step}"

    def reload(self) -> None:
        """Reads which checkpoints are there, off the window's thread."""
        row, run_id = self.row, self.run_id
        if row is None:
            self._show(run_id, [])
            return
        folder = row.run.checkpoints
        self._background.run(
            lambda: list_checkpoints(folder),
            lambda found: self._show(run_id, found),
            self._lab.error_raised.emit,
        )

    def _show(self, run_id: str, found: list[Checkpoint]) -> None:
        if run_id != self.run_id:
            return
        self._checkpoints = found
        self._fill()
        answering = (run_id, self.checkpoint.name if self.checkpoint else None)
        if answering != self._answering:
            self._answering = answering
            self.changed.emit()

    def _fill(self) -> None:
        """The combo box of checkpoints: the three words first, then every step."""
        self.which.clear()
        newest = self._checkpoints[-1] if self._checkpoints else None
        words = ((LATEST, "Latest", newest), (BEST, "Best", best_of(self._checkpoints)))
        for key, word, checkpoint in (*words, (FINAL, "Final", final_of(self._checkpoints))):
            if checkpoint is not None or key == LATEST:
                self.which.addItem(f"{word} (step {checkpoint.step:,})" if checkpoint else word, key)
        for checkpoint in reversed(self._checkpoints):
            loss = f" · {checkpoint.val_loss:.3f}" if checkpoint.val_loss is not None else ""
            self.which.addItem(f"Step {checkpoint.step:,}{loss}", checkpoint.name)
        place = self.which.findData(self._wanted)
        if place < 0 and self._checkpoints:  # it was deleted, or the run has no final one
            self._wanted, place = LATEST, 0
        self.which.setCurrentIndex(place)

    def _list_runs(self) -> None:
        ids = [row.run.id for row in self._lab.runs()]
        if ids == [self.runs.itemData(place) for place in range(self.runs.count())]:
            return
        chosen = self.run_id
        self.runs.clear()
        for run_id in ids:
            self.runs.addItem(run_id, run_id)
        self.runs.setCurrentIndex(self.runs.findData(chosen))
        if chosen and chosen not in ids:
            self._checkpoints = []
            self.reload()

    def _follow(self, run_id: str) -> None:
        if run_id and run_id != self.run_id:
            self.select(run_id, LATEST)

    def _take(self, run_id: str, events: list[Event]) -> None:
        if run_id == self.run_id and any(isinstance(event, CheckpointSaved) for event in events):
            self.reload()

    def _choose_run(self) -> None:
        self.select(self.run_id, LATEST)

    def _choose_checkpoint(self) -> None:
        self._wanted = self.which.currentData()
        self._show(self.run_id, self._checkpoints)
