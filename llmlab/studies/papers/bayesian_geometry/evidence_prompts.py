"""Prompts with labelled evidence whose posterior is known: reports that are right nine times out of ten.

    A ring is in the red box or in the blue box. Each witness is right nine times out of ten. Anna says red.
    Tom says blue. Mary says red. The ring is in the ...

Both places are equally likely before, reports are independent, so after n1 reports for the first and n2 for the
second place Bayes' rule gives the first p = 1 / (1 + 9^-d), d = n1 - n2. (Paper III, section 4.3, has 250 prompts with
the same posterior, in other words; its k are those below.) All prompts with k reports have the same number of tokens.

The same prompts come under five conditions:

    true       as above
    renamed    two other words for the places: the posterior stays
    permuted   the same reports in another order: the posterior stays
    shuffled   the labels of all prompts with k reports are dealt out anew: the true prompt's posterior is gone
    masked     no report says anything: only its length is left
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.errors import LabError
from llmlab.data.tokenizers import TextTokenizer
from llmlab.studies.papers.prompts import always_first

Array = np.ndarray
REPORTS = (0, 1, 2, 4, 8)  # k, as in paper III
RIGHT = 0.9  # how often a report is right, as in paper III
TRUE, RENAMED, PERMUTED, SHUFFLED, MASKED = CONDITIONS = ("true", "renamed", "permuted", "shuffled", "masked")

# More than are needed: a tokenizer cuts some of them.
# fmt: off
_THINGS = (
    "ring", "coin", "key", "letter", "watch", "stone", "pen", "ball", "book", "knife", "shell", "bell", "card", "cup",
)
_PLACES = ("box", "bag", "house", "room", "car", "bowl", "boat", "chest", "tent", "garden", "shop", "office")
_WITNESSES = (
    "Anna", "Tom", "Mary", "John", "Peter", "Paul", "Lucy", "James", "Sarah", "David", "Emma", "Jack", "Alice", "Simon",
    "Laura", "Mark", "Jane", "Robert", "Kate", "George", "Henry", "Martin", "Susan", "Alex", "Maria", "Daniel", "Helen",
)
# fmt: on
_LABELS = (("red", "blue"), ("old", "new"), ("large", "small"), ("left", "right"), ("first", "second"), ("A", "B"))
_SILENT = ("nothing", "something", "so", "it")


@dataclass(frozen=True)
class EvidencePrompts:
    """N prompts, the same ones under every condition.

    reports: k of each [N]. surplus: d of each [N]. last: what the last report says, 1 for the first place, -1 for the
    second, 0 where there is none [N]. ids: by condition, of each prompt. answers: by condition, the tokens of the
    first and of the second place. words: the same as words. example: a prompt with k = 2.
    """

    reports: Array
    surplus: Array
    last: Array
    ids: dict[str, list[list[int]]]
    answers: dict[str, tuple[int, int]]
    words: dict[str, tuple[str, str]]
    example: str

    @property
    def posterior(self) -> Array:
        """Of the first place under the true condition [N]."""
        return posterior(self.surplus)


def posterior(surplus: Array) -> Array:
    """p = 1 / (1 + 9^-d): the odds of a report are RIGHT / (1 - RIGHT) = 9."""
    return 1 / (1 + (RIGHT / (1 - RIGHT)) ** -np.asarray(surplus, dtype=float))


def evidence_prompts(tokenizer: TextTokenizer, each: int, seed: int = 0) -> EvidencePrompts:
    """`each` prompts for every k, the surplus spread evenly from -k to k.

    LabError where the tokenizer has too few words in one token, or prompts of one k would differ in length.
    """
    words, before = _Words(tokenizer), always_first(tokenizer)
    source = random.Random(f"evidence {seed}")
    labels, reports, last = [], [], []
    texts: dict[str, list[str]] = {condition: [] for condition in CONDITIONS}
    for k in REPORTS:
        stories = [words.story(source, k) for _ in range(each)]
        said = [_spread(number, k, source) for number in range(each)]
        dealt = _dealt(said, source)
        for story, true, other in zip(stories, said, dealt, strict=True):
            order = source.sample(range(k), k)
            texts[TRUE].append(story.text(words.true, true))
            texts[RENAMED].append(story.text(words.renamed, true))
            texts[SHUFFLED].append(story.text(words.true, other))
            texts[MASKED].append(story.text(words.true, true, words.silent))
            texts[PERMUTED].append(story.reordered(order).text(words.true, [true[place] for place in order]))
            labels.append(true)
            reports.append(k)
            last.append(true[-1] if true else 0)
    ids = {name: [[*before, *tokenizer.encode(text)] for text in written] for name, written in texts.items()}
    for condition, prompts in ids.items():
        _check_lengths(condition, prompts, reports)
    answers = {condition: words.answers(texts[condition][0], words.labels(condition)) for condition in CONDITIONS}
    return EvidencePrompts(
        reports=np.array(reports),
        surplus=np.array([sum(one) for one in labels]),
        last=np.array(last),
        ids=ids,
        answers=answers,
        words={condition: words.labels(condition) for condition in CONDITIONS},
        example=texts[TRUE][reports.index(2)],
    )


def _spread(number: int, k: int, source: random.Random) -> list[int]:
    """k labels, 1 or -1, in a random order; all surpluses occur equally often over the numbers."""
    first = number % (k + 1)
    labels = [1] * first + [-1] * (k - first)
    source.shuffle(labels)
    return labels


def _dealt(said: Sequence[Sequence[int]], source: random.Random) -> list[list[int]]:
    """All labels of all prompts, dealt out anew: each prompt gets as many as it had."""
    pool = [label for labels in said for label in labels]
    source.shuffle(pool)
    cards = iter(pool)
    return [[next(cards) for _ in labels] for labels in said]


@dataclass(frozen=True)
class _Story:
    thing: str
    place: str
    witnesses: tuple[str, ...]

    def text(self, labels: tuple[str, str], said: Sequence[int], silent: str = "") -> str:
        """The prompt, up to the place. said: 1 for the first label, -1 for the second."""
        words = [silent or labels[one < 0] for one in said]
        reports = "".join(f" {name} says {word}." for name, word in zip(self.witnesses, words, strict=True))
        return (
            f"A {self.thing} is in the {labels[0]} {self.place} or in the {labels[1]} {self.place}. Each witness is "
            f"right nine times out of ten.{reports} The {self.thing} is in the"
        )

    def reordered(self, order: Sequence[int]) -> _Story:
        return _Story(self.thing, self.place, tuple(self.witnesses[place] for place in order))


class _Words:
    """The words of the task that this tokenizer reads as one token each."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._the = self._encoded("the")
        self._things, self._places = self._single(_THINGS), self._single(_PLACES)
        self._witnesses = self._single(_WITNESSES)
        pairs = [pair for pair in _LABELS if len(self._single(pair)) == 2]
        silent = self._single(_SILENT)
        enough = min(len(self._things), len(self._places)) > 1 and len(self._witnesses) >= max(REPORTS)
        if not enough or len(pairs) < 2 or not silent:
            raise LabError(
                "The evidence prompts cannot be written for this model.",
                "They need common English words that are one token each, so that all are of one length.",
                "Name a model of language with a vocabulary of words.",
            )
        self.true, self.renamed, self.silent = pairs[0], pairs[1], silent[0]

    def labels(self, condition: str) -> tuple[str, str]:
        return self.renamed if condition == RENAMED else self.true

    def story(self, source: random.Random, k: int) -> _Story:
        witnesses = tuple(source.sample(self._witnesses, k))
        return _Story(source.choice(self._things), source.choice(self._places), witnesses)

    def answers(self, text: str, labels: tuple[str, str]) -> tuple[int, int]:
        """The tokens that go on after a prompt with either label."""
        before = self._encoded(text)
        after = [self._encoded(f"{text} {label}") for label in labels]
        if any(ids[:-1] != before for ids in after):
            raise LabError("The evidence prompts cannot be written for this model.", "Its tokens run across words.")
        return after[0][-1], after[1][-1]

    def _single(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if len(self._encoded(f"the {word}")) == len(self._the) + 1]

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _check_lengths(condition: str, prompts: Sequence[Sequence[int]], reports: Sequence[int]) -> None:
    for k in REPORTS:
        lengths = {len(ids) for ids, count in zip(prompts, reports, strict=True) if count == k}
        if len(lengths) > 1:
            raise LabError(
                "The evidence prompts cannot be written for this model.",
                f"Under the condition {condition!r} those with {k} reports would have {sorted(lengths)} tokens.",
            )
