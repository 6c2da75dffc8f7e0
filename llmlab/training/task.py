"""Training on a task, before its steps (`llmlab.training.task_run` takes them). No torch until it is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.core.processes import available_cores
from llmlab.core.setting_info import SettingInfo
from llmlab.core.task_settings import HMM, LSTM, MLP_PREFIX, TRANSFORMER, TaskSettings
from llmlab.gpt.estimate import FLOPS_PER_CORE, LAYER_SECONDS, REACHED, STEP_SECONDS
from llmlab.training.kinds import TrainingKind, steps_and_evaluations

if TYPE_CHECKING:
    from llmlab.training.task_run import TaskRun
    from llmlab.training.workplace import Workplace

# A worker's start: interpreter, torch, measuring the device (processor time on two cores).
_START_SECONDS = 5.0
# FLOP a weight and token of a step: 2 forward, 4 backward (Kaplan et al. 2020, section 2.1).
_STEP_FLOPS = 6
# Weights of a layer in widths squared: attention's 4 and the feed-forward's 8; an LSTM's four gates, twice.
_ATTENTION_WEIGHTS, _FEED_FORWARD_WEIGHTS, _LSTM_WEIGHTS = 4, 8, 8
_HIDDEN = 4  # widths of an MLP's hidden layers
# A transformer's token besides its products, mostly softmax, norms and activations: 2 us, measured. The other models
# have little of it; drawing a token and its posterior takes 0.1 to 0.4 us.
_TOKEN_SECONDS = 2e-6


class OnTask(TrainingKind[TaskSettings]):
    """A small model, and sequences whose exact posterior is known."""

    def fits(self, changed: SettingInfo, settings: TaskSettings) -> bool:
        return changed.section not in ("model", "data")

    def seconds(self, settings: TaskSettings, outputs: Path) -> float:
        return task_seconds(settings)

    def make(self, place: Workplace, settings: TaskSettings) -> TaskRun:
        from llmlab.training.task_run import TaskRun

        return TaskRun(place, settings)


def task_seconds(settings: TaskSettings) -> float:
    """All of a run: start, steps and measurements."""
    return _START_SECONDS + step_seconds(settings) * steps_and_evaluations(settings)


def step_seconds(settings: TaskSettings) -> float:
    """Of a step, on this machine's cores."""
    model, data, train = settings.model, settings.data, settings.train
    tokens = data.batch_size * settings.time * train.grad_accum
    cores = min(train.threads or available_cores(), available_cores())
    step = _STEP_FLOPS * _products(settings) * train.grad_accum / (FLOPS_PER_CORE * cores * REACHED)
    step += STEP_SECONDS
    if model.kind == TRANSFORMER:
        step += model.n_layer * LAYER_SECONDS + _TOKEN_SECONDS * tokens
    return step


def _products(settings: TaskSettings) -> float:
    """Weights that a batch is multiplied by, each as often as it is."""
    model, data = settings.model, settings.data
    n_embd, tokens = model.n_embd, data.batch_size * settings.time
    if model.kind in (TRANSFORMER, LSTM):
        transformer = _ATTENTION_WEIGHTS + _FEED_FORWARD_WEIGHTS * model.feed_forward
        weights = transformer if model.kind == TRANSFORMER else _LSTM_WEIGHTS
        return float(tokens * model.n_layer * weights * n_embd**2)
    positions = data.length if data.task == HMM else data.pairs  # an MLP works at these alone
    first = settings.time if model.kind == MLP_PREFIX else 1
    weights = _HIDDEN * n_embd**2 * (first + (model.n_layer - 1) * _HIDDEN)
    return float(data.batch_size * positions * weights)
