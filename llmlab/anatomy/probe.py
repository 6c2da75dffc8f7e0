"""The probe: checks by measuring what is claimed of a model. A wrong number is worse than a refusal.

A few random tokens run through the model, and every identity that the panels rest on is checked on what it computes.
No weight is changed: switching a half of each block off is an intervention. What does not hold disables the
panels that need it, with the measure as the reason.

    attention      watching changes no logit; rows sum to 1 and look neither ahead nor out of their window; long
                   prompts come out the same in pieces; pattern times values is the head output
    contributions  pre_attn + attn_out = post_attn, post_attn + mlp_out = post_ffn = the next pre_attn; with the
                   feed-forward off a block adds attn_out and nothing else; with attention off no token hears another
    heads          the head outputs through the output projection, in `into_stream`'s numbers, are attn_out
    attribution    the stream after the last block, in the anatomy's numbers, gives the logits
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, BlockAnatomy, Refusals
from llmlab.anatomy.attention_call import AttentionCall, with_all_keys
from llmlab.anatomy.capture import POINTS, Intervener, Observer, Point, run
from llmlab.anatomy.into_stream import heads_into_stream
from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import LabError

_TOKENS = 12
# What code that was written for no model in particular may raise when a model is built in another way.
_SURPRISES = (LabError, RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class _Tolerance:
    """How far two ways of computing the same may lie apart, relative to the vector's length."""

    sums: float  # one addition, rounded
    paths: float  # two ways through a whole model, or a layer

    @classmethod
    def of(cls, dtype: torch.dtype) -> _Tolerance:
        if dtype in (torch.float16, torch.bfloat16):
            return cls(2 * torch.finfo(dtype).eps, 5e-2)
        return cls(2e-6, 1e-4)


