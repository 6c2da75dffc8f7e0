"""To transformers' GPT2LMHeadModel: the same function, exactly, where our settings are GPT-2's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from llmlab.core.errors import LabError
from llmlab.gpt.gpt2_names import block_modules
from llmlab.gpt.gpt2_settings import ACTIVATIONS, refusal
from llmlab.gpt.model import GPT, Norm

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


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
        activation_function=ACTIVATIONS[settings.activation],
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
