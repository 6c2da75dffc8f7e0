"""What one model says to each claim: the numbers that decide, and the word that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.first_tokens import FirstTokens
from llmlab.studies.papers.attention_sinks.growth import Growth, growth, middle
from llmlab.studies.papers.attention_sinks.reading import Array, Reading, uniform_share
from llmlab.studies.papers.statistics import bootstrap_interval

_TINY = 1e-6  # of a share: the last digit that is kept

# Sink ----------------------------------------------------------------------------------------------------------------


def judge_sink(text: Reading, untrained: Sequence[Reading]) -> str:
    """One model: how much attention the first token gets in the upper half of its layers."""
    if len(untrained) < bounds.UNTRAINED_MODELS:
        return INCONCLUSIVE
    low, high = bootstrap_interval(text.upper)
    early, chance = early_share(text), untrained_share(untrained)
    if high <= max(early, chance):
        return NOT_SUPPORTED
    return SUPPORTED if low >= bounds.SINK_SHARE > chance and low > early else INCONCLUSIVE


def early_share(text: Reading) -> float:
    """The share of the token behind the first that gets most."""
    return float(np.array(text.early).mean(0).max(initial=0.0))


def untrained_share(untrained: Sequence[Reading]) -> float:
    """The largest share that the first token gets with random weights."""
    return max(float(one.upper.mean()) for one in untrained)


def sink_heads(text: Reading) -> float:
    """The share of all heads that give the first token more than SINK_SHARE: the sink metric of Gu et al. 2024."""
    return float((np.array(text.heads) > bounds.SINK_SHARE).mean())


# Place or token ------------------------------------------------------------------------------------------------------


def place_kept(first: FirstTokens) -> tuple[float, float, float]:
    """What the first place keeps with the token that draws least, over the one that draws most; low, high."""
    return _with_interval(np.array(first.first), lambda means: means.min(0) / means.max(0))


def taken_along(first: FirstTokens) -> tuple[float, float, float]:
    """The most that a token draws at the other place, over what it draws at the first; low, high.

    The text's own tokens are left out: they are not the same at the two places.
    """
    rows = np.concatenate([np.array(first.first)[1:], np.array(first.moved)[1:]])  # [2 tokens, P]
    half = len(rows) // 2
    return _with_interval(rows, lambda means: (means[half:] / np.maximum(means[:half], _TINY)).max(0))


def has_sink(first: FirstTokens) -> bool:
    """Whether, with the token that draws most, the first place gets clearly more than uniform attention gives it."""
    rows = np.array(first.first)
    best = rows[rows.mean(1).argmax()]
    return bootstrap_interval(best)[0] >= bounds.SINK_OVER_UNIFORM * uniform_share(first.tokens)


def judge_position(first: FirstTokens) -> str:
    """One model."""
    if not has_sink(first) or len(first.names) < 2:
        return INCONCLUSIVE
    _, kept_low, kept_high = place_kept(first)
    _, along_low, along_high = taken_along(first)
    if kept_high < bounds.PLACE_LOST or along_low >= bounds.TOKEN_TAKES_ALONG:
        return NOT_SUPPORTED
    supported = kept_low >= bounds.PLACE_KEPT and along_high <= bounds.TOKEN_LEFT_BEHIND
    return SUPPORTED if supported else INCONCLUSIVE


def _with_interval(rows: Array, statistic: Callable[[Array], Array]) -> tuple[float, float, float]:
    """A statistic of the rows' means [R] over prompts (rows [R, P]), with its bootstrap interval over prompts."""
    low, high = bootstrap_interval(rows.T, lambda drawn, axis: statistic(drawn.mean(axis).T))
    return float(statistic(rows.mean(1))), low, high


# Norms ---------------------------------------------------------------------------------------------------------------


def growth_of(text: Reading) -> Growth | None:
    """The growth over the middle layers; None where they are too few to tell curves apart."""
    at = middle(text.depth)
    return growth(np.array(text.norms)[:, at], at) if len(at) >= bounds.MIDDLE_POINTS else None


def judge_norms(found: Growth | None, untrained: Sequence[Growth | None] = ()) -> str:
    """One model: straight in logarithms, and steeper than any of its shape with random weights that is so, too."""
    if found is None:
        return INCONCLUSIVE
    rival = found.aic[found.rival]
    if found.low <= 0 or rival <= -bounds.CLEAR_AIC:
        return NOT_SUPPORTED
    if not _is_straight(found):
        return INCONCLUSIVE
    by_chance = max((one.slope for one in untrained if one is not None and _is_straight(one)), default=0.0)
    return SUPPORTED if found.low > by_chance else INCONCLUSIVE


def _is_straight(found: Growth) -> bool:
    """Whether the logarithm of the norm is a line, and no other curve comes near it."""
    return found.r2 >= bounds.STRAIGHT_R2 and found.aic[found.rival] >= bounds.CLEAR_AIC


def first_ratio(text: Reading) -> Array:
    """The first token's norm over the others' (geometric means over prompts), before the first block and after each."""
    ratio: Array = np.exp(np.array(text.first_norms).mean(0) - np.array(text.norms).mean(0))
    return ratio
