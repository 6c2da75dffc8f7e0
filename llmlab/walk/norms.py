"""Stages that both halves of a block have: the norm in front, what stands between a half and the stream, the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import FinalNorm, HookPoint
from llmlab.walk.focus import Focus, norm_of, value
from llmlab.walk.stage import Stage
from llmlab.walk.sums import bracketed, number, total, vector


def norm_stage(focus: Focus, name: str, module: nn.Module) -> Stage:
    """A norm of the stream at the position."""
    x, y = focus.seen.inputs[module][focus.position], focus.seen.outputs[module][focus.position]
    return _norm(focus, name, module, x, y, text=name)


def _norm(focus: Focus, name: str, module: nn.Module, x: Tensor, y: Tensor, text: str) -> Stage:
    values = [value("y", ("component",), y), value("x", ("component",), x)]
    norm = norm_of(module, len(x))
    if norm is None:
        return focus.stage(name, "", values, None, y, text=text, formula="")
    formula, written = norm_words(norm, x, y, "y", "x")
    spread = number(float(norm.scale(x)) ** 2 - norm.eps)
    centred = norm.kind == "layernorm"
    what = f"mean {number(float(x.mean()))}, variance {spread}" if centred else f"mean of squares {spread}"
    numbers = (
        f"{what}, ε {number(norm.eps)}: {written}; "
        f"the vector's length goes from {number(float(x.norm()))} to {number(float(y.norm()))}"
    )
    stored = module.weight
    plus_one = isinstance(stored, Tensor) and not torch.equal(norm.weight, stored.detach().float().cpu())
    note = "w is 1 + the stored weight in this family." if plus_one else ""
    return focus.stage(name, numbers, values, norm.apply(x), y, note, text=text, formula=formula)


def norm_words(norm: FinalNorm, x: Tensor, y: Tensor, letter: str, of: str) -> tuple[str, str]:
    """The formula of `letter` = norm(`of`), and its first component with the numbers in it."""
    centred, first = norm.kind == "layernorm", float(x[0])
    top, spread = (f"({of} − mean)", "var") if centred else (of, f"mean({of}²)")
    above = f"({number(first)} − {bracketed(float(x.mean()))})" if centred else bracketed(first)
    bias, added = ("", "") if norm.bias is None else (" + b", f" + {bracketed(float(norm.bias[0]))}")
    numbers = f"{above} / {number(float(norm.scale(x)))} · {bracketed(float(norm.weight[0]))}{added}"
    return f"{letter} = {top} / √({spread} + ε) · w{bias}", f"{letter}[0] = {numbers} = {number(float(y[0]))}"


def sum_stage(focus: Focus, name: str, x: Tensor, out: Tensor, after: Tensor, note: str = "", **facts: Any) -> Stage:
    """What a half of the block gives is added to the stream."""
    numbers = f"x[0] = {bracketed(float(x[0]))} + {bracketed(float(out[0]))} = {number(float(after[0]))}"
    values = [value(name, ("component",), of) for name, of in (("x", after), ("x before", x), ("out", out))]
    return focus.stage(name, numbers, values, x + out, after, note, **facts)


def layers_stage(
    focus: Focus, name: str, layers: Sequence[int], start: tuple[str, Tensor], end: Tensor, **facts: Any
) -> Stage:
    """What some layers add to the stream, half by half. start: the stream before them, with its name."""
    added, (letter, x) = focus.seen.added, start
    rows = torch.tensor(layers, dtype=torch.long)
    parts = torch.stack([added["attn_out"][rows], added["mlp_out"][rows]], 1).flatten(0, 1)  # [2 l, C]
    values = [value("x", ("component",), end)]
    formula, numbers = f"x = {letter}", f"x = {vector(end)}"
    if layers:
        formula += f" + what {layer_words(layers)} added"
        terms = [bracketed(one) for one in [float(x[0]), *parts[:, 0].tolist()]]
        numbers = f"x[0] = {total(terms, float(end[0]))}"
        names = [f"{half} of layer {at}" for at in layers for half in ("attention", "feed-forward")]
        values.append(value("length of what is added", ("part",), parts.norm(dim=-1), names))
    return focus.stage(name, numbers, values, x + parts.sum(0), end, formula=formula, **facts)


def layer_words(layers: Sequence[int]) -> str:
    """`layer 2`, `layers 2 to 5`."""
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"


def into_stream(focus: Focus, name: str, given: Tensor, added: Tensor, half: HookPoint) -> Stage:
    """What a family does with a half's output before it is added: a norm (Gemma 2), a multiplier (Granite)."""
    if half.scale == 1.0:
        return _norm(focus, name, half.module, given, added, "into_stream")
    numbers = f"out[0] = {bracketed(float(given[0]))} · {number(half.scale)} = {number(float(added[0]))}"
    values, formula = [value("out", ("component",), added)], "out = out · m"
    return focus.stage(name, numbers, values, given * half.scale, added, text="into_stream", formula=formula)
