"""Stages of attention: norm, query, key and value, rotation, one score, mask, softmax, weighted sum, output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmlab.walk.focus import Focus, differing, norm_of, product, value, worked
from llmlab.walk.norms import into_stream, norm_stage, norm_words, sum_stage
from llmlab.walk.parts import is_direct
from llmlab.walk.stage import Stage, Value
from llmlab.walk.sums import bracketed, dot, number, total

_VECTORS = ("query", "key", "value")


@dataclass(frozen=True)
class _Projected:
    """The chosen head's vector of each kind, as its projection gives it. rows: of the module's output."""

    module: nn.Module
    rows: Tensor  # [D]
    vectors: Tensor  # [T, D]


def attention_stages(focus: Focus) -> Iterator[Stage]:
    """From the stream before the layer to the stream between its halves."""
    seen, p, j = focus.seen, focus.position, focus.key
    if seen.norm is not None:
        yield norm_stage(focus, "norm", seen.norm)
    found = projected(focus)
    for kind, at in zip(_VECTORS, (p, j, j), strict=True):
        yield _projection(focus, kind, at, found.get(kind))
    if focus.parts.query_norms:
        yield _query_norm(focus, found)
    if getattr(focus.parts.attention, "value_mix", None) is not None:
        yield _value_mix(focus, found)
    if seen.rotary is not None:
        yield _rotation(focus, found)
    yield from _pattern_stages(focus)
    yield from _output_stages(focus)


def projected(focus: Focus) -> dict[str, _Projected]:
    """By kind; empty where the layout of the projections is none of those known here.

    What proves a layout is the value, which nothing turns on its way to the weighted sum.
    """
    parts, seen, anatomy = focus.parts, focus.seen, focus.anatomy
    dims = (seen.heads.query.shape[-1], seen.heads.key.shape[-1], seen.heads.value.shape[-1])
    group = anatomy.n_head // anatomy.n_kv_head
    heads = (anatomy.n_head, anatomy.n_kv_head, anatomy.n_kv_head)
    chosen = (focus.head, focus.head // group, focus.head // group)
    modules = parts.projections
    if not modules or any(module not in seen.outputs for module in modules):
        return {}
    outputs = [seen.outputs[module] for module in modules]
    layouts: list[list[Tensor]] = []  # rows of each kind
    if len(modules) == 3:
        layouts.append([torch.arange(dim) + head * dim for dim, head in zip(dims, chosen, strict=True)])
        outputs_of, modules_of = outputs, list(modules)
    else:
        size, dim = outputs[0].shape[-1], dims[0]
        all_rows = torch.arange(size)
        if size == sum(count * width for count, width in zip(heads, dims, strict=True)):
            blocks = all_rows.split([count * width for count, width in zip(heads, dims, strict=True)])
            side_by_side = zip(blocks, heads, chosen, strict=True)
            layouts.append([rows.view(count, -1)[head] for rows, count, head in side_by_side])
            own = all_rows.view(anatomy.n_kv_head, group + 2, dim)[chosen[1]]  # queries of a group, its key, its value
            layouts.append([own[focus.head % group], own[group], own[group + 1]])
        outputs_of, modules_of = outputs * 3, list(modules) * 3
    mixed = getattr(parts.attention, "value_mix", None) is not None
    for rows in layouts:
        if any(int(one.max()) >= output.shape[-1] for one, output in zip(rows, outputs_of, strict=True)):
            continue
        vectors = [output[:, one] for output, one in zip(outputs_of, rows, strict=True)]
        if mixed or differing(vectors[2], seen.heads.value) <= 1e-3 * max(1.0, float(vectors[2].abs().max())):
            found = zip(_VECTORS, modules_of, rows, vectors, strict=True)
            return {kind: _Projected(module, one, x) for kind, module, one, x in found}
    return {}


def _projection(focus: Focus, kind: str, at: int, projected: _Projected | None) -> Stage:
    letter, axes, token = kind[0], ("dimension of the head",), focus.tokens[at]
    if projected is None:
        own = {"query": focus.seen.heads.query, "key": focus.seen.heads.key, "value": focus.seen.heads.value}[kind]
        values = [value(letter, axes, own[at]), _by_position(f"all {kind} vectors", own)]
        return focus.stage(kind, "", values, None, own, at=at, token=token, bias="")
    x, seen = focus.seen.inputs[projected.module][at], projected.vectors[at]
    numbers, made, bias = worked(product(projected.module, x, projected.rows), letter)
    values = [value(letter, axes, seen)]
    if kind != "query":
        values.append(_by_position(f"all {kind} vectors", projected.vectors))
    return focus.stage(kind, numbers, values, made, seen, at=at, token=token, bias=bias)


def _by_position(name: str, x: Tensor) -> Value:
    return value(name, ("position", "dimension of the head"), x)


def _query_norm(focus: Focus, projected: dict[str, _Projected]) -> Stage:
    """Queries and keys brought to one size, head by head."""
    module, p, axes = focus.parts.query_norms[0], focus.position, ("dimension of the head",)
    query, where = projected.get("query"), normed_query(focus, projected)
    norm = None if query is None else norm_of(module, query.vectors.shape[-1])
    if query is None or where is None or norm is None:
        as_used = [value("q as attention gets it", axes, focus.seen.heads.query[p])]
        return focus.stage("query_norm", "", as_used, None, focus.seen.heads.query, formula="")
    before, seen = query.vectors[p], focus.seen.outputs[module][where]
    formula, numbers = norm_words(norm, before, seen, "q", "q")
    values = [value("q", axes, seen), value("q before", axes, before)]
    return focus.stage("query_norm", numbers, values, norm.apply(before), seen, formula=formula)


def normed_query(focus: Focus, projected: dict[str, _Projected]) -> tuple[int, int] | None:
    """Where in what the norm of the queries gives this one stands; None where that cannot be told.

    A family may norm [T, H, D] or [H, T, D]: the formula tells which.
    """
    module, p, heads = focus.parts.query_norms[0], focus.position, focus.anatomy.n_head
    query, output = projected.get("query"), focus.seen.outputs.get(module)
    norm = None if query is None else norm_of(module, query.vectors.shape[-1])
    if query is None or output is None or norm is None:
        return None
    recomputed, time = norm.apply(query.vectors[p]), len(focus.ids)
    layouts = (((p, focus.head), (time, heads)), ((focus.head, p), (heads, time)))
    found = [where for where, shape in layouts if output.shape[:2] == shape]
    return min(found, key=lambda where: differing(output[where], recomputed), default=None)


def _value_mix(focus: Focus, projected: dict[str, _Projected]) -> Stage:
    """Only in the lab's own GPT: values of a later layer have the first one's in them."""
    attention, own = focus.parts.attention, projected["value"]
    first = focus.seen.first_values
    assert first is not None
    share = float(attention.value_mix)  # type: ignore[arg-type]
    theirs, ours, j = first[:, own.rows], own.vectors, focus.key
    seen = focus.seen.heads.value
    numbers = (
        f"v[0] = {number(share)}·{bracketed(float(theirs[j, 0]))} + {number(1 - share)}·{bracketed(float(ours[j, 0]))}"
        f" = {number(float(seen[j, 0]))}"
    )
    values = [value("v", ("dimension of the head",), seen[j]), _by_position("all value vectors", seen)]
    return focus.stage("value_mix", numbers, values, (share * theirs + (1 - share) * ours)[j], seen[j])


def _rotation(focus: Focus, projected: dict[str, _Projected]) -> Stage:
    assert focus.seen.rotary is not None
    p, (cos, sin) = focus.position, focus.seen.rotary
    seen = focus.seen.heads.query[p]
    axes = ("dimension of the head",)
    before = _before_rotation(focus, projected)
    if before is None:
        return focus.stage("rotation", "", [value("q", axes, seen)], None, seen, position=p, apart=0)
    width = cos.shape[-1]
    choices = [(turned(before, cos[p], sin[p]), width // 2), (turned_in_pairs(before, cos[p], sin[p]), 1)]
    # By the second largest difference: a change may have set one number.
    recomputed, apart = min(choices, key=lambda choice: float((choice[0] - seen).abs().topk(2).values[-1]))
    # A turn by one position is below half a circle in every family, so that it can be told from its sine and cosine.
    theta = torch.atan2(sin[1], cos[1]) if p else torch.zeros_like(sin[0])
    angle = p * theta
    numbers = (
        f"angle[0] = {p} · {number(float(theta[0]))} = {number(float(angle[0]))} rad: "
        f"q[0] = {bracketed(float(before[0]))}·{bracketed(float(cos[p, 0]))} − "
        f"{bracketed(float(before[apart]))}·{bracketed(float(sin[p, 0]))} = {number(float(seen[0]))}"
    )
    values = [value("q", axes, seen), value("q before", axes, before), value("angle", ("component",), angle)]
    values += [_by_position("all turned keys", focus.seen.heads.key)]
    note = "" if width == len(seen) else f"Only the first {width} of {len(seen)} dimensions are turned."
    return focus.stage("rotation", numbers, values, recomputed, seen, note, position=p, apart=apart)


def _before_rotation(focus: Focus, projected: dict[str, _Projected]) -> Tensor | None:
    query = projected.get("query")
    if query is None or not focus.parts.query_norms:
        return None if query is None else query.vectors[focus.position]
    where = normed_query(focus, projected)
    return None if where is None else focus.seen.outputs[focus.parts.query_norms[0]][where]


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., D] with pairs (i, i + R/2) of its first R dimensions turned; cos and sin [R]."""
    part, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = part.chunk(2, -1)
    return torch.cat((part * cos + torch.cat((-second, first), -1) * sin, rest), -1)


