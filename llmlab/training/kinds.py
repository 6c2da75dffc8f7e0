"""What the lab does with each kind of training before its steps: names that last, time, memory, making. No torch.

Which kinds there are says llmlab/core/kinds.py; each has its `TrainingKind` in a file of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from llmlab.core.config import with_values
from llmlab.core.kinds import registered
from llmlab.core.processes import available_cores
from llmlab.core.run_settings import RunSettings
from llmlab.core.setting_info import SettingInfo
from llmlab.gpt.estimate import Memory
from llmlab.training.schedule import early_evaluations

if TYPE_CHECKING:
    from llmlab.training.run import TrainingRun
    from llmlab.training.workplace import Workplace

S = TypeVar("S", bound=RunSettings)
# What gives settings with which a run takes less memory, or None where it cannot; by the part of `Memory` it is of.
Levers: TypeAlias = Mapping[str, tuple[Callable[[Any], "dict[str, Any] | None"], ...]]


class TrainingKind(ABC, Generic[S]):
    """Keeps nothing between calls."""

    levers: ClassVar[Levers] = {}

    def pinned(self, settings: S, outputs: Path) -> S:
        """With names that mean the same tomorrow and in another working directory: the worker, and whoever resumes
        the run some day, may be elsewhere. UsageError where a name leads nowhere."""
        return settings

    @abstractmethod
    def fits(self, changed: SettingInfo, settings: S) -> bool:
        """Whether a checkpoint's weights still mean something after a setting has changed."""

    @abstractmethod
    def seconds(self, settings: S, outputs: Path) -> float:
        """A whole run's time on this machine's processor. LabError when a base is not what it must be."""

    def memory(self, settings: S, outputs: Path, *, read: bool = False) -> Memory | None:
        """What a run holds at its peak; None where that is little. LabError when a base is not here.

        read: or else at least: what it learns from is not read yet, and may be short.
        """
        return None

    @abstractmethod
    def make(self, place: Workplace, settings: S) -> TrainingRun:
        """A training with its model and data, before it looks for a checkpoint. Cancelled when a stop is asked."""


def kind_of(settings: S) -> TrainingKind[S]:
    """The kind of training that these are the settings of."""
    return registered(settings.trained_by)()


def as_watched(settings: S) -> S:
    """For an estimate: with the threads that a run takes which a window watches (`core.device.choose_threads`)."""
    if settings.train.threads or settings.distributed.count > 1:
        return settings
    return with_values(settings, {"train.threads": max(1, available_cores() - 1)})


def steps_and_evaluations(settings: RunSettings, held_out: int = 0) -> float:
    """How many optimizer steps take as long as a run's steps and its measurements of both splits.

    held_out: sequences of the whole held-out text, for a run that measures on all of it.
    """
    train = settings.train
    evaluations = 1 + -(-train.steps // train.eval_interval) if train.eval_interval else 0
    evaluations += len(early_evaluations(train))
    sequences = 2 * evaluations * (train.eval_sequences or held_out)  # a forward pass is a third of a step
    return train.steps + sequences / (settings.data.batch_size * train.grad_accum) / 3


def smaller_batch(settings: RunSettings) -> dict[str, Any] | None:
    """Half of it, with as many tokens a step."""
    size = settings.data.batch_size
    half = -(-size // 2)
    if size == 1:
        return None
    return {"data.batch_size": half, "train.grad_accum": settings.train.grad_accum * -(-size // half)}
