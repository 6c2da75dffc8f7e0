"""The reference solver: it knows each fault's tell-tale and nothing else.

A tell-tale is a reading, held against a healthy run of the same seed, and a bound. The bounds stand between what the
two kinds of runs showed in tests/benchmarks/mystery_tells.py. A learner is measured against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.mystery_settings import MysterySettings
from llmlab.data.dataset import Dataset
from llmlab.mysteries.faults import NOTHING
from llmlab.mysteries.readings import Measures
from llmlab.store.history import RunHistory, read_history
from llmlab.store.run_folder import RunFolder

# What the solver gives to the causes whose tell-tale shows, together; or to nothing, where none does.
SURE = 0.9


# Steps whose loss is averaged into the first and the last reading of a curve's level.
_LEVEL_STEPS = 50
# Around each step, over which a curve's course is taken away to leave its bumps.
_COURSE_STEPS = 15
# Before it, curves fall too fast for their bumps to be compared.
_SETTLED_STEP = 100


@dataclass(frozen=True)
class Curves:
    """Of the run's events. Losses in nats.

    first: validation loss at step 0 above ln V. early: validation loss after ten steps. train, val: measured at the
    end. steps: mean loss of the last steps. gradient: median norm of the second half; jump: the largest norm after
    warm-up over that median. again: how alike the bumps of the step loss are an epoch apart, a correlation.
    pairs: share of the pairs of characters in the last samples that stand in the training text, too.
    """

    first: float
    early: float
    train: float
    val: float
    steps: float
    gradient: float
    jump: float
    again: float
    pairs: float


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


def curves_of(run: RunFolder, data: Dataset) -> Curves:
    """Of a run that has ended. LabError for one that has measured nothing."""
    history, settings = read_history(run), run.info().settings_as(MysterySettings)
    losses, norms = history.step_columns["loss"], history.step_columns["grad_norm"]
    measured = {int(event.step): event for event in history.evaluated}
    if len(losses) < 2 or not measured or history.started is None:
        raise LabError(f"{run.id} has not come far enough.", "", "Wait until it has ended, or resume it.")
    second_half = float(np.median(norms[len(norms) // 2 :]))
    after = min(settings.train.warmup_steps, len(norms) - 1)
    sequences = 1 + (len(data.train) - settings.model.block_size - 1) // settings.model.block_size
    last = measured[max(measured)]
    return Curves(
        first=measured[min(measured)].val_loss - math.log(data.tokenizer.vocab_size),
        early=measured[min(measured, key=lambda step: abs(step - 10))].val_loss,
        train=last.train_loss,
        val=last.val_loss,
        steps=float(losses[-_LEVEL_STEPS:].mean()),
        gradient=second_half,
        jump=float(np.max(norms[after:])) / second_half,
        again=_again(losses, max(1, sequences // settings.data.batch_size)),
        pairs=_known_pairs(history, data),
    )


def _again(losses: np.ndarray, epoch: int) -> float:
    if len(losses) < _SETTLED_STEP + 2 * epoch:
        return 0.0
    window = np.ones(2 * _COURSE_STEPS + 1)
    course = np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
    bumps = (losses - course)[_SETTLED_STEP:]
    return float(np.corrcoef(bumps[:-epoch], bumps[epoch:])[0, 1])


def _known_pairs(history: RunHistory, data: Dataset) -> float:
    """1 where nothing was sampled."""
    text = data.tokenizer.decode(np.asarray(data.train).tolist())
    known = set(pairwise(text))
    samples = history.samples[-1].samples if history.samples else []
    written = [pair for sample in samples for pair in pairwise(sample["text"])]
    return sum(pair in known for pair in written) / len(written) if written else 1.0
