"""What many heads must do."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def heads(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    q, k, v = (_cut(part, n_head) for part in F.linear(x, qkv).chunk(3, -1))
    return F.linear(_joined(attention(q, k, v)), out)


def _cut(part: Tensor, n_head: int) -> Tensor:
    return part.unflatten(-1, (n_head, -1)).transpose(1, 2)


def _joined(answers: Tensor) -> Tensor:
    return answers.transpose(1, 2).flatten(2)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _values(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v


def _make(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int, Attention]:
    return draw(2, 5, 12), draw(36, 12) / 3, draw(12, 12) / 3, 3, _attention


def _viewed(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    batch, time, width = x.shape
    q, k, v = (part.reshape(batch, n_head, time, -1) for part in F.linear(x, qkv).chunk(3, -1))
    return F.linear(attention(q, k, v).reshape(batch, time, width), out)


def _not_joined(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    q, k, v = (_cut(part, n_head) for part in F.linear(x, qkv).chunk(3, -1))
    return F.linear(attention(q, k, v).reshape(x.shape), out)


def _over_heads(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    q, k, v = (part.unflatten(-1, (n_head, -1)) for part in F.linear(x, qkv).chunk(3, -1))
    return F.linear(attention(q, k, v).flatten(2), out)


def _interleaved(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    q, k, v = (part.unflatten(-1, (-1, n_head)).permute(0, 3, 1, 2) for part in F.linear(x, qkv).chunk(3, -1))
    return F.linear(attention(q, k, v).permute(0, 2, 3, 1).flatten(2), out)


def _order(*places: int) -> Callable[..., Tensor]:
    def function(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
        return heads(x, torch.cat([qkv.chunk(3)[place] for place in places]), out, n_head, attention)

    return function


def _by_head(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Attention) -> Tensor:
    q, k, v = F.linear(x, qkv).unflatten(-1, (n_head, 3, -1)).permute(3, 0, 2, 1, 4)
    return F.linear(_joined(attention(q, k, v)), out)


_X = tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]])
PARTS = (
    Part(
        "heads",
        heads,
        _make,
        axes=("batch", "position", "component"),
        by_hand=(
            Case(
                "identity matrices and an attention that returns v",
                (_X, torch.eye(4).repeat(3, 1), torch.eye(4), 2, _values),
                _X,
            ),
        ),
        causal=(0,),
        large=lambda draw: (draw(8, 64, 64), draw(192, 64) / 8, draw(64, 64) / 8, 4, _attention),
        edges=(
            Case("one head", (Draw(1)(1, 3, 4), Draw(2)(12, 4), Draw(3)(4, 4), 1, _attention)),
            Case("as many heads as components", (Draw(1)(1, 3, 4), Draw(2)(12, 4), Draw(3)(4, 4), 4, _attention)),
            Case("one position", (Draw(1)(2, 1, 4), Draw(2)(12, 4), Draw(3)(4, 4), 2, _attention)),
        ),
        mistakes=(
            Mistake(
                "cut by view alone",
                "A view as [B, n_head, T, D] gives a head parts of several positions. Cut the last axis, transpose.",
                _viewed,
            ),
            Mistake("joined without transposing", "Bring the heads behind the positions before joining.", _not_joined),
            Mistake(
                "attention over heads instead of positions",
                "It works on the last two axes, which must be positions and D: transpose(1, 2).",
                _over_heads,
            ),
            Mistake(
                "heads take every n-th component", "A head takes D neighbours: view(..., n_head, D).", _interleaved
            ),
            Mistake("queries and keys are swapped", "qkv has queries first, then keys.", _order(1, 0, 2)),
            Mistake("keys and values are swapped", "qkv has keys second, values third.", _order(0, 2, 1)),
            Mistake("values first", "The order is queries, keys, values.", _order(2, 0, 1)),
            Mistake(
                "q, k and v are cut inside each head",
                "qkv has all queries first, then all keys, then all values.",
                _by_head,
            ),
            Mistake(
                "the last projection is left out",
                "The heads' answers are mixed by `out`.",
                lambda x, qkv, out, n_head, attention: heads(x, qkv, torch.eye(len(out)), n_head, attention),
            ),
            Mistake(
                "out is transposed",
                "y = x W^T, as in PyTorch's linear layers.",
                lambda x, qkv, out, n_head, attention: heads(x, qkv, out.T, n_head, attention),
            ),
            Mistake(
                "x is added",
                "The block adds it.",
                lambda x, qkv, out, n_head, attention: x + heads(x, qkv, out, n_head, attention),
            ),
            Mistake(
                "one head of the whole width",
                "Each head works on its own D components.",
                lambda x, qkv, out, n_head, attention: heads(x, qkv, out, 1, attention),
            ),
        ),
    ),
)
