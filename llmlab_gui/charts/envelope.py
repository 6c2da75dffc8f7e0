"""As many points as a screen can show, and no spike less."""

from __future__ import annotations

import numpy as np


def envelope(
    x: np.ndarray, y: np.ndarray, low: float, high: float, pixels: int, *, log_x: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The curve between `low` and `high`: as it is when it fits, else the smallest and largest y of each pixel.

    x ascends; a NaN in y breaks the line, also where a pixel has other values. One point beyond either side is kept,
    so that lines reach the edges. log_x: pixels are even in log10(x); low and high are values of x still.
    """
    pixels = max(1, pixels)
    begin = max(0, int(np.searchsorted(x, low)) - 1)
    end = min(len(x), int(np.searchsorted(x, high, side="right")) + 1)
    if end - begin <= 4 * pixels:
        return x[begin:end], y[begin:end]
    if log_x:
        low = max(low, float(x[np.searchsorted(x, 0.0, side="right")]) if x[-1] > 0 else 1.0)
        edges = np.geomspace(low, max(high, low * 1.0001), pixels + 1)
    else:
        edges = np.linspace(low, high, pixels + 1)
    starts = np.unique(np.clip(np.searchsorted(x, edges), begin, end - 1))
    if starts[0] != begin:
        starts = np.concatenate([[begin], starts])
    visible = y[:end]
    lowest, highest = np.fmin.reduceat(visible, starts), np.fmax.reduceat(visible, starts)
    gaps = np.isnan(visible[begin:])
    columns = [lowest, highest]
    if gaps.any():
        # A gap within a pixel's points breaks the line after them.
        broken = np.logical_or.reduceat(np.isnan(visible), starts)
        columns.append(np.where(broken, np.nan, highest))
    # The last point closes the line; pixel columns are drawn where they begin.
    places = np.repeat(x[starts], len(columns))
    return np.append(places, x[end - 1]), np.append(np.stack(columns, axis=1).reshape(-1), y[end - 1])
