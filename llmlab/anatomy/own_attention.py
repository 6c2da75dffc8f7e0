"""Attention patterns of families whose code is older than transformers' attention interface.

BLOOM, MPT, GPT-Neo and Falcon cannot be handed another attention, and Falcon is wrong when told to attend "eagerly"
(it adds ALiBi twice then). They run as they are, and the same formula on the queries, keys and values of the pass
gives the pattern, as it does for the lab's own GPT: softmax(scale q k^T + bias), where the bias holds the mask and
ALiBi (Press et al. 2022). `llmlab.anatomy.probe` checks for every model that the pattern times the values is what
the model went on with.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.attention_call import AttentionCall


@dataclass(frozen=True)
class OwnAttention:
    """How one attention class computes. inputs: its linear layers that make q, k and v. output: the one after them.

    call: the module, what `inputs` made, [T, width] each, and the arguments of its forward -> its attention.
    """

    inputs: tuple[str, ...]
    output: str
    call: Callable[[Any, tuple[Tensor, ...], Mapping[str, Any]], AttentionCall]


def _bloom(module: Any, made: tuple[Tensor, ...], options: Mapping[str, Any]) -> AttentionCall:
    """scores / sqrt(D) + ALiBi + mask."""
    q, k, v = _fused(made[0], module.num_heads)
    bias = options["alibi"].unflatten(0, (-1, module.num_heads))[0] + _causal(q)  # [H, T, T]
    return AttentionCall.of(q, k, v, bias, module.inv_norm_factor)


def _mpt(module: Any, made: tuple[Tensor, ...], options: Mapping[str, Any]) -> AttentionCall:
    """scale scores + ALiBi, masked; queries, keys and values may be clipped."""
    qkv = made[0].clamp(-module.clip_qkv, module.clip_qkv) if module.clip_qkv else made[0]
    q, k, v = (_heads(part, module.n_heads) for part in qkv.chunk(3, dim=-1))
    bias = _causal(q)
    if options.get("position_bias") is not None:
        bias = options["position_bias"][:, :, -q.shape[1] :] + bias
    return AttentionCall.of(q, k, v, bias, module.softmax_scale)


def _gpt_neo(module: Any, made: tuple[Tensor, ...], options: Mapping[str, Any]) -> AttentionCall:
    """Scores without any scale, masked by a fixed table (global, or a window)."""
    q, k, v = (_heads(part, module.num_heads) for part in made)
    time = q.shape[1]
    return AttentionCall.of(q, k, v, _masked(~module.bias[0, :, :time, :time], q), 1.0)


def _falcon(module: Any, made: tuple[Tensor, ...], options: Mapping[str, Any]) -> AttentionCall:
    """Rotary, or ALiBi divided by sqrt(D) like the scores; keys and values may be shared by groups of heads."""
    q, k, v = (part[0].transpose(0, 1) for part in module._split_heads(made[0][None]))
    if module.new_decoder_architecture:  # repeats keys and values for every head
        group = module.num_heads // module.num_kv_heads
        k, v = k[::group], v[::group]
    bias = options.get("attention_mask")
    bias = _causal(q) if bias is None else bias[0]
    if bias.dtype is torch.bool:
        bias = _masked(~bias, q)
    alibi = options.get("alibi")
    if alibi is None:
        rotate = module.forward.__func__.__globals__["apply_rotary_pos_emb"]
        q, k = (part[0] for part in rotate(q[None], k[None], *options["position_embeddings"]))
    elif module.config._attn_implementation != "sdpa":  # else it is part of the mask
        bias = bias + alibi.reshape(module.num_heads, 1, -1) * module.inv_norm_factor
    return AttentionCall.of(q, k, v, bias, module.head_dim**-0.5)


OWN = {
    "BloomAttention": OwnAttention(("query_key_value",), "dense", _bloom),
    "MptAttention": OwnAttention(("Wqkv",), "out_proj", _mpt),
    "GPTNeoSelfAttention": OwnAttention(("q_proj", "k_proj", "v_proj"), "out_proj", _gpt_neo),
    "FalconAttention": OwnAttention(("query_key_value",), "dense", _falcon),
}


def watch_own(
    stack: contextlib.ExitStack, module: nn.Module, see: Callable[[nn.Module, AttentionCall], object]
) -> None:
    """Hooks that show one attention module's attention to `see`, just before its head outputs are projected."""
    own = OWN[type(module).__name__]
    made: dict[str, Tensor] = {}
    options: dict[str, Any] = {}
    names = list(inspect.signature(module.forward).parameters)

    def begin(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        options.update(dict(zip(names, args, strict=False)) | kwargs)

    def keep(name: str, _: nn.Module, args: Any, output: Tensor) -> None:
        made[name] = output[0]

    def tell(_: nn.Module, args: Any) -> None:
        call = own.call(module, tuple(made[name] for name in own.inputs), options)
        made.clear()
        options.clear()
        see(module, call)

    stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
    for name in own.inputs:
        stack.callback(module.get_submodule(name).register_forward_hook(partial(keep, name)).remove)
    # First of all hooks there: observers of a layer's heads come after those of its pattern.
    stack.callback(module.get_submodule(own.output).register_forward_pre_hook(tell, prepend=True).remove)


def _heads(x: Tensor, count: int) -> Tensor:
    """[T, H * D] -> [H, T, D]."""
    return x.unflatten(-1, (count, -1)).transpose(0, 1)


def _fused(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """[T, H * 3 * D] -> queries, keys and values, [H, T, D] each."""
    return tuple(part.transpose(0, 1) for part in x.unflatten(-1, (count, 3, -1)).unbind(-2))


def _masked(hidden: Tensor, like: Tensor) -> Tensor:
    """True where nothing may be seen -> what is added to the scores."""
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill(hidden, -math.inf)


def _causal(query: Tensor) -> Tensor:
    """[1, T, T]."""
    time = query.shape[1]
    return _masked(torch.ones(1, time, time, dtype=torch.bool, device=query.device).triu(1), query)
