"""The runs of a check, and how far its whole plan is. Touches no Qt."""

from __future__ import annotations

from llmlab.core.task_settings import TRANSFORMER
from llmlab.studies.records import ExperimentRecord, Trial
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.experiments.tables import left_text
from llmlab_gui.paper.claim_rows import check_options


def finished_trials(row: ExperimentRow) -> list[Trial]:
    """Its runs that have come to their end, in the plan's order."""
    states = row.status.arms
    return [trial for trial in row.record.arms if trial.name in states and states[trial.name].state == "finished"]


def opens_in_panels(record: ExperimentRecord, trial: Trial) -> bool:
    """Whether a run's model has layers and heads that the panels can look into."""
    base = record.base.get("model", {})
    kind = base.get("kind", TRANSFORMER) if isinstance(base, dict) else TRANSFORMER
    return bool(trial.settings.get("model.kind", kind) == TRANSFORMER)


def share_done(row: ExperimentRow) -> float:
    """The share of the whole plan that is done, judging included, 0 to 1: its parts weigh as much as they take.

    Of a plan without runs the time that is spent, of all that was expected.
    """
    status, record = row.status, row.record
    if status.state == "finished":
        return 1.0
    if not record.arms:
        left = status.eta_seconds
        whole = status.active_seconds + left if left is not None and left > 0 else record.estimated_seconds
        return min(1.0, status.active_seconds / whole) if whole > 0 else 0.0
    done = 0.0
    for trial in record.arms:
        at = status.arms.get(trial.name)
        if at is not None:
            done += trial.estimated_seconds * (1.0 if at.ended else at.step / at.steps if at.steps else 0.0)
    return min(1.0, done / record.estimated_seconds) if record.estimated_seconds > 0 else 0.0


def standing_text(row: ExperimentRow) -> str:
    """`Run 9 of 18 (hmm-s2): step 421 of 2,000. 7 min left.`"""
    status, names = row.status, [trial.name for trial in row.record.arms]
    parts = []
    if status.live and status.arm in names:
        trial = status.arms.get(status.arm)
        at = f": step {trial.step:,} of {trial.steps:,}" if trial is not None and trial.steps else ""
        parts.append(f"Run {names.index(status.arm) + 1} of {len(names)} ({status.arm}){at}.")
    elif names:
        parts.append(f"{status.ended_trials} of {len(names)} runs have ended.")
    else:
        options = check_options(row)
        parts.append(f"Tested on {', '.join(options.models)}." if options is not None and options.models else "")
    if not status.live:
        parts.append(f"It is {status.state}.")
    elif status.state == "stopping":
        parts.append("It stops as soon as the current run has saved.")
    if status.doing and status.live:
        parts.append(f"{status.doing.rstrip('.')}.")
    left = left_text(status)
    if left:
        parts.append(f"{left} left.")
    return " ".join(part for part in parts if part)
