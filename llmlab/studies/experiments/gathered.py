"""An experiment's runs as its analyses need them: the numbers of each, in one unit, and means over seeds. No torch."""

from __future__ import annotations

import copy
import dataclasses
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from llmlab.core.processes import processor
from llmlab.store.events import tokens_differ
from llmlab.store.history import RunHistory, read_history
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments import outcomes
from llmlab.studies.experiments.fits import PowerLaw, fit_power_law
from llmlab.studies.experiments.kinds import Kind, find_kind
from llmlab.studies.plans.divergence import divergence
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, Trial, TrialStatus

D = TypeVar("D", bound=Any)  # a dataclass
_TRIAL_LOSSES = ("start_loss", "train_loss", "val_loss", "best_val_loss")
_FORECAST_LOSSES = ("value", "low", "high")


@dataclass(frozen=True)
class Gathered:
    """What the analysis of a kind works on. histories: by trial name, of the runs that have begun.

    scales: what turned a trial's losses into bits per byte, by its name; empty where they are in nats per token.
    """

    folder: ExperimentFolder
    record: ExperimentRecord
    kind: Kind
    trials: list[outcomes.TrialResult]
    histories: dict[str, RunHistory]
    scales: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_differ(self) -> bool:
        """Whether losses per token do not compare."""
        return tokens_differ(one.worker for one in self.histories.values() if one.worker is not None)

    def in_bits(self) -> Gathered | None:
        """The same with all losses in bits per byte; None where it is not known how long the tokens of a run are."""
        began = {name: one.worker for name, one in self.histories.items() if one.worker is not None}
        scales = {name: scale for name, worker in began.items() if (scale := worker.bits_per_byte) is not None}
        if not began or len(scales) < len(began):
            return None
        trials = [_scaled(trial, _TRIAL_LOSSES, scales.get(trial.name, 1.0)) for trial in self.trials]
        histories = {name: _scaled_history(one, scales.get(name, 1.0)) for name, one in self.histories.items()}
        return dataclasses.replace(self, trials=trials, histories=histories, scales=scales)

    def read_forecast(self) -> outcomes.Forecast | None:
        """What was predicted from the trials before; None when nothing was."""
        made = outcomes.read_forecast(self.folder)
        scale = self.scales.get(made.trials[0]) if made is not None and made.trials else None  # they read the same text
        return made if made is None or scale is None else _scaled(made, _FORECAST_LOSSES, scale)

    def finished(self, group: str | None = None) -> list[outcomes.TrialResult]:
        """Trials whose loss counts, in the order of x; of one curve, or all."""
        chosen = [trial for trial in self.trials if trial.state == "finished" and group in (None, trial.group)]
        return sorted((trial for trial in chosen if self.loss(trial) is not None), key=lambda trial: trial.x)

    def forecast(self, wanted: bool) -> list[outcomes.TrialResult]:
        """The finished ones that are to be predicted from the others, or those others."""
        return [trial for trial in self.finished() if self.record.trial(trial.name).forecast is wanted]

    def loss(self, trial: outcomes.TrialResult) -> float | None:
        """The loss by which the kind judges a run."""
        value = getattr(trial, self.kind.metric)
        return value if value is not None and np.isfinite(value) else None

    @property
    def groups(self) -> list[str]:
        """The curves, in the order of the plan."""
        return list(dict.fromkeys(trial.group for trial in self.record.trials))


def gather(folder: ExperimentFolder, record: ExperimentRecord) -> Gathered:
    """Reads every run of the plan that has begun."""
    known = folder.recorded_status().trials
    trials, histories = [], {}
    for trial in record.trials:
        run = folder.run_of(trial, record.track)
        if not run.run_json.is_file():
            standing = known.get(trial.name, TrialStatus())
            state = standing.state if standing.state in ("failed", "skipped") else "planned"
            about = (trial.name, trial.run, trial.group, trial.x, trial.seed)
            trials.append(outcomes.TrialResult(*about, state, note=standing.note))
            continue
        history = histories[trial.name] = read_history(run)
        trials.append(trial_result(record, trial, run, history))
    return Gathered(folder, record, find_kind(record.kind), trials, histories)


