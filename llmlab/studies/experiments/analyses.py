"""What each kind of experiment makes of its runs: its charts and its numbers, from finished runs only. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from llmlab.core.charts import Axis
from llmlab.store.checkpoints import list_checkpoints
from llmlab.studies.experiments.fits import PowerLaw, fit_minimum, fit_power_law, minimum_range
from llmlab.studies.experiments.gathered import Gathered, law_of_others, mean_points, point_of
from llmlab.studies.experiments.outcomes import (
    BASE,
    STEP_AXIS,
    Chart,
    Curve,
    Finding,
    Fit,
    Mark,
    Measurement,
    Point,
    TrialResult,
    read_measurement,
)
from llmlab.studies.experiments.parallel import parallel
from llmlab.studies.experiments.speedrun import speedrun
from llmlab.studies.plans.records import settings_of
from llmlab.training.schedule import early_evaluations

Analysis = tuple[list[Chart], list[Finding], list[str]]
_DRAWN = 80  # places at which a fitted curve is drawn


def analyse(gathered: Gathered) -> Analysis:
    """Charts (the chief one first), findings, and remarks on what could not be said."""
    kinds: dict[str, Callable[[Gathered], Analysis]] = {
        "learning-rate": _learning_rate,
        "lora-rank": _lora_rank,
        "forgetting": _forgetting,
        "batch-size": _batch_size,
        "data-size": _data_size,
        "scaling": _scaling,
        "width": _size,
        "depth": _size,
        "speedrun": speedrun,
        "parallel": parallel,
    }
    return kinds[gathered.kind.name](gathered)


def _learning_rate(gathered: Gathered) -> Analysis:
    curves, fits, marks, findings, notes = [], [], [], [], []
    of_grid: dict[str, float] = {}
    fitted: dict[str, float] = {}
    for group in gathered.groups:
        trials = gathered.finished(group)
        points = mean_points(trials, gathered.loss)
        cut = sorted({trial.x for trial in gathered.trials if trial.group == group and trial.state == "diverged"})
        marks += [Mark(rate, f"{group} diverged".strip()) for rate in cut]
        if not points:
            continue
        curves.append(Curve(group or "validation loss", points))
        lowest = of_grid[group] = _lowest(points).x
        after = f" ({group})" if group else ""
        suffix = f"_{group}" if group and group != gathered.groups[0] else ""
        findings.append(Finding(f"best_lr{suffix}", f"best learning rate of the grid{after}", lowest))
        steady = [point for point in points if point.x not in cut]  # rates that diverge are no part of the minimum
        x = np.array([point.x for point in steady])
        minimum = fit_minimum(x, np.array([point.y for point in steady]))
        if minimum is None:
            notes.append(
                f"The sweep{after} has no minimum inside the grid: the lowest loss is at {lowest:g}, the first or last "
                "rate that did not diverge. Try a finer or wider grid there."
                if steady and lowest in (steady[0].x, steady[-1].x)
                else f"Too few runs finished{after} to fit a minimum."
            )
            continue
        fitted[group] = minimum.x0
        runs = [np.array([gathered.loss(trial) for trial in trials if trial.x == at], dtype=float) for at in x]
        low, high = minimum_range(x, runs) or (None, None)
        shape = f"parabola through {len(minimum.used)} points"
        if len(minimum.used) == 3:
            shape += ", which three points always fit: a finer grid would tell more"
        # Where the parabola has risen by a hundredth of a nat: how exactly the rate must be met.
        width = float(np.exp(np.sqrt(0.01 / minimum.curvature)))
        findings += [
            Finding(f"fitted_lr{suffix}", f"minimum of the fitted sweep{after}", minimum.x0, low, high, text=shape),
            Finding(f"tolerance{suffix}", f"factor off the minimum that costs 0.01 nats{after}", width, text=shape),
        ]
        drawn = np.geomspace(x[minimum.used[0]], x[minimum.used[-1]], _DRAWN)
        values = {"x0": minimum.x0, "y0": minimum.y0, "k": minimum.curvature}
        curve = drawn.tolist(), minimum(drawn).tolist()
        fits.append(Fit(f"parabola{after}", "y0 + k (ln x - ln x0)^2", values, *curve))
    if {"lora", "full"} <= set(of_grid):
        # Like is compared with like: a minimum between the grid's rates with another, or a rate of the grid with one.
        best, text = of_grid, "rates of the grid, since not both sweeps have a minimum inside it"
        if {"lora", "full"} <= set(fitted):
            best, text = fitted, "minima of the fitted sweeps"
        ratio = best["lora"] / best["full"]
        findings.append(Finding("lora_to_full", "best LoRA rate over best full rate", ratio, text=text))
    return [_chart(gathered, "loss-by-rate", "Validation loss by learning rate", curves, fits, marks)], findings, notes


def _lowest(points: Sequence[Point]) -> Point:
    return min(points, key=lambda point: point.y)


def _lora_rank(gathered: Gathered) -> Analysis:
    curves = _curves(gathered, lambda trial: trial.x)
    by_parameters = _curves(gathered, lambda trial: _trained(gathered, trial))
    title, parameters = "Validation loss by trained parameters", Axis("trained parameters", log=True)
    charts = [
        _chart(gathered, "loss-by-rank", "Validation loss by rank", curves),
        _chart(gathered, "loss-by-parameters", title, by_parameters, x_axis=parameters),
    ]
    findings = []
    for group in gathered.groups:
        points = mean_points(gathered.finished(group), gathered.loss)
        if points:
            suffix = "" if group == gathered.groups[-1] else f"_{group}"
            findings.append(Finding(f"best_rank{suffix}", f"rank with the lowest loss ({group})", _lowest(points).x))
    for name, (step, spread) in zip(("early", "late"), _spread_over_time(gathered) or (), strict=False):
        findings.append(_nats(f"{name}_spread", f"largest difference between ranks at step {step}", spread))
    measured, notes = _measured(gathered)

    def used(trial: TrialResult) -> float | None:
        return measured[trial.name].effective_rank if trial.name in measured else None

    title = "Effective rank that the adapters use, mean over matrices"
    by_group = [Curve(group, mean_points(gathered.finished(group), used)) for group in gathered.groups]
    ranks = _chart(gathered, "effective-rank", title, by_group, y_axis=Axis("effective rank", log=True))
    if used_points := mean_points(gathered.finished(gathered.groups[-1]), used):
        largest = used_points[-1]
        label = f"effective rank used at rank {largest.x:g} ({gathered.groups[-1]})"
        findings.append(Finding("effective_rank", label, largest.y, largest.low, largest.high))
    return [*charts, ranks], findings, notes


def _trained(gathered: Gathered, trial: TrialResult) -> float | None:
    """Trained parameters, as the run's checkpoints say."""
    record = gathered.record
    saved = list_checkpoints(gathered.folder.run_of(record.trial(trial.name), record.track).checkpoints)
    count = saved[-1].about.get("parameters") if saved else None
    return float(count) if isinstance(count, int) else None


