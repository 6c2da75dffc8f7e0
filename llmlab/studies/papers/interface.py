"""What a paper's package offers to a check, and what its judge is given. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.progress import Progress, quiet
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.records import Verdict
from llmlab.studies.records import Trial


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


def nothing_more(_verdicts: Sequence[Verdict]) -> str:
    """Of a paper whose claims stand each for itself."""
    return ""


@dataclass(frozen=True)
class PaperPlan:
    """What a paper's package offers to `llmlab.studies.papers.checks.PLANS`.

    paper: its folder in resources/papers. claims: those that have a test, in the paper's order. judge: the module that
    measures and judges (`Judge`), imported by the check's worker alone.
    judging_seconds: what comes after the runs, from size, claims and the number of models. of_models: the claims that
    are tested on models which the learner names, not on runs. overall: what the verdicts say together, where a paper
    has one idea.
    """

    paper: str
    claims: tuple[str, ...]
    judge: str
    runs: Runs
    judging_seconds: Callable[[str, Collection[str], int], float]
    of_models: tuple[str, ...] = ()
    overall: Callable[[Sequence[Verdict]], str] = nothing_more


def no_runs(_size: str, _claims: Collection[str], _seeds: int) -> list[PlannedRun]:
    """Of a paper that is tested on models which are there."""
    return []


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
    measurements: the folder of what was measured. progress: raises the worker's Stop when the check is to stop.
    """

    claims: list[str]
    size: str
    models: list[str]
    outputs: Path
    measurements: Path
    finished: list[Measured] = field(default_factory=list)
    progress: Progress = quiet

    def measured(self, group: str = "") -> list[Measured]:
        """The finished runs of a group, or all."""
        return [one for one in self.finished if group in ("", one.trial.group)]

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
