"""What was answered, what comes back when, and what comes next: outputs/practice.json. No torch.

The file holds the answers alone, and each is only ever added. When a kind of question comes back follows from its
answers, by FSRS (the scheduler of Anki: Ye, Su, Cao 2022, "A Stochastic Shortest Path Algorithm for Optimizing Spaced
Repetition Scheduling"): right is its Good, wrong its Again. What is remembered is the kind, not the question: it comes
back about another model, another text, other numbers. In days, not minutes: what is asked again at once is only echoed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from llmlab.core.records import Rows
from llmlab.notebook.calibration import WINDOW, Calibration, Statement, calibration
from llmlab.notebook.scoring import brier
from llmlab.practice.question import CONFIDENCE, INTERVAL, MOST_SCORE, WAYS, Marked, Question

FILE = "practice.json"
HANDFUL = 5  # questions of a day
_LAST_TIME = 4e9  # Unix seconds: the year 2096; FSRS adds years to it, and dates end in 9999


@dataclass(frozen=True)
class Answer:
    """What was said to one question. time: Unix seconds. given, answer: as text. missed: of an interval, in widths.

    held, score: of an interval, as in `Marked`; held None in answers from before it was kept, when right meant that.
    how: how the answer was computed, as it was told. page: on which it was given; "" for Practice.
    """

    kind: str
    way: str
    concept: str
    form: str
    given: str
    right: bool
    answer: str
    time: float
    text: str = ""
    model: str = ""
    seed: int = 0
    missed: float = 0.0
    held: bool | None = None
    score: float = 0.0
    how: str = ""
    page: str = ""


@dataclass(frozen=True)
class Tally:
    """answered, right: how often; now_right: of the kinds asked, those whose last answer was right."""

    answered: int
    right: int
    kinds: int
    now_right: int


@dataclass(frozen=True)
class Widths:
    """How useful intervals were. wide: of `count`, those that held the value and were too wide to be useful.

    over_time: after each interval with a score, the mean of the last `WINDOW` scores, in useful widths, each
    at most `MOST_SCORE`.
    """

    count: int
    wide: int
    over_time: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """What it means, in a sentence or two."""
        if not self.over_time:
            return "No interval has a score yet."
        of = f"{self.count} interval{'' if self.count == 1 else 's'}"
        wide = f"{self.wide} of {of} {'was' if self.wide == 1 else 'were'} too wide to be useful."
        mean = f"{self.over_time[-1]:.2f}, the mean of the last {WINDOW}, each at most {MOST_SCORE:g}"
        return f"Interval score: {mean} (below 1 is useful). {wide}"


@dataclass(frozen=True)
class Record:
    """All answers, the oldest first, and what follows from them. due: by kind, when it comes back, Unix seconds."""

    answers: tuple[Answer, ...] = ()
    due: Mapping[str, float] = field(default_factory=dict)

    def by_concept(self) -> dict[str, Tally]:
        """How it stands with each concept page, the least sure first."""
        tallies = {
            name: _tally([one for one in self.answers if one.concept == name]) for name in self._names("concept")
        }
        return dict(sorted(tallies.items(), key=lambda pair: (pair[1].now_right / pair[1].kinds, pair[0])))

    def by_way(self) -> dict[str, Tally]:
        """How it stands with knowing, reading and predicting."""
        return {
            way: _tally([one for one in self.answers if one.way == way]) for way in WAYS if way in self._names("way")
        }

    def calibration(self) -> Calibration:
        """Of the intervals: of ten, eight should hold the value."""
        stated = [(one, one.right if one.held is None else one.held) for one in self._intervals()]
        return calibration(
            [Statement(one.time, CONFIDENCE, held, brier(CONFIDENCE, held), one.kind) for one, held in stated]
        )

    def widths(self) -> Widths:
        """Of the intervals: whether they were narrow enough to be useful, and held the value."""
        intervals = self._intervals()
        scores = [min(one.score, MOST_SCORE) for one in intervals if one.score]
        means = [fmean(scores[max(0, end - WINDOW) : end]) for end in range(1, len(scores) + 1)]
        return Widths(len(intervals), sum(bool(one.held) and not one.right for one in intervals), tuple(means))

    def choose(self, kinds: Sequence[str], count: int, now: float, random: Random) -> list[str]:
        """Which kinds come next: those that are due, the longest first; new ones in a random order; then the rest,
        the soonest first."""
        due = sorted((kind for kind in kinds if self.due.get(kind, now + 1) <= now), key=lambda kind: self.due[kind])
        fresh = [kind for kind in kinds if kind not in self.due]
        random.shuffle(fresh)
        later = sorted((kind for kind in kinds if self.due.get(kind, 0.0) > now), key=lambda kind: self.due[kind])
        return [*due, *fresh, *later][:count]

    def _intervals(self) -> list[Answer]:
        """Those that were stated: "I don't know" states none."""
        return [one for one in self.answers if one.form == INTERVAL and one.given]

    def _names(self, attribute: str) -> set[str]:
        return {getattr(one, attribute) for one in self.answers}


def _tally(answers: Sequence[Answer]) -> Tally:
    last = {one.kind: one.right for one in answers}
    return Tally(len(answers), sum(one.right for one in answers), len(last), sum(last.values()))


class Deck:
    """The answers of an outputs folder. Cheap to make; reads nothing until asked."""

    def __init__(self, outputs: Path) -> None:
        self.path = outputs / FILE
        self._rows = Rows(self.path, "answers", _is_answer)

    def read(self) -> Record:
        """All that was answered. LabError when the file is damaged, or a newer version's: it is left as it is."""
        answers = self.answers()
        return Record(answers, due_times(answers))

    def answers(self) -> tuple[Answer, ...]:
        """The same without what follows from them."""
        return tuple(_answer(row) for row in self._rows.read())

    def add(self, question: Question, marked: Marked, now: float | None = None, page: str = "") -> Answer:
        """Keeps an answer. LabError when that cannot be done; nothing that was there is lost."""
        answer = Answer(
            kind=question.kind,
            way=question.way,
            concept=question.concept,
            form=question.form,
            given=marked.given,
            right=marked.right,
            answer=question.answer,
            time=time.time() if now is None else now,
            text=question.text,
            model=question.model,
            seed=question.seed,
            missed=marked.missed,
            held=marked.held if question.form == INTERVAL else None,
            score=marked.score,
            how=question.how,
            page=page,
        )
        self._rows.add(vars(answer))
        return answer


