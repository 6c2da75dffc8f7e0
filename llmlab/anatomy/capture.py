"""One observed forward pass: observers see the residual stream, head outputs and patterns as they are computed.

Nothing is kept that nobody asked for, so the peak is about one layer; hooks are placed only where an observer or an
intervention looks, and always removed. The weights are never changed, and what the model computes is what it
computes unwatched: `output_attentions`, which keeps every layer's pattern alive, is not used.

Within a layer observers are called in the order of the computation: pre_attn, attention, pattern, heads, attn_out,
post_attn, mlp_out, post_ffn. In parallel blocks, which have no post_attn, pre_attn + attn_out stands in for it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, BlockAnatomy, HookPoint
from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.modules import evaluating
from llmlab.core.errors import UsageError
from llmlab.gpt.model import GPT, CausalSelfAttention

Point: TypeAlias = Literal["pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn"]
POINTS: tuple[Point, ...] = ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn")


class Observer:
    """Override what you want to see. Tensors are the pass's own: copy or reduce them, never change or keep them."""

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """The stream or a contribution [T, C]."""

    def attention(self, layer: int, call: AttentionCall) -> None:
        """Queries, keys and values of a layer, rotated where the model rotates them."""

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Rows `first` on of a layer's attention pattern, [H, q, K]; long prompts come in several pieces.

        K <= T: where none of a piece's rows sees the last keys, these are left out (`with_all_keys` puts them back).
        """

    def heads(self, layer: int, z: Tensor) -> None:
        """Every head's output z = A V, before the output projection: [T, H, D]."""

    def neurons(self, layer: int, x: Tensor) -> None:
        """Activations of the feed-forward's neurons [T, hidden]."""

    def final(self, x: Tensor) -> None:
        """The stream after the last block, before the final norm [T, C]."""


class Intervener:
    """Override what you want to change, by zero ablation, say, or by activation patching.

    Each method gets a batch and returns its replacement, None to leave it alone.
    """

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
    interventions: Sequence[Intervener] = (),
    *,
    last: bool = False,
) -> Tensor:
    """One forward pass. ids: [T], or [B, T] for interventions alone -> logits [B, T, V], [B, 1, V] with `last`.

    UsageError when the prompt is empty, too long, or holds ids that the model does not know.
    """
    device = anatomy.unembedding.device
    batch = torch.as_tensor(ids, dtype=torch.long, device=device)
    batch = batch[None] if batch.dim() == 1 else batch
    _check(batch, anatomy, observers)
    with evaluating(model), _Hooks(batch.shape[0], observers, interventions) as stack:
        stack.place(anatomy)
        if _overriding(observers, "pattern") or _overriding(observers, "attention"):
            stack.enter_context(_watched_attention(model, anatomy, observers))
        return _forward(model, batch, last)


def _forward(model: nn.Module, batch: Tensor, last: bool) -> Tensor:
    if isinstance(model, GPT):
        stream = model.residual_stream(batch)  # [B, T, C]
        return model.logits(stream[:, -1:] if last else stream)
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
            "The prompt holds token ids that the model does not know.", f"They run from 0 to {anatomy.id_limit - 1:,}."
        )
    if observers and count != 1:
        raise ValueError("observers watch one prompt at a time")


# Hooks -----------------------------------------------------------------------------------------------------------


def _overriding(looking: Sequence[Any], name: str) -> list[Any]:
    """Those that look at `name`: their class overrides it."""
    plain = (None, getattr(Observer, name), getattr(Intervener, name, None))
    return [one for one in looking if getattr(type(one), name, None) not in plain]


