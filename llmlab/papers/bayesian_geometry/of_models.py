"""One verdict from several models: most of them must say the same. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.papers.bayesian_geometry import thresholds as bounds
from llmlab.papers.records import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED


def by_models(outcomes: Sequence[str]) -> str:
    """What SHARE_OF_MODELS of the models say; else inconclusive."""
    for word in (SUPPORTED, NOT_SUPPORTED):
        if outcomes and outcomes.count(word) >= bounds.SHARE_OF_MODELS * len(outcomes):
            return word
    return INCONCLUSIVE


def models_sentence(names: Sequence[str], outcomes: Sequence[str]) -> str:
    """Which models say what."""
    said = "; ".join(
        f"{word}: {', '.join(name for name, one in zip(names, outcomes, strict=True) if one == word)}"
        for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
        if word in outcomes
    )
    return f"{said[:1].upper()}{said[1:]}."


def highest(untrained: Sequence[float]) -> float | None:
    """The percentile of models with random weights that a trained one must exceed; None with too few of them."""
    if len(untrained) < bounds.RANDOM_MODELS:
        return None
    return float(np.percentile(untrained, bounds.RANDOM_PERCENTILE))
