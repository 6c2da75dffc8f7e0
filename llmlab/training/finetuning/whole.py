"""A model that is held in parts, whole again: to write with, and to look into."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llmlab.training.finetuning.quantise import is_quantised


def hollow(model: nn.Module) -> nn.Module:
    """A copy in main memory whose parameters have shapes and no numbers; `filled` gives them some."""
    empty = {id(p): torch.empty(p.shape, dtype=p.dtype, device="meta") for p in model.parameters()}
    copied = copy.deepcopy(model, {id(p): nn.Parameter(empty[id(p)], p.requires_grad) for p in model.parameters()})
    for module in copied.modules():
        if is_quantised(module):
            module.quant_state.to("cpu")  # its scales are no parameters
    return copied


def filled(hollow: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a hollow model with these numbers, whose names it has; a parameter of two names stays one."""
    learning = {id(p): nn.Parameter(parameters[name], p.requires_grad) for name, p in hollow.named_parameters()}
    model = copy.deepcopy(hollow, learning)
    return model.cpu()
