"""A run's events as an experiment needs them: its curve, its evaluations, how it ended, whether it diverged."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from llmlab.store.columns import STEP_FIELDS
from llmlab.store.events import Evaluated, Event, Failed, Finished, Started, StepEvent, from_line
from llmlab.store.overview import is_long, read_overview
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.records import DivergenceRule

# How training says that it met a number that is none (llmlab/training).
NOT_FINITE = "is not a finite number"


@dataclass
class RunHistory:
    """All that a run's events say. steps: STEP_FIELDS as [column, row]; what a resumed worker made void is gone.

    workers: those of whose steps some count, and the last, in order; each did the steps after its own `step`.
    """

    workers: list[Started] = field(default_factory=list)
    steps: np.ndarray = field(default_factory=lambda: np.empty((len(STEP_FIELDS), 0)))
    evaluations: list[Evaluated] = field(default_factory=list)
    scores: list[tuple[int, int, int]] = field(default_factory=list)  # step, right answers, items
    finished: Finished | None = None
    failed: Failed | None = None
    changed: list[str] = field(default_factory=list)  # settings changed on resumes, as sentences

    def column(self, name: str) -> np.ndarray:
        """One of STEP_FIELDS, by step."""
        return self.steps[STEP_FIELDS.index(name)]

    @property
    def started(self) -> Started | None:
        """The last worker that reached training."""
        return self.workers[-1] if self.workers else None

    @property
    def last_step(self) -> int:
        """Steps done."""
        return int(self.column("step")[-1]) if self.steps.shape[1] else 0

    @property
    def active_seconds(self) -> float:
        """Time spent training."""
        return float(self.column("active_seconds")[-1]) if self.steps.shape[1] else 0.0


def read_history(run: RunFolder) -> RunHistory:
    """Reads events.jsonl as it stands; a very long one is thinned, its extremes kept. Empty where there is none."""
    if is_long(run):
        overview = read_overview(run)
        return _gather(overview.events, overview.steps[: len(STEP_FIELDS)])
    try:
        lines = run.events.read_bytes().splitlines()
    except OSError:
        lines = []
    events = [event for line in lines if (event := from_line(line)) is not None]
    return _gather(events, np.empty((len(STEP_FIELDS), 0)))


def _gather(events: Iterable[Event], steps: np.ndarray) -> RunHistory:
    history = RunHistory()
    rows: list[StepEvent] = []
    for event in events:
        match event:
            case Started():
                history.changed += event.changed
                if event.reached_training:
                    history.workers = [one for one in history.workers if one.step < event.step] + [event]
                    rows = [row for row in rows if row.step <= event.step]
                    history.evaluations = [row for row in history.evaluations if row.step <= event.step]
                history.finished = history.failed = None
            case StepEvent():
                rows.append(event)
            case Evaluated():
                history.evaluations.append(event)
            case Finished():
                history.finished = event
            case Failed():
                history.failed = event
            case _ if event.name == "scored":
                history.scores.append((event.step, getattr(event, "correct", 0), getattr(event, "total", 0)))
    if rows:
        values = [[getattr(row, name) for name in STEP_FIELDS] for row in rows]
        steps = np.array(values, dtype=float).T
    history.steps = steps
    return history


class DivergenceWatch:
    """Applies a rule to losses as they come. `note` is a sentence from the moment at which the run has diverged."""

    def __init__(self, rule: DivergenceRule) -> None:
        self.rule = rule
        self.note = ""
        self.step: int | None = None
        self._start: float | None = None
        self._lowest = float("inf")
        self._recent: deque[float] = deque(maxlen=rule.window)
        self._kept: list[tuple[int, float]] = []  # every loss, to begin again from where a run resumed

    def add(self, event: Event) -> None:
        """The run's next event, in order."""
        match event:
            case Started() if event.reached_training:
                self._begin_again(event.step)
            case Evaluated() if event.step == 0:
                self._start = event.train_loss
            case StepEvent() if not self.note:
                self._loss(event.step, event.loss)
            case Failed() if NOT_FINITE in event.what:
                self.note, self.step = event.what, event.step

    def _begin_again(self, step: int) -> None:
        """A worker goes on after `step`: what came later is void."""
        kept = [pair for pair in self._kept if pair[0] <= step]
        self.note, self.step = "", None
        self._start = self._start if step else None
        self._lowest = float("inf")
        self._recent.clear()
        self._kept = []
        for at, loss in kept:
            self._loss(at, loss)

    def _loss(self, step: int, loss: float) -> None:
        self._kept.append((step, loss))
        self._recent.append(loss)
        if self._start is None:  # never evaluated at step 0: the first loss is as good
            self._start = loss
        if len(self._recent) < self.rule.window:
            return
        median = statistics.median(self._recent)
        if not median <= self._start + self.rule.above_start:
            self._diverged(step, f"{median:.3f}, above its start of {self._start:.3f} by more than", "above_start")
        elif median > self._lowest + self.rule.above_best:
            self._diverged(step, f"{median:.3f}, above its best of {self._lowest:.3f} by more than", "above_best")
        self._lowest = min(self._lowest, median)

    def _diverged(self, step: int, what: str, limit: str) -> None:
        margin = getattr(self.rule, limit)
        self.step = step
        self.note = f"Cut at step {step}: the median loss of {self.rule.window} steps was {what} {margin:g}."


def divergence(run: RunFolder, rule: DivergenceRule) -> DivergenceWatch:
    """The rule applied to all of a run's events."""
    watch = DivergenceWatch(rule)
    try:
        with run.events.open("rb") as file:
            for line in file:
                if (event := from_line(line)) is not None:
                    watch.add(event)
    except OSError:
        pass
    return watch