def trial_result(record: ExperimentRecord, trial: Trial, run: RunFolder, history: RunHistory) -> outcomes.TrialResult:
    """One run's numbers. history: its events, as they were read."""
    watch = divergence(run, record.rule)
    status = run.recorded_status()
    if history.finished is not None:
        state, note = "finished", ""
    elif watch.note:
        state, note = "diverged", watch.note
    elif status.state == "failed":
        state, note = "failed", " ".join(part for part in (status.error or {}).values() if part)
    else:
        state, note = ("running" if run.status().live else "stopped"), ""
    evaluations = [row for row in history.evaluated if np.isfinite(row.val_loss)]
    best = min(evaluations, key=lambda row: row.val_loss, default=None)
    last = evaluations[-1] if evaluations else None
    started = history.worker
    scored = [row for row in history.scores if row.step > 0 and row.total]
    return outcomes.TrialResult(
        name=trial.name,
        run=trial.run,
        group=trial.group,
        x=trial.x,
        seed=trial.seed,
        state=state,
        steps=history.last_step,
        parameters=started.parameters if started else None,
        tokens=int(history.step_columns["tokens"][-1]) if history.last_step else None,
        start_loss=evaluations[0].val_loss if evaluations and evaluations[0].step == 0 else None,
        train_loss=last.train_loss if last else None,
        val_loss=last.val_loss if last else None,
        best_val_loss=best.val_loss if best else None,
        best_step=best.step if best else None,
        diverged_at=watch.step if state == "diverged" else None,
        seconds=history.active_seconds,
        score=scored[-1].correct / scored[-1].total if scored else None,
        note=note,
    )


def mean_points(
    trials: Sequence[outcomes.TrialResult],
    y: Callable[[outcomes.TrialResult], float | None],
    x: Callable[[outcomes.TrialResult], float | None] = lambda trial: trial.x,
) -> list[outcomes.Point]:
    """One point a place on the x axis: the mean over seeds, with one standard error where there are several."""
    places: dict[float, list[float]] = defaultdict(list)
    for trial in trials:
        at, value = x(trial), y(trial)
        if at is not None and value is not None and np.isfinite(value):
            places[at].append(value)
    return [point_of(at, values) for at, values in sorted(places.items())]


def point_of(at: float, values: Sequence[float], label: str = "") -> outcomes.Point:
    """The mean of some runs at one place."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return outcomes.Point(at, mean, label=label)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return outcomes.Point(at, mean, mean - error, mean + error, len(values), label)


def law_of_others(gathered: Gathered) -> PowerLaw | None:
    """The power law through all finished trials but those to be predicted."""
    trials = gathered.forecast(False)
    x, y = [trial.x for trial in trials], [gathered.loss(trial) for trial in trials]
    return fit_power_law(np.array(x), np.array(y, dtype=float)) if trials else None


def hardware(histories: Sequence[RunHistory]) -> dict[str, str]:
    """What the runs computed on, as they recorded it, and the machine."""
    started = [history.worker for history in histories if history.worker is not None]
    facts = {
        "device": ", ".join(sorted({f"{one.device} {one.precision}" for one in started})),
        "threads": ", ".join(sorted({str(one.threads) for one in started})),
        "processor": processor(),
        "cores": str(os.cpu_count() or 0),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return {name: value for name, value in facts.items() if value}


def _scaled(record: D, names: Sequence[str], scale: float) -> D:
    """A dataclass with these fields multiplied, where they are not None."""
    found = {name: value for name in names if (value := getattr(record, name)) is not None}
    return dataclasses.replace(record, **{name: scale * value for name, value in found.items()})


def _scaled_history(history: RunHistory, scale: float) -> RunHistory:
    """With the losses that the analyses read."""
    made = copy.copy(history)
    made.evaluated = [_scaled(one, ("train_loss", "val_loss"), scale) for one in history.evaluated]
    return made
