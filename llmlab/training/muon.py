"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): an optimizer for matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from llmlab.training.plain_optimizer import PlainOptimizer

# Polynomials that together bring all singular values from 0.001 on as near to one as five can (Amsel et al. 2025, The
# Polar Express, arXiv:2505.16932, algorithm 1); shrunk a little, as there, since rounding can make one more than 1.
_SAFETY = 1.01
POLYNOMIALS = [
    (a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    )
]
_MOMENTUM = 0.95


class Muon(PlainOptimizer):
    """Moves a matrix as far along every direction.

    A matrix maps vectors to vectors, and its gradient moves few directions of them much and most hardly at all. Muon
    replaces the averaged gradient U S V^T by about U V^T, with Newton-Schulz iterations, so that every direction
    moves as far, and scales it by sqrt(max(1, rows / columns)). Its only state is one average per weight.

    Equal shapes are computed in one batch, which small matrices need to be fast, and in fp32 on a processor, where
    products in bf16 are slow; torch.optim.Muon takes one after the other, in bf16.
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
            kept = self.state[matrix]
            if "momentum_buffer" not in kept:
                kept["momentum_buffer"] = torch.zeros_like(gradient)
            average = kept["momentum_buffer"]
            average.lerp_(gradient, 1 - momentum)
            gradient.lerp_(average, momentum)
        return gradients


def orthogonalised(matrices: Tensor, iterations: int) -> Tensor:
    """U S V^T -> about U V^T of each matrix [N, rows, columns].

    X <- a X + (b A + c A^2) X with A = X X^T makes each singular value s, at most 1 at first, a s + b s^3 + c s^5.
    All five bring those from 0.001 on between 0.85 and 1.13; three, between 0.13 and 1.87.
    """
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide if wide.device.type == "cpu" else wide.bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for a, b, c in POLYNOMIALS[:iterations]:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT
