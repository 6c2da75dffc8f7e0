"""How much is read to test the claims about attention sinks and norms, at each size of a check. No torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llmlab.studies.papers.attention_sinks.thresholds import UNTRAINED_MODELS
from llmlab.studies.papers.interface import PaperPlan

SINK, POSITION, NORMS = TESTED = ("sink", "position", "norms")
# Domains of the prompts (`prompts.DOMAINS`) and words that are put first (`first_tokens.WORDS` and the text's own).
_DOMAINS, _WORDS = 5, 8


@dataclass(frozen=True)
class Size:
    """tokens: length of a prompt, less where a model reads less. The others count prompts of each domain.

    texts: for shares and norms. untrained: for each model with random weights. first: for each word that is put first.
    """

    tokens: int
    texts: int
    untrained: int
    first: int

    def passes(self, claims: Collection[str]) -> list[int]:
        """How many prompts are read for these claims: texts, by each model with random weights, other first tokens."""
        texts = bool({SINK, NORMS} & {*claims})
        each = [self.texts * texts, *[self.untrained * texts] * UNTRAINED_MODELS]
        return [_DOMAINS * count for count in (*each, 2 * _WORDS * self.first * (POSITION in claims))]

    def seconds(self, claims: Collection[str]) -> list[float]:
        """Of a model of 135 million parameters on two cores: opening it, then as in `passes`."""
        opening = _OPEN_SECONDS / (1 + UNTRAINED_MODELS)  # or drawing random weights
        text, *untrained, first = (_PASS_SECONDS * self.tokens / 64 * count for count in self.passes(claims))
        return [opening, text, *(one and one + opening for one in untrained), first]


# 64 tokens as in Gu et al. 2024.
SIZES = {
    "minutes": Size(tokens=64, texts=12, untrained=1, first=3),
    "hour": Size(tokens=128, texts=40, untrained=4, first=10),
    "paper": Size(tokens=128, texts=100, untrained=10, first=25),
}
# A model of 135 million parameters on two cores: a pass over 64 tokens; opening it and drawing all random weights.
_PASS_SECONDS = 0.4
_OPEN_SECONDS = 40.0


def _judging_seconds(size: str, claims: Collection[str], models: float) -> float:
    return models * sum(SIZES[size].seconds(claims))


PLAN = PaperPlan(
    "attention-sinks",
    TESTED,
    "llmlab.studies.papers.attention_sinks.judge",
    judging_seconds=_judging_seconds,
    of_models=TESTED,
)
