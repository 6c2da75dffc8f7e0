"""Measures and judges the claims about grokking on the runs of a check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from llmlab.core.records import from_plain
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.records import Arm
from llmlab.studies.papers.grokking import shown, verdicts
from llmlab.studies.papers.grokking.measure import follow
from llmlab.studies.papers.grokking.plan import BETWEEN, FOURIER, LATE, PROGRESS, WEIGHT_DECAY, WITH, WITHOUT
from llmlab.studies.papers.grokking.thresholds import GENERALISED
from llmlab.studies.papers.grokking.trajectory import Trajectory
from llmlab.studies.papers.judging import Check
from llmlab.studies.papers.records import Verdict


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
    verdict = verdicts.late_verdict(runs[WITH])
    verdict.charts, verdict.tables = [shown.accuracy_chart(runs[WITH])], [shown.steps_table(runs[WITH])]
    return verdict


def _decay(runs: dict[str, list[Trajectory]]) -> Verdict | None:
    if not {run.seed for run in runs[WITH]} & {run.seed for run in runs[WITHOUT]}:
        return None
    verdict = verdicts.decay_verdict(runs[WITH], runs[WITHOUT])
    between = [[run] for run in runs[BETWEEN]]
    verdict.charts = [shown.decay_chart([runs[WITH], *between, runs[WITHOUT]])]
    verdict.tables = [shown.steps_table([*runs[WITH], *runs[BETWEEN], *runs[WITHOUT]])]
    return verdict


def _fourier(runs: dict[str, list[Trajectory]]) -> Verdict:
    verdict = verdicts.fourier_verdict(runs[WITH])
    verdict.charts = [shown.spectrum_chart(middle(runs[WITH]))]
    verdict.tables = [shown.fourier_table([*runs[WITH], *runs[BETWEEN], *runs[WITHOUT]])]
    return verdict


def _progress(runs: dict[str, list[Trajectory]]) -> Verdict:
    verdict = verdicts.progress_verdict(runs[WITH])
    verdict.charts, verdict.tables = [shown.progress_chart(middle(runs[WITH]))], [shown.progress_table(runs[WITH])]
    return verdict


def middle(runs: list[Trajectory]) -> Trajectory:
    """The run that is shown alone: of those that generalise, at the last checkpoint too, the middle one by how long
    it took."""
    done = [run for run in runs if run.generalised is not None and run.held_accuracy[-1] >= GENERALISED]
    order = sorted((run.steps[run.generalised], run.seed) for run in done if run.generalised is not None)
    chosen = order[(len(order) - 1) // 2][1] if order else runs[0].seed
    return next(run for run in runs if run.seed == chosen)


def _followed(check: Check, group: str) -> list[Trajectory]:
    return [from_plain(Trajectory, one.values) for one in check.measured(group)]
