"""How the test of a paper's claims is described: which runs it needs, and which module judges them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmlab.studies.papers.records import Verdict


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
    """What a paper's package offers to `llmlab.studies.papers.catalogue`.

    paper: its folder in resources/papers. claims: those that have a test, in the paper's order. judge: the module that
    measures and judges (`llmlab.studies.papers.judging.Judge`), imported by the check's worker alone.
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