def due_times(answers: Sequence[Answer]) -> dict[str, float]:
    """When each kind comes back, from all of its answers in their order."""
    from fsrs import Card, Rating, Scheduler

    scheduler = Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)
    cards: dict[str, Card] = {}
    for answer in answers:
        when = datetime.fromtimestamp(answer.time, timezone.utc)
        card = cards.get(answer.kind) or Card(card_id=0, due=when)
        rating = Rating.Good if answer.right else Rating.Again
        cards[answer.kind], _ = scheduler.review_card(card, rating, when)
    return {kind: card.due.timestamp() for kind, card in cards.items()}


def when_words(due: float, now: float) -> str:
    """When something comes back, in a few words."""
    days = timedelta(seconds=due - now).total_seconds() / 86400
    return "today" if days < 0.5 else "tomorrow" if days < 1.5 else f"in {days:,.0f} days"


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(**{one.name: row[one.name] for one in fields(Answer) if one.name in row})


def _is_answer(row: Any) -> bool:
    time = row.get("time") if isinstance(row, dict) else None
    if not isinstance(time, (int, float)) or not 0 <= time < _LAST_TIME:
        return False
    texts = ("kind", "way", "concept", "form", "given", "answer")
    score, held = row.get("score", 0.0), row.get("held")
    if not isinstance(score, (int, float)) or not math.isfinite(score) or not isinstance(held, (bool, type(None))):
        return False
    return isinstance(row.get("right"), bool) and all(isinstance(row.get(name), str) for name in texts)
