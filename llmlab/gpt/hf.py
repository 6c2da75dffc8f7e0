"""To and from transformers' GPT2LMHeadModel: the same function, exactly, where our settings are GPT-2's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from llmlab.core.errors import LabError
from llmlab.core.settings import ModelSettings
from llmlab.gpt.gpt2_names import block_modules
from llmlab.gpt.model import GPT, Norm

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def refusal(settings: ModelSettings) -> str | None:
    """Why a model of these settings is not a GPT-2, as a sentence; None when it is one."""
    differs = []
    if settings.norm != "layernorm":
        differs.append(f"norm={settings.norm}")
    if settings.position != "learned":
        differs.append(f"position={settings.position}")
    if settings.activation != "gelu":
        differs.append(f"activation={settings.activation}")
    if settings.n_kv_head not in (0, settings.n_head):
        differs.append(f"n_kv_head={settings.n_kv_head}")
    if not differs:
        return None
    return f"GPT-2 has LayerNorm, learned positions, GELU and full heads; this model has {', '.join(differs)}."


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
        activation_function="gelu_new",  # the tanh approximation, as ours
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
    for our_name, their_name in _names(settings):
        weight = ours[f"{our_name}.weight"]
        state[f"{their_name}.weight"] = weight.t() if weight.dim() == 2 else weight
        bias = ours.get(f"{our_name}.bias")
        state[f"{their_name}.bias"] = torch.zeros(weight.shape[0]) if bias is None else bias
    state["lm_head.weight"] = state["transformer.wte.weight"]
    theirs.load_state_dict({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    return theirs.eval()


def from_hf(theirs: GPT2LMHeadModel) -> GPT:
    """Our GPT with equal logits. Raises LabError when the model departs from GPT-2 in a way that ours cannot be."""
    config = theirs.config
    wanted = {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "layer_norm_epsilon": Norm.EPS,
        "n_inner": None,
    }
    for name, value in wanted.items():
        found = getattr(config, name, value)
        if found != value and not (name == "n_inner" and found == 4 * config.n_embd):
            raise LabError("This is not a GPT-2 that the lab's GPT can be.", f"Its {name} is {found!r}, not {value!r}.")
    settings = ModelSettings(
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        block_size=config.n_positions,
        dropout=config.resid_pdrop,
        bias=True,
    )
    state = theirs.state_dict()
    head, embedding = state["lm_head.weight"], state["transformer.wte.weight"]
    if not torch.equal(head, embedding):
        raise LabError("This is not a GPT-2 that the lab's GPT can be.", "Its head is not tied to its embedding.")
    ours: dict[str, Tensor] = {
        "token_embedding.weight": embedding,
        "position_embedding.weight": state["transformer.wpe.weight"],
    }
    for our_name, their_name in _names(settings):
        weight = state[f"{their_name}.weight"]
        ours[f"{our_name}.weight"] = weight.t() if weight.dim() == 2 else weight
        ours[f"{our_name}.bias"] = state[f"{their_name}.bias"]
    model = GPT(settings, config.vocab_size)
    model.load_state_dict({name: tensor.detach().float().contiguous() for name, tensor in ours.items()})
    return model.eval()


def _names(settings: ModelSettings) -> list[tuple[str, str]]:
    return [*block_modules(settings.n_layer), ("final_norm", "transformer.ln_f")]
