"""To transformers' GPT2LMHeadModel: the same function, exactly, where our settings are GPT-2's."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import nn

from llmlab.core.errors import LabError
from llmlab.core.settings import ModelSettings
from llmlab.gpt.gpt2_names import block_modules
from llmlab.gpt.model import GPT, Norm

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

# Settings that `to_hf` writes, that a check here is about, or that only say how training begins. All others have to be
# as they are by default, which is GPT-2.
_WRITTEN = {"n_layer", "n_head", "n_embd", "block_size", "dropout", "bias", "untied_head", "mup_base_width"}
_WRITTEN |= {"vocab_multiple", "zero_init"}
# A GPT-2 of transformers can have other activations than GPT-2's own: by our names, theirs.
_ACTIVATIONS = {"gelu": "gelu_new", "gelu_exact": "gelu", "relu2": "relu2"}  # gelu_new: the tanh approximation


def refusal(settings: ModelSettings) -> str | None:
    """Why a model of these settings is not a GPT-2, as a sentence; None when it is one."""
    gpt2 = {field.name: field.default for field in fields(ModelSettings) if field.name not in _WRITTEN}
    gpt2["n_kv_head"] = settings.n_head
    if settings.activation in _ACTIVATIONS:
        gpt2["activation"] = settings.activation
    if settings.mup_base_width and (width := settings.n_embd // settings.n_head) != 64:
        return f"With model.mup_base_width, attention divides scores by {width} / 8; a GPT-2 divides by sqrt({width})."
    ours = {name: getattr(settings, name) for name in gpt2} | {"n_kv_head": settings.n_kv_head or settings.n_head}
    differing = [name for name in gpt2 if ours[name] != gpt2[name]]
    if not differing:
        return None
    theirs, found = (", ".join(f"{name}={of[name]}" for name in differing) for of in (gpt2, ours))
    return f"A GPT-2 has {theirs}; this model has {found}."


def refusal_of(model: nn.Module) -> str | None:
    """Why transformers could not open a model that is open here, as a sentence; None when it could."""
    if isinstance(model, GPT):
        return refusal(model.settings)
    return None if hasattr(model, "save_pretrained") else "It is a model of the lab's own, and no GPT."


def to_hf(model: GPT) -> GPT2LMHeadModel:
    """A GPT2LMHeadModel with equal logits (missing biases become zeros, padded vocabulary rows are cut off).

    Raises LabError when the settings are not GPT-2's.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if why := refusal(model.settings):
        raise LabError("This model cannot be written as a Hugging Face GPT-2.", why)
    settings = model.settings
    config = GPT2Config(
        vocab_size=model.vocab_size,
        n_positions=settings.block_size,
        n_embd=settings.n_embd,
        n_layer=settings.n_layer,
        n_head=settings.n_head,
        tie_word_embeddings=not settings.untied_head,
        activation_function=_ACTIVATIONS[settings.activation],
        layer_norm_epsilon=Norm.EPS,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = GPT2LMHeadModel(config)
    ours = model.state_dict()
    state = {
        "transformer.wte.weight": ours["token_embedding.weight"][: model.vocab_size],
        "transformer.wpe.weight": ours["position_embedding.weight"],
    }
    for our_name, their_name in [*block_modules(settings.n_layer), ("final_norm", "transformer.ln_f")]:
        weight = ours[f"{our_name}.weight"]
        state[f"{their_name}.weight"] = weight.t() if weight.dim() == 2 else weight
        bias = ours.get(f"{our_name}.bias")
        state[f"{their_name}.bias"] = torch.zeros(weight.shape[0]) if bias is None else bias
    for name in ("transformer.ln_f.weight", "transformer.ln_f.bias"):  # what follows it is a product without a bias
        state[name] = model.scaled(state[name])
    state["lm_head.weight"] = model.unembedding[: model.vocab_size]
    theirs.load_state_dict({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    return theirs.eval()
