"""What the tasks have in common: sequences in which something is to be predicted, and the exact posterior of it.

A sequence is a pure function of (seed, part, index), so that nothing of the data needs saving. Letters in shapes: B
sequences, T tokens, P positions of a sequence where a prediction is asked for, C things that it can be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.errors import LabError

TRAIN, HELD_OUT = 0, 1  # parts: training sequences, and those on which everything is measured
# Held-out sequences are the same whatever a run's seed, so that runs can be compared.
HELD_OUT_SEED = 20_251_222


@dataclass(frozen=True)
class Layout:
    """How a task is written in tokens.

    positions: of the tokens [P] at which a prediction is read. answers: first and last + 1 of the C tokens that stand
    for what is predicted. row_width: a token of an id from vocab_size on holds so many numbers (`row_ids`), if any.
    """

    vocab_size: int
    time: int
    positions: tuple[int, ...]
    answers: tuple[int, int]
    row_width: int = 0


@dataclass(frozen=True)
class TaskBatch:
    """Sequences with what a perfect reasoner would believe.

    ids: int64 [B, T]. scored: bool [B, P], where a prediction counts. posterior: [B, P, C], exact. target: [B, P, C],
    what the loss is taken against: what came (one-hot), or the posterior itself.
    """

    ids: np.ndarray
    scored: np.ndarray
    posterior: np.ndarray
    target: np.ndarray

    def first(self, count: int) -> TaskBatch:
        """Its first `count` sequences, or all that there are."""
        return TaskBatch(self.ids[:count], self.scored[:count], self.posterior[:count], self.target[:count])


class Task(ABC):
    """A task of some size."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """How it is written."""

    @abstractmethod
    def batch(self, seed: int, part: int, index: int, size: int) -> TaskBatch:
        """Batch number `index`, of `size` sequences."""

    def baselines(self, batch: TaskBatch) -> dict[str, np.ndarray]:
        """By name, the predictions [B, P, C] of reasoners that see less than all: here, of one that knows nothing."""
        return {"uniform": np.full_like(batch.posterior, 1 / batch.posterior.shape[-1])}

    @abstractmethod
    def token_text(self, id: int) -> str:
        """A token as people read it."""


class TaskTokenizer:
    """A task's tokens as people read them: `k3 v5 k1`."""

    beginning: int | None = None  # sequences begin with their first pair, or their matrices

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ids = {task.token_text(id): id for id in range(task.layout.vocab_size)}

    def encode(self, text: str) -> list[int]:
        """Words between spaces -> ids. LabError for a word that is no token."""
        words = text.split()
        if wrong := [word for word in words if word not in self._ids]:
            raise LabError(f"{wrong[0]!r} is not a token of this task.", f"Its tokens are {', '.join(self._ids)}.")
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> words."""
        return " ".join(map(self._task.token_text, ids))

    def token_text(self, id: int) -> str:
        """One token."""
        return self._task.token_text(id)


def held_out(task: Task, count: int, size: int = 256) -> list[TaskBatch]:
    """The first `count` held-out sequences, in batches of at most `size`."""
    whole = [task.batch(HELD_OUT_SEED, HELD_OUT, index, size) for index in range(-(-count // size))]
    return [batch.first(count - index * size) for index, batch in enumerate(whole)]


def generator(seed: int, part: int, index: int) -> np.random.Generator:
    """The random numbers of one batch."""
    return np.random.default_rng([seed, part, index])


def one_hot(values: np.ndarray, count: int) -> np.ndarray:
    """int [...] -> float64 [..., count]."""
    return np.eye(count)[values]
