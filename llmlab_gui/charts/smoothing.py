"""The smoothed curve: at each step the value of a straight line fitted to the steps around it."""

from __future__ import annotations

import math

import numpy as np

# What the smoothing control offers, in steps on either side; 0 is off.
REACHES = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)

EXPLANATION = (
    "Each value is that of a straight line fitted to so many steps on either side, so it does not lag behind. "
    "The first steps use fewer, as the loss bends most there; the newest have only one side, and may still move."
)

# Steps that the first value reads on its one side; the reach grows by half a step per step from there.
_LEAST_REACH = 2.0
# Rows fitted at once: their sums stay in the processor's cache.
_BLOCK_ROWS = 8192


def smooth(
    steps: np.ndarray, values: np.ndarray, reach: float, *, counts: np.ndarray | None = None, begin: int = 0
) -> np.ndarray:
    """Local linear fit (LOESS with equal weights) at each row from `begin` on.

    steps ascend. reach, in steps and above zero: the line at step t is fitted by least squares to the rows within
    [t - h, t + h], h = min(reach, 2 + (t - first step) / 2). A row weighs as many steps as it stands for (from the
    row before to itself). counts: of how many logged steps a row is the mean, for downsampled histories; that mean
    belongs to their middle. A value that is not finite has no weight, and the curve has a gap there. Any straight
    line stays itself, up to both ends; of a parabola with second derivative c, the values differ by at most
    c h² / 6 where both sides are there, and c h² / 12 at the last step.
    """
    found = np.empty(max(0, len(steps) - begin))
    block = _BLOCK_ROWS + int(4 * min(reach, len(steps)))  # the rows on either side are read, too
    for start in range(begin, len(steps), block):
        end = min(start + block, len(steps))
        found[start - begin : end - begin] = _fitted(steps, values, reach, counts, start, end)
    return found


def _fitted(
    steps: np.ndarray, values: np.ndarray, reach: float, counts: np.ndarray | None, begin: int, end: int
) -> np.ndarray:
    """The fit at the rows from `begin` to before `end`."""
    at = steps[begin:end]
    halves = np.minimum(reach, _LEAST_REACH + (at - steps[0]) / 2)
    first = int(np.searchsorted(steps, at[0] - 2 * reach))
    # A mean belongs before its step: the row after the window may reach into it.
    beyond = min(len(steps), int(np.searchsorted(steps, at[-1] + reach, side="right")) + 1)
    places = steps[first:beyond]
    stands_for = np.diff(places, prepend=steps[first - 1] if first else steps[0] - 1.0)
    if counts is not None:
        many = np.maximum(counts[first:beyond], 1.0)
        places = places - stands_for * (many - 1) / (2 * many)
    finite = np.isfinite(values[first:beyond])
    weights = np.where(finite, stands_for, 0.0)
    y = np.where(finite, values[first:beyond], 0.0)
    # Sums over a window are differences of running sums. Places count from the beginning of a block that is as long
    # as the widest window, so that their squares stay small however long the run; a window meets two blocks at most.
    blocks = np.floor(places / (2 * reach))
    origins = blocks * (2 * reach)
    u = (places - origins) / reach
    sums = np.zeros((len(places) + 1, 6))
    np.cumsum(
        np.stack([weights, weights * u, weights * u * u, weights * y, weights * u * y, finite], axis=1),
        axis=0,
        out=sums[1:],
    )
    low = np.minimum(np.searchsorted(places, at - halves), len(places) - 1)
    high = np.searchsorted(places, at + halves, side="right")
    last = np.maximum(high - 1, low)
    turn = np.maximum(low, np.searchsorted(blocks, blocks[last]))
    upto, middle, since = sums[high], sums[turn], sums[low]
    w = wu = wuu = wy = wuy = np.zeros(len(at))
    for part, block in ((middle - since, low), (upto - middle, last)):
        shift = (origins[block] - at) / reach
        w = w + part[:, 0]
        wu = wu + part[:, 1] + shift * part[:, 0]
        wuu = wuu + part[:, 2] + shift * (2 * part[:, 1] + shift * part[:, 0])
        wy = wy + part[:, 3]
        wuy = wuy + part[:, 4] + shift * part[:, 3]
    spread = w * wuu - wu * wu
    alone = (upto[:, 5] - since[:, 5] < 2) | ~(spread > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(alone, values[begin:end], (wuu * wy - wu * wuy) / spread)
    found[~finite[begin - first : end - first]] = math.nan
    return found
