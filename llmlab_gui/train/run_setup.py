"""What both set-up docks are made of: presets, the form, the costs, what is wrong, and the buttons that start a run."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import psutil
from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLineEdit, QScrollArea, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.core.memory import available_bytes
from llmlab.core.presets import Preset, default_preset
from llmlab.core.run_settings import RunSettings
from llmlab.core.setting_info import SettingInfo
from llmlab.jobs.launcher import require_free, require_name
from llmlab.notebook.predictions import Prediction
from llmlab.store.run_folder import RunFolder
from llmlab.training.kinds import kind_of
from llmlab.training.room import certainly_above, computes_in_main_memory, crowded, require_room
from llmlab_gui.forms.editors import Editor
from llmlab_gui.forms.named_editor import NothingNamed
from llmlab_gui.forms.preset_form import PresetForm
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.run_costs import Costs, short_of_disk
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel, WholeLabel, labelled, scrolled
from llmlab_gui.widgets.layouts import column, flow, settling_timer
from llmlab_gui.widgets.numbers import bytes_text, minutes_text, unbroken
from llmlab_gui.widgets.theme import current_theme, theme_notifier

S = TypeVar("S", bound=RunSettings)
_SETTLE_MS = 120
_LEAST_WIDTH = 52  # characters: a form whose parts are all unfolded
_LEAST_FORM = 60  # pixels
_LEAST_HELP, _LEAST_RESULT = 345, 210  # pixels of a dock that has room for what they say beside its form
_AGAIN_MS = 2000  # until what does not fit into memory is looked at again: other programs end


@dataclass(frozen=True)
class PlannedRun:
    """A run as a form describes it.

    seconds: how long it will take, as far as that is known. predictions: stated when it was set up before.
    """

    settings: RunSettings
    name: str | None
    preset: str
    seconds: float | None = None
    predictions: tuple[Prediction, ...] = ()


@dataclass(frozen=True)
class Draft:
    """What a form was left with, as the settings keep it. given: what differs from the preset, by `section.field`."""

    preset: str
    name: str
    given: dict[str, Any]


class RunSetupDock(LabDock, Generic[S]):
    """Subclasses name the settings and their presets, check what no form can, and work out the costs."""

    def __init__(
        self,
        lab: Lab,
        dock_id: str,
        title: str,
        *,
        settings_type: type[S],
        essentials: Mapping[str, Editor | None],
        titled: Callable[[Preset[Any]], str] = lambda preset: preset.title,
        parent: QWidget | None = None,
    ) -> None:
        """essentials: in sight without unfolding anything, with an editor of their own where the usual one is not
        enough. titled: how each preset reads."""
        super().__init__(lab, dock_id, title, parent)
        self._first_preset, self._track = default_preset(settings_type), settings_type.track
        self._costs: Costs | None = None
        self._predictions: tuple[Prediction, ...] = ()  # of the run that `fill` took out of the queue
        self.name = labelled(QLineEdit(placeholderText="made from date, preset and text"), "Name of the run")
        self.name.setToolTip("The run's folder: a to z, A to Z, digits and . _ + -")
        self.name.installEventFilter(self)
        self.chosen = PresetForm(settings_type, essentials, name="Preset", titled=titled, also={"name": self.name})
        self.presets, self.form = self.chosen.presets, self.chosen.form
        self.estimate = labelled(WholeLabel(), "Estimate")
        self.problem = labelled(ProblemLabel(), "Errors")
        self.help = labelled(QuietLabel("Point at a setting to see what it means."), "Help")
        self.help.setMinimumHeight(self.fontMetrics().lineSpacing() * 3)
        self.help.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.reset_button = push_button("Reset to preset", lambda _=False: self.chosen.use_preset())
        self.queue_button = push_button(
            "Add to queue", self.queue, tip="It starts when the runs ahead of it have ended"
        )
        self.train_button = PrimaryButton("Train", self.train)
        self._lay_out()
        self._settle = settling_timer(self, _SETTLE_MS, self.update_all)
        self._again = QTimer(self, interval=_AGAIN_MS)
        self._again.timeout.connect(self._look_again)
        self.presets.activated.connect(self._forget_predictions)
        self.form.edited.connect(self._edited)
        self.form.entered.connect(lambda field: self.help.setText(field.help_text()))
        self.name.textChanged.connect(self._edited)
        lab.runs_changed.connect(self._check_name)
        lab.plan_taken.connect(self._plan_taken)
        theme_notifier.changed.connect(self.update_all)

    # What subclasses say -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises LabError for what no form can know: a text that is not on this machine, say."""

    def reads(self) -> str:
        """What the run would learn from, in a word or two."""
        raise NotImplementedError

    def work_out(self, settings: S) -> None:
        """Finds out what a run will need, and calls `show_costs` then."""
        raise NotImplementedError

    def given(self) -> dict[str, Any]:
        """What differs from the preset and can be read, by `section.field`."""
        return self.chosen.readable()

    # What it does ------------------------------------------------------------------------------------------------

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        draft = self.draft_left(f"set-up/{self._track}", Draft)
        if draft is not None:
            with contextlib.suppress(LabError):  # of a version with other settings: the preset is shown
                self._put(draft.preset, draft.name, draft.given)

    def keep(self) -> None:
        self.save_draft(f"set-up/{self._track}", Draft(self.chosen.preset, self.name.text(), self.given()))

    def plan(self) -> PlannedRun:
        """The run that the form describes. LabError when it cannot be."""
        self.check()
        settings = self.form.settings()
        seconds = self._costs.seconds if self._costs is not None else None
        return PlannedRun(settings, self._named(), self.presets.currentData(), seconds, self._predictions)

    def in_words(self) -> str:
        """What `train` would start: `Baby on Shakespeare, about 1 min`; "" where nothing can be."""
        try:
            plan = self.plan()
        except LabError:
            return ""
        changed = len(self.form.changed())
        settings = f" with {changed} setting{'s' if changed > 1 else ''} changed" if changed else ""
        time = f", about {minutes_text(plan.seconds / 60)}" if plan.seconds and not self._settle.isActive() else ""
        return f"{self.chosen.title} on {self.reads()}{settings}{time}"

    def train(self) -> None:
        """Starts it."""
        plan = self._planned()
        if plan is not None and self.train_button.isEnabled():
            self.lab.start_requested.emit(plan)

    def queue(self) -> None:
        """Puts it behind the runs that wait."""
        plan = self._planned()
        if plan is not None:
            self.lab.queue_requested.emit(plan)

    def fill(self, values: Mapping[str, Any]) -> None:
        """Shows a preset and what differs from it, and comes to the front.

        values: `preset`, `section.field`, `name` where the run is to have a certain one, and `predictions` where some
        were stated already.
        """
        others = {key: value for key, value in values.items() if key not in ("preset", "name", "predictions")}
        self._predictions = tuple(values.get("predictions", ()))
        try:
            self._put(values.get("preset") or self._first_preset, str(values.get("name", "")), others)
        except LabError as error:
            self.lab.error_raised.emit(error)
        self._show_given()
        self.show()
        self.raise_()

    def _put(self, preset: str, name: str, values: Mapping[str, Any]) -> None:
        """LabError for values that no setting can have: the preset is shown then."""
        self.name.setText(name)
        self.presets.choose(preset)
        self.chosen.use_preset()
        self.form.set_values(values)

    def show_costs(self, costs: Costs | None, unknown: str = "") -> None:
        """Shows what the run will need, and warns where that is more than there is. unknown: why it is not known."""
        self._costs = costs
        if costs is None:
            self.estimate.setText(unknown)
            return
        warnings = list(costs.remarks)
        free = available_bytes()
        if costs.memory > free and computes_in_main_memory(costs.settings):
            warnings.append(self._refuse_memory(costs, free) or f"Only {bytes_text(free)} of memory are free now.")
        if sentence := crowded(costs.settings):
            warnings.append(sentence)
        if short := short_of_disk(self.lab.outputs, costs.disk):
            warnings.append(short)
        color = current_theme().warning
        told = "".join(f'<br><span style="color: {color}">{warning}</span>' for warning in warnings)
        first, *rest = costs.parts
        self.estimate.setText(unbroken(" · ".join([f"<b>{first}</b>", *rest]) + "." + told))

    def update_all(self) -> None:
        """Says what is wrong, or else what the run will need."""
        several = self.form.fields["distributed.strategy"].value() != "none"
        for name in ("processes", "timeout"):
            self.form.fields[f"distributed.{name}"].set_enabled(several)
        self.reset_button.setEnabled(len(self.form.changed()) > 0)
        self.form.complain()
        try:
            plan = self.plan()
        except LabError as error:
            self.problem.say(str(error), wrong=not isinstance(error, NothingNamed))
            self._allow(False)
            return
        self.problem.say("")
        self._allow(True)
        self.work_out(plan.settings)  # type: ignore[arg-type]

    def _refuse_memory(self, costs: Costs, free: int) -> str:
        """Why the run cannot be started now, with what could be; "" where it may fit. It may still wait in the queue,
        unless the whole machine is too small for it."""
        need = kind_of(costs.settings).memory(costs.settings, self.lab.outputs)
        if need is None:
            return ""
        try:
            require_room(costs.settings, need, free, self.lab.outputs)
        except LabError as error:
            self._again.start()
            self.train_button.setEnabled(False)
            self.queue_button.setEnabled(not certainly_above(need, psutil.virtual_memory().total))
            return str(error)
        return ""

    def _edited(self) -> None:
        """What was wrong may be right now, and its button is pressed next: that is found out at once."""
        self.keep_later()
        if self.train_button.isEnabled():
            self._settle.start()
        else:
            self.update_all()

    def _look_again(self) -> None:
        if self.isVisible():
            self._again.stop()
            self.update_all()

    def _planned(self) -> PlannedRun | None:
        if self._settle.isActive():  # the costs are of what was there before
            self._settle.stop()
            self.update_all()
        try:
            return self.plan()
        except LabError as error:
            self._reveal_problem()
            self.lab.error_raised.emit(error)
            return None

    def _allow(self, allowed: bool) -> None:
        self.estimate.setVisible(allowed)
        self.train_button.setEnabled(allowed)
        self.queue_button.setEnabled(allowed)

    def _lay_out(self) -> None:
        self.chosen.setContentsMargins(0, 0, 6, 0)
        self._result = column(self.problem, self.estimate)
        form = column((self.chosen, 1))
        area = scrolled(form)
        area.setMinimumHeight(_LEAST_FORM)
        body = column((area, 1), self.help, self._result)
        self._pages = form, body  # what is scrolled, and what is not
        body.setMinimumWidth(self.fontMetrics().averageCharWidth() * _LEAST_WIDTH)
        self.set_body(body)
        self.set_foot(flow(self.reset_button, right=(self.queue_button, self.train_button)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In a low dock, what is said about the form is scrolled with it: else both would have a scroll bar. What the
        preset is, its list says."""
        super().resizeEvent(event)
        self.chosen.about.setVisible(self.height() >= _LEAST_HELP)
        for widget, least, place in ((self.help, _LEAST_HELP, 1), (self._result, _LEAST_RESULT, -1)):
            page = self._pages[self.height() >= least]
            if widget.parentWidget() is not page:
                cast("QVBoxLayout", page.layout()).insertWidget(place, widget)

    def _named(self) -> str | None:
        """The name that was typed, checked; None for one made by the lab."""
        name = self.name.text().strip()
        if not name:
            return None
        require_name(name, "a run", 100)
        require_free(RunFolder(self.lab.outputs / self._track / name))
        return name

    def _plan_taken(self, plan: PlannedRun) -> None:
        """It starts, or waits: its name and what was stated of it belong to no other run."""
        if plan.settings.track != self._track:
            return
        if self._predictions == plan.predictions:
            self._predictions = ()
        if self.name.text().strip() == plan.name:  # not the name of the next one, typed meanwhile
            self.name.clear()

    def _forget_predictions(self) -> None:
        """Another preset was chosen by hand: another run."""
        self._predictions = ()

    def _check_name(self) -> None:
        if self.name.text():
            self._settle.start()

    def _reveal_problem(self) -> None:
        found = self.form.problem()
        field = found[1] if found else None
        if field is None:
            return
        self.reveal(field.info.key)

    def reveal(self, key: str) -> None:
        """Brings a setting into sight, unfolded, with the keyboard; where another has to be chosen first, that one."""
        field = self.form.fields[key]
        if not field.editor.isEnabled():
            field = self.form.fields["distributed.strategy"]
        section = self.form.sections.get(field.info.section)
        if section is not None and field in section.fields:
            section.reveal(field)
        field.editor.setFocus(Qt.FocusReason.OtherFocusReason)
        QTimer.singleShot(0, field.editor, lambda: _scroll_to(field.editor))  # what unfolds has its place then

    def _show_given(self) -> None:
        """What was set, where a small form shows but the first fields."""
        given = [f"{_said(field.info)} {field.short_text()}" for field in self.form.changed()]
        named = f" {self.name.text()}" if self.name.text() else ""
        said = html.escape(" · ".join([self.chosen.title, *given]))
        self.help.setText(f"<b>Set up{html.escape(named)}:</b> {said}.")

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The name is explained as a setting is."""
        if watched is self.name and event.type() in (QEvent.Type.Enter, QEvent.Type.FocusIn):
            self.help.setText(f"<b>name</b><br>{self.name.toolTip()}.")
        return super().eventFilter(watched, event)


def _said(info: SettingInfo) -> str:
    """A setting's name outside of its form: `learning rate`, but `checkpoints per decade`."""
    plain = info.section in ("model", "lora", "data", "train")
    return (info.name if plain else info.key).replace("_", " ").replace(".", " ")


def _scroll_to(widget: QWidget) -> None:
    """Brings it into sight in every area that scrolls it: the form's, and that of the dock."""
    area = widget.parentWidget()
    while area is not None:
        if isinstance(area, QScrollArea):
            area.ensureWidgetVisible(widget)
        area = area.parentWidget()
