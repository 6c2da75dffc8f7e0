"""What one layer's attention got, and the pattern that it makes of it, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Query rows of a pattern that are computed together: few, because the keys behind the last of them, which no row of a
# causal pattern sees, are left out (of 512 tokens 37.5 %), and because what is computed from them stays near the cores;
# but many enough for two threads to share (resources/results/benchmarks.md compares 64, 128 and 256).
# Fewer where all heads' rows hold more numbers than this (64 MB in fp32).
_PATTERN_ROWS, _PATTERN_NUMBERS = 128, 16 * 1024 * 1024


@dataclass(frozen=True)
class AttentionCall:
    """What one layer's attention got, and how it makes a pattern of it.

    query [H, T, D]; key and value [H_kv, T, D]; mask [1 or H, T, T], added to the scores, None where nothing is
    masked; scale: what q k^T is multiplied by; softcap: tanh(score / c) * c before the mask (Gemma 2).
    rows: (first, last, keys) -> the pattern's rows [H, last - first, keys] over the first keys alone, and their z
    [H, last - first, D], by the model's own code where it has any.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    softcap: float | None
    rows: Callable[[int, int, int], tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> AttentionCall:
        """softmax(scale q k^T + mask) v, where each key-value head serves a group of query heads."""
        group = query.shape[0] // key.shape[0]
        all_keys, all_values = (repeated(x, group) for x in (key, value))  # [H, T, D]

        def rows(first: int, last: int, keys: int) -> tuple[Tensor, Tensor]:
            seen, values = all_keys[:, :keys], all_values[:, :keys]  # [H, K, D]
            scores = query[:, first:last] @ seen.transpose(1, 2) * scale + mask[:, first:last, :keys]  # [H, q, K]
            pattern = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
            return pattern, pattern @ values

        return cls(query, key, value, mask, scale, None, rows)

    def chunks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The pattern in pieces that fit: first row, pattern [H, q, K], z [H, q, D]; see `Observer.pattern`."""
        n_head, time, _ = self.query.shape
        step = min(_PATTERN_ROWS, max(16, _PATTERN_NUMBERS // (n_head * time)))
        for first in range(0, time, step):
            last = min(first + step, time)
            yield first, *self.rows(first, last, self.keys(first, last))

    def keys(self, first: int, last: int) -> int:
        """How many keys rows first to last - 1 may see: those up to the last row where later ones are all masked."""
        time = self.key.shape[1]
        if self.mask is None or last == time:
            return time
        later = self.mask[:, first:last, last:].amax()
        return last if never(later) else time


def repeated(x: Tensor, group: int, dim: int = 0) -> Tensor:
    """Each of the key-value heads along `dim` as often in a row as heads share it."""
    return x if group == 1 else x.repeat_interleave(group, dim)


def never(mask: Tensor) -> Tensor:
    """Where a mask, added to scores, hides a key: by minus infinity, or by the lowest number that its dtype has."""
    return mask <= torch.finfo(mask.dtype).min / 2


def with_all_keys(pattern: Tensor, time: int) -> Tensor:
    """Rows of a pattern [..., K] -> [..., T]: no weight on the keys that were left out."""
    missing = time - pattern.shape[-1]
    return nn.functional.pad(pattern, (0, missing)) if missing else pattern
