"""A model that is held in parts, whole again: to write with, and to look into."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def hollow(model: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes and no numbers; `filled` gives them some."""
    empty = {id(p): torch.empty(p.shape, dtype=p.dtype, device="meta") for p in model.parameters()}
    return copy.deepcopy(model, {id(p): nn.Parameter(empty[id(p)], p.requires_grad) for p in model.parameters()})


def filled(hollow: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a hollow model with these numbers, whose names it has; a parameter of two names stays one."""
    learning = {id(p): nn.Parameter(parameters[name], p.requires_grad) for name, p in hollow.named_parameters()}
    model = copy.deepcopy(hollow, learning)
    return model.cpu()
