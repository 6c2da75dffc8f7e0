r"""How a norm grows with the layer: by a factor, by an amount, or as sums of independent parts would. numpy only.

    exponential   ln n = a + b l
    linear        n = s (l + c),        ln n = ln s + ln(l + c)
    root          n = s sqrt(l + c),    ln n = ln s + ln(l + c) / 2:   n^2 grows by a constant amount

Each has two parameters and is fitted to ln n by least squares, so errors mean the same in all, relative ones, and
AIC = M ln(error) + 2k differs by M ln(error / error) alone: M layers, as many parameters in each. Curves may fall, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmlab.studies.papers.attention_sinks.thresholds import EDGE
from llmlab.studies.papers.statistics import bootstrap_interval

Array = np.ndarray
EXPONENTIAL, LINEAR, ROOT = SHAPES = ("exponential", "linear", "root")
# Where l + c reaches from the first layer, in multiples of the span: from a steep curve to one that is level.
_OFFSETS = np.geomspace(1e-4, 1e5, 4000)
_TINY = 1e-18  # of an error: below the rounding of what is measured


@dataclass(frozen=True)
class Growth:
    """The growth of ln n over the layers `at`.

    slope: a layer, with its interval [low, high] over prompts; intercept: of the line, at layer 0. r2: of the line.
    aic: how much more another curve's is than the exponential's, by name; negative where it fits better.
    """

    at: list[int]
    slope: float
    low: float
    high: float
    intercept: float
    r2: float
    aic: dict[str, float]

    @property
    def rival(self) -> str:
        """The other curve that fits best."""
        return min(self.aic, key=lambda name: self.aic[name])


def middle(depth: int) -> list[int]:
    """The places 0 (before the first block) to `depth` without those near either end."""
    edge = max(1, -(-depth // EDGE))
    return list(range(edge, depth - edge + 1))


def growth(logs: Array, at: list[int]) -> Growth:
    """The curves through the mean over prompts of ln n [P, M] at the M >= 3 layers `at`."""
    x, y = np.array(at, dtype=float), logs.mean(0)
    across = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slopes = logs @ across  # [P]: least squares is linear in what it is fitted to
    slope = float(y @ across)
    intercept = float(y.mean() - slope * x.mean())
    error = float(((y - intercept - slope * x) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    low, high = bootstrap_interval(slopes)
    errors = {LINEAR: _error(x, y, 1.0), ROOT: _error(x, y, 0.5)}
    return Growth(
        at=at,
        slope=slope,
        low=low,
        high=high,
        intercept=intercept,
        r2=1 - error / total if total > _TINY else 0.0,
        aic={name: len(x) * float(np.log(max(one, _TINY) / max(error, _TINY))) for name, one in errors.items()},
    )


def _error(x: Array, y: Array, power: float) -> float:
    """The smallest sum of squares of y - ln s - power ln |x - end|, over s and over ends outside of the layers."""
    span = x[-1] - x[0]
    ends = np.concatenate([x[0] - span * _OFFSETS, x[-1] + span * _OFFSETS])
    left = y - power * np.log(np.abs(x - ends[:, None]))  # [ends, M]
    return float(((left - left.mean(1, keepdims=True)) ** 2).sum(1).min())
