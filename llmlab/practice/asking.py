"""Which questions are asked: a handful about one subject, due ones first, none of a kind that has nothing to ask."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from random import Random

from llmlab.practice.deck import Record
from llmlab.practice.kinds import Kind, NothingToAsk, kinds_for
from llmlab.practice.question import Question
from llmlab.practice.subject import Subject


def questions(
    subject: Subject, record: Record, count: int, seed: int, now: float, kinds: Sequence[Kind]
) -> Iterator[Question]:
    """At most `count` questions of these kinds, made one after the other: the first is there before the last is.

    seed: equal ones give equal questions, as long as nothing was answered between. LabError where a model cannot be
    opened.
    """
    by_name = {kind.name: kind for kind in kinds}
    asked = 0
    for name in record.choose(list(by_name), len(by_name), now, Random(f"order/{seed}")):
        if asked == count:
            return
        try:
            yield by_name[name].ask(subject, seed)
        except NothingToAsk:
            continue
        asked += 1


def handful(
    subject: Subject,
    record: Record,
    count: int,
    seed: int,
    now: float,
    *,
    concept: str = "",
    kind: str = "",
    without: Collection[str] = (),
) -> Iterator[Question]:
    """The same of all kinds that this subject can be asked, or of one concept page or one kind. without: kinds that
    were asked just now."""
    kinds = [one for one in kinds_for(subject, concept=concept, name=kind) if one.name not in without]
    return questions(subject, record, count, seed, now, kinds)