def _spread_over_time(gathered: Gathered) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """How far the ranks of the last group lie apart, each the mean over its seeds, after the first interval of
    evaluations, and at the end. Those before it are of the warm-up, where nothing can differ."""
    trials, early = gathered.finished(gathered.groups[-1]), early_evaluations(settings_of(gathered.record).train)
    by_step: dict[int, dict[float, list[float]]] = {}
    for trial in trials:
        for row in gathered.histories[trial.name].evaluated:
            by_step.setdefault(row.step, {}).setdefault(trial.x, []).append(row.val_loss)
    whole = [step for step, ranks in sorted(by_step.items()) if sum(map(len, ranks.values())) == len(trials)]
    whole = [step for step in whole if step and step not in early]
    if len({trial.x for trial in trials}) < 2 or len(whole) < 2:
        return None
    first, last = (
        (step, float(np.ptp([np.mean(losses) for losses in by_step[step].values()]))) for step in (whole[0], whole[-1])
    )
    return first, last


def _size(gathered: Gathered) -> Analysis:
    name = gathered.kind.name
    by_parameters = _curves(gathered, lambda trial: float(trial.parameters) if trial.parameters else None)
    parameters = Axis("parameters", log=True)
    charts = [
        _chart(gathered, f"loss-by-{name}", f"Validation loss by {name}", _curves(gathered, lambda trial: trial.x)),
        _chart(gathered, "loss-by-parameters", "Validation loss by parameters", by_parameters, x_axis=parameters),
        _by_time(gathered),
    ]
    findings = [
        _nats(f"gain_{after.x:g}", f"gained from {before.x:g} to {after.x:g}", before.y - after.y)
        for before, after in pairwise(mean_points(gathered.finished(), gathered.loss))
    ]
    return charts, findings, []


def _batch_size(gathered: Gathered) -> Analysis:
    charts = [
        _chart(gathered, "loss-by-batch", "Validation loss by batch size", _curves(gathered, lambda trial: trial.x)),
        _by_time(gathered),
    ]
    points = mean_points(gathered.finished(), gathered.loss)
    if not points:
        return charts, [], []
    # The largest batch that costs less than 0.02 nats against the best: about what a seed changes in a small model.
    largest = max(point.x for point in points if point.y <= _lowest(points).y + 0.02)
    finding = Finding("largest_batch", "largest batch within 0.02 nats of the best", largest, unit="sequences")
    return charts, [finding], []


