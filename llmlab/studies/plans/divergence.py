"""Whether a run diverged: a rule applied to its losses."""

from __future__ import annotations

import contextlib
import statistics
from collections import deque

from llmlab.core.errors import LabError
from llmlab.store.events import Evaluated, Event, Failed, Started, StepEvent
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events
from llmlab.studies.plans.records import DivergenceRule

# How training says that it met a number that is none (llmlab/training).
NOT_FINITE = "is not a finite number"


class DivergenceWatch:
    """Applies a rule to losses as they come. `note` is a sentence from the moment at which the run has diverged."""

    def __init__(self, rule: DivergenceRule) -> None:
        self.rule = rule
        self.note = ""
        self.step: int | None = None
        self._start: float | None = None
        self._lowest = float("inf")
        self._recent: deque[float] = deque(maxlen=rule.window)
        self._kept: list[StepEvent] = []  # all of them, to begin again from where a run resumed

    def add(self, event: Event) -> None:
        """The run's next event, in order."""
        match event:
            case Started() if event.reached_training:
                self._begin_again(event)
            case Evaluated() if event.step == 0:
                self._start = event.train_loss
            case StepEvent() if not self.note:
                self._add(event)
            case Failed() if NOT_FINITE in event.what:
                self.note, self.step = event.what, event.step

    def _begin_again(self, began: Started) -> None:
        """A worker goes on after a step: what came later is void."""
        kept = [step for step in self._kept if began.keeps(step)]
        self.note, self.step = "", None
        self._start = self._start if began.step else None
        self._lowest = float("inf")
        self._recent.clear()
        self._kept = []
        for step in kept:
            self._add(step)

    def _add(self, event: StepEvent) -> None:
        step = event.step
        self._kept.append(event)
        self._recent.append(event.loss)
        if self._start is None:  # never evaluated at step 0: the first loss is as good
            self._start = event.loss
        if len(self._recent) < self.rule.window:
            return
        median = statistics.median(self._recent)
        above = ""
        if not median <= self._start + self.rule.above_start:
            above = f"above its start of {self._start:.3f} by more than {self.rule.above_start:g}"
        elif median > self._lowest + self.rule.above_best:
            above = f"above its best of {self._lowest:.3f} by more than {self.rule.above_best:g}"
        if above:
            self.step = step
            self.note = (
                f"Stopped at step {step}: the median loss of {self.rule.window} steps was {median:.3f}, {above}."
            )
        self._lowest = min(self._lowest, median)


def divergence(run: RunFolder, rule: DivergenceRule) -> DivergenceWatch:
    """The rule applied to all of a run's events."""
    watch = DivergenceWatch(rule)
    with contextlib.suppress(LabError):
        for event in read_events(run):
            watch.add(event)
    return watch
