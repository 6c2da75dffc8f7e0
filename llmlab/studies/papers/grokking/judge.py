"""Measures and judges the claims about grokking on the runs of a check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from llmlab.core.records import from_plain
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.grokking.frequencies import fourier_verdict, progress_verdict
from llmlab.studies.papers.grokking.generalising import decay_verdict, late_verdict
from llmlab.studies.papers.grokking.plan import BETWEEN, FOURIER, LATE, PROGRESS, WEIGHT_DECAY, WITH, WITHOUT
from llmlab.studies.papers.grokking.trajectory import Trajectory, follow
from llmlab.studies.papers.interface import Check
from llmlab.studies.papers.records import Verdict
from llmlab.studies.plans.records import Trial


def measure(check: Check, trial: Trial, run: RunFolder) -> dict[str, Any]:
    """The run, followed through all of its checkpoints."""
    return asdict(follow(run, check.progress))


def early(check: Check) -> list[Verdict]:
    """All claims: each rests on what was measured when its runs ended."""
    runs, without, between = (_followed(check, group) for group in (WITH, WITHOUT, BETWEEN))
    if not runs:
        return []
    paired = {run.seed for run in runs} & {run.seed for run in without}
    makers = {
        LATE: lambda: late_verdict(runs),
        WEIGHT_DECAY: lambda: decay_verdict(runs, without, between),
        FOURIER: lambda: fourier_verdict(runs, [*between, *without]),
        PROGRESS: lambda: progress_verdict(runs),
    }
    return [makers[claim]() for claim in check.claims if claim != WEIGHT_DECAY or paired]


def late(_check: Check) -> Iterator[Verdict]:
    """None: nothing takes long once all runs were followed."""
    return iter(())


def _followed(check: Check, group: str) -> list[Trajectory]:
    return [from_plain(Trajectory, one.values) for one in check.measured(group)]
