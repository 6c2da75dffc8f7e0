"""The Samples dock: what the model generated at different steps, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QLabel, QListWidget, QListWidgetItem, QSlider, QWidget, QWidgetAction

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.jobs.launcher import request
from llmlab.store.events import Evaluated, Event, Sampled, Scored
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train import samples_data
from llmlab_gui.train.answers_view import AnswersView, whole
from llmlab_gui.train.samples_view import SamplesView
from llmlab_gui.widgets.buttons import menu_button, push_button
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import choice_box, column, flow, settling_timer, stack
from llmlab_gui.widgets.saving import Export, csv_text, export_button, save

SPREAD, NEWEST, COMPARE, CHOSEN, SCORED = "spread", "newest", "compare", "chosen", "scored"
_CHOICES = (
    (SPREAD, "Spread over the run", "The first, the newest, and some evenly spaced between"),
    (NEWEST, "The newest few", "The last samples, side by side"),
    (COMPARE, "One step and the newest", "Drag the slider through the run"),
    (CHOSEN, "Chosen steps", "Tick steps in the list; the newest is always shown"),
    (SCORED, "Checked answers", "Held-out items whose answers a program checked, before training and after"),
)
_WRITES = "The same prompts, continued by the model at different steps of training."
_ANSWERS = "The same held-out requests, answered before training and after."
_SHOWN = (Sampled, Evaluated, Scored)  # what changes the table


class SamplesDock(LabDock):
    """Columns are steps, rows are prompts. The newest step is always the last column."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "samples", "Samples", parent)
        self._run_id = ""
        self._table = samples_data.NO_SAMPLES
        self._ticked: set[int] = set()
        self._stale = False  # something came while nobody looked

        self._answers: list[samples_data.CheckedItem] = []
        self._chosen_by_hand = False  # which steps are shown
        self.view = SamplesView()
        self.answers_view = AnswersView()
        self._views = stack(self.view, self.answers_view)
        self.score = labelled(QLabel(wordWrap=True), "Score")
        self.choice = choice_box("Which steps are shown", _CHOICES[:-1])  # the last one where it makes sense
        self.choice.setMinimumWidth(120)  # in a narrow panel it is cut
        self.slider = labelled(QSlider(Qt.Orientation.Horizontal), "Step to compare with the newest")
        self.slider.setPageStep(1)
        self.slider.setMinimumWidth(70)
        self.steps_list = labelled(QListWidget(), "Steps to show")
        self.steps_list.setMinimumSize(240, 260)
        self.steps_button = menu_button("Steps…", "")
        menu = self.steps_button.menu()
        holder = QWidgetAction(menu)
        holder.setDefaultWidget(self.steps_list)
        menu.addAction(holder)
        menu.aboutToShow.connect(self._fill_list)
        self.ask_button = push_button(
            "Sample now", self._sample_now, tip="The model writes a sample after its next step"
        )
        exports = export_button(Export(self.export, self._export_name, ("csv", "md")))
        exports.menu().addAction("Copy the selection", self._copy_selection)

        which = (QLabel("Show"), self.choice, self.slider, self.steps_button)
        row = flow(*which, right=(self.ask_button, exports))
        self.set_body(column(row, self.score, (self._views, 1)))
        self.caption(_WRITES, "loss-curves")

        self.choice.activated.connect(self._choose)
        self.choice.currentIndexChanged.connect(self._show_steps)
        self.slider.valueChanged.connect(self._show_steps)
        self.steps_list.itemChanged.connect(self._tick)
        # A batch of events, a resize: one new layout for all of them.
        self._settle = settling_timer(self, 0, self._reload)
        lab.current_changed.connect(self._change_run)
        lab.events_arrived.connect(self._take)
        lab.history_reset.connect(self._reset)
        lab.runs_changed.connect(self._update_state)
        current = lab.current()
        self._change_run(current.id if current else "")

    def export(self, path: Path) -> None:
        """All samples of the run, or the checked answers if those are shown, to a .md or .csv file."""
        row = self.lab.row(self._run_id)
        of, as_csv = f" of {row.name}" if row is not None else "", path.suffix.lower() == ".csv"
        if self.choice.currentData() == SCORED:
            answers = [f"# Checked answers{of}", *(samples_data.fenced(whole(item)) for item in self._answers)]
            text = csv_text(*self.answers_view.answers.table()) if as_csv else "\n\n".join(answers) + "\n"
        else:
            text = samples_data.to_csv(self._table) if as_csv else samples_data.to_markdown(f"Samples{of}", self._table)
        self.write_file(partial(save, path, text.encode("utf-8", "replace")), path)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._reload()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self.choice.currentData() in (SPREAD, NEWEST):
            self._settle.start()

    def _change_run(self, run_id: str) -> None:
        row = self.lab.row(run_id) if run_id else None
        self._run_id = run_id if row else ""
        self._ticked = set()
        if row is not None:
            settings = row.info.settings
            scratch = not isinstance(settings, FinetuneSettings)
            self.view.set_monospace(settings.tokenizer == "char")
            self.caption(_WRITES if scratch else _ANSWERS, "loss-curves" if scratch else "fine-tuning")
            self._choose_usual()
        self._reload()

    def _take(self, run_id: str, events: Sequence[Event]) -> None:
        if run_id != self._run_id:
            return
        if any(isinstance(event, _SHOWN) for event in events):
            self._reload_soon()
        elif not self._table.texts and not self._answers:
            self._update_state()

    def _reset(self, run_id: str) -> None:
        if run_id == self._run_id:
            self._reload_soon()

    def _reload_soon(self) -> None:
        self._stale = True
        if self.isVisible():
            self._settle.start()

    def _reload(self) -> None:
        wrote_before, self._table, self._answers, note = bool(self._table.texts), samples_data.NO_SAMPLES, [], ""
        if self._run_id:
            history = self.lab.history(self._run_id)
            self._table = samples_data.read_table(history, answers=not self._is_scratch)
            self._answers, note = samples_data.read_answers(history), samples_data.score_note(history)
            self.answers_view.answers.show_items(self._answers, partial(samples_data.score_at, history))
        self.score.setText(note)
        self.score.setVisible(bool(note))
        self._offer_answers()
        if self._answers and not self._table.texts:  # every other choice would show nothing
            self.choice.setCurrentIndex(self.choice.findData(SCORED))
        elif self._table.texts and not wrote_before:
            self._choose_usual()
        steps = self._table.steps
        self._ticked &= set(steps)
        at_newest = self.slider.value() == self.slider.maximum()
        with QSignalBlocker(self.slider):
            self.slider.setRange(0, max(0, len(steps) - 1))
            if at_newest and self.choice.currentData() != COMPARE:
                self.slider.setValue(0)  # comparing begins with the first step
        self._stale = False
        self._update_state()
        self._show_steps()

    def _fill_list(self) -> None:
        """The list of steps to tick, made when it is opened."""
        steps = self._table.steps
        with QSignalBlocker(self.steps_list):
            self.steps_list.clear()
            for step in steps:
                item = QListWidgetItem(f"step {step:,}   {self._table.loss(step)}")
                item.setData(Qt.ItemDataRole.UserRole, step)
                newest = step == steps[-1]
                if newest:
                    item.setFlags(Qt.ItemFlag.NoItemFlags)
                on = newest or step in self._ticked
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
                self.steps_list.addItem(item)

    def _tick(self, item: QListWidgetItem) -> None:
        step = item.data(Qt.ItemDataRole.UserRole)
        if item.checkState() == Qt.CheckState.Checked:
            self._ticked.add(step)
        else:
            self._ticked.discard(step)
        if self.choice.currentData() == CHOSEN:
            self._show_steps()
        else:
            self.choice.setCurrentIndex(self.choice.findData(CHOSEN))

    def _show_steps(self) -> None:
        how = self.choice.currentData()
        self.slider.setVisible(how == COMPARE)
        self.steps_button.setVisible(how == CHOSEN)
        self._views.setCurrentWidget(self.answers_view if how == SCORED else self.view)
        if how == SCORED:
            return
        steps = self._table.steps
        if steps:
            fit = self.view.columns_that_fit()
            if how == SPREAD:
                steps = samples_data.spread(steps, fit)
            elif how == NEWEST:
                steps = steps[-fit:]
            elif how == COMPARE:
                steps = sorted({steps[self.slider.value()], steps[-1]})
            else:
                steps = sorted(self._ticked | {steps[-1]})
        self.view.samples.show(self._table, steps)

    @property
    def _is_scratch(self) -> bool:
        """Whether the run trains from scratch: it continues texts, and answers nothing."""
        row = self.lab.row(self._run_id)
        return row is None or not isinstance(row.info.settings, FinetuneSettings)

    def _copy_selection(self) -> None:
        (self.answers_view if self.choice.currentData() == SCORED else self.view).copy_selection()

    def _choose(self) -> None:
        self._chosen_by_hand = True

    def _choose_usual(self) -> None:
        """What is shown unless someone has chosen: of a run that fine-tunes, before and after."""
        if not self._chosen_by_hand:
            self.choice.setCurrentIndex(self.choice.findData(SPREAD if self._is_scratch else COMPARE))

    def _offer_answers(self) -> None:
        """The checked answers can be shown where there are some."""
        place = self.choice.findData(SCORED)
        if self._answers and place < 0:
            key, words, tip = _CHOICES[-1]
            self.choice.addItem(words, key)
            self.choice.setItemData(self.choice.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        elif not self._answers and place >= 0:
            self.choice.removeItem(place)

    def _update_state(self) -> None:
        row = self.lab.row(self._run_id) if self._run_id else None
        live = row is not None and row.status.live
        writes = row is not None and not isinstance(row.info.settings, TaskSettings)
        self.ask_button.setEnabled(live and writes)
        if row is None:
            self.show_no_run("Start one in Set-up, or choose one in Runs.")
        elif not writes:
            self.show_empty("A task writes no samples", "Its sequences are numbers, and no prompt continues them.")
        elif not self._table.texts and not self._answers:
            never = row.info.settings.train.sample_interval == 0
            when = (
                "Its sample interval is 0: it writes a sample only when asked."
                if never
                else "The first sample comes at its sample interval."
            )
            title, action = "No samples yet", "Sample now" if live else ""
            if row.status.step and self.lab.history(self._run_id).started is None:
                title, when = "Reading the samples", "They appear here as soon as they are read."
            elif self.lab.history(self._run_id).samples:  # that wrote nothing
                title, action = "No prompt fits", ""
                when = (
                    "The vocabulary of this run lacks characters of each prompt: Log says which. "
                    "Prompt it in Write, or set other prompts for the next run."
                )
            elif not live:
                instead = " Prompt a checkpoint in Write instead." if self.lab.current_model(live=False) else ""
                when = f"The run ended before its first sample.{instead}"
            self.show_empty(title, when, action, self._sample_now)
        else:
            self.show_body()

    def _sample_now(self) -> None:
        row = self.lab.row(self._run_id)
        if row is None:
            return
        try:
            prompts = list(row.info.settings.samples.prompts) or self._table.prompts(self._table.steps[:1])
            request(row.run, "sample", prompts=prompts)
        except LabError as error:
            self.lab.error_raised.emit(error)

    def _export_name(self) -> str:
        what = "answers" if self.choice.currentData() == SCORED else "samples"
        return f"{PurePath(self._run_id).name}-{what}"
