"""The learning rate at each step, and at which losses are measured: pure functions of step and settings.

So a resume needs no state.
"""

from __future__ import annotations

import math
from dataclasses import replace

from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import PretrainTrainSettings

# 10, 30, 100 ... as far as steps can be set.
_EARLY = tuple(digit * 10**power for power in range(1, 10) for digit in (1, 3))


def learning_rate(step: int, train: TrainSettings) -> float:
    """Learning rate of the optimizer step that follows `step` finished ones (0 <= step < train.steps).

    Warm-up: lr * (step + 1) / (warmup_steps + 1), so that the first step already moves. Then, with s going from
    0 to 1 over the rest of the run:

        constant  lr
        linear    lr + (min_lr - lr) s
        cosine    min_lr + (lr - min_lr) (1 + cos(pi s)) / 2       (Loshchilov & Hutter 2017, equation 5)
        wsd       lr, and a linear decay to min_lr over the last `decay_fraction` of all steps (Hu et al. 2024)
    """
    peak, low = train.learning_rate, train.min_learning_rate
    if step < train.warmup_steps:
        return peak * (step + 1) / (train.warmup_steps + 1)
    if train.schedule == "constant":
        return peak
    begin, end = train.warmup_steps, train.steps
    if train.schedule == "wsd":
        begin = max(begin, round(train.steps * (1 - train.decay_fraction)))
    share = min(1.0, max(0.0, (step - begin) / max(1, end - begin)))
    if train.schedule == "cosine":
        return low + (peak - low) * (1 + math.cos(math.pi * share)) / 2
    return peak + (low - peak) * share


def muon_learning_rate(step: int, train: PretrainTrainSettings) -> float:
    """Muon's: the same course from its own peak, ending at the same share of it."""
    share = train.min_learning_rate / train.learning_rate if train.learning_rate else 0.0
    peak = train.muon_learning_rate
    return learning_rate(step, replace(train, learning_rate=peak, min_learning_rate=peak * share))


def early_evaluations(train: TrainSettings) -> list[int]:
    """Steps below the first interval after which both losses are measured too: 10, 30, 100, 300 ...

    So the validation line is no single stroke through the first fall. An evaluation draws no random number, and early
    stopping passes over these: training is the same with more of them, and as long.
    """
    end = min(train.eval_interval, train.steps) if train.eval_early else 0
    return [step for step in _EARLY if step < end]


def evaluates(step: int, train: TrainSettings) -> bool:
    """Whether both losses are measured after `step` steps: every interval, at the last step, and early."""
    if not train.eval_interval:
        return False
    return step % train.eval_interval == 0 or step == train.steps or step in early_evaluations(train)
