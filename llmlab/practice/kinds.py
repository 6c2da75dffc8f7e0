"""The kinds of question: what each says, where it belongs, and a function that finds an answer.

A kind is a function (subject, random) -> Found, which draws from `random` alone; what it says of what was found is the
entry of its name in resources/practice/questions.toml: `masked_loss` is masked-loss. Those that differ in data alone
are made in a loop, by `kind`. What one needs of the subject is checked before it is called. One that finds nothing to
ask raises `NothingToAsk`, and another one takes its place: `handful` says which are asked, due ones first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, TypeAlias

from llmlab.core.errors import LabError, UsageError
from llmlab.core.records import named_records
from llmlab.core.signs import minus, quoted
from llmlab.practice.deck import Record
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, OF_FIRST_HOUR, VALUE, Question
from llmlab.practice.subject import Subject

# Where kinds are; each is a short file of small functions.
_MODULES = (
    "shapes",
    "costs",
    "arithmetic",
    "schedules",
    "readings",
    "predictions",
    "twin",
    "source_lines",
    "claims",
    "histories",
    "first_hour",
)
_QUESTIONS = "practice/questions.toml"
# What a kind can need of a subject: nothing; the settings of the lab's own GPT; a run's events; an open model.
NOTHING, SETTINGS, RUN, MODEL = "nothing", "settings", "run", "model"
Facts: TypeAlias = dict[str, Any]  # by the names that words have in braces


class NothingToAsk(LabError):
    """A subject has not what this kind asks about."""


@dataclass(frozen=True)
class Words:
    """What a kind says.

    concept: the page that it belongs to. way: know, read or predict. panel: the dock that shows it. needs: as above.
    text, how: the question, and how its answer was computed, with names of facts in braces. choices: where they are
    always the same. unit: of numbers. trains: making one takes a while, since small models are trained for it.
    """

    concept: str
    way: str
    panel: str
    text: str
    how: str
    needs: str = NOTHING
    choices: list[str] = field(default_factory=list)
    unit: str = ""
    trains: bool = False


@dataclass(frozen=True)
class Found:
    """What a kind's function found: an answer as in `Question`, and the facts that its words name.

    place: of what is right among the choices, which are the words' own where there are none here.
    """

    form: str
    facts: Facts
    answer: str = ""
    choices: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    place: int | None = None
    low: float = 0.0
    high: float = 0.0
    useful: float = 0.0
    prompt: str = ""


Make = Callable[[Subject, Random], Found]


@dataclass(frozen=True, kw_only=True)
class Kind(Words):
    """name: unique."""

    name: str
    make: Make

    @property
    def own(self) -> bool:
        """Whether it asks about a model or a run of the reader's, not about numbers drawn anew, code or papers."""
        return self.needs in (RUN, MODEL)

    def ask(self, subject: Subject, seed: int) -> Question:
        """One of this kind; equal seeds give equal questions about an equal subject. NothingToAsk, LabError."""
        subject.seed, subject.kind = seed, self.name
        found = self.make(subject, Random(f"{self.name}/{seed}"))
        facts = {"model": subject.name, "prompt": quoted(found.prompt), "corpus": subject.corpus} | found.facts
        choices, right, answer = found.choices, found.right, found.answer
        if found.place is not None:
            choices = choices or tuple(self.choices)
            answer = choices[found.place]
            right = (answer,)
        return Question(
            form=found.form,
            text=self.text.format(**facts),
            answer=f"{answer} {self.unit}" if self.unit else answer,
            how=self.how.format(**facts),
            choices=choices,
            right=right,
            low=found.low,
            high=found.high,
            useful=found.useful,
            unit=self.unit,
            prompt=found.prompt,
            kind=self.name,
            way=self.way,
            concept=self.concept,
            panel=self.panel,
            model=subject.model if self.needs != NOTHING else "",
            seed=seed,
        )


_found: dict[str, Kind] = {}


