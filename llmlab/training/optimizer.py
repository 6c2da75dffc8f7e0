"""AdamW with two groups: matrices decay, vectors do not. Muon, if asked for, takes the matrices inside the blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import PretrainTrainSettings
from llmlab.gpt.model import GPT
from llmlab.gpt.shapes import width_ratio
from llmlab.training.muon import Muon
from llmlab.training.plain_optimizer import AdamW, PlainOptimizer
from llmlab.training.schedule import learning_rate, muon_learning_rate


def make_optimizer(model: nn.Module, train: TrainSettings, without: Collection[torch.Tensor] = ()) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over all other parameters, fused into one kernel where the device has it.

    Weight decay pulls matrices (embeddings, linear layers) towards zero; biases and norm weights are left alone,
    since they set scales rather than mix features.
    """
    parameters = [p for p in model.parameters() if p.requires_grad and p not in without]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda", "mps") for parameter in parameters)
    return AdamW(groups, lr=train.learning_rate, betas=(train.beta1, train.beta2), fused=fused)


def make_pretraining_optimizer(model: GPT, train: PretrainTrainSettings) -> torch.optim.Optimizer:
    """The one that `train.optimizer` names.

    With muP, AdamW's rate for the matrices inside the blocks falls as the width grows: every weight moves by about the
    rate, whatever its gradient, and in a wider model more of them push an output the same way (Yang et al. 2022,
    table 8). Their decay, which is multiplied by the rate, grows instead (as microsoft/mup's MuAdamW). Muon's rate
    stays: its step is of one size as a map, as it must be at every width (Yang et al. 2023, "A Spectral Condition for
    Feature Learning").
    """
    ratio = width_ratio(model.settings)
    if train.optimizer == "adamw" and ratio == 1:
        return make_optimizer(model, train)
    whole: list[torch.Tensor] = []
    by_head: list[torch.Tensor] = []
    for name, parameter in model.blocks.named_parameters():
        if parameter.dim() == 2:
            (by_head if train.muon_heads and name.endswith("qkv.weight") else whole).append(parameter)
    adamw = make_optimizer(model, train, {*whole, *by_head})
    if train.optimizer == "adamw":
        hidden = {"params": [*whole, *by_head], "weight_decay": train.weight_decay * ratio, "rate_share": 1 / ratio}
        adamw.add_param_group(hidden)
        return adamw
    groups = [(whole, 0), (by_head, model.settings.n_embd // model.settings.n_head)]
    return MuonWithAdamW(Muon(groups, train.weight_decay, train.muon_iterations), adamw)


class MuonWithAdamW(PlainOptimizer):
    """Muon for matrices, AdamW for the rest: two optimizers that step, and are saved, as one.

    Queries, keys and values are one matrix here, and are treated as one, or head by head. An embedding maps no vectors,
    but is a row per token.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.AdamW) -> None:
        super().__init__([*muon.param_groups, *adamw.param_groups], {"fused": adamw.defaults["fused"]})
        self._parts = (muon, adamw)
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self._parts:
            part.step()


@torch.no_grad()
def average_weights(averaged: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """averaged <- d averaged + (1 - d) model, after step number `step`, counted from 1: an exponential moving average.

    It smooths the jumps of single batches as a decay of the learning rate does, and the training itself stays as it
    is (Polyak & Juditsky 1992). d = min(decay, (1 + step) / (10 + step)): early on it looks back over few steps, or
    the random weights of the beginning would stay in it for long (TensorFlow's ExponentialMovingAverage).
    """
    keep = min(decay, (1 + step) / (10 + step))
    for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - keep)


def is_muons(group: dict[str, Any]) -> bool:
    """Whether a parameter group is Muon's: AdamW's have two betas instead."""
    return "momentum" in group


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, train: TrainSettings) -> float:
    """Those of the optimizer step that follows `step` finished ones; returns AdamW's."""
    rate = learning_rate(step, train)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_share", 1.0)
        if is_muons(group) and isinstance(train, PretrainTrainSettings):
            group["lr"] = muon_learning_rate(step, train)
    return rate
