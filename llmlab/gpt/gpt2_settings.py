"""Whether settings make a GPT-2, which other programs open. No torch is needed."""

from __future__ import annotations

from dataclasses import fields

from llmlab.core.settings import ModelSettings

# Settings that `to_hf` writes, that a check here is about, or that only say how training begins. All others have to be
# as they are by default, which is GPT-2.
_WRITTEN = {"n_layer", "n_head", "n_embd", "block_size", "dropout", "bias", "untied_head", "mup_base_width"}
_WRITTEN |= {"vocab_multiple", "zero_init"}
# A GPT-2 of transformers can have other activations than GPT-2's own: by our names, theirs.
ACTIVATIONS = {"gelu": "gelu_new", "gelu_exact": "gelu", "relu2": "relu2"}  # gelu_new: the tanh approximation


def refusal(settings: ModelSettings) -> str | None:
    """Why a model of these settings is not a GPT-2, as a sentence; None when it is one."""
    gpt2 = {field.name: field.default for field in fields(ModelSettings) if field.name not in _WRITTEN}
    gpt2["n_kv_head"] = settings.n_head
    if settings.activation in ACTIVATIONS:
        gpt2["activation"] = settings.activation
    if settings.mup_base_width and (width := settings.n_embd // settings.n_head) != 64:
        return f"With model.mup_base_width, attention divides scores by {width} / 8; a GPT-2 divides by sqrt({width})."
    ours = {name: getattr(settings, name) for name in gpt2} | {"n_kv_head": settings.n_kv_head or settings.n_head}
    differing = [name for name in gpt2 if ours[name] != gpt2[name]]
    if not differing:
        return None
    theirs, found = (", ".join(f"{name}={of[name]}" for name in differing) for of in (gpt2, ours))
    return f"A GPT-2 has {theirs}; this model has {found}."
