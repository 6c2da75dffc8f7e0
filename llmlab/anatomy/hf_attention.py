"""Attention patterns of transformers' models, computed by the models' own code and by nothing else.

Every family that uses transformers' attention interface has a function `eager_attention_forward`, which computes the
whole pattern. While a model is watched, an attention of ours stands in its place: it hands the same function the
same queries, keys, values and mask, in pieces of a few query rows where the prompt is long, without the keys that none
of these sees, and shows what comes out.
The mask has to be registered under the same name: without that entry the model gets none, and looks ahead silently.

Written for the interface of transformers (`modeling_utils.AttentionInterface`, `masking_utils.AttentionMaskInterface`
and `PreTrainedModel.set_attn_implementation`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from llmlab.anatomy.attention_call import AttentionCall, repeated
from llmlab.anatomy.modules import base_model
from llmlab.anatomy.own_attention import OWN, watch_own

See: TypeAlias = Callable[[nn.Module, AttentionCall], list[Tensor]]
NAME = "llmlab"
# Which attention modules are watched now, and who looks.
_watchers: WeakKeyDictionary[nn.Module, See] = WeakKeyDictionary()


def eager_attention_of(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The function with which a module that uses the interface computes its pattern; None where it does not use it."""
    forward: Any = inspect.unwrap(type(module).forward)
    if "ALL_ATTENTION_FUNCTIONS" not in getattr(getattr(forward, "__code__", None), "co_names", ()):
        return None
    function = forward.__globals__.get("eager_attention_forward")
    return function if callable(function) else None


def can_attend(module: nn.Module) -> bool:
    """Whether a module computes an attention pattern that can be watched."""
    return type(module).__name__ in OWN or eager_attention_of(module) is not None


@contextlib.contextmanager
def watched(model: nn.Module, see: See) -> Iterator[None]:
    """While it lasts, every attention layer of `model` calls `see`, whose head outputs, in pieces [H, q, D], it uses.

    (Layers of `own_attention` go on with what they compute by themselves.) One prompt at a time. Afterwards the
    model attends as it did before, also when it failed on the way.
    """
    plain: Any = base_model(model)
    with contextlib.ExitStack() as stack:
        for module in plain.modules():
            if type(module).__name__ in OWN:
                watch_own(stack, module, see)
        stack.enter_context(_switched(plain, see))
        yield


@contextlib.contextmanager
def _switched(plain: Any, see: See) -> Iterator[None]:
    """While it lasts, layers that use the interface are handed our attention."""
    modules = [module for module in plain.modules() if eager_attention_of(module) is not None]
    if not modules:
        yield
        return
    before = [(config, config._attn_implementation_internal) for config in _configs(plain)]
    try:
        _watchers.update(dict.fromkeys(modules, see))
        plain.set_attn_implementation(NAME)
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name
        for module in modules:
            _watchers.pop(module, None)


def _configs(model: nn.Module) -> list[Any]:
    """Every configuration in which a part of the model looks up how to attend."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        parts = (getattr(config, name, None) for name in getattr(config, "sub_configs", {}))
        for part in (config, *parts):
            if hasattr(part, "_attn_implementation_internal"):
                found[id(part)] = part
    return list(found.values())


class _Repeated:
    """An attention module as its eager function sees it: without key-value heads to repeat for each piece anew."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """The interface's signature: query [B, H, T, D], key and value [B, H_kv, T, D] -> z [B, T, H, D]."""
    eager = eager_attention_of(module)
    if eager is None:
        raise TypeError(f"{type(module).__name__} has no eager attention")
    options = more if scaling is None else more | {"scaling": scaling}
    see = _watchers.get(module)
    if see is None:
        return eager(module, query, key, value, attention_mask, dropout=dropout, **options)
    mask = None if attention_mask is None else attention_mask[..., : key.shape[-2]]  # [B, 1 or H, T, T]
    all_keys, all_values = (repeated(x, query.shape[1] // x.shape[1], 1) for x in (key, value))  # [B, H, T, D]
    whole: Any = _Repeated(module)

    def rows(first: int, last: int, keys: int) -> tuple[Tensor, Tensor]:
        part = None if mask is None else mask[:, :, first:last, :keys]
        seen = (query[:, :, first:last], all_keys[:, :, :keys], all_values[:, :, :keys])
        z, pattern = eager(whole, *seen, part, dropout=dropout, **options)
        return pattern[0], z[0].transpose(0, 1)

    call = AttentionCall(
        query=query[0],
        key=key[0],
        value=value[0],
        mask=None if mask is None else mask[0],
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=more.get("softcap"),
        rows=rows,
    )
    return torch.cat([z.transpose(0, 1) for z in see(module, call)])[None], None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)
