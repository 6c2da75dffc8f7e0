"""What one head of attention must do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Softmax = Callable[[Tensor], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _soft(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def _make(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Softmax]:
    return draw(2, 6, 8), draw(2, 6, 8), draw(2, 6, 8), _soft


def _column(*numbers: float) -> Tensor:
    return tensor(numbers)[:, None]


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def _later(scores: Tensor, diagonal: int = 1) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)


def _masked(scores: Tensor, diagonal: int = 1) -> Tensor:
    return scores.masked_fill(_later(scores, diagonal), -torch.inf)


def _by_d(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(_scores(q, k) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def _not_scaled(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(q @ k.transpose(-2, -1)).softmax(-1) @ v


def _wrong_axis(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(_scores(q, k)).softmax(-2) @ v


def _mask_after(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    scores = _scores(q, k)
    return scores.softmax(-1).masked_fill(_later(scores), 0.0) @ v


def _no_mask(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _scores(q, k).softmax(-1) @ v


def _mask_of_zeros(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    scores = _scores(q, k)
    return scores.masked_fill(_later(scores), 0.0).softmax(-1) @ v


def _mask_upside_down(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    scores = _scores(q, k)
    return scores.masked_fill(~_later(scores, 0), -torch.inf).softmax(-1) @ v


def _sees_the_next(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(_scores(q, k), 2).softmax(-1) @ v


def _not_itself(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(_scores(q, k), 0).softmax(-1) @ v


def _swapped(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(_scores(k, q)).softmax(-1) @ v


def _by_time(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    return _masked(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-2])).softmax(-1) @ v


_HAND = (_column(0.0, 1.0), _column(0.0, math.log(3)), _column(10.0, 20.0), _soft)
PARTS = (
    Part(
        "attention",
        attention,
        _make,
        axes=("batch", "row", "component"),
        by_hand=(Case("two positions", _HAND, _column(10.0, 17.5)),),
        causal=(0, 1, 2),
        large=lambda draw: (draw(8, 64, 32), draw(8, 64, 32), draw(8, 64, 32), _soft),
        times=40.0,
        edges=(
            Case("one position", (_column(5.0), _column(-3.0), _column(7.0), _soft), _column(7.0)),
            Case("scores of a hundred", (_column(100.0, 100.0), _column(1.0, 2.0), _column(1.0, 3.0), _soft)),
            Case("more axes in front", (*(Draw(seed)(2, 3, 4, 8) for seed in range(3)), _soft)),
        ),
        mistakes=(
            Mistake("scaled by D and not its root", "Scores are divided by sqrt(D).", _by_d),
            Mistake("not scaled", "Scores are divided by sqrt(D), or they grow with the width.", _not_scaled),
            Mistake("softmax over the wrong axis", "The weights of each row have sum one: the last axis.", _wrong_axis),
            Mistake(
                "mask added after the softmax",
                "The weights that are left have a sum below one. Mask the scores.",
                _mask_after,
            ),
            Mistake("no mask", "A row must not see later positions.", _no_mask),
            Mistake(
                "masked with 0 instead of minus infinity",
                "exp(0) is 1: what is masked still has a weight.",
                _mask_of_zeros,
            ),
            Mistake("the mask is upside down", "Row i sees positions 0 to i, not i and later.", _mask_upside_down),
            Mistake("it sees the next token", "The mask begins right above the diagonal: triu(1).", _sees_the_next),
            Mistake("a position does not see itself", "The diagonal is not masked: triu(1).", _not_itself),
            Mistake("queries and keys are swapped", "Rows are queries: q @ k^T.", _swapped),
            Mistake("scaled by the number of positions", "D is the width of a head, the last axis.", _by_time),
        ),
    ),
)
