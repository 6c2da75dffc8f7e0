"""What the feed-forward must do."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part


def feed_forward(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, up), approximate="tanh"), down)


def _make(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    return draw(2, 3, 4), draw(16, 4), draw(4, 16) / 4


def _with(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda x, up, down: F.linear(activation(F.linear(x, up)), down)


def _tanh(h: Tensor, root: float, cube: float) -> Tensor:
    return 0.5 * h * (1 + torch.tanh(root * (h + cube * h**3)))


_ROOT = (2 / torch.pi) ** 0.5
PARTS = (
    Part(
        "feed_forward",
        feed_forward,
        _make,
        axes=("batch", "position", "component"),
        by_hand=(
            Case(
                "x = [1], up = [[1], [-1]], down = [[1, 1]]",
                (tensor([[[1.0]]]), tensor([[1.0], [-1.0]]), tensor([[1.0, 1.0]])),
                tensor([[[0.682384]]]),
            ),
        ),
        large=lambda draw: (draw(8, 64, 64), draw(256, 64) / 8, draw(64, 256) / 16),
        tolerance=1e-5,
        edges=(
            Case("zeros", (torch.zeros(1, 1, 2), Draw(1)(8, 2), Draw(2)(2, 8)), torch.zeros(1, 1, 2)),
            Case("values of a hundred", (tensor([[[100.0]]]), tensor([[1.0], [-1.0]]), tensor([[1.0, 1.0]]))),
        ),
        mistakes=(
            Mistake("no activation", "Without it two matrices are one.", _with(lambda h: h)),
            Mistake("ReLU", "GPT-2 has GELU.", _with(F.relu)),
            Mistake("SiLU", "GPT-2 has GELU.", _with(F.silu)),
            Mistake("tanh", "GELU is not tanh; it uses it.", _with(torch.tanh)),
            Mistake("GELU itself", "GPT-2's approximation by tanh is asked for.", _with(F.gelu)),
            Mistake(
                "GELU approximated by a sigmoid",
                "GPT-2's approximation is by tanh.",
                _with(lambda h: h * torch.sigmoid(1.702 * h)),
            ),
            Mistake(
                "half is missing", "GELU is 0.5 h (1 + tanh(...)).", _with(lambda h: 2 * _tanh(h, _ROOT, 0.044715))
            ),
            Mistake("no cube", "Inside tanh stands h + 0.044715 h^3.", _with(lambda h: _tanh(h, _ROOT, 0.0))),
            Mistake(
                "the root is missing",
                "Inside tanh the sum is multiplied by sqrt(2 / pi).",
                _with(lambda h: _tanh(h, 2 / torch.pi, 0.044715)),
            ),
            Mistake(
                "activation at the end",
                "It stands between the two matrices.",
                lambda x, up, down: F.gelu(F.linear(F.linear(x, up), down), approximate="tanh"),
            ),
            Mistake("x is added", "The block adds it.", lambda x, up, down: x + feed_forward(x, up, down)),
        ),
    ),
)
