"""The tables about experiments: all of them, and the runs of one; rows change in place so that selections stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QObject
from PySide6.QtGui import QColor

from llmlab.studies.experiments.results import value_text
from llmlab.studies.records import ExperimentStatus, Trial, TrialStatus
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.widgets.numbers import count_text, created_text, stamp_text, time_left_text
from llmlab_gui.widgets.row_tables import Column, RowsModel

# A run's states have icons; those that only a trial has look like the nearest of them.
_LIKE_RUN = {"planned": "queued", "skipped": "stopped", "diverged": "failed"}


@dataclass(frozen=True)
class TrialRow:
    """A run of a plan. color: as in the charts, "" before there are any."""

    trial: Trial
    status: TrialStatus
    color: str = ""


def left_text(status: ExperimentStatus) -> str:
    """How long the rest takes; empty when nothing is left or known."""
    if status.state == "finished" or status.eta_seconds is None or status.eta_seconds <= 0:
        return ""
    return time_left_text(status.eta_seconds)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


EXPERIMENT_COLUMNS: tuple[Column[ExperimentRow], ...] = (
    Column("Experiment", lambda row: row.id, "Its folder", width=22),
    Column("State", lambda row: row.status.state, "State", state=True, width=12),
    Column(
        "Runs",
        lambda row: f"{row.status.ended_trials} / {len(row.record.arms)}" if row.record.arms else "–",
        "Runs that have ended, and planned",
        right=True,
        width=8,
    ),
    Column("Left", lambda row: left_text(row.status), "Time left", right=True, width=11),
    Column("Kind", lambda row: row.record.title, "Question that it answers", width=13),
    Column(
        "Base",
        lambda row: row.record.preset or row.record.subject or row.record.track,
        "Preset, run or model that all trials start from",
        width=14,
    ),
    Column(
        "Created",
        lambda row: created_text(row.record.created),
        "When it was made",
        width=13,
        in_file=lambda row: stamp_text(row.record.created),
    ),
)
TRIAL_COLUMNS: tuple[Column[TrialRow], ...] = (
    Column("Value", lambda row: value_text(row.trial), "What is varied", width=16),
    Column("State", lambda row: row.status.state, "State", state=True, width=12),
    Column(
        "Step",
        lambda row: f"{row.status.step:,} / {row.status.steps:,}" if row.status.steps else "–",
        "Steps done, and planned",
        right=True,
        width=14,
    ),
    Column("Val loss", lambda row: _loss(row.status.val_loss), "Validation loss, nats per token", right=True, width=9),
    Column("Loss", lambda row: _loss(row.status.loss), "Training loss, nats per token", right=True, width=8),
    Column("Seed", lambda row: str(row.trial.seed), "Seed of weights and batches", right=True, width=7),
    Column(
        "Time",
        lambda row: time_left_text(row.status.wall_seconds) if row.status.wall_seconds else "–",
        "Duration, including startup and measuring",
        width=10,
    ),
)
PLAN_COLUMNS: tuple[Column[Trial], ...] = (
    Column("Value", value_text, "What is varied", width=16),
    Column("Seed", lambda trial: str(trial.seed), "Seed of weights and batches", right=True, width=7),
    Column(
        "Plotted at",
        lambda trial: count_text(trial.x) if trial.x >= 10_000 else f"{trial.x:g}",
        "Its position on the chart's horizontal axis",
        right=True,
        width=10,
    ),
    Column(
        "Time",
        lambda trial: time_left_text(trial.estimated_seconds) if trial.estimated_seconds else "–",
        "Estimated duration on this machine",
        width=10,
    ),
)


class ExperimentsModel(RowsModel[ExperimentRow]):
    """All experiments."""

    columns = EXPERIMENT_COLUMNS

    def key(self, row: ExperimentRow) -> str:
        return row.id

    def state(self, row: ExperimentRow) -> str:
        return _LIKE_RUN.get(row.status.state, row.status.state)

    def tip(self, row: ExperimentRow) -> str:
        lines = [row.id, row.record.question, row.record.varies, row.status.doing]
        if row.status.error:
            lines.append(row.status.error.get("what", ""))
        return "\n".join(line for line in lines if line)


class TrialsModel(RowsModel[TrialRow]):
    """The runs of one experiment."""

    def __init__(self, columns: Sequence[Column[TrialRow]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns = columns

    def key(self, row: TrialRow) -> str:
        return row.trial.run

    def state(self, row: TrialRow) -> str:
        return _LIKE_RUN.get(row.status.state, row.status.state)

    def tip(self, row: TrialRow) -> str:
        changed = ", ".join(f"{key} = {value}" for key, value in row.trial.settings.items())
        return "\n".join(line for line in (row.trial.run, changed, row.status.note) if line)

    def mark(self, row: TrialRow) -> QColor | None:
        return QColor(row.color) if row.color else None


class PlanModel(RowsModel[Trial]):
    """The runs of an experiment that has not started."""

    columns = PLAN_COLUMNS

    def key(self, row: Trial) -> str:
        return row.name

    def state(self, row: Trial) -> str:
        return _LIKE_RUN["planned"]

    def tip(self, row: Trial) -> str:
        changed = "\n".join(f"{key} = {value}" for key, value in row.settings.items())
        return f"{changed}\nPredicted from the others before it runs" if row.forecast else changed
