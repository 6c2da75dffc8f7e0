"""Stages that both halves of a block have: the norm in front, and what stands between a half and the stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import HookPoint
from llmlab.walk.place import Place, norm_of, value
from llmlab.walk.stage import Stage
from llmlab.walk.sums import bracketed, number


def norm_stage(place: Place, name: str, title: str, module: nn.Module, why: str) -> Stage:
    """A norm of the stream at the position."""
    x, y = place.seen.inputs[module][place.position], place.seen.outputs[module][place.position]
    return _norm(place, name, title, module, x, y, why)


def _norm(place: Place, name: str, title: str, module: nn.Module, x: Tensor, y: Tensor, why: str) -> Stage:
    values = [value("y", ("component",), y), value("x", ("component",), x)]
    norm = norm_of(module, len(x))
    if norm is None:
        return place.stage(name, title, "", "", why, "residual", values, None, y)
    mean, scale = float(x.mean()), float(norm.scale(x))
    weight, bias = float(norm.weight[0]), None if norm.bias is None else float(norm.bias[0])
    added = "" if bias is None else f" + {bracketed(bias)}"
    if norm.kind == "layernorm":
        formula = "y = (x − mean) / √(var + ε) · w" + ("" if bias is None else " + b")
        top, what = (
            f"({number(float(x[0]))} − {bracketed(mean)})",
            f"mean {number(mean)}, variance {number(scale**2 - norm.eps)}",
        )
    else:
        formula = "y = x / √(mean(x²) + ε) · w" + ("" if bias is None else " + b")
        top, what = number(float(x[0])), f"mean of squares {number(scale**2 - norm.eps)}"
    numbers = (
        f"{what}, ε {number(norm.eps)}: "
        f"y[0] = {top} / {number(scale)} · {bracketed(weight)}{added} = {number(float(y[0]))}; "
        f"the vector's length goes from {number(float(x.norm()))} to {number(float(y.norm()))}"
    )
    stored = module.weight
    plus_one = isinstance(stored, Tensor) and not torch.equal(norm.weight, stored.detach().float().cpu())
    note = "w is 1 + the stored weight in this family." if plus_one else ""
    return place.stage(name, title, formula, numbers, why, "residual", values, norm.apply(x), y, note)


def into_stream(place: Place, name: str, given: Tensor, added: Tensor, half: HookPoint) -> Stage:
    """What a family does with a half's output before it is added: a norm (Gemma 2), a multiplier (Granite)."""
    title, why = (
        "On the way into the stream",
        "This family bounds what each half adds, so that deep models stay stable.",
    )
    if half.scale != 1.0:
        numbers = f"out[0] = {bracketed(float(given[0]))} · {number(half.scale)} = {number(float(added[0]))}"
        values = [value("out", ("component",), added)]
        return place.stage(name, title, "out = out · m", numbers, why, "residual", values, given * half.scale, added)
    return _norm(place, name, title, half.module, given, added, why)
