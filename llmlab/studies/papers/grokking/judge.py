"""Measures and judges the claims about grokking on the runs of a check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from llmlab.core.records import from_plain
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.grokking.frequencies import (
    fourier_table,
    fourier_verdict,
    middle,
    progress_chart,
    progress_table,
    progress_verdict,
    spectrum_chart,
)
from llmlab.studies.papers.grokking.generalising import (
    accuracy_chart,
    decay_chart,
    decay_verdict,
    late_verdict,
    steps_table,
)
from llmlab.studies.papers.grokking.plan import BETWEEN, FOURIER, LATE, PROGRESS, WEIGHT_DECAY, WITH, WITHOUT
from llmlab.studies.papers.grokking.trajectory import Trajectory, follow
from llmlab.studies.papers.interface import Check
from llmlab.studies.papers.records import Verdict
from llmlab.studies.records import Arm


def measure(check: Check, arm: Arm, run: RunFolder) -> dict[str, Any]:
    """The run, followed through all of its checkpoints."""
    return asdict(follow(run, check.progress))


def early(check: Check) -> list[Verdict]:
    """All claims: each rests on what was measured when its runs ended."""
    runs = {group: _followed(check, group) for group in (WITH, WITHOUT, BETWEEN)}
    if not runs[WITH]:
        return []
    makers = {
        LATE: _late,
        WEIGHT_DECAY: _decay,
        FOURIER: _fourier,
        PROGRESS: _progress,
    }
    found = (makers[claim](runs) for claim in check.claims)
    return [verdict for verdict in found if verdict is not None]


def late(_check: Check) -> Iterator[Verdict]:
    """None: nothing takes long once all runs were followed."""
    return iter(())


def _late(runs: dict[str, list[Trajectory]]) -> Verdict:
    verdict = late_verdict(runs[WITH])
    verdict.charts, verdict.tables = [accuracy_chart(runs[WITH])], [steps_table(runs[WITH])]
    return verdict


def _decay(runs: dict[str, list[Trajectory]]) -> Verdict | None:
    if not {run.seed for run in runs[WITH]} & {run.seed for run in runs[WITHOUT]}:
        return None
    verdict = decay_verdict(runs[WITH], runs[WITHOUT])
    between = [[run] for run in runs[BETWEEN]]
    verdict.charts = [decay_chart([runs[WITH], *between, runs[WITHOUT]])]
    verdict.tables = [steps_table([*runs[WITH], *runs[BETWEEN], *runs[WITHOUT]])]
    return verdict


def _fourier(runs: dict[str, list[Trajectory]]) -> Verdict:
    verdict = fourier_verdict(runs[WITH])
    verdict.charts = [spectrum_chart(middle(runs[WITH]))]
    verdict.tables = [fourier_table([*runs[WITH], *runs[BETWEEN], *runs[WITHOUT]])]
    return verdict


def _progress(runs: dict[str, list[Trajectory]]) -> Verdict:
    verdict = progress_verdict(runs[WITH])
    verdict.charts, verdict.tables = [progress_chart(middle(runs[WITH]))], [progress_table(runs[WITH])]
    return verdict


def _followed(check: Check, group: str) -> list[Trajectory]:
    return [from_plain(Trajectory, one.values) for one in check.measured(group)]
