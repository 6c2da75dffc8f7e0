"""What the modules of the lab's GPT are called in transformers' GPT2LMHeadModel. No torch is needed."""

from __future__ import annotations

import re

# Ours -> theirs, inside one block. Their linear layers ("Conv1D") hold the transposed matrix.
BLOCK_NAMES = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_OUR_BLOCK, _THEIR_BLOCK = "blocks", "transformer.h"
_OUR_NAMES = {theirs: ours for ours, theirs in BLOCK_NAMES.items()}


def block_modules(layers: int) -> list[tuple[str, str]]:
    """(ours, theirs) of every module in the blocks, by full names."""
    return [
        (f"{_OUR_BLOCK}.{layer}.{ours}", f"{_THEIR_BLOCK}.{layer}.{theirs}")
        for layer in range(layers)
        for ours, theirs in BLOCK_NAMES.items()
    ]


def gpt2_name(module: str) -> str | None:
    """`blocks.3.attention.qkv` -> `transformer.h.3.attn.c_attn`; None for what is no module of our blocks."""
    return _renamed(module, _OUR_BLOCK, _THEIR_BLOCK, BLOCK_NAMES)


def own_name(module: str) -> str | None:
    """The other way around; None for what is no module of a GPT-2's blocks."""
    return _renamed(module, _THEIR_BLOCK, _OUR_BLOCK, _OUR_NAMES)


def _renamed(module: str, block: str, other_block: str, names: dict[str, str]) -> str | None:
    match = re.fullmatch(rf"{re.escape(block)}\.(?P<layer>\d+)\.(?P<part>.+)", module)
    part = names.get(match["part"]) if match else None
    return f"{other_block}.{match['layer']}.{part}" if match and part else None
