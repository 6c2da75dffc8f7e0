"""Attention rollout (Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 4).

How much of each input token's identity reaches each position of each layer, if attention were all that mixes tokens.
Heads are averaged. The residual connection carries a token's own identity past attention; it is mixed in as one
half, whatever the real sizes of stream and contribution are:

    M_l = rows of (0.5 mean_h A_l,h + 0.5 I), divided by their sums       [T, T]
    R_0 = M_0,   R_l = M_l R_{l-1}                                         [T, T]

R_l[i, j] is the summed weight of all paths from position i after layer l down to input token j. Dividing matters only
where a pattern's rows do not sum to one already (models with sinks). Value vectors, output projections and
feed-forwards play no part: rollout is a picture of where attention could carry things, not of what it carries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import Observer
from llmlab.core.errors import LabError

RESIDUAL = 0.5  # share of the residual connection in the mix (the paper's 0.5 W_att + 0.5 I)


class Rollout(Observer):
    """Gives R_l [T, T] of every layer to `write` when its last rows have come; holds two such matrices."""

    def __init__(self, anatomy: Anatomy, time: int, write: Callable[[int, Tensor], None]) -> None:
        """write: layer, R_l, which is overwritten afterwards. LabError where a layer has no pattern to roll out."""
        missing = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is None]
        if missing:
            raise LabError(
                "Attention rollout cannot be shown for this model.",
                f"Layer {missing[0]} mixes tokens without an attention pattern, and a product of patterns skips it.",
                "The other panels still work.",
            )
        self._write = write
        self._time = time
        device = anatomy.unembedding.device
        self._below = torch.eye(time, device=device)
        self._here = torch.zeros(time, time, device=device)

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Mixes some rows and multiplies them into what reached the layer below."""
        mixed = pattern.mean(0, dtype=torch.float32).mul_(1 - RESIDUAL)  # [q, K]
        last = first + len(mixed)
        mixed.diagonal(first).add_(RESIDUAL)
        mixed /= mixed.sum(-1, keepdim=True)
        torch.mm(mixed, self._below[: mixed.shape[1]], out=self._here[first:last])
        if last == self._time:
            self._write(layer, self._here)
            self._below, self._here = self._here, self._below
