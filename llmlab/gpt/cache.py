"""The key-value cache: keys and values of the tokens that were read, kept so that only new ones are computed.

Without it every new token costs a pass over the whole text. Attention mixes positions by keys and values alone, and
under the causal mask those of a position never change when tokens come after it. So a pass over one token is enough,
if it finds the keys and values of all earlier ones. The logits are those of the pass over everything, up to rounding.

This ends where the context is full. When the oldest token falls out, the others move to other learned positions, and
in every layer but the first their keys and values were computed from a stream that had seen the token that is gone.
None of them is right any more: from then on the whole window is read anew for each token (`llmlab.gpt.generate`).
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Keys and values of all layers, for B texts of different lengths that are read at the same time.

    Each token has the slot of its own position. Behind the end of a shorter text there may be padding: no query looks
    at later positions, and the text's next token takes the slot.
    """

    positions: Tensor  # [B, T], of the tokens that the model reads now

    def __init__(self, n_layer: int, slots: int) -> None:
        """slots: positions that it has room for, at most the model's `block_size`."""
        self.layers = [LayerCache(slots) for _ in range(n_layer)]

    def expect(self, positions: Tensor) -> None:
        """positions [B, T] of the tokens that the model is about to read."""
        self.positions = positions
        slots = torch.arange(int(positions.max()) + 1, device=positions.device)  # [S], filled afterwards
        mask = slots <= positions[:, None, :, None]  # [B, 1, T, S], True where a query may look
        for layer in self.layers:
            layer.positions, layer.mask = positions, mask


class LayerCache:
    """Keys and values of one layer."""

    positions: Tensor  # as above
    mask: Tensor

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.kept: list[Tensor] = []  # keys and values of all slots, [B, slots, H_kv, D] each; [] at first

    def extended(self, *new: Tensor) -> list[Tensor]:
        """New keys and values [B, H_kv, T, D] -> all up to them [B, H_kv, S, D]; the new ones are kept."""
        if not self.kept:  # zeros: what is masked still takes part, with weight 0, and 0 times NaN is NaN
            batch, heads, _, dim = new[0].shape
            self.kept = [part.new_zeros(batch, self._slots, heads, dim) for part in new]
        rows = torch.arange(len(self.positions), device=self.positions.device)[:, None]
        for kept, part in zip(self.kept, new, strict=True):
            kept[rows, self.positions] = part.transpose(1, 2)
        return [kept[:, : self.mask.shape[-1]].transpose(1, 2) for kept in self.kept]
