"""Stages that both halves of a block have: the norm in front, what stands between a half and the stream, the sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import FinalNorm, HookPoint
from llmlab.walk.focus import Focus, norm_of, value
from llmlab.walk.stage import Stage
from llmlab.walk.sums import bracketed, number, total, vector


def norm_stage(focus: Focus, name: str, title: str, module: nn.Module, why: str) -> Stage:
    """A norm of the stream at the position."""
    x, y = focus.seen.inputs[module][focus.position], focus.seen.outputs[module][focus.position]
    return _norm(focus, name, title, module, x, y, why)


def _norm(focus: Focus, name: str, title: str, module: nn.Module, x: Tensor, y: Tensor, why: str) -> Stage:
    values = [value("y", ("component",), y), value("x", ("component",), x)]
    norm = norm_of(module, len(x))
    if norm is None:
        return focus.stage(name, title, "", "", why, "residual", values, None, y)
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
    return focus.stage(name, title, formula, numbers, why, "residual", values, norm.apply(x), y, note)


def norm_words(norm: FinalNorm, x: Tensor, y: Tensor, letter: str, of: str) -> tuple[str, str]:
    """The formula of `letter` = norm(`of`), and its first component with the numbers in it."""
    centred, first = norm.kind == "layernorm", float(x[0])
    top, spread = (f"({of} − mean)", "var") if centred else (of, f"mean({of}²)")
    above = f"({number(first)} − {bracketed(float(x.mean()))})" if centred else bracketed(first)
    bias, added = ("", "") if norm.bias is None else (" + b", f" + {bracketed(float(norm.bias[0]))}")
    numbers = f"{above} / {number(float(norm.scale(x)))} · {bracketed(float(norm.weight[0]))}{added}"
    return f"{letter} = {top} / √({spread} + ε) · w{bias}", f"{letter}[0] = {numbers} = {number(float(y[0]))}"


def sum_stage(
    focus: Focus, name: str, title: str, x: Tensor, out: Tensor, after: Tensor, why: str, note: str = ""
) -> Stage:
    """What a half of the block gives is added to the stream."""
    numbers = f"x[0] = {bracketed(float(x[0]))} + {bracketed(float(out[0]))} = {number(float(after[0]))}"
    values = [value(name, ("component",), of) for name, of in (("x", after), ("x before", x), ("out", out))]
    return focus.stage(name, title, "x = x + out", numbers, why, "residual", values, x + out, after, note)


def layers_stage(
    focus: Focus,
    name: str,
    title: str,
    layers: Sequence[int],
    start: tuple[str, Tensor],
    end: Tensor,
    why: str,
    panel: str,
) -> Stage:
    """What some layers add to the stream, half by half. start: the stream before them, with its name."""
    added, (letter, x) = focus.seen.added, start
    rows = torch.tensor(layers, dtype=torch.long)
    parts = torch.stack([added["attn_out"][rows], added["mlp_out"][rows]], 1).flatten(0, 1)  # [2 l, C]
    values = [value("x", ("component",), end)]
    formula, numbers = f"x = {letter}", f"x = {vector(end)}"
    if layers:
        those = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        formula += f" + what {those} added"
        terms = [bracketed(one) for one in [float(x[0]), *parts[:, 0].tolist()]]
        numbers = f"x[0] = {total(terms, float(end[0]))}"
        names = [f"{half} of layer {at}" for at in layers for half in ("attention", "feed-forward")]
        values.append(value("length of what is added", ("part",), parts.norm(dim=-1), names))
    return focus.stage(name, title, formula, numbers, why, panel, values, x + parts.sum(0), end)


def into_stream(focus: Focus, name: str, given: Tensor, added: Tensor, half: HookPoint) -> Stage:
    """What a family does with a half's output before it is added: a norm (Gemma 2), a multiplier (Granite)."""
    title, why = (
        "On the way into the stream",
        "This family bounds what each half adds, so that deep models stay stable.",
    )
    if half.scale != 1.0:
        numbers = f"out[0] = {bracketed(float(given[0]))} · {number(half.scale)} = {number(float(added[0]))}"
        values = [value("out", ("component",), added)]
        return focus.stage(name, title, "out = out · m", numbers, why, "residual", values, given * half.scale, added)
    return _norm(focus, name, title, half.module, given, added, why)