@torch.no_grad()
def probe(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """The same anatomy, with a reason in `refusals` for every panel that cannot be trusted.

    LabError when watching the model changes what it predicts. What running it raises is passed on, and so is every
    error of memory: it is no reason that stays true.
    """
    count = min(_TOKENS, anatomy.context)
    ids = torch.randint(anatomy.id_limit, (count,), generator=torch.Generator().manual_seed(0))
    plain = run(model, anatomy, ids)[0]
    tolerance = _Tolerance.of(plain.dtype)
    seen: _Seen = _SeenWithPatterns()
    attention = _watching_attention(model, anatomy, ids, seen, plain, tolerance)
    if attention is not None:
        seen = _Seen()
        if changed := _unlike(run(model, anatomy, ids, [seen])[0], plain, tolerance.paths):
            raise LabError("This model cannot be looked into.", f"Watching it changes its predictions by {changed}.")
    contributions = _contributions(model, anatomy, ids, seen, tolerance)
    heads = contributions or _heads(anatomy, seen, tolerance)
    if attention is None:
        attention, other = _attention(anatomy, seen, tolerance)
        heads = heads or other
    anatomy = _measured(anatomy, seen)
    attribution = _logits(anatomy, seen, plain, tolerance)
    return replace(anatomy, refusals=Refusals(attention, contributions, heads, attribution))


# What is kept of a pass ---------------------------------------------------------------------------------------------


@dataclass
class _Layer:
    """What one layer showed."""

    residual: dict[Point, Tensor] = field(default_factory=dict)  # [T, C] each
    z: Tensor | None = None  # [T, H, D]
    pattern: Tensor | None = None  # [H, T, T]
    in_pieces: Tensor | None = None  # the same, computed a few rows at a time
    z_of_call: Tensor | None = None  # [H, T, D]
    values: Tensor | None = None  # [H_kv, T, D]


class _Seen(Observer):
    """Keeps the stream of a short prompt at every point, and the head outputs."""

    def __init__(self) -> None:
        self.layers: defaultdict[int, _Layer] = defaultdict(_Layer)
        self.last: Tensor | None = None

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self.layers[layer].residual[point] = x.clone()

    def heads(self, layer: int, z: Tensor) -> None:
        self.layers[layer].z = z.clone()

    def final(self, x: Tensor) -> None:
        self.last = x.clone()


class _SeenWithPatterns(_Seen):
    """Keeps the patterns, too."""

    def attention(self, layer: int, call: AttentionCall) -> None:
        time = call.query.shape[1]
        cuts = sorted({0, time // 3, time})
        pieces = [call.rows(first, last, call.keys(first, last))[0] for first, last in pairwise(cuts)]
        kept = self.layers[layer]
        kept.in_pieces = torch.cat([with_all_keys(piece, time) for piece in pieces], dim=1)
        kept.z_of_call = call.rows(0, time, time)[1].clone()
        kept.values = call.value.clone()

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        self.layers[layer].pattern = pattern.clone()


class _Off(Intervener):
    """Switches one half of every block off."""

    def __init__(self, point: Point) -> None:
        self._point = point

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        return torch.zeros_like(x) if point == self._point else None


def _said(error: Exception) -> str:
    """What surprised, in words. Memory that ran out says nothing about the model, and is passed on."""
    if is_out_of_memory(error):
        raise error
    return f"{type(error).__name__}: {error}"


# The checks ---------------------------------------------------------------------------------------------------------


def _watching_attention(
    model: nn.Module, anatomy: Anatomy, ids: Tensor, seen: _Seen, plain: Tensor, tolerance: _Tolerance
) -> str | None:
    try:
        logits = run(model, anatomy, ids, [seen])[0]
    except _SURPRISES as error:
        return f"Its attention cannot be watched ({_said(error)})."
    changed = _unlike(logits, plain, tolerance.paths)
    return None if changed is None else f"Watching its attention changes its predictions by {changed}."


def _contributions(model: nn.Module, anatomy: Anatomy, ids: Tensor, seen: _Seen, tolerance: _Tolerance) -> str | None:
    """Why what attention and feed-forward add is not what the hook points say; None where it is."""
    for layer, block in enumerate(anatomy.blocks):
        x = seen.layers[layer].residual
        if missing := [point for point in POINTS if point not in x]:
            return f"Layer {layer} never showed its {missing[0]}."
        after = seen.layers[layer + 1].residual.get("pre_attn") if layer + 1 < anatomy.n_layer else seen.last
        sums = [
            ("post_attn + mlp_out is not post_ffn", x["post_attn"], x["mlp_out"], x["post_ffn"]),
            ("post_ffn is not what the next layer reads", x["post_ffn"], torch.zeros_like(x["post_ffn"]), after),
        ]
        if not block.parallel:
            sums.insert(0, ("pre_attn + attn_out is not post_attn", x["pre_attn"], x["attn_out"], x["post_attn"]))
        for what, before, added, total in sums:
            if wrong := _wrong_sum(before, added, total, tolerance):
                return f"In layer {layer} {what}: {wrong}."
    try:
        pass_of = (model, anatomy, ids, tolerance)
        return _without_feed_forward(*pass_of) or _without_attention(*pass_of)
    except _SURPRISES as error:
        return f"Its contributions cannot be changed in a pass ({_said(error)})."


def _without_feed_forward(model: nn.Module, anatomy: Anatomy, ids: Tensor, tolerance: _Tolerance) -> str | None:
    """With every mlp_out set to zero, blocks must add attn_out and nothing else."""
    seen = _Seen()
    run(model, anatomy, ids, [seen], [_Off("mlp_out")])
    for layer in range(anatomy.n_layer):
        x = seen.layers[layer].residual
        if wrong := _wrong_sum(x["pre_attn"], x["attn_out"], x["post_ffn"], tolerance):
            return f"With the feed-forward off, layer {layer} does not add its attn_out: {wrong}."
    return None


def _without_attention(model: nn.Module, anatomy: Anatomy, ids: Tensor, tolerance: _Tolerance) -> str | None:
    """With every attn_out set to zero, no token can hear of another: whatever else mixes them was taken for it."""
    other = ids.clone()
    other[0] = (ids[0] + 1) % anatomy.id_limit
    if len(ids) < 2:
        return None
    both = run(model, anatomy, torch.stack((ids, other)), interventions=[_Off("attn_out")])
    changed = _unlike(both[1, 1:], both[0, 1:], tolerance.paths)
    return None if changed is None else f"With attention off, tokens still change later ones, by {changed}."


def _heads(anatomy: Anatomy, seen: _Seen, tolerance: _Tolerance) -> str | None:
    """Why the head outputs do not make up attn_out; None where they do."""
    for layer, block in enumerate(anatomy.blocks):
        if block.projection is None:
            continue
        z = seen.layers[layer].z
        if z is None:
            return f"Layer {layer} never showed its heads."
        try:
            whole = heads_into_stream(block).whole(z.flatten(-2))
        except _SURPRISES as error:
            return f"The output projection of layer {layer} cannot be read ({_said(error)})."
        if wrong := _unlike(whole, seen.layers[layer].residual["attn_out"], tolerance.paths):
            return f"In layer {layer} the head outputs do not add up to attn_out: they differ by {wrong}."
    return None


def _attention(anatomy: Anatomy, seen: _Seen, tolerance: _Tolerance) -> tuple[str | None, str | None]:
    """Why patterns are wrong, and why heads are; None where they are not."""
    for layer, block in enumerate(anatomy.blocks):
        if block.attention is None:
            continue
        kept = seen.layers[layer]
        if kept.pattern is None or kept.z_of_call is None or kept.values is None or kept.in_pieces is None:
            return f"Layer {layer} never showed its attention.", None
        if (count := kept.pattern.shape[0]) != anatomy.n_head:
            return (f"Layer {layer} has {count} patterns, for {anatomy.n_head} heads.",) * 2
        if wrong := _wrong_pattern(kept.pattern, block, anatomy.sinks):
            return f"In layer {layer} {wrong}.", None
        if pieces := _unlike(kept.in_pieces, kept.pattern, tolerance.paths):
            return f"In layer {layer} the pattern comes out different in pieces, by {pieces}.", None
        group = kept.pattern.shape[0] // kept.values.shape[0]
        expected = kept.pattern @ kept.values.repeat_interleave(group, 0)  # [H, T, D]
        if unlike := _unlike(expected, kept.z_of_call, tolerance.paths):
            return f"In layer {layer} the pattern times the values is not the head output, by {unlike}.", None
        if block.gated or kept.z is None:
            continue
        if unlike := _unlike(kept.z, expected.transpose(0, 1), tolerance.paths):
            from llmlab.anatomy.hf_attention import eager_attention_of  # loads transformers: the lab's own GPT has none

            why = f"In layer {layer} the head outputs are not what is projected into the stream, by {unlike}."
            # The interface goes on with the head outputs shown: then what follows is unknown, but the pattern is not.
            return None if eager_attention_of(block.attention) is not None else why, why
    return None, None


def _measured(anatomy: Anatomy, seen: _Seen) -> Anatomy:
    """The anatomy with the heads that values came in, where all layers agree: settings may mean something else."""
    shapes = {(kept.values.shape[0], kept.values.shape[2]) for kept in seen.layers.values() if kept.values is not None}
    if len(shapes) != 1:
        return anatomy
    n_kv_head, head_dim = shapes.pop()
    return replace(anatomy, n_kv_head=n_kv_head, head_dim=head_dim)


def _wrong_pattern(pattern: Tensor, block: BlockAnatomy, sinks: bool) -> str | None:
    """What a pattern [H, T, T] must not do."""
    time = pattern.shape[-1]
    sums = pattern.float().sum(-1) - 1
    off = (sums.clamp(min=0) if sinks else sums.abs()).max().item()  # a sink takes its part of each row
    # In half precision each of T weights is rounded.
    if not off <= 1e-5 + torch.finfo(pattern.dtype).eps:
        return f"the rows of the pattern do not sum to 1: they are off by {off:.2g}"
    ahead = pattern.triu(1).abs().max().item()
    if ahead != 0.0:
        return f"the pattern looks ahead: a later position gets {ahead:.2g}"
    if block.window is not None and block.window < time:
        beyond = pattern.tril(-block.window).abs().max().item()
        if beyond != 0.0:
            return f"the pattern looks beyond its window of {block.window} tokens: a position there gets {beyond:.2g}"
    return None


def _logits(anatomy: Anatomy, seen: _Seen, plain: Tensor, tolerance: _Tolerance) -> str | None:
    if seen.last is None:
        return "The stream before its final norm was never shown."
    wrong = _unlike(anatomy.logits(seen.last), plain, tolerance.paths)
    return None if wrong is None else f"The last stream, normalised and unembedded, differs from its logits by {wrong}."


# Measures -----------------------------------------------------------------------------------------------------------


def _unlike(ours: Tensor, theirs: Tensor, tolerance: float) -> str | None:
    """How far two tensors are apart, in words, where it is more than `tolerance` of a vector's length."""
    if ours.shape != theirs.shape:
        return f"shape ({tuple(ours.shape)} for {tuple(theirs.shape)})"
    ours, theirs = ours.double(), theirs.double()
    apart = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-12)).max().item()
    return None if apart <= tolerance else f"{100 * apart:.2f} % of their length"


def _wrong_sum(before: Tensor, added: Tensor, total: Tensor | None, tolerance: _Tolerance) -> str | None:
    """How far before + added is from total, against the rounding of one addition and the size of what was added."""
    if total is None or total.shape != before.shape:
        return "it was never shown"
    before, added, total = before.double(), added.double(), total.double()
    apart = (before + added - total).norm(dim=-1)
    allowed = tolerance.sums * (before.norm(dim=-1) + total.norm(dim=-1)) + 1e-5 * added.norm(dim=-1)
    worst = (apart / added.norm(dim=-1).clamp(min=1e-12)).max().item()
    return None if bool((apart <= allowed).all()) else f"off by {100 * worst:.2f} % of what is added"
