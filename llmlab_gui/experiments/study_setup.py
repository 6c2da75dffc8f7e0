"""From a form to a plan of several runs, a prediction, and the start: of an experiment, or of a check of a paper."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDockWidget, QLabel, QLineEdit, QPushButton, QSpinBox, QWidget

from llmlab.core.errors import LabError
from llmlab.core.processes import available_cores
from llmlab.notebook.predictions import Prediction
from llmlab.studies.plans.records import LONGEST_NAME, ExperimentRecord
from llmlab_gui.experiments.controller import ExperimentController
from llmlab_gui.forms.named_editor import NothingNamed
from llmlab_gui.lab.dock import is_seen
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, labelled
from llmlab_gui.widgets.layouts import beside, column, settling_timer

A = TypeVar("A")  # what a form says
P = TypeVar("P")  # what is planned from it
_SETTLE_MS = 200
_OLD_S = 20  # of a plan, whose name may tell the time


class StudyForm(QWidget, Generic[A]):
    """Everything that decides a study; its name among it."""

    edited = Signal()

    def __init__(self, noun: str, name_hint: str) -> None:
        super().__init__()
        self.name = labelled(QLineEdit(maxLength=LONGEST_NAME, placeholderText=name_hint), f"Name of the {noun}")
        self.name.setToolTip(f"The {noun}'s folder: a to z, A to Z, digits and . _ + -")
        self.name.textChanged.connect(lambda _: self.edited.emit())
        self.jobs = labelled(QSpinBox(minimum=1, maximum=available_cores()), "Runs at once")
        self.jobs.setToolTip(
            "Runs that train at the same time and share the processor's cores. A run's rounding depends on its threads."
        )

    def read(self) -> A:
        """What is in it. LabError naming the first thing that is wrong."""
        raise NotImplementedError


@dataclass(frozen=True)
class Steps(Generic[A, P]):
    """What lies between a form and a start.

    plan: from what the form says, away from the window's thread; may raise LabError. show: the plan, or None while
    there is none; gives what is to be started, and what that takes, in words. ask: for a prediction; None: it is not
    to start.
    """

    plan: Callable[[A], P]
    show: Callable[[A, P], tuple[ExperimentRecord, str]]
    show_none: Callable[[], object]
    ask: Callable[[ExperimentRecord], list[Prediction] | None]


class StudySetup(QWidget, Generic[A, P]):
    """Plans anew whenever the form has settled, while its dock is in sight; says what is wrong, or what it takes."""

    def __init__(
        self,
        lab: Lab,
        dock: QDockWidget,
        form: StudyForm[A],
        controller: ExperimentController,
        steps: Steps[A, P],
        button: str,
        tip: str,
    ) -> None:
        """button, tip: of the one that starts it."""
        super().__init__()
        self._lab, self._dock, self._form, self._controller, self._steps = lab, dock, form, controller, steps
        self.record: ExperimentRecord | None = None  # the plan of what is in the form; None while there is none
        self._asked: A | None = None
        self._planned = False  # what is in the form was looked at
        self._start_when_planned = False  # the button was pressed before there was a plan
        self._starting = ""  # id of what was started, until there is another plan
        self._background = Background(self)
        self.estimate = labelled(QLabel(wordWrap=True), "Estimate")
        self.problem = labelled(ProblemLabel(), "Errors")
        self.button = labelled(PrimaryButton(button), tip=tip)
        self._needing: list[QPushButton] = [self.button]  # what is in the form is to be right
        self._allow(False)  # until there is a plan
        self._row = beside(self.estimate, self.button, grows=self.estimate)
        column(self.problem, self._row, into=self)
        self._settle = settling_timer(self, _SETTLE_MS, self.update_plan)
        form.edited.connect(self._edited)
        dock.visibilityChanged.connect(self._seen)
        self.button.clicked.connect(self.start)
        controller.started.connect(self._started)
        controller.not_started.connect(self._not_started)

    def add_button(self, button: QPushButton) -> None:
        """One more, for what could be started."""
        self._row.insertWidget(1, button)
        self._needing.append(button)
        self._allow(self.button.isEnabled())

    def start(self) -> None:
        """Asks for a prediction, and starts what was planned."""
        record = self.record
        if self._starting:  # a second press means the one that was started
            return
        # The form was edited a moment ago, or a name from the plan's date would tell another time.
        if record is None or self._settle.isActive() or time.time() - record.created > _OLD_S:
            self.update_plan()
            self._start_when_planned = self._planned and self._asked is not None
            return
        predict = partial(self._steps.ask, record)
        works = record.trials or record.estimated_seconds  # and is not done at once
        predictions = TrainingNow(self._lab).predicted(self, self.button.text(), predict) if works else predict()
        if predictions is None:
            return
        stated = [prediction.as_dict() for prediction in predictions]  # locked when its folder is made
        self._starting = record.id  # and the button is not disabled: the keyboard stays there
        self.record = None  # its name is taken
        self._controller.start(replace(record, predictions=stated), self._form.jobs.value())

    def update_plan(self) -> None:
        """Says what is wrong, or else what there will be."""
        self._settle.stop()
        self._planned = is_seen(self._dock)
        if not self._planned:  # estimates cost time; it plans when it is looked at
            return
        self.record = None
        try:
            self._asked = asked = self._form.read()
        except LabError as error:
            self._cannot(error)
            return
        self.problem.say("")
        if not self.estimate.text():
            self.estimate.setText("Planning…")

        def done(plan: P) -> None:
            if self._asked is asked:
                self._take(asked, plan)

        def failed(error: LabError) -> None:
            if self._asked is asked:
                self._cannot(error)

        self._background.run(lambda: self._steps.plan(asked), done, failed)

    def _take(self, asked: A, plan: P) -> None:
        self._starting = ""
        self.record, words = self._steps.show(asked, plan)
        self.estimate.setText(words)
        self._allow(True)
        if self._start_when_planned and not self._settle.isActive():
            self._start_when_planned = False
            self.start()

    def _cannot(self, error: LabError) -> None:
        self.record = self._asked = None
        self._start_when_planned, self._starting = False, ""
        self._steps.show_none()
        self.estimate.setText("")
        self.problem.say(str(error), wrong=not isinstance(error, NothingNamed))
        self._allow(False)

    def _allow(self, allowed: bool) -> None:
        for button in self._needing:
            button.setEnabled(allowed)

    def _seen(self, seen: bool) -> None:
        if seen and not self._planned:
            self._settle.start()

    def _edited(self) -> None:
        """What was to start is not what is in the form now; what is there now can be, as soon as it is planned."""
        if self._start_when_planned or self._starting:
            if not self._asks_the_same():
                self._start_when_planned, self._starting = False, ""
            elif self._starting:  # it is planned anew when that has begun: a plan before would start it twice
                return
        self._allow(True)
        self._settle.start()

    def _asks_the_same(self) -> bool:
        """An editor also tells of what it has found out about its value, which nobody has changed."""
        try:
            return self._form.read() == self._asked
        except LabError:
            return False

    def _not_started(self, study: str) -> None:
        if study == self._starting:
            self._starting = ""
            self._settle.start()  # it can be tried again

    def _started(self, study: str) -> None:
        if study != self._starting:  # another was resumed
            return
        if self._form.name.text().strip() == study:
            self._form.name.clear()
        self._starting = study  # also where the name was cleared, which is an edit
        self._settle.start()  # a fresh name, for another one like it
