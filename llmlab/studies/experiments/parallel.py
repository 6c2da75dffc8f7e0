"""What several processes cost and change, from runs that differ in nothing else: speed, bytes, waiting, losses.

Bytes are by formula (llmlab.training.parallel), all else is measured. No torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmlab.core.charts import Axis
from llmlab.gpt.estimate import bytes_sent
from llmlab.store.history import RunHistory
from llmlab.studies.experiments.gathered import Gathered, mean_points
from llmlab.studies.experiments.outcomes import STEP_AXIS, Chart, Curve, Finding, Point, TrialResult
from llmlab.studies.experiments.plan import ALONE
from llmlab.studies.plans.records import settings_of

# Relative, of a step's loss: sums in another order, in fp32 (llmlab.training.parallel). It grows with every step.
BOUND, BOUND_STEPS = 1e-5, 30
_PROCESSES = Axis("processes")


def parallel(gathered: Gathered) -> tuple[list[Chart], list[Finding], list[str]]:
    """Charts by number of processes; what each strategy costs with each number, and how far its losses are off."""
    alone = {trial.seed: trial for trial in gathered.finished(ALONE)}
    several = [trial for trial in gathered.finished() if trial.group != ALONE]

    def speed(trial: TrialResult) -> float | None:
        return _speed(gathered.histories[trial.name])

    def sent(trial: TrialResult) -> float | None:
        settings = settings_of(gathered.record, gathered.record.trial(trial.name))
        if trial.parameters is None:
            return None
        return bytes_sent(settings, trial.parameters, trial.parameters) / 1e6

    def waiting(trial: TrialResult) -> float | None:
        shares = gathered.histories[trial.name].shares
        return float(np.mean([share.waiting for share in shares])) if shares else None

    def off(trial: TrialResult) -> float | None:
        found = _differences(gathered, alone, trial)
        return max((difference for step, difference in found if step <= BOUND_STEPS), default=None)

    measures = (
        ("speed", "tokens a second", speed, ""),
        ("megabytes", "sent by each process in a step, by formula", sent, "MB"),
        ("waiting", "share of the time in which even the slowest process waits", waiting, ""),
        ("difference", f"largest relative difference of a loss in {BOUND_STEPS} steps", off, ""),
    )
    findings = _chief(several, alone, speed, off)
    for trial in alone.values():
        if (found := speed(trial)) is not None:
            which = "" if trial is next(iter(alone.values())) else f"_{trial.seed}"
            findings.append(Finding(f"speed_one{which}", "tokens a second", found, text="one process"))
    for name, label, measure, unit in measures:
        for trial in several:
            if (value := measure(trial)) is not None:
                which = f"{trial.group}_{trial.x:g}" + ("" if trial.seed == several[0].seed else f"_{trial.seed}")
                text = f"{trial.group}, {trial.x:g} processes"
                findings.append(Finding(f"{name}_{which}", label, value, unit=unit, text=text))
    charts = [
        _chart(gathered, "speed", "Tokens a second of all processes together", Axis("tokens a second"), speed),
        _chart(gathered, "bytes", "Sent by each process in a step (formula)", Axis("sent", "MB"), sent),
        _chart(gathered, "waiting", "Waiting (measured)", Axis("share of the time", ""), waiting),
        _by_step(gathered, alone, several),
    ]
    notes = [] if alone else ["No run of one process has finished yet: there is nothing to compare with."]
    if any(one.at_once > 1 for one in gathered.folder.recorded_status().trials.values()):
        notes.append("Some of its runs trained at the same time: speed and waiting are not those of a run alone.")
    settings = settings_of(gathered.record)
    if getattr(settings.model, "dropout", 0.0):
        notes.append("With dropout each process draws masks of its own, and losses differ by more than rounding.")
    return charts, findings, notes


def _chief(
    several: list[TrialResult],
    alone: dict[int, TrialResult],
    speed: Callable[[TrialResult], float | None],
    off: Callable[[TrialResult], float | None],
) -> list[Finding]:
    """The largest gain, and the largest difference beside its bound."""
    findings = []
    gains = [
        (found / one, trial)
        for trial in several
        if trial.seed in alone and (found := speed(trial)) and (one := speed(alone[trial.seed]))
    ]
    if gains:
        gain, of = max(gains, key=lambda pair: pair[0])
        text = f"{of.group}, {of.x:g} processes"
        findings.append(Finding("processes_gain", "tokens a second of the fastest, over one process", gain, text=text))
    if differences := [value for trial in several if (value := off(trial)) is not None]:
        largest = max(differences)
        within = "within" if largest <= BOUND else "BEYOND"
        text = f"{within} the bound of {BOUND:g}"
        label = f"largest relative difference of a loss from one process in {BOUND_STEPS} steps"
        findings.append(Finding("losses_difference", label, largest, text=text))
    return findings


def _speed(history: RunHistory) -> float | None:
    """The median over the second half of the steps: the first ones begin everything."""
    speeds = history.step_columns["tokens_per_second"]
    late = speeds[len(speeds) // 2 :]
    late = late[np.isfinite(late) & (late > 0)]
    return float(np.median(late)) if len(late) else None


def _differences(gathered: Gathered, alone: dict[int, TrialResult], trial: TrialResult) -> list[tuple[int, float]]:
    """By step: |loss - loss of one process| / that; of steps that both have."""
    if trial.seed not in alone:
        return []
    columns = [gathered.histories[one.name].step_columns for one in (alone[trial.seed], trial)]
    steps, here, there = np.intersect1d(columns[0]["step"], columns[1]["step"], return_indices=True)
    losses, others = columns[0]["loss"][here], columns[1]["loss"][there]
    return [(int(step), float(off)) for step, off in zip(steps, np.abs(others - losses) / losses, strict=True)]


def _chart(
    gathered: Gathered, name: str, title: str, axis: Axis, measure: Callable[[TrialResult], float | None]
) -> Chart:
    """One curve a strategy, each beginning with the one process that all have in common."""
    first = mean_points(gathered.finished(ALONE), measure)
    curves = []
    for group in gathered.groups:
        points = mean_points(gathered.finished(group), measure)
        if group != ALONE and points:
            curves.append(Curve(group, [*first, *points]))
    return Chart(f"{name}-by-processes", title, _PROCESSES, axis, curves)


def _by_step(gathered: Gathered, alone: dict[int, TrialResult], several: list[TrialResult]) -> Chart:
    curves, last = [], 0
    for trial in several:
        found = [(step, off) for step, off in _differences(gathered, alone, trial) if off > 0]  # none has no logarithm
        if found:
            curves.append(Curve(f"{trial.group} {trial.x:g}", [Point(step, off) for step, off in found]))
            last = max(last, found[-1][0])
    if curves:
        bound = [Point(step, BOUND) for step in (1, min(BOUND_STEPS, last))]
        curves.append(Curve(f"bound for {BOUND_STEPS} steps", bound, faint=True))
    axis = Axis("relative difference of the loss", log=True)
    return Chart("difference-by-step", "Losses beside those of one process", STEP_AXIS, axis, curves)
