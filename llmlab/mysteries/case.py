"""A mystery: its run, what was asked and marked, the answer, and what it was worth. No torch.

outputs/mysteries/NAME/mystery.json has one; outputs/mysteries/scores.jsonl one line for each that was answered, which
stays when the run is deleted. Further experiments are runs beside it, called NAME-healthy, NAME-seed and so on.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from llmlab.core.config import with_values
from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import locked, open_file, parse_json, write_json
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.records import from_plain, read_record
from llmlab.jobs.launcher import create_run
from llmlab.mysteries.faults import LEVELS, NOTHING, Fault, candidates, fault_of, faults, seal
from llmlab.notebook.calibration import Calibration, Statement, calibration
from llmlab.notebook.predictions import LEAST_CONFIDENCE
from llmlab.notebook.scoring import brier
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder

CASE, SCORES = "mystery.json", "scores.jsonl"
BUDGET = 4
HEALTHY, SEED, RATE, MEASURE = "healthy", "seed", "rate", "measure"
# What each further experiment costs, and what it is.
QUESTIONS: dict[str, tuple[int, str]] = {
    HEALTHY: (2, "a healthy run of the same seed"),
    SEED: (1, "the same fault with another seed"),
    RATE: (1, "the same fault with a third of the learning rate"),
    MEASURE: (2, "measures of the checkpoints: losses, weights, patterns"),
}
# Where evidence is found, and the panel that shows it.
PLACES = {
    "loss": "loss",
    "gradient": "learning_rate",
    "sample": "samples",
    "head": "attention",
    "stream": "contributions",
    "lens": "lens",
    "weights": "parameters",
}
# A point of a curve, a sample or a head: loss@120, sample@300, head@2.1.
_WHERE = re.compile(rf"({'|'.join(PLACES)})(@\d+(\.\d+)?)?")


@dataclass(frozen=True)
class Asked:
    """A further experiment. run: the id of its run; empty where none was trained."""

    what: str
    cost: int
    run: str = ""


@dataclass(frozen=True)
class Mark:
    """Evidence. where: loss@120, sample@300, head@2.1, or a panel alone."""

    where: str
    note: str = ""

    @property
    def dock(self) -> str:
        """The panel that shows it."""
        return PLACES[self.where.partition("@")[0]]


@dataclass(frozen=True)
class Case:
    """All but the run itself. answer: by cause, sums to one. bits: -log2 of what the cause was given; both None until
    it is answered. cause: empty until then."""

    level: int
    candidates: list[str]
    budget: int = BUDGET
    asked: list[Asked] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    answer: dict[str, float] | None = None
    bits: float | None = None
    cause: str = ""
    time: float = 0.0

    @property
    def left(self) -> int:
        """What may still be spent."""
        return self.budget - sum(asked.cost for asked in self.asked)

    @property
    def chance(self) -> float:
        """Bits of an answer that knows nothing."""
        return math.log2(len(self.candidates))


def start(
    outputs: Path, level: int, name: str | None = None, seed: int | None = None, *, watched: bool = False
) -> RunFolder:
    """A run with a fault chosen at random among those of a level. No worker yet. UsageError for another level."""
    if level not in LEVELS:
        raise UsageError(f"There is no level {level}.", f"There are {LEVELS[0]} to {LEVELS[-1]}.")
    among = candidates(level)
    token = seal(secrets.choice(among))
    asked = with_values(
        MysterySettings(),
        {"mystery.token": token, "train.seed": secrets.randbelow(1_000_000) if seed is None else seed},
    )
    run = create_run(outputs, asked, name=name or _free_name(outputs), preset="mystery", watched=watched)
    _write(run, Case(level, among))
    return run


def cases(outputs: Path) -> list[RunFolder]:
    """The runs of all mysteries, the newest first."""
    folder = outputs / MysterySettings.track
    return [run for run in list_runs(outputs) if run.path.parent == folder and (run.path / CASE).is_file()]


def case_of(run: RunFolder) -> Case:
    """A mystery's. LabError for a run that is none."""
    case = read_record(Case, run.path / CASE)
    if case is None or not _is_whole(case):
        why = f"Its {CASE} is missing or damaged."
        raise LabError(f"{run.id} is not a mystery.", why, "`llmlab-run mystery list` lists them.")
    return case