def _data_size(gathered: Gathered) -> Analysis:
    def read(trial: TrialResult) -> float | None:
        started = gathered.histories[trial.name].worker
        return float(started.train_tokens) if started and started.train_tokens else None

    finished = gathered.finished()
    best = mean_points(finished, gathered.loss, read)
    last = mean_points(finished, lambda trial: trial.val_loss, read)
    train = mean_points(finished, lambda trial: trial.train_loss, read)
    curves = [
        Curve("lowest validation loss", best),
        Curve("validation loss at the end", last, faint=True),
        Curve("training loss at the end", train, faint=True),
    ]
    sized = [(size, trial) for trial in finished if (size := read(trial))]
    pairs = [(size, loss) for size, trial in sized if (loss := gathered.loss(trial))]
    law = fit_power_law(*np.array(pairs, dtype=float).reshape(-1, 2).T)
    fits, findings, notes = _law(law, [point.x for point in best], "tokens")
    if sized:  # by what was read: 0 on the x axis is all of the text
        size, smallest = min(sized, key=lambda pair: pair[0])
        history = gathered.histories[smallest.name]
        if len(history.step_columns):
            times = float(history.step_columns["tokens"][-1] / size)
            findings.append(Finding("repetitions", "how often the smallest text was read", times))
    if best and last:
        above = last[0].y - best[0].y
        findings.append(_nats("overfitting", "loss at the end above the lowest, smallest text", above))
    chart = _chart(gathered, "loss-by-data", "Loss by training text", [curve for curve in curves if curve.points], fits)
    return [chart], findings, notes


def _scaling(gathered: Gathered) -> Analysis:
    fitted, target = gathered.forecast(False), gathered.forecast(True)
    measured = mean_points(target, gathered.loss)
    curves = [
        Curve("measured, fitted", mean_points(fitted, gathered.loss), line=False),
        Curve("measured afterwards", measured, line=False),
    ]
    forecast = gathered.read_forecast()
    if forecast is not None:
        predicted = Point(forecast.x, forecast.value, forecast.low, forecast.high)
        curves.append(Curve("predicted before (90 %)", [predicted], line=False))
    law = law_of_others(gathered)
    reach = [point.x for curve in curves for point in curve.points]
    fits, findings, notes = _law(law, reach, "parameters")
    if measured:
        point = measured[0]
        findings.insert(0, _nats("next_loss", "loss of the largest model", point.y, point.low, point.high))
    if forecast is not None:
        findings.append(_nats("forecast", "its predicted loss", forecast.value, forecast.low, forecast.high))
        if measured:
            error = measured[0].y - forecast.value
            findings.append(_nats("forecast_error", "measured minus predicted", error))
    elif measured:
        notes.append("No prediction had been written when the largest model was trained.")
    chart = _chart(gathered, "scaling-law", "Validation loss by size", [one for one in curves if one.points], fits)
    return [chart], findings, notes


def _law(law: PowerLaw | None, reach: list[float], of: str) -> tuple[list[Fit], list[Finding], list[str]]:
    """A power law as a fit to draw, its exponent, and what to say where there is none."""
    if law is None or not reach:
        return [], [], [f"No power law fits: it takes three sizes or more, and a loss that falls with {of}."]
    x = np.geomspace(min(reach), max(reach), _DRAWN)
    band = law.band(x)
    low, high = (band[0].tolist(), band[1].tolist()) if band is not None else ([], [])
    fit = Fit("power law", "a x^-b + c", {"a": law.a, "b": law.b, "c": law.c}, x.tolist(), law(x).tolist(), low, high)
    spread = law.exponent_range() or (None, None)
    findings = [
        Finding("exponent", "exponent b of the power law", law.b, *spread),
        _nats("constant", "loss that no size gets below, by this fit", law.c),
    ]
    if law.noise is not None:
        findings.append(_nats("noise", "scatter of a run about the fit", law.noise))
    return [fit], findings, []


def _curves(gathered: Gathered, x: Callable[[TrialResult], float | None]) -> list[Curve]:
    """Each group's loss by `x`."""
    curves = [
        Curve(group or "validation loss", mean_points(gathered.finished(group), gathered.loss, x))
        for group in gathered.groups
    ]
    return [curve for curve in curves if curve.points]


