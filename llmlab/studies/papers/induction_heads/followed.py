"""What was measured along a run's checkpoints, as it is kept on disk, and when something changed. No torch."""

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
        """What the second reading costs one that counts tokens and knows positions, but compares no two of them."""
        return self.floors["counts and places"]

    @property
    def by_previous(self) -> list[Removed]:
        """The removed heads, that of the largest previous-token score first."""
        return sorted(self.removed, key=lambda head: -head.previous)

    def taken(self, head: Removed) -> float:
        """The share of the induction head's score that goes with a head."""
        return 1 - head.induction / float(self.best[-1])


# Curves ---------------------------------------------------------------------------------------------------------------

_DIGITS = 6  # lengths that differ by less are the same, but for rounding


@dataclass(frozen=True)
class Window:
    """A part of training, in steps."""

    begin: float
    end: float

    @property
    def share(self) -> float:
        """Its length, of the training up to its end."""
        return (self.end - self.begin) / self.end


def rise_window(steps: Array, y: Array, share: float) -> Window | None:
    """The fewest steps in which y [N] rises by `share` of its whole rise, last less first; None where it does not rise.

    Between two checkpoints y is taken to be a straight line. The shortest window then begins or ends at one of them:
    in between, moving it changes its length evenly, so one way is never worse. Of equally short ones it is the last.
    """
    wanted = share * (y[-1] - y[0])
    if wanted <= 0:
        return None
    windows = []
    for place in range(len(y)):
        end = _reached(steps[place:], y[place:] - y[place], wanted)
        begin = _reached(steps[place::-1], y[place] - y[place::-1], wanted)
        windows += [Window(float(steps[place]), end)] if end is not None else []
        windows += [Window(begin, float(steps[place]))] if begin is not None else []
    return min(windows, key=lambda window: (round(window.end - window.begin, _DIGITS), -window.end))


def half_way(steps: Array, y: Array) -> float:
    """The step at which y [N] first is half-way from its first value to its last; ValueError where these are equal."""
    change = y[-1] - y[0]
    found = _reached(steps, (y - y[0]) * np.sign(change), abs(change) / 2)
    if change == 0 or found is None:
        raise ValueError("the first value and the last are the same")
    return found


def fall_inside(steps: Array, y: Array, window: Window) -> float:
    """The share of the whole fall of y [N], first less last, that comes within the window."""
    begin, end = np.interp([window.begin, window.end], steps, y)
    return float((begin - end) / (y[0] - y[-1]))


def _reached(steps: Array, risen: Array, wanted: float) -> float | None:
    """Where `risen`, which begins at 0, first is `wanted` > 0; None where it never is."""
    places = np.flatnonzero(risen >= wanted)
    if not len(places) or wanted <= 0:
        return None
    place = int(places[0])
    part = (wanted - risen[place - 1]) / (risen[place] - risen[place - 1])
    return float(steps[place - 1] + part * (steps[place] - steps[place - 1]))
