"""The smoothed curve: an exponential moving average, kept up as points arrive."""

from __future__ import annotations

import math

import numpy as np

# What the smoothing control offers, in steps; 0 is off.
MEMORIES = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)

EXPLANATION = (
    "Exponential moving average: a step's weight shrinks by a factor of e every so many steps. "
    "Divided by the sum of the weights, so that the first steps are not pulled towards zero."
)

# Inside a block, weights grow as exp(elapsed / memory), up to exp(300): float64 ends at exp(709).
_BLOCK_EXPONENT = 300.0


class MovingAverage:
    """Debiased exponential moving average over steps.

    After step t it is  sum_i w_i x_i / sum_i w_i,  w_i = (1 - exp(-d_i / memory)) exp(-(t - t_i) / memory),  where
    d_i is the number of steps that point i stands for (from the point before to itself). So it does not depend on
    how often steps were logged, and thinned points count as the steps that they stand for. A value that is not
    finite has no weight, and the average has a gap there.
    """

    def __init__(self, memory: float) -> None:
        """memory: steps after which a value's weight has fallen to 1/e; above zero."""
        self._memory = memory
        self._sum = 0.0
        self._weight = 0.0
        self._step: float | None = None

    def extend(self, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The average at each of the new points; `steps` ascend, and begin after those of earlier calls."""
        if not len(steps):
            return np.empty(0)
        first = steps[0] - 1.0 if self._step is None else self._step
        self._step = float(steps[-1])
        elapsed = np.diff(steps, prepend=first) / self._memory
        elapsed = np.clip(elapsed, 0.0, _BLOCK_EXPONENT)
        finite = np.isfinite(values)
        weights = np.where(finite, -np.expm1(-elapsed), 0.0)
        weighted = weights * np.where(finite, values, 0.0)
        total = np.cumsum(elapsed)
        averages = np.empty(len(steps))
        begin = 0
        while begin < len(steps):
            reached = total[begin - 1] if begin else 0.0
            end = max(begin + 1, int(np.searchsorted(total, reached + _BLOCK_EXPONENT, side="right")))
            # S_t = S_(t-1) exp(-d_t) + w_t x_t, unrolled over the block: growth_t = exp(sum of d up to t).
            growth = np.exp(total[begin:end] - reached)
            sums = (self._sum + np.cumsum(weighted[begin:end] * growth)) / growth
            norms = (self._weight + np.cumsum(weights[begin:end] * growth)) / growth
            with np.errstate(invalid="ignore", divide="ignore"):
                averages[begin:end] = sums / norms
            self._sum, self._weight = float(sums[-1]), float(norms[-1])
            begin = end
        averages[~finite] = math.nan
        return averages
