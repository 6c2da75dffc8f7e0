"""What a GPT and its initialisation must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part

Layer = Callable[[Tensor], Tensor]


def gpt(
    ids: Tensor, token_embedding: Tensor, position_embedding: Tensor, blocks: list[Layer], final_norm: Layer
) -> Tensor:
    x = token_embedding[ids] + position_embedding[: ids.shape[1]]
    for block in blocks:
        x = block(x)
    return F.linear(final_norm(x), token_embedding)


@torch.no_grad()
def initialise(parameters: Mapping[str, Tensor], n_layer: int) -> None:
    _fill(parameters, 0.02, 0.02 / math.sqrt(2 * n_layer))


def _fill(parameters: Mapping[str, Tensor], std: float, residual_std: float) -> None:
    for name, parameter in parameters.items():
        if name.endswith(("out.weight", "down.weight")):
            parameter.normal_(0.0, residual_std)
        elif parameter.dim() == 2:
            parameter.normal_(0.0, std)
        elif name.endswith("bias"):
            parameter.zero_()


def _same(x: Tensor) -> Tensor:
    return x


def _block(weight: Tensor) -> Layer:
    return lambda x: x + torch.tanh(F.linear(x.cumsum(-2), weight))


def _called(function: Callable[..., Tensor], ids: Tensor, tokens: Tensor, positions: Tensor, *more: Tensor) -> Tensor:
    if not more:
        return function(ids, tokens, positions, [], _same)
    first, second, norm = more
    return function(
        ids, tokens, positions, [_block(first), _block(second)], lambda x: F.layer_norm(x, norm.shape, norm)
    )


def _make(draw: Draw) -> tuple[Tensor, ...]:
    return draw.ids(7, 2, 5), draw(7, 4), draw(8, 4), draw(4, 4), draw(4, 4), draw(4) + 2


def _through(x: Tensor, tokens: Tensor, blocks: list[Layer], norm: Layer) -> Tensor:
    for block in blocks:
        x = block(x)
    return F.linear(norm(x), tokens)


def _by_token(ids: Tensor, tokens: Tensor, positions: Tensor, blocks: list[Layer], norm: Layer) -> Tensor:
    return _through(tokens[ids] + positions[ids], tokens, blocks, norm)


def _scaled(ids: Tensor, tokens: Tensor, positions: Tensor, blocks: list[Layer], norm: Layer) -> Tensor:
    x = tokens[ids] * math.sqrt(tokens.shape[1]) + positions[: ids.shape[1]]
    return _through(x, tokens, blocks, norm)


def _again(block: Layer) -> Layer:
    return lambda x: x + block(x)


def _parameters(draw: Draw) -> tuple[Any, ...]:
    parameters = {"token_embedding.weight": draw(96, 64), "position_embedding.weight": draw(64, 64)}
    for layer in range(2):
        at = f"blocks.{layer}"
        parameters |= {
            f"{at}.attention_norm.weight": torch.ones(64),
            f"{at}.attention.qkv.weight": draw(192, 64),
            f"{at}.attention.qkv.bias": draw(192),
            f"{at}.attention.out.weight": draw(64, 64),
            f"{at}.feed_forward.up.weight": draw(256, 64),
            f"{at}.feed_forward.down.weight": draw(64, 256),
            f"{at}.feed_forward.down.bias": draw(64),
        }
    return parameters, 4


def _seen(args: tuple[Any, ...], returned: Any) -> tuple[Tensor, ...]:
    """Of each parameter, its standard deviation in units of 0.02, and its mean."""
    return tuple(torch.stack([one.std(correction=0) / 0.02, one.mean()]) for one in args[0].values())


def _filled(change: Callable[[dict[str, Tensor], int], None]) -> Callable[[dict[str, Tensor], int], None]:
    def function(parameters: dict[str, Tensor], n_layer: int) -> None:
        initialise(parameters, n_layer)
        change(parameters, n_layer)

    return function


def _norms_drawn(parameters: dict[str, Tensor], n_layer: int) -> None:
    for name, parameter in parameters.items():
        if "norm" in name:
            parameter.normal_(0.0, 0.02)


def _biases_drawn(parameters: dict[str, Tensor], n_layer: int) -> None:
    for name, parameter in parameters.items():
        if name.endswith("bias"):
            parameter.normal_(0.0, 0.02)


_TOKENS, _POSITIONS = torch.eye(2), tensor([[0.0, 0.0], [1.0, 0.0]])
PARTS = (
    Part(
        "gpt",
        gpt,
        _make,
        axes=("batch", "position", "token"),
        call=_called,
        by_hand=(Case("ids 1 0", (tensor([[1, 0]]), _TOKENS, _POSITIONS), tensor([[[0.0, 1.0], [2.0, 0.0]]])),),
        edges=(
            Case("one position", (tensor([[1]]), _TOKENS, _POSITIONS), tensor([[[0.0, 1.0]]])),
            Case("as long as there are positions", (tensor([[0, 0]]), _TOKENS, _POSITIONS)),
        ),
        mistakes=(
            Mistake(
                "no positions",
                "The position's vector is added to the token's.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, torch.zeros_like(p), blocks, norm),
            ),
            Mistake(
                "the first position everywhere",
                "Each position has its own row.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p[:1].expand_as(p), blocks, norm),
            ),
            Mistake(
                "positions counted from 1",
                "The first position is row 0.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p.roll(-1, 0), blocks, norm),
            ),
            Mistake(
                "positions looked up by token",
                "Rows of the position embedding are chosen by where a token stands, not by what it is.",
                _by_token,
            ),
            Mistake(
                "no final norm",
                "The stream is normalised before it is compared.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, blocks, _same),
            ),
            Mistake(
                "the norm comes before the blocks",
                "It is the last step before the head.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, [norm, *blocks], _same),
            ),
            Mistake(
                "blocks in reverse order",
                "The first of the list comes first.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, blocks[::-1], norm),
            ),
            Mistake(
                "only the last block counts",
                "Each block reads what the one before it wrote.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, blocks[-1:], norm),
            ),
            Mistake(
                "x is added again to what a block returns",
                "A block adds by itself.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, [_again(block) for block in blocks], norm),
            ),
            Mistake(
                "probabilities, not logits",
                "The loss applies softmax.",
                lambda ids, t, p, blocks, norm: gpt(ids, t, p, blocks, norm).softmax(-1),
            ),
            Mistake(
                "embeddings scaled by the root of the width",
                "GPT-2 adds them as they are.",
                _scaled,
            ),
        ),
    ),
    Part(
        "initialise",
        initialise,
        _parameters,
        axes=tuple(f"standard deviation, in units of 0.02, and mean of {name}" for name in _parameters(Draw(0))[0]),
        gradient=False,
        mutates=True,
        see=_seen,
        tolerance=0.06,
        mistakes=(
            Mistake(
                "the projections into the stream are as large as the others",
                "Names that end with out.weight or down.weight get 0.02 / sqrt(2 n_layer).",
                _filled(lambda parameters, n_layer: _fill(parameters, 0.02, 0.02)),
            ),
            Mistake(
                "scaled by the root of n_layer",
                "Each block writes twice: sqrt(2 n_layer).",
                _filled(lambda parameters, n_layer: _fill(parameters, 0.02, 0.02 / math.sqrt(n_layer))),
            ),
            Mistake(
                "scaled by 2 n_layer and not its root",
                "Independent numbers add up by the root of how many they are.",
                _filled(lambda parameters, n_layer: _fill(parameters, 0.02, 0.02 / (2 * n_layer))),
            ),
            Mistake(
                "deviation 1",
                "Matrices have 0.02.",
                _filled(lambda parameters, n_layer: _fill(parameters, 1.0, 1 / math.sqrt(2 * n_layer))),
            ),
            Mistake(
                "the variance is 0.02",
                "0.02 is the standard deviation.",
                _filled(lambda parameters, n_layer: _fill(parameters, 0.02**0.5, (0.02 / (2 * n_layer)) ** 0.5)),
            ),
            Mistake("norm weights are drawn", "They stay at one.", _filled(_norms_drawn)),
            Mistake("biases are drawn", "They begin at zero.", _filled(_biases_drawn)),
            Mistake(
                "all zeros",
                "Equal weights would stay equal.",
                _filled(lambda parameters, n_layer: _fill(parameters, 0.0, 0.0)),
            ),
        ),
    ),
)
