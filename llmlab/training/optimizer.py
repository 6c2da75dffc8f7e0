"""AdamW with two groups: matrices decay, vectors do not."""

from __future__ import annotations

import torch
from torch import nn

from llmlab.core.settings import TrainSettings


def make_optimizer(model: nn.Module, train: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over all parameters, fused into one kernel where the device has it.

    Weight decay pulls matrices (embeddings, linear layers) towards zero; biases and norm weights are left alone,
    since they set scales rather than mix features.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda", "mps") for parameter in parameters)
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=(train.beta1, train.beta2), fused=fused)
