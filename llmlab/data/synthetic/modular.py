"""Modular addition: two numbers and an equals sign; the sum modulo p is asked for.

    a, b, =        numbers are tokens 0 .. p-1, "=" is token p; the answer is read at "="

There are p x p sums. A shuffle by the split's own seed cuts them into training and held-out ones, so every run of one
split learns the same. The parts are finite: batches go through a part in the shuffle's order, over and over, and a
batch as large as the part is all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmlab.data.synthetic.tasks import TRAIN, Layout, Task, TaskBatch, one_hot


@dataclass(frozen=True)
class ModularSum(Task):
    """modulus: p. train_sums: how many of the p x p are trained on. split_seed: which."""

    modulus: int
    train_sums: int
    split_seed: int = 1

    @property
    def layout(self) -> Layout:
        """Vocabulary p + 1, one prediction."""
        return Layout(self.modulus + 1, 3, (2,), (0, self.modulus))

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sums trained on, and of those held out; sum number a p + b is a + b."""
        order = np.random.default_rng(self.split_seed).permutation(self.modulus**2)
        return order[: self.train_sums], order[self.train_sums :]

    def batch(self, seed: int, part: int, index: int, size: int) -> TaskBatch:
        """The next `size` sums of a part, from its beginning again where it ends; no seed moves them."""
        sums = self.parts[0 if part == TRAIN else 1]
        return self.read(sums[np.arange(index * size, (index + 1) * size) % len(sums)])

    def whole(self, part: int) -> TaskBatch:
        """All sums of a part."""
        return self.read(self.parts[0 if part == TRAIN else 1])

    def read(self, sums: np.ndarray) -> TaskBatch:
        """Sums by number, int [B], as a batch."""
        a, b = np.divmod(sums, self.modulus)
        ids = np.stack([a, b, np.full_like(a, self.modulus)], axis=1)
        answer = one_hot((a + b) % self.modulus, self.modulus)[:, None]  # [B, 1, p]
        return TaskBatch(ids, np.ones((len(sums), 1), dtype=bool), answer, answer)

    def token_text(self, id: int) -> str:
        """12, =."""
        return "=" if id == self.modulus else str(id)
