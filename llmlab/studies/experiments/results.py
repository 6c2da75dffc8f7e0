"""The results of an experiment: what its kind makes of its runs, and what every kind says. No torch."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.store.events import BITS, NATS
from llmlab.store.history import RunHistory
from llmlab.studies.experiments import outcomes
from llmlab.studies.experiments.analyses import analyse
from llmlab.studies.experiments.curves import look_at_run
from llmlab.studies.experiments.gathered import Gathered, gather, hardware, law_of_others, point_of
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.plans.records import TRIAL_ENDED_STATES, ExperimentFolder, ExperimentRecord, Trial


def build_results(
    folder: ExperimentFolder, record: ExperimentRecord, *, look_closely: bool = False
) -> outcomes.ExperimentResults:
    """All that can be said now, from the runs' events and what was measured on their checkpoints.

    look_closely: also what takes seconds (bootstraps are always there; a batch's text and gradient noise are not).
    """
    kind = find_kind(record.kind)
    if not kind.trains:
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
    charts, findings, notes = analyse(gathered)
    charts, findings = [*charts, *_over_steps(gathered)], [*findings, *_common(gathered)]
    if gathered.scales:
        charts = [
            dataclasses.replace(chart, x_axis=outcomes.in_bits(chart.x_axis), y_axis=outcomes.in_bits(chart.y_axis))
            for chart in charts
        ]
        findings = [dataclasses.replace(one, unit=BITS) if one.unit == NATS else one for one in findings]
    return charts, findings, notes


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
            by_value[trial.value_text].append(history)
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
        values[record.trial(trial.name).value_text].append(trial)
    means = {name: point_of(0.0, [gathered.loss(trial) or 0.0 for trial in trials]) for name, trials in values.items()}
    best = min(means, key=lambda name: means[name].y)
    worst = max(means, key=lambda name: means[name].y)
    first, point = values[best][0], means[best]
    lowest = min(finished, key=lambda trial: gathered.loss(trial) or 0.0)
    of_lowest = record.trial(lowest.name).value_text
    return [
        count,
        outcomes.Finding("best_arm", "trial with the lowest loss", None, choice=lowest.name, text=of_lowest),
        outcomes.Finding("best", "value with the lowest loss", _varied_value(record, first.name), text=best),
        outcomes.Finding("best_loss", "its validation loss", point.y, point.low, point.high, "nats per token"),
        outcomes.Finding(
            "spread", "loss of the worst value minus the best", means[worst].y - point.y, unit="nats per token"
        ),
    ]


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
