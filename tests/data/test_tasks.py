"""The built-in tasks and their scoring: every answer can be found again by a program that does not know the maker."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from llmlab.core.errors import Cancelled
from llmlab.core.progress import quiet
from llmlab.data.answer_scoring import checkable, is_right, score
from llmlab.data.built_in_tasks import task_rows
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message, read_source
from llmlab.data.tokenizers import Gpt2Tokenizer

ROWS = task_rows()
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)


def solved(request: str) -> str:
    """The answer, by reading the request."""
    head, _, rest = request.partition(": ")
    question, _, told = request.partition("? ")
    words = rest.split()
    match head:
        case "Repeat":
            return rest
        case "Sort from A to Z":
            return " ".join(sorted(words))
        case "Sort from small to large":
            return " ".join(sorted(words, key=int))
        case "Count the words":
            return str(len(words))
        case "Reverse the order":
            return " ".join(words[::-1])
    if question == "Which word comes first":
        return told.split()[0]
    if question == "Which word comes last":
        return told.split()[-1]
    if question == "Who went":
        return told.split()[0]
    if question == "Where to":
        return re.findall(r"to (\w+) in", told)[0]
    if question.startswith("How many"):
        return re.findall(r"\d+", told)[0]
    if question == "On which day":
        return told.rpartition(" on ")[2].removesuffix(".")
    values = NUMBERS.split()
    first, sign, second = re.fullmatch(r"What is (\w+) (plus|minus) (\w+)\?", request).groups()
    left, right = values.index(first), values.index(second)
    return values[left + right if sign == "plus" else left - right]


def test_every_answer_is_right() -> None:
    assert [row["output"] for row in ROWS] == [solved(row["instruction"]) for row in ROWS]


def test_there_are_six_hundred_different_requests_of_ten_kinds_the_same_every_time() -> None:
    assert len(ROWS) == 600
    assert len({row["instruction"] for row in ROWS}) == 600
    assert [*Counter(row["kind"] for row in ROWS).values()] == [60] * 10
    assert task_rows() == ROWS


def test_they_are_short_for_gpt2_and_all_can_be_checked() -> None:
    source = read_source("tasks", quiet)
    format = chat_format(Gpt2Tokenizer())
    assert max(len(format.prompt_ids(example)) for example in source.examples) < 40
    assert len(checkable(source.examples)) == 600


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("Paris", " paris.", True),
        ("moon cow", "moon   cow\n", True),
        ("28 October", "28 October", True),
        ("6", "six", False),
        ("Paris", "Paris is it", False),
        ("Paris", "", False),
        ("a. b", "a b", False),
        ("STRASSE", "straße", True),
    ],
)
def test_only_white_space_case_and_a_final_full_stop_are_forgiven(expected: str, answer: str, right: bool) -> None:
    assert is_right(expected, answer) is right


def test_a_score_asks_for_what_can_be_checked_and_counts_what_is_right() -> None:
    source = read_source("tasks", quiet, 20)
    unchecked = Example(99, (Message("user", "a"), Message("assistant", "b")))
    format = chat_format(Gpt2Tokenizer())
    answers = {tuple(format.prompt_ids(example)): example.answer for example in source.examples}
    wrong = tuple(format.prompt_ids(source.examples[3]))
    answers[wrong] = "never"
    items = list(score([*source.examples, unchecked], format, lambda ids: answers[tuple(ids)]))
    assert [item.right for item in items] == [place != 3 for place in range(20)]
    assert (items[3].prompt, items[3].expected) == (source.examples[3].question, source.examples[3].answer)


def test_scoring_ends_when_it_is_no_longer_wanted() -> None:
    source = read_source("tasks", quiet, 5)
    with pytest.raises(Cancelled):
        list(score(source.examples, chat_format(Gpt2Tokenizer()), lambda ids: "", lambda: True))
