"""Stages of the way back: from the loss to the stream before the layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import FinalNorm
from llmlab.anatomy.modules import linear_numbers
from llmlab.core.errors import LabError
from llmlab.core.signs import quoted
from llmlab.gpt.head import next_token_loss
from llmlab.walk.attending import projected, turned, turned_in_pairs
from llmlab.walk.code import code_of
from llmlab.walk.feeding import activation_of, up_and_gate
from llmlab.walk.focus import Focus, compared, differing, norm_of, value
from llmlab.walk.parts import is_direct
from llmlab.walk.stage import Code, Stage, Value, stage_of
from llmlab.walk.sums import number, total

# Of the largest number of a gradient: sums in another order, in fp32.
_TOLERANCE = 1e-3
_DERIVED = "The line is the forward one, which autograd differentiates."
# The stage of the walk forwards that is differentiated.
_FORWARD = {
    "final_norm_gradient": "logits",
    "end_gradient": "final_norm",
    "rest_gradient": "rest",
    "after_gradient": "after",
    "neurons_gradient": "feed_forward",
    "up_gradient": "neurons",
    "feed_forward_norm_gradient": "up",
    "middle_gradient": "feed_forward_norm",
    "weighted_sum_gradient": "attention",
    "score_gradient": "softmax",
    "query_gradient": "score",
    "value_gradient": "weighted_sum",
    "norm_gradient": "query",
    "stream_gradient": "norm",
}
_OTHERWISE = "This family computes this step in its own way: the gradient is autograd's, without a formula."


@dataclass(frozen=True)
class Back:
    """A backward pass over one sequence.

    focus: the walk forwards over the sequence's inputs. index: the weight's index in its matrix as it is stored.
    """

    focus: Focus
    targets: tuple[int, ...]
    loss: float
    logits: Tensor  # [T, V], with its gradient
    inputs: dict[nn.Module, Tensor]  # [1, T, ...], with their gradients
    outputs: dict[nn.Module, Tensor]
    module: nn.Module  # the linear layer whose weight is followed
    index: tuple[int, int]

    def given(self, module: nn.Module | None) -> Tensor | None:
        """Gradient of what a module gave, [T, ...]."""
        return None if module is None else _gradient(self.outputs.get(module))

    def got(self, module: nn.Module | None) -> Tensor | None:
        """Gradient of what a module got, [T, ...]."""
        return None if module is None else _gradient(self.inputs.get(module))

    def stage(
        self,
        name: str,
        numbers: str,
        values: Sequence[Value],
        recomputed: Tensor | None = None,
        seen: Tensor | None = None,
        code: Code | None = None,
        tolerance: float | None = None,
        note: str = "",
        **facts: Any,
    ) -> Stage:
        """A stage whose recomputed gradient must be autograd's; where it is not, it goes without formula. facts: as in
        `stage_of`."""
        if code is None and name in _FORWARD:
            code, note = self.focus.code(_FORWARD[name]), note or _DERIVED
        stage = stage_of(name, numbers, values, code, note, **facts)
        if seen is None:
            return stage
        if tolerance is None:
            tolerance = _TOLERANCE * float(seen.abs().max()) + 1e-9
        without = replace(stage, formula="", numbers=_length(seen), note=_OTHERWISE)
        shown = replace(stage, numbers=f"{numbers}; {_length(seen)}" if seen.dim() else numbers)
        return compared(shown, recomputed, seen, tolerance, without)


def _gradient(x: Tensor | None) -> Tensor | None:
    if x is None or not x.retains_grad or x.grad is None:
        return None
    gradient = x.grad.detach().float().cpu()
    return gradient[0] if gradient.dim() > 2 else gradient


def _length(gradient: Tensor) -> str:
    return f"length {number(float(gradient.norm()))}"


def gradient_stages(back: Back) -> Iterator[Stage]:
    """From the loss to the stream before the layer."""
    yield _loss(back)
    yield from _from_the_end(back)
    yield from _feed_forward(back)
    yield from _attention(back)


def _loss(back: Back) -> Stage:
    focus, p = back.focus, back.focus.position
    logits = back.logits.detach().float().cpu()
    targets = torch.tensor(back.targets)
    losses = -logits.log_softmax(-1)[torch.arange(len(targets)), targets]
    tokens = [focus.opened.tokenizer.token_text(id) for id in back.targets]
    labels = [f"{quoted(before)} → {quoted(after)}" for before, after in zip(focus.tokens, tokens, strict=True)]
    terms = [number(one) for one in losses.tolist()]
    likely = float((-losses[p]).exp())
    return back.stage(
        "loss",
        f"({total(terms, float(losses.sum()))}) / {len(terms)} = {number(back.loss)}; "
        f"position {p} gave {quoted(tokens[p])} the probability {number(likely)}",
        [value("−ln p", ("position",), losses, labels)],
        losses.mean(),
        torch.tensor(back.loss),
        code_of(next_token_loss, "return F.cross_entropy("),
    )


def _from_the_end(back: Back) -> Iterator[Stage]:
    focus, p, anatomy = back.focus, back.focus.position, back.focus.anatomy
    logits = back.logits.detach().float().cpu()[p]
    at_logits = back.logits.grad
    assert at_logits is not None
    grad = at_logits.detach().float().cpu()[p]
    target, count = back.targets[p], len(back.targets)
    one_hot = torch.zeros_like(logits)
    one_hot[target] = 1
    likely = float(logits.softmax(-1)[target])
    text = quoted(focus.opened.tokenizer.token_text(target))
    yield back.stage(
        "logits_gradient",
        f"for {text}: ({number(likely)} − 1) / {count} = {number(float(grad[target]))}",
        [value("∂L/∂logits", ("token of the vocabulary",), grad)],
        (logits.softmax(-1) - one_hot) / count,
        grad,
        code_of(next_token_loss, "return F.cross_entropy("),
        note=_DERIVED,
    )
    slope = torch.full_like(logits, anatomy.logit_scale)
    if anatomy.logit_softcap is not None:
        slope = slope * (1 - (logits / anatomy.logit_softcap).square())
    seen = back.given(anatomy.final_norm)
    unembedding = anatomy.unembedding.detach().float().cpu()
    yield _vector(back, "final_norm_gradient", (grad * slope) @ unembedding, None if seen is None else seen[p])
    yield _through_norm(back, "end_gradient", anatomy.final_norm, None)
    lengths, names = [], []
    for layer, block in enumerate(anatomy.blocks):
        gradient = back.given(block.block)
        if gradient is not None:
            lengths.append(float(gradient.norm()))
            names.append(f"after layer {layer}")
    lengths_said = ", ".join(f"{name} {number(one)}" for name, one in zip(names, lengths, strict=True))
    by_layer = value("length of ∂L/∂x", ("layer",), torch.tensor(lengths), names)
    yield back.stage("rest_gradient", f"length over all positions: {lengths_said}", [by_layer])


def _vector(back: Back, name: str, recomputed: Tensor | None, seen: Tensor | None, **facts: Any) -> Stage:
    """A gradient at the position, as a strip."""
    shown = seen if seen is not None else recomputed
    values = [] if shown is None else [value("gradient", ("component",), shown)]
    numbers = "" if shown is None else f"first component {number(float(shown[0]))}"
    return back.stage(name, numbers, values, recomputed, seen, **facts)


def through_norm(norm: FinalNorm, x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of a norm's output [C] -> of its input x [C]."""
    centred, scale = norm.centred(x), norm.scale(x)
    unit, weighted = centred / scale, gradient * norm.weight
    inner = weighted - unit * (weighted * unit).mean()
    if norm.kind == "layernorm":
        inner = inner - weighted.mean()
    return inner / scale


