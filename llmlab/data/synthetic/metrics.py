"""How far a model's beliefs are from the exact posterior, in bits.

The error that counts is taken for each sample and then averaged. Averaging entropies over samples first, as the paper
does, lets errors of opposite sign cancel; both are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_SMALLEST = 1e-300  # below any probability that float64 softmax gives: 0 log 0 is 0


@dataclass(frozen=True)
class Calibration:
    """All in bits.

    entropy_error: mean |H_model - H_Bayes|. kl: mean KL(Bayes || model). paper_error: mean over positions of
    |mean H_model - mean H_Bayes|, in which all positions weigh the same, however often they were scored. The lists have
    an entry a position at which anything was scored: positions (1 is the first prediction), their errors, kls,
    entropies of model and posterior, and counts.
    """

    entropy_error: float
    kl: float
    paper_error: float
    count: int
    places: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)
    model_entropy: list[float] = field(default_factory=list)
    bayes_entropy: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def entropy(p: np.ndarray) -> np.ndarray:
    """Probabilities [..., C] -> entropy in bits [...]."""
    return -(p * np.log2(np.maximum(p, _SMALLEST))).sum(-1)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) in bits: [..., C], [..., C] -> [...]."""
    return (p * (np.log2(np.maximum(p, _SMALLEST)) - np.log2(np.maximum(q, _SMALLEST)))).sum(-1)


def calibration(model: np.ndarray, posterior: np.ndarray, scored: np.ndarray) -> Calibration:
    """Beliefs of a model and exact ones, [B, P, C] each, where `scored` [B, P] says so. ValueError when nowhere."""
    if not scored.any():
        raise ValueError("no prediction is scored")
    ours, exact = entropy(model), entropy(posterior)  # [B, P]
    gap, kl = np.abs(ours - exact), divergence(posterior, model)
    counts = scored.sum(0)
    there = np.flatnonzero(counts)

    def by_place(values: np.ndarray) -> np.ndarray:
        return np.where(scored, values, 0.0).sum(0)[there] / counts[there]

    model_entropy, bayes_entropy = by_place(ours), by_place(exact)
    return Calibration(
        entropy_error=float(gap[scored].mean()),
        kl=float(kl[scored].mean()),
        paper_error=float(np.abs(model_entropy - bayes_entropy).mean()),
        count=int(scored.sum()),
        places=[int(place) + 1 for place in there],
        errors=by_place(gap).tolist(),
        kls=by_place(kl).tolist(),
        model_entropy=model_entropy.tolist(),
        bayes_entropy=bayes_entropy.tolist(),
        counts=counts[there].tolist(),
    )
