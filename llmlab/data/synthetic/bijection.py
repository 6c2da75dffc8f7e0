"""Bijection elimination: pairs of a hidden one-to-one map are shown, and each new key asks for its value.

    k1, v1, k2, v2, ..., k_L        keys are tokens 0 .. V-1, values V .. 2V-1

The map is uniform over the V! bijections. A prediction is read at a key, where its value is not in sight yet: reading
it at the value would leak the answer. With U the values seen so far, a new key has p = 1 / (V - |U|) on each value
outside U; a key seen before has p = 1 on its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmlab.data.synthetic.tasks import Layout, Task, TaskBatch, generator, one_hot


@dataclass(frozen=True)
class Bijection(Task):
    """values: V. pairs: L. repeats: keys are drawn with replacement, and only first occurrences are scored.

    Without repeats the entropy at position k is log2(V - k + 1) in every sequence: it equals the position. With them it
    varies at each position.
    """

    values: int
    pairs: int
    repeats: bool = False

    @property
    def layout(self) -> Layout:
        """Vocabulary 2V, predictions at keys."""
        time = 2 * self.pairs - 1
        return Layout(2 * self.values, time, tuple(range(0, time, 2)), (self.values, 2 * self.values))

    def batch(self, seed: int, part: int, index: int, size: int) -> TaskBatch:
        """Sequences, with what came as target."""
        random = generator(seed, part, index)
        identity = np.tile(np.arange(self.values), (size, 1))
        maps = random.permuted(identity, axis=1)  # [B, V]
        if self.repeats:
            keys = random.integers(self.values, size=(size, self.pairs))
        else:
            keys = random.permuted(identity, axis=1)[:, : self.pairs]
        values = np.take_along_axis(maps, keys, axis=1)  # [B, L]
        return self.read(keys, values)

    def read(self, keys: np.ndarray, values: np.ndarray) -> TaskBatch:
        """Given pairs, int [B, L] each, as a batch."""
        size = len(keys)
        ids = np.empty((size, 2 * self.pairs), dtype=np.int64)
        ids[:, 0::2], ids[:, 1::2] = keys, values + self.values
        target = one_hot(values, self.values)  # [B, L, V]
        posterior, first = posterior_of(target)
        return TaskBatch(ids[:, :-1], first, posterior, target)

    def token_text(self, id: int) -> str:
        """k3, v5."""
        return f"k{id}" if id < self.values else f"v{id - self.values}"


def posterior_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-hot values [B, L, V] -> the belief about each, given the pairs before it [B, L, V]; whether it is new [B, L].

    A value has been seen exactly when its key has: the map is one-to-one.
    """
    seen = np.cumsum(values, axis=1) - values > 0  # [B, L, V], before each pair
    new = ~(seen & (values > 0)).any(-1)  # [B, L]
    open_values = ~seen
    belief = open_values / np.maximum(1, open_values.sum(-1, keepdims=True))
    return np.where(new[..., None], belief, values), new
