"""Stages of the feed-forward: norm, up, activation, down, back into the stream; then the layers that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.gpt.model import FeedForward
from llmlab.walk.focus import Focus, product, value
from llmlab.walk.norms import into_stream, layers_stage, norm_stage, sum_stage
from llmlab.walk.parts import is_direct
from llmlab.walk.stage import Stage
from llmlab.walk.sums import bracketed, number


def feed_forward_stages(focus: Focus) -> Iterator[Stage]:
    """From the stream between the layer's halves to the stream behind the layer."""
    seen, parts, p = focus.seen, focus.parts, focus.position
    if seen.feed_forward_norm is not None:
        why = "The feed-forward, too, reads a copy of the stream at a standard size."
        yield norm_stage(focus, "feed_forward_norm", "Norm before the feed-forward", seen.feed_forward_norm, why)
    block = focus.anatomy.blocks[focus.layer]
    added = seen.added["mlp_out"][focus.layer]
    if parts.up is None or parts.down is None or parts.down not in seen.inputs or parts.up not in seen.outputs:
        note = "Its parts cannot be followed one by one here, as with experts: the value is what the whole of it adds."
        why = "It works on each position alone, and holds most of the model's parameters."
        values = [value("out", ("component",), added)]
        yield focus.stage("feed_forward", "Feed-forward", "", "", why, "contributions", values, None, added, note)
    else:
        up, gate = up_and_gate(focus)
        yield _up(focus, up, gate)
        yield _neurons(focus, up, gate)
        direct = is_direct(block.mlp, parts.down)
        yield _down(focus, added if direct else seen.outputs[parts.down][p], "feed_forward" if direct else "down")
        if not direct:
            yield into_stream(focus, "feed_forward", seen.outputs[parts.down][p], added, block.mlp)
    yield _after(focus, added)
    if focus.layer + 1 < focus.anatomy.n_layer:
        yield _rest(focus)


def up_and_gate(focus: Focus) -> tuple[Tensor, Tensor | None]:
    parts, p = focus.parts, focus.position
    assert parts.up is not None
    up = focus.seen.outputs[parts.up][p]
    if parts.gated_up:
        gate, up = up.chunk(2)
        return up, gate
    return up, None if parts.gate is None else focus.seen.outputs[parts.gate][p]


def _up(focus: Focus, up: Tensor, gate: Tensor | None) -> Stage:
    parts = focus.parts
    assert parts.up is not None
    x = focus.seen.inputs[parts.up][focus.position]
    rows = torch.arange(len(up)) + (len(up) if parts.gated_up else 0)
    made = product(parts.up, x, rows)
    values = [value("h", ("neuron",), up)]
    formula = numbers = ""
    if made is not None:
        formula, numbers = made.formula("h", "W_up", "norm(x)"), made.numbers("h")
    if gate is not None:
        values.append(value("gate", ("neuron",), gate))
        formula += ",  g = W_gate · norm(x)"
        numbers += f"; g[0] = {number(float(gate[0]))}"
    why = "Each neuron looks for one direction in the stream; there are several times as many neurons as components."
    recomputed = None if made is None else made.y
    return focus.stage("up", "Up", formula, numbers, why, "parameters", values, recomputed, up)


def _neurons(focus: Focus, up: Tensor, gate: Tensor | None) -> Stage:
    parts = focus.parts
    assert parts.down is not None
    seen = focus.seen.inputs[parts.down][focus.position]
    activate, name = activation_of(focus)
    into = up if gate is None else gate
    recomputed = None
    if activate is not None:
        recomputed = activate(into) if gate is None else activate(into) * up
    formula = f"n = {name}(h)" if gate is None else f"n = {name}(g) · h"
    numbers = f"n[0] = {name}({number(float(into[0]))})" + ("" if gate is None else f" · {bracketed(float(up[0]))}")
    positive = int((seen > 0).sum())
    numbers += f" = {number(float(seen[0]))}; {positive:,} of {len(seen):,} neurons are above zero"
    values = [value("n", ("neuron",), seen), value("before", ("neuron",), into)]
    why = "Without this bend two linear layers would be one, and no number of layers could do more than one."
    return focus.stage("neurons", "Activation", formula, numbers, why, "parameters", values, recomputed, seen)


def activation_of(focus: Focus) -> tuple[Callable[[Tensor], Tensor] | None, str]:
    """The function, None where the family keeps it nowhere, and its name."""
    parts = focus.parts
    if isinstance(parts.feed_forward, FeedForward):
        match parts.feed_forward.activation:
            case "swiglu":
                return F.silu, "SiLU"
            case "relu2":
                return (lambda x: F.relu(x).square()), "ReLU²"
            case "gelu_exact":
                return F.gelu, "GELU"
            case _:
                return (lambda x: F.gelu(x, approximate="tanh")), "GELU"
    if parts.activation is None:
        return None, "activation"
    module = parts.activation
    names = {"SiLUActivation": "SiLU", "NewGELUActivation": "GELU", "GELUActivation": "GELU", "GELUTanh": "GELU"}
    kind = type(module).__name__
    return module.forward, names.get(kind, kind)


def _down(focus: Focus, seen: Tensor, name: str) -> Stage:
    parts = focus.parts
    assert parts.down is not None
    x = focus.seen.inputs[parts.down][focus.position]
    made = product(parts.down, x)
    formula, numbers = ("", "") if made is None else (made.formula("out", "W_down", "n"), made.numbers("out"))
    why = "Each neuron that is active writes its own direction into the stream: what the model knows by heart is here."
    values, recomputed = [value("out", ("component",), seen)], None if made is None else made.y
    return focus.stage(name, "Down", formula, numbers, why, "contributions", values, recomputed, seen)


def _after(focus: Focus, added: Tensor) -> Stage:
    seen, layer = focus.seen, focus.layer
    note = ""
    if focus.anatomy.blocks[layer].parallel:
        note = "Attention and feed-forward read the same stream in this family; x before is that stream + attention."
    why = "The layer is done: the stream has what attention gathered and what the feed-forward made of it."
    x, after = seen.added["post_attn"][layer], seen.added["post_ffn"][layer]
    return sum_stage(focus, "after", f"Residual stream after layer {layer}", x, added, after, why, note)


def _rest(focus: Focus) -> Stage:
    """What the layers behind the chosen one add, in one stage."""
    layers = range(focus.layer + 1, focus.anatomy.n_layer)
    title = f"… layer {layers[0]}" if len(layers) == 1 else f"… layers {layers[0]} to {layers[-1]}"
    why = "The same stages again, with weights of their own: choose another layer to walk through it."
    start = focus.seen.added["post_ffn"][focus.layer]
    return layers_stage(focus, "rest", title, layers, ("x", start), focus.seen.final, why, "lens")
