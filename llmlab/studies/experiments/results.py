"""From the runs of an experiment to its results: each run's numbers, and what its kind makes of them. No torch."""

from __future__ import annotations

import copy
import dataclasses
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.core.processes import processor
from llmlab.store.events import BITS, NATS, tokens_differ
from llmlab.store.history import RunHistory, read_history
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments import outcomes
from llmlab.studies.experiments.fits import PowerLaw, fit_power_law
from llmlab.studies.experiments.kinds import Kind, find_kind
from llmlab.studies.plans.divergence import divergence
from llmlab.studies.plans.records import TRIAL_ENDED_STATES, ExperimentFolder, ExperimentRecord, Trial, TrialStatus

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


def build_results(
    folder: ExperimentFolder, record: ExperimentRecord, *, look_closely: bool = False
) -> outcomes.ExperimentResults:
    """All that can be said now, from the runs' events and what was measured on their checkpoints.

    look_closely: also what takes seconds (bootstraps are always there; a batch's text and gradient noise are not).
    """
    kind = find_kind(record.kind)
    if not kind.trains:
        from llmlab.studies.experiments.curves import look_at_run

        return look_at_run(folder, record, look_closely=look_closely)
    gathered = gather(folder, record)
    charts, findings, notes = _analysed(gathered)
    bits = gathered.in_bits()
    others = _analysed(bits)[0] if bits is not None else []
    if gathered.tokens_differ:
        consequence = "their losses per token do not compare"
        if bits is not None:
            others, (charts, findings, notes) = charts, _analysed(bits)
            consequence = "charts and findings are in bits per byte"
        notes = [*notes, f"Its runs tokenize their text differently: {consequence}."]
    histories = [history for history in gathered.histories.values() if history.worker is not None]
    return outcomes.ExperimentResults(
        id=record.id,
        kind=record.kind,
        complete=all(
            trial.state in TRIAL_ENDED_STATES
            and not (trial.state == "finished" and outcomes.awaits_measurement(folder, record, trial.name))
            for trial in gathered.trials
        ),
        trials=gathered.trials,
        charts=charts,
        findings=findings,
        notes=notes,
        seconds=sum(trial.seconds for trial in gathered.trials),
        hardware=hardware(histories),
        versions=versions(folder, record),
        other_unit=[chart for chart in others if chart not in charts],
    )


def _analysed(gathered: Gathered) -> tuple[list[outcomes.Chart], list[outcomes.Finding], list[str]]:
    """Charts, findings and remarks, in the unit in which the losses were gathered."""
    from llmlab.studies.experiments import analyses

    charts, findings, notes = analyses.analyse(gathered)
    charts, findings = [*charts, *_over_steps(gathered)], [*findings, *_common(gathered)]
    if gathered.scales:
        charts = [
            dataclasses.replace(chart, x_axis=outcomes.in_bits(chart.x_axis), y_axis=outcomes.in_bits(chart.y_axis))
            for chart in charts
        ]
        findings = [dataclasses.replace(one, unit=BITS) if one.unit == NATS else one for one in findings]
    return charts, findings, notes


def _scaled(record: D, names: Sequence[str], scale: float) -> D:
    """A dataclass with these fields multiplied, where they are not None."""
    found = {name: value for name in names if (value := getattr(record, name)) is not None}
    return dataclasses.replace(record, **{name: scale * value for name, value in found.items()})


def _scaled_history(history: RunHistory, scale: float) -> RunHistory:
    """With the losses that the analyses read."""
    made = copy.copy(history)
    made.evaluated = [_scaled(one, ("train_loss", "val_loss"), scale) for one in history.evaluated]
    return made


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


def value_text(trial: Trial) -> str:
    """What distinguishes a trial but for its seed, as a curve's name: `0.003`, `full 0.003`, `rank 8`."""
    parts = [f"{value:g}" if isinstance(value, float) else str(value) for value in trial.varied.values()]
    named = trial.group.split()
    return " ".join([*named, *(part for part in parts if part not in named)])


def _varied_value(record: ExperimentRecord, name: str) -> float:
    """The value of the varied setting of a trial; its place on the x axis where that is no number."""
    trial = record.trial(name)
    value = next(iter(trial.varied.values()), None)
    return float(value) if isinstance(value, (int, float)) else trial.x


