"""Numbers modulo p as waves: which frequencies an embedding uses, and what logits say at some of them. numpy only.

A frequency k is a pair of waves cos(2 pi k n / p), sin(2 pi k n / p) over n = 0 .. p-1; k = 1 .. p // 2 are all that
there are beside the constant. Logits [p, p, p] are those of every sum: by a, b and answer c.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

Array = np.ndarray


def power_shares(numbers: Array) -> Array:
    """Share of the power that each frequency 1 .. p // 2 has: [p // 2], in all 1, or 0 where nothing varies.

    numbers: [p, width], a vector for each number. The constant is left out: it says nothing about which number it is.
    """
    varying = numbers - np.mean(numbers, axis=0, dtype=float)
    spectrum = np.fft.rfft(varying, axis=0)  # [p // 2 + 1, width]
    power = (np.abs(spectrum) ** 2).sum(1) * _multiplicity(len(numbers))
    total = float(power[1:].sum())
    return power[1:] / total if total > 0 else np.zeros(len(power) - 1)


def key_frequencies(shares: Array, share: float) -> list[int]:
    """The fewest frequencies that together have `share` of the power, the strongest first."""
    order = np.argsort(-shares, kind="stable")
    reached = np.cumsum(shares[order]) >= share - 1e-12
    count = int(reached.argmax()) + 1 if reached.any() else len(order)
    return [int(place) + 1 for place in order[:count]]


def sum_waves(logits: Array, frequencies: Collection[int]) -> Array:
    """The part of logits that is a wave in a + b, at these frequencies: [p, p, p] as logits are, at (a, b, c).

    Nanda et al. 2023, section 5: of the two-dimensional Fourier transform over a and b, the terms cos(w (a + b)) and
    sin(w (a + b)). They are found by averaging over all (a, b) of one sum, since no other term outlives that.
    """
    p = len(logits)
    a, b = np.indices((p, p))
    sums = (a + b) % p
    means = np.zeros((p, logits.shape[2]))
    np.add.at(means, sums.ravel(), logits.reshape(p * p, -1))
    spectrum = np.fft.rfft(means / p, axis=0)
    kept = np.zeros_like(spectrum)
    for k in frequencies:
        kept[k] = spectrum[k]
    return np.fft.irfft(kept, n=p, axis=0)[sums]  # [p, p, answers]


def restricted(logits: Array, frequencies: Collection[int]) -> Array:
    """Logits with nothing but these waves in a + b, and their mean over all sums."""
    return sum_waves(logits, frequencies) + logits.mean((0, 1))


def excluded(logits: Array, frequencies: Collection[int]) -> Array:
    """Logits without these waves in a + b."""
    return logits - sum_waves(logits, frequencies)


def _multiplicity(p: int) -> Array:
    """How often each term of `rfft` stands in the whole transform: [p // 2 + 1], 1 or 2."""
    count = np.full(p // 2 + 1, 2.0)
    count[0] = 1
    if p % 2 == 0:
        count[-1] = 1
    return count
