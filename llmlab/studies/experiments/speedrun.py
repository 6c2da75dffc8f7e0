"""What a speedrun makes of its runs: how much faster the record is, and what each lever is worth. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from llmlab.core.charts import Axis
from llmlab.studies.experiments.gathered import Gathered, point_of
from llmlab.studies.experiments.outcomes import LOSS_AXIS, Chart, Curve, Finding, TrialResult
from llmlab.studies.experiments.recipes import ADDED, BASELINE, RECORD, WITHOUT

# What `TrialResult.seconds` counts (llmlab.training.pace).
_CLOCK = (
    "Training time is that of the steps: batches, both passes, the optimizer, averaging. Starting the process, "
    "measuring losses and saving are not in it; compiling, where a run compiles its model, is in its first step."
)


def speedrun(gathered: Gathered) -> tuple[list[Chart], list[Finding], list[str]]:
    """Loss by time, loss by lever; how much faster the record is, and what each lever is worth."""
    findings, notes = _race(gathered)
    return [_by_time(gathered), _by_lever(gathered)], [*findings, *_worth(gathered)], [_CLOCK, *notes]


def _race(gathered: Gathered) -> tuple[list[Finding], list[str]]:
    """The record against the baseline, seed by seed."""
    baseline, record = (_by_seed(gathered.finished(part)) for part in (BASELINE, RECORD))
    seeds = [seed for seed in baseline if seed in record]
    if not seeds:
        return [], ["The record and the baseline have not finished with a common seed yet."]
    losses = [{seed: gathered.loss(trial) or 0.0 for seed, trial in part.items()} for part in (baseline, record)]
    pairs = [(baseline[seed], record[seed]) for seed in seeds]
    margins = [losses[0][seed] - losses[1][seed] for seed in seeds]
    reached = float(np.mean(margins)) >= 0
    under = sum(losses[1][seed] <= float(np.mean([*losses[0].values()])) for seed in losses[1])
    speedups = [a.seconds / b.seconds for a, b in pairs if b.seconds] if reached else []
    findings = [
        *([_mean("speedup", "training time of the baseline over the record's", speedups)] if speedups else []),
        _mean("baseline_seconds", "training time of the baseline", [one.seconds for one in baseline.values()], "s"),
        _mean("record_seconds", "training time of the record", [one.seconds for one in record.values()], "s"),
        _mean("baseline_loss", "loss of the baseline", [*losses[0].values()], LOSS_AXIS.unit),
        _mean("record_loss", "loss of the record", [*losses[1].values()], LOSS_AXIS.unit),
        _mean(
            "margin",
            "loss of the baseline minus the record's",
            margins,
            LOSS_AXIS.unit,
            f"{under} of {len(record)} seeds are at or below the baseline's mean",
        ),
    ]
    for name, label, of in (
        ("tokens_share", "tokens that the record reads, over the baseline's", "tokens"),
        ("parameters_share", "parameters of the record, over the baseline's", "parameters"),
    ):
        values = [getattr(b, of) / getattr(a, of) for a, b in pairs if getattr(a, of) and getattr(b, of)]
        findings += [_mean(name, label, values)] if values else []
    short = "The record does not reach the baseline's loss: there is no speedup to tell."
    return findings, [] if reached else [short]


def _worth(gathered: Gathered) -> list[Finding]:
    """What each lever lowers the loss by when it is added, and what is lost without it; with the time that it takes."""
    findings = []
    chain = _recipes(gathered, (ADDED, RECORD))
    for (_, before), (lever, after) in pairwise(chain):
        findings += _difference(gathered, f"gain_{_key(lever)}", f"gained by adding {lever}", before, after, 1.0)
    if record := _by_seed(gathered.finished(RECORD)):
        for lever, without in _recipes(gathered, (WITHOUT,)):
            label = f"lost without {lever}"
            findings += _difference(gathered, f"without_{_key(lever)}", label, record, without, -1.0)
    return findings


def _difference(
    gathered: Gathered,
    name: str,
    label: str,
    before: dict[int, TrialResult],
    after: dict[int, TrialResult],
    sign: float,
) -> list[Finding]:
    pairs = [(before[seed], after[seed]) for seed in before if seed in after]
    if not pairs:
        return []
    values = [sign * ((gathered.loss(a) or 0.0) - (gathered.loss(b) or 0.0)) for a, b in pairs]
    times = [b.seconds / a.seconds for a, b in pairs if a.seconds]
    text = f"takes {np.mean(times):.2f} times as long" if times else ""
    return [_mean(name, label, values, LOSS_AXIS.unit, text)]


def _recipes(gathered: Gathered, parts: Sequence[str]) -> list[tuple[str, dict[int, TrialResult]]]:
    """The finished runs of each recipe by their seeds, in the order of the plan; those that have any."""
    found: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in gathered.finished():
        if trial.group in parts:
            found[_lever(gathered, trial)].append(trial)
    return [(lever, _by_seed(trials)) for lever, trials in found.items()]


def _lever(gathered: Gathered, trial: TrialResult) -> str:
    """What was added to, or left out of, a trial's recipe; of the record, the last one that was added."""
    if trial.group != RECORD:
        return str(gathered.record.trial(trial.name).varied["lever"])
    alone = (one for one in gathered.record.trials if one.group == WITHOUT and one.x == trial.x)
    return next((str(one.varied["lever"]) for one in alone), RECORD)


