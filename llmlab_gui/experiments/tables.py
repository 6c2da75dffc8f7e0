"""The tables about experiments: all of them, and the runs of one, with their colours. Rows change in place so that
selections stay.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QObject
from PySide6.QtGui import QColor

from llmlab.core.signs import count_text
from llmlab.studies.plans.records import ExperimentRecord, ExperimentStatus, Trial, TrialStatus
from llmlab_gui.charts.color_scale import curve_colors, series_color
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.widgets.numbers import created_text, stamp_text, time_left_text
from llmlab_gui.widgets.row_tables import Column, RowsModel, numbers
from llmlab_gui.widgets.theme import current_theme, mix


@dataclass(frozen=True)
class TrialRow:
    """A run of a plan. color: as in the charts, "" before there are any."""

    trial: Trial
    status: TrialStatus
    color: str = ""


def seconds_left(status: ExperimentStatus) -> float | None:
    """How long the rest takes; None when nothing is left or known."""
    return status.eta_seconds if status.state != "finished" and (status.eta_seconds or 0) > 0 else None


def _sign(state: str) -> str:
    """A run's states have icons; those that only a trial has look like the nearest of them."""
    return {"planned": "queued", "skipped": "stopped", "diverged": "failed"}.get(state, state)


_NATS = "nats per token"
_loss = "{:.3f}".format
EXPERIMENT_COLUMNS: tuple[Column[ExperimentRow], ...] = (
    Column("Experiment", lambda row: row.id, "Its folder", width=22),
    Column("State", lambda row: row.status.state, "State", state=lambda row: _sign(row.status.state), width=12),
    Column(
        "Runs",
        lambda row: f"{row.status.ended_trials} / {len(row.record.trials)}" if row.record.trials else "–",
        "Runs that have ended, and planned",
        right=True,
        width=8,
        value=lambda row: row.status.ended_trials,
        in_file="Runs ended",
    ),
    numbers("Left", lambda row: seconds_left(row.status), time_left_text, "Time left", "s", width=11, missing=""),
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
        value=lambda row: stamp_text(row.record.created),
    ),
)
TRIAL_COLUMNS: tuple[Column[TrialRow], ...] = (
    Column("Value", lambda row: row.trial.value_text, "What is varied", width=16),
    Column("State", lambda row: row.status.state, "State", state=lambda row: _sign(row.status.state), width=12),
    Column(
        "Step",
        lambda row: f"{row.status.step:,} / {row.status.steps:,}" if row.status.steps else "–",
        "Steps done, and planned",
        right=True,
        width=14,
        value=lambda row: row.status.step,
    ),
    numbers("Val loss", lambda row: row.status.val_loss, _loss, "Validation loss, nats per token", _NATS, width=9),
    numbers("Loss", lambda row: row.status.loss, _loss, "Training loss, nats per token", _NATS, width=8),
    numbers("Seed", lambda row: row.trial.seed, str, "Seed of weights and batches", width=7),
    numbers(
        "Time",
        lambda row: row.status.wall_seconds or None,
        time_left_text,
        "Duration, including startup and measuring",
        "s",
    ),
)
PLAN_COLUMNS: tuple[Column[Trial], ...] = (
    Column("Value", lambda trial: trial.value_text, "What is varied", width=16),
    numbers("Seed", lambda trial: trial.seed, str, "Seed of weights and batches", width=7),
    Column(
        "Plotted at",
        lambda trial: count_text(trial.x) if trial.x >= 10_000 else f"{trial.x:g}",
        "Its position on the chart's horizontal axis",
        right=True,
        width=10,
    ),
    numbers(
        "Time", lambda trial: trial.estimated_seconds or None, time_left_text, "Estimated duration on this machine", "s"
    ),
)


class ExperimentsModel(RowsModel[ExperimentRow]):
    """All experiments."""

    columns = EXPERIMENT_COLUMNS
    in_file = (("Runs planned", lambda row: len(row.record.trials)),)

    def key(self, row: ExperimentRow) -> str:
        return row.id

    def tip(self, row: ExperimentRow) -> str:
        lines = [row.id, row.record.question, row.record.varies, row.status.doing]
        if row.status.error:
            lines.append(row.status.error.get("what", ""))
        return "\n".join(line for line in lines if line)


class TrialsModel(RowsModel[TrialRow]):
    """The runs of one experiment."""

    in_file = (("Steps planned", lambda row: row.status.steps),)

    def __init__(self, columns: Sequence[Column[TrialRow]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns = columns

    def key(self, row: TrialRow) -> str:
        return row.trial.run

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

    def tip(self, row: Trial) -> str:
        changed = "\n".join(f"{key} = {value}" for key, value in row.settings.items())
        return f"{changed}\nPredicted from the others before it runs" if row.forecast else changed


# Of several groups each has one colour; its values are told apart by how much of the text's colour they have.
_TOWARDS_GROUND, _TOWARDS_TEXT = 0.4, 0.45


def cell_of(trial: Trial) -> Hashable:
    """What runs of different seeds have in common."""
    return trial.group, tuple(trial.varied.items()), trial.x


def trial_colors(record: ExperimentRecord) -> dict[str, QColor]:
    """A colour a trial, by its name; runs of one value share it."""
    groups = list(dict.fromkeys(trial.group for trial in record.trials))
    colors: dict[Hashable, QColor] = {}
    for number, group in enumerate(groups):
        cells = {cell_of(trial): trial.value_text for trial in sorted(_of(record, group), key=lambda trial: trial.x)}
        names = list(cells.values())
        shades = curve_colors(names, few=1) if len(groups) == 1 else _shades(series_color(number), len(cells))
        colors |= dict(zip(cells, shades, strict=True))
    return {trial.name: colors[cell_of(trial)] for trial in record.trials}


def _of(record: ExperimentRecord, group: str) -> list[Trial]:
    return [trial for trial in record.trials if trial.group == group]


def _shades(color: QColor, count: int) -> list[QColor]:
    """From fainter to stronger than `color`."""
    theme = current_theme()
    if count == 1:
        return [color]
    shares = [-_TOWARDS_GROUND + (_TOWARDS_GROUND + _TOWARDS_TEXT) * i / (count - 1) for i in range(count)]
    return [mix(color, theme.surface, -share) if share < 0 else mix(color, theme.text, share) for share in shares]
