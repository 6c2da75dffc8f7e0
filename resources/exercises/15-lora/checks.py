"""What LoRA must do."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part
from llmlab.training.finetuning.lora import LoraLinear


def start(width_in: int, width_out: int, rank: int) -> tuple[Tensor, Tensor]:
    layer = LoraLinear(nn.Linear(width_in, width_out, bias=False), (width_in, width_out), rank, 1.0, 0.0)
    return layer.lora_A.weight.detach(), layer.lora_B.weight.detach()


def lora(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return F.linear(x, weight) + F.linear(F.linear(x, a), b) * (alpha / len(a))


def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return weight + b @ a * (alpha / len(a))


def _make(draw: Draw) -> tuple[Any, ...]:
    return draw(3, 5), draw(4, 5), draw(2, 5), draw(4, 2), 3.0


def _matrices(draw: Draw) -> tuple[Any, ...]:
    return _make(draw)[1:]


def _begun(args: tuple[Any, ...], returned: Any) -> Any:
    """Of A and B, where they are not zero: random numbers have no other fact."""
    if not isinstance(returned, (tuple, list)):
        return returned
    return tuple(one.ne(0).to(one.dtype) if isinstance(one, Tensor) else one for one in returned)


def _by(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return F.linear(x, weight) + F.linear(F.linear(x, a), b) * scale


# Rank, widths, alpha and its root all differ, and B is not symmetric: no mistake below computes the same of them.
_W, _A, _B = torch.eye(2, 3), tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), tensor([[1.0, 0.0], [1.0, 1.0]])
PARTS = (
    Part(
        "start",
        start,
        lambda draw: (6, 4, int(draw.ids(3, 1)) + 1),
        axes=("where A is not zero (1)", "where B is not zero (1)"),
        gradient=False,
        see=_begun,
        mistakes=(
            Mistake(
                "A is zero, too",
                "With both at zero, neither has a gradient.",
                lambda i, o, r: (torch.zeros(r, i), torch.zeros(o, r)),
            ),
            Mistake(
                "A is zero and B random",
                "B begins at zero, A is random.",
                lambda i, o, r: (torch.zeros(r, i), torch.randn(o, r)),
            ),
            Mistake(
                "B is random, too",
                "B must begin at zero: then B A x is zero, and the model begins as it was.",
                lambda i, o, r: (torch.randn(r, i), torch.randn(o, r)),
            ),
        ),
    ),
    Part(
        "lora",
        lora,
        _make,
        by_hand=(Case("x = [1, 1, 1]", (torch.ones(3), _W, _A, _B, 4.0), tensor([7.0, 9.0])),),
        large=lambda draw: (draw(256, 256), draw(256, 256), draw(4, 256), draw(256, 4), 8.0),
        edges=(
            Case("B at zero", (tensor([1.0, 2.0, 3.0]), _W, _A, torch.zeros(2, 2), 4.0), tensor([1.0, 2.0])),
            Case("more axes in front", (Draw(1)(2, 3, 5), *_make(Draw(2))[1:])),
        ),
        mistakes=(
            Mistake(
                "not scaled", "The change is multiplied by alpha / rank.", lambda x, w, a, b, s: _by(x, w, a, b, 1.0)
            ),
            Mistake("scaled by alpha alone", "By alpha / rank.", lambda x, w, a, b, s: _by(x, w, a, b, s)),
            Mistake("multiplied by the rank", "Divide by it.", lambda x, w, a, b, s: _by(x, w, a, b, s * len(a))),
            Mistake(
                "divided by the root of the rank",
                "That is rsLoRA.",
                lambda x, w, a, b, s: _by(x, w, a, b, s / len(a) ** 0.5),
            ),
            Mistake("rank / alpha", "It is alpha / rank.", lambda x, w, a, b, s: _by(x, w, a, b, len(a) / s)),
            Mistake(
                "the rank is taken from the width",
                "It is A's number of rows.",
                lambda x, w, a, b, s: _by(x, w, a, b, s / a.shape[1]),
            ),
            Mistake(
                "without W", "The frozen matrix still counts.", lambda x, w, a, b, s: _by(x, 0 * w, a, b, s / len(a))
            ),
            Mistake("without the change", "B A x is added.", lambda x, w, a, b, s: F.linear(x, w)),
            Mistake(
                "W is scaled, too", "Only the change is.", lambda x, w, a, b, s: _by(x, w, a, b, 1.0) * (s / len(a))
            ),
            Mistake("subtracted", "The change is added.", lambda x, w, a, b, s: _by(x, w, a, b, -s / len(a))),
        ),
    ),
    Part(
        "merged",
        merged,
        _matrices,
        by_hand=(Case("the W of the page", (_W, _A, _B, 4.0), tensor([[3.0, 2.0, 2.0], [2.0, 3.0, 4.0]])),),
        mistakes=(
            Mistake("not scaled", "The change is multiplied by alpha / rank.", lambda w, a, b, s: w + b @ a),
            Mistake("scaled by alpha alone", "By alpha / rank.", lambda w, a, b, s: w + s * b @ a),
            Mistake("the change alone", "W is added.", lambda w, a, b, s: b @ a * (s / len(a))),
        ),
    ),
)