def _by_seed(trials: Sequence[TrialResult]) -> dict[int, TrialResult]:
    return {trial.seed: trial for trial in trials}


def _key(lever: str) -> str:
    return lever.lower().replace(" ", "_").replace("-", "_")


def _mean(name: str, label: str, values: Sequence[float], unit: str = "", text: str = "") -> Finding:
    point = point_of(0.0, values)
    return Finding(name, label, point.y, point.low, point.high, unit, text)


def _by_lever(gathered: Gathered) -> Chart:
    def curve(name: str, parts: Sequence[str]) -> Curve:
        points = []
        for lever, trials in _recipes(gathered, parts):
            losses = [gathered.loss(trial) or 0.0 for trial in trials.values()]
            points.append(point_of(next(iter(trials.values())).x, losses, lever))
        return Curve(name, points, line=parts != (WITHOUT,))

    added, left_out = curve("added in turn", (ADDED, RECORD)), curve("the record without it", (WITHOUT,))
    if len(added.points) > 1:  # the same names stand above one another
        left_out = replace(left_out, points=[replace(point, label="") for point in left_out.points])
    title = "Loss after as many steps as the record"
    axis = gathered.kind.x_axis
    return Chart("loss-by-lever", title, axis, gathered.kind.y_axis, [one for one in (added, left_out) if one.points])


def _by_time(gathered: Gathered) -> Chart:
    """Means over seeds of the losses measured along training, at the mean of the times at which they were."""
    recipes: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in gathered.finished():
        if trial.group != WITHOUT:
            recipes[gathered.record.trial(trial.name).value_text].append(trial)
    curves = []
    for name, trials in recipes.items():
        at: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for trial in trials:
            history = gathered.histories[trial.name]
            steps = np.array([row.step for row in history.evaluated], dtype=float)
            seconds = np.where(steps > 0, history.x("active_seconds", steps), 0.0)
            for row, second in zip(history.evaluated, seconds, strict=True):
                at[row.step].append((float(second), row.val_loss))
        points = [
            point_of(float(np.mean([second for second, _ in pairs])), [loss for _, loss in pairs])
            for _, pairs in sorted(at.items())
        ]
        curves.append(Curve(name, points, faint=trials[0].group == ADDED))
    return Chart("loss-by-time", "Loss by training time", Axis("training time", "seconds"), LOSS_AXIS, curves)
