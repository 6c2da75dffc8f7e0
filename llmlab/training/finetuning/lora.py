"""LoRA, written to be read: a frozen linear layer learns through two small matrices beside it.

    y = W x + (alpha / rank) B A dropout(x)        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"

W [out, in] stays as it is. A [rank, in] looks for `rank` directions in the input, B [out, rank] says what each of them
adds to the output: rank * (in + out) numbers learn instead of in * out. B begins at zero, so that the model begins as
it was. When training is over, W + (alpha / rank) B A is one matrix again, and the model as fast as before.

Names are PEFT's (`...lora_A.weight`), and so are the numbers: its layers give the same outputs and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """A linear layer with an adapter. base_layer: [..., in] -> [..., out], frozen."""

    def __init__(self, base_layer: nn.Module, size: tuple[int, int], rank: int, alpha: float, dropout: float) -> None:
        """size: (in, out). A is drawn from torch's global generator."""
        super().__init__()
        width_in, width_out = size
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.Linear(width_in, rank, bias=False)
        self.lora_B = nn.Linear(rank, width_out, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scaling = alpha / rank
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # within 1 / sqrt(in), as nn.Linear's own
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        learned: Tensor = self.lora_B(self.lora_A(self.dropout(x))) * self.scaling
        frozen: Tensor = self.base_layer(x)
        return frozen + learned

    def change(self) -> Tensor:
        """What the adapter adds to W: (alpha / rank) B A, [out, in]."""
        return self.lora_B.weight @ self.lora_A.weight * self.scaling


def insert(model: nn.Module, rank: int, alpha: float, dropout: float, targets: Collection[str]) -> None:
    """Freezes `model` and puts an adapter beside each linear layer named in `targets`, a module's full name each."""
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        adapted = LoraLinear(layer, (layer.in_features, layer.out_features), rank, alpha, dropout)
        model.set_submodule(name, adapted.to(next(layer.parameters()).device))


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Turns each adapter and its layer into one plain linear layer, W + (alpha / rank) B A, in place."""
    adapted = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLinear)]
    for name, layer in adapted:
        assert isinstance(layer.base_layer, nn.Linear)
        layer.base_layer.weight += layer.change()
        model.set_submodule(name, layer.base_layer)
