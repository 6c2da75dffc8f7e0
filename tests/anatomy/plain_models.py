"""What transformers says of its own models, and what hooks say that know nothing of the lab's families."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from family_models import KINDS, TIME, family_model, some_ids
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

# Parameters of the last linear layer of a feed-forward, in whatever family.
_LAST = ("down_proj", "dense_4h_to_h", "fc2", "fc_out", "mlp.c_proj", "output_linear", "feed_forward.w2")


@dataclass(frozen=True)
class Told:
    """Eager attention's own word. attentions: by layer, those that have any, [H, T, T]; hidden: [T, C] each."""

    logits: Tensor
    attentions: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]


@functools.cache
def told(name: str, time: int = TIME) -> Told:
    """The same weights, loaded for eager attention, and everything that transformers can tell."""
    model = family_model(name)
    twin = AutoModelForCausalLM.from_config(
        copy.deepcopy(model.config), attn_implementation="eager", dtype=torch.float32
    )
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        out = twin.eval()(some_ids(time=time)[None], output_attentions=True, output_hidden_states=True, use_cache=False)
    attentions = tuple(pattern[0] for pattern in out.attentions if pattern is not None)
    return Told(out.logits[0], attentions, tuple(x[0] for x in out.hidden_states))


@torch.no_grad()
def plain_logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits [T, V] of the model as anybody would call it."""
    logits: Tensor = model(input_ids=ids[None]).logits[0]
    return logits


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The list of blocks, by its size."""
    count = model.config.num_hidden_layers
    (found,) = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len(list(module[0].children())) > 1
    ]
    return found


@torch.no_grad()
def without_feed_forward(name: str, layer: int) -> nn.Module:
    """A copy of the model in which a layer's feed-forward gives nothing: its last weights and biases are zero."""
    model = copy.deepcopy(family_model(name))
    zeroed = [p for path, p in layers_of(model)[layer].named_parameters() if any(part in path for part in _LAST)]
    assert zeroed
    for parameter in zeroed:
        parameter.zero_()
    return model


@torch.no_grad()
def around_block(model: nn.Module, layer: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What one block reads and returns, [T, C] each, by plain hooks."""
    kept: list[Tensor] = []

    def before(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        kept.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    def after(_: nn.Module, args: Any, output: Any) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0].clone())

    block = layers_of(model)[layer]
    hooks = [block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after)]
    model(input_ids=ids[None])
    for hook in hooks:
        hook.remove()
    return kept[0], kept[1]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fails when weights, buffers, hooks or the configuration differ afterwards, by one bit."""
    before = _state(model)
    yield
    after = _state(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        assert same, name


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        state[f"hooks of {name}"] = (len(module._forward_hooks), len(module._forward_pre_hooks))
    config: Any = getattr(model, "config", None)
    if config is not None:
        state["config"], state["attention"] = config.to_dict(), config._attn_implementation
    return state


NAMES = list(KINDS)
