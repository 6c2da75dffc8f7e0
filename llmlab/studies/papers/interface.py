"""What a paper's package offers to a check, and what its judge is given. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.memory import give_back
from llmlab.core.progress import Progress, parts, quiet
from llmlab.core.task_settings import TaskSettings
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.records import Verdict
from llmlab.studies.plans.records import Trial

T = TypeVar("T")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a check.

    name: unique in the check. settings: over the defaults of `TaskSettings`, by `section.field`. group: what it is
    compared with others as, "bijection" or "one layer".
    """

    name: str
    seed: int
    settings: dict[str, Any]
    group: str


# size, claims, seeds (0 takes the size's own number) -> runs, in the order in which they are trained
Runs: TypeAlias = Callable[[str, Collection[str], int], list[PlannedRun]]


@dataclass(frozen=True)
class PaperPlan:
    """What a paper's package offers to `llmlab.studies.papers.checks.PLANS`.

    paper: its folder in resources/papers. claims: those that have a test, in the paper's order. judge: the module that
    measures and judges (`Judge`), imported by the check's worker alone. runs: none where it is tested on models alone.
    measuring_seconds: what measuring a run takes, on two cores. judging_seconds: what comes after the runs, from size,
    claims and the number of models of 135 million parameters that take as long as those asked. of_models: the claims
    that are tested on models which the learner names, not on runs. overall: what the verdicts say together, where a
    paper has one idea.
    """

    paper: str
    claims: tuple[str, ...]
    judge: str
    runs: Runs = lambda _size, _claims, _seeds: []
    judging_seconds: Callable[[str, Collection[str], float], float] = lambda _size, _claims, _models: 0.0
    measuring_seconds: Callable[[TaskSettings], float] = lambda _settings: 3.0
    of_models: tuple[str, ...] = ()
    overall: Callable[[Sequence[Verdict]], str] = lambda _verdicts: ""


# Judging --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A finished run of a check, with what `Judge.measure` found on it."""

    trial: Trial
    run: RunFolder
    values: dict[str, Any]


@dataclass(frozen=True)
class Check:
    """A check as its judge sees it.

    claims: asked for, in the paper's order. size: of records.SIZES. models: references, for claims about models that
    are there. outputs: where references are looked up. finished: the runs that have ended, in the plan's order.
    measurements: the folder of what was measured. progress: raises the worker's Stop when the check is to stop. asked:
    is told how much of all that is asked of the models is known.
    """

    claims: list[str]
    size: str
    models: list[str]
    outputs: Path
    measurements: Path
    finished: list[Measured] = field(default_factory=list)
    progress: Progress = quiet
    asked: Progress = quiet

    def measured(self, group: str = "") -> list[Measured]:
        """The finished runs of a group, or all."""
        return [one for one in self.finished if group in ("", one.trial.group)]

    def telling(self, step: str, of_all: Progress) -> Progress:
        """Of one step, by its own name: to those who watch it, and how much of all is done by it."""

        def tell(what: str, done: float, total: float) -> None:
            of_all(what, done, total)
            self.progress(step, done, total)

        return tell

    def kept(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What was measured before under this name, or what `make` finds now: plain values, finite numbers.

        An interrupted check measures nothing twice. name: any text, as a model's reference. LabError where a number is
        not finite, as those of a model whose weights are not.
        """
        path = self.measurements / f"{_file_name(name)}.json"
        if (found := read_json(path)) is None:
            path.parent.mkdir(exist_ok=True)
            found = dict(make())
            try:
                write_json(path, found)
            except ValueError as error:
                raise LabError(f"{name} gives no numbers to judge.", "One of them is infinite, or none.") from error
        return found


# Claims, and what is measured for them together on a model.
Questions: TypeAlias = Mapping[tuple[str, ...], Callable[[], T]]


def ask_models(
    check: Check, questions: Callable[[str, Progress], Questions[T]]
) -> tuple[dict[str, list[T]], dict[str, dict[str, str]]]:
    """What each model of a check gives, by claim, and why one could not be asked, by claim and model.

    questions: of a model by its reference; they tell how much of what is asked of it is known. What cannot be asked for
    one claim, as where random weights do not fit into memory, leaves the others alone.
    """
    found: dict[str, list[T]] = {claim: [] for claim in check.claims}
    refused: dict[str, dict[str, str]] = {claim: {} for claim in check.claims}
    models = [*dict.fromkeys(check.models)]  # one that is named twice says no more
    for reference, asked in zip(models, parts([1] * len(models), check.asked), strict=True):
        _ask(reference, questions(reference, asked), found, refused)
        give_back()  # the model itself, which nothing holds any more
    return found, refused


def _ask(
    reference: str, questions: Questions[T], found: dict[str, list[T]], refused: dict[str, dict[str, str]]
) -> None:
    for claims, measure in questions.items():
        asked = [claim for claim in claims if claim in found]
        if not asked:
            continue
        try:
            one = measure()
        except LabError as error:
            for claim in asked:
                refused[claim][reference] = " ".join(part for part in (error.what, error.why) if part)
        else:
            for claim in asked:
                found[claim].append(one)
        give_back()


class Judge(Protocol):
    """The functions of a judging module (`PaperPlan.judge`)."""

    def measure(self, check: Check, trial: Trial, run: RunFolder) -> dict[str, Any]:
        """What is to be known of a finished run's checkpoints: plain values, kept in measurements/<trial>.json."""

    def early(self, check: Check) -> list[Verdict]:
        """Verdicts from what was measured so far, quickly: it is asked after every run."""

    def late(self, check: Check) -> Iterator[Verdict]:
        """Verdicts that take long, once all runs have ended; each is written down when it comes."""


def _file_name(name: str) -> str:
    """Readable, and different for different names."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
