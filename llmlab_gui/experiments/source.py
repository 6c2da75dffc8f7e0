"""What the window's desk is told about the plans that it looks after: experiments, or checks of a paper's claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmlab.studies.experiments.outcomes import ExperimentResults, read_results
from llmlab.studies.papers.records import CheckResult, read_verdicts
from llmlab.studies.records import CheckFolder, ExperimentFolder

R = TypeVar("R")


@dataclass(frozen=True)
class Source(Generic[R]):
    """Plans of one kind on disk.

    kind: of their folders. results: what came out, None where there is nothing yet; touches no Qt, and may raise
    LabError. follows_losses: whether the losses of its runs are read while they train. ended: what is said when one
    has finished.
    """

    kind: type[ExperimentFolder]
    results: Callable[[ExperimentFolder], R | None]
    follows_losses: bool
    ended: str


EXPERIMENTS: Source[ExperimentResults] = Source(ExperimentFolder, read_results, True, "Its report is written.")
CHECKS: Source[CheckResult] = Source(CheckFolder, read_verdicts, False, "Its verdicts are in Claims.")