def _by_time(gathered: Gathered) -> Chart:
    """Loss against the time that training took: what a machine pays for it."""
    points = []
    for point in mean_points(gathered.finished(), gathered.loss):
        trials = [trial for trial in gathered.finished() if trial.x == point.x]
        seconds = float(np.mean([trial.seconds for trial in trials]))
        points.append(replace(point, x=seconds, label=f"{point.x:g}"))
    curves = [Curve("validation loss", points)] if points else []
    spent = Axis("time spent training", "seconds", log=True)
    return _chart(gathered, "loss-by-time", "Validation loss by training time", curves, x_axis=spent)


def _chart(
    gathered: Gathered,
    name: str,
    title: str,
    curves: list[Curve],
    fits: list[Fit] | None = None,
    marks: list[Mark] | None = None,
    *,
    x_axis: Axis | None = None,
    y_axis: Axis | None = None,
) -> Chart:
    """Its axes are the kind's, where not said otherwise."""
    kind = gathered.kind
    return Chart(name, title, x_axis or kind.x_axis, y_axis or kind.y_axis, curves, fits or [], marks or [])


def _nats(name: str, label: str, value: float, low: float | None = None, high: float | None = None) -> Finding:
    """A loss, or a difference of losses."""
    return Finding(name, label, value, low, high, "nats per token")


def _measured(gathered: Gathered) -> tuple[dict[str, Measurement], list[str]]:
    """What was measured on the checkpoints of finished runs, by trial, and why something could not be."""
    found = {trial.name: read_measurement(gathered.folder, trial.name) for trial in gathered.finished()}
    measured = {name: one for name, one in found.items() if one is not None}
    return measured, sorted({one.note for one in measured.values() if one.note})


# Forgetting -----------------------------------------------------------------------------------------------------------

FULL_GROUP = "full"


def _forgetting(gathered: Gathered) -> Analysis:
    """Both losses along the checkpoints' steps, the Pareto front, and how much each method forgot."""
    measured, notes = _measured(gathered)
    ranks = [group for group in gathered.groups if group != FULL_GROUP]
    paths, general, findings = [], [], []
    for group in gathered.groups:
        trials = [trial for trial in gathered.finished(group) if trial.name in measured]
        along, path = _along(gathered, trials, measured)
        general += [Curve(group, along)] if along else []
        paths += [Curve(group, path)] if path else []
        losses = [[loss for _, loss in measured[trial.name].general] for trial in trials]
        if rises := [one[-1] - one[0] for one in losses if len(one) > 1]:
            key, point = group.replace(" ", "_"), point_of(0.0, rises)
            name = "forgotten_full" if group == FULL_GROUP else "forgotten"
            name += f"_{key}" if group in ranks[:-1] else ""
            findings.append(_nats(name, f"rise of the loss on general text, {group}", point.y, point.low, point.high))
            point = point_of(0.0, [trial.val_loss for trial in trials if trial.val_loss is not None])
            label = f"validation loss of the task, {group}"
            findings.append(_nats(f"task_loss_{key}", label, point.y, point.low, point.high))
    front = pareto_front([point for curve in paths for point in curve.points])
    curves = [*paths, Curve("Pareto front", front, faint=True)] if len(front) > 1 else paths
    title, y_axis = "Loss on general text along training", Axis("loss on general text", "nats per token")
    charts = [
        _chart(gathered, "learned-against-forgotten", "What was learned and what was lost", curves),
        _chart(gathered, "general-over-steps", title, general, x_axis=STEP_AXIS, y_axis=y_axis),
    ]
    base = read_measurement(gathered.folder, BASE)
    if base is not None and base.general:
        label = f"loss of the base on {base.text} ({base.tokens:,} tokens)"
        findings.append(_nats("general_before", label, base.general[0][1]))
    return charts, findings, notes


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both losses, by the first: lower is better in both."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not front or point.y < front[-1].y:
            front.append(Point(point.x, point.y, label=point.label))
    return front


def _along(
    gathered: Gathered, trials: Sequence[TrialResult], measured: Mapping[str, Measurement]
) -> tuple[list[Point], list[Point]]:
    """General loss by step, and (task loss, general loss) from step to step; means over seeds."""
    general: dict[float, list[float]] = defaultdict(list)
    both: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for trial in trials:
        task = {row.step: row.val_loss for row in gathered.histories[trial.name].evaluated}
        for step, loss in measured[trial.name].general:
            general[step].append(loss)
            if int(step) in task:
                both[int(step)].append((task[int(step)], loss))
    path = [
        point_of(float(np.mean([x for x, _ in pairs])), [y for _, y in pairs], f"step {step}")
        for step, pairs in sorted(both.items())
    ]
    return [point_of(step, losses) for step, losses in sorted(general.items())], path
