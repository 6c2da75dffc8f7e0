"""The Experiment dock: what is asked, what is varied, how long it takes; a prediction; and the start."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHOICE, Quantity, find_quantity
from llmlab.store.registry import resolve_run, short_name
from llmlab.studies.experiments.kinds import KINDS
from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab.studies.experiments.plan import make_plan
from llmlab.studies.plans.records import ExperimentRecord, Trial
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.form import Asked, Draft, ExperimentForm
from llmlab_gui.experiments.study_setup import Steps, StudySetup
from llmlab_gui.experiments.tables import PLAN_COLUMNS, PlanModel
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.notebook.anchors import anchors_of_plan
from llmlab_gui.notebook.asking import ask
from llmlab_gui.widgets.labels import scrolled
from llmlab_gui.widgets.layouts import column, split
from llmlab_gui.widgets.numbers import minutes_text
from llmlab_gui.widgets.row_tables import rows_table

_DRAFT = "set-up/experiment"


class ExperimentDock(LabDock):
    """A form, the runs that follow from it with their times, and the button that starts them."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiment", "Experiment", parent)
        self.form = ExperimentForm(lab)
        self.plan = PlanModel(self)
        self.plan_table = rows_table(self.plan, "Plan", PLAN_COLUMNS)
        steps = Steps(self._make_plan, self._show_plan, partial(self.plan.show, []), self._ask)
        tip = "Asks for your prediction, then runs the plan"
        self.setup = StudySetup(lab, self, self.form, desk.controller, steps, "Start", tip)
        upper = split((scrolled(self.form), 3), (self.plan_table, 2))
        body = column((upper, 1), self.setup)
        body.setMinimumWidth(300)
        self.set_body(body)
        self.caption("One thing varied, all else the same. Predict before you look.", "experiments")
        self.form.edited.connect(self.keep_later)
        self.form.kind_changed.connect(self._kind_changed)
        lab.runs_changed.connect(self._runs_changed)
        lab.experiment_requested.connect(self.fill)
        self._kind_changed()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        draft = self.draft_left(_DRAFT, Draft)
        if draft is not None and draft.kind in KINDS:
            with contextlib.suppress(LabError):  # of a version with other settings
                self.form.take_up(draft)

    def keep(self) -> None:
        self.save_draft(_DRAFT, self.form.draft())

    def fill(self, wanted: str | ExperimentRecord) -> None:
        """Shows a kind by its name, or what an experiment was made from; and comes to the front."""
        try:
            self.form.set_kind(wanted) if isinstance(wanted, str) else self.form.fill(wanted)
        except LabError as error:
            self.lab.error_raised.emit(error)
        self.lab.dock_requested.emit("experiment")

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.form.list_offers()

    def _make_plan(self, asked: Asked) -> ExperimentRecord:
        request, outputs = asked.request, self.lab.outputs
        if asked.subject:
            run = resolve_run(asked.subject, outputs).run
            request = replace(request, settings=run.info().settings, subject=short_name(run, outputs))
        return make_plan(request)

    def _show_plan(self, _asked: Asked, record: ExperimentRecord) -> tuple[ExperimentRecord, str]:
        self.plan.show(record.trials)
        return record, plan_text(record)

    def _ask(self, record: ExperimentRecord) -> list[Prediction] | None:
        about, anchors = f"<b>{record.title}.</b> {record.question}", None
        if record.trials:
            anchors = partial(anchors_of_plan, record, self.lab.runs(), self.lab.outputs)
        return ask(self, self.lab.notebook, about, questions(record), anchors=anchors)

    def _kind_changed(self) -> None:
        self.plan_table.setVisible(self.form.kind.trains)

    def _runs_changed(self) -> None:
        if self.isVisible() and not self.form.kind.trains:
            self.form.list_subjects()


def plan_text(record: ExperimentRecord) -> str:
    """How many runs, how long, and until when nothing is learned."""
    if not record.trials:
        return f"<b>It analyses {record.subject}</b>; nothing is trained."
    values, seeds = len({(trial.group, trial.value_text) for trial in record.trials}), len(record.seeds)
    runs = f"{len(record.trials)} runs" + (f", {values} values with {seeds} seeds each" if seeds > 1 else "")
    return f"<b>About {minutes_text(record.estimated_seconds / 60)} here</b> · {runs}."


def questions(record: ExperimentRecord) -> list[Quantity]:
    """What the experiment can be asked about, with the answers that its plan has."""
    found = [find_quantity(name) for name in KINDS[record.kind].quantities]
    found.append(find_quantity("text"))
    return [_with_choices(quantity, record.trials) for quantity in found]


def _with_choices(quantity: Quantity, trials: list[Trial]) -> Quantity:
    if quantity.answer != CHOICE or quantity.choices or quantity.by_hand:
        return quantity
    if quantity.name == "best_arm":
        names = [trial.name for trial in trials]
    else:
        values = [next(iter(trial.varied.values()), "") for trial in sorted(trials, key=lambda trial: trial.x)]
        names = [f"{value:g}" for value in values if isinstance(value, (int, float))]
    return replace(quantity, choices=tuple(dict.fromkeys(names)))