def _through_norm(back: Back, name: str, module: nn.Module, straight: Tensor | None, **facts: Any) -> Stage:
    """The gradient before a norm; straight: what comes along the stream itself."""
    p, x = back.focus.position, back.focus.seen.inputs[module]
    given, got = back.given(module), back.got(module)
    norm = norm_of(module, x.shape[-1])
    recomputed = None
    if norm is not None and given is not None:
        recomputed = through_norm(norm, x[p], given[p])
        if straight is not None:
            recomputed = recomputed + straight
    facts["along"] = "" if straight is None else "∂L/∂x of the stream + "
    facts["centring"] = " − mean(w·g)" if norm is not None and norm.kind == "layernorm" else ""
    return _vector(back, name, recomputed, None if got is None else got[p], **facts)


def _matrix(module: nn.Module) -> Tensor | None:
    """[out, in] of a linear layer."""
    try:
        return linear_numbers(module).weight.detach().float().cpu()
    except LabError:
        return None


def _back_through(module: nn.Module, gradient: Tensor | None) -> Tensor | None:
    matrix = _matrix(module)
    return None if matrix is None or gradient is None else gradient @ matrix


def _feed_forward(back: Back) -> Iterator[Stage]:
    focus, p = back.focus, back.focus.position
    parts, block = focus.parts, focus.anatomy.blocks[focus.layer]
    after = back.given(block.block)
    if after is None:
        return
    added = back.given(parts.down) if is_direct(block.mlp, parts.down) else None
    yield back.stage(
        "after_gradient",
        f"first component {number(float(after[p, 0]))}",
        [value("∂L/∂x", ("component",), after[p]), value("at all positions", ("position", "component"), after)],
        after[p],
        None if added is None else added[p],
        layer=focus.layer,
    )
    if parts.up is None or parts.down is None or back.got(parts.down) is None:
        return
    out, neurons, up = back.given(parts.down), back.got(parts.down), back.given(parts.up)
    assert neurons is not None
    recomputed = _back_through(parts.down, None if out is None else out[p])
    yield _vector(back, "neurons_gradient", recomputed, neurons[p])
    if up is not None:
        yield _bend(back, neurons[p], up[p])
    if focus.seen.feed_forward_norm is not None and up is not None:
        norm = focus.seen.feed_forward_norm
        behind = _back_through(parts.up, up[p])
        gate = back.given(parts.gate)
        if parts.gate is not None and gate is not None and behind is not None:
            other = _back_through(parts.gate, gate[p])
            behind = None if other is None else behind + other
        seen = back.given(norm)
        gated = "" if parts.gate is None else " + W_gateᵀ · ∂L/∂g"
        shared = norm is focus.seen.norm  # attention reads the same norm, too
        yield _vector(
            back,
            "feed_forward_norm_gradient",
            None if shared else behind,
            None if seen is None else seen[p],
            gate=gated,
        )
        if not block.parallel:
            yield _through_norm(back, "middle_gradient", norm, after[p])


