"""Scores answers by a program: exact match after trivial normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llmlab.core.errors import Cancelled
from llmlab.data.chat import ChatFormat
from llmlab.data.examples import Example


@dataclass(frozen=True)
class ScoredItem:
    """One question with the expected and the given answer."""

    prompt: str
    expected: str
    answer: str
    right: bool


def is_right(expected: str, answer: str) -> bool:
    """Whether two answers are the same but for white space, upper or lower case, and a full stop at the end.

    White space: runs of it count as one space, and none at the ends. Nothing else is forgiven: "6" is not "six",
    and an answer that goes on after the right one is wrong.
    """
    return _normalised(expected) == _normalised(answer)


def score(
    examples: Sequence[Example],
    chat: ChatFormat,
    answer: Callable[[list[int]], str],
    stop_wanted: Callable[[], bool] = lambda: False,
) -> Iterator[ScoredItem]:
    """The items among `examples` that a program can check, one after the other.

    answer: the model's answer to a prompt's token ids, as text without what ends it. Raises Cancelled when
    `stop_wanted` says so.
    """
    for example in checkable(examples):
        if stop_wanted():
            raise Cancelled
        given = answer(chat.prompt_ids(example))
        yield ScoredItem(example.question, example.answer, given, is_right(example.answer, given))


def checkable(examples: Sequence[Example]) -> list[Example]:
    """Those whose answers can be checked."""
    return [example for example in examples if example.check]


def _normalised(text: str) -> str:
    words = " ".join(text.split())
    return words.removesuffix(".").rstrip().casefold()
