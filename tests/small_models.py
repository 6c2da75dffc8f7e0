"""Small GPTs of every kind, with weights large enough that each of them matters to the logits."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from llmlab.core.settings import ModelSettings
from llmlab.gpt.model import GPT

VOCAB = 31
# Every option against every other: heads are full (0), grouped (2 of 4), and one for all (1). Then each of the newer
# ones alone, in GPT-2 and in Llama's parts.
COMBINATIONS: list[dict[str, Any]] = [
    {"norm": norm, "position": position, "activation": activation, "bias": bias, "n_kv_head": heads}
    for norm, position, activation, bias, heads in product(
        ("layernorm", "rmsnorm"), ("learned", "rotary"), ("gelu", "swiglu"), (True, False), (0, 1, 2)
    )
]
_LLAMA = {"norm": "rmsnorm", "position": "rotary", "activation": "swiglu", "bias": False, "n_kv_head": 2}
_NEWER: list[dict[str, Any]] = [
    {"qk_norm": True},
    {"activation": "relu2"},
    {"untied_head": True},
    {"logit_softcap": 3.0},
    {"mup_base_width": 8},
    {"value_residual": True},
]
COMBINATIONS += [plain | newer for newer in _NEWER for plain in ({"bias": True}, _LLAMA)]
# Each choice with each other one in some of them, and all of the newer ones.
SOME_COMBINATIONS = [*COMBINATIONS[:48:5], *COMBINATIONS[48:]]


def shape(**changes: Any) -> ModelSettings:
    """Two layers of width 32 with four heads, over 12 tokens."""
    return ModelSettings(**({"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 12} | changes))


def lively(settings: ModelSettings, vocab_size: int = VOCAB, seed: int = 0) -> GPT:
    """A model in eval mode whose biases and norms are not the identities that they begin as."""
    torch.manual_seed(seed)
    model = GPT(settings, vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def some_ids(*size: int, seed: int = 1, vocab_size: int = VOCAB) -> torch.Tensor:
    """Random token ids of that size."""
    return torch.randint(vocab_size, size, generator=torch.Generator().manual_seed(seed))
