"""What a step of AdamW must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part
from llmlab.training.plain_optimizer import AdamW

Three = tuple[Tensor, Tensor, Tensor]


def adamw(
    weight: Tensor,
    gradient: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> Three:
    learns = torch.nn.Parameter(weight.clone())
    learns.grad = gradient
    optimizer = AdamW([learns], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    state = {"step": tensor(step - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[learns] = state
    optimizer.step()
    return learns.detach(), state["exp_avg"], state["exp_avg_sq"]


def _make(draw: Draw) -> tuple[Any, ...]:
    step = int(draw.ids(4, 1)) + 2
    return draw(3, 4), draw(3, 4), draw(3, 4), draw(3, 4).square(), step, 0.1, 0.9, 0.95, 1e-2, 0.5


def _wrong(
    *,
    corrected: str = "mv",
    eps_under: bool = False,
    eps: bool = True,
    decayed: str = "own",
    root: bool = True,
    squared: bool = True,
    swapped: bool = False,
    later: int = 0,
    sign: int = 1,
    kept_corrected: bool = False,
) -> Callable[..., Three]:
    """AdamW by its formulas, with one thing otherwise."""

    def function(
        w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, b1: float, b2: float, e: float, decay: float
    ) -> Three:
        if swapped:
            b1, b2 = b2, b1
        if decayed == "gradient":
            g = g + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g if squared else g.abs())
        m_hat = m / (1 - b1 ** (step + later)) if "m" in corrected else m
        v_hat = v / (1 - b2 ** (step + later)) if "v" in corrected else v
        e = e if eps else 0.0
        size = (v_hat + e).sqrt() if eps_under else (v_hat.sqrt() if root else v_hat) + e
        before = w
        if decayed == "own":
            w = w - lr * decay * w
        w = w - sign * lr * m_hat / size
        if decayed == "after":
            w = w - lr * decay * w
        if decayed == "whole":
            w = w - decay * before
        return (w, m_hat, v_hat) if kept_corrected else (w, m, v)

    return function


def _one(number: float) -> Tensor:
    return tensor([number])


_FIRST = (_one(1.0), _one(0.5), _one(0.0), _one(0.0), 1, 0.1, 0.9, 0.99, 1e-8)
PARTS = (
    Part(
        "adamw",
        adamw,
        _make,
        axes=("the weight", "m", "v"),
        gradient=False,
        by_hand=(
            Case("the first step, gradient 0.5", (*_FIRST, 0.0), (_one(0.9), _one(0.05), _one(0.0025))),
            Case("the same with decay 1", (*_FIRST, 1.0), (_one(0.8), _one(0.05), _one(0.0025))),
        ),
        large=lambda draw: (*(draw(300, 300) for _ in range(3)), draw(300, 300).square(), 5, 0.1, 0.9, 0.95, 1e-8, 0.1),
        edges=(
            Case(
                "no gradient, ever",
                (_one(2.0), *[_one(0.0)] * 3, 1, 0.1, 0.9, 0.99, 1e-8, 0.0),
                (_one(2.0), _one(0.0), _one(0.0)),
            ),
            Case("step 10,000", (_one(1.0), _one(0.5), _one(0.4), _one(0.2), 10_000, 0.1, 0.9, 0.99, 1e-8, 0.1)),
        ),
        mistakes=(
            Mistake("no bias correction", "m and v begin at zero, and are too small at first.", _wrong(corrected="")),
            Mistake("m is not corrected", "Divide it by 1 - beta1^step.", _wrong(corrected="v")),
            Mistake("v is not corrected", "Divide it by 1 - beta2^step.", _wrong(corrected="m")),
            Mistake(
                "the corrected m and v are kept",
                "The correction is for this step; the running means go on without it.",
                _wrong(kept_corrected=True),
            ),
            Mistake("eps under the root", "It is added to the root.", _wrong(eps_under=True)),
            Mistake("no eps", "It is added to the root.", _wrong(eps=False)),
            Mistake(
                "the decay goes through the gradient",
                "That is Adam with L2: AdamW decays the weight itself.",
                _wrong(decayed="gradient"),
            ),
            Mistake("no decay", "The weight shrinks by lr * decay of itself.", _wrong(decayed="")),
            Mistake("the decay is not multiplied by lr", "It is lr * decay * weight.", _wrong(decayed="whole")),
            Mistake("the decay is of the new weight", "It is of the weight before the step.", _wrong(decayed="after")),
            Mistake("divided by v and not its root", "v has the unit of a squared gradient.", _wrong(root=False)),
            Mistake("v is not of the square", "v is the mean of squared gradients.", _wrong(squared=False)),
            Mistake("beta1 and beta2 are swapped", "beta1 is of m, beta2 of v.", _wrong(swapped=True)),
            Mistake("step counted from 0", "step is 1 at the first step.", _wrong(later=1)),
            Mistake("uphill", "The step goes against the gradient.", _wrong(sign=-1)),
        ),
    ),
)