def ask(run: RunFolder, what: str, *, watched: bool = False) -> RunFolder | None:
    """Spends what a further experiment costs, and makes its run; None for `measure`, which trains nothing.

    Errors as `price`. After the answer all is free; what was asked before costs nothing, and its run is made again
    where it was deleted. `measure` is asked for once it has succeeded: what cannot be measured costs nothing.
    """
    cost = price(run, what)
    case, made = case_of(run), RunFolder(run.path.with_name(f"{run.id}-{what}"))
    asked = any(asked.what == what for asked in case.asked)
    if what != MEASURE and not made.path.exists():
        create_run(run.outputs, _settings_of(run, what), name=made.id, preset="mystery", watched=watched)
    if not asked:
        _change(
            run, lambda now: replace(now, asked=[*now.asked, Asked(what, cost, "" if what == MEASURE else made.id)])
        )
    return made if what != MEASURE else None


def price(run: RunFolder, what: str) -> int:
    """What a further experiment costs now. UsageError when it cannot be asked, or not enough is left for it."""
    if what not in QUESTIONS:
        raise UsageError(f"{what!r} cannot be asked.", f"It is one of {', '.join(QUESTIONS)}.")
    case = case_of(run)
    known = case.answer is not None or any(asked.what == what for asked in case.asked)
    cost = 0 if known else QUESTIONS[what][0]
    if cost > case.left:
        raise UsageError(
            f"{what} costs {cost}, and {case.left} of {case.budget} is left.",
            "Each mystery has a budget for further experiments.",
            "Answer with what you know: a probability says how sure you are.",
        )
    return cost


def mark(run: RunFolder, where: str, note: str = "") -> Case:
    """Adds evidence. UsageError where `where` is no place."""
    if _WHERE.fullmatch(where) is None:
        raise UsageError(
            f"{where!r} is not a place for evidence.",
            f"A place is one of {', '.join(PLACES)}, with a step or a head.",
            "Write loss@120, sample@300 or head@2.1.",
        )
    return _change(run, lambda now: replace(now, marks=[*now.marks, Mark(where, " ".join(note.split()))]))


def unmark(run: RunFolder, place: int) -> Case:
    """Takes evidence number `place` away, from 0."""
    return _change(run, lambda now: replace(now, marks=[m for at, m in enumerate(now.marks) if at != place]))


def parse_answer(words: str, among: list[str]) -> dict[str, float]:
    """`no-mask=0.6,other=0.4`, or in per cent, as a probability of each cause. What is not named shares the rest.

    UsageError for an unknown cause, and where they do not make up 100 %.
    """
    given: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in words.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in (*among, "other") or name in given:
            raise UsageError(
                f"{name!r} is not a cause of this mystery, or was named twice.", f"There are: {', '.join(among)}."
            )
        try:
            given[name] = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            raise UsageError(f"{value!r} is not a probability.", "", "Write no-mask=0.6,other=0.4.") from None
    return checked_answer(given, among)


def checked_answer(given: Mapping[str, float], among: list[str]) -> dict[str, float]:
    """The same of probabilities by name; `other` and what is missing to one is spread over the causes not named."""
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in given.values()):
        raise UsageError("A probability lies between 0 and 1.")
    unnamed = [name for name in among if name not in given]
    total = sum(value for name, value in given.items() if name != "other")
    stated = total + given.get("other", 0.0 if not unnamed else max(0.0, 1 - total))
    if abs(stated - 1) > 1e-3 or (not unnamed and given.get("other")):
        raise UsageError(
            f"The probabilities make up {100 * stated:.0f} %.",
            "Together they are 100 %.",
            "Name other=... for the rest." if unnamed else "Change one of them.",
        )
    return {name: given[name] if name in given else max(0.0, 1 - total) / len(unnamed) for name in among}


def record_answer(run: RunFolder, probabilities: Mapping[str, float]) -> Case:
    """Scores an answer and opens the seal. UsageError when it was answered before; LabError where it cannot be kept."""
    token = run.info().settings_as(MysterySettings).mystery.token
    cause = fault_of(token).name

    def scored(now: Case) -> Case:
        if now.answer is not None:
            raise UsageError(f"{run.id} is answered already.", f"It was: {faults()[now.cause].title}.")
        known = checked_answer(probabilities, now.candidates)
        bits = -math.log2(max(known[cause], LEAST_CONFIDENCE))
        return replace(now, answer=known, bits=bits, cause=cause, time=time.time())

    case = _change(run, scored)
    _keep_score(run, case)
    return case


