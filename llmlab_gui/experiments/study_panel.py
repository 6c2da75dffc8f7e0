"""What the docks about experiments and about checks show of the one that is looked at: its standing and its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtWidgets import QProgressBar, QPushButton, QWidget

from llmlab.core.errors import LabError
from llmlab.store.worker_folder import is_elsewhere
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.tables import TrialRow, TrialsModel, seconds_left
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel, labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.numbers import time_left_text
from llmlab_gui.widgets.question import ask_where_to_resume
from llmlab_gui.widgets.row_tables import Column, rows_table, selected_key
from llmlab_gui.widgets.saving import open_outside

_WHOLE = 1000  # of the bar
# Pixels of a header and five rows. A table that was empty when its panel became small would stay small.
_LEAST_TABLE = 176


class StudyPanel(QWidget):
    """How far a plan of several runs is, the runs themselves, and what can be done with them."""

    def __init__(
        self,
        lab: Lab,
        desk: ExperimentDesk[Any],
        noun: str,
        columns: Sequence[Column[TrialRow]],
        colors: Callable[[ExperimentRow], dict[str, str]] = lambda _: {},
    ) -> None:
        """noun: what the desk's plans are. colors: of the runs as in charts, by the names of their trials."""
        super().__init__()
        self._lab, self._desk, self._colors = lab, desk, colors
        self.row: ExperimentRow | None = None  # what is looked at
        self.bar = labelled(QProgressBar(minimum=0, maximum=_WHOLE, textVisible=False), f"Progress of the {noun}")
        self.bar.setMaximumHeight(8)
        self.standing = labelled(QuietLabel(), f"Where the {noun} stands")
        self.problem = labelled(ProblemLabel(), "Errors")
        self.trials = TrialsModel(columns, self)
        self.trials_table = rows_table(self.trials, f"Runs of the {noun}", columns)
        self.trials_table.setMinimumHeight(_LEAST_TABLE)
        buttons = QWidget()
        self.buttons = FlowRow(buttons)
        self.resume_button = self.add_button("Resume", "Run what is left; finished runs are kept", self.go_on)
        self.stop_button = self.add_button("Stop", "Running trials save and stop; the others wait", self.stop)
        self.open_button = self.add_button("Open run", "Show the selected run in all other panels", self.open_run)
        # The last takes the table's room while there is none.
        parts = (buttons, self.bar, self.standing, self.problem, (self.trials_table, 1), 0)
        column(*parts, into=self, spacing=4, margins=(0, 2, 0, 0))
        self.trials_table.activated.connect(lambda _: self.open_run())
        self.trials_table.selectionModel().selectionChanged.connect(lambda *_: self._offer_run())

    def add_button(self, text: str, tip: str, slot: Callable[[], object]) -> QPushButton:
        """One more beside the others."""
        button = labelled(QPushButton(text), tip=tip)
        button.clicked.connect(lambda _=False: slot())
        self.buttons.addWidget(button)
        return button

    def show_row(self, row: ExperimentRow | None, about: str) -> None:
        """about: what is said of a plan without runs, and where there is no plan."""
        self.row = row
        trials = row.record.trials if row is not None else []
        colors = self._colors(row) if row is not None else {}
        rows = [TrialRow(trial, row.standing(trial.name), colors.get(trial.name, "")) for trial in trials if row]
        self.trials.show(rows)
        self.trials_table.setVisible(bool(trials))
        error = row.status.error if row is not None else None
        self.problem.say(" ".join(str(part) for part in error.values() if part) if error else "")
        self.bar.setVisible(row is not None)
        self.bar.setValue(round(_WHOLE * row.status.share_done) if row is not None else 0)
        self.standing.setText(standing_text(row, about) if row is not None else about)
        state = row.status.state if row is not None else ""
        resumable = row is not None and can_go_on(row)
        self.stop_button.setVisible(row is not None and not resumable)  # also at its end: what is beside it stays there
        self.stop_button.setEnabled(state == "running")
        self.resume_button.setVisible(resumable)
        self.open_button.setVisible(bool(trials))
        self._offer_run()

    def stop(self) -> None:
        """It can go on later."""
        if self.row is not None:
            self._desk.controller.stop(self.row.folder)

    def go_on(self) -> None:
        """Goes on with it."""
        row = self.row
        if row is None:
            return
        elsewhere = row.status.live and is_elsewhere(row.status)
        if elsewhere and not ask_where_to_resume(self, row.id, row.status.host):
            return
        if TrainingNow(self._lab).may_start(self, "Resume"):
            self._desk.controller.go_on(row.folder, take_over=elsewhere)

    def open_run(self) -> None:
        """Makes the selected run, or the one that trains, the run that all other docks are about."""
        row, name = self.row, selected_key(self.trials_table)
        if row is None:
            return
        trial = next(
            (one for one in row.record.trials if (one.run == name if name else one.name == row.status.trial)), None
        )
        if trial is None:
            return
        run = row.folder.run_of(trial, row.record.track)
        if not run.run_json.is_file():
            error = LabError(f"{trial.run} has not started.", "", "It starts after those above it.")
            self._lab.error_raised.emit(error)
        elif self._lab.row(run.full_name) is not None:
            self._lab.set_current(run.full_name)
            self._lab.said.emit(f"{run.id} is shown in the other panels.")
        else:
            self._lab.open_run(run)

    def open_folder(self) -> None:
        """Its folder in the system's file manager."""
        if self.row is not None:
            open_outside(self.row.folder.path, self._lab.error_raised)

    def _offer_run(self) -> None:
        self.open_button.setEnabled(bool(selected_key(self.trials_table)) or bool(self.row and self.row.status.trial))


def can_go_on(row: ExperimentRow) -> bool:
    """Whether something of its plan is left, and nobody is at it here."""
    return (not row.status.live or is_elsewhere(row.status)) and row.status.state != "finished"


def standing_text(row: ExperimentRow, about: str) -> str:
    """`Run 9 of 18 (hmm-s2): step 421 of 2,000. 7 min left.` about: of a plan without runs, what is done instead."""
    status, names = row.status, [trial.name for trial in row.record.trials]
    parts = [about]
    if status.live and status.trial in names:
        trial = status.trials.get(status.trial)
        at = f": step {trial.step:,} of {trial.steps:,}" if trial is not None and trial.steps else ""
        parts = [f"Run {names.index(status.trial) + 1} of {len(names)} ({status.trial}){at}."]
        if len(training := status.training) > 1:
            parts = [
                f"{len(training)} of {len(names)} are training: {', '.join(training)}; {status.ended_trials} ended."
            ]
    elif names:
        parts = [f"{status.ended_trials} of {len(names)} runs have ended."]
    if not status.live:
        parts.append(f"It is {status.state}.")
    elif is_elsewhere(status):
        parts.append(f"It is {status.state} on {status.host}.")
    elif status.state == "stopping":
        parts.append("It stops as soon as its running trials have saved.")
    if status.doing and status.live:
        parts.append(f"{status.doing.rstrip('.')}.")
    if status.state != "stopping" and (left := seconds_left(status)):
        parts.append(f"{time_left_text(left)} left." if status.live else f"Resume takes {time_left_text(left)}.")
    return " ".join(part for part in parts if part)
