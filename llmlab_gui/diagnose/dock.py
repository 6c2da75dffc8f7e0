"""The Diagnose dock: start a mystery, keep evidence, answer, and see what was broken."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtWidgets import QApplication, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.core.kinds import MYSTERIES
from llmlab.core.paths import module_command
from llmlab.mysteries import case as mysteries
from llmlab.mysteries.case import CASE, HEALTHY, MEASURE, Case
from llmlab.mysteries.faults import LEVELS, NOTHING
from llmlab.store.run_folder import RunFolder
from llmlab_gui.diagnose.causes import CausesForm
from llmlab_gui.diagnose.evidence import EvidenceForm
from llmlab_gui.diagnose.reveal import RevealView
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, scrolled
from llmlab_gui.widgets.layouts import beside, choice_box, column, settling_timer

EVIDENCE, ANSWER, REVEAL = range(3)
_LEVELS = dict(zip(LEVELS, ("loud", "middle", "quiet"), strict=True))
_CAPTION = "One thing is broken in this run, or nothing is. Every panel works on it."
# How often it is asked whether anybody still waits for the measures.
_LOOK_SECONDS = 0.2


class DiagnoseDock(LabDock):
    """About one mystery; its run is made the current one, so that all panels show it."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "diagnose", "Diagnose", parent)
        self.case: Case | None = None
        self.run: RunFolder | None = None
        self._sent: set[Path] = set()  # runs whose training was asked for here, and may not have begun
        self._measuring = Background(self)  # for seconds, in which evidence can be kept
        self.chosen = choice_box("Mystery", least=10)
        self.bring_button = push_button(
            "Show its run",
            self.bring,
            tip="Makes the run of this mystery the one that all other panels show, Attention and the like too",
        )
        self.bring_button.hide()
        self.level = choice_box("Level of a new mystery")
        for level, words in _LEVELS.items():
            self.level.addItem(f"Level {level}: {words}", level)
        self.start_button = PrimaryButton("Start a mystery", self.start)
        self.standing = QuietLabel()
        self.evidence, self.causes, self.reveal = EvidenceForm(), CausesForm(), RevealView()
        self.healthy_button = PrimaryButton("", lambda: self.ask(HEALTHY))
        self.tabs = QTabWidget(documentMode=True)
        revealed = column((self.reveal, 1), self.healthy_button)
        pages = (scrolled(self.evidence), scrolled(self.causes), revealed)
        for page, title in zip(pages, ("Evidence", "Answer", "Reveal"), strict=True):
            self.tabs.addTab(page, title)
        new = beside(self.level, self.start_button, grows=self.level)
        self.set_body(
            column(new, beside(self.chosen, self.bring_button, grows=self.chosen), self.standing, (self.tabs, 1))
        )
        self.caption(_CAPTION, "loss-curves")
        self._startable = settling_timer(
            self, QApplication.doubleClickInterval(), partial(self.start_button.setEnabled, True)
        )
        self.chosen.activated.connect(lambda _: self._choose(self.chosen.currentData()))
        self.evidence.asked.connect(self.ask)
        self.evidence.marked.connect(self.mark)
        self.evidence.unmarked.connect(lambda place: self._change(mysteries.unmark, place))
        self.evidence.opened.connect(lab.dock_requested)
        self.causes.answered.connect(self.answer)
        self.reveal.dock_wanted.connect(lab.dock_requested)
        lab.runs_changed.connect(self.refresh)
        lab.current_changed.connect(lambda _: self._follow_current())
        lab.inspection.about_changed.connect(self._stand)
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
            self.bring_button.hide()
            self.run = self.case = None
            self.standing.setText(
                "A run is trained with one thing broken, or nothing, chosen at random and sealed. Start one, look at "
                "it in every panel, and say what is wrong. It takes about a minute."
            )
            return
        if self.run is not None and self.run.full_name not in names:
            self.run = None
        if self.run is None:
            self._follow_current()
        if self.run is None:
            self._show(rows[0])
        else:
            self.chosen.setCurrentIndex(names.index(self.run.full_name))
            self._stand()

    def start(self) -> None:
        """A new mystery of the chosen level; a double click makes one."""
        if not TrainingNow(self.lab).may_start(self, "Start a mystery"):
            return
        level = self.level.currentData()
        self.start_button.setEnabled(False)
        make = partial(mysteries.start, self.lab.outputs, level, watched=True)
        self._launch(make, self._begun, self._startable.start)

    def ask(self, what: str) -> None:
        """A further experiment; its run is trained at once, and shown beside this one."""
        run = self.run
        if run is None:
            return
        if what == MEASURE:
            self.evidence.show_measures(["Measuring the checkpoints …"])
            measured = partial(self._measured, run)
            failed = partial(self._unmeasured, run)
            self._measuring.run(partial(_measure, run, self._measuring.check), measured, failed)
            return
        to_train = not run.path.with_name(f"{run.id}-{what}").exists()
        if to_train and not TrainingNow(self.lab).may_start(self, "Start a further experiment"):
            return

        def made() -> RunFolder:
            experiment = mysteries.ask(run, what, watched=True)
            assert experiment is not None
            return experiment

        self._launch(made, partial(self._beside, run))

    def mark(self, where: str, note: str) -> None:
        """Keeps evidence. What was written stays in its field where it cannot be kept."""
        self._change(mysteries.mark, where, note, then=self.evidence.note.clear)

    def answer(self, probabilities: dict[str, float]) -> None:
        """Scores it and shows what was broken."""
        self._change(mysteries.record_answer, probabilities, then=lambda: self.tabs.setCurrentIndex(REVEAL))

    def _follow_current(self) -> None:
        """The mystery that is looked at elsewhere is the one here, too."""
        row = self.lab.current()
        if row is not None and row.info.track == MYSTERIES and (row.run.path / CASE).is_file():
            self._show(row)
        self._stand()

    def bring(self) -> None:
        """All panels show the run of this mystery, and its model where another one is open."""
        self._choose(self.chosen.currentData())
        if self._other_model() and (model := self.lab.current_model()):
            self.lab.inspection.open(model)

    def _other_model(self) -> str:
        """The name of the open model; "" where it is this run's, or where none is open: that panels say themselves."""
        about = self.lab.inspection.about
        if about is None or self.run is None:
            return ""
        row = self.lab.row_called(about.reference.rpartition("@")[0])
        return "" if row is not None and row.id == self.run.full_name else about.name

    def _choose(self, run_id: str) -> None:
        row = self.lab.row(run_id)
        if row is not None:
            self._show(row)
            self.lab.set_current(run_id)

    def _show(self, row: RunRow) -> None:
        if self.run is None or self.run.path != row.run.path:
            self.case = None
            self.standing.clear()
            self.evidence.clear()
            self.causes.clear()
            self.tabs.setTabEnabled(REVEAL, False)
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
        current, model = self.lab.current(), self._other_model()
        shown = ""
        if current is not None and current.id != self.run.full_name:
            shown = f". The panels show {current.name}"
        elif model:
            shown = f". The model that is open is {model}"
        self.bring_button.setVisible(bool(shown))
        self.standing.setText(f"{self.run.id}: level {self.case.level}, {_LEVELS[self.case.level]}{status}{shown}")
        self.healthy_button.setVisible(self.case.cause != NOTHING)  # a run that is healthy itself has no other
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

    def _launch(
        self, make: Callable[[], RunFolder], then: Callable[[RunFolder], None], after: Callable[[], None] = lambda: None
    ) -> None:
        """Makes a run and trains it, unless it has ended already. after: called also where that was impossible."""

        def made(run: RunFolder) -> None:
            after()
            if run.recorded_status().state == "queued" and run.path not in self._sent:
                self._sent.add(run.path)
                self.lab.controller.train_made(run)
            self.lab.refresh()
            then(run)

        def failed(error: LabError) -> None:
            after()
            self.lab.error_raised.emit(error)

        self._background.run(make, made, failed)

    def _begun(self, run: RunFolder) -> None:
        self.lab.open_run(run)
        row = self.lab.row(run.full_name)
        if row is not None:
            self._show(row)
            self.refresh()

    def _beside(self, run: RunFolder, experiment: RunFolder) -> None:
        if run == self.run:
            self._read()
            self.lab.set_shown_runs([*self.lab.overlaid(), run.full_name, experiment.full_name])

    def _measured(self, run: RunFolder, lines: list[str]) -> None:
        if run == self.run:
            self.evidence.show_measures(lines)
            self._read()

    def _unmeasured(self, run: RunFolder, error: LabError) -> None:
        self._measured(run, [])
        self.lab.error_raised.emit(error)


def _measure(run: RunFolder, check: Callable[[], None]) -> list[str]:
    """What `mystery ask NAME measure` says: in a process of its own, since measuring needs torch."""
    command = [*module_command("llmlab"), "mystery", "ask", str(run.path), MEASURE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, encoding="utf-8") as process:
        try:
            while True:
                check()
                try:
                    said, why = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
    if process.returncode:
        raise LabError(f"{run.id} could not be measured.", why.strip().removeprefix("error: "))
    return said.splitlines()
