"""The Check dock: what a check of the paper's claims trains and how long that takes, its start, and how far it is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from PySide6.QtCore import QTimer
from PySide6.QtGui import QGuiApplication, QPalette
from PySide6.QtWidgets import QFrame, QWidget

from llmlab.core.errors import LabError
from llmlab.data.papers import SIZES
from llmlab.studies.papers.checks import CheckRequest, inconclusive_words, plan_check
from llmlab.studies.plans.records import ExperimentRecord
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.report_dock import Nothing, ReportDock
from llmlab_gui.experiments.study_panel import StudyPanel
from llmlab_gui.experiments.study_setup import Steps, StudySetup
from llmlab_gui.experiments.tables import TRIAL_COLUMNS, TrialRow
from llmlab_gui.forms.reference_box import offers
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.notebook.asking import ask_of_check
from llmlab_gui.paper.check_form import CheckDraft, CheckForm
from llmlab_gui.paper.claim_rows import check_options
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import scrolled
from llmlab_gui.widgets.layouts import choice_box, column
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.row_tables import Column

# As an experiment's runs, by their names: nothing is varied.
_WIDTHS = {"State": 11, "Step": 13, "Val loss": 8, "Time": 9}
CHECK_TRIAL_COLUMNS: tuple[Column[TrialRow], ...] = (
    Column("Run", lambda row: row.trial.name, "Its name ends the run's", width=19),
    *(replace(column, width=_WIDTHS[column.title]) for column in TRIAL_COLUMNS if column.title in _WIDTHS),
)
_CAPTION = (
    "Runs of a check are runs like any other. An interrupted check can be resumed: finished runs stay as they are."
)
_UNTESTED: Nothing = (
    "No check tests this paper",
    "Evidence shows what each of its claims would need. An experiment of your own can test one.",
    "Set up an experiment",
    "experiment",
)
_UNCHOSEN: Nothing = (
    "No check is selected",
    "Run or choose one in Check: its report is shown here.",
    "Set one up",
    "check",
)

_DRAFT = "set-up/check"


class CheckDock(LabDock):
    """Set-up above, the check that is looked at below."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "check", "Check", parent)
        self.desk = desk
        self.form = CheckForm(lab, desk)
        steps = Steps(_plans, self._show_plans, partial(self.form.show_sizes, {}), partial(ask_of_check, self, lab))
        tip = "Asks for your predictions, then trains and judges"
        self.setup = StudySetup(lab, self, self.form, desk.checks.controller, steps, "Run", tip)
        self.copy_button = push_button(
            "Copy command", self.copy_command, tip="The same check as a command for a terminal"
        )
        self.setup.add_button(self.copy_button)
        self._draft: CheckDraft | None = None  # of the last start, until a paper is read
        self._started = ""  # not in the list yet; its progress is brought into sight
        self.checks = choice_box("Which check", tip="Checks of this paper, newest first", least=12)
        self.study = study = StudyPanel(lab, desk.checks, "check", CHECK_TRIAL_COLUMNS)
        tip = "All its verdicts, with figures and how to repeat it"
        self.report_button = study.add_button("Report", tip, partial(lab.dock_requested.emit, "check_report"))
        self.folder_button = study.add_button(
            "Open its folder", "report.md, figures and verdict.json", study.open_folder
        )
        self._lay_out()
        self.caption(_CAPTION, "experiments")
        self.form.edited.connect(self.keep_later)
        self.checks.activated.connect(lambda place: self.desk.checks.set_current(self.checks.itemData(place)))
        self.visibilityChanged.connect(self._seen)
        self.desk.paper_changed.connect(self._paper_changed)
        self.desk.check_wanted.connect(self._fill_wanted)
        self.desk.check_changed.connect(self._refresh)
        desk.checks.controller.started.connect(self._await)
        self._paper_changed()
        self._refresh()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        self._draft = self.draft_left(_DRAFT, CheckDraft)
        if self._draft is not None:
            self.desk.set_paper(self._draft.paper)
        self._paper_changed()

    def keep(self) -> None:
        """What is in the form; what was left there before, where no paper was read."""
        if self.desk.paper is not None:
            self.save_draft(_DRAFT, self.form.draft())

    def copy_command(self) -> None:
        """The command line of what is in the form, to the clipboard."""
        try:
            command = self.form.read().command
        except LabError as error:
            self.setup.problem.say(str(error))
            return
        QGuiApplication.clipboard().setText(command)
        self.lab.said.emit(f"Copied: {command}")

    def _seen(self, seen: bool) -> None:
        if seen:
            self.desk.need()
            runs = [row.run for row in self.lab.runs()]
            found = partial(offers, self.lab.outputs, runs, (), self._background.check)
            self._background.run(found, self.form.offer_models, self.lab.error_raised.emit)

    def _show_plans(self, asked: CheckRequest, plans: dict[str, ExperimentRecord]) -> tuple[ExperimentRecord, str]:
        """Of the size that was in the form; by now another one may be, which is planned next."""
        self.form.show_sizes({size: plan_text(record) for size, record in plans.items()})
        record = plans[asked.size]
        words = f"<b>{plan_text(record).capitalize()}</b> here."
        return record, f"{words} {inconclusive_words(record)}".strip()

    def _paper_changed(self) -> None:
        self.form.show_paper()
        if self._draft is not None and self.desk.paper is not None:
            self.form.show_draft(self._draft)
            self._draft = None
        if self.desk.paper is None:
            self.show_empty("No paper is open", "Choose one in Paper: its claims are tested here.")
        elif not self.desk.tested:
            title, hint, action, dock = _UNTESTED
            self.show_empty(title, hint, action, partial(self.lab.dock_requested.emit, dock))
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

    def _refresh(self) -> None:
        rows, row = self.desk.checks_here(), self.desk.check
        offered = [(one.id, check_text(one)) for one in rows]
        if offered != self.checks.entries():
            self.checks.fill(offered)
        self.checks.setCurrentIndex(self.checks.findData(row.id) if row is not None else -1)
        for widget in (self.checks, self.report_button, self.folder_button):
            widget.setVisible(row is not None)
        options = check_options(row)
        about = f"Tested on {', '.join(options.models)}." if options is not None and options.models else ""
        self.study.show_row(row, about if row is not None else "No check of this paper has been run yet.")
        if row is not None and row.id == self._started:
            self._started = ""
            self.desk.turn_to(row)
            # When it has its place.
            QTimer.singleShot(0, self, lambda: self._area.ensureWidgetVisible(self.study.standing))

    def _await(self, check: str) -> None:
        self._started = check

    def _lay_out(self) -> None:
        line = QFrame(frameShape=QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Plain)
        line.setForegroundRole(QPalette.ColorRole.Mid)
        self.study.trials_table.setMinimumHeight(110)
        self._area = scrolled(column(self.form, self.setup, line, self.checks, (self.study, 1)))
        self.set_body(self._area)


def check_report(lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> ReportDock:
    """The Check report dock: all verdicts of the check that is looked at, figures, and how to repeat it."""

    def nothing() -> Nothing:
        return _UNCHOSEN if desk.tested or desk.paper is None else _UNTESTED

    dock = ReportDock(lab, "check_report", "Check report", lambda: (desk.check, desk.report), nothing, parent)
    caption = "Written by the check from what it measured; every number in it is also in verdict.json."
    dock.caption(caption, "statistics-of-claims")
    dock.visibilityChanged.connect(lambda seen: desk.need() if seen else None)
    desk.check_changed.connect(dock.refresh)
    desk.paper_changed.connect(dock.refresh)
    dock.refresh()
    return dock


def plan_text(record: ExperimentRecord) -> str:
    """`18 runs, about 12 min`."""
    count = len(record.trials)
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
