"""What became of a run, read from its events: the outcome of every quantity that it can be asked about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from llmlab.errors import LabError
from llmlab.notebook.quantities import CURVE, find_quantity, steps_to
from llmlab.runs.folder import RunFolder
from llmlab.training.events import Evaluated, Event, Finished, Started, StepEvent, from_line

# A validation loss that is so much above its lowest one by the end has turned upwards, and is not noise: fixed windows.
_RISE = 0.01
# Of a long run's evaluations, as many as a curve can show.
_MOST_POINTS = 400
_STEP = b'{"event": "step"'

Outcome = float | str | list[list[float]]


@dataclass
class RunFacts:
    """What a run's events tell. evaluations: [step, train_loss, val_loss]. finished: all planned steps are done."""

    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    scores: list[tuple[int, int, int]] = field(default_factory=list)  # step, right, items
    last_step: StepEvent | None = None
    finished: Finished | None = None

    @property
    def curve(self) -> list[list[float]]:
        """Validation loss by step, thinned to what a curve can show; the first and the last stay."""
        points = [[float(step), val] for step, _, val in self.evaluations if math.isfinite(val)]
        stride = -(-len(points) // _MOST_POINTS) or 1
        return points[::-1][::stride][::-1]


def read_facts(run: RunFolder) -> RunFacts:
    """Reads events.jsonl; what a resumed worker made void is left out. LabError when it cannot be read.

    Of the many `step` lines only the last is parsed.
    """
    facts, newest = RunFacts(), b""
    try:
        with run.events.open("rb") as file:
            for line in file:
                if line.startswith(_STEP):
                    newest = line
                elif (event := from_line(line)) is not None:
                    _take(facts, event)
                    newest = b"" if isinstance(event, Started) and _step_of(newest) > event.step else newest
    except FileNotFoundError:
        return facts
    except OSError as error:
        raise LabError(f"The events of {run.id} cannot be read.", str(error)) from error
    step = from_line(newest) if newest else None
    facts.last_step = step if isinstance(step, StepEvent) else None
    return facts


def outcome_of(name: str, facts: RunFacts) -> Outcome | None:
    """What a quantity became; None when the run does not tell."""
    target = steps_to(name)
    if target is not None:
        return _first_below(facts, target)
    quantity = find_quantity(name)
    if quantity.answer == CURVE:
        return facts.curve or None
    reader = _READERS.get(name)
    return None if reader is None else reader(facts)


def _take(facts: RunFacts, event: Event) -> None:
    match event:
        case Started():
            facts.evaluations = [row for row in facts.evaluations if row[0] <= event.step]
            facts.scores = [row for row in facts.scores if row[0] <= event.step]
            facts.finished = None
        case Evaluated():
            facts.evaluations = [row for row in facts.evaluations if row[0] != event.step]
            facts.evaluations.append((event.step, event.train_loss, event.val_loss))
        case Finished():
            facts.finished = event
        case _ if event.name == "scored":
            right, total = getattr(event, "correct", 0), getattr(event, "total", 0)
            facts.scores.append((event.step, int(right), int(total)))


def _step_of(line: bytes) -> int:
    event = from_line(line) if line else None
    return -1 if event is None else event.step


def _lowest(facts: RunFacts) -> tuple[int, float, float] | None:
    finite = [row for row in facts.evaluations if math.isfinite(row[2])]
    return min(finite, key=lambda row: row[2], default=None)


def _last(facts: RunFacts) -> tuple[int, float, float] | None:
    row = facts.evaluations[-1] if facts.evaluations else None
    return row if row is not None and math.isfinite(row[1]) and math.isfinite(row[2]) else None


def _overfits(facts: RunFacts) -> str | None:
    lowest, last = _lowest(facts), _last(facts)
    if lowest is None or last is None or len(facts.evaluations) < 2:
        return None
    return "yes" if last[2] > (1 + _RISE) * lowest[2] else "no"


def _first_below(facts: RunFacts, target: float) -> float | None:
    """The step at which the validation loss first is at most `target`, on a straight line between evaluations."""
    before: tuple[int, float] | None = None
    for step, _, val in facts.evaluations:
        if val <= target:
            if before is None or before[1] == val:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - val)
        before = (step, val)
    return None


def _speed(facts: RunFacts) -> float | None:
    step = facts.last_step
    return step.tokens / step.active_seconds if step is not None and step.active_seconds > 0 else None


def _share(row: tuple[int, int, int] | None) -> float | None:
    return 100 * row[1] / row[2] if row is not None and row[2] else None


_READERS: dict[str, Callable[[RunFacts], Outcome | None]] = {
    "val_loss": lambda facts: None if (row := _last(facts)) is None else row[2],
    "train_loss": lambda facts: None if (row := _last(facts)) is None else row[1],
    "gap": lambda facts: None if (row := _last(facts)) is None else row[2] - row[1],
    "best_val_loss": lambda facts: None if (row := _lowest(facts)) is None else row[2],
    "best_step": lambda facts: None if (row := _lowest(facts)) is None else float(row[0]),
    "overfits": _overfits,
    "tokens_per_second": _speed,
    "minutes": lambda facts: None if facts.last_step is None else facts.last_step.active_seconds / 60,
    "score": lambda facts: _share(facts.scores[-1] if facts.scores and facts.scores[-1][0] > 0 else None),
    "score_before": lambda facts: _share(facts.scores[0] if facts.scores and facts.scores[0][0] == 0 else None),
}
