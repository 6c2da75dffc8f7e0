"""Fine-tuning with the learner's LoRA layer in place of the lab's own, or of PEFT's: this process runs their code.

The adapter has the names and the shapes that it has without, so that every panel opens what was fine-tuned with the
lab's own arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.modules import linear_numbers
from llmlab.core.rebuilt_settings import RetunedSettings
from llmlab.exercises.functions import Functions, require_shape
from llmlab.exercises.rebuilt_run import load_pieces
from llmlab.training.finetuning.loop import Finetuner
from llmlab.training.workplace import Workplace


class Retuner(Finetuner):
    """As `Finetuner`, with the piece that lies in the run's folder."""

    settings: RetunedSettings

    def __init__(self, place: Workplace, settings: RetunedSettings) -> None:
        functions = load_pieces(place.run, settings.pieces.yours)
        super().__init__(place, settings)
        put_lora_in(self.model, settings.lora.alpha, settings.train.seed, functions)


@torch.no_grad()
def put_lora_in(model: nn.Module, alpha: float, seed: int, functions: Functions) -> None:
    """Has the learner's `start` draw each adapter of a model anew, in the model's order and from torch's global
    generator, and their `lora` compute it. LabError for factors of another shape."""
    torch.manual_seed(seed)
    for layer in [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")]:
        factors = _factors(layer)
        (rank, width_in), width_out = factors[0].shape, factors[1].shape[0]
        for factor, first in zip(factors, functions["start"](width_in, width_out, rank), strict=True):
            require_shape(first, tuple(factor.shape), "lora")
            factor.copy_(first)
        own = {"functions": functions, "alpha": alpha}
        layer.__class__ = type(f"Rebuilt{type(layer).__name__}", (_Lora, type(layer)), own)


class _Lora:
    """Goes before a layer with an adapter, the lab's or PEFT's: `base_layer` is the frozen one."""

    functions: Functions
    alpha: float

    def forward(self: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
        frozen, factors = linear_numbers(self.base_layer), _factors(self)
        made: Tensor = self.functions["lora"](x, frozen.weight, *factors, self.alpha)
        require_shape(made, (*x.shape[:-1], frozen.weight.shape[0]), "lora")
        return made if frozen.bias is None else made + frozen.bias.to(made)


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank]; PEFT's layers have them by the adapter's name."""
    a, b = layer.lora_A, layer.lora_B
    return (a if isinstance(a, nn.Linear) else a["default"]).weight, (
        b if isinstance(b, nn.Linear) else b["default"]
    ).weight
