"""What a block must do."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Layer = Callable[[Tensor], Tensor]


def block(x: Tensor, attention_norm: Layer, attention: Layer, feed_forward_norm: Layer, feed_forward: Layer) -> Tensor:
    x = x + attention(attention_norm(x))
    return x + feed_forward(feed_forward_norm(x))


def _same(x: Tensor) -> Tensor:
    return x


def _norm(weight: Tensor) -> Layer:
    return lambda x: F.layer_norm(x, weight.shape, weight)


def _gather(weight: Tensor) -> Layer:
    """The mean of all positions so far, through a matrix."""
    return lambda x: F.linear(x.cumsum(-2) / torch.arange(1, x.shape[-2] + 1)[:, None], weight)


def _process(weight: Tensor) -> Layer:
    return lambda x: F.gelu(F.linear(x, weight))


def _called(function: Callable[..., Tensor], x: Tensor, n: Tensor, a: Tensor, m: Tensor, f: Tensor) -> Tensor:
    return function(x, _norm(n), _gather(a), _norm(m), _process(f))


def _make(draw: Draw) -> tuple[Tensor, ...]:
    return 3 * draw(2, 5, 4), draw(4) + 2, draw(4, 4), draw(4) - 2, draw(4, 4)


def _by_hand(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    if len(args) > 1:
        return _called(function, *args)
    return function(args[0], _same, lambda x: 2 * x, _same, lambda x: x + 1)


def _post_norm(x: Tensor, n: Layer, a: Layer, m: Layer, f: Layer) -> Tensor:
    x = n(x + a(x))
    return m(x + f(x))


def _parallel(x: Tensor, n: Layer, a: Layer, m: Layer, f: Layer) -> Tensor:
    return x + a(n(x)) + f(m(x))


def _swapped(x: Tensor, n: Layer, a: Layer, m: Layer, f: Layer) -> Tensor:
    x = x + f(m(x))
    return x + a(n(x))


def _stream_normalised(x: Tensor, n: Layer, a: Layer, m: Layer, f: Layer) -> Tensor:
    x = n(x)
    x = x + a(x)
    x = m(x)
    return x + f(x)


PARTS = (
    Part(
        "block",
        block,
        _make,
        axes=("batch", "position", "component"),
        call=_by_hand,
        by_hand=(Case("x = 1", (torch.ones(1, 1, 1),), torch.full((1, 1, 1), 7.0)),),
        causal=(0,),
        edges=(
            Case(
                "layers that add nothing",
                (Draw(1)(1, 3, 4), torch.ones(4), torch.zeros(4, 4), torch.ones(4), torch.zeros(4, 4)),
                Draw(1)(1, 3, 4),
            ),
            Case("one position", (Draw(1)(1, 1, 4), torch.ones(4), Draw(2)(4, 4), torch.ones(4), Draw(3)(4, 4))),
        ),
        mistakes=(
            Mistake("post-norm", "The norm is of what a layer reads, not of the sum.", _post_norm),
            Mistake("both read the same stream", "The feed-forward reads what attention has added to.", _parallel),
            Mistake("the feed-forward comes first", "Attention gathers, then the feed-forward processes.", _swapped),
            Mistake("the stream itself is normalised", "Only the copy that is read is.", _stream_normalised),
            Mistake(
                "no residual around attention",
                "What attention finds is added to the stream.",
                lambda x, n, a, m, f: a(n(x)) + f(m(a(n(x)))),
            ),
            Mistake(
                "no residual around the feed-forward",
                "What it computes is added to the stream.",
                lambda x, n, a, m, f: f(m(x + a(n(x)))),
            ),
            Mistake("no residuals", "Both layers add to the stream.", lambda x, n, a, m, f: f(m(a(n(x))))),
            Mistake(
                "the norms are left out",
                "Layers read a normalised copy.",
                lambda x, n, a, m, f: block(x, _same, a, _same, f),
            ),
            Mistake("one norm for both", "Each layer has its own.", lambda x, n, a, m, f: block(x, n, a, n, f)),
            Mistake("the norms are swapped", "Each layer has its own.", lambda x, n, a, m, f: block(x, m, a, n, f)),
            Mistake(
                "no norm before the feed-forward",
                "It reads a normalised copy, too.",
                lambda x, n, a, m, f: block(x, n, a, _same, f),
            ),
        ),
    ),
)
