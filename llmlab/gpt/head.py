"""The loss at the vocabulary, without ever holding all logits.

With 50,257 tokens the last matrix product and its softmax are most of a small GPT's work and memory: the logits
of 8 sequences of 256 tokens alone are 412 MB. Taking a few rows at a time, and computing their gradient at once,
needs one small buffer and less time. The result is plain cross-entropy; only its rounding differs.

A run in bf16 on a processor does the same. Logits and their gradient stay in fp32 there; it is what a product
multiplies that is rounded to bf16 (`rounded_products`), so that no copies are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.gpt.shapes import CHUNK_ROWS, FEW_LOGITS


def capped(logits: Tensor, softcap: float) -> Tensor:
    """softcap * tanh(logits / softcap): about the logits where they are small, never beyond the cap. 0: as they are."""
    return torch.tanh(logits / softcap) * softcap if softcap else logits


def next_token_loss(x: Tensor, unembedding: Tensor, targets: Tensor, softcap: float = 0.0) -> Tensor:
    """Mean cross-entropy of softmax(x @ unembedding^T) at `targets`: a scalar, in nats.

    x: final residual stream [B, T, C]; unembedding: [V, C]; targets: ids [B, T]; softcap: of the logits (`capped`).
    """
    rows, row_targets = x.flatten(0, -2), targets.flatten()  # [N, C], [N]
    few = rows.shape[0] * unembedding.shape[0] < FEW_LOGITS
    half = torch.is_autocast_enabled(x.device.type)
    if few or (half and not x.is_cpu):
        return F.cross_entropy(capped(F.linear(rows, unembedding), softcap), row_targets)
    if half:
        with torch.autocast("cpu", enabled=False), rounded_products():
            return next_token_loss(x.float(), unembedding, targets, softcap)
    if not torch.is_grad_enabled():
        pairs = zip(rows.split(CHUNK_ROWS), row_targets.split(CHUNK_ROWS), strict=True)
        total = sum(F.cross_entropy(capped(F.linear(r, unembedding), softcap), t, reduction="sum") for r, t in pairs)
        return torch.as_tensor(total) / rows.shape[0]
    return _ChunkedLoss.apply(rows, unembedding, row_targets, softcap)


@contextlib.contextmanager
def rounded_products() -> Iterator[None]:
    """Products of fp32 matrices multiply in bf16, where the processor has units for it, and add in fp32
    (pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _ChunkedLoss(torch.autograd.Function):
    """Cross-entropy whose gradient, softmax minus one-hot, is taken chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, unembedding: Tensor, targets: Tensor, softcap: float) -> Tensor:
        """rows [N, C], unembedding [V, C], targets [N] -> the mean loss, a scalar."""
        rows_grad = torch.empty_like(rows)  # [N, C]
        learns = ctx.needs_input_grad[1]  # not where adapters learn alone
        unembedding_grad = torch.empty_like(unembedding) if learns else None  # [V, C]
        total, least = rows.new_zeros(()), rows.new_ones(())
        # One buffer for all chunks, and few passes over it: each is a trip to main memory.
        buffer = rows.new_empty(min(CHUNK_ROWS, rows.shape[0]), unembedding.shape[0])  # [R, V]
        slopes = torch.empty_like(buffer) if softcap else buffer
        for start in range(0, rows.shape[0], CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]  # [R, C]
            target = targets[start : start + CHUNK_ROWS, None]  # [R, 1]
            logits = torch.mm(chunk, unembedding.t(), out=buffer[: len(chunk)])
            if softcap:
                logits.div_(softcap).tanh_()
                slope = torch.square(logits, out=slopes[: len(chunk)]).neg_().add_(1)  # of capped logits by plain ones
                logits.mul_(softcap)
            p = torch.softmax(logits, dim=-1, out=logits)
            p_target = p.gather(1, target)  # [R, 1]
            total, least = total - p_target.log().sum(), torch.minimum(least, p_target.amin())
            logits_grad = p.scatter_add_(1, target, torch.full_like(target, -1, dtype=rows.dtype))  # minus one-hot
            if softcap:
                logits_grad.mul_(slope)
            torch.mm(logits_grad, unembedding, out=rows_grad[start : start + CHUNK_ROWS])
            if unembedding_grad is not None:
                unembedding_grad.addmm_(logits_grad.t(), chunk, beta=int(start > 0))  # the first one overwrites
        if least < torch.finfo(rows.dtype).tiny:  # a loss above 87 nats: fp32 has lost such a probability
            total = next_token_loss(rows, unembedding, targets, softcap) * rows.shape[0]  # from logits, no gradient
        ctx.save_for_backward(rows_grad, unembedding_grad)
        return total / rows.shape[0]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The stored gradients, times the upstream gradient (1, or a share under accumulation)."""
        rows_grad, unembedding_grad = ctx.saved_tensors
        scale = upstream[0] / rows_grad.shape[0]
        return rows_grad * scale, None if unembedding_grad is None else unembedding_grad * scale, None, None
