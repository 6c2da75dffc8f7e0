"""A tiny random model of each family of transformers, in fp32, in which everything matters.

Norm weights and biases are far from the identities that they begin as, heads are grouped where the family can,
layers attend in different ways where it can: a missing gamma, bias or multiplier shows in the third digit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.finding import anatomy_of

VOCAB = 43
TIME = 12
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": VOCAB}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_ALIKE = {**_LLAMA, "num_key_value_heads": 4}  # as many key-value heads as heads
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_KINDS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 4}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
_DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_FALCON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_hidden_size": 64}


@dataclass(frozen=True)
class Kind:
    """One family in one setting. model_type: transformers' name; windows: layers that slide, and how far they see."""

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    windows: tuple[int | None, ...] = (None, None, None)


_SLIDING = (4, None, 4)
KINDS: dict[str, Kind] = {
    "llama": Kind("llama", _LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "llama tied": Kind("llama", _LLAMA | {"tie_word_embeddings": True, "head_dim": 10}),
    "mistral": Kind("mistral", _LLAMA | {"sliding_window": 4, "head_dim": 16}, (4, 4, 4)),
    "ministral": Kind("ministral", _LLAMA | _KINDS | {"head_dim": 8}, _SLIDING),
    "qwen2": Kind("qwen2", _LLAMA | {"use_sliding_window": True} | _KINDS, _SLIDING),
    "qwen3": Kind("qwen3", _LLAMA | {"head_dim": 16}),
    "gemma": Kind("gemma", _LLAMA | {"head_dim": 16}),
    "phi3": Kind("phi3", _LLAMA | {"sliding_window": 4}, (4, 4, 4)),
    "olmo": Kind("olmo", _LLAMA | {"clip_qkv": 0.9}),
    "smollm3": Kind("smollm3", _LLAMA | {"no_rope_layers": [1, 0, 1]}),
    "helium": Kind("helium", _LLAMA | {"head_dim": 8}),
    "nemotron": Kind("nemotron", _LLAMA | {"head_dim": 8, "attention_bias": True, "mlp_bias": True}),
    "starcoder2": Kind("starcoder2", _LLAMA | {"sliding_window": 4, "use_bias": True}, (4, 4, 4)),
    "gpt2": Kind("gpt2", _GPT2 | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neo": Kind(
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["local", "global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
        _SLIDING,
    ),
    "opt": Kind(
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
    ),
    "mixtral": Kind("mixtral", _LLAMA | _EXPERTS),
    "qwen2_moe": Kind(
        "qwen2_moe",
        _LLAMA
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe": Kind(
        "qwen3_moe",
        _LLAMA
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "mlp_only_layers": [1],
            "head_dim": 16,
        },
    ),
    "olmoe": Kind("olmoe", _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": Kind("deepseek_v2", _ALIKE | _LATENT | _DEEPSEEK | {"topk_method": "greedy"}),
    "deepseek_v3": Kind("deepseek_v3", _ALIKE | _LATENT | _DEEPSEEK),
    "phimoe": Kind("phimoe", _LLAMA | _EXPERTS | {"attention_bias": True, "lm_head_bias": True}),
    "gpt_oss": Kind("gpt_oss", _LLAMA | _EXPERTS | _KINDS | {"head_dim": 8}, _SLIDING),
    "gptj": Kind("gptj", _GPT2 | {"rotary_dim": 4}),
    "codegen": Kind("codegen", _GPT2 | {"rotary_dim": 4}),
    "phi": Kind("phi", _LLAMA | {"qk_layernorm": True}),
    "cohere": Kind("cohere", _LLAMA | {"logit_scale": 0.3, "use_qk_norm": True}),
    "cohere2": Kind("cohere2", _LLAMA | _KINDS | {"logit_scale": 0.3}, _SLIDING),
    "gpt_neox parallel": Kind("gpt_neox", _ALIKE | {"use_parallel_residual": True}),
    "gpt_neox sequential": Kind("gpt_neox", _ALIKE | {"use_parallel_residual": False}),
    "stablelm parallel": Kind("stablelm", _LLAMA | {"use_parallel_residual": True, "use_qkv_bias": True}),
    "stablelm sequential": Kind("stablelm", _LLAMA | {"use_parallel_residual": False, "qk_layernorm": True}),
    "falcon old": Kind("falcon", _FALCON | {"multi_query": True, "parallel_attn": True, "bias": True}),
    "falcon sequential": Kind(
        "falcon", _FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True}
    ),
    "falcon new": Kind("falcon", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "gemma2": Kind(
        "gemma2",
        _LLAMA
        | _KINDS
        | {"head_dim": 16, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 9},
        _SLIDING,
    ),
    "gemma3": Kind("gemma3_text", _LLAMA | _KINDS | {"head_dim": 16, "query_pre_attn_scalar": 9}, _SLIDING),
    "glm4": Kind("glm4", _LLAMA | {"head_dim": 8, "attention_bias": True}),
    "olmo2": Kind("olmo2", _LLAMA),
    "olmo3": Kind("olmo3", _LLAMA | _KINDS, _SLIDING),
    "exaone4": Kind("exaone4", _LLAMA | _KINDS, _SLIDING),
    "granite": Kind(
        "granite",
        _LLAMA
        | {
            "residual_multiplier": 0.6,
            "logits_scaling": 3.0,
            "attention_multiplier": 0.2,
            "embedding_multiplier": 4.0,
            "attention_bias": True,
        },
    ),
    "granitemoe": Kind(
        "granitemoe",
        _LLAMA
        | _EXPERTS
        | {"residual_multiplier": 0.6, "logits_scaling": 3.0, "attention_multiplier": 0.2, "embedding_multiplier": 4.0},
    ),
    "minicpm3": Kind("minicpm3", _ALIKE | _LATENT | {"scale_depth": 1.4, "dim_model_base": 8}),
    "bloom": Kind("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mpt": Kind("mpt", {"d_model": 32, "n_layers": 3, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64}),
    "qwen3_next": Kind(
        "qwen3_next",
        _LLAMA
        | {
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [1],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "qwen3_5": Kind(
        "qwen3_5_text",
        _LLAMA
        | {
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "lfm2": Kind(
        "lfm2", _LLAMA | {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}
    ),
}


def new_model(model_type: str, settings: dict[str, Any], seed: int = 0) -> nn.Module:
    """A tiny model of any kind, in eval mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **(_TOKENS | settings))
    return enliven(AutoModelForCausalLM.from_config(config, dtype=torch.float32), seed)


@torch.no_grad()
def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Moves every parameter, norm weights and biases most, so that each of them matters to the logits."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        strength = 0.3 if parameter.dim() == 1 else 0.15
        parameter.add_(torch.randn(parameter.shape, generator=random) * strength)
    return model.eval()


@functools.cache
def family_model(name: str) -> nn.Module:
    """The model of a `KINDS` entry; tests share it and must leave it as it was."""
    kind = KINDS[name]
    return new_model(kind.model_type, kind.settings)


@functools.cache
def family_anatomy(name: str) -> Anatomy:
    """What the lab knows of that model, probed once."""
    return anatomy_of(family_model(name))


def some_ids(seed: int = 1, time: int = TIME) -> Tensor:
    """Random tokens [T]."""
    return torch.randint(3, VOCAB, (time,), generator=torch.Generator().manual_seed(seed))
