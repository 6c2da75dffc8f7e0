"""What the schedule must do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from llmlab.core.run_settings import TrainSettings
from llmlab.exercises.parts import Case, Draw, Mistake, Part
from llmlab.training.schedule import learning_rate as ours

Rate = Callable[[int, int, int, float, float], float]


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float, low: float) -> float:
    return ours(step, TrainSettings(steps=steps, warmup_steps=warmup_steps, learning_rate=peak, min_learning_rate=low))


def _called(function: Rate, *numbers: Any) -> Any:
    """One rate; or, of whole runs, all of them."""
    if len(numbers) == 5:
        return function(*numbers)
    steps, warmup_steps, peak, low = numbers
    rates = [function(step, steps, warmup_steps, peak, low) for step in range(steps + 1)]
    return None if None in rates else torch.tensor(rates, dtype=torch.float64)


def _make(draw: Draw) -> tuple[Any, ...]:
    steps, warmup_steps = int(draw.ids(20, 1)) + 20, int(draw.ids(8, 1)) + 4
    return steps, warmup_steps, 3e-3, 3e-4


def _decaying(curve: Callable[[float], float], *, whole: bool = False) -> Rate:
    """With another course after the warm-up. whole: over all steps, and not those after it."""

    def function(step: int, steps: int, warmup_steps: int, peak: float, low: float) -> float:
        if step < warmup_steps:
            return peak * (step + 1) / (warmup_steps + 1)
        s = step / steps if whole else (step - warmup_steps) / max(1, steps - warmup_steps)
        return low + (peak - low) * curve(s)

    return function


def _rising(warm: Callable[[int, int, float, float], float]) -> Rate:
    """With another warm-up."""

    def function(step: int, steps: int, warmup_steps: int, peak: float, low: float) -> float:
        if step < warmup_steps:
            return warm(step, warmup_steps, peak, low)
        return learning_rate(step, steps, warmup_steps, peak, low)

    return function


def _half_cosine(s: float) -> float:
    return (1 + math.cos(math.pi * s)) / 2


PARTS = (
    Part(
        "learning_rate",
        learning_rate,
        _make,
        axes=("step",),
        call=_called,
        gradient=False,
        by_hand=(
            Case("109 steps, 9 of warm-up, peak 1, low 0: step 0", (0, 109, 9, 1.0, 0.0), 0.1),
            Case("109 steps, 9 of warm-up, peak 1, low 0: step 9", (9, 109, 9, 1.0, 0.0), 1.0),
            Case("109 steps, 9 of warm-up, peak 1, low 0: step 59", (59, 109, 9, 1.0, 0.0), 0.5),
            Case("109 steps, 9 of warm-up, peak 1, low 0.2: step 109", (109, 109, 9, 1.0, 0.2), 0.2),
        ),
        edges=(
            Case("no warm-up: step 0", (0, 100, 0, 1.0, 0.0), 1.0),
            Case("nothing but warm-up: the last step", (10, 10, 10, 1.0, 0.1), 1.0),
        ),
        mistakes=(
            Mistake(
                "the first step does not move",
                "The warm-up begins with (step + 1), so that the first rate is not 0.",
                _rising(lambda step, warm, peak, low: peak * step / warm),
            ),
            Mistake(
                "the warm-up is a step too short",
                "The peak comes after the warm-up: divide by warmup_steps + 1.",
                _rising(lambda step, warm, peak, low: peak * (step + 1) / warm),
            ),
            Mistake(
                "the warm-up begins at low",
                "It rises from zero.",
                _rising(lambda step, warm, peak, low: low + (peak - low) * (step + 1) / (warm + 1)),
            ),
            Mistake("no warm-up", "It rises to the peak first.", _rising(lambda step, warm, peak, low: peak)),
            Mistake("linear decay", "The decay is half a cosine.", _decaying(lambda s: 1 - s)),
            Mistake("no decay", "It falls to low at the end.", _decaying(lambda s: 1.0)),
            Mistake(
                "a whole cosine", "Half a period: cos(pi s).", _decaying(lambda s: (1 + math.cos(2 * math.pi * s)) / 2)
            ),
            Mistake(
                "a quarter of a cosine", "Half a period: cos(pi s).", _decaying(lambda s: math.cos(math.pi * s / 2))
            ),
            Mistake(
                "not halved", "(1 + cos) goes from 2 to 0: half of it.", _decaying(lambda s: 1 + math.cos(math.pi * s))
            ),
            Mistake("degrees", "math.cos takes radians.", _decaying(lambda s: (1 + math.cos(180 * s)) / 2)),
            Mistake(
                "the warm-up counts as part of the decay",
                "s begins with 0 after the warm-up.",
                _decaying(_half_cosine, whole=True),
            ),
            Mistake(
                "it decays to zero",
                "It decays to low.",
                lambda step, steps, warm, peak, low: learning_rate(step, steps, warm, peak, 0.0),
            ),
            Mistake("the wrong way round", "It falls from the peak to low.", _decaying(lambda s: 1 - _half_cosine(s))),
        ),
    ),
)
