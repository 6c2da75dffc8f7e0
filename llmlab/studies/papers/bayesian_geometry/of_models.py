"""What claims about pretrained models share: their parts are kept, and each model is named. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from llmlab.core.progress import Progress
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict

# Gives what was made under a name before, or what is made now.
Keep: TypeAlias = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def at_once(_name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Remembers nothing."""
    return make()


def parts(counts: Sequence[int], progress: Progress) -> list[Progress]:
    """The progress of each part of the work, in prompts read."""

    def of_part(before: int, count: int) -> Progress:
        return lambda what, done, total: progress(what, before + count * (done / total if total else 0), sum(counts))

    return [of_part(sum(counts[:number]), count) for number, count in enumerate(counts)]


def models_sentence(names: Sequence[str], outcomes: Sequence[str], refused: Mapping[str, str]) -> str:
    """Which models say what, and why some were not asked."""
    said = "; ".join(
        f"{word}: {', '.join(name for name, one in zip(names, outcomes, strict=True) if one == word)}"
        for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
        if word in outcomes
    )
    sentences = [f"{said[:1].upper()}{said[1:]}."] if said else []
    return " ".join([*sentences, *(f"Not asked: {name}. {why}" for name, why in refused.items())])


def nothing_measured(claim: str, statistic: str, threshold: str, refused: Mapping[str, str]) -> Verdict:
    """The verdict where no model could be asked."""
    reason = f"No model could be asked. {models_sentence([], [], refused)}".strip()
    criterion = PapersCriterion(None, "Nothing was measured.")
    return Verdict(claim, INCONCLUSIVE, Statistic(statistic, None), threshold, 0, [], criterion, reason)


def highest(untrained: Sequence[float]) -> float | None:
    """The percentile of models with random weights that a trained one must exceed; None with too few of them."""
    if len(untrained) < bounds.RANDOM_MODELS:
        return None
    return float(np.percentile(untrained, bounds.RANDOM_PERCENTILE, method="higher"))
