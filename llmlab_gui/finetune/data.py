"""The Data dock: examples as the model will read them, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QGridLayout, QStackedWidget, QWidget

from llmlab.core.config import to_mapping
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.data.example_files import SUFFIXES
from llmlab.data.example_preview import Preview
from llmlab_gui.finetune.preview_view import PreviewView
from llmlab_gui.forms.model_editor import ModelEditor
from llmlab_gui.forms.named_editor import ExamplesEditor
from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets import drops
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import EmptyState, label_of, scrolled
from llmlab_gui.widgets.layouts import column, flow, settling_timer

_CAPTION = "An example as the model reads it. Only tokens of answers count in the loss."
# After so long without a change, the examples are read anew.
_SETTLE_MS = 400
_LEAST_WIDTH = 42  # characters: two boxes of names, and their labels


class DataDock(drops.TakesModelsAndExamples, LabDock):
    """Shows what Fine-tune set-up describes, or other examples and another model that are chosen here."""

    use_wanted = Signal(str, str)  # examples and model reference, to be put into Fine-tune set-up

    def __init__(self, lab: Lab, parent: QWidget | None = None, host: ModelHost | None = None) -> None:
        """host: a process of its own, which goes with the dock; that of the inspection panels if not given."""
        super().__init__(lab, "data", "Data", parent)
        self._owned = host
        self._planned: FinetuneSettings | None = None  # what the set-up describes
        self._asked: Question | None = None
        self._stale = True  # what is shown is not what is chosen
        self._filling_in = False  # the dock itself changes what is chosen
        self.previews = Previews(host or lab.inspection.host, self)
        self.examples, self.model = ExamplesEditor(lab), ModelEditor(lab)
        self.model.box.setAccessibleName("Model that reads the examples")
        self.follow = QCheckBox("As in Fine-tune set-up")
        self.follow.setToolTip("Show the examples, model and settings of Fine-tune set-up")
        self.follow.setChecked(True)
        self.use_button = push_button(
            "Use for fine-tuning",
            lambda: self.use_wanted.emit(*self._chosen),
            tip="Put these examples and this model into Fine-tune set-up",
        )
        self.strip = ProgressStrip(self.previews)
        self.strip.bar.setAccessibleName("Progress of reading the examples")
        self.strip.cancel_button.setAccessibleName("Cancel reading the examples")
        self.view, self.nothing = PreviewView(self), EmptyState()
        self._pages, self._scroll = QStackedWidget(), scrolled(self.view)
        self._lay_out()
        self.setAcceptDrops(True)
        self.caption(_CAPTION, "chat-templates")
        self._settle = settling_timer(self, _SETTLE_MS, self._ask_if_changed)
        for editor in (self.examples, self.model):
            editor.edited.connect(self._edited)
        self.follow.toggled.connect(self._follow_plan)
        self.previews.found.connect(self._take)
        self.previews.failed.connect(self._take_failure)
        self.previews.cancelled.connect(self._take_cancelled)
        self.view.place_wanted.connect(self.show_example)
        lab.inspection.about_changed.connect(self._suggest)
        self._show_nothing()

    def show_setup(self, settings: FinetuneSettings) -> None:
        """What the set-up describes now."""
        self._planned = settings
        self._follow_plan()

    def choose(self, source: str = "", model: str = "") -> None:
        """Other examples, or another model, than those of the set-up."""
        if source:
            self.examples.set_value(source)
        if model:
            self.model.set_value(model)

    def show_example(self, place: int) -> None:
        """The example at `place`, from 0."""
        if self._asked is not None and not self._stale:
            self._ask(Question(self._asked.model, self._asked.settings, self._asked.seed, place))

    def set_examples(self, source: str) -> None:
        self.choose(source=source)

    def set_base(self, reference: str) -> None:
        self.choose(model=reference)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        for editor in (self.examples, self.model):
            editor.list_offers()
        self._suggest()
        if self._stale:
            self._settle.start()

    def shutdown(self) -> None:
        """Ends its own process, too."""
        super().shutdown()
        self._settle.stop()
        if self._owned is not None:
            self._owned.shutdown()

    # What is chosen ----------------------------------------------------------------------------------------------

    @property
    def _chosen(self) -> tuple[str, str]:
        return self.examples.value(), self.model.value()

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """While it lasts, changes of what is chosen are nobody's choice."""
        self._filling_in = True
        try:
            yield
        finally:
            self._filling_in = False

    def _follow_plan(self) -> None:
        if not self.follow.isChecked():
            self._update_buttons()
            return
        if self._planned is not None:
            with self._by_itself():
                self.choose(self._planned.data.source, self._planned.model.base)
        self._changed()

    def _suggest(self) -> None:
        """The built-in examples and the active model, where none are named."""
        about = self.lab.inspection.about
        with self._by_itself():
            if not self.examples.value():
                self.examples.set_value(FinetuneSettings().data.source)
            if not self.model.value() and about is not None and not about.live:  # which changes: it is refused
                self.model.set_value(about.reference)
        self._changed()

    def _edited(self) -> None:
        if not self._filling_in:
            self.follow.setChecked(False)
            self._changed()

    def _changed(self) -> None:
        if self._question() != self._asked:
            self._stale = True
            if self.isVisible():
                self._settle.start()
        self._update_buttons()

    def _question(self) -> Question | None:
        source, model = self._chosen
        if not source or not model:
            return None
        settings = self._planned or FinetuneSettings()
        values = to_mapping(settings)["data"] | {"source": source}
        same = self._asked is not None and self._asked.settings["source"] == source
        return Question(model, values, settings.train.seed, self._asked.place if same and self._asked else 0)

    # Asking and showing ------------------------------------------------------------------------------------------

    def _ask_if_changed(self) -> None:
        if not self.isVisible():  # it is asked when someone looks
            return
        question = self._question()
        if question is None:
            self._show_nothing()
        elif question != self._asked or self._stale:
            self._ask(question)

    def _ask(self, question: Question) -> None:
        self._asked = question
        self._stale = False
        self.view.set_waiting(True)
        if self._pages.currentWidget() is self.nothing:  # in a low panel, the strip covers what would stand here
            self.nothing.say("", "")
        self.previews.ask(question)

    def _ask_again(self) -> None:
        self._stale = True
        self._ask_if_changed()

    def _take(self, preview: Preview) -> None:
        self.view.show_preview(preview)
        self._pages.setCurrentWidget(self._scroll)
        self._update_buttons()

    def _take_failure(self, error: LabError) -> None:
        self._say(error.what, f"{error.why} {error.do}".strip(), "Read again")

    def _take_cancelled(self) -> None:
        self._stale = True
        self._say("Reading the examples was cancelled", "", "Read them")

    def _show_nothing(self) -> None:
        if self.model.value():
            self._say("No examples are chosen", f"Name a {', '.join(SUFFIXES)} file above, or drop one here.")
        else:
            why = "Each model tokenizes text in its own way. Name one above, or in Fine-tune set-up."
            self._say("No model reads these examples yet", why)

    def _say(self, title: str, hint: str, action: str = "") -> None:
        self.nothing.say(title, hint, action, self._ask_again if action else None)
        self._pages.setCurrentWidget(self.nothing)
        self._update_buttons()

    def _update_buttons(self) -> None:
        self.use_button.setEnabled(all(self._chosen) and not self.follow.isChecked())

    def _lay_out(self) -> None:
        row = flow(self.follow, right=(self.use_button,))
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        for place, (words, editor) in enumerate((("examples", self.examples), ("model", self.model))):
            label = label_of(words, editor.box)
            label.setMinimumHeight(editor.box.sizeHint().height())  # level with it: under it are more lines
            grid.addWidget(label, place, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(editor, place, 1)
        self._pages.addWidget(self.nothing)
        self._pages.addWidget(self._scroll)
        body = column(grid, row, (self._pages, 1))
        body.setMinimumWidth(self.fontMetrics().averageCharWidth() * _LEAST_WIDTH)
        self.set_body(body)
        self.strip.lie_over(self._pages)


@dataclass(frozen=True)
class Question:
    """What a preview is asked for. settings: of the section `data`, source among them. place: which example, from 0."""

    model: str
    settings: Mapping[str, Any]
    seed: int
    place: int = 0


class Previews(QObject):
    """Each question ends with `found`, `failed` or `cancelled`, unless a newer one took its place."""

    found = Signal(object)  # Preview
    failed = Signal(object)  # LabError
    cancelled = Signal()
    working_changed = Signal()

    def __init__(self, host: ModelHost, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.working: Working | None = None
        self._host = host
        self._request: Request | None = None

    def ask(self, question: Question) -> None:
        """Asks; an unanswered question is no longer wanted."""
        self._drop()
        request = self._host.preview(question.model, question.settings, question.seed, question.place)
        request.progressed.connect(self._set_working)
        for result, told in (
            (request.answered, self.found),
            (request.failed, self.failed),
            (request.cancelled, self.cancelled),
        ):
            result.connect(self._rest)
            result.connect(told)
        self._request = request
        self._set_working(Working("Reading examples"))

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._request is not None:
            self._drop()
            self._rest()
            self.cancelled.emit()

    def _drop(self) -> None:
        if self._request is not None:
            self._request.drop()

    def _rest(self) -> None:
        self._request = None
        self._set_working(None)

    def _set_working(self, working: Working | None) -> None:
        if working != self.working:
            self.working = working
            self.working_changed.emit()
