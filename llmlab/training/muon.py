"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): an optimizer for matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Of the polynomial whose iterations bring all singular values near one, as steep at zero as possible; Jordan et al.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Moves a matrix as far along every direction.

    A matrix maps vectors to vectors, and its gradient moves few directions of them much and most hardly at all. Muon
    replaces the averaged gradient U S V^T by about U V^T, with Newton-Schulz iterations, so that every direction
    moves as far, and scales it by sqrt(max(1, rows / columns)). Its only state is one average per weight.

    Equal shapes are computed in one batch, which small matrices need to be fast. torch.optim.Muon has the same formula,
    but only in bf16, which processors without bf16 products multiply slowly: here it is fp32 on a processor.
    """

    def __init__(self, groups: Iterable[tuple[list[Tensor], int]], weight_decay: float, iterations: int) -> None:
        """groups: matrices with the rows of a part: each part is orthogonalised by itself; 0 means the matrix whole."""
        made = [{"params": matrices, "part": part} for matrices, part in groups if matrices]
        super().__init__(made, {"lr": 0.0, "momentum": _MOMENTUM, "weight_decay": weight_decay})
        self.iterations = iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                part = group["part"] or rows
                ahead = self._averaged(matrices, group["momentum"])  # [N, rows, columns]
                towards = orthogonalised(ahead.reshape(-1, part, columns), self.iterations).reshape(ahead.shape)
                rate = group["lr"] * max(1.0, part / columns) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, [*towards.to(matrices[0].dtype)], alpha=-rate)

    def _averaged(self, matrices: list[Tensor], momentum: float) -> Tensor:
        """The gradients' running averages, a step ahead (Nesterov)."""
        gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
        for matrix, gradient in zip(matrices, gradients, strict=True):
            average = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(gradient))
            average.lerp_(gradient, 1 - momentum)
            gradient.lerp_(average, momentum)
        return gradients


def orthogonalised(matrices: Tensor, iterations: int) -> Tensor:
    """U S V^T -> about U V^T of each matrix [N, rows, columns].

    X <- a X + (b A + c A^2) X with A = X X^T makes each singular value s, at most 1 at first, a s + b s^3 + c s^5.
    After five, all but the tiniest are between 0.7 and 1.2; fewer cost less, and leave small ones smaller.
    """
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide if wide.device.type == "cpu" else wide.bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=_B, alpha=_C), x, beta=_A)
    return x if wide is matrices else x.mT
