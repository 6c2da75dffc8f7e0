"""A model of the same shape that never learned: its family's own initialisation, from a seed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from llmlab.anatomy.modules import base_model
from llmlab.core.memory import require_memory
from llmlab.gpt.model import GPT


def untrained_like(model: nn.Module, seed: int) -> nn.Module:
    """A fresh model with the settings of `model`, in fp32 and eval mode; `model` and torch's own draws are untouched.

    Equal seeds give equal weights. LabError when a second one does not fit into memory beside the first.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    require_memory(4 * weights, "A model of its shape with random weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, GPT):
            return type(model)(model.settings, model.vocab_size).eval()
        plain: Any = base_model(model)  # an adapter has nothing to do with the shape
        fresh: nn.Module = type(plain)(copy.deepcopy(plain.config))  # transformers draws weights as the family does
    return fresh.float().eval()
