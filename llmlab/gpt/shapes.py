"""Sizes that follow from the model's settings: for the model itself and for estimates made without torch."""

from __future__ import annotations

from llmlab.core.settings import ModelSettings

# The loss at the vocabulary (llmlab/gpt/head.py). Fewer logits than this (16 MB in fp32) are cheap to hold, and the
# plain way is as fast.
FEW_LOGITS = 4 * 1024 * 1024
# Rows of logits held at once: fewer make thin, slow matrix products (384 are 4-5 % slower than 512 on two cores, at
# widths 128 and 384), each costs 0.2 MB. A constant and not a measurement at start: it decides the order in which
# sums are rounded, and a run must be repeatable bit for bit.
CHUNK_ROWS = 512
# Tokens from which on attention is faster in bf16 than in fp32 on a processor with AMX, both passes together: at 64 it
# takes 1.5 to 4.7 times as long, at 256 1.4 times, at 512 0.8 to 1.1 times (heads of 64 and of 32).
HALF_ATTENTION = 384


def padded_vocab_size(model: ModelSettings, vocab_size: int) -> int:
    """Rows of the token embedding: vocab_size rounded up to a multiple of `vocab_multiple`."""
    return -(-vocab_size // model.vocab_multiple) * model.vocab_multiple


def width_ratio(model: ModelSettings) -> float:
    """How many times as wide as the model whose learning rate it uses (muP); 1 where `mup_base_width` is off."""
    return model.n_embd / (model.mup_base_width or model.n_embd)


def feed_forward_dim(model: ModelSettings) -> int:
    """Hidden width: 4C; for SwiGLU 8C/3, rounded up to a multiple of 8, since it has three matrices."""
    if model.activation != "swiglu":
        return 4 * model.n_embd
    return -(-8 * model.n_embd // (3 * 8)) * 8


def parameter_count(model: ModelSettings, vocab_size: int) -> int:
    """Parameters of `GPT(model, vocab_size)`; the tied head counts once."""
    blocks = model.n_layer * _block_parameters(model)
    value_mixes = model.n_layer - 1 if model.value_residual else 0
    return embedding_parameters(model, vocab_size) + blocks + value_mixes + _norm_parameters(model)


def block_layers(model: ModelSettings) -> list[tuple[bool, int, int]]:
    """The linear layers of a block, in order: (whether it belongs to attention, width in, width out)."""
    n_embd, hidden = model.n_embd, feed_forward_dim(model)
    kv_dim = (model.n_kv_head or model.n_head) * (n_embd // model.n_head)
    gate = [(False, n_embd, hidden)] if model.activation == "swiglu" else []
    attention = [(True, n_embd, n_embd + 2 * kv_dim), (True, n_embd, n_embd)]
    return [*attention, (False, n_embd, hidden), *gate, (False, hidden, n_embd)]


def embedding_parameters(model: ModelSettings, vocab_size: int) -> int:
    """Parameters of the token embedding, of the head where it has its own, and of positions where they are learned."""
    positions = model.block_size if model.position == "learned" else 0
    matrices = 2 if model.untied_head else 1
    return (matrices * padded_vocab_size(model, vocab_size) + positions) * model.n_embd


def _block_parameters(model: ModelSettings) -> int:
    layers = block_layers(model)
    linear = sum(width_in * width_out for _, width_in, width_out in layers)
    biases = sum(width_out for _, _, width_out in layers)
    head_norms = 2 * (model.n_embd // model.n_head) if model.qk_norm else 0
    return linear + (biases if model.bias else 0) + 2 * _norm_parameters(model) + head_norms


def _norm_parameters(model: ModelSettings) -> int:
    return model.n_embd * (2 if model.bias and model.norm == "layernorm" else 1)
