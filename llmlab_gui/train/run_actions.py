"""Train, Pause, Resume, Stop, Save now: enabled exactly when they make sense for the current run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QInputDialog, QWidget

from llmlab.core.kinds import fine_tunes
from llmlab.core.presets import DEFAULT_PRESET, load_preset
from llmlab.gpt.estimate import estimate_pretraining
from llmlab.jobs.queue import QueuedRun
from llmlab.notebook.predictions import Prediction
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.notebook.asking import ask_of_run
from llmlab_gui.train.run_costs import short_of_disk
from llmlab_gui.train.run_setup import PlannedRun
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.question import ask, ask_where_to_resume
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# A signed 32-bit number is the most that the question for more steps can hold; the setting's own limit is below it.
_MOST_STEPS = 1_000_000_000


class RunActions(QObject):
    """The actions by their ids, and what they do."""

    def __init__(self, lab: Lab, train: Callable[[], None], window: QWidget) -> None:
        """train: trains what Set-up describes."""
        super().__init__(window)
        self._lab, self._window = lab, window
        self.train = self._make("train", "Train", "Train what Set-up describes", "Ctrl+T", train)
        self.pause = self._make("pause", "Pause", "Pause after this step; everything stays in memory", "Ctrl+P")
        self.resume = self._make("resume", "Resume", "", "Ctrl+R")
        self.stop = self._make("stop", "Stop", "Save and stop; it can be resumed later", "Ctrl+.")
        self.save = self._make("save", "Save now", "Save a checkpoint after this step", "Ctrl+S")
        self.pause.triggered.connect(lambda: self._with_current(lab.controller.pause))
        self.stop.triggered.connect(lambda: self._with_current(lab.controller.stop))
        self.save.triggered.connect(lambda: self._with_current(lab.controller.save))
        self.resume.triggered.connect(lambda: self._with_current(lambda run: self.resume_run(run.full_name)))
        lab.runs_changed.connect(self.update)
        lab.current_changed.connect(self.update)
        lab.controller.stopping_changed.connect(self.update)
        lab.start_requested.connect(self.start)
        lab.queue_requested.connect(self.enqueue)
        lab.resume_requested.connect(self.resume_run)
        theme_notifier.changed.connect(self._restyle)
        self._restyle()
        self.update()

    def all(self) -> list[QAction]:
        """In the order of the toolbar."""
        return [self.train, self.pause, self.resume, self.stop, self.save]

    def update(self) -> None:
        """Fits the actions to the current run."""
        row = self._lab.current()
        state = row.status.state if row else ""
        asked = bool(row and self._lab.controller.stopping_text(row.run))
        self.pause.setEnabled(state == "running" and not asked)
        self.save.setEnabled(state in ("running", "paused") and not asked)
        self.stop.setEnabled(row is not None and self.can_stop(row))
        self.resume.setEnabled(row is not None and not asked and row.can_resume)
        if state == "finished":
            tip = "Train it longer, from its last checkpoint"
        elif row is not None and row.status.elsewhere:
            tip = f"Resume it here, if you know that {row.status.host} no longer trains it"
        elif row is not None and not row.status.live:
            tip = "Resume from its newest checkpoint"
        else:
            tip = "Resume after the pause"
        self._explain(self.resume, tip)

    def can_stop(self, row: RunRow) -> bool:
        """Whether it trains, is about to or waits, and was not asked to stop yet."""
        return row.status.state in ("queued", "running", "paused") and not self._lab.controller.stopping_text(row.run)

    def show_and_stop(self, row: RunRow) -> None:
        """Selects a run and stops it."""
        self._lab.set_current(row.id)
        self._lab.controller.stop(row.run)

    def start(self, plan: PlannedRun) -> None:
        """Starts a run that someone set up."""
        training = TrainingNow(self._lab)
        doing = "Fine-tune" if fine_tunes(plan.settings.track) else "Train"
        answer = training.ask(self._window, doing, may_wait=True)
        predictions = self.ask_prediction(plan) if answer != "cancel" else None  # last, so that no answer is lost
        if predictions is None:
            return
        if answer == "queue":
            self._enqueue(plan, predictions)
            return
        if answer == "pause":
            training.pause()
        taken = partial(self._lab.plan_taken.emit, plan)
        self._lab.controller.start(plan.settings, plan.name, plan.preset, predictions, taken)

    def enqueue(self, plan: PlannedRun) -> None:
        """Puts a run that someone set up behind those that wait."""
        predictions = self.ask_prediction(plan)
        if predictions is not None:
            self._enqueue(plan, predictions)

    def ask_prediction(self, plan: PlannedRun) -> list[Prediction] | None:
        """What the learner expects of it; empty for nothing, None when it is not to start after all."""
        return ask_of_run(self._window, self._lab, plan.settings, plan.preset, plan.predictions)

    def _enqueue(self, plan: PlannedRun, predictions: list[Prediction]) -> None:
        queue = self._lab.queue
        before = len(queue.waiting())
        stated = [prediction.as_dict() for prediction in predictions]
        behind = f", behind {before} other{'s' if before > 1 else ''}" if before else ""

        def added() -> None:
            self._lab.plan_taken.emit(plan)
            self._lab.said.emit(f"It waits in the queue{behind}.")

        queue.add(QueuedRun(plan.settings, plan.name, plan.preset, plan.seconds, stated), added)

    def start_first(self, begun: Callable[[], object]) -> None:
        """The run that shows all of it within a minute. begun: called when it was started."""
        preset = load_preset(DEFAULT_PRESET)
        settings = preset.settings
        disk = estimate_pretraining(settings).checkpoint_bytes * settings.checkpoints.at_once(settings.train.steps)
        if short := short_of_disk(self._lab.outputs, disk):
            more = "The run pauses at the first checkpoint that does not fit."
            if not ask(self._window, "Train", short, more, {"start": "Train all the same"}, harmful="start"):
                return
        self._lab.controller.start(settings, None, preset.name, begun=begun)

    def resume_run(self, run_id: str) -> None:
        """After a pause, go on; after an end, from the newest checkpoint; after all its steps, ask for more."""
        row = self._lab.row(run_id)
        if row is None:
            return
        paused, elsewhere = row.status.state == "paused", row.status.elsewhere
        answer = "ask" if paused else "here"
        if elsewhere:
            answer = ask_where_to_resume(self._window, row.name, row.status.host, paused=paused)
        if answer == "ask" and (elsewhere or TrainingNow(self._lab).may_start(self._window, "Resume")):
            self._lab.controller.unpause(row.run)
        if answer != "here":
            return
        overrides: dict[str, object] = {}
        if row.status.state == "finished":
            steps = self.ask_steps(row)
            if steps is None:
                return
            overrides["train.steps"] = steps
        if TrainingNow(self._lab).may_start(self._window, "Resume"):
            self._lab.controller.resume(row.run, overrides, take_over=elsewhere)

    def ask_steps(self, row: RunRow) -> int | None:
        """How many steps a finished run should have in all; None for none."""
        done = max(row.status.step, row.info.settings.train.steps)
        steps, agreed = QInputDialog.getInt(
            self._window,
            "Train it longer",
            f"{row.name} has done all its {done:,} steps. Steps in all:",
            min(2 * done, _MOST_STEPS),
            min(done + 1, _MOST_STEPS),
            _MOST_STEPS,
        )
        return steps if agreed else None

    def _with_current(self, act: Callable[..., object]) -> None:
        row = self._lab.current()
        if row is not None:
            act(row.run)

    def _make(self, name: str, text: str, tip: str, keys: str, slot: Callable[[], None] | None = None) -> QAction:
        action = QAction(text, self._window)
        action.setObjectName(f"action.{name}")
        action.setShortcut(QKeySequence(keys))
        action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)
        if slot is not None:
            action.triggered.connect(slot)
        self._explain(action, tip)
        return action

    def _explain(self, action: QAction, tip: str) -> None:
        keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        action.setToolTip(f"{tip} ({keys})")
        action.setStatusTip(tip)

    def _restyle(self) -> None:
        theme = current_theme()
        for action in self.all():
            name = action.objectName().removeprefix("action.")
            action.setIcon(icon(name, theme.accent if name == "train" else theme.text))
