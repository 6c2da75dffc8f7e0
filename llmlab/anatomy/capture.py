"""One observed forward pass: observers see the residual stream, head outputs and patterns as they are computed.

Nothing is kept that nobody asked for, so the peak is about one layer; hooks are placed only where an observer or
an edit looks, and always removed. The weights are never changed, and what the model computes is what it computes
unwatched: `output_attentions`, which keeps every layer's pattern alive, is not used.

Within a layer observers are called in the order of the computation: pre_attn, attention, pattern, heads, attn_out,
post_attn, mlp_out, post_ffn. In parallel blocks, which have no post_attn, pre_attn + attn_out stands in for it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, BlockAnatomy, HookPoint
from llmlab.core.errors import UsageError
from llmlab.gpt.model import GPT, CausalSelfAttention

Point: TypeAlias = Literal["pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn"]
POINTS: tuple[Point, ...] = ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn")

# Query rows of a pattern are computed together while all heads' rows hold fewer numbers than this (64 MB in fp32):
# a prompt of 4,000 tokens and 9 heads would otherwise need 576 MB, twice, for each layer.
_PATTERN_NUMBERS = 16 * 1024 * 1024


@dataclass(frozen=True)
class AttentionCall:
    """What one layer's attention got, and how it makes a pattern of it.

    query [H, T, D]; key and value [H_kv, T, D]; mask [1 or H, T, T], added to the scores, None where nothing is
    masked; scale: what q k^T is multiplied by; softcap: tanh(score / c) * c before the mask (Gemma 2).
    rows: (first, last) -> the pattern's rows [H, last - first, T] and their answers [H, last - first, D], by the
    model's own code where it has any.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    softcap: float | None
    rows: Callable[[int, int], tuple[Tensor, Tensor]]

    def chunks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The pattern in pieces that fit: first row, pattern [H, q, T], answers [H, q, D]."""
        n_head, time, _ = self.query.shape
        step = max(16, _PATTERN_NUMBERS // (n_head * self.key.shape[1]))
        for first in range(0, time, step):
            yield first, *self.rows(first, min(first + step, time))


class Observer:
    """Override what you want to see. Tensors are the pass's own: copy or reduce them, never change or keep them."""

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """The stream or a contribution [T, C]."""

    def attention(self, layer: int, call: AttentionCall) -> None:
        """Queries, keys and values of a layer, rotated where the model rotates them."""

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Rows `first` on of a layer's attention pattern, [H, q, T]; long prompts come in several pieces."""

    def heads(self, layer: int, z: Tensor) -> None:
        """Every head's output z = A V, before the output projection: [T, H, D]."""

    def neurons(self, layer: int, x: Tensor) -> None:
        """Activations of the feed-forward's neurons [T, hidden]."""

    def final(self, x: Tensor) -> None:
        """The stream after the last block, before the final norm [T, C]."""


class Edit:
    """Override what you want to change; each gets a batch and returns its replacement, None to leave it alone."""

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        """pre_attn, attn_out, mlp_out or post_ffn, [B, T, C]. (To set post_attn, set attn_out.)"""
        return None

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        """All head outputs z [B, T, H, D]."""
        return None


@torch.inference_mode()
def run(
    model: nn.Module,
    anatomy: Anatomy,
    ids: Sequence[int] | Tensor,
    observers: Sequence[Observer] = (),
    edits: Sequence[Edit] = (),
    *,
    last: bool = False,
) -> Tensor:
    """One forward pass. ids: [T], or [B, T] for edits alone -> logits [B, T, V], [B, 1, V] with `last`.

    UsageError when the prompt is empty, too long, or holds ids that the model does not know.
    """
    device = anatomy.unembedding.device
    batch = torch.as_tensor(ids, dtype=torch.long, device=device)
    batch = batch[None] if batch.dim() == 1 else batch
    _check(batch, anatomy, observers)
    training = model.training
    model.eval()
    try:
        with _Hooks(batch.shape[0]) as stack:
            for layer, block in enumerate(anatomy.blocks):
                _hook_block(stack, anatomy, layer, block, observers, edits)
            watching = _overriding(observers, "final")
            if watching:
                _before(stack, anatomy.final_norm, _teller([o.final for o in watching]))
            if _overriding(observers, "pattern") or _overriding(observers, "attention"):
                stack.enter_context(_watched_attention(model, anatomy, observers))
            return _forward(model, batch, last)
    finally:
        model.train(training)


