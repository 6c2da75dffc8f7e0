"""What a key-value cache must do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.checking import Wrong
from llmlab.exercises.facts import described, wrong_form
from llmlab.exercises.parts import Case, Draw, Mistake, Part

Attend = Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Any]:
    return _attend(q, k, v, kept)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Any,
    *,
    scale: float | None = None,
    mask: bool = True,
    offset: bool = True,
    axis: int = -1,
    old_first: bool = True,
    keeps: str = "all",
) -> tuple[Tensor, Any]:
    """The right one, or with one thing otherwise."""
    new = (k, v)
    if kept is not None:
        k, v = (torch.cat(pair if old_first else pair[::-1], -2) for pair in zip(kept, new, strict=True))
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    time, total = scores.shape[-2:]
    if mask:
        later = torch.ones(time, total, dtype=torch.bool).triu(total - time + 1 if offset else 1)
        scores = scores.masked_fill(later, -torch.inf)
    if keeps == "new":
        kept = new
    elif keeps == "first":
        kept = kept or new
    else:
        kept = (k, v)
    return scores.softmax(axis) @ v, kept


def _stepped(function: Attend, q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Any]:
    """A call, whose answers have the right form."""
    returned = function(q, k, v, kept)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise Wrong(f"It returns {described(returned)}, and should return two things: the answers, and what is kept.")
    if fact := wrong_form(returned[0], q):
        raise Wrong(f"The answers of {q.shape[-2]} new tokens, the first thing that it returns: {fact}")
    return returned


def _one_by_one(function: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    kept, answers = None, []
    for at in range(q.shape[-2]):
        answer, kept = _stepped(function, *(one[..., at : at + 1, :] for one in (q, k, v)), kept)
        answers.append(answer)
    return torch.cat(answers, -2)


def _prompt_first(function: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Three at once, then two, then each."""
    kept, answers, at = None, [], 0
    for size in (3, 2, *[1] * (q.shape[-2] - 5)):
        answer, kept = _stepped(function, *(one[..., at : at + size, :] for one in (q, k, v)), kept)
        answers.append(answer)
        at += size
    return torch.cat(answers, -2)


def _make(draw: Draw) -> tuple[Tensor, ...]:
    return draw(2, 3, 7, 4), draw(2, 3, 7, 4), draw(2, 3, 7, 4)


def _whole(q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Any]:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True), None


def _new_values(q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Any]:
    all_k = k if kept is None else torch.cat((kept, k), -2)
    weights = (q @ all_k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return weights[..., -v.shape[-2] :] @ v, all_k


def _column(*numbers: float) -> Tensor:
    return tensor(numbers)[None, None, :, None]


_MISTAKES = (
    Mistake(
        "nothing is kept",
        "Each new token sees itself alone: put its key and value behind the kept ones.",
        _whole,
    ),
    Mistake("the last token alone is kept", "Keep all keys and values so far.", lambda *a: _attend(*a, keeps="new")),
    Mistake("only the first are kept", "Give back what has the new ones, too.", lambda *a: _attend(*a, keeps="first")),
    Mistake("values are not kept", "Keys and values are kept.", _new_values),
    Mistake("not scaled", "Scores are divided by sqrt(D).", lambda *a: _attend(*a, scale=1.0)),
    Mistake("scaled by D and not its root", "By sqrt(D).", lambda *a: _attend(*a, scale=1 / a[0].shape[-1])),
    Mistake(
        "softmax over the wrong axis",
        "The weights of each new token have sum one.",
        lambda *a: _attend(*a, axis=-2),
    ),
    Mistake(
        "the mask begins at the first column",
        "New token i stands at S - T + i: triu(S - T + 1).",
        lambda *a: _attend(*a, offset=False),
    ),
    Mistake(
        "no mask among the new tokens", "A prompt's tokens see earlier ones only.", lambda *a: _attend(*a, mask=False)
    ),
    Mistake("new ones before the kept ones", "The new ones come last.", lambda *a: _attend(*a, old_first=False)),
)
_HAND = (_column(0.0, 1.0), _column(0.0, math.log(3)), _column(10.0, 20.0))
PARTS = (
    Part(
        "attend",
        attend,
        _make,
        axes=("batch", "head", "position", "component"),
        call=_one_by_one,
        by_hand=(Case("two positions, one by one", _HAND, _column(10.0, 17.5)),),
        causal=(0, 1, 2),
        large=lambda draw: (draw(1, 4, 64, 32), draw(1, 4, 64, 32), draw(1, 4, 64, 32)),
        mistakes=_MISTAKES,
    ),
    Part(
        "attend",
        attend,
        _make,
        axes=("batch", "head", "position", "component"),
        call=_prompt_first,
        causal=(0, 1, 2),
        edges=(Case("scores of a hundred", tuple(10 * Draw(seed)(1, 1, 6, 4) for seed in range(3))),),
        mistakes=_MISTAKES,
    ),
)
