"""Where a legend covers least: the corner of a plot that has the fewest curves in it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# x and y from 0 to 1, in order of preference.
CORNERS = ((1, 1), (0, 1), (0, 0), (1, 0))
REACH = (0.38, 0.36)  # the part of the plot that a legend may cover, across and up
_ALONG = 120  # places looked at along a line


def emptiest_corner(
    lines: Iterable[tuple[np.ndarray, np.ndarray]], reach: tuple[float, float] = REACH
) -> tuple[int, int]:
    """One of CORNERS. lines: x and y of each curve, from 0 to 1 in the plot; NaN where it is not drawn.

    reach: how much of the plot the legend takes, across and up.
    """
    taken = dict.fromkeys(CORNERS, 0)
    for x, y in lines:
        if not len(x):
            continue
        # Between its points a line takes room, too.
        along = np.linspace(0, len(x) - 1, _ALONG)
        x, y = (np.interp(along, np.arange(len(x)), values) for values in (x, y))
        for corner in CORNERS:
            taken[corner] += int(((np.abs(x - corner[0]) < reach[0]) & (np.abs(y - corner[1]) < reach[1])).sum())
    return min(CORNERS, key=lambda corner: taken[corner])