def _over_steps(gathered: Gathered) -> list[outcomes.Chart]:
    """Validation loss along training, one curve a value, the mean over its seeds."""
    by_value: dict[str, list[RunHistory]] = defaultdict(list)
    for trial in gathered.record.trials:
        if history := gathered.histories.get(trial.name):
            by_value[value_text(trial)].append(history)
    curves = []
    for name, histories in by_value.items():
        steps: dict[int, list[float]] = defaultdict(list)
        for row in (row for history in histories for row in history.evaluated if np.isfinite(row.val_loss)):
            steps[row.step].append(row.val_loss)
        if steps:
            curves.append(outcomes.Curve(name, [point_of(step, values) for step, values in sorted(steps.items())]))
    chart = outcomes.Chart(
        "over-steps", "Validation loss along training", outcomes.STEP_AXIS, outcomes.LOSS_AXIS, curves
    )
    return [chart] if curves else []


def _common(gathered: Gathered) -> list[outcomes.Finding]:
    """What every experiment can say: the best trial, its loss, the spread, how many diverged."""
    finished = gathered.finished()
    diverged = sum(trial.state == "diverged" for trial in gathered.trials)
    count = outcomes.Finding("diverged", "runs that diverged", float(diverged), unit="run" if diverged == 1 else "runs")
    if not finished:
        return [count]
    record = gathered.record
    values: dict[str, list[outcomes.TrialResult]] = defaultdict(list)
    for trial in finished:
        values[value_text(record.trial(trial.name))].append(trial)
    means = {name: point_of(0.0, [gathered.loss(trial) or 0.0 for trial in trials]) for name, trials in values.items()}
    best = min(means, key=lambda name: means[name].y)
    worst = max(means, key=lambda name: means[name].y)
    first, point = values[best][0], means[best]
    lowest = min(finished, key=lambda trial: gathered.loss(trial) or 0.0)
    of_lowest = value_text(record.trial(lowest.name))
    return [
        count,
        outcomes.Finding("best_arm", "trial with the lowest loss", None, choice=lowest.name, text=of_lowest),
        outcomes.Finding("best", "value with the lowest loss", _varied_value(record, first.name), text=best),
        outcomes.Finding("best_loss", "its validation loss", point.y, point.low, point.high, "nats per token"),
        outcomes.Finding(
            "spread", "loss of the worst value minus the best", means[worst].y - point.y, unit="nats per token"
        ),
    ]


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


def versions(folder: ExperimentFolder, record: ExperimentRecord) -> dict[str, str]:
    """Of the lab and of the libraries that the first run that began recorded."""
    found = {"llmlab": record.code_version}
    for run in folder.runs_of(record):
        try:
            recorded = run.info().versions
        except LabError:
            continue
        if recorded:
            return found | recorded
    return found


# Forecasts ------------------------------------------------------------------------------------------------------------


def forecast_next(folder: ExperimentFolder, record: ExperimentRecord, trial: Trial) -> None:
    """Writes forecast.json from the trials that have finished, unless it is there, or their fit says nothing."""
    begun = (folder.run_of(one, record.track).events.exists() for one in record.trials if one.forecast)
    if outcomes.read_forecast(folder) is not None or any(begun):  # a run of its size with another seed tells as much
        return  # what was not said before is not said afterwards
    gathered = gather(folder, record)
    law = law_of_others(gathered)
    if law is None:
        return
    spread = law.forecast(trial.x)
    forecast = outcomes.Forecast(
        trial=trial.name,
        x=trial.x,
        value=float(law(np.array(trial.x))),
        low=spread[0] if spread else None,
        high=spread[1] if spread else None,
        a=law.a,
        b=law.b,
        c=law.c,
        trials=[one.name for one in gathered.forecast(False)],
        written=time.time(),
    )
    write_json(folder.forecast_json, dataclasses.asdict(forecast))


def law_of_others(gathered: Gathered) -> PowerLaw | None:
    """The power law through all finished trials but those to be predicted."""
    trials = gathered.forecast(False)
    x, y = [trial.x for trial in trials], [gathered.loss(trial) for trial in trials]
    return fit_power_law(np.array(x), np.array(y, dtype=float)) if trials else None
