"""Stages from the text to the stream in front of the chosen layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from llmlab.core.signs import quoted
from llmlab.data.tokenizers import CharTokenizer
from llmlab.gpt.model import GPT
from llmlab.walk.focus import Focus, differing, value
from llmlab.walk.norms import layers_stage
from llmlab.walk.parts import position_embedding
from llmlab.walk.stage import Stage, Value
from llmlab.walk.sums import bracketed, number, vector
from llmlab.walk.tokens import merge_numbers, merge_words

_SHOWN = 300  # characters of a prompt that are written out


def input_stages(focus: Focus) -> Iterator[Stage]:
    """Text, bytes, tokens, embedding, position, and the stream that the layer reads."""
    yield from _text_stages(focus)
    yield _embedding(focus)
    yield _position(focus)
    yield _stream(focus)


def _text_stages(focus: Focus) -> Iterator[Stage]:
    text, tokenizer, p = focus.text, focus.opened.tokenizer, focus.position
    spelled = text.encode(errors="replace")
    letters = "" if isinstance(tokenizer, CharTokenizer) else "; it knows nothing of its letters"
    shown = f"{quoted(text[:_SHOWN])}{' …' if len(text) > _SHOWN else ''}"
    yield focus.stage("text", f"{len(text):,} characters: {shown}", [], letters=letters)
    shown = " ".join(f"{byte:02x}" for byte in spelled[:12])
    numbers = f"{len(spelled):,} bytes: {shown}{' …' if len(spelled) > 12 else ''}"
    each = [Value("bytes", ("byte",), np.frombuffer(spelled, np.uint8).astype(np.float32))] if spelled else []
    yield focus.stage("bytes", numbers, each)
    ids = torch.tensor(focus.ids, dtype=torch.float64)
    merges = merge_words(tokenizer, focus.ids[p], merge_numbers(tokenizer))
    numbers = f"{len(ids):,} tokens. Position {p} is {quoted(focus.tokens[p])}, id {focus.ids[p]:,}: {merges}."
    yield focus.stage("tokens", numbers, [value("ids", ("position",), ids, focus.token_labels)])


def _embedding(focus: Focus) -> Stage:
    id = focus.ids[focus.position]
    table = focus.anatomy.embedding.weight
    assert isinstance(table, torch.Tensor)
    row = table[id].detach().float().cpu()
    seen = focus.seen.outputs[focus.anatomy.embedding][focus.position]
    factor = 1.0 if differing(row, seen) == 0 else _factor(row, seen)
    scaled = "" if factor == 1.0 else f" · {number(factor)}"
    of = f"a row of E [{table.shape[0]:,} tokens, {table.shape[1]:,} components]"
    values = [value("e", ("component",), seen)]
    return focus.stage(
        "embedding", f"E[{id}]{scaled} = {vector(seen)}, {of}", values, row * factor, seen, scaled=scaled
    )


def _position(focus: Focus) -> Stage:
    p, seen = focus.position, focus.seen
    e, x = seen.outputs[focus.anatomy.embedding][p], seen.start
    model = focus.opened.model
    module = position_embedding(model)
    values = [value("x0", ("component",), x)]
    if module is not None:
        if isinstance(model, GPT):
            vectors = model.position_embedding.weight.detach().float().cpu()
            at = vectors[p]
        else:
            at = seen.outputs[module][p] if module in seen.outputs else torch.zeros_like(x)
        numbers = f"x₀[0] = {bracketed(float(e[0]))} + {bracketed(float(at[0]))} = {number(float(x[0]))}"
        values.append(value("P[position]", ("component",), at))
        return focus.stage("position", numbers, values, e + at, x, formula="x₀ = e + P[position]")
    factor = 1.0 if differing(e, x) <= 1e-6 else _factor(e, x)
    formula = "x₀ = e" if factor == 1.0 else "x₀ = e · c"
    numbers = f"x₀ = {vector(x)}"
    if factor != 1.0:
        numbers = f"x₀[0] = {bracketed(float(e[0]))} · {number(factor)} = {number(float(x[0]))}"
    if seen.rotary is None:
        note = "Nothing is added here, nor does this layer turn queries: position is a bias of the scores, or nowhere."
    else:
        note = "Nothing is added here: position enters later, when queries and keys are turned by it (Rotation)."
    return focus.stage("position", numbers, values, e * factor, x, note, formula=formula)


def _factor(before: Tensor, after: Tensor) -> float:
    """What a family multiplies a vector by: the median, since a change may have set one of its numbers."""
    return float((after / before).nanmedian())


def _stream(focus: Focus) -> Stage:
    start, end = ("x₀", focus.seen.start), focus.seen.added["pre_attn"][focus.layer]
    return layers_stage(focus, "stream", range(focus.layer), start, end, layer=focus.layer)