def kind(name: str, words: Words | None = None) -> Callable[[Make], Make]:
    """Adds a function to the kinds. words: where they are not in questions.toml."""

    def add(make: Make) -> Make:
        assert name not in _found, name
        _found[name] = Kind(**vars(words or named_records(Words, _QUESTIONS)[name]), name=name, make=make)
        return make

    return add


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    for place in _MODULES:
        module = importlib.import_module(f"llmlab.practice.{place}")
        for function, make in vars(module).items():
            name = function.replace("_", "-")
            if name in named_records(Words, _QUESTIONS) and make.__module__ == module.__name__:
                kind(name)(make)
    return dict(_found)


def kinds_for(subject: Subject, *, concept: str = "", name: str = "") -> list[Kind]:
    """Those that this subject can be asked. UsageError for a name or a page that no kind has."""
    kinds = all_kinds()
    if name and name not in kinds:
        raise UsageError(f"There is no kind {name!r} of question.", "", "`llmlab-run practice --list` lists them.")
    if concept and all(kind.concept != concept for kind in kinds.values()):
        there = ", ".join(sorted({kind.concept for kind in kinds.values()}))
        raise UsageError(f"No question belongs to the page {concept!r}.", f"There are some for: {there}.")
    wanted = [kind for kind in kinds.values() if name in ("", kind.name) and concept in ("", kind.concept)]
    if not (name or concept):
        wanted = [kind for kind in wanted if kind.concept not in OF_FIRST_HOUR]
    return [kind for kind in wanted if subject.has(kind.needs)]


# Forms ------------------------------------------------------------------------------------------------------------


def choice(random: Random, right: str, wrong: Sequence[str], /, *, prompt: str = "", **facts: Any) -> Found:
    """One of a few, in a random order; of what is wrong, at most four, none of them twice or like what is right."""
    others = [one for one in dict.fromkeys(wrong) if one != right]
    if not others:
        raise NothingToAsk("There is nothing to choose from.")
    choices = [right, *(others if len(others) <= 4 else random.sample(others, 4))]
    random.shuffle(choices)
    return Found(CHOICE, facts, right, tuple(choices), (right,), prompt=prompt)


def ordered(place: int, choices: Sequence[str] = (), /, *, prompt: str = "", **facts: Any) -> Found:
    """One of a few whose order means something. choices: where they are not in the kind's words."""
    return Found(CHOICE, facts, choices=tuple(choices), place=place, prompt=prompt)


def value(answer: float, /, *, within: float = 0.02, off: float = 0.0, **facts: Any) -> Found:
    """A number. within: what may be missing, as a share of it; off: the same in its unit."""
    slack = max(abs(answer) * within, off)
    return Found(VALUE, facts, number_text(answer), low=answer - slack, high=answer + slack)


def interval(answer: float, /, *, useful: float | None = None, prompt: str = "", **facts: Any) -> Found:
    """A number of which an interval is asked.

    useful: the width above which it says too little: half of all that is possible, where that is known; None: as wide
    as the value is large, from half of it to one and a half.
    """
    useful = abs(answer) if useful is None else useful
    return Found(INTERVAL, facts, number_text(answer), low=answer, high=answer, useful=useful, prompt=prompt)


PERCENT = 50.0  # useful: half of 100 %
NAT = 1.0  # useful, of a loss: a factor of e in perplexity


def head(scores: dict[tuple[int, int], float], /, *, prompt: str = "", **facts: Any) -> Found:
    """The head with the highest score; those that cannot be told from it are right, too."""
    if len(scores) < 2:
        raise NothingToAsk("It has too few heads.")
    best = max(scores.values())
    right = tuple(f"{layer}.{head}" for (layer, head), score in scores.items() if score >= best - 0.005)
    return Found(HEAD, facts, " or ".join(right), right=right, prompt=prompt)


def number_text(number: float) -> str:
    """A number with about four digits, thousands apart."""
    return minus(f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.4g}")


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
    of that kind. Where none of a page fits the model (it is fine-tuned, or from elsewhere), the page asks about the
    preset. without: kinds that were asked just now. quick: none that small models are trained for. LabError where a
    model cannot be opened.
    """
    kinds = {one.name: one for one in kinds_for(subject, concept=concept, name=kind)}
    if concept and not kinds:
        subject = Subject(None, subject.outputs, subject.progress)
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