def _bend(back: Back, neurons: Tensor, seen: Tensor) -> Stage:
    """Through the activation, by its slope."""
    focus = back.focus
    h, gate = up_and_gate(focus)
    activate, name = activation_of(focus)
    recomputed = None
    if activate is not None:
        into = (h if gate is None else gate).clone().requires_grad_(True)
        with torch.enable_grad():
            bent = activate(into)
            (slope,) = torch.autograd.grad(bent.sum(), into)
        if gate is None:
            recomputed = neurons * slope
        else:
            recomputed = neurons * bent.detach()
            if focus.parts.gated_up:
                recomputed = torch.cat([neurons * h * slope, recomputed])
    of = "'(h)" if gate is None else "(g)"
    return _vector(back, "up_gradient", recomputed, seen, activation=name, of=of)


def _attention(back: Back) -> Iterator[Stage]:
    focus, p = back.focus, back.focus.position
    parts, seen, anatomy = focus.parts, focus.seen, focus.anatomy
    out, z = back.given(parts.out), back.got(parts.out)
    if out is None or z is None:
        return
    yield _vector(back, "weighted_sum_gradient", _back_through(parts.out, out[p]), z[p])
    found = projected(focus)
    by_head = z.unflatten(-1, (anatomy.n_head, -1))  # [T, H, D]
    group = anatomy.n_head // anatomy.n_kv_head
    first = focus.head // group * group
    pattern, heads = seen.heads.pattern, seen.heads
    slopes = pattern[p] * (by_head[p, focus.head] @ heads.value.T)
    scores = slopes - pattern[p] * slopes.sum()
    yield back.stage(
        "score_gradient",
        f"with position {focus.key}: {number(float(scores[focus.key]))}",
        [value("∂L/∂score", ("key position",), scores, focus.token_labels)],
    )
    if "query" in found and not parts.query_norms:
        projection = back.given(found["query"].module)
        if projection is not None:
            gradient = heads.scale * (scores @ heads.key)
            if heads.softcap is not None and heads.capped is not None:
                bend = 1 - (heads.capped[p] / heads.softcap).square()
                gradient = heads.scale * ((scores * bend) @ heads.key)
            own = projection[p, found["query"].rows]
            if seen.rotary is not None:
                cos, sin = seen.rotary
                ways = [turned(gradient, cos[p], -sin[p]), turned_in_pairs(gradient, cos[p], -sin[p])]
                gradient = min(ways, key=lambda way: differing(way, own))
            back_turned = "" if seen.rotary is None else ", turned back"
            yield _vector(back, "query_gradient", gradient, own, turned=back_turned)
    if "value" in found and group == 1 and heads.sink is None:
        projection = back.given(found["value"].module)
        if projection is not None and getattr(parts.attention, "value_mix", None) is None:
            j = focus.key
            recomputed = pattern[:, j] @ by_head[:, first]
            yield _vector(back, "value_gradient", recomputed, projection[j, found["value"].rows], at=j)
    yield from _before_attention(back)


def _before_attention(back: Back) -> Iterator[Stage]:
    focus, p = back.focus, back.focus.position
    norm, block = focus.seen.norm, focus.anatomy.blocks[focus.layer]
    if norm is None:
        return
    shared = norm is focus.seen.feed_forward_norm
    parts = [_back_through(one, None if (g := back.given(one)) is None else g[p]) for one in focus.parts.projections]
    behind: Tensor | None = None
    if parts and not shared and all(one is not None for one in parts):
        behind = torch.stack([one for one in parts if one is not None]).sum(0)
    seen = back.given(norm)
    yield _vector(back, "norm_gradient", behind, None if seen is None else seen[p])
    straight = back.got(block.mid) if block.mid is not None else None
    if straight is not None:
        yield _through_norm(back, "stream_gradient", norm, straight[p], layer=focus.layer)
