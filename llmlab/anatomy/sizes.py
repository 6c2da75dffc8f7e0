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


def wrong_size(settings: Mapping[str, Any], *, only_whole: bool = False, must_divide: bool = False) -> str:
    """What is wrong with the sizes in a model's settings, in a sentence; empty where nothing is.

    only_whole: of what is not a whole number nothing is said, since some families have lists there. must_divide: heads
    have to divide the width, though they have a width of their own.
    """
    found: dict[str, int] = {}
    for size in NAMES:
        if (key := found_name(settings, size)) is None:
            continue
        value = settings[key]
        if type(value) is not int:
            if only_whole:
                continue
            return f"Its config.json says {key} = {value!r:.60}, which is not a whole number."
        if not 1 <= value < 1 << 31:
            return f"Its config.json says {key} = {value:,}, which no model has."
        found[size] = value
    width, heads, kv_heads = (
        found.get(name, 0) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    if only_whole or not heads:
        return ""
    if width % heads and ("head_dim" not in found or must_divide):
        return f"Its config.json says hidden_size {width} in {heads} heads, which do not divide it."
    if kv_heads and heads % kv_heads:
        return f"Its config.json says {heads} heads that share {kv_heads} keys and values, which do not divide them."
    return ""


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
