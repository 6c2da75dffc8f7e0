"""What the logit lens must do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Norm = Callable[[Tensor], Tensor]


def logit_lens(streams: Tensor, final_norm: Norm, unembedding: Tensor) -> Tensor:
    return _logits(streams, final_norm, unembedding).softmax(-1)


def _logits(streams: Tensor, final_norm: Norm, unembedding: Tensor) -> Tensor:
    return F.linear(final_norm(streams), unembedding)


def _same(x: Tensor) -> Tensor:
    return x


def _called(function: Callable[..., Tensor], streams: Tensor, unembedding: Tensor, *norm: Tensor) -> Tensor:
    def final_norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, norm[0].shape, norm[0])

    return function(streams, final_norm if norm else _same, unembedding)


def _make(draw: Draw) -> tuple[Tensor, ...]:
    return 3 * draw(3, 4, 6), draw(5, 6), draw(6) + 2


def _last_layers_size(streams: Tensor, norm: Norm, unembedding: Tensor) -> Tensor:
    return F.linear(streams * (norm(streams[-1:]).norm() / streams[-1:].norm()), unembedding).softmax(-1)


PARTS = (
    Part(
        "logit_lens",
        logit_lens,
        _make,
        axes=("layer", "position", "token"),
        call=_called,
        by_hand=(
            Case("the stream [0, ln 3]", (tensor([[[0.0, math.log(3)]]]), torch.eye(2)), tensor([[[0.25, 0.75]]])),
        ),
        large=lambda draw: (draw(8, 64, 64), draw(512, 64), draw(64)),
        edges=(
            Case("one layer, one position", (Draw(1)(1, 1, 4), Draw(2)(3, 4), Draw(3)(4))),
            Case("logits of a thousand", (tensor([[[1000.0, 0.0]]]), torch.eye(2)), tensor([[[1.0, 0.0]]])),
        ),
        mistakes=(
            Mistake(
                "no final norm", "Each layer's stream is normalised first.", lambda s, n, u: logit_lens(s, _same, u)
            ),
            Mistake("logits, not probabilities", "Softmax makes probabilities.", _logits),
            Mistake("log-probabilities", "Probabilities are wanted.", lambda s, n, u: _logits(s, n, u).log_softmax(-1)),
            Mistake("softmax over positions", "It is over tokens.", lambda s, n, u: _logits(s, n, u).softmax(-2)),
            Mistake("softmax over layers", "It is over tokens.", lambda s, n, u: _logits(s, n, u).softmax(0)),
            Mistake(
                "the norm is of the logits",
                "It is of the stream.",
                lambda s, n, u: F.layer_norm(F.linear(s, u), u.shape[:1]).softmax(-1),
            ),
            Mistake("the norm twice", "Once.", lambda s, n, u: logit_lens(n(s), n, u)),
            Mistake(
                "layers added up",
                "The stream after a layer has the sum already.",
                lambda s, n, u: logit_lens(s.cumsum(0), n, u),
            ),
            Mistake(
                "what each layer added",
                "The stream itself is wanted, not its change.",
                lambda s, n, u: logit_lens(torch.cat((s[:1], s.diff(dim=0))), n, u),
            ),
            Mistake(
                "the last layer only",
                "Each layer's own stream.",
                lambda s, n, u: logit_lens(s[-1:].expand_as(s), n, u),
            ),
            Mistake("the size of the last layer's norm for all", "Each vector has its own.", _last_layers_size),
            Mistake("softmax twice", "Once.", lambda s, n, u: logit_lens(s, n, u).softmax(-1)),
        ),
    ),
)