class _Hooks(contextlib.ExitStack):
    """The hooks of one pass over several prompts; leaving it removes them."""

    def __init__(self, prompts: int, observers: Sequence[Observer], interventions: Sequence[Intervener]) -> None:
        super().__init__()
        self._prompts = prompts
        names = ("residual", "heads", "neurons", "final")
        self._observers = {name: _overriding(observers, name) for name in names}
        self._interventions = {name: _overriding(interventions, name) for name in names}

    def place(self, anatomy: Anatomy) -> None:
        """Hooks on all blocks and before the final norm, as far as anyone looks there."""
        wanted = {name for name, looking in self._observers.items() if looking or self._interventions[name]}
        for layer, block in enumerate(anatomy.blocks):
            if "residual" in wanted:
                self._place_residual(layer, block)
            if "heads" in wanted and block.projection is not None:
                self._before(block.projection, partial(self._show_heads, layer, anatomy.n_head))
            if "neurons" in wanted and block.neurons is not None:
                self._before(block.neurons, partial(self._show, "neurons", layer))
        if "final" in wanted:
            self._before(anatomy.final_norm, partial(self._show, "final"))

    def _place_residual(self, layer: int, block: BlockAnatomy) -> None:
        show, tell = partial(self._show, "residual", layer), partial(self._tell, "residual", layer)
        held: list[Tensor] = []

        def hold(x: Tensor) -> None:
            held[:] = [x.clone()]  # some families (Falcon) go on in place

        def add(x: Tensor) -> Tensor | None:
            changed = show("attn_out", x)
            tell("post_attn", held.pop() + (x if changed is None else changed))
            return changed

        self._before(block.block, partial(show, "pre_attn"))
        if block.mid is None and self._observers["residual"]:
            self._before(block.block, hold)
            self._after(block.attn, add)
        else:
            self._after(block.attn, partial(show, "attn_out"))
        if block.mid is not None and self._observers["residual"]:
            self._before(block.mid, partial(tell, "post_attn"))
        self._after(block.mlp, partial(show, "mlp_out"))
        self._after(HookPoint(block.block), partial(show, "post_ffn"))

    def _show_heads(self, layer: int, n_head: int, x: Tensor) -> Tensor | None:
        changed = self._show("heads", layer, x.unflatten(-1, (n_head, -1)))  # [B, T, H, D]
        return None if changed is None else changed.flatten(-2)

    def _show(self, name: str, *where: Any) -> Tensor | None:
        """where: layer and point, as far as there are any, and x [B, T, ...].

        Interventions change x one after the other, then observers see it. Returns what has become of it, None when
        each left it alone.
        """
        *place, x = where
        changed: Tensor | None = None
        for intervener in self._interventions[name]:
            new = getattr(intervener, name)(*place, x if changed is None else changed)
            changed = changed if new is None else new
        self._tell(name, *place, x if changed is None else changed)
        return changed

    def _tell(self, name: str, *where: Any) -> None:
        *place, x = where
        for observer in self._observers[name]:
            getattr(observer, name)(*place, x[0])

    def _before(self, module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> None:
        """Shows `see` a module's input, which some families pass by position and some by keyword."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            if args:
                changed = self._batched(see, args[0])
                return None if changed is None else ((changed, *args[1:]), kwargs)
            changed = self._batched(see, kwargs["hidden_states"])
            return None if changed is None else (args, kwargs | {"hidden_states": changed})

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _after(self, hook_point: HookPoint, see: Callable[[Tensor], Tensor | None]) -> None:
        """Shows `see` a module's output, the first one of several, times the hook point's scale."""

        def hook(_: nn.Module, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            contribution = first if hook_point.scale == 1.0 else first * hook_point.scale
            changed = self._batched(see, contribution)
            if changed is None or (hook_point.scale != 1.0 and torch.equal(changed, contribution)):
                return None  # dividing by the scale what was multiplied by it would round
            changed = changed if hook_point.scale == 1.0 else changed / hook_point.scale
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        self.callback(hook_point.module.register_forward_hook(hook).remove)

    def _batched(self, see: Callable[[Tensor], Tensor | None], x: Tensor) -> Tensor | None:
        """Calls `see` with [B, T, C]; some layers (OPT's feed-forward) get all positions in one row, [B * T, C]."""
        if x.dim() > 2:
            return see(x)
        changed = see(x.unflatten(0, (self._prompts, -1)))
        return None if changed is None else changed.flatten(0, 1)


# Patterns --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched_attention(model: nn.Module, anatomy: Anatomy, observers: Sequence[Observer]) -> Iterator[None]:
    """While it lasts, observers see each layer's attention."""
    layers = {block.attention: layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None}

    if isinstance(model, GPT):  # never stores its pattern: the same formula on the same queries and keys gives it
        first: list[Tensor] | None = [] if model.settings.value_residual else None  # becomes the first block's values
        with contextlib.ExitStack() as stack:
            for attention, layer in layers.items():
                assert isinstance(attention, CausalSelfAttention)
                hook = partial(_watch_scratch, attention, layer, observers, first)
                stack.callback(attention.qkv.register_forward_hook(hook).remove)
            yield
        return
    from llmlab.anatomy.hf_attention import watched  # loads transformers

    with watched(model, lambda module, call: watch_call(layers[module], call, observers)):
        yield


def watch_call(layer: int, call: AttentionCall, observers: Sequence[Observer]) -> list[Tensor]:
    """Shows a layer's attention to the observers -> its head outputs z in pieces, [H, q, D] each."""
    for observer in _overriding(observers, "attention"):
        observer.attention(layer, call)
    watching = _overriding(observers, "pattern")
    outputs = []
    for first, pattern, z in call.chunks():
        for observer in watching:
            observer.pattern(layer, first, pattern)
        outputs.append(z)
    return outputs


def _watch_scratch(
    attention: CausalSelfAttention,
    layer: int,
    observers: Sequence[Observer],
    first: list[Tensor] | None,
    _: nn.Module,
    args: Any,
    qkv: Tensor,
) -> None:
    watch_call(layer, scratch_call(attention, qkv[0], first), observers)


def scratch_call(attention: CausalSelfAttention, qkv: Tensor, first: list[Tensor] | None) -> AttentionCall:
    """qkv: output of the layer's three projections [T, C + 2 C_kv] -> its attention. first: as `heads` has it."""
    time = qkv.shape[0]
    query, key, value = (
        part[0] for part in attention.heads(qkv[None], first=first)
    )  # [H, T, D], [H_kv, T, D], [H_kv, T, D]
    mask = torch.full((time, time), -math.inf, device=qkv.device).triu(1)[None]  # [1, T, T]
    if getattr(attention, "looks_ahead", False):  # a variant that was built wrongly says so
        mask = torch.zeros_like(mask)
    return AttentionCall.of(query, key, value, mask, attention.scale)
