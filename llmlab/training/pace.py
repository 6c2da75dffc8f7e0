"""How far a training has come, how fast its steps are, and how long those take that are left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llmlab.core.run_settings import TrainSettings
from llmlab.training.schedule import early_evaluations

# Steps over which speed is averaged: long enough to be calm, short enough to follow a change within seconds.
STEPS = 20
# Between two `shared` events, and as a part of the training time so far: a week's training has some thousands of them.
_SHARES_SECONDS, _SHARES_PART = 10.0, 1e-3


@dataclass
class Progress:
    """How far training has come: everything that changes from step to step besides tensors and generators.

    The position in the data follows from `step`, since batches are a function of (seed, epoch); the learning
    rate follows from it too.
    """

    step: int = 0
    tokens: int = 0
    active_seconds: float = 0.0
    step_seconds: float = 0.0  # recent mean, so that the time left is right from the first step after a resume
    evaluation_seconds: float = 0.0
    sample_seconds: float = 0.0
    score_seconds: float = 0.0  # fine-tuning: answering checkable items
    train_loss: float | None = None  # of the last evaluation
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    best_at_interval: float | None = None  # without early evaluations, which early stopping passes over
    evaluations_without_better: int = 0

    def __post_init__(self) -> None:
        if self.best_at_interval is None:  # of a version that had no early evaluations
            self.best_at_interval = self.best_val_loss

    def measured(self, train_loss: float, val_loss: float, *, early: bool) -> bool:
        """Takes the losses of now; whether validation is the best yet. early: early stopping passes over them."""
        self.train_loss, self.val_loss = train_loss, val_loss
        if not early:  # or it would end elsewhere
            if _lower(val_loss, self.best_at_interval):
                self.best_at_interval, self.evaluations_without_better = val_loss, 0
            else:
                self.evaluations_without_better += 1
        better = _lower(val_loss, self.best_val_loss)
        if better:
            self.best_val_loss, self.best_step = val_loss, self.step
        return better


def _lower(loss: float, best: float | None) -> bool:
    return math.isfinite(loss) and (best is None or loss < best)


class Pace:
    """The seconds of the last steps. tokens_until: how many tokens the first so many steps read."""

    def __init__(self, train: TrainSettings, tokens_until: Callable[[int], float]) -> None:
        self._train, self._tokens_until = train, tokens_until
        self._recent: deque[float] = deque(maxlen=STEPS)
        self._queued: list[float] = []  # of steps that a GPU may not have computed yet
        self.is_own = False  # the speed: after a resume it is the last worker's at first, which may have another device
        self._shared: float | None = None  # active seconds at which `shares_due` said so last

    @property
    def settled(self) -> bool:
        """Whether there were as many steps as it is averaged over."""
        return len(self._recent) == STEPS

    def count(self, progress: Progress, seconds: float, *, done: bool) -> None:
        """Adds a step's seconds. done: this step and those before it are computed, and not only queued."""
        progress.active_seconds += seconds
        self._queued.append(seconds)
        if not done:
            return
        self._recent.extend([sum(self._queued) / len(self._queued)] * len(self._queued))
        self._queued.clear()
        # After a resume the speed of the last worker holds until this one has warmed up.
        if self.settled or progress.step_seconds == 0 or progress.step <= STEPS:
            progress.step_seconds = sum(self._recent) / len(self._recent)
            self.is_own = True

    def shares_due(self, progress: Progress) -> bool:
        """Whether to tell how several processes share the work: after the first steps, then now and then."""
        seconds, told = progress.active_seconds, self._shared
        due = self.settled if told is None else seconds > told + max(_SHARES_SECONDS, _SHARES_PART * seconds)
        if due:
            self._shared = seconds
        return due

    def tokens_per_second(self, progress: Progress) -> float:
        """Of the last steps."""
        return self._tokens(progress.step) / progress.step_seconds

    def seconds_left(self, progress: Progress) -> float:
        """Of all steps to come, with what is measured and sampled between them and answered after the last one."""
        train = self._train
        tokens = self._tokens_until(train.steps) - self._tokens_until(progress.step)
        left = tokens / self.tokens_per_second(progress) + progress.score_seconds  # a step of more tokens takes longer
        for interval, seconds in (
            (train.eval_interval, progress.evaluation_seconds),
            (train.sample_interval, progress.sample_seconds),
        ):
            if interval:  # the last step counts also where it is no multiple of the interval
                left += (-(-train.steps // interval) - progress.step // interval) * seconds
        left += sum(step > progress.step for step in early_evaluations(train)) * progress.evaluation_seconds
        return left

    def _tokens(self, step: int) -> float:
        """Of a step, averaged over the last ones."""
        steps = min(step, STEPS)
        return (self._tokens_until(step) - self._tokens_until(step - steps)) / steps
