"""How good a prediction was, once its outcome is known.

With c the stated confidence, l..u the range, m its middle, h half its width, x the outcome, and right = 1 when the
outcome lies in the range (or is the choice that was made), else 0:

    distance        |x - m| / h                                     0 in the middle, 1 at either end
    Brier score     (c - right)^2                                   Brier 1950, for one event: 0 is best, 1 is worst
    interval score  (u - l) + 2 / (1 - c) * how far outside         Gneiting and Raftery 2007, eq. 43; lower is better
    surprise        bits, -log2 of the probability that the prediction gave to what came:
      a range       of an outcome so far from the middle or farther, (1 - c)^distance. Of all distributions with a
                    stated mean distance the one that assumes least (Laplace's) has these tails, and the range holds
                    its share c. So it is 0 in the middle, log2(1 / (1 - c)) at an end, twice that at twice the
                    distance.
      a choice      c for the one that was made; what is left is spread evenly over the others
      a sentence    c when it was right, 1 - c when it was not
      a curve       as a range, with the mean distance from the curve over the stated tolerance

For quantities that are spread over orders of magnitude (`Quantity.log`), middle and distance are between logarithms.
Gneiting, Raftery: Strictly proper scoring rules, prediction, and estimation. JASA 102 (2007) 359-378.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER

RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True)
class NotBefore:
    """An outcome of which only a bound is known: it did not come within so many steps."""

    value: float


@dataclass(frozen=True)
class Score:
    """What a prediction was worth. None where what was stated does not say: no range, or no confidence.

    outcome: what came; of a curve, the mean distance from it. right: in the range, or the choice that came.
    error: |outcome - middle|, in the quantity's unit. distance: the same in half widths of the range.
    interval: the interval score, in the quantity's unit. surprise: in bits.
    """

    outcome: float | str
    right: bool | None = None
    error: float | None = None
    distance: float | None = None
    brier: float | None = None
    interval: float | None = None
    surprise: float | None = None


def score_number(prediction: Prediction, outcome: float) -> Score:
    """Of a range, or of a number alone."""
    low, high = prediction.low, prediction.high
    assert low is not None
    assert high is not None
    log = prediction.about.log and outcome > 0
    ends = (math.log(low), math.log(high), math.log(outcome)) if log else (low, high, outcome)
    middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    error = abs(outcome - (math.exp(middle) if log else middle))
    if not prediction.is_range or half == 0:  # ends so near that their logarithms are the same: a number alone
        return Score(outcome, error=error)
    right, distance = low <= outcome <= high, abs(ends[2] - middle) / half
    confidence = prediction.confidence
    if confidence is None:
        return Score(outcome, right, error, distance)
    return Score(
        outcome,
        right,
        error,
        distance,
        brier=brier(confidence, right),
        interval=interval_score(low, high, outcome, confidence),
        surprise=tail_surprise(confidence, distance),
    )


def score_bound(prediction: Prediction, outcome: NotBefore) -> Score | None:
    """Of a range that ended before the bound: it was wrong, by at least so much. None where it may still be right."""
    if not prediction.is_range or prediction.high is None or prediction.high > outcome.value:
        return None
    least = score_number(prediction, outcome.value)
    words = f"not within {outcome.value:,.0f} steps"
    confidence = prediction.confidence
    wrong = None if confidence is None else brier(confidence, False)
    return Score(words, False, distance=least.distance, brier=wrong, surprise=least.surprise)


def score_choice(prediction: Prediction, outcome: str, options: int = 0) -> Score:
    """Of a choice, or of a sentence (outcome: right or wrong). options: how many answers there were; 0 is unknown."""
    if prediction.kind == CHOICE:
        right = same_choice(prediction.choice, outcome)
    else:
        right = outcome == RIGHT
    confidence = prediction.confidence
    if confidence is None:
        return Score(outcome, right)
    given = confidence if right else (1 - confidence) / max(1, options - 1)
    return Score(outcome, right, brier=brier(confidence, right), surprise=-math.log2(given))


def score_curve(prediction: Prediction, actual: Sequence[Sequence[float]]) -> Score | None:
    """Of a curve. actual: [step, loss] as measured; None when none was measured where the curve was drawn.

    The curve is straight between its points. Measurements between its first and its last point count by the steps
    around them, to half-way to their neighbours: alike where they are evenly spaced, and less where early ones are
    close together.
    """
    import numpy as np  # only here: the command line's help should not wait for it

    drawn, measured = np.array(prediction.points, dtype=np.float64), np.array(actual, dtype=np.float64).reshape(-1, 2)
    inside = (measured[:, 0] >= drawn[0, 0]) & (measured[:, 0] <= drawn[-1, 0]) & np.isfinite(measured[:, 1])
    if not inside.any():
        return None
    steps, losses = measured[inside].T
    gaps = np.diff(steps)
    around = np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]]) if len(gaps) else np.ones(1)
    error = float(np.average(np.abs(np.interp(steps, drawn[:, 0], drawn[:, 1]) - losses), weights=around))
    tolerance, confidence = prediction.tolerance, prediction.confidence
    if tolerance is None or confidence is None:
        return Score(error, error=error)
    right, distance = error <= tolerance, error / tolerance
    surprise = tail_surprise(confidence, distance)
    return Score(error, right, error, distance, brier=brier(confidence, right), surprise=surprise)


def score(
    prediction: Prediction, outcome: float | str | NotBefore | Sequence[Sequence[float]] | None, options: int = 0
) -> Score | None:
    """Of any prediction, by its kind; None when the outcome is not known, or is none (not a number)."""
    if isinstance(outcome, NotBefore):
        return score_bound(prediction, outcome) if prediction.kind == NUMBER else None
    if prediction.kind == CURVE:
        return None if outcome is None or isinstance(outcome, (str, float, int)) else score_curve(prediction, outcome)
    if prediction.kind == NUMBER:
        value = as_number(outcome)
        return None if value is None else score_number(prediction, value)
    if isinstance(outcome, (float, int)):
        outcome = f"{outcome:.6g}"
    return score_choice(prediction, outcome, options) if isinstance(outcome, str) and outcome else None


def interval_score(low: float, high: float, outcome: float, confidence: float) -> float:
    """Its width, and how far the outcome lies outside times 2 / (1 - confidence), in the unit of both."""
    return (high - low) + 2 / (1 - confidence) * max(low - outcome, outcome - high, 0.0)


def brier(confidence: float, right: bool) -> float:
    """Squared distance between what was stated and what came; 0.25 for always saying 50 %."""
    return (confidence - right) ** 2


def tail_surprise(confidence: float, distance: float) -> float:
    """Bits of an outcome so many half widths from the middle, or farther."""
    return -distance * math.log2(1 - confidence)


def same_choice(one: str, other: str) -> bool:
    """Whether two answers are the same: 1e-3 is 0.001, and Yes is yes."""
    first, second = as_number(one), as_number(other)
    if first is not None and second is not None:
        return math.isclose(first, second, rel_tol=1e-6)
    return one.strip().casefold() == other.strip().casefold()


def as_number(value: object) -> float | None:
    """A finite number, or a text that is one."""
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
