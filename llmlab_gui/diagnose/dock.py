"""The Diagnose dock: start a mystery, keep evidence, answer, and see what was broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from PySide6.QtWidgets import QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.core.kinds import MYSTERIES
from llmlab.mysteries import case as mysteries
from llmlab.mysteries.case import CASE, HEALTHY, MEASURE, Case
from llmlab.mysteries.faults import LEVELS
from llmlab.store.run_folder import RunFolder
from llmlab_gui.diagnose.causes import CausesForm
from llmlab_gui.diagnose.evidence import EvidenceForm
from llmlab_gui.diagnose.reveal import RevealView
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import RunRow
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, scrolled
from llmlab_gui.widgets.layouts import beside, choice_box, column

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab

EVIDENCE, ANSWER, REVEAL = range(3)
_LEVELS = dict(zip(LEVELS, ("loud", "middle", "quiet"), strict=True))
_CAPTION = "One thing is broken in this run, or nothing is. Every panel works on it."
# Opening two checkpoints and measuring them, on a machine that is busy.
_MEASURE_SECONDS = 120.0


class DiagnoseDock(LabDock):
    """About one mystery; its run is made the current one, so that all panels show it."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "diagnose", "Diagnose", parent)
        self.case: Case | None = None
        self.run: RunFolder | None = None
        self.chosen = choice_box("Mystery", least=10)
        self.level = choice_box("Level of a new mystery")
        for level, words in _LEVELS.items():
            self.level.addItem(f"Level {level}: {words}", level)
        self.start_button = PrimaryButton("Start a mystery")
        self.standing = QuietLabel()
        self.evidence, self.causes, self.reveal = EvidenceForm(), CausesForm(), RevealView()
        self.healthy_button = PrimaryButton("")
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        revealed = column((self.reveal, 1), self.healthy_button)
        pages = (scrolled(self.evidence), scrolled(self.causes), revealed)
        for page, title in zip(pages, ("Evidence", "Answer", "Reveal"), strict=True):
            self.tabs.addTab(page, title)
        new = beside(self.level, self.start_button, grows=self.level)
        self.set_body(column(new, self.chosen, self.standing, (self.tabs, 1)))
        self.caption(_CAPTION, "loss-curves")
        self.start_button.clicked.connect(self.start)
        self.chosen.activated.connect(lambda _: self._choose(self.chosen.currentData()))
        self.evidence.asked.connect(self.ask)
        self.evidence.marked.connect(lambda where, note: self._change(mysteries.mark, where, note))
        self.evidence.unmarked.connect(lambda place: self._change(mysteries.unmark, place))
        self.evidence.opened.connect(lab.dock_requested)
        self.causes.answered.connect(self.answer)
        self.reveal.dock_wanted.connect(lab.dock_requested)
        self.healthy_button.clicked.connect(self.show_healthy)
        lab.runs_changed.connect(self.refresh)
        lab.current_changed.connect(lambda _: self._follow_current())
        self.refresh()

    def rows(self) -> list[RunRow]:
        """The runs of all mysteries, newest first; those of further experiments are none."""
        return [row for row in self.lab.runs() if row.info.track == MYSTERIES and (row.run.path / CASE).is_file()]

    def refresh(self) -> None:
        """Shows what is there now."""
        rows = self.rows()
        names = [row.id for row in rows]
        if names != [self.chosen.itemData(place) for place in range(self.chosen.count())]:
            self.chosen.clear()
            for row in rows:
                self.chosen.addItem(row.name, row.id)
        self.chosen.setVisible(bool(rows))
        self.tabs.setVisible(bool(rows))
        if not rows:
            self.run = self.case = None
            self.standing.setText(
                "A run is trained with one thing broken, chosen at random and sealed. Start one, look at it in every "
                "panel, and say what is wrong. It takes about a minute."
            )
            return
        if self.run is None or self.run.full_name not in names:
            self._follow_current()
        if self.run is None:
            self._show(rows[0])
        else:
            self.chosen.setCurrentIndex(names.index(self.run.full_name))
            self._stand()

    def start(self) -> None:
        """A new mystery of the chosen level."""
        level = self.level.currentData()
        self._launch(lambda: mysteries.start(self.lab.outputs, level, watched=True), self._begun)

    def ask(self, what: str) -> None:
        """A further experiment; its run is trained at once, and shown beside this one."""
        run = self.run
        if run is None:
            return
        if what == MEASURE:
            self.evidence.show_measures(["Measuring the checkpoints …"])
            self._background.run(partial(_measured, run), self.evidence.show_measures, self._unmeasured)
            return

        def made() -> RunFolder:
            experiment = mysteries.ask(run, what, watched=True)
            assert experiment is not None
            return experiment

        self._launch(made, self._beside)

    def answer(self, probabilities: dict[str, float]) -> None:
        """Scores it and shows what was broken."""
        self._change(mysteries.answer, probabilities, then=lambda: self.tabs.setCurrentIndex(REVEAL))

    def show_healthy(self) -> None:
        """The healthy run of the same seed in the charts; it is trained where it is not there yet."""
        self.ask(HEALTHY)

    # Behind the scenes -------------------------------------------------------------------------------------------

    def _follow_current(self) -> None:
        """The mystery that is looked at elsewhere is the one here, too."""
        row = self.lab.current()
        if row is not None and row.info.track == MYSTERIES and (row.run.path / CASE).is_file():
            self._show(row)

    def _choose(self, run_id: str) -> None:
        row = self.lab.row(run_id)
        if row is not None:
            self._show(row)
            self.lab.set_current(run_id)

    def _show(self, row: RunRow) -> None:
        if self.run is None or self.run.path != row.run.path:
            self.evidence.show_measures([])
            self.causes.clear()
            self.tabs.setCurrentIndex(EVIDENCE)
        self.run = row.run
        self.chosen.setCurrentIndex(max(0, self.chosen.findData(row.id)))
        self._read()

    def _read(self) -> None:
        """The case anew, from its file."""
        run = self.run
        if run is None:
            return
        self._background.run(
            lambda: (run, mysteries.case_of(run), mysteries.calibrated(self.lab.outputs).verdict),
            lambda found: self._fill(*found),
            self.lab.error_raised.emit,
        )

    def _fill(self, run: RunFolder, case: Case, calibration: str) -> None:
        if run != self.run:
            return
        self.case = case
        self.evidence.show_case(case)
        self.causes.show_causes(case.candidates, case.answer, case.cause)
        self.tabs.setTabEnabled(REVEAL, case.answer is not None)
        if case.answer is not None:
            self.reveal.show_case(case, calibration)
        self._stand()

    def _stand(self) -> None:
        if self.run is None or self.case is None:
            return
        row = self.lab.row(self.run.full_name)
        status = "" if row is None else f", {row.status.words}, step {row.status.step:,} of {row.status.steps:,}"
        self.standing.setText(f"{self.run.id}: level {self.case.level}, {_LEVELS[self.case.level]}{status}")
        healthy = self.lab.row(f"{MYSTERIES}/{self.run.id}-{HEALTHY}")
        self.healthy_button.setText(
            "Train a healthy run of the same seed" if healthy is None else "Show the healthy run"
        )

    def _change(self, change: Callable[..., Case], *values: Any, then: Callable[[], None] = lambda: None) -> None:
        run = self.run
        if run is None:
            return

        def done(_: Case) -> None:
            self._read()
            self._background.run(lambda: None, lambda _: then(), self.lab.error_raised.emit)  # once it is shown

        self._background.run(lambda: change(run, *values), done, self.lab.error_raised.emit)

    def _launch(self, make: Callable[[], RunFolder], then: Callable[[RunFolder], None]) -> None:
        """Makes a run and trains it, unless it has ended already."""

        def made(run: RunFolder) -> None:
            if run.recorded_status().state == "queued":
                self.lab.controller.train_made(run)
            self.lab.refresh()
            then(run)

        self._background.run(make, made, self.lab.error_raised.emit)

    def _begun(self, run: RunFolder) -> None:
        self.lab.open_run(run)
        row = self.lab.row(run.full_name)
        if row is not None:
            self._show(row)
            self.refresh()

    def _beside(self, run: RunFolder) -> None:
        self._read()
        if self.run is not None:
            self.lab.set_shown([self.run.full_name, run.full_name])

    def _unmeasured(self, error: LabError) -> None:
        self.evidence.show_measures([])
        self.lab.error_raised.emit(error)


def _measured(run: RunFolder) -> list[str]:
    """What `mystery ask NAME measure` says: in a process of its own, since measuring needs torch."""
    command = [sys.executable, "-m", "llmlab", "mystery", "ask", str(run.path), MEASURE]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=_MEASURE_SECONDS, check=False
    )
    if done.returncode:
        raise LabError(done.stderr.strip().removeprefix("error: ") or f"{run.id} could not be measured.")
    return done.stdout.splitlines()
