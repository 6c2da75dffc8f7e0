"""The Experiments dock: all experiments, the runs of the current one, and what can be done with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QPoint, Qt, QTimer, QUrl
from PySide6.QtGui import QAction, QDesktopServices, QKeySequence
from PySide6.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from llmlab.core.errors import LabError
from llmlab.studies.upkeep import move_to_trash
from llmlab_gui.experiments.colors import trial_colors
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.tables import (
    EXPERIMENT_COLUMNS,
    TRIAL_COLUMNS,
    ExperimentsModel,
    TrialRow,
    TrialsModel,
    left_text,
)
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel
from llmlab_gui.widgets.question import GONE_FOR_GOOD, ask_to_delete
from llmlab_gui.widgets.row_tables import rows_table, select_row, selected_key
from llmlab_gui.widgets.saving import ask_where, save_csv
from llmlab_gui.widgets.theme import theme_notifier

if TYPE_CHECKING:
    from llmlab.studies.experiments.outcomes import ExperimentResults
    from llmlab_gui.experiments.desk import ExperimentDesk
    from llmlab_gui.lab.lab import Lab

# Walking through the list by keyboard should not open every experiment on the way.
_SETTLE_MS = 150


class ExperimentsDock(LabDock):
    """Choosing a row makes that experiment the one that the docks beside this one are about."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiments", "Experiments", parent)
        self.desk = desk
        self._background = Background(self)
        self.model, self.arms = ExperimentsModel(self), TrialsModel(self)
        self.table = rows_table(self.model, "Experiments", EXPERIMENT_COLUMNS)
        self.arms_table = rows_table(self.arms, "Runs of the experiment", TRIAL_COLUMNS)
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress of the experiment")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.standing = QuietLabel()
        self.standing.setAccessibleName("Where the experiment stands")
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("Errors")
        self.stop_button = self._button("Stop", "The current run saves and stops; the others wait", self.stop)
        self.resume_button = self._button("Resume", "Run what is left; finished runs are kept", self.go_on)
        self.open_button = self._button("Open run", "Show the selected run in all other panels", self.open_run)
        self.export_button = menu_button("Export", "Save a table as CSV")
        for text, model in (("The runs of this experiment…", self.arms), ("All experiments…", self.model)):
            self.export_button.menu().addAction(text, partial(self._ask_export, model))
        self.delete_action = self._action("Delete…", self.delete)
        self.delete_action.setShortcut(QKeySequence.StandardKey.Delete)
        self.delete_action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        self.table.addAction(self.delete_action)
        self.folder_action = self._action("Open its folder", self.open_folder)
        self._lay_out()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._choose)
        self.table.clicked.connect(lambda _: self._settle.start())
        self.table.selectionModel().currentRowChanged.connect(self._row_changed)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._open_menu)
        self.arms_table.activated.connect(lambda _: self.open_run())
        self.arms_table.selectionModel().selectionChanged.connect(lambda *_: self._update_buttons())
        self.caption(
            "An experiment is a group of runs that differ in one setting; each opens like any run.", "experiments"
        )
        self.desk.changed.connect(self._refresh)
        self.desk.current_changed.connect(self._current_changed)
        theme_notifier.changed.connect(self._restyle)
        self._refresh()

    # What can be done ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stops the current experiment; it can go on later."""
        row = self.desk.current()
        if row is not None:
            self.desk.controller.stop(row.folder)

    def go_on(self) -> None:
        """Goes on with the current experiment."""
        row = self.desk.current()
        if row is not None:
            self.desk.controller.go_on(row.folder)

    def open_run(self) -> None:
        """Makes the selected run, or the one that trains, the run that all other docks are about."""
        row = self.desk.current()
        if row is None:
            return
        name = selected_key(self.arms_table)
        trial = next(
            (trial for trial in row.record.arms if trial.run == name or (not name and trial.name == row.status.arm)),
            None,
        )
        if trial is None:
            return
        run = row.folder.run_of(trial, row.record.track)
        if not run.run_json.is_file():
            self.lab.error_raised.emit(LabError(f"{trial.run} has not started.", "", "It starts after those above it."))
        elif self.lab.row(run.full_name) is not None:
            self.lab.set_current(run.full_name)
            self.lab.said.emit(f"{run.id} is shown in the other panels.")
        else:
            self.lab.open_run(run)

    def overlay(self) -> None:
        """Shows all of its runs in the charts of the other docks."""
        row = self.desk.current()
        if row is not None:
            runs = [row.folder.run_of(trial, row.record.track).full_name for trial in row.record.arms]
            ids = [run for run in runs if self.lab.row(run) is not None]
            self.lab.set_shown(ids)
            self.lab.said.emit(f"{len(ids)} runs of {row.id} are overlaid in the charts.")

    def set_up_again(self) -> None:
        """Fills the set-up with what the current experiment was made from."""
        row = self.desk.current()
        if row is not None:
            self.lab.experiment_requested.emit(row.record)

    def export(self, path: Path, model: ExperimentsModel | TrialsModel) -> None:
        """A table as it is shown, as CSV, in the background."""
        header, rows = model.table()
        saved = partial(self.lab.said.emit, f"Saved {path}.")
        self._background.run(partial(save_csv, header, rows, path), lambda _: saved(), self.lab.error_raised.emit)

    def shutdown(self) -> None:
        self._background.shutdown()

    def open_folder(self) -> None:
        """The experiment's folder in the system's file manager."""
        row = self.desk.current()
        if row is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(row.folder.path)))

    def delete(self) -> None:
        """Asks, then moves the experiment (and its runs, if wanted) to the trash, or deletes where there is none."""
        row = self.desk.current()
        if row is None:
            return
        if row.status.live:
            self.lab.error_raised.emit(
                LabError(f"{row.id} is running.", "A live experiment cannot be deleted.", "Stop it first.")
            )
            return
        runs = [path for trial in row.record.arms if (path := row.folder.run_of(trial, row.record.track).path).is_dir()]
        with_runs = self.confirm_deletion(row, runs, for_good=False)
        if with_runs is None:
            return
        paths = [row.folder.path, *(runs if with_runs else [])]
        kept = [path for path in paths if not move_to_trash(path)]
        if with_runs:
            for path in runs:
                if path not in kept:
                    self.lab.forget(path.name)
        if kept and self.confirm_deletion(row, [path for path in kept if path in runs], for_good=True) is not None:
            for path in kept:
                self.lab.forget(path.name)
            self.desk.controller.delete_for_good(row.id, kept)
        self.desk.refresh()
        self.lab.refresh()

    def confirm_deletion(self, row: ExperimentRow, runs: list[Path], *, for_good: bool) -> bool | None:
        """The question before an experiment is deleted: whether its runs go, too; None: nothing goes."""
        reason = GONE_FOR_GOOD if for_good else ""
        check = QCheckBox(f"Its {len(runs)} runs, too, with all checkpoints")
        offered = check if runs and not for_good else None
        more = f"This removes its plan, results and report.{reason}"
        return check.isChecked() if ask_to_delete(self, row.id, more, for_good=for_good, check=offered) else None

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _button(self, text: str, tip: str, slot) -> QPushButton:  # type: ignore[no-untyped-def]
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda _=False: slot())
        return button

    def _action(self, text: str, slot) -> QAction:  # type: ignore[no-untyped-def]
        action = QAction(text, self)
        action.triggered.connect(lambda _=False: slot())
        return action

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.standing, 1)
        for button in (self.open_button, self.resume_button, self.stop_button, self.export_button):
            buttons.addWidget(button)
        below = QWidget()
        column = QVBoxLayout(below)
        column.setContentsMargins(0, 2, 0, 0)
        column.setSpacing(4)
        column.addLayout(buttons)
        column.addWidget(self.bar)
        column.addWidget(self.problem)
        column.addWidget(self.arms_table, 1)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.addWidget(self.table)
        splitter.addWidget(below)
        splitter.setStretchFactor(0, 2)
        splitter.setStretchFactor(1, 3)
        splitter.setChildrenCollapsible(False)
        self.set_body(splitter)

    def _current_changed(self, _experiment: str) -> None:
        self._refresh()

    def _refresh(self) -> None:
        rows = self.desk.rows()
        self.model.show(rows)
        if not self.desk.looked:
            self.show_empty("Looking for experiments", str(self.lab.outputs))
        elif not rows:
            self.show_empty(
                "No experiments yet",
                "Vary one setting, predict the outcome and see. Those of llmlab-run experiment appear here, too.",
                "Set one up",
                partial(self.lab.dock_requested.emit, "experiment"),
            )
        else:
            self.show_body()
        row = self.desk.current()
        select_row(self.table, row.id if row else "")
        self._show_trials(row)
        self._show_standing(row)
        self._update_buttons()

    def _show_trials(self, row: ExperimentRow | None) -> None:
        if row is None:
            self.arms.show([])
            return
        colors = trial_colors(row.record)
        self.arms.show(
            [
                TrialRow(trial, self.desk.standing(row, trial.name), colors[trial.name].name())
                for trial in row.record.arms
            ]
        )

    def _show_standing(self, row: ExperimentRow | None) -> None:
        self.bar.setVisible(row is not None and bool(row.record.arms))
        error = row.status.error if row is not None else None
        self.problem.say(" ".join(part for part in error.values() if part) if error else "")
        if row is None:
            self.standing.setText("")
            return
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * progress(row)))
        self.standing.setText(standing_text(row))

    def _update_buttons(self) -> None:
        row = self.desk.current()
        state = row.status.state if row else ""
        self.stop_button.setVisible(state in ("running", "stopping"))
        self.stop_button.setEnabled(state == "running")
        self.resume_button.setVisible(row is not None and can_go_on(row))
        self.open_button.setEnabled(bool(selected_key(self.arms_table)) or bool(row and row.status.arm))

    def _row_changed(self) -> None:
        if self.table.hasFocus():  # not when the table itself moves the selection
            self._settle.start()

    def _choose(self) -> None:
        chosen = selected_key(self.table)
        if chosen:
            self.desk.set_current(chosen)

    def _open_menu(self, point: QPoint) -> None:
        self._settle.stop()
        self._choose()
        row = self.desk.current()
        if row is None:
            return
        menu = QMenu(self.table)
        menu.addAction("Show its report", partial(self.lab.dock_requested.emit, "experiment_report"))
        menu.addAction("Overlay its runs in the charts", self.overlay)
        menu.addAction("Set up another like it", self.set_up_again)
        menu.addAction(self.folder_action)
        if can_go_on(row):
            menu.addAction("Resume", self.go_on)
        if row.status.state == "running":
            menu.addAction("Stop", self.stop)
        menu.addSeparator()
        self.delete_action.setEnabled(not row.status.live)
        menu.addAction(self.delete_action)
        menu.exec(self.table.viewport().mapToGlobal(point))
        self.delete_action.setEnabled(True)
        menu.deleteLater()

    def _ask_export(self, model: ExperimentsModel | TrialsModel) -> None:
        row = self.desk.current()
        suggested = f"{row.id}-runs.csv" if row is not None and model is self.arms else "experiments.csv"
        path = ask_where(self, "Export the table", suggested, "Table")
        if path is not None:
            self.export(path, model)

    def _restyle(self) -> None:
        self._show_trials(self.desk.current())
        self.model.repaint_all()
        self.arms.repaint_all()


