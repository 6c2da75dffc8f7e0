"""What LayerNorm must do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from llmlab.exercises.parts import Case, Draw, Mistake, Part


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _make(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    return 2 * draw(2, 3, 4) + 1, draw(4), draw(4), 1e-5


def _scaled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x * weight if bias is None else x * weight + bias


def _unbiased(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled((x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt(), weight, bias)


def _by_variance(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled((x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps), weight, bias)


def _over_positions(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    mean, var = x.mean(-2, keepdim=True), x.var(-2, keepdim=True, correction=0)
    return _scaled((x - mean) / (var + eps).sqrt(), weight, bias)


def _over_everything(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled((x - x.mean()) / (x.var(correction=0) + eps).sqrt(), weight, bias)


def _no_mean(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled(x / (x.square().mean(-1, keepdim=True) + eps).sqrt(), weight, bias)


def _mean_kept(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled(x / (x.var(-1, keepdim=True, correction=0) + eps).sqrt(), weight, bias)


def _not_scaled(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, None, None, eps)


def _bias_scaled(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    normal = F.layer_norm(x, weight.shape, None, None, eps)
    return normal * weight if bias is None else (normal + bias) * weight


def _only_centred(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled(x - x.mean(-1, keepdim=True), weight, bias)


def _eps_outside(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _scaled((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + eps), weight, bias)


PARTS = (
    Part(
        "layer_norm",
        layer_norm,
        _make,
        axes=("batch", "position", "component"),
        by_hand=(
            Case("x = [1, 3]", (tensor([1.0, 3.0]), torch.ones(2), None, 1e-5), tensor([-1.0, 1.0])),
            Case(
                "x = [1, 3], weight [2, 1], bias [0, 10]",
                (tensor([[1.0, 3.0]]), tensor([2.0, 1.0]), tensor([0.0, 10.0]), 1e-5),
                tensor([[-2.0, 11.0]]),
            ),
        ),
        large=lambda draw: (draw(64, 64, 128), draw(128), draw(128), 1e-5),
        edges=(
            Case("all components equal", (torch.full((1, 4), 7.0), torch.ones(4), None, 1e-5), torch.zeros(1, 4)),
            Case("deviations of a hundredth, eps 1e-2", (tensor([[0.01, -0.01]]), torch.ones(2), None, 1e-2)),
            Case("no bias", (tensor([[1.0, 2.0, 6.0]]), tensor([1.0, 2.0, 3.0]), None, 1e-5)),
        ),
        mistakes=(
            Mistake(
                "unbiased variance",
                "torch.var divides by C - 1; LayerNorm divides by C (correction=0).",
                _unbiased,
            ),
            Mistake("divided by the variance", "Divide by its root.", _by_variance),
            Mistake("over positions", "Mean and variance are each vector's own: the last axis.", _over_positions),
            Mistake("over everything at once", "Mean and variance are each vector's own.", _over_everything),
            Mistake("RMSNorm", "The mean is subtracted first.", _no_mean),
            Mistake("the mean is not subtracted", "Only the variance was taken around it.", _mean_kept),
            Mistake("weight and bias are left out", "They are applied at the end.", _not_scaled),
            Mistake("the bias is scaled", "The weight comes first, then the bias.", _bias_scaled),
            Mistake("only centred", "Divide by the root of the variance.", _only_centred),
            Mistake("eps outside the root", "eps is added to the variance, under the root.", _eps_outside),
        ),
    ),
)
