"""Are held-out sums got right long after the training sums, and only with weight decay? Verdicts and their plots.

Each claim is judged seed by seed (llmlab.studies.papers.agreement).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from llmlab.core.charts import DASHED, LINE, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_seeds
from llmlab.studies.papers.charting import cell, level, table
from llmlab.studies.papers.grokking import thresholds as bounds
from llmlab.studies.papers.grokking.plan import LATE, WEIGHT_DECAY
from llmlab.studies.papers.grokking.thresholds import TEXTS
from llmlab.studies.papers.grokking.trajectory import Trajectory
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import mean_of, median_of

# Late -----------------------------------------------------------------------------------------------------------------


def judge_late(run: Trajectory) -> str:
    """One run; inconclusive where it did not generalise within its steps."""
    times = run.late_times
    if times is None:
        return INCONCLUSIVE
    if times >= bounds.LATE_TIMES:
        return SUPPORTED
    return NOT_SUPPORTED if times < bounds.TOGETHER_TIMES else INCONCLUSIVE


def late_verdict(with_decay: Sequence[Trajectory]) -> Verdict:
    """The claim that held-out sums are got right long after the training sums."""
    times = [run.late_times for run in with_decay if run.late_times is not None]
    return TEXTS.verdict(
        LATE,
        of_seeds({run.seed: judge_late(run) for run in with_decay}),
        *median_of(times),
        said=_late_said(with_decay, times),
        n=len(with_decay),
        charts=[accuracy_chart(with_decay)],
        tables=[steps_table(with_decay)],
    )


def _late_said(runs: Sequence[Trajectory], times: Sequence[float]) -> Iterator[str]:
    """How late; and what is right just after the fit, by whether the sum was seen the other way round."""
    yield TEXTS.say("late", count=len(times), runs=len(runs))
    if times:
        yield TEXTS.say("late-times", times=span(times, ".3g"))
    if seen := [(run, run.fitted) for run in runs if run.fitted is not None and run.held_mirrored and run.held_new]:
        mirrored, new = np.mean([(run.held_mirrored[at], run.held_new[at]) for run, at in seen], axis=0)
        yield TEXTS.say("late-plateau", mirrored=mirrored, new=new, chance=1 / runs[0].modulus)


# Weight decay ---------------------------------------------------------------------------------------------------------


def judge_decay(run: Trajectory, without: Trajectory, median: float | None) -> str:
    """One seed, trained with and without. median: steps that runs with weight decay took to generalise."""
    if run.generalised is None or median is None:
        return INCONCLUSIVE
    enough = bounds.WITHOUT_TIMES * median
    if without.generalised is None:
        return SUPPORTED if without.steps[-1] >= enough else INCONCLUSIVE
    return NOT_SUPPORTED if without.steps[without.generalised] < enough else INCONCLUSIVE


def decay_verdict(
    with_decay: Sequence[Trajectory], without: Sequence[Trajectory], between: Sequence[Trajectory] = ()
) -> Verdict:
    """The claim that weight decay brings generalisation about. between: runs with less of it, shown beside."""
    pairs = [(run, other) for run in with_decay for other in without if run.seed == other.seed]
    took = [run.steps[run.generalised] for run in with_decay if run.generalised is not None]
    median = float(np.median(took)) if took else None
    last = [run.held_accuracy[-1] for run in without]
    lasted = min(run.steps[-1] for run in without)
    decay: dict[str, object] = {"decay": with_decay[0].weight_decay, "took": len(took), "runs": len(with_decay)}
    decay["after"] = f", after {span(took, ',')} steps" if took else ""
    reached = sum(run.generalised is not None for run in without)
    said = [TEXTS.say("decay", **decay, reached=reached, without=len(without), lasted=lasted, last=span(last, ".0%"))]
    said += [TEXTS.say("decay-times", times=lasted / median)] if median is not None else []
    return TEXTS.verdict(
        WEIGHT_DECAY,
        of_seeds({run.seed: judge_decay(run, other, median) for run, other in pairs}),
        *mean_of(last),
        said=said,
        n=len(with_decay) + len(without),
        charts=[decay_chart([with_decay, *([run] for run in between), without])],
        tables=[steps_table([*with_decay, *between, *without])],
    )


# Plots ----------------------------------------------------------------------------------------------------------------


def accuracy_chart(with_decay: Sequence[Trajectory]) -> Chart:
    """Held-out accuracy of every seed, and that on the training sums."""
    runs = [line(f"held out, seed {run.seed}", run, run.held_accuracy) for run in with_decay]
    known = [line(f"training sums, seed {run.seed}", run, run.train_accuracy, DASHED) for run in with_decay[:1]]
    return TEXTS.chart("grokking", [*runs, *known, _chance(with_decay[0])], decay=with_decay[0].weight_decay)


def decay_chart(groups: Sequence[Sequence[Trajectory]]) -> Chart:
    """Held-out accuracy by weight decay: mean over seeds, with the lowest and highest."""
    series = []
    for runs in groups:
        count = min(len(run.steps) for run in runs)
        values = np.array([run.held_accuracy[:count] for run in runs])
        name = f"weight decay {runs[0].weight_decay:g}"
        steps, low, high = [*map(float, runs[0].steps[:count])], values.min(0).tolist(), values.max(0).tolist()
        series.append(Series(name, steps, values.mean(0).tolist(), LINE, low, high))
    longest = max((run for runs in groups for run in runs), key=lambda run: run.steps[-1])
    return TEXTS.chart("weight-decay", [*series, _chance(longest)])


def steps_table(runs: Sequence[Trajectory]) -> Table:
    """When each run fitted and generalised, and how it ended."""
    columns = {
        "weight decay": [f"{run.weight_decay:g}" for run in runs],
        "seed": [str(run.seed) for run in runs],
        "fitted, step": [step_cell(run, run.fitted) for run in runs],
        "generalised, step": [step_cell(run, run.generalised) for run in runs],
        "times as late, at least": [cell(run.late_times, ".3g") for run in runs],
        "last step": [f"{run.steps[-1]:,}" for run in runs],
        "training accuracy at the end": [f"{run.train_accuracy[-1]:.1%}" for run in runs],
        "held-out": [f"{run.held_accuracy[-1]:.1%}" for run in runs],
    }
    return table("When sums were learned", columns)


def line(name: str, run: Trajectory, values: Sequence[float], kind: str = LINE) -> Series:
    return Series(name, [*map(float, run.steps)], list(values), kind)


def _chance(run: Trajectory) -> Series:
    return level("guessing", 1 / run.modulus, [float(run.steps[0]), float(run.steps[-1])])


def step_cell(run: Trajectory, place: int | None) -> str:
    return "never" if place is None else f"{run.steps[place]:,}"


def span(values: Sequence[float], form: str) -> str:
    """`3 to 5`, or one number where all are alike."""
    ends = [f"{end:{form}}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))
