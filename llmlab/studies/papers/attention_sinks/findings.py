"""What was measured on one model, and how several models are told of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import SHARE_OF_MODELS
from llmlab.studies.papers.attention_sinks.first_tokens import FirstTokens
from llmlab.studies.papers.attention_sinks.reading import Reading


@dataclass(frozen=True)
class Found:
    """One model.

    name: as the learner named it. parameters: how many numbers it has. text: on ordinary prompts; untrained: the same
    of models of its shape with random weights; first: with other first tokens. None, or none, where no claim asks.
    """

    name: str
    parameters: int
    text: Reading | None = None
    untrained: tuple[Reading, ...] = ()
    first: FirstTokens | None = None


def models_sentence(outcomes: dict[str, str], refused: dict[str, str]) -> str:
    """Which models say what, and which could not be asked. outcomes, refused: by model, a word or a sentence."""
    said = []
    for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE):
        if names := [name for name, outcome in outcomes.items() if outcome == word]:
            said.append(f"{word} in {', '.join(names)}")
    words = f"{'; '.join(said)}." if said else "No model could be asked."
    if len(outcomes) > 1:
        words += f" A verdict needs {math.ceil(SHARE_OF_MODELS * len(outcomes))} of {len(outcomes)}."
    elif outcomes:
        words += " It rests on this one model: name others beside it with --model."
    left_out = [f"{name} was left out: {why}" for name, why in refused.items()]
    return " ".join([f"{words[:1].upper()}{words[1:]}", *left_out])


def in_the_middle(found: Sequence[Found], by: Callable[[Found], float]) -> Found:
    """The model whose number is the median one (the higher of the two in the middle): it is shown for all."""
    return sorted(found, key=by)[len(found) // 2]
