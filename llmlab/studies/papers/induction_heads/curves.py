"""When something changed, along a run's checkpoints: pure functions of curves. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

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
