"""The model that the concept pages compute with: two blocks, two heads, a width of 4, and a vocabulary of six words.

Its weights are random and its numbers few enough to print. Each page that shows some takes the model from here, so that
they are the same numbers on every page.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmlab.core.settings import ModelSettings
from llmlab.gpt.model import GPT, Block

WORDS = ("the", "cat", "sat", "on", "mat", ".")
IDS = torch.tensor([[0, 1, 2, 3, 0]])  # the cat sat on the
TARGETS = torch.tensor([[1, 2, 3, 0, 4]])  # cat sat on the mat


def toy_model(seed: int = 0) -> GPT:
    """It begins as GPT-2 does, with weights twenty times as large: so each part visibly does something."""
    torch.manual_seed(seed)
    toy = GPT(ModelSettings(n_layer=2, n_head=2, n_embd=4, block_size=5, bias=False), vocab_size=len(WORDS))
    for weight in toy.parameters():
        weight.data *= 20 if weight.dim() == 2 else 1
    return toy


def added(toy: GPT, ids: Tensor = IDS) -> dict[str, Tensor]:
    """What each part adds to the stream at the last position, [C] each; their sum is the stream at its end."""
    x = toy.token_embedding(ids) + toy.position_embedding.weight  # [1, 5, C]
    parts = {"embeddings": x}
    for layer, block in enumerate(toy.blocks):
        assert isinstance(block, Block)
        parts[f"attention {layer}"] = block.attention(block.attention_norm(x))
        x = x + parts[f"attention {layer}"]
        parts[f"feed-forward {layer}"] = block.feed_forward(block.feed_forward_norm(x))
        x = x + parts[f"feed-forward {layer}"]
    return {name: part[0, -1].detach() for name, part in parts.items()}


def show(what: str, numbers: Tensor) -> None:
    """Prints a row of numbers, with two digits each."""
    print(f"{what:14}", *(f"{number:5.2f}" for number in numbers.tolist()))
