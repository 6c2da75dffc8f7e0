"""Sizes in a model's settings, by whichever name its family has for them. No torch.

Settings are transformers' configuration object, or what config.json or a GGUF header holds as a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the usual names, those of GPT-2 and its kin, GPT-Neo, BLOOM, MPT, RWKV and decoders of speech (transformers,
# models/<family>/configuration_<family>.py).
NAMES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "intermediate_size": ("intermediate_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "context_length",
        "max_target_positions",
    ),
}
# Where the model itself has no limit: the length of BLOOM's training.
LONGEST_PROMPT = 2048


def found_name(settings: Any, size: str) -> str | None:
    """The name under which the settings hold a size of `NAMES`; None where they do not."""
    read = settings.get if isinstance(settings, Mapping) else lambda name: getattr(settings, name, None)
    return next((name for name in NAMES[size] if read(name) is not None), None)


def size_of(settings: Any, size: str) -> int:
    """A size of `NAMES`; 0 where the settings do not have it, or have a list (one for each layer)."""
    name = found_name(settings, size)
    value = None if name is None else settings[name] if isinstance(settings, Mapping) else getattr(settings, name)
    return value if isinstance(value, int) else 0


def context_limit(settings: Any) -> int | None:
    """How many tokens the model can read at once: it has no more positions, or was built for no more.

    None where nothing limits it: ALiBi as BLOOM has it, and state-space models. An OPT's table of positions has two
    rows more than that, which stand for padding.
    """
    return size_of(settings, "max_position_embeddings") or None


def context_length(settings: Any) -> int:
    """The longest prompt and the longest row of training: the model's limit, where it has one."""
    return context_limit(settings) or LONGEST_PROMPT
