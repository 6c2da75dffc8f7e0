"""How long a run on a task will take on this machine's processor, from its settings alone. No torch."""

from __future__ import annotations

import os

from llmlab.gpt.estimate import FLOPS_PER_CORE, LAYER_SECONDS, REACHED, STEP_SECONDS
from llmlab.papers.settings import MLP_PREFIX, TRANSFORMER, TaskSettings

# A worker's start: interpreter, torch, measuring the device (processor time on two cores).
_START_SECONDS = 5.0
# FLOP a weight and token of a step: 2 forward, 4 backward (Kaplan et al. 2020, section 2.1).
_STEP_FLOPS = 6
# Weights of a layer in widths squared: attention's 4 and the feed-forward's 8; an LSTM's four gates, twice.
_TRANSFORMER_WEIGHTS, _OTHER_WEIGHTS = 12, 8
# Of what a step needs, besides the model: drawing the sequences and their posteriors (2 us a token, measured).
_DATA_SECONDS = 2e-6


def task_seconds(settings: TaskSettings) -> float:
    """All of a run: start, steps and measurements."""
    model, data, train = settings.model, settings.data, settings.train
    width = model.n_embd
    weights = model.n_layer * width**2 * (_TRANSFORMER_WEIGHTS if model.kind == TRANSFORMER else _OTHER_WEIGHTS)
    if model.kind == MLP_PREFIX:
        weights += settings.time * 4 * width**2
    tokens = data.batch_size * settings.time * train.grad_accum
    cores = train.threads or os.cpu_count() or 1
    step = _STEP_FLOPS * weights * tokens / (FLOPS_PER_CORE * cores * REACHED)
    step += STEP_SECONDS + model.n_layer * LAYER_SECONDS + _DATA_SECONDS * tokens
    evaluations = 1 + -(-train.steps // train.eval_interval) if train.eval_interval else 0
    sequences = 2 * evaluations * train.eval_windows  # both splits; a forward pass is a third of a step
    return _START_SECONDS + step * (train.steps + sequences / (data.batch_size * train.grad_accum) / 3)
