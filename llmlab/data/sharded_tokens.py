"""Tokens that lie in several arrays, read as one: the shards of a large corpus, and the sources of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias, overload

import numpy as np


class ShardedTokens:
    """Arrays of ids one after the other, as one read-only array. Nothing is copied until it is looked at.

    A slice is again one, of views; an array of places gives the ids there, also across the border of two shards.
    `numpy.asarray` copies all of it.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        """parts: of one dtype, each [tokens]; at least one."""
        self.parts = list(parts)
        self.dtype = self.parts[0].dtype
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, places: slice) -> ShardedTokens: ...
    @overload
    def __getitem__(self, places: np.ndarray) -> np.ndarray: ...
    def __getitem__(self, places: slice | np.ndarray) -> ShardedTokens | np.ndarray:
        """places: from 0 to the length; a slice has no step."""
        if isinstance(places, slice):
            begin, end, _ = places.indices(len(self))
            firsts = self._ends - [len(part) for part in self.parts]
            both = zip(firsts, self.parts, strict=True)
            cut = [part[max(0, begin - first) : max(0, end - first)] for first, part in both]
            return ShardedTokens([part for part in cut if len(part)] or cut[:1])
        shards = np.searchsorted(self._ends, places, side="right")
        found = np.empty(places.shape, dtype=self.dtype)
        for shard in np.unique(shards):
            part, here = self.parts[shard], shards == shard
            found[here] = part[places[here] - (self._ends[shard] - len(part))]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)


class MixedTokens(ShardedTokens):
    """The tokens of several sources, and the share of the sequences that each is to have.

    weights: one a source, which sum to one. firsts: where each source begins, int64 [sources].
    """

    def __init__(self, sources: Sequence[Tokens], weights: Sequence[Fraction]) -> None:
        super().__init__([part for source in sources for part in parts_of(source)])
        self.sources, self.weights = list(sources), list(weights)
        self.firsts = np.cumsum([0, *(len(source) for source in sources)])[:-1]


Tokens: TypeAlias = np.ndarray | ShardedTokens


def parts_of(tokens: Tokens) -> list[np.ndarray]:
    """The arrays that tokens lie in."""
    return tokens.parts if isinstance(tokens, ShardedTokens) else [tokens]
