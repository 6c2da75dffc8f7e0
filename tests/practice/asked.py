"""A question of one kind, and the number that is its answer."""

from __future__ import annotations

from llmlab.practice.kinds import all_kinds
from llmlab.practice.question import Question
from llmlab.practice.subject import Subject


def ask(subject: Subject, name: str, seed: int = 0) -> Question:
    return all_kinds()[name].ask(subject, seed)


def middle(question: Question) -> float:
    return (question.low + question.high) / 2