def turned_in_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same with pairs (2i, 2i + 1); cos and sin hold each angle twice in a row, or in two halves."""
    part, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = cos.shape[-1] // 2
    if not torch.equal(cos[0::2], cos[1::2]):
        cos, sin = cos[:half].repeat_interleave(2), sin[:half].repeat_interleave(2)
    swapped = torch.stack((-part[..., 1::2], part[..., 0::2]), -1).flatten(-2)
    return torch.cat((part * cos + swapped * sin, rest), -1)


def _pattern_stages(focus: Focus) -> Iterator[Stage]:
    heads, p, j, labels = focus.seen.heads, focus.position, focus.key, focus.token_labels
    q, k = heads.query[p], heads.key[j]
    products, score = q * k, float(heads.scores[p, j])
    scaled = heads.scaled[p]
    size = len(q)
    scale = "/ √D" if math.isclose(heads.scale, size**-0.5, rel_tol=1e-6) else f"· {number(heads.scale)}"
    shown = f"/ √{size}" if scale == "/ √D" else scale
    axes, square = ("key position",), ("query position", "key position")
    yield focus.stage(
        "score",
        f"({dot(q, k, score)}) {shown} = {number(float(scaled[j]))}",
        [
            value("products q[i]·k[i]", ("dimension of the head",), products),
            value("scores of this position", axes, scaled, labels),
            value("all scores", square, heads.scaled),
        ],
        (heads.key @ q) * heads.scale,
        scaled,
        token=focus.tokens[p],
        position=p,
        other=focus.tokens[j],
        key=j,
        scale=scale,
    )
    row = scaled
    if heads.capped is not None and heads.softcap is not None:
        row, cap, old = heads.capped[p], number(heads.softcap), number(float(scaled[j]))
        yield focus.stage(
            "softcap",
            f"{cap} · tanh({old} / {cap}) = {number(float(row[j]))}",
            [value("capped scores of this position", axes, row, labels)],
            heads.softcap * torch.tanh(scaled / heads.softcap),
            row,
        )
    masked, window = heads.masked[p], focus.anatomy.blocks[focus.layer].window
    positions = torch.arange(len(row))
    hidden = (positions > p) | ((positions <= p - window) if window is not None else False)
    causal = row.masked_fill(hidden, -math.inf)
    seen_words = f"{int((~hidden).sum())} of {len(row)} positions are seen"
    yield focus.stage(
        "mask",
        f"{seen_words}; score with position {j} is {number(float(masked[j]))}",
        [
            value("masked scores of this position", axes, masked, labels),
            value("all masked scores", square, heads.masked),
        ],
        causal,
        masked,
        "" if differing(causal, masked) < 1e-3 else "A bias for the distance is added to the scores, too.",
        window="" if window is None else f", and for those {window} or more back",
    )
    pattern, sink = heads.pattern[p], 0.0 if heads.sink is None else float(heads.sink[p])
    highest = masked.max()
    powers = (masked - highest).exp()
    terms = [number(one) for one in powers[powers > 0].tolist()]
    yield focus.stage(
        "softmax",
        f"a[{j}] = {number(float(powers[j]))} / ({total(terms, float(powers.sum()))})"
        + ("" if not sink else f" · {number(1 - sink)}")
        + f" = {number(float(pattern[j]))}",
        [value("pattern of this position", axes, pattern, labels), value("whole pattern", square, heads.pattern)],
        powers / powers.sum() * (1 - sink),
        pattern,
        "" if heads.sink is None else f"A sink outside the prompt takes {number(sink)} of the attention.",
    )
    values, z = heads.value, focus.seen.z[p, focus.head]
    terms = [f"{number(a)}·{bracketed(v)}" for a, v in zip(pattern.tolist(), values[:, 0].tolist(), strict=True) if a]
    yield focus.stage(
        "weighted_sum",
        f"z[0] = {total(terms, float(z[0]))}",
        [
            value("z", ("dimension of the head",), z),
            value("a[j] · v[j]", ("position", "dimension of the head"), pattern[:, None] * values),
        ],
        pattern @ values,
        z,
    )


def _output_stages(focus: Focus) -> Iterator[Stage]:
    p, parts, seen = focus.position, focus.parts, focus.seen
    all_z, out = seen.z[p].flatten(), seen.outputs[parts.out][p]
    made = product(parts.out, all_z)
    _, recomputed, bias = worked(made, "out")
    values, numbers = [], ""
    if made is not None:
        n_head = focus.anatomy.n_head
        by_head = torch.einsum("chd,hd->hc", made.weight.unflatten(1, (n_head, -1)), all_z.view(n_head, -1))
        terms = [bracketed(one) for one in by_head[:, 0].tolist()]
        if made.bias is not None:
            terms.append(bracketed(float(made.bias[0])))
        numbers = f"out[0], head by head: {total(terms, float(made.y[0]))}"
        values = [value("by head", ("head", "component"), by_head)]
    block, added = focus.anatomy.blocks[focus.layer], seen.added["attn_out"][focus.layer]
    direct = is_direct(block.attn, parts.out)
    given = added if direct else out
    values.insert(0, value("out", ("component",), given))
    name = "attention" if direct else "output_projection"
    yield focus.stage(name, numbers, values, recomputed, given, text="output_projection", bias=bias)
    if not direct:
        yield into_stream(focus, "attention", out, added, block.attn)
    if not block.parallel:
        x, after = seen.added["pre_attn"][focus.layer], seen.added["post_attn"][focus.layer]
        yield sum_stage(focus, "middle", x, added, after)
