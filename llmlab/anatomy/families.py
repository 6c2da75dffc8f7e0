"""The anatomy of transformers' models.

A family is described in `llmlab.anatomy.family_table`; a model of another is tried with the common layouts.
Whatever a model is, `llmlab.anatomy.probe` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, FinalNorm
from llmlab.anatomy.family_table import FAMILIES, REFUSED, Family, Trunk
from llmlab.anatomy.layouts import optional
from llmlab.anatomy.modules import base_model, linear_numbers, norm_numbers
from llmlab.anatomy.own_attention import OWN
from llmlab.anatomy.probe import probe
from llmlab.anatomy.sizes import context_length
from llmlab.anatomy.unknown import discover
from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import LabError
from llmlab.core.memory import ran_out


def transformers_anatomy(model: nn.Module, probed: Callable[[nn.Module, Anatomy], Anatomy] = probe) -> Anatomy:
    """The anatomy of a causal language model of transformers, in a PEFT wrapper or not, as far as the probe agrees.

    probed: what asks the probe.

    LabError, with the reason, when nothing of it could be trusted, or memory ran out.
    """
    plain: Any = base_model(model)
    config: Any = plain.config.get_text_config()
    reason = refusal(model, plain.config) or refusal(model, config)
    if reason is not None:
        raise LabError("This model cannot be looked into.", reason)
    family = FAMILIES.get(config.model_type)
    try:
        return probed(model, describe(plain, config, family or discover(plain, config)))
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise ran_out(type(plain).__name__) from error
        why = f"{type(plain).__name__} is not built like the models that the lab knows"
        raise LabError("This model cannot be looked into.", f"{why} ({type(error).__name__}: {error}).") from error


def refusal(model: nn.Module, config: Any) -> str | None:
    """Why a model of this configuration cannot be looked into at all, where that is known beforehand."""
    if getattr(config, "is_encoder_decoder", False):
        return "It has an encoder beside its decoder: the lab looks into decoders alone."
    adapter: Any = getattr(model, "active_peft_config", None)
    if adapter is not None and adapter.is_prompt_learning:
        return "Its adapter puts virtual tokens before the prompt: what is shown would belong to other positions."
    return next((r.reason for r in REFUSED.get(config.model_type, ()) if r.holds(config)), None)


def describe(model: Any, config: Any, family: Family) -> Anatomy:
    """A model by the description of its family, unproved."""
    decoder = _decoder(model, family.trunk)
    blocks: Any = decoder.get_submodule(family.trunk.blocks)
    final_norm = decoder.get_submodule(family.trunk.norm)
    head = linear_numbers(model.get_output_embeddings())
    described = [family.layout.describe(block, config) for block in blocks]
    own = any(type(block.attention).__name__ in OWN for block in described)
    return Anatomy(
        family=family.name,
        blocks=tuple(
            replace(block, window=window if block.attention is not None else None)
            for block, window in zip(described, layer_windows(config, len(blocks)), strict=True)
        ),
        embedding=model.get_input_embeddings(),
        final_norm=final_norm,
        norm=_like(norm_numbers(final_norm, head.weight.shape[1]), head.weight),
        unembedding=head.weight,
        unembedding_bias=head.bias,
        n_head=config.num_attention_heads,
        n_kv_head=kv_heads(config),
        head_dim=head_dim(config),
        context=context_length(config),
        logit_scale=family.logits.scale(config),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        sinks=any(isinstance(getattr(block.attention, "sinks", None), Tensor) for block in described),
        attention_path="recomputed from the queries and keys of the pass" if own else "the model's own eager attention",
    )


def _like(norm: FinalNorm, weight: Tensor) -> FinalNorm:
    """The norm beside the unembedding: a norm that holds no weights (OLMo) does not tell where it works."""
    bias = None if norm.bias is None else norm.bias.to(weight)
    return replace(norm, weight=norm.weight.to(weight), bias=bias)


def _decoder(model: nn.Module, trunk: Trunk) -> nn.Module:
    """Where the blocks are; models that also see or hear keep their decoder one step further in."""
    inner = optional(model, f"{trunk.decoder}.language_model")
    return model.get_submodule(trunk.decoder) if inner is None else inner


def layer_windows(config: Any, n_layer: int) -> list[int | None]:
    """For each layer how many tokens it sees, its own included; None where it sees all."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    size = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    if kinds is not None:
        return [size if kind in ("sliding_attention", "local") else None for kind in kinds]
    # Without kinds the setting holds for every layer (Mistral).
    return [size if getattr(config, "use_sliding_window", True) else None] * n_layer


def kv_heads(config: Any) -> int:
    """How many key-value heads there are; Falcon's older models have one for all."""
    for name in ("num_key_value_heads", "num_kv_heads"):
        count = getattr(config, name, None)
        if count is not None:
            old_falcon = config.model_type == "falcon" and not config.new_decoder_architecture
            return 1 if old_falcon and config.multi_query else int(count)
    return int(config.num_attention_heads)


def head_dim(config: Any) -> int:
    """Width of one head's values, which may be another than that of its keys (DeepSeek)."""
    width = getattr(config, "v_head_dim", None) or getattr(config, "head_dim", None)
    return int(width or config.hidden_size // config.num_attention_heads)
