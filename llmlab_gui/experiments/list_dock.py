"""The Experiments dock: all experiments, the runs of the current one, and what can be done with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QCheckBox, QMenu, QWidget

from llmlab.core.errors import LabError
from llmlab.core.files import move_to_trash, remove_folder
from llmlab.core.progress import Progress
from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.study_panel import StudyPanel, can_go_on
from llmlab_gui.experiments.tables import EXPERIMENT_COLUMNS, TRIAL_COLUMNS, ExperimentsModel, trial_colors
from llmlab_gui.host.long_work import LongWork
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.layouts import settling_timer, split
from llmlab_gui.widgets.question import GONE_FOR_GOOD, ask_to_delete
from llmlab_gui.widgets.row_tables import DatedNames, rows_table, select_row, selected_key
from llmlab_gui.widgets.saving import Export, export_button
from llmlab_gui.widgets.theme import theme_notifier

# Walking through the list by keyboard should not open every experiment on the way.
_SETTLE_MS = 150


class ExperimentsDock(LabDock):
    """Choosing a row makes that experiment the one that the docks beside this one are about."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiments", "Experiments", parent)
        self.desk = desk
        self.deletions = LongWork(self)
        self._going: set[str] = set()  # ids of the experiments that are being deleted
        self.strip = ProgressStrip(self.deletions, noun="the deletion")
        self.model = ExperimentsModel(self)
        self.table = rows_table(self.model, "Experiments", EXPERIMENT_COLUMNS)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # a name made from a date ends with its kind
        self.table.setItemDelegateForColumn(0, DatedNames(self.table))
        self.study = StudyPanel(lab, desk, "experiment", TRIAL_COLUMNS, _colors)
        exports = export_button(
            Export(partial(self.write_table, self.study.trials), self._trials_name, what="The runs of this experiment"),
            Export(partial(self.write_table, self.model), lambda: "experiments", what="All experiments"),
        )
        self.study.buttons.addWidget(exports)
        self.delete_action = self._action("Delete…", self.delete)
        self.delete_action.setShortcut(QKeySequence.StandardKey.Delete)
        self.delete_action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        self.table.addAction(self.delete_action)
        self.folder_action = self._action("Open its folder", self.study.open_folder)
        self._lay_out()
        self._settle = settling_timer(self, _SETTLE_MS, self._choose)
        self.table.clicked.connect(lambda _: self._settle.start())
        self.table.selectionModel().currentRowChanged.connect(self._row_changed)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._open_menu)
        self.caption(
            "An experiment is a group of runs that differ in one setting; each opens like any run.", "experiments"
        )
        self.desk.changed.connect(self._refresh)
        self.desk.current_changed.connect(self._refresh)
        self.desk.controller.started.connect(self._come_to_front)
        theme_notifier.changed.connect(self._show_study)
        self._refresh()

    # What can be done ------------------------------------------------------------------------------------------

    def overlay(self) -> None:
        """Shows all of its runs in the charts of the other docks."""
        row = self.desk.current()
        if row is not None:
            runs = [run.full_name for run in row.folder.runs_of(row.record)]
            ids = [run for run in runs if self.lab.row(run) is not None]
            self.lab.set_shown_runs(ids)
            self.lab.said.emit(f"{len(ids)} runs of {row.id} are overlaid in the charts.")

    def set_up_again(self) -> None:
        """Fills the set-up with what the current experiment was made from."""
        row = self.desk.current()
        if row is not None:
            self.lab.experiment_requested.emit(row.record)

    def delete(self) -> None:
        """Asks, then moves the experiment (and its runs, if wanted) to the trash, or deletes where there is none."""
        row = self.desk.current()
        if row is None or row.id in self._going:
            return
        if row.status.live:
            self.lab.error_raised.emit(
                LabError(f"{row.id} is running.", "An experiment that is running cannot be deleted.", "Stop it first.")
            )
            return
        runs = [run.path for run in row.folder.runs_of(row.record) if run.path.is_dir()]
        with_runs = self.confirm_deletion(row, runs, for_good=False)
        if with_runs is None:
            return
        self._delete(row, [row.folder.path, *(runs if with_runs else [])], for_good=False)

    def _delete(self, row: ExperimentRow, paths: list[Path], *, for_good: bool) -> None:
        """Away from the window's thread: its runs have gigabytes."""
        self._going.add(row.id)

        def work(progress: Progress) -> list[Path]:
            kept = []
            for place, path in enumerate(paths):
                progress(f"Deleting {path.name}", place, len(paths))
                if for_good:
                    remove_folder(path, progress)
                elif not move_to_trash(path):
                    kept.append(path)
            return kept

        def settle() -> None:
            self._going.discard(row.id)
            self.desk.refresh()
            self.lab.refresh()

        def then(kept: list[Path]) -> None:
            settle()
            if kept:
                runs = [path for path in kept if path != row.folder.path]
                if self.confirm_deletion(row, runs, for_good=True) is not None:
                    self._delete(row, kept, for_good=True)
            else:
                self.lab.said.emit(f"{row.id} was deleted.")

        def failed(error: LabError) -> None:
            settle()
            self.lab.error_raised.emit(error)

        self.deletions.run(f"Deleting {row.id}", work, then, failed, settle)

    def confirm_deletion(self, row: ExperimentRow, runs: list[Path], *, for_good: bool) -> bool | None:
        """The question before an experiment is deleted: whether its runs go, too; None: nothing goes.

        runs: that could go, too; with for_good, those that do, since the trash took the others.
        """
        check = QCheckBox(f"Its {_runs(runs)}, too, with all checkpoints")
        offered = check if runs and not for_good else None
        what, more = row.id, ["This removes its plan, results and report."]
        if for_good and runs:
            if row.folder.path.is_dir():
                what, more = f"{row.id} and its {_runs(runs)}", [*more, "Its runs go with all checkpoints."]
            else:
                what, more = f"the {_runs(runs)} of {row.id}", ["They go with all checkpoints."]
        told = " ".join(more) + (GONE_FOR_GOOD if for_good else "")
        return check.isChecked() if ask_to_delete(self, what, told, for_good=for_good, check=offered) else None

    def _action(self, text: str, slot) -> QAction:  # type: ignore[no-untyped-def]
        action = QAction(text, self)
        action.triggered.connect(lambda _=False: slot())
        return action

    def _lay_out(self) -> None:
        self.set_body(split((self.table, 2), (self.study, 3)))
        self.strip.lie_over(self.table)

    def _come_to_front(self, _experiment: str) -> None:
        """What was started is watched here; its form may lie over it."""
        self.show()
        self.raise_()

    def _refresh(self, _experiment: str = "") -> None:
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
        self._show_study()

    def _show_study(self) -> None:
        row = self.desk.current()
        self.study.show_row(row, f"It analyses {row.record.subject}." if row is not None else "")

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
            menu.addAction("Resume", self.study.go_on)
        if row.status.state == "running":
            menu.addAction("Stop", self.study.stop)
        menu.addSeparator()
        self.delete_action.setEnabled(not row.status.live)
        menu.addAction(self.delete_action)
        menu.exec(self.table.viewport().mapToGlobal(point))
        self.delete_action.setEnabled(True)
        menu.deleteLater()

    def _trials_name(self) -> str:
        row = self.desk.current()
        return f"{row.id if row is not None else 'experiment'}-runs"


def _colors(row: ExperimentRow) -> dict[str, str]:
    return {name: color.name() for name, color in trial_colors(row.record).items()}


def _runs(runs: list[Path]) -> str:
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
