"""Replies of the process that holds a model: what it is, what it writes and expects, in plain values. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Chances: TypeAlias = tuple[tuple[str, float], ...]  # tokens with their probabilities


@dataclass(frozen=True)
class About:
    """A model's identity and shape.

    reference: opens exactly this model again. bytes: of its weights in memory. memory_bytes: resident memory of the
    process that holds it. refusals: panels that cannot be trusted, each with its reason, by the fields of
    `llmlab.anatomy.anatomy.Refusals`. begins: texts are usually put after the beginning-of-sequence token.
    """

    reference: str
    name: str
    kind: str
    step: int | None = None
    parameters: int = 0
    bytes: int = 0
    family: str = ""
    n_layer: int = 0
    n_head: int = 0
    n_embd: int = 0
    vocab_size: int = 0
    context: int = 0
    refusals: dict[str, str] = field(default_factory=dict)
    begins: bool = False
    memory_bytes: int = 0


@dataclass(frozen=True)
class SamplingStep:
    """What one setting made of the distribution. name: as `Sampling` calls it. left: how many tokens can be drawn.

    rows: the most likely tokens before it, each with its probability before and after.
    """

    name: str
    left: int
    rows: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class WrittenToken:
    """One token that a model wrote. top: what it could have written instead.

    Probabilities are the model's own, at temperature 1. steps: what the settings of sampling made of them, in order.
    """

    text: str
    probability: float
    top: Chances = ()
    steps: tuple[SamplingStep, ...] = ()


@dataclass(frozen=True)
class BigramShares:
    """How a text goes on after one token, beside a model's distribution.

    last: that token's text. occurrences: how often the text has it before another. shares: for each token asked about,
    the part of them that it follows; empty where there are none. overlap: what this distribution and the model's have
    in common, the sum of the smaller probabilities. most: the most frequent of all followers, with their shares.
    beginning: how many of the text's first tokens were counted; 0 for all.
    """

    last: str
    occurrences: int
    shares: tuple[float, ...]
    overlap: float
    most: Chances
    beginning: int


@dataclass(frozen=True)
class Expected:
    """What a model expects next: the most likely tokens. entropy: of the whole distribution, in nats.

    unread: how many tokens at the beginning of the prompt are beyond its context. bigrams: how its training text goes
    on after the prompt's last token; None for a model without a text of its own here. no_bigrams: why, where someone
    may expect them.
    """

    top: Chances
    entropy: float
    unread: int = 0
    bigrams: BigramShares | None = None
    no_bigrams: str = ""