def can_go_on(row: ExperimentRow) -> bool:
    """Whether something of its plan is left, and nobody is at it."""
    return not row.status.live and row.status.state != "finished"


def progress(row: ExperimentRow) -> float:
    """The share of the plan that is done, 0 to 1: runs weigh as much as they were estimated to take."""
    total = done = 0.0
    for trial in row.record.arms:
        status, weight = row.status.arms.get(trial.name), trial.estimated_seconds or 1.0
        total += weight
        if status is not None:
            done += weight * (1.0 if status.ended else status.step / status.steps if status.steps else 0.0)
    return done / total if total else 0.0


def standing_text(row: ExperimentRow) -> str:
    """`Run 3 of 7 (0.003): step 40 of 300. 12 min left.`"""
    status, trials = row.status, row.record.arms
    names = [trial.name for trial in trials]
    parts = []
    if status.arm in names and status.live:
        trial = status.arms.get(status.arm)
        at = f": step {trial.step:,} of {trial.steps:,}" if trial and trial.steps else ""
        parts.append(f"Run {names.index(status.arm) + 1} of {len(names)}, {status.arm}{at}.")
    elif trials:
        parts.append(f"{status.ended_trials} of {len(trials)} runs have ended; it is {status.state}.")
    else:
        parts.append(f"It analyses {row.record.subject}; it is {status.state}.")
    if status.doing:
        parts.append(f"{status.doing}.")
    left = left_text(status)
    if left:
        parts.append(f"{left} left.")
    return " ".join(parts)
