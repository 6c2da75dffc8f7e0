"""Random tokens, a segment of which is read twice: the task that only an induction head solves.

    before, s1 s2 ... sn, between, s1 s2 ... sn       T tokens in all, n from `shortest` to `longest`

All tokens but the second reading are different, so nothing but the first reading says anything about it. Once a token
stands there for the second time, what followed it the first time follows again: the posterior is one-hot from the
second reading's first token to its last but one, and these are the positions that count. How long the segment is, and
how much stands between its two readings, is drawn for each sequence: a model that looks a fixed distance back finds
little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmlab.data.synthetic.tasks import Layout, Task, TaskBatch, generator, one_hot


@dataclass(frozen=True)
class Repeats(Task):
    """vocabulary: V tokens. shortest, longest: of a segment. time: tokens of a sequence, T >= 2 longest."""

    vocabulary: int
    shortest: int
    longest: int
    time: int

    @property
    def layout(self) -> Layout:
        """Every token can be an answer; predictions are read where a second reading can stand."""
        positions = tuple(range(self.time - self.longest, self.time - 1))
        return Layout(self.vocabulary, self.time, positions, (0, self.vocabulary))

    def batch(self, seed: int, part: int, index: int, size: int) -> TaskBatch:
        """Sequences, with what came as target; where it is not scored, nobody can know it."""
        random = generator(seed, part, index)
        tokens = random.permuted(np.tile(np.arange(self.vocabulary), (size, 1)), axis=1)[:, : self.time]
        lengths = random.integers(self.shortest, self.longest + 1, size=size)
        between = random.integers(self.time - 2 * lengths + 1)
        return self.read(tokens, lengths, between)

    def read(self, tokens: np.ndarray, lengths: np.ndarray, between: np.ndarray) -> TaskBatch:
        """Different tokens int [B, T], of which the last n are overwritten by the segment; n and the gap, int [B]."""
        position = np.arange(self.time)
        second = position >= self.time - lengths[:, None]  # [B, T]
        source = np.where(second, position - (lengths + between)[:, None], position)
        ids = np.take_along_axis(tokens, source, axis=1).astype(np.int64)
        positions = list(self.layout.positions)
        came = one_hot(ids[:, [one + 1 for one in positions]], self.vocabulary)  # [B, P, V]
        return TaskBatch(ids, second[:, positions], came, came)

    def baselines(self, batch: TaskBatch) -> dict[str, np.ndarray]:
        """Token frequencies, knowing nothing of a sequence; and `counts and places`, which compares no two positions.

        The latter knows how far back a first reading can be, and that no token comes three times.
        """
        belief = np.zeros_like(batch.posterior)
        rows = np.arange(len(batch.ids))
        distances = self.distances()
        for number, position in enumerate(self.layout.positions):
            for distance in np.flatnonzero(distances[number]):
                belief[rows, number, batch.ids[:, position + 1 - distance]] += distances[number, distance]
            belief[:, number] *= one_hot(batch.ids[:, : position + 1], self.vocabulary).sum(1) < 2
        known = belief.sum(-1, keepdims=True)  # none where the segment has not begun again
        knowing_nothing = super().baselines(batch)
        belief = np.where(known > 0, belief / np.maximum(known, np.finfo(float).tiny), knowing_nothing["uniform"])
        return knowing_nothing | {"counts and places": belief}

    def distances(self) -> np.ndarray:
        """How likely the first reading is so far back, given that a position is in the second: [P, T].

        All that can be known without comparing tokens: the lengths that reach the position, and the gaps that fit them.
        """
        weights = np.zeros((len(self.layout.positions), self.time))
        for number, position in enumerate(self.layout.positions):
            for length in range(max(self.shortest, self.time - position), self.longest + 1):
                gaps = self.time - 2 * length + 1
                weights[number, length : length + gaps] += 1 / gaps
        return weights / weights.sum(1, keepdims=True)

    def token_text(self, id: int) -> str:
        """t17."""
        return f"t{id}"
