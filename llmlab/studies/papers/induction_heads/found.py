"""What was measured on one run of repeated tokens, as it is kept on disk. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass
class Removed:
    """A head that was zeroed in the last checkpoint.

    previous: its own previous-token score, before. induction: what is left of the induction head's score. loss: of the
    second reading, without it.
    """

    layer: int
    head: int
    previous: float
    induction: float
    loss: float


@dataclass
class Found:
    """A run's checkpoints, S of them, the untrained model (step 0) among them.

    loss: of the second reading [S], nats. induction, previous: scores of every head [S][L][H]. floors: what reasoners
    that know less pay, nats, `uniform` (ln V) among them. n: predictions that count. removed: the heads of the layers
    before the induction head's, each zeroed in turn. together: what is left of the induction head's score when k of
    them are zeroed at once, k = 1, 2, ..., those of the largest previous-token score first; others_first: of the
    smallest first.
    """

    steps: list[int]
    loss: list[float]
    induction: list[list[list[float]]]
    previous: list[list[list[float]]]
    floors: dict[str, float]
    n: int
    removed: list[Removed] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    others_first: list[float] = field(default_factory=list)

    @property
    def x(self) -> Array:
        """The steps, as numbers to compute with."""
        return np.array(self.steps, dtype=float)

    @property
    def best(self) -> Array:
        """The largest induction score of any head, at each checkpoint [S]."""
        return np.array(self.induction).max((1, 2))

    @property
    def ln_v(self) -> float:
        """What each random token costs a model that knows nothing."""
        return self.floors["uniform"]

    @property
    def by_counting(self) -> float:
        """What the second reading costs a reasoner that counts tokens and knows places, and compares no two places."""
        return self.floors["counts and places"]

    @property
    def by_previous(self) -> list[Removed]:
        """The removed heads, that of the largest previous-token score first."""
        return sorted(self.removed, key=lambda head: -head.previous)

    def taken(self, head: Removed) -> float:
        """The share of the induction head's score that goes with a head."""
        return 1 - head.induction / float(self.best[-1])