def _forward(model: nn.Module, batch: Tensor, last: bool) -> Tensor:
    if isinstance(model, GPT):
        stream = model.residual_stream(batch)  # [B, T, C]
        return nn.functional.linear(stream[:, -1:] if last else stream, model.unembedding)
    keep = {"logits_to_keep": 1} if last else {}
    logits: Tensor = model(input_ids=batch, use_cache=False, **keep).logits
    return logits[:, -1:] if last else logits


def _check(batch: Tensor, anatomy: Anatomy, observers: Sequence[Observer]) -> None:
    count, time = batch.shape
    if time == 0:
        raise UsageError("The prompt is empty.", "A model needs at least one token to read.")
    if time > anatomy.context:
        raise UsageError(
            f"The prompt has {time:,} tokens.", f"The model reads at most {anatomy.context:,}.", "Shorten the prompt."
        )
    if int(batch.min()) < 0 or int(batch.max()) >= anatomy.id_limit:
        raise UsageError(
            "The prompt holds token ids that the model does not know.",
            f"They run from 0 to {anatomy.id_limit - 1:,}.",
        )
    if observers and count != 1:
        raise ValueError("observers watch one prompt at a time")


# Hooks -----------------------------------------------------------------------------------------------------------


class _Hooks(contextlib.ExitStack):
    """The hooks of one pass over several prompts; leaving it removes them."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self._prompts = prompts

    def shown(self, see: Callable[[Tensor], Tensor | None], x: Tensor) -> Tensor | None:
        """Calls `see` with [B, T, C]; some layers (OPT's feed-forward) get all positions in one row, [B * T, C]."""
        if x.dim() > 2:
            return see(x)
        changed = see(x.unflatten(0, (self._prompts, -1)))
        return None if changed is None else changed.flatten(0, 1)


def _overriding(observers: Sequence[Any], name: str) -> list[Any]:
    """Those that look at `name`: their class overrides it."""
    return [o for o in observers if getattr(type(o), name) not in (getattr(Observer, name), getattr(Edit, name, None))]


def _teller(listeners: Sequence[Callable[[Tensor], None]]) -> Callable[[Tensor], None]:
    def tell(x: Tensor) -> None:
        for listener in listeners:
            listener(x[0])

    return tell


def _edited(edits: Sequence[Callable[[Tensor], Tensor | None]], x: Tensor) -> Tensor | None:
    """x after all edits in turn, None when each left it alone."""
    changed = None
    for edit in edits:
        new = edit(x if changed is None else changed)
        changed = new if new is not None else changed
    return changed


def _hook_block(
    stack: _Hooks,
    anatomy: Anatomy,
    layer: int,
    block: BlockAnatomy,
    observers: Sequence[Observer],
    edits: Sequence[Edit],
) -> None:
    watching, editing = _overriding(observers, "residual"), _overriding(edits, "residual")

    def seen(point: Point) -> Callable[[Tensor], Tensor | None]:
        def see(x: Tensor) -> Tensor | None:
            changed = _edited([partial(edit.residual, layer, point) for edit in editing], x)
            for observer in watching:
                observer.residual(layer, point, (x if changed is None else changed)[0])
            return changed

        return see

    if watching or editing:
        _before(stack, block.block, seen("pre_attn"))
        if block.mid is None and watching:
            _hook_virtual_post_attn(stack, block, layer, watching, seen("attn_out"))
        else:
            _after(stack, block.attn, seen("attn_out"))
        if block.mid is not None and watching:
            _before(stack, block.mid, _teller([partial(o.residual, layer, "post_attn") for o in watching]))
        _after(stack, block.mlp, seen("mlp_out"))
        _after(stack, HookPoint(block.block), seen("post_ffn"))
    _hook_heads(stack, anatomy, layer, block, observers, edits)
    reading = _overriding(observers, "neurons")
    if reading and block.neurons is not None:
        _before(stack, block.neurons, _teller([partial(o.neurons, layer) for o in reading]))


def _hook_virtual_post_attn(
    stack: _Hooks,
    block: BlockAnatomy,
    layer: int,
    watching: Sequence[Observer],
    see: Callable[[Tensor], Tensor | None],
) -> None:
    held: list[Tensor] = []

    def keep(x: Tensor) -> None:
        held[:] = [x.clone()]  # some families (Falcon) go on in place

    def add(x: Tensor) -> Tensor | None:
        changed = see(x)
        virtual = held.pop() + (x if changed is None else changed)
        for observer in watching:
            observer.residual(layer, "post_attn", virtual[0])
        return changed

    _before(stack, block.block, keep)
    _after(stack, block.attn, add)


def _hook_heads(
    stack: _Hooks,
    anatomy: Anatomy,
    layer: int,
    block: BlockAnatomy,
    observers: Sequence[Observer],
    edits: Sequence[Edit],
) -> None:
    watching, editing = _overriding(observers, "heads"), _overriding(edits, "heads")
    if block.projection is None or not (watching or editing):
        return

    def see(x: Tensor) -> Tensor | None:
        z = x.unflatten(-1, (anatomy.n_head, -1))  # [B, T, H, D]
        changed = _edited([partial(edit.heads, layer) for edit in editing], z)
        for observer in watching:
            observer.heads(layer, (z if changed is None else changed)[0])
        return None if changed is None else changed.flatten(-2)

    _before(stack, block.projection, see)


def _before(stack: _Hooks, module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> None:
    """Shows `see` a module's input, which some families pass by position and some by keyword."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if args:
            changed = stack.shown(see, args[0])
            return None if changed is None else ((changed, *args[1:]), kwargs)
        changed = stack.shown(see, kwargs["hidden_states"])
        return None if changed is None else (args, kwargs | {"hidden_states": changed})

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def _after(stack: _Hooks, hook_point: HookPoint, see: Callable[[Tensor], Tensor | None]) -> None:
    """Shows `see` a module's output, the first one of several, times the tap's scale."""

    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        contribution = first if hook_point.scale == 1.0 else first * hook_point.scale
        changed = stack.shown(see, contribution)
        if changed is None or (hook_point.scale != 1.0 and torch.equal(changed, contribution)):
            return None  # dividing by the scale what was multiplied by it would round
        changed = changed if hook_point.scale == 1.0 else changed / hook_point.scale
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    stack.callback(hook_point.module.register_forward_hook(hook).remove)


# Patterns --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched_attention(model: nn.Module, anatomy: Anatomy, observers: Sequence[Observer]) -> Iterator[None]:
    """While it lasts, observers see each layer's attention."""
    layers = {block.attention: layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None}

    if isinstance(model, GPT):
        with contextlib.ExitStack() as stack:
            for attention, layer in layers.items():
                _hook_scratch_attention(stack, attention, layer, observers)
            yield
        return
    from llmlab.anatomy.hf_attention import watched  # loads transformers

    with watched(model, lambda module, call: watch_call(layers[module], call, observers)):
        yield


def watch_call(layer: int, call: AttentionCall, observers: Sequence[Observer]) -> Tensor:
    """Shows a layer's attention to the observers -> its answers [H, T, D]."""
    for observer in _overriding(observers, "attention"):
        observer.attention(layer, call)
    watching = _overriding(observers, "pattern")
    answers = []
    for first, pattern, answer in call.chunks():
        for observer in watching:
            observer.pattern(layer, first, pattern)
        answers.append(answer)
    return answers[0] if len(answers) == 1 else torch.cat(answers, dim=1)


def _hook_scratch_attention(
    stack: contextlib.ExitStack, attention: nn.Module, layer: int, observers: Sequence[Observer]
) -> None:
    """The lab's own GPT never stores its pattern: the same formula on the same queries and keys gives it."""
    assert isinstance(attention, CausalSelfAttention)

    def hook(_: nn.Module, args: Any, qkv: Tensor) -> None:
        watch_call(layer, scratch_call(attention, qkv[0]), observers)

    stack.callback(attention.qkv.register_forward_hook(hook).remove)


def scratch_call(attention: CausalSelfAttention, qkv: Tensor) -> AttentionCall:
    """qkv: output of the layer's three projections [T, C + 2 C_kv] -> its attention."""
    time = qkv.shape[0]
    split = (part.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1) for part in qkv.split(attention.dims, -1))
    query, key, value = split  # [H, T, D], [H_kv, T, D], [H_kv, T, D]
    if attention.rotary is not None:
        query, key = attention.rotary(query), attention.rotary(key)
    mask = torch.full((time, time), -math.inf, device=qkv.device).triu(1)[None]  # [1, T, T]
    scale = attention.head_dim**-0.5
    group = attention.n_head // attention.n_kv_head

    def rows(first: int, last: int) -> tuple[Tensor, Tensor]:
        keys, values = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)  # [H, T, D]
        scores = query[:, first:last] @ keys.transpose(1, 2) * scale + mask[:, first:last]  # [H, q, T]
        pattern = scores.softmax(-1)
        return pattern, pattern @ values

    return AttentionCall(query, key, value, mask, scale, None, rows)
