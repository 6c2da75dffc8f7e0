"""What happened in one run so far, in the form that charts, reports and lists need: columns of numbers, events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llmlab.core.errors import LabError
from llmlab.store.columns import EVALUATION_COLUMNS, STEP_COLUMNS, Columns, downsample, step_rows
from llmlab.store.events import (
    FINAL_EVENTS,
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Paused,
    Resumed,
    Sampled,
    Scored,
    Shared,
    Started,
    StepEvent,
    Warned,
)
from llmlab.store.overview import Overview, is_long, read_overview
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events

# Rows kept of a run, 112 bytes each: 45 MB. Many times what a screen can show; beyond it, old steps are downsampled.
MAX_ROWS = 400_000
# Rows that become at most eight when they are downsampled: half the history shrinks to about a sixth of itself.
_BUCKET = 32


@dataclass
class Interruption:
    """Time in which the run did not train. end and reason as known so far. Times in Unix seconds."""

    step: int
    start: float
    end: float | None
    reason: str  # `paused`, or `restarted` where a new worker went on


class RunHistory:
    """One run's past. `extend` takes events in order; memory stays bounded.

    `version` changes whenever rows that were there before changed or went (a resumed worker cut them, old ones were
    downsampled, a long run was loaded); while it stays, rows were only added.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.version += 1
        self.step_columns = Columns(STEP_COLUMNS)
        self.evaluations = Columns(EVALUATION_COLUMNS)
        self.evaluated: list[Evaluated] = []  # the same, as events
        self.started: Started | None = None
        self.workers: list[Started] = []  # of whose steps some count, and the last: each did those after its `step`
        self.changed: list[str] = []  # settings changed on resumes, as sentences
        self.ended: Event | None = None  # finished, stopped or failed, and no worker began since
        self.origin: float | None = None  # when the first worker began, Unix seconds
        self.samples: list[Sampled] = []
        self.scores: list[Scored] = []
        self.shares: list[Shared] = []
        self.checkpoints: list[CheckpointSaved] = []
        self.warnings: list[Warned] = []
        self.interruptions: list[Interruption] = []

    def load(self, overview: Overview) -> None:
        """Replaces everything by a long run's overview."""
        self.clear()
        self.step_columns.append(overview.steps.T)
        self._add_evaluations([event for event in overview.events if isinstance(event, Evaluated)])  # by the thousand
        for event in overview.events:
            if not isinstance(event, Evaluated):
                self._take(event)

    def extend(self, events: Iterable[Event]) -> bool:
        """Adds events in order. True when that dropped steps that were there: a resumed worker began before them."""
        cut = False
        steps: list[StepEvent] = []
        for event in events:
            if isinstance(event, StepEvent):
                steps.append(event)
                continue
            if isinstance(event, Started):
                self._add_steps(steps)
                steps = []
                cut = self._cut(event) or cut
            self._take(event)
        self._add_steps(steps)
        self._bound()
        return cut

    @property
    def worker(self) -> Started | None:
        """The last worker that reached training."""
        return self.workers[-1] if self.workers else None

    @property
    def finished(self) -> Finished | None:
        return self.ended if isinstance(self.ended, Finished) else None

    @property
    def last_step(self) -> int:
        return int(self.step_columns["step"][-1]) if len(self.step_columns) else 0

    @property
    def active_seconds(self) -> float:
        """Time spent training."""
        return float(self.step_columns["active_seconds"][-1]) if len(self.step_columns) else 0.0

    def x(self, axis: str, steps: np.ndarray | None = None) -> np.ndarray:
        """Where rows stand on an axis: `step`, `tokens`, `active_seconds`, or `elapsed` (seconds since the start).

        steps: places to look up instead (an evaluation's, say), interpolated between the rows beside them.
        """
        if axis == "elapsed":  # a clock that was set back must not turn the curve around
            values = np.maximum.accumulate(self.step_columns["time"] - (self.origin or 0.0))
        else:
            values = self.step_columns[axis]
        if steps is None:
            return values
        if axis == "step" or not len(values):
            return np.asarray(steps, dtype=np.float64) if axis == "step" else np.full(len(steps), np.nan)
        return np.interp(steps, self.step_columns["step"], values)

    def _take(self, event: Event) -> None:
        if event.name in FINAL_EVENTS:
            self.ended = event
        match event:
            case Started():
                self._restart(event)
            case Evaluated():
                self._add_evaluations([event])
            case Sampled():
                self.samples.append(event)
            case Scored():
                self.scores.append(event)
            case Shared():
                self.shares.append(event)
            case CheckpointSaved():
                self.checkpoints.append(event)
            case Warned():
                self.warnings.append(event)
            case Paused():
                self.interruptions.append(Interruption(event.step, event.time, None, "paused"))
            case Resumed():
                self._end_pause(event.time)

    def _restart(self, event: Started) -> None:
        self.changed += event.changed
        if event.reached_training:
            self.workers = [*(one for one in self.workers if one.step < event.step), event]
        if not event.reached_training and self.started is not None:
            return  # it ended before it trained; what the worker before it found out still holds
        if self.started is None:
            self.origin = event.time
        elif not self._end_pause(event.time) and len(self.step_columns):  # a worker may end while it is paused
            last = float(self.step_columns["time"][-1])
            self.interruptions.append(Interruption(event.step, last, event.time, "restarted"))
        self.started, self.ended = event, None

    def _end_pause(self, time: float) -> bool:
        """Whether there was one."""
        paused = bool(self.interruptions) and self.interruptions[-1].end is None
        if paused:
            self.interruptions[-1].end = time
        return paused

    def _add_evaluations(self, events: list[Evaluated]) -> None:
        rows = [(event.step, event.time, event.train_loss, event.val_loss, float(event.best)) for event in events]
        self.evaluations.append(np.array(rows).reshape(len(rows), len(EVALUATION_COLUMNS)))
        self.evaluated += events

    def _add_steps(self, steps: list[StepEvent]) -> None:
        if steps:
            self.step_columns.append(step_rows(steps))
            if self.origin is None:
                self.origin = steps[0].time

    def _cut(self, began: Started) -> bool:
        """Drops what a worker that begins does not keep; True when there were such steps."""
        before = len(self.step_columns)
        for columns in (self.step_columns, self.evaluations):
            columns.truncate(int(np.count_nonzero(began.keeps_step(columns["step"]))))
        self.evaluated = [*filter(began.keeps, self.evaluated)]
        self.samples = [*filter(began.keeps, self.samples)]
        self.scores = [*filter(began.keeps, self.scores)]
        self.shares = [*filter(began.keeps, self.shares)]
        self.checkpoints = [*filter(began.keeps, self.checkpoints)]
        self.warnings = [*filter(began.keeps, self.warnings)]
        self.interruptions = [pause for pause in self.interruptions if began.keeps_step(pause.step)]
        if len(self.step_columns) == before:
            return False
        self.version += 1
        return True

    def _bound(self) -> None:
        """Downsamples the older half when there are too many rows; its extremes and averages stay."""
        while len(self.step_columns) > self._max_rows:
            old = len(self.step_columns) // 2
            self.step_columns.replace_front(old, downsample(self.step_columns.values[:, :old], _BUCKET))
            self.version += 1


def read_history(run: RunFolder, *, every_step: bool = True) -> RunHistory:
    """All of a run's file; a very long one is downsampled, its extremes kept. Empty where nothing can be read.

    every_step: or else most steps are left out, which takes a tenth of the time.
    """
    history = RunHistory()
    with contextlib.suppress(LabError):
        if every_step and is_long(run):
            history.load(read_overview(run))
        else:
            history.extend(read_events(run, every_step=every_step))
    return history
