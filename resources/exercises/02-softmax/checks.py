"""What softmax must do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Mistake, Part


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


_LN3 = math.log(3)
PARTS = (
    Part(
        "softmax",
        softmax,
        lambda draw: (draw(3, 4, 5),),
        axes=("batch", "row", "score"),
        by_hand=(
            Case("scores 0 and ln 3", (tensor([0.0, _LN3]),), tensor([0.25, 0.75])),
            Case("two rows", (tensor([[0.0, _LN3], [7.0, 7.0]]),), tensor([[0.25, 0.75], [0.5, 0.5]])),
        ),
        large=lambda draw: (draw(256, 1024),),
        edges=(
            Case("scores of a thousand", (tensor([1000.0, 1000.0]),), tensor([0.5, 0.5])),
            Case("scores of minus a thousand", (tensor([-1000.0, -1000.0]),), tensor([0.5, 0.5])),
            Case("a large score in one row, small ones in another", (tensor([[900.0, 0.0], [-900.0, -900.0]]),)),
            Case("a masked score", (tensor([0.0, -math.inf, 0.0]),), tensor([0.5, 0.0, 0.5])),
            Case("one score", (tensor([3.0]),), tensor([1.0])),
        ),
        mistakes=(
            Mistake("softmax over the wrong axis", "Each row has sum one, not each column.", lambda x: x.softmax(-2)),
            Mistake("softmax over the first axis", "Each row has sum one: the last axis.", lambda x: x.softmax(0)),
            Mistake(
                "softmax over all axes at once",
                "Each row has sum one by itself.",
                lambda x: x.flatten().softmax(0).view_as(x),
            ),
            Mistake(
                "it overflows",
                "exp of a large score is infinite. Take the largest score of the row from all first.",
                lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
            ),
            Mistake(
                "the largest of all rows is subtracted",
                "Rows with much smaller scores underflow to 0 / 0. Each row needs its own.",
                lambda x: (x - x.max()).exp() / (x - x.max()).exp().sum(-1, keepdim=True),
            ),
            Mistake("no exponential", "Scores can be negative.", lambda x: x / x.sum(-1, keepdim=True)),
            Mistake("log-softmax", "That is the logarithm of what is wanted.", lambda x: x.log_softmax(-1)),
            Mistake("not normalised", "The sum of a row is one.", lambda x: (x - x.amax(-1, keepdim=True)).exp()),
            Mistake(
                "squares instead of exponentials",
                "exp tells -1 and 1 apart.",
                lambda x: x.square() / x.square().sum(-1, keepdim=True),
            ),
            Mistake("base 2", "The base is e.", lambda x: (x * math.log(2)).softmax(-1)),
            Mistake("the sign is lost", "A larger score has a larger share.", lambda x: torch.softmax(-x, -1)),
        ),
    ),
)
