"""What temperature and top-p must do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, tensor

from llmlab.core.settings import Sampling
from llmlab.exercises.parts import Case, Draw, Mistake, Part
from llmlab.gpt.generate import sampling_steps


def probabilities(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    steps = list(sampling_steps(logits, Sampling(temperature=temperature, top_p=top_p), ()))
    return (steps[-1][1] if steps else logits).softmax(-1)


def _make(draw: Draw) -> tuple[Any, ...]:
    return 2 * draw(12), (0.7, 1.0, 1.5)[int(draw.ids(3, 1))], (0.6, 0.8)[int(draw.ids(2, 1))]


def _kept(p: Tensor, top_p: float, *, crossing: bool = True, more: int = 0, ascending: bool = False) -> Tensor:
    """p with 0 at what top-p leaves out, not normalised."""
    values, order = p.sort(descending=not ascending)
    total = values.cumsum(-1)
    stays = (total - values < top_p) if crossing else (total <= top_p)
    stays[: int(stays.sum()) + more] = True
    return p * torch.zeros_like(p).index_fill(0, order[stays], 1.0)


def _normal(p: Tensor) -> Tensor:
    return p / p.sum()


def _soft(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(-1)


_P = tensor([0.5, 0.3, 0.2])
PARTS = (
    Part(
        "probabilities",
        probabilities,
        _make,
        axes=("token",),
        gradient=False,
        by_hand=(
            Case("0.5, 0.3, 0.2 with top_p 0.7", (_P.log(), 1.0, 0.7), tensor([0.625, 0.375, 0.0])),
            Case("0.2, 0.5, 0.3 with top_p 0.7", (_P.roll(1).log(), 1.0, 0.7), tensor([0.0, 0.625, 0.375])),
            Case("0.5, 0.3, 0.2 at temperature 0.5", (_P.log(), 0.5, 1.0), tensor([25.0, 9.0, 4.0]) / 38),
        ),
        large=lambda draw: (draw(50_000), 0.8, 0.9),
        edges=(
            Case("temperature 0", (_P.log(), 0.0, 1.0), tensor([1.0, 0.0, 0.0])),
            Case("temperature 0 with top_p 0.7", (_P.roll(1).log(), 0.0, 0.7), tensor([0.0, 1.0, 0.0])),
            Case("top_p 0.1, less than the most likely has", (_P.log(), 1.0, 0.1), tensor([1.0, 0.0, 0.0])),
            Case("top_p 1", (_P.log(), 1.0, 1.0), _P),
        ),
        mistakes=(
            Mistake(
                "top-p before the temperature",
                "The temperature comes first: it changes how many tokens have that probability.",
                lambda x, t, p: (x.masked_fill(_kept(x.softmax(-1), p) == 0, -torch.inf) / t).softmax(-1),
            ),
            Mistake(
                "multiplied by the temperature", "Divide by it.", lambda x, t, p: _normal(_kept((x * t).softmax(-1), p))
            ),
            Mistake("no temperature", "Divide the logits by it.", lambda x, t, p: _normal(_kept(x.softmax(-1), p))),
            Mistake(
                "the temperature divides probabilities",
                "It divides logits, before softmax.",
                lambda x, t, p: _normal(_kept((x.softmax(-1) / t).softmax(-1), p)),
            ),
            Mistake("no top-p", "The unlikely tail is left out.", lambda x, t, p: _soft(x, t)),
            Mistake("not normalised", "Those that stay have sum one.", lambda x, t, p: _kept(_soft(x, t), p)),
            Mistake(
                "the token that reaches top_p is left out",
                "It stays: the sum before it is still below top_p.",
                lambda x, t, p: _normal(_kept(_soft(x, t), p, crossing=False)),
            ),
            Mistake(
                "one token too many",
                "The token that reaches top_p is the last.",
                lambda x, t, p: _normal(_kept(_soft(x, t), p, more=1)),
            ),
            Mistake(
                "the unlikely ones are kept",
                "Sort the largest first.",
                lambda x, t, p: _normal(_kept(_soft(x, t), p, ascending=True)),
            ),
            Mistake(
                "a threshold on each probability",
                "top_p is of their sum. (A threshold is min-p.)",
                lambda x, t, p: _normal(_soft(x, t) * (_soft(x, t) >= (1 - p) * _soft(x, t).max())),
            ),
            Mistake(
                "softmax over probabilities",
                "Divide those that stay by their sum.",
                lambda x, t, p: _kept(_soft(x, t), p).softmax(-1),
            ),
            Mistake(
                "in the order of probability",
                "Probabilities belong to ids: bring them back into their order.",
                lambda x, t, p: _normal(_kept(_soft(x, t), p)).sort(descending=True).values,
            ),
            Mistake(
                "divided by a temperature of 0",
                "Temperature 0 is the most likely token alone.",
                lambda x, t, p: _normal(_kept(_soft(x, t), p)),
            ),
        ),
    ),
)
