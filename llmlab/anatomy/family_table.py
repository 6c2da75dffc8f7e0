"""The families of transformers' decoders, as data: where the stream runs, how blocks are built, how logits are made.

Sources: `transformers/models/<family>/modeling_<family>.py`, the `forward` of each decoder layer and of each
`ForCausalLM`. Names decide nothing by themselves: `post_attention_layernorm` is the norm before the feed-forward in
Llama and GLM4, and the norm after attention in Gemma 2 and OLMo2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from llmlab.anatomy.layouts import (
    ByConfig,
    Hybrid,
    Layout,
    Parallel,
    Parts,
    ResidualInside,
    Sandwich,
    Scaled,
    Sequential,
    WithoutPattern,
)


@dataclass(frozen=True)
class Trunk:
    """Where the stream runs: the decoder inside the model, its list of blocks, and the norm after them."""

    decoder: str = "model"
    blocks: str = "layers"
    norm: str = "norm"


@dataclass(frozen=True)
class LogitScale:
    """What logits are multiplied with, or divided by, as a setting; none for most."""

    setting: str | None = None
    divides: bool = False

    def scale(self, config: Any) -> float:
        """The factor of one model."""
        if self.setting is None:
            return 1.0
        value = float(getattr(config, self.setting))
        return 1.0 / value if self.divides else value


@dataclass(frozen=True)
class Family:
    """One family. name: what people call it."""

    name: str
    layout: Layout = field(default_factory=Sequential)
    trunk: Trunk = field(default_factory=Trunk)
    logits: LogitScale = field(default_factory=LogitScale)


@dataclass(frozen=True)
class Refused:
    """Models that cannot be looked into at all: where a setting has a value; every model where none is named."""

    reason: str
    setting: str | None = None
    value: Any = None

    def holds(self, config: Any) -> bool:
        """Whether it is about this configuration."""
        return self.setting is None or getattr(config, self.setting, None) == self.value


_GPT2 = Parts("attn", "attn.c_proj", "mlp", "mlp.c_proj")
_GPTJ = Parts("attn", "attn.out_proj", "mlp", "mlp.fc_out")
_NEO = Parts("attn.attention", "attn.attention.out_proj", "mlp", "mlp.c_proj")
_NEOX = Parts("attention", "attention.dense", "mlp", "mlp.dense_4h_to_h")
_BLOOM = Parts("self_attention", "self_attention.dense", "mlp", "mlp.dense_4h_to_h")
_MPT = Parts("attn", "attn.out_proj", "ffn", "ffn.down_proj")
_PHI = Parts("self_attn", "self_attn.dense", "mlp", "mlp.fc2")
_STARCODER = Parts("self_attn", "self_attn.o_proj", "mlp", "mlp.c_proj")
_OPT = Parts("self_attn", "self_attn.out_proj", "fc2", "fc2")
_SPARSE = Parts(mlp="block_sparse_moe", down=None)
_LFM2 = Parts("self_attn", "self_attn.out_proj", "feed_forward", "feed_forward.w2")
_TRANSFORMER = Trunk("transformer", "h", "ln_f")
_OLMO2 = Sandwich(mid="mlp")
_MIXTRAL = Hybrid({"mlp": Sequential(), "block_sparse_moe": Sequential(_SPARSE)})  # its name before transformers 5
_QWEN_HYBRID = Hybrid(
    {"self_attn": Sequential(gated=True), "linear_attn": WithoutPattern(Sequential(Parts(attention="linear_attn")))}
)

FAMILIES: dict[str, Family] = {
    # Sequential: each half reads a normalised copy of the stream and adds its result.
    "llama": Family("Llama"),
    "mistral": Family("Mistral"),
    "ministral": Family("Ministral"),
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3"),
    "gemma": Family("Gemma"),
    "phi3": Family("Phi-3"),
    "olmo": Family("OLMo"),
    "smollm3": Family("SmolLM3"),
    "helium": Family("Helium"),
    "nemotron": Family("Nemotron"),
    "starcoder2": Family("StarCoder2", Sequential(_STARCODER)),
    "gpt2": Family("GPT-2", Sequential(_GPT2, "ln_2"), _TRANSFORMER),
    "gpt_neo": Family("GPT-Neo", Sequential(_NEO, "ln_2"), _TRANSFORMER),
    "opt": Family("OPT", Sequential(_OPT, "final_layer_norm"), Trunk("model.decoder", norm="final_layer_norm")),
    "mixtral": Family("Mixtral", _MIXTRAL),
    "qwen2_moe": Family("Qwen2-MoE"),
    "qwen3_moe": Family("Qwen3-MoE"),
    "olmoe": Family("OLMoE"),
    "deepseek_v2": Family("DeepSeek-V2"),
    "deepseek_v3": Family("DeepSeek-V3"),
    "phimoe": Family("Phi-MoE", _MIXTRAL),
    "gpt_oss": Family("gpt-oss"),
    # Parallel: both halves read the block's input.
    "gptj": Family("GPT-J", Parallel(_GPTJ), _TRANSFORMER),
    "codegen": Family("CodeGen", Parallel(_GPTJ), _TRANSFORMER),
    "phi": Family("Phi", Parallel(_PHI), Trunk(norm="final_layernorm")),
    "cohere": Family("Cohere", Parallel(), logits=LogitScale("logit_scale")),
    "cohere2": Family("Cohere 2", Parallel(), logits=LogitScale("logit_scale")),
    # Either, by a setting.
    "gpt_neox": Family(
        "GPT-NeoX",
        ByConfig("use_parallel_residual", Parallel(_NEOX), Sequential(_NEOX)),
        Trunk("gpt_neox", norm="final_layer_norm"),
    ),
    "stablelm": Family("StableLM", ByConfig("use_parallel_residual", Parallel(), Sequential())),
    "falcon": Family(
        "Falcon",
        ByConfig(
            "new_decoder_architecture",
            Parallel(_BLOOM),
            ByConfig("parallel_attn", Parallel(_BLOOM), Sequential(_BLOOM)),
        ),
        _TRANSFORMER,
    ),
    # Sandwich: what is added is a norm's output.
    "gemma2": Family("Gemma 2", Sandwich()),
    "gemma3_text": Family("Gemma 3", Sandwich()),
    "glm4": Family(
        "GLM-4", Sandwich(Parts(), "post_self_attn_layernorm", "post_mlp_layernorm", "post_attention_layernorm")
    ),
    "olmo2": Family("OLMo 2", _OLMO2),
    "olmo3": Family("OLMo 3", _OLMO2),
    "exaone4": Family("EXAONE 4", _OLMO2),
    # Scaled: what is added is a multiple of a module's output.
    "granite": Family("Granite", Scaled(), logits=LogitScale("logits_scaling", divides=True)),
    "granitemoe": Family("Granite MoE", Scaled(_SPARSE), logits=LogitScale("logits_scaling", divides=True)),
    "minicpm3": Family(
        "MiniCPM3", Scaled(multiplier="residual_scale"), logits=LogitScale("logits_scaling", divides=True)
    ),
    # The residual is added inside a module.
    "bloom": Family(
        "BLOOM",
        ResidualInside(_BLOOM, "post_attention_layernorm", attn="self_attention.dense", mlp="mlp.dense_4h_to_h"),
        _TRANSFORMER,
    ),
    "mpt": Family(
        "MPT",
        ResidualInside(_MPT, "norm_2", attn="attn", mlp="ffn.down_proj"),
        Trunk("transformer", "blocks", "norm_f"),
    ),
    # Hybrid: some layers mix tokens without attention.
    "qwen3_next": Family("Qwen3-Next", _QWEN_HYBRID),
    "qwen3_5_text": Family("Qwen3.5", _QWEN_HYBRID),
    "lfm2": Family(
        "LFM2",
        Hybrid(
            {
                "self_attn": Sequential(_LFM2, "ffn_norm"),
                "conv": WithoutPattern(Sequential(replace(_LFM2, attention="conv"), "ffn_norm")),
            }
        ),
        Trunk(norm="embedding_norm"),
    ),
}

_POST_NORM = "It normalises the stream itself after each addition: what is added no longer sums up to what comes out."
_ALTUP = "It keeps four streams that predict and correct each other (AltUp): no single one is a sum of contributions."
_THIRD = (
    "Its layers add a third time, from embeddings of their own, and rescale the stream: it is not a sum of two halves."
)
_NO_ATTENTION = "It mixes tokens without attention: there are no heads and no patterns to look at."

REFUSED: dict[str, tuple[Refused, ...]] = {
    "opt": (
        Refused(_POST_NORM, "do_layer_norm_before", False),
        Refused("It has no norm after its last layer.", "_remove_final_layer_norm", True),
    ),
    "bloom": (Refused(_POST_NORM, "apply_residual_connection_post_layernorm", True),),
    "openai-gpt": (Refused(_POST_NORM),),
    "bert": (Refused(_POST_NORM),),
    "gemma3n": (Refused(_ALTUP),),
    "gemma3n_text": (Refused(_ALTUP),),
    "gemma4_text": (Refused(_THIRD),),
    **{kind: (Refused(_NO_ATTENTION),) for kind in ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")},
}
