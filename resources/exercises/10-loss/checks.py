"""What the loss of a text must do."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Model = Callable[[Tensor], Tensor]
CrossEntropy = Callable[[Tensor, Tensor], Tensor]


def loss(model: Model, tokens: Tensor, cross_entropy: CrossEntropy) -> Tensor:
    return cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def _called(function: Callable[..., Tensor], table: Tensor, tokens: Tensor) -> Tensor:
    """table [V, V]: the model's logits of the next token, by the mean of the tokens so far."""

    def model(ids: Tensor) -> Tensor:
        return table[ids] + 0.3 * table[ids].cumsum(1)

    return function(model, tokens, F.cross_entropy)


def _make(draw: Draw) -> tuple[Tensor, Tensor]:
    return draw(6, 6), draw.ids(6, 3, 7)


def _mean_of_last(model: Model, tokens: Tensor, ce: CrossEntropy) -> Tensor:
    return ce(model(tokens[:, :-1])[:, -1], tokens[:, -1])


def _mixed_up(model: Model, tokens: Tensor, ce: CrossEntropy) -> Tensor:
    return ce(model(tokens[:, :-1]).transpose(0, 1).flatten(0, 1), tokens[:, 1:].flatten())


def _summed(model: Model, tokens: Tensor, ce: CrossEntropy) -> Tensor:
    return loss(model, tokens, ce) * tokens[:, 1:].numel()


def _over_sequences(model: Model, tokens: Tensor, ce: CrossEntropy) -> Tensor:
    return loss(model, tokens, ce) * (tokens.shape[1] - 1)


_NEXT = 50 * F.one_hot((tensor([0, 1, 2, 3]) + 1) % 4, 4).float()
PARTS = (
    Part(
        "loss",
        loss,
        _make,
        call=_called,
        by_hand=(
            Case("a model that expects token + 1, on 0 1 2 3 0 1", (_NEXT, tensor([[0, 1, 2, 3, 0, 1]]))),
            Case("the same on a text of one token, 2 2 2", (_NEXT, tensor([[2, 2, 2]]))),
        ),
        edges=(Case("one prediction", (Draw(1)(4, 4), tensor([[1, 2]]))),),
        mistakes=(
            Mistake(
                "targets not shifted",
                "The target of a position is the next token, tokens[:, 1:].",
                lambda model, tokens, ce: ce(model(tokens[:, :-1]).flatten(0, 1), tokens[:, :-1].flatten()),
            ),
            Mistake(
                "targets not shifted, over the whole text",
                "The target of a position is the next token, tokens[:, 1:].",
                lambda model, tokens, ce: ce(model(tokens).flatten(0, 1), tokens.flatten()),
            ),
            Mistake(
                "targets shifted twice",
                "The target is one token later, not two.",
                lambda model, tokens, ce: ce(model(tokens[:, :-2]).flatten(0, 1), tokens[:, 2:].flatten()),
            ),
            Mistake(
                "targets shifted the wrong way",
                "The target is the token after a position, not the one before.",
                lambda model, tokens, ce: ce(model(tokens[:, 1:]).flatten(0, 1), tokens[:, :-1].flatten()),
            ),
            Mistake(
                "the last token's target is the first token",
                "roll brings the first token to the end: leave the last position out.",
                lambda model, tokens, ce: ce(model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten()),
            ),
            Mistake("the last prediction only", "Every position predicts.", _mean_of_last),
            Mistake("the sum, not the mean", "cross_entropy takes the mean already.", _summed),
            Mistake("the sum over positions", "The mean is over all predictions.", _over_sequences),
            Mistake(
                "logits and targets in different order",
                "Flatten both over sequences first, then positions.",
                _mixed_up,
            ),
            Mistake(
                "probabilities instead of logits",
                "cross_entropy applies softmax itself.",
                lambda model, tokens, ce: ce(model(tokens[:, :-1]).softmax(-1).flatten(0, 1), tokens[:, 1:].flatten()),
            ),
            Mistake(
                "the sign is lost", "The loss is positive, and smaller is better.", lambda m, t, ce: -loss(m, t, ce)
            ),
        ),
    ),
)
