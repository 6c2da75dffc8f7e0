"""The Experiment dock: what is asked, what is varied, how long it takes; a prediction; and the start."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QSplitter, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.notebook.quantities import CHOICE, Quantity, find_quantity
from llmlab.store.registry import resolve_run, short_name
from llmlab.studies.experiments.kinds import KINDS
from llmlab.studies.experiments.plan import make_plan
from llmlab.studies.experiments.results import value_text
from llmlab.studies.records import ExperimentRecord, Trial
from llmlab_gui.experiments.busy import ask_to_start, busy_with
from llmlab_gui.experiments.form import Asked, ExperimentForm
from llmlab_gui.experiments.tables import PLAN_COLUMNS, PlanModel
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.notebook.asking import ask
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.row_tables import rows_table

if TYPE_CHECKING:
    from llmlab.studies.experiments.outcomes import ExperimentResults
    from llmlab_gui.experiments.desk import ExperimentDesk
    from llmlab_gui.lab.lab import Lab

_SETTLE_MS = 200


class ExperimentDock(LabDock):
    """A form, the runs that follow from it with their times, and the button that starts them."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiment", "Experiment", parent)
        self.desk = desk
        self.record: ExperimentRecord | None = None  # the plan of what is in the form; None while there is none
        self._background = Background(self)
        self._asked: Asked | None = None
        self._planned = False  # what is in the form was looked at
        self.form = ExperimentForm(lab)
        self.plan = PlanModel(self)
        self.plan_table = rows_table(self.plan, "Plan", PLAN_COLUMNS)
        self.estimate = QLabel()
        self.estimate.setWordWrap(True)
        self.estimate.setAccessibleName("Estimate")
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("Errors")
        self.start_button = PrimaryButton("Start")
        self.start_button.setToolTip("Asks for your prediction, then runs the plan")
        self._lay_out()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self.update_plan)
        self.form.edited.connect(self._settle.start)
        self.form.kind_changed.connect(self._kind_changed)
        self.start_button.clicked.connect(self.start)
        lab.runs_changed.connect(self._runs_changed)
        self.desk.controller.started.connect(self._started)
        lab.experiment_requested.connect(self.fill)
        self.caption("One thing varied, all else the same. Predict before you look.", "experiments")
        self._kind_changed()

    def fill(self, wanted: str | ExperimentRecord) -> None:
        """Shows a kind by its name, or what an experiment was made from; and comes to the front."""
        try:
            self.form.set_kind(wanted) if isinstance(wanted, str) else self.form.fill(wanted)
        except LabError as error:
            self.lab.error_raised.emit(error)
        self.lab.dock_requested.emit("experiment")

    def start(self) -> None:
        """Asks for a prediction, and starts what was planned."""
        record = self.record
        if record is None or self._settle.isActive():
            self.update_plan()
            return
        if not self._may_start():
            return
        predictions = ask(self, self.lab.notebook, asked_about(record), questions(record))
        if predictions is None:
            return
        stated = [prediction.as_dict() for prediction in predictions]  # locked when its folder is made
        self.desk.controller.start(replace(record, predictions=stated))
        self.record = None  # its name is taken
        self.start_button.setEnabled(False)

    def update_plan(self) -> None:
        """Says what is wrong, or else which runs there will be."""
        self._settle.stop()
        if not self.isVisible():  # estimates cost time; it plans when it is looked at
            self._planned = False
            return
        self._planned = True
        self.form.complain()
        try:
            asked = self.form.read()
        except LabError as error:
            self._cannot(error)
            return
        self._asked = asked
        self.record = None
        self.start_button.setEnabled(False)
        self.problem.say("")
        if not self.plan.rows:
            self.estimate.setText("Planning…")
        outputs = self.lab.outputs

        def work() -> ExperimentRecord:
            request = asked.request
            if asked.subject:
                run = resolve_run(asked.subject, outputs).run
                request = replace(request, settings=run.info().settings, subject=short_name(run, outputs))
            return make_plan(request)

        def done(record: ExperimentRecord) -> None:
            if self._asked is asked:
                self._show_plan(record)

        def failed(error: LabError) -> None:
            if self._asked is asked:
                self._cannot(error)

        self._background.run(work, done, failed)

    def shutdown(self) -> None:
        self.form.shutdown()
        self._background.shutdown()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.form.list_offers()
        if not self._planned:
            self._settle.start()

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _show_plan(self, record: ExperimentRecord) -> None:
        self.record = record
        self.plan.show(list(record.arms))
        self.estimate.setText(plan_text(record))
        self.problem.say("")
        self.start_button.setEnabled(True)

    def _cannot(self, error: LabError) -> None:
        self.record = self._asked = None
        self.plan.show([])
        self.estimate.setText("")
        self.problem.say(str(error))
        self.start_button.setEnabled(False)

    def _may_start(self) -> bool:
        """Whether it may, although something else trains."""
        busy = busy_with(self.lab)
        return not busy or not self.form.kind.trains or self.ask_about_others(busy)

    def ask_about_others(self, busy: list[str]) -> bool:
        """Whether to start although these are running."""
        return ask_to_start(self, busy)

    def _kind_changed(self) -> None:
        self.plan_table.setVisible(self.form.kind.trains)

    def _runs_changed(self) -> None:
        if self.isVisible() and not self.form.kind.trains:
            self.form.list_subjects()

    def _started(self, experiment_id: str) -> None:
        if self.form.name.text().strip() == experiment_id:
            self.form.name.clear()
        self._settle.start()  # a fresh name, for another one like it

    def _lay_out(self) -> None:
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.form)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.addWidget(scroll)
        splitter.addWidget(self.plan_table)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 2)
        splitter.setChildrenCollapsible(False)
        buttons = QHBoxLayout()
        buttons.addWidget(self.estimate, 1)
        buttons.addWidget(self.start_button)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(splitter, 1)
        layout.addWidget(self.problem)
        layout.addLayout(buttons)
        body.setMinimumWidth(300)
        self.set_body(body)


def plan_text(record: ExperimentRecord) -> str:
    """How many runs, how long, and until when nothing is learned."""
    if not record.arms:
        return f"<b>It analyses {record.subject}</b>; nothing is trained."
    values, seeds = len({(trial.group, value_text(trial)) for trial in record.arms}), len(record.seeds)
    runs = f"{len(record.arms)} runs" + (f", {values} values with {seeds} seeds each" if seeds > 1 else "")
    return f"<b>About {minutes_text(record.estimated_seconds / 60)} here</b> · {runs}."


def asked_about(record: ExperimentRecord) -> str:
    """What is about to start, for the question before it."""
    return f"<b>{record.title}.</b> {record.question}"


def questions(record: ExperimentRecord) -> list[Quantity]:
    """What the experiment can be asked about, with the answers that its plan has."""
    found = [find_quantity(name) for name in KINDS[record.kind].quantities]
    found.append(find_quantity("text"))
    return [_with_choices(quantity, record.arms) for quantity in found]


def _with_choices(quantity: Quantity, trials: list[Trial]) -> Quantity:
    if quantity.answer != CHOICE or quantity.choices or quantity.by_hand:
        return quantity
    if quantity.name == "best_arm":
        names = [trial.name for trial in trials]
    else:
        values = [next(iter(trial.varied.values()), "") for trial in sorted(trials, key=lambda trial: trial.x)]
        names = [f"{value:g}" for value in values if isinstance(value, (int, float))]
    return replace(quantity, choices=tuple(dict.fromkeys(names)))
