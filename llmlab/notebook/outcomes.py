"""Outcomes: what became of whatever was predicted about, and what a run's events say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol, TypeAlias

from llmlab.notebook.quantities import CURVE, find_quantity, steps_to
from llmlab.notebook.scoring import NotBefore
from llmlab.store.events import Evaluated, Finished, Scored, Started
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events

# A validation loss so much above its lowest one at the end has turned upwards, and is no noise: sequences are fixed.
_RISE = 0.01
# Of a long run's evaluations, as many as a curve can show.
_MOST_POINTS = 400

Outcome: TypeAlias = float | str | list[list[float]] | NotBefore


class Outcomes(Protocol):
    """What became of whatever was predicted about."""

    @property
    def result(self) -> str:
        """All of it in a sentence."""

    @property
    def curve(self) -> list[list[float]]:
        """[step, validation loss], or [x, y] of an experiment's main chart; empty where there is none."""
        return []

    @property
    def x_axis(self) -> str:
        """What x is, where it is no step."""
        return ""

    @property
    def x_log(self) -> bool:
        """Whether x is spread over orders of magnitude."""
        return False

    def of(self, name: str) -> Outcome | None:
        """What a quantity became; None when the result does not tell."""

    def options(self, name: str) -> int:
        """How many answers there were to choose from; 0 is unknown. As many as the quantity itself knows."""
        return len(find_quantity(name).choices)


@dataclass
class RunFacts(Outcomes):
    """What a run's events tell. tokens, active_seconds: at its last step. finished: all planned steps are done."""

    evaluations: list[Evaluated] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    tokens: float = 0.0
    active_seconds: float = 0.0
    finished: Finished | None = None

    @property
    def curve(self) -> list[list[float]]:
        """Validation loss by step, downsampled to what a curve can show; the first and the last stay."""
        points = [[float(row.step), row.val_loss] for row in self.evaluations if math.isfinite(row.val_loss)]
        stride = -(-len(points) // _MOST_POINTS) or 1
        return points[::-1][::stride][::-1]

    @property
    def result(self) -> str:
        last, lowest = _last(self), _lowest(self)
        if last is None:
            return "No loss was measured."
        words = f"Validation loss {last.val_loss:.3f} at step {last.step:,}"
        if lowest is not None and lowest.step != last.step:
            words += f", lowest {lowest.val_loss:.3f} at step {lowest.step:,}"
        right = self.of("score")
        return f"{words}." if right is None else f"{words}, {right:.0f} % of the answers right."

    def of(self, name: str) -> Outcome | None:
        target = steps_to(name)
        if target is not None:
            return _first_below(self, target)
        if find_quantity(name).answer == CURVE:
            return self.curve or None
        reader = _READERS.get(name)
        return None if reader is None else reader(self)


def read_facts(run: RunFolder, until: int = 0) -> RunFacts:
    """Reads events.jsonl; what a resumed worker made void is left out. LabError when it cannot be read.

    until: leaves out what came after that step, in a run that was trained longer later; 0 for all. Most of the many
    `step` lines are not parsed.
    """
    from llmlab.store.history import RunHistory  # brings numpy, which `--help` should not wait for

    history = RunHistory()
    events = read_events(run, every_step=False)
    history.extend(takewhile(lambda event: not (isinstance(event, Started) and 0 < until <= event.step), events))
    tokens = float(history.step_columns["tokens"][-1]) if history.last_step else 0.0
    evaluations = {row.step: row for row in history.evaluated}  # a worker that begins at step 0 measures there again
    return RunFacts([*evaluations.values()], history.scores, tokens, history.active_seconds, history.finished)


def _lowest(facts: RunFacts) -> Evaluated | None:
    finite = [row for row in facts.evaluations if math.isfinite(row.val_loss)]
    return min(finite, key=lambda row: row.val_loss, default=None)


def _last(facts: RunFacts) -> Evaluated | None:
    """The losses at the end: of the last evaluation, or as the run itself said when it had finished."""
    row = facts.evaluations[-1] if facts.evaluations else None
    ended = facts.finished
    if ended is not None and ended.train_loss is not None and ended.val_loss is not None:
        row = Evaluated(ended.step, ended.time, ended.train_loss, ended.val_loss, False, 0.0)
    return row if row is not None and math.isfinite(row.train_loss) and math.isfinite(row.val_loss) else None


def _overfits(facts: RunFacts) -> str | None:
    lowest, last = _lowest(facts), _last(facts)
    if lowest is None or last is None or len(facts.evaluations) < 2:
        return None
    return "yes" if last.val_loss > (1 + _RISE) * lowest.val_loss else "no"


def _first_below(facts: RunFacts, target: float) -> Outcome | None:
    """The step at which the validation loss first is at most `target`, on a straight line between evaluations."""
    before: tuple[int, float] | None = None
    for row in facts.evaluations:
        step, val = row.step, row.val_loss
        if val <= target:
            if before is None or before[1] == val:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - val)
        before = (step, val)
    return None if before is None else NotBefore(float(before[0]))


def _speed(facts: RunFacts) -> float | None:
    return facts.tokens / facts.active_seconds if facts.active_seconds > 0 else None


def _share(row: Scored | None) -> float | None:
    return 100 * row.correct / row.total if row is not None and row.total else None


_READERS: dict[str, Callable[[RunFacts], Outcome | None]] = {
    "val_loss": lambda facts: None if (row := _last(facts)) is None else row.val_loss,
    "train_loss": lambda facts: None if (row := _last(facts)) is None else row.train_loss,
    "gap": lambda facts: None if (row := _last(facts)) is None else row.val_loss - row.train_loss,
    "best_val_loss": lambda facts: None if (row := _lowest(facts)) is None else row.val_loss,
    "best_step": lambda facts: None if (row := _lowest(facts)) is None else float(row.step),
    "overfits": _overfits,
    "tokens_per_second": _speed,
    "minutes": lambda facts: facts.active_seconds / 60 if facts.tokens else None,
    "score": lambda facts: _share(facts.scores[-1] if facts.scores and facts.scores[-1].step > 0 else None),
    "score_before": lambda facts: _share(facts.scores[0] if facts.scores and facts.scores[0].step == 0 else None),
}
