"""Orders that need no memory: a shuffle of any length, and turns of several sources by their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

# Four rounds make a Feistel network a pseudo-random permutation (Luby and Rackoff 1988); more cost little.
_ROUNDS = 6
# Turns repeat after as many as the weights have in common: 0.7 and 0.3 after 10.
LONGEST_PERIOD = 100_000


class Shuffle:
    """A shuffle of 0 to count - 1 that computes each place by itself, in constant memory.

    A Feistel network shuffles the next power of four; a place that it sends beyond the end is sent on until it comes
    back (cycle walking: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"), after four tries on average
    at most.
    """

    def __init__(self, count: int, seed: Sequence[int]) -> None:
        self.count = count
        self._bits = max(1, math.ceil(math.log2(max(2, count)) / 2))
        while 1 << (2 * self._bits) < count:  # the logarithm was rounded
            self._bits += 1
        self._keys = np.random.default_rng(seed).integers(0, 1 << 63, _ROUNDS, dtype=np.uint64)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """What stands at `places`, int64 of the same shape. places: 0 to count - 1."""
        found = self._network(places.astype(np.uint64))
        while (beyond := found >= self.count).any():
            found[beyond] = self._network(found[beyond])
        return found.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        """A permutation of 0 to 4^bits - 1."""
        bits, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
        left, right = values >> bits, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << bits | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


class Turns:
    """Which of several sources each of endlessly many turns takes: after N turns, each has had its share of N, within
    less than one turn.

    Turn j of a source with weight w has to come after j / w turns of all and before (j + 1) / w; of those that may
    come, the one that has to come first is taken (earliest deadline first, which always meets these deadlines: Baruah
    et al. 1996, "Proportionate Progress"). The seed decides between equals. The pattern repeats.
    """

    def __init__(self, weights: Sequence[Fraction], seed: int) -> None:
        """weights: sum to one, and have a common denominator of LONGEST_PERIOD at most."""
        period = math.lcm(*(weight.denominator for weight in weights))
        shares = [int(weight * period) for weight in weights]  # turns in a period
        rank = np.random.default_rng(seed).permutation(len(weights))
        had = [0] * len(weights)
        self._sources = np.empty(period, dtype=np.int64)
        self._ordinals = np.empty(period, dtype=np.int64)
        for turn in range(period):
            source = min(
                (source for source, share in enumerate(shares) if share and had[source] * period < (turn + 1) * share),
                key=lambda source: (-(-(had[source] + 1) * period // shares[source]), rank[source]),
            )
            self._sources[turn], self._ordinals[turn] = source, had[source]
            had[source] += 1
        self._shares = np.array(shares)

    def __call__(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each turn, and how many turns that source had before: int64, of the shape of `turns`."""
        periods, places = np.divmod(turns, len(self._sources))
        sources = self._sources[places]
        return sources, self._ordinals[places] + periods * self._shares[sources]
