"""What cross-entropy must do."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets)


def _chosen(values: Tensor, targets: Tensor) -> Tensor:
    return values.gather(1, targets[:, None])[:, 0]


def _make(draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(6, 5), draw.ids(5, 6)


_LN3 = math.log(3)
PARTS = (
    Part(
        "cross_entropy",
        cross_entropy,
        _make,
        by_hand=(
            Case("logits 0 and ln 3, target 1", (tensor([[0.0, _LN3]]), tensor([1])), tensor(-math.log(0.75))),
            Case(
                "the same, and two equal logits",
                (tensor([[0.0, _LN3], [0.0, 0.0]]), tensor([1, 0])),
                tensor((math.log(2) - math.log(0.75)) / 2),
            ),
        ),
        large=lambda draw: (draw(512, 2048), draw.ids(2048, 512)),
        edges=(
            Case("a token of probability exp(-200)", (tensor([[0.0, 200.0]]), tensor([0])), tensor(200.0)),
            Case("logits of a thousand", (tensor([[1000.0, 1000.0]]), tensor([0])), tensor(math.log(2))),
            Case("rows of very different size", (tensor([[900.0, 900.0], [-900.0, -900.0]]), tensor([0, 1]))),
        ),
        mistakes=(
            Mistake(
                "the sum, not the mean", "Divide by the number of rows.", lambda x, t: F.cross_entropy(x, t) * len(t)
            ),
            Mistake(
                "divided by all logits",
                "The mean is over rows, each of which has one target.",
                lambda x, t: F.cross_entropy(x, t) / x.shape[1],
            ),
            Mistake("the sign is lost", "The loss is minus the logarithm.", lambda x, t: -F.cross_entropy(x, t)),
            Mistake("base 2", "Nats are wanted, not bits.", lambda x, t: F.cross_entropy(x, t) / math.log(2)),
            Mistake(
                "the probability, not its logarithm",
                "The loss is minus the logarithm of the target's probability.",
                lambda x, t: -_chosen(x.softmax(-1), t).mean(),
            ),
            Mistake(
                "the logarithm of the mean",
                "The logarithm is taken of each row's probability, then the mean.",
                lambda x, t: -_chosen(x.softmax(-1), t).mean().log(),
            ),
            Mistake("no softmax", "Logits are not normalised.", lambda x, t: -_chosen(x, t).mean()),
            Mistake(
                "softmax over the wrong axis",
                "Each row's probabilities have sum one.",
                lambda x, t: -_chosen(x.log_softmax(0), t).mean(),
            ),
            Mistake(
                "softmax twice",
                "The logits are turned into probabilities once.",
                lambda x, t: F.cross_entropy(x.softmax(-1), t),
            ),
            Mistake(
                "it overflows",
                "exp of a large logit is infinite. Take the largest logit of the row out first.",
                lambda x, t: (x.exp().sum(-1).log() - _chosen(x, t)).mean(),
            ),
            Mistake(
                "the logarithm of a probability that is 0",
                "softmax rounds to 0. Write ln softmax as x - ln sum exp(x).",
                lambda x, t: -_chosen(x.softmax(-1), t).log().mean(),
            ),
        ),
    ),
)
