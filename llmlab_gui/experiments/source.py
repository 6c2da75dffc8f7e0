"""What the window's desk is told about the plans that it looks after: experiments, or checks of a paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from llmlab.studies.experiments.outcomes import ExperimentResults, read_results
from llmlab.studies.launcher import create_experiment
from llmlab.studies.records import ExperimentFolder, ExperimentRecord, list_experiments

R = TypeVar("R")


@dataclass(frozen=True)
class Source(Generic[R]):
    """Plans of one kind on disk. The functions touch no Qt; they may raise LabError.

    folder: of a path. listed: all in an outputs folder, newest first. create: makes a new one's folder. results: what
    came out, None where there is nothing yet. follows_losses: whether the losses of its runs are read while they
    train. ended: what is said when one has finished.
    """

    folder: Callable[[Path], ExperimentFolder]
    listed: Callable[[Path], Sequence[ExperimentFolder]]
    create: Callable[[Path, ExperimentRecord], ExperimentFolder]
    results: Callable[[ExperimentFolder], R | None]
    follows_losses: bool
    ended: str


EXPERIMENTS: Source[ExperimentResults] = Source(
    ExperimentFolder,
    list_experiments,
    create_experiment,
    read_results,
    follows_losses=True,
    ended="Its report is written.",
)
