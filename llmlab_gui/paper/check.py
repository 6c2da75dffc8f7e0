"""The Check dock: what a check of the paper's claims trains and how long that takes, its start, and how far it is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication, QPalette, QShowEvent
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.data.papers import SIZES
from llmlab.studies.papers.checks import CheckRequest, plan_check
from llmlab.studies.records import ExperimentRecord
from llmlab_gui.experiments.busy import ask_to_start, busy_with
from llmlab_gui.experiments.list_dock import can_go_on
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.tables import TRIAL_COLUMNS, TrialRow, TrialsModel
from llmlab_gui.forms.reference_box import offers
from llmlab_gui.lab.dock import LabDock, is_seen
from llmlab_gui.notebook.asking import ask_of_check
from llmlab_gui.paper.check_form import CheckForm
from llmlab_gui.paper.check_runs import share_done, standing_text
from llmlab_gui.paper.claim_rows import check_options
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel, scrolled
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.row_tables import Column, rows_table, selected_key

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.paper.desk import PaperDesk

_SETTLE_MS = 250
_WHOLE = 1000  # of the bar
# As an experiment's runs, by their names: nothing is varied.
_WIDTHS = {"State": 11, "Step": 13, "Val loss": 8, "Time": 9}
CHECK_TRIAL_COLUMNS: tuple[Column[TrialRow], ...] = (
    Column("Run", lambda row: row.arm.name, "Its name ends the run's", width=19),
    *(replace(column, width=_WIDTHS[column.title]) for column in TRIAL_COLUMNS if column.title in _WIDTHS),
)
_CAPTION = (
    "Runs of a check are runs like any other. An interrupted check can be resumed: finished runs stay as they are."
)


class CheckDock(LabDock):
    """Set-up above, the check that is looked at below."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "check", "Check", parent)
        self.desk = desk
        self.record: ExperimentRecord | None = None  # the plan of what is in the form; None while there is none
        self._asked: CheckRequest | None = None
        self._planned = False  # what is in the form was looked at
        self._run_when_planned = False  # Run was pressed before there was a plan
        self._background = Background(self)
        self.form = CheckForm(lab, desk)
        self.estimate = QLabel()
        self.estimate.setWordWrap(True)
        self.estimate.setAccessibleName("Estimate")
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("Errors")
        self.run_button = PrimaryButton("Run")
        self.run_button.setEnabled(False)  # until there is a plan
        self.run_button.setToolTip("Asks for your predictions, then trains and judges")
        self.copy_button = QPushButton("Copy command")
        self.copy_button.setToolTip("The same check as a command for a terminal")
        self.checks = QComboBox()
        self.checks.setAccessibleName("Which check")
        self.checks.setToolTip("Checks of this paper, newest first")
        self.checks.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.checks.setMinimumContentsLength(12)
        self.bar = QProgressBar()
        self.bar.setRange(0, _WHOLE)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.bar.setAccessibleName("Progress of the check")
        self.standing = QuietLabel()
        self.standing.setAccessibleName("Where the check stands")
        self.trouble = ProblemLabel()
        self.trouble.setAccessibleName("Errors")
        self.stop_button = self._button("Stop", "The current run saves and stops; the others wait", self.stop)
        self.resume_button = self._button("Resume", "Run what is left; finished runs are kept", self.go_on)
        self.report_button = self._button(
            "Report", "All its verdicts, with figures and how to repeat it", self.open_report
        )
        self.folder_button = self._button("Folder", "report.md, figures and verdict.json", self.open_folder)
        self.arms = TrialsModel(self, CHECK_TRIAL_COLUMNS)
        self.arms_table = rows_table(self.arms, "Runs of the check", CHECK_TRIAL_COLUMNS)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self.update_plan)
        self._lay_out()
        self.caption(_CAPTION, "experiments")
        self.form.edited.connect(self._edited)
        self.run_button.clicked.connect(self.run)
        self.copy_button.clicked.connect(self.copy_command)
        self.checks.activated.connect(lambda place: self.desk.checks.set_current(self.checks.itemData(place)))
        self.arms_table.activated.connect(lambda _: self.open_run())
        self.desk.paper_changed.connect(self._paper_changed)
        self.desk.check_wanted.connect(self._fill_wanted)
        self.desk.check_changed.connect(self._refresh)
        self.desk.checks.controller.started.connect(self._started)
        self.desk.checks.controller.failed.connect(lambda _: self._settle.start())  # it can be tried again
        self._paper_changed()
        self._refresh()

    # What can be done ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Asks what is expected of each claim, and starts what was planned."""
        record = self.record
        if record is None or self._settle.isActive():  # the form was edited a moment ago
            self.update_plan()
            self._run_when_planned = self._asked is not None
            return
        busy = busy_with(self.lab)
        if busy and not self.ask_about_others(busy):
            return
        predictions = ask_of_check(self, self.lab.notebook, record)
        if predictions is None:
            return
        stated = [prediction.as_dict() for prediction in predictions]  # locked when its folder is made
        self.desk.checks.controller.start(replace(record, predictions=stated))
        self.record = None  # its name is taken
        self.run_button.setEnabled(False)

    def ask_about_others(self, busy: list[str]) -> bool:
        """Whether to start although these are running."""
        return ask_to_start(self, busy)

    def stop(self) -> None:
        """Stops the check that is looked at; it can go on later."""
        row = self.desk.check
        if row is not None:
            self.desk.checks.controller.stop(row.folder)

    def go_on(self) -> None:
        """Goes on with it."""
        row = self.desk.check
        if row is not None:
            self.desk.checks.controller.go_on(row.folder)

    def open_run(self) -> None:
        """Makes the selected run the one that all other docks are about."""
        row, chosen = self.desk.check, selected_key(self.arms_table)
        if row is None or not chosen:
            return
        run_id = f"{row.record.track}/{chosen}"
        if self.lab.row(run_id) is None:
            self.lab.error_raised.emit(LabError(f"{chosen} has not started.", "", "It starts after those above it."))
            return
        self.lab.set_current(run_id)
        self.lab.said.emit(f"{chosen} is shown in the other panels.")

    def open_report(self) -> None:
        """Its report in front."""
        self.lab.dock_requested.emit("check_report")

    def open_folder(self) -> None:
        """The check's folder in the system's file manager."""
        row = self.desk.check
        if row is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(row.folder.path)))

    def copy_command(self) -> None:
        """The command line of what is in the form, to the clipboard."""
        try:
            command = self.form.command(self.form.read())
        except LabError as error:
            self.problem.say(str(error))
            return
        QGuiApplication.clipboard().setText(command)
        self.lab.said.emit(f"Copied: {command}")

    def update_plan(self) -> None:
        """Says what is wrong, or else what each size takes."""
        self._settle.stop()
        if not is_seen(self):  # estimates cost time; it plans when it is looked at
            self._planned = False
            return
        if not self._planned:
            self._offer_models()
        self._planned = True
        try:
            request = self.form.read()
        except LabError as error:
            self._asked = None
            self._cannot(error)
            return
        self._asked = request = replace(request, command=self.form.command(request))
        self.record = None
        self.run_button.setEnabled(False)
        self.problem.say("")
        self.estimate.setText("Planning…")

        def failed(error: LabError) -> None:
            if self._asked is request:
                self._cannot(error)

        def done(plans: dict[str, ExperimentRecord]) -> None:
            if self._asked is request:
                self._show_plans(request.size, plans)

        self._background.run(partial(_plans, request), done, failed)

    def shutdown(self) -> None:
        self._background.shutdown()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.desk.need()
        if not self._planned:
            self._settle.start()

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _offer_models(self) -> None:
        runs = [row.run for row in self.lab.runs()]
        found = partial(offers, self.lab.outputs, runs, ())
        self._background.run(found, self.form.offer_models, self.lab.error_raised.emit)

    def _show_plans(self, asked: str, plans: dict[str, ExperimentRecord]) -> None:
        """asked: the size that was in the form; by now another one may be, which is planned next."""
        self.form.show_sizes({size: plan_text(record) for size, record in plans.items()})
        self.record = plans[asked]
        self.estimate.setText(f"<b>{plan_text(self.record).capitalize()}</b> here.")
        self.run_button.setEnabled(True)
        if self._run_when_planned and not self._settle.isActive():
            self._run_when_planned = False
            self.run()

    def _cannot(self, error: LabError) -> None:
        self.record = None
        self._run_when_planned = False
        self.form.show_sizes({})
        self.estimate.setText("")
        self.problem.say(str(error))
        self.run_button.setEnabled(False)

    def _paper_changed(self) -> None:
        self.form.show_paper()
        if self.desk.paper is None:
            self.show_empty("No paper is open", "Choose one in Paper: its claims are tested here.")
        else:
            self.show_body()
        self._fill_wanted()

    def _fill_wanted(self) -> None:
        """What a page asks for: one claim on one model; kept until the paper has been read."""
        paper = self.desk.paper
        if self.desk.wanted is None or paper is None:
            return
        (name, claim, model), self.desk.wanted = self.desk.wanted, None
        if name != paper.name or claim not in self.form.claims:  # another was chosen meanwhile, or it has no test
            return
        for id, box in self.form.claims.items():
            box.setChecked(id == claim)
        self.form.model.choose(model)
        self.show()

    def _edited(self) -> None:
        """What was to run is not what is in the form now."""
        self._run_when_planned = False
        self._settle.start()

    def _started(self, check: str) -> None:
        if self.form.name.text().strip() == check:
            self.form.name.clear()
        self._settle.start()  # a fresh name, for another one like it

    def _refresh(self) -> None:
        rows, row = self.desk.checks_here(), self.desk.check
        offered = [(one.id, check_text(one)) for one in rows]
        if offered != [(self.checks.itemData(n), self.checks.itemText(n)) for n in range(self.checks.count())]:
            self.checks.clear()
            for id, words in offered:
                self.checks.addItem(words, id)
        self.checks.setCurrentIndex(self.checks.findData(row.id) if row is not None else -1)
        for widget in (self.checks, self.bar, self.report_button, self.folder_button):
            widget.setVisible(row is not None)
        self.arms_table.setVisible(row is not None and bool(row.record.arms))
        state = row.status.state if row is not None else ""
        self.stop_button.setVisible(state in ("running", "stopping"))
        self.stop_button.setEnabled(state == "running")
        self.resume_button.setVisible(row is not None and can_go_on(row))
        if row is None:
            self.standing.setText("No check of this paper has been run yet.")
            self.trouble.say("")
            self.arms.show([])
            return
        error = row.status.error
        self.trouble.say(" ".join(str(part) for part in error.values() if part) if error else "")
        self.bar.setValue(round(_WHOLE * share_done(row)))
        self.standing.setText(standing_text(row))
        self.arms.show([TrialRow(trial, self.desk.checks.standing(row, trial.name)) for trial in row.record.arms])

    def _button(self, text: str, tip: str, slot) -> QPushButton:  # type: ignore[no-untyped-def]
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda _=False: slot())
        return button

    def _lay_out(self) -> None:
        start = QHBoxLayout()
        start.addWidget(self.estimate, 1)
        start.addWidget(self.copy_button)
        start.addWidget(self.run_button)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Plain)
        line.setForegroundRole(QPalette.ColorRole.Mid)
        row = QWidget()
        actions = FlowRow(row)
        for button in (self.resume_button, self.stop_button, self.report_button, self.folder_button):
            actions.addWidget(button)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addWidget(self.form)
        layout.addWidget(self.problem)
        layout.addLayout(start)
        layout.addWidget(line)
        layout.addWidget(self.checks)
        layout.addWidget(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.standing)
        layout.addWidget(self.trouble)
        layout.addWidget(self.arms_table, 1)
        layout.addStretch(0)  # takes the table's room while there is no check
        self.arms_table.setMinimumHeight(110)
        self.set_body(scrolled(body))


def plan_text(record: ExperimentRecord) -> str:
    """`18 runs, about 12 min`."""
    count = len(record.arms)
    runs = f"{count or 'no'} {'run' if count == 1 else 'runs'}"
    return f"{runs}, about {minutes_text(record.estimated_seconds / 60)}"


def check_text(row: ExperimentRow) -> str:
    """`wind-tunnel · minutes · running`."""
    options = check_options(row)
    return " · ".join(part for part in (row.id, options.size if options else "", row.status.state) if part)


def _plans(request: CheckRequest) -> dict[str, ExperimentRecord]:
    """The plan at each size; at the others as far as they can be."""
    plans = {request.size: plan_check(request)}
    for size in SIZES:
        if size not in plans:
            try:
                plans[size] = plan_check(replace(request, size=size))
            except LabError:
                continue
    return plans