def give_up(run: RunFolder) -> Case:
    """Opens the seal for the score of knowing nothing."""
    among = case_of(run).candidates
    return record_answer(run, {name: 1 / len(among) for name in among})


def revealed(run: RunFolder) -> Fault:
    """What was broken. UsageError before the answer."""
    case = case_of(run)
    if not case.cause:
        raise UsageError(
            f"{run.id} is not answered yet.",
            "The seal is opened by an answer.",
            f'Answer it: llmlab-run mystery answer {run.id} "{case.candidates[0]}=0.5,other=0.5", or --give-up',
        )
    return faults()[case.cause]


@dataclass(frozen=True)
class Score:
    """One answer. best: the cause that was given most; given: what it was given. chance: bits of knowing nothing."""

    name: str
    level: int
    cause: str
    best: str
    given: float
    bits: float
    chance: float
    spent: int
    time: float

    @property
    def right(self) -> bool:
        return self.best == self.cause


def scores(outputs: Path) -> list[Score]:
    """All answers, the oldest first; lines that cannot be read are passed over."""
    found = []
    with contextlib.suppress(OSError), open_file(outputs / MysterySettings.track / SCORES) as file:
        for line in file.read().splitlines():
            with contextlib.suppress(ValueError, TypeError):
                found.append(from_plain(Score, parse_json(line)))
    return found


def calibrated(outputs: Path) -> Calibration:
    """Stated probability of the most likely cause against how often it was the cause."""
    return calibration([Statement(s.time, s.given, s.right, brier(s.given, s.right), s.name) for s in scores(outputs)])


def _settings_of(run: RunFolder, what: str) -> MysterySettings:
    settings = run.info().settings_as(MysterySettings)
    cause, train = fault_of(settings.mystery.token).name, settings.train
    changes: dict[str, float | str] = {"mystery.token": seal(NOTHING if what == HEALTHY else cause)}
    if what == SEED:
        changes["train.seed"] = train.seed + 1
    if what == RATE:
        changes |= {
            "train.learning_rate": train.learning_rate / 3,
            "train.min_learning_rate": train.min_learning_rate / 3,
        }
    return with_values(settings, changes)


def _is_whole(case: Case) -> bool:
    """Whether its parts fit each other: a file may be damaged, or somebody else's."""
    answered = {case.answer is not None, case.bits is not None, bool(case.cause)}
    fits = case.answer is None or (set(case.answer) == set(case.candidates) and case.cause in case.answer)
    known = bool(case.candidates) and set(case.candidates) <= faults().keys() and case.level in LEVELS
    return known and fits and len(answered) == 1 and all(_WHERE.fullmatch(mark.where) for mark in case.marks)


def _free_name(outputs: Path) -> str:
    taken = {path.name for path in outputs.glob("*/mystery-*")} | {score.name for score in scores(outputs)}
    return next(name for number in range(1, len(taken) + 2) if (name := f"mystery-{number}") not in taken)


def _write(run: RunFolder, case: Case) -> None:
    with explained(f"{run.path / CASE} could not be written."):
        write_json(run.path / CASE, asdict(case))


def _change(run: RunFolder, change: Callable[[Case], Case]) -> Case:
    """Replaces a mystery by what `change` makes of it, while nobody else does."""
    with locked(run.path / "run.lock", run.id):
        case = change(case_of(run))
        _write(run, case)
    return case


def _keep_score(run: RunFolder, case: Case) -> None:
    assert case.answer is not None
    assert case.bits is not None
    best = max(case.answer, key=lambda name: case.answer[name] if case.answer else 0.0)
    spent = sum(asked.cost for asked in case.asked)
    score = Score(run.id, case.level, case.cause, best, case.answer[best], case.bits, case.chance, spent, case.time)
    path = run.path.parent / SCORES
    with explained(f"The score of {run.id} could not be saved in {path}."), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(score)) + "\n")
