"""Which questions are asked: a handful about one subject, due ones first, none of a kind that has nothing to ask."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from random import Random

from llmlab.practice.deck import Record
from llmlab.practice.kinds import NothingToAsk, kinds_for
from llmlab.practice.question import Question
from llmlab.practice.subject import Subject


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
    quick: bool = False,
) -> Iterator[Question]:
    """At most `count` questions, made one after the other: the first is there before the last is. Every second one is
    about the model or run itself, as far as there are such; the others are whatever comes next.

    seed: equal ones give equal questions, as long as nothing was answered between. concept, kind: only of that page, or
    of that kind. without: kinds that were asked just now. quick: none that small models are trained for. LabError where
    a model cannot be opened.
    """
    kinds = {one.name: one for one in kinds_for(subject, concept=concept, name=kind)}
    order = record.choose(list(kinds), len(kinds), now, Random(f"order/{seed}"))
    left = [name for name in order if name not in without and not (quick and kinds[name].trains)]
    asked = 0
    while left and asked < count:
        about_it = (len(without) + asked) % 2 == 0
        name = next((one for one in left if about_it and kinds[one].own), left[0])
        left.remove(name)
        try:
            yield kinds[name].ask(subject, seed)
        except NothingToAsk:
            continue
        asked += 1
