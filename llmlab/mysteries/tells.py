"""The reference solver: it knows each fault's tell-tale and nothing else.

A tell-tale is a reading, held against a healthy run of the same seed, and a bound. The bounds stand between what the
two kinds of runs showed in tests/benchmarks/mystery_tells.py. A learner is measured against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmlab.mysteries.faults import NOTHING
from llmlab.mysteries.readings import Curves, Measures

# What the solver gives to the causes whose tell-tale shows, together; or to nothing, where none does.
SURE = 0.9


@dataclass(frozen=True)
class Readings:
    """Of one run."""

    curves: Curves
    measures: Measures


@dataclass(frozen=True)
class Tell:
    """value: of a run and its healthy twin. It shows above the bound, or below it."""

    value: Callable[[Readings, Readings], float]
    bound: float
    above: bool = True

    def shows(self, run: Readings, healthy: Readings) -> bool:
        """Whether the tell-tale shows."""
        return (self.value(run, healthy) > self.bound) == self.above


def _refused(panel: str, why: str = "") -> Callable[[Readings, Readings], float]:
    return lambda run, _: float(panel in run.measures.refused and why in run.measures.refused[panel])


def _gap(run: Readings) -> float:
    return run.measures.other - run.measures.same


TELLS: dict[str, Tell] = {
    "no-mask": Tell(_refused("attention", "ahead"), 0.5),
    # Nats by which another token than the next one is predicted better.
    "not-shifted": Tell(lambda run, _: run.measures.asked[1] - run.measures.asked[0], 0.5),
    "shifted-twice": Tell(lambda run, _: run.measures.asked[1] - run.measures.asked[2], 0.1),
    "rate-high": Tell(lambda run, healthy: run.measures.moved / healthy.measures.moved, 2.5),
    "rate-low": Tell(lambda run, healthy: run.measures.moved / healthy.measures.moved, 0.3, above=False),
    "large-init": Tell(lambda run, _: run.curves.first, 1.0),
    # Writing that is unlike the text beside a loss that is good.
    "wrong-tokenizer": Tell(
        lambda run, healthy: run.curves.pairs - healthy.curves.pairs + max(0.0, run.curves.val - healthy.curves.val),
        -0.3,
        above=False,
    ),
    "no-residual": Tell(_refused("contributions"), 0.5),
    "weight-decay": Tell(lambda run, healthy: run.measures.norms / healthy.measures.norms, 0.8, above=False),
    "kept-gradients": Tell(lambda run, healthy: run.curves.gradient / healthy.curves.gradient, 1.5),
    "spike": Tell(lambda run, healthy: run.curves.jump / healthy.curves.jump, 2.0),
    "repeated": Tell(
        lambda run, healthy: run.curves.train - run.curves.steps - (healthy.curves.train - healthy.curves.steps), 0.3
    ),
    # What other held-out text costs more, beyond what it does in a healthy run.
    "leaked": Tell(lambda run, healthy: _gap(run) - _gap(healthy), 0.05),
    "dropout-on": Tell(lambda run, _: run.curves.val - run.measures.same, 0.01),
    "no-scale": Tell(lambda run, healthy: run.measures.uneven / healthy.measures.uneven, 3.0),
    "no-norm": Tell(_refused("attribution"), 0.5),
    "no-warmup": Tell(lambda run, healthy: run.curves.early - healthy.curves.early, -0.15, above=False),
    "unshuffled": Tell(lambda run, _: run.curves.again, 0.5),
    "bf16": Tell(lambda run, _: run.measures.bf16, 0.99),
    "frozen": Tell(lambda run, _: min(run.measures.by_block), 1e-6, above=False),
    "untied": Tell(lambda run, _: run.measures.parameters - run.measures.expected, 0.5),
}


def showing(run: Readings, healthy: Readings, among: Sequence[str]) -> list[str]:
    """The causes whose tell-tale shows."""
    return [name for name in among if name != NOTHING and TELLS[name].shows(run, healthy)]


def solve(run: Readings, healthy: Readings, among: Sequence[str]) -> dict[str, float]:
    """A probability of each cause: `SURE` shared by those that show, the rest by the others."""
    likely = showing(run, healthy, among) or [NOTHING]
    others = [name for name in among if name not in likely]
    if not others:
        return {name: 1 / len(among) for name in among}
    return {name: SURE / len(likely) if name in likely else (1 - SURE) / len(others) for name in among}
