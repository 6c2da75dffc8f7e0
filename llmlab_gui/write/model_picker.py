"""Chooses the model that answers: a run's checkpoint, or the active model when that is not a run."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QLabel, QSizePolicy, QWidget

from llmlab.core.errors import LabError
from llmlab.store.checkpoints import Checkpoint, best_of, final_of, list_checkpoints
from llmlab.store.events import CheckpointSaved, Event
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.one_line import OneLineBox

LATEST, BEST, FINAL = "latest", "best", "final"
# Among the runs' ids, none of which may begin so.
_ACTIVE = "*active"
_OF_RUNS = ("scratch", "finetuned", "live")  # kinds of models


class ModelPicker(QWidget):
    """Two combo boxes. It follows the current run and the active model; what was chosen stays when the queue starts the
    next run. `changed`: another model would answer now."""

    changed = Signal()

    def __init__(self, lab: Lab, background: Background) -> None:
        super().__init__()
        self._lab, self._background = lab, background
        self._checkpoints: list[Checkpoint] = []
        self._wanted = LATEST  # kept while the list of checkpoints is read
        self._answering: tuple[str, str | None] = ("", None)
        self._reads = self._by_hand = False  # by_hand: what answers was chosen
        self._left = ("", "")  # what was chosen at an earlier start, until its run is found
        self.runs = labelled(OneLineBox(), "Run whose model answers")
        self.which = labelled(OneLineBox(), "Checkpoint that answers")
        for combo in (self.runs, self.which):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(6)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        beside(QLabel("Run"), (self.runs, 3), QLabel("Checkpoint"), (self.which, 2), into=self)
        self.runs.activated.connect(self._choose_run)
        self.which.activated.connect(self._choose_checkpoint)
        lab.runs_changed.connect(self._list_runs)
        lab.current_changed.connect(self._follow)
        lab.events_arrived.connect(self._take)
        lab.inspection.about_changed.connect(self._follow_active)
        self._list_runs()
        current = lab.current()
        if current is not None:
            self._set(current.id, LATEST)

    @property
    def run_id(self) -> str:
        """The chosen run, "" for none."""
        return "" if self.active else self.runs.currentData() or ""

    @property
    def active(self) -> bool:
        """Whether the active model answers, which is not a run's."""
        return self.runs.currentData() == _ACTIVE

    @property
    def choice(self) -> tuple[str, str]:
        """The chosen run, "" for none; `latest`, `best`, `final` or a checkpoint's folder name."""
        return self.run_id, self._wanted

    @property
    def chosen(self) -> tuple[str, str]:
        """The same where a person chose it; "" twice where it follows the current run."""
        return self.choice if self._by_hand else self._left

    @property
    def reading(self) -> bool:
        """Whether it is not known yet which checkpoints there are."""
        return self._reads and not self._checkpoints

    @property
    def answers(self) -> bool:
        """Whether there is a model that can answer."""
        return self.active or self.checkpoint is not None

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
        self._by_hand, self._left = True, ("", "")
        self._set(run_id, which)

    def choose_again(self, run_id: str, which: str) -> None:
        """What was chosen at an earlier start, as soon as that run is found."""
        self._left = run_id, which
        self._list_runs()

    def reference(self) -> str:
        """What to ask the model host for. LabError when there is nothing to ask."""
        row, checkpoint, about = self.row, self.checkpoint, self._lab.inspection.about
        if self.active and about is not None:
            return about.reference
        if row is None:
            raise LabError("No run is chosen.", "A text needs a model.", "Train one first: Set-up.")
        if checkpoint is None:
            raise LabError(
                f"{row.name} has no such checkpoint.",
                "Only saved checkpoints can answer.",
                "Press Save now, or wait for the next checkpoint." if row.status.live else "Choose another run.",
            )
        return f"{row.run.path}@{checkpoint.step}"

    def reload(self) -> None:
        """Reads which checkpoints are there, off the window's thread."""
        row, run_id = self.row, self.run_id
        if row is None:
            self._show(run_id, [])
            return
        self._reads, folder = True, row.run.checkpoints
        self._background.run(
            lambda: list_checkpoints(folder), lambda found: self._show(run_id, found), self._lab.error_raised.emit
        )

    def _set(self, run_id: str, which: str) -> None:
        place = self.runs.findData(run_id)
        if place < 0:
            self._list_runs()
            place = self.runs.findData(run_id)
        self.runs.setCurrentIndex(place)
        self._wanted = which
        self._checkpoints = []
        self._fill()
        self.reload()

    def _show(self, run_id: str, found: list[Checkpoint]) -> None:
        if run_id != self.run_id:
            return
        nothing = self.reading and not found
        self._checkpoints, self._reads = found, False
        self._fill()
        about = self._lab.inspection.about
        active = about.reference if self.active and about is not None else ""
        answering = (run_id or active, self.checkpoint.name if self.checkpoint else None)
        if answering != self._answering or nothing:
            self._answering = answering
            self.changed.emit()

    def _fill(self) -> None:
        """The combo box of checkpoints: the three words first, then every step."""
        self.which.clear()
        self.which.setEnabled(not self.active)
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
        about = self._lab.inspection.about
        names = {row.id: row.name for row in self._lab.runs()}
        if about is not None and about.kind not in _OF_RUNS:
            names = {_ACTIVE: f"{about.name} (active)", **names}
        if self._left[0] in names:
            self.select(*self._left)
        if list(names.items()) == self.runs.entries():
            return
        chosen = self.runs.currentData() or ""
        self.runs.fill(names.items())
        self.runs.setCurrentIndex(self.runs.findData(chosen))
        if chosen and chosen not in names:
            self._checkpoints = []
            self.reload()

    def _follow(self, run_id: str) -> None:
        stays = self._by_hand and self.runs.currentData() and not self._lab.chosen()
        returns = self._lab.row(self._left[0]) is not None  # what was chosen at an earlier start, with the list
        if run_id and run_id != self.run_id and not stays and not returns:
            self._by_hand = False
            self._set(run_id, LATEST)

    def _follow_active(self) -> None:
        """The active model answers here, too."""
        about = self._lab.inspection.about
        self._list_runs()
        if about is None:
            return
        if about.kind not in _OF_RUNS:
            self.select(_ACTIVE, LATEST)
            return
        row = self._lab.row_called(about.reference.rpartition("@")[0])
        if row is not None:
            self.select(row.id, LATEST if about.step is None or about.live else f"step-{about.step:08d}")

    def _take(self, run_id: str, events: list[Event]) -> None:
        if run_id == self.run_id and any(isinstance(event, CheckpointSaved) for event in events):
            self.reload()

    def _choose_run(self) -> None:
        self.select(self.runs.currentData() or "", LATEST)

    def _choose_checkpoint(self) -> None:
        self._by_hand, self._left, self._wanted = True, ("", ""), self.which.currentData()
        self._show(self.run_id, self._checkpoints)
