"""Stages of the feed-forward: norm, up, activation, down, back into the stream; then the layers that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.gpt.model import FeedForward
from llmlab.walk.focus import Focus, product, value, worked
from llmlab.walk.norms import into_stream, layer_words, layers_stage, norm_stage, sum_stage
from llmlab.walk.parts import is_direct
from llmlab.walk.stage import Stage
from llmlab.walk.sums import bracketed, number


def feed_forward_stages(focus: Focus) -> Iterator[Stage]:
    """From the stream between the layer's halves to the stream behind the layer."""
    seen, parts, p = focus.seen, focus.parts, focus.position
    if seen.feed_forward_norm is not None:
        yield norm_stage(focus, "feed_forward_norm", seen.feed_forward_norm)
    block = focus.anatomy.blocks[focus.layer]
    added = seen.added["mlp_out"][focus.layer]
    if parts.up is None or parts.down is None or parts.down not in seen.inputs or parts.up not in seen.outputs:
        note = "Its parts cannot be followed one by one here, as with experts: the value is what the whole of it adds."
        yield focus.stage("feed_forward", "", [value("out", ("component",), added)], None, added, note)
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
    numbers, recomputed, bias = worked(product(parts.up, x, rows), "h")
    values = [value("h", ("neuron",), up)]
    if gate is not None:
        values.append(value("gate", ("neuron",), gate))
        numbers += f"; g[0] = {number(float(gate[0]))}"
    facts = {"bias": bias, "gate": "" if gate is None else ",  g = W_gate · norm(x)"}
    return focus.stage("up", numbers, values, recomputed, up, **facts)


def _neurons(focus: Focus, up: Tensor, gate: Tensor | None) -> Stage:
    parts = focus.parts
    assert parts.down is not None
    seen = focus.seen.inputs[parts.down][focus.position]
    activate, name = activation_of(focus)
    into = up if gate is None else gate
    recomputed = None
    if activate is not None:
        recomputed = activate(into) if gate is None else activate(into) * up
    numbers = f"n[0] = {name}({number(float(into[0]))})" + ("" if gate is None else f" · {bracketed(float(up[0]))}")
    positive = int((seen > 0).sum())
    numbers += f" = {number(float(seen[0]))}; {positive:,} of {len(seen):,} neurons are above zero"
    values = [value("n", ("neuron",), seen), value("before", ("neuron",), into)]
    of = "(h)" if gate is None else "(g) · h"
    return focus.stage("neurons", numbers, values, recomputed, seen, activation=name, of=of)


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
    assert focus.parts.down is not None
    x = focus.seen.inputs[focus.parts.down][focus.position]
    numbers, recomputed, bias = worked(product(focus.parts.down, x), "out")
    values = [value("out", ("component",), seen)]
    return focus.stage(name, numbers, values, recomputed, seen, text="down", bias=bias)


def _after(focus: Focus, added: Tensor) -> Stage:
    seen, layer = focus.seen, focus.layer
    note = ""
    if focus.anatomy.blocks[layer].parallel:
        note = "Attention and feed-forward read the same stream in this family; x before is that stream + attention."
    x, after = seen.added["post_attn"][layer], seen.added["post_ffn"][layer]
    return sum_stage(focus, "after", x, added, after, note, layer=layer)


def _rest(focus: Focus) -> Stage:
    """What the layers behind the chosen one add, in one stage."""
    layers, start = range(focus.layer + 1, focus.anatomy.n_layer), focus.seen.added["post_ffn"][focus.layer]
    return layers_stage(focus, "rest", layers, ("x", start), focus.seen.final, which=layer_words(layers))
